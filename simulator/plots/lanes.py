"""The lanes of a Gantt chart: bars, arrows, marks, the critical path, and the names of the threads."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.lines import Line2D

from simulator.plots.canvas import fitted, text_width
from simulator.plots.chart import Chart
from simulator.plots.style import CANCELLED, FONT, INK, STYLES, BarStyle, set_hatch
from simulator.timeline import SpanKind

_UNDER = 0.385  # how far below the middle of its lane the critical path runs
_CROWD = 40  # lanes from which arrows are thinned
_HATCHED = 8.0  # points of a lane below which a hatch is mud

Segments = Sequence[tuple[tuple[float, float], tuple[float, float]]]


def draw_lanes(ax: Axes, chart: Chart, pitch: float, arrows: bool, room: float) -> float:
    """Draw everything of a Gantt chart but its titles; return the width of the names in points.

    `pitch` is the height of a lane in points, and `room` what names may take of the width.
    """
    count = len(chart.lanes)
    full = min(pitch / 20, 1.0)  # 1 where lanes have their full height
    for lane in range(1, count, 2) if pitch >= 8 else ():
        ax.axhspan(lane - 0.5, lane + 0.5, color=INK.band, linewidth=0, zorder=0)
    _spans(ax, chart, pitch)
    if arrows:
        _arrows(ax, chart, full)
    stuck = [((begin, lane), (end, lane)) for begin, end, lane in chart.stuck]
    _lines(ax, stuck, "stuck", colors=INK.cut, linewidths=0.6 + 0.6 * full, linestyles=(0, (1, 1.5)), zorder=3)
    _marks(ax, chart.brief, "brief", marker="D", color=INK.curve, markersize=2 + 2.5 * full)
    cross: dict[str, Any] = {"marker": "x", "markersize": 2.5 + 4 * full, "markeredgewidth": 0.6 + 0.9 * full}
    _marks(ax, chart.cuts, "cut", color=INK.cut, **cross)
    _path(ax, chart.path, 1.9 + 0.7 * full)
    if not math.isnan(chart.answered):
        ax.axvline(chart.answered, color=INK.answer, linewidth=0.8, zorder=1, gid="answer")
        if chart.end - chart.answered > 0.02 * (chart.end - chart.start):
            note: dict[str, Any] = {"fontsize": FONT - 0.5, "color": INK.quiet, "ha": "right", "va": "bottom"}
            ax.annotate("answer", (chart.answered, 1), (0, 1), ax.get_xaxis_transform(), "offset points", **note)
    ax.set_ylim(count - 0.5 + 0.1 * (count < 4), -0.5)
    width = _names(ax, chart, pitch, room)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color(INK.faint)
    return width


def _spans(ax: Axes, chart: Chart, pitch: float) -> None:
    bars: dict[str, tuple[BarStyle, list[tuple[int, float, float]]]] = {}
    for lane, span in chart.spans:
        gid, style = span.kind.value, STYLES[span.kind]
        if span.cancelled and span.kind in (SpanKind.DECODE, SpanKind.DELAY):
            gid, style = f"{gid} cancelled", CANCELLED
        bars.setdefault(gid, (style, []))[1].append((lane, span.start, span.finish))
    for gid in sorted(bars):
        _bars(ax, bars[gid][1], bars[gid][0], gid, pitch)


def _bars(ax: Axes, bars: Sequence[tuple[int, float, float]], style: BarStyle, gid: str, pitch: float) -> None:
    """Add bars of one style as one collection: a hundred threads have thousands."""
    lane, begin, end = np.array(bars, dtype=np.float64).T
    top, bottom = lane - style.height / 2, lane + style.height / 2
    corners = np.stack([begin, top, end, top, end, bottom, begin, bottom], axis=1).reshape(-1, 4, 2)
    face, edge = style.face, style.edge
    if pitch < _HATCHED:
        face = edge = style.flat or style.face
    collection = PolyCollection(
        list(corners),
        facecolors=face,
        edgecolors=edge,
        # An outline in its own colour keeps a bar of one token visible among a million.
        linewidths=0.0 if pitch < 3 else 0.5 if edge != face else 0.3,
        zorder=2,
        gid=gid,
    )
    if pitch >= _HATCHED:
        set_hatch(collection, style.hatch)
    ax.add_collection(collection, autolim=False)


def _path(ax: Axes, corners: Sequence[tuple[float, int]], wide: float) -> None:
    """Add the critical path: heavy under what bound the query, lighter from lane to lane."""
    points = [(time, lane + _UNDER) for time, lane in corners]
    stays: list[tuple[tuple[float, float], tuple[float, float]]] = []
    links = []
    for begin, end in zip(points[::2], points[1::2], strict=True):
        if stays and stays[-1][1] == begin:
            stays[-1] = (stays[-1][0], end)
        else:
            links += [(stays[-1][1], begin)] if stays else []
            stays.append((begin, end))
    for gid, segments, width in (("critical_path link", links, 0.6 * wide), ("critical_path", stays, wide)):
        _lines(ax, segments, gid, colors=INK.path, linewidths=width, capstyle="projecting", zorder=6, clip_on=False)


def _arrows(ax: Axes, chart: Chart, full: float) -> None:
    """Add Forks, straight down, and Joins, along the worker's lane and straight up."""
    reach = STYLES[SpanKind.DECODE].height / 2
    dense = len(chart.lanes) > _CROWD
    gap = (0.008 if dense else 0.002) * (chart.end - chart.start)
    forks = _apart(chart.forks, gap)
    joins = _apart([(at, parent, lane) for _, at, lane, parent in chart.joins], gap)
    ink: dict[str, Any] = {"colors": INK.faint if dense else INK.arrow, "linewidths": 0.4 + 0.4 * full, "zorder": 1.5}
    _lines(ax, [((time, parent + reach), (time, lane - reach)) for time, parent, lane in forks], "fork", **ink)
    _lines(ax, [((at, lane), (at, parent + reach)) for at, parent, lane in joins], "join", **ink)
    rests = [((done, lane), (at, lane)) for done, at, lane, _ in chart.joins if at > done]
    _lines(ax, rests, "rest", linestyles=(0, (1, 2)), **ink)
    if not dense:
        head: dict[str, Any] = {"color": INK.arrow, "markersize": 1.2 + 2.6 * full, "markeredgewidth": 0}
        head["zorder"] = 5
        _marks(ax, [(time, lane - reach - 0.06) for time, _, lane in forks], "fork head", marker="v", **head)
        _marks(ax, [(at, parent + reach + 0.06) for at, parent, _ in joins], "join head", marker="^", **head)


def _apart(arrows: Sequence[tuple[float, int, int]], gap: float) -> list[tuple[float, int, int]]:
    """Leave out the arrows (time, parent, worker) that would run into a longer one of the same parent."""
    kept: list[tuple[float, int, int]] = []
    taken: dict[int, list[float]] = {}
    for time, parent, lane in sorted(arrows, key=lambda arrow: (-arrow[2], arrow[0])):
        times = taken.setdefault(parent, [])
        place = bisect_left(times, time)
        if all(abs(time - near) > gap for near in times[max(place - 1, 0) : place + 1]):
            times.insert(place, time)
            kept.append((time, parent, lane))
    return kept


def _lines(ax: Axes, segments: Segments, gid: str, **look: Any) -> None:
    if segments:
        ax.add_collection(LineCollection(segments, gid=gid, **look), autolim=False)


def _marks(ax: Axes, places: Sequence[tuple[float, float]], gid: str, **look: Any) -> None:
    if places:
        times, lanes = zip(*places, strict=True)
        ax.add_line(Line2D(times, lanes, linestyle="none", gid=gid, clip_on=False, **({"zorder": 7} | look)))


def _names(ax: Axes, chart: Chart, pitch: float, room: float) -> float:
    """Name the lanes, or every so many of them, aligned left so that indentation shows who forked whom."""
    size = FONT if pitch >= 9.5 else 7.0 if pitch >= 8 else 6.5
    every = next(n for n in (1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 10**9) if n * pitch >= size + 1)
    named = list(range(0, len(chart.lanes), every))
    texts = []
    for lane in named:
        _, depth, label, note = chart.lanes[lane]
        note = f" ({note})" if note else ""
        texts.append(fitted("   " * depth + label, size, room - text_width(note, size)) + note)
    width = max(text_width(text, size, "normal" if lane else "bold") for lane, text in zip(named, texts, strict=True))
    ax.set_yticks(named, texts, fontsize=size, color=INK.text)
    ax.tick_params(axis="y", length=0, pad=width + 6)
    for lane, name in zip(named, ax.get_yticklabels(), strict=True):
        name.set_horizontalalignment("left")
        name.set_parse_math(False)  # a "$" in a label is a "$"
        if not lane:
            name.set_fontweight("bold")
        elif chart.lanes[lane].note:
            name.set_color(INK.quiet)
    return width
