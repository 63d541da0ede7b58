"""The matplotlib side: figures, axes and artists. The only module here that imports matplotlib at its top."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.textpath import TextToPath
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from simulator.plots.scene import Scene
from simulator.plots.style import CANCELLED, INK, STYLES, BarStyle
from simulator.timeline import SpanKind, Timeline

_ORDER = (
    SpanKind.DECODE,
    SpanKind.PREFILL,
    SpanKind.DELAY,
    SpanKind.WAIT_JOIN,
    SpanKind.WAIT_POOL,
    SpanKind.WAIT_BATCH,
)
_PANEL = 0.95  # inches of the panel beneath
_UNDER = 0.385  # how far below the middle of its lane the critical path runs
_FONT = 8.0
_CROWD = 40  # lanes from which arrows are thinned
_HATCHED = 8.0  # points of a lane below which a hatch is mud


def time_unit(timeline: Timeline) -> str:
    """Return the label of the time axis."""
    return {"steps": "decode steps"}.get(timeline.unit, timeline.unit)


def two_panels(width: float, height: float) -> tuple[Axes, Axes]:
    """Return the axes of a chart whose lanes are `height` inches high, and of the panel beneath."""
    figure = Figure(figsize=(width, height + _PANEL + 1.35), layout="constrained", facecolor="white")
    ax, panel = figure.subplots(2, 1, sharex=True, height_ratios=[height, _PANEL])
    figure.get_layout_engine().set(h_pad=0.05, w_pad=0.08, hspace=0.0)  # type: ignore[union-attr]
    ax.tick_params(axis="x", length=0, labelbottom=False)
    return ax, panel


def one_panel() -> Axes:
    """Return the axes of a new figure for one curve."""
    figure = Figure(figsize=(8, 2), layout="constrained", facecolor="white")
    return figure.subplots()


def height_of(ax: Axes) -> float:
    """Return the height of `ax` in points."""
    return float(ax.get_position().height * ax.get_figure(root=True).get_figheight() * 72)  # type: ignore[union-attr]


def draw_lanes(ax: Axes, scene: Scene, pitch: float, arrows: bool) -> None:
    """Draw everything of a Gantt chart but its titles; `pitch` is the height of a lane in points."""
    count = len(scene.lanes)
    thin = min(pitch / 20, 1.0)  # 1 where lanes have their full height
    for lane in range(1, count, 2) if pitch >= 8 else ():
        ax.axhspan(lane - 0.5, lane + 0.5, color=INK.band, linewidth=0, zorder=0)
    for kind in SpanKind:
        whole = [(lane, s.start, s.finish) for lane, s in scene.spans if s.kind == kind]
        working = kind in (SpanKind.DECODE, SpanKind.DELAY)
        cut = [(l, s.start, s.finish) for l, s in scene.spans if s.kind == kind and s.cancelled and working]
        if cut:
            whole = [(l, s.start, s.finish) for l, s in scene.spans if s.kind == kind and not s.cancelled]
            _bars(ax, cut, CANCELLED, f"{kind.value} cancelled", pitch)
        if whole:
            _bars(ax, whole, STYLES[kind], kind.value, pitch)
    if arrows:
        _arrows(ax, scene, thin)
    if scene.stuck:
        lines = [((begin, lane), (end, lane)) for begin, end, lane in scene.stuck]
        ax.add_collection(
            LineCollection(lines, colors=INK.cut, linewidths=0.6 + 0.6 * thin, linestyles=(0, (1, 1.5)), zorder=3, gid="stuck"),
            autolim=False,
        )
    _marks(ax, scene.brief, "D", INK.curve, 2 + 2.5 * thin, "brief")
    _marks(ax, scene.cuts, "x", INK.cut, 2.5 + 4 * thin, "cut", edge=0.6 + 0.9 * thin)
    if scene.path:
        _path(ax, scene.path, 1.9 + 0.7 * thin)
    if not math.isnan(scene.answered):
        ax.axvline(scene.answered, color=INK.answer, linewidth=0.8, zorder=1, gid="answer")
        if scene.end - scene.answered > 0.02 * (scene.end - scene.start):
            where = ax.get_xaxis_transform()
            note = dict(fontsize=_FONT - 0.5, color=INK.quiet, ha="right", va="bottom")
            ax.annotate("answer", (scene.answered, 1), (0, 1), where, "offset points", **note)
    ax.set_ylim(count - 0.5 + 0.1 * (count < 4), -0.5)
    _lane_labels(ax, scene, pitch)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color("#BBBBBB")


def _bars(ax: Axes, bars: Sequence[tuple[int, float, float]], style: BarStyle, gid: str, pitch: float) -> None:
    """Add bars of one style as one collection: a hundred threads have thousands."""
    lane, begin, end = np.array(bars, dtype=np.float64).T
    top, bottom = lane - style.height / 2, lane + style.height / 2
    corners = np.stack([begin, top, end, top, end, bottom, begin, bottom], axis=1).reshape(-1, 4, 2)
    face, edge = style.face, style.edge
    if pitch < _HATCHED:
        face = edge = style.flat or style.face
    collection = PolyCollection(
        corners,
        facecolors=face,
        edgecolors=edge,
        # An outline in its own colour keeps a bar of one token visible among a million.
        linewidths=0.0 if pitch < 3 else 0.5 if edge != face else 0.3,
        zorder=2,
        gid=gid,
    )
    if style.hatch and pitch >= _HATCHED:
        _hatch(collection, style.hatch)
    ax.add_collection(collection, autolim=False)


def _hatch(artist: PolyCollection | Patch, hatch: str) -> None:
    artist.set_hatch(hatch)
    if hasattr(artist, "set_hatch_linewidth"):  # from matplotlib 3.10 on; `save` sets it for older ones
        artist.set_hatch_linewidth(0.6)


def _path(ax: Axes, corners: Sequence[tuple[float, int]], wide: float) -> None:
    """Add the critical path: heavy under what bound the query, lighter from lane to lane."""
    times, lanes = np.array(corners, dtype=np.float64).T
    points = np.column_stack([times, lanes + _UNDER]).reshape(-1, 2, 2)
    ends = np.concatenate([points[:-1, 1], points[1:, 0]], axis=1).reshape(-1, 2, 2)
    across = ends[ends[:, 0, 1] != ends[:, 1, 1]]
    for segments, gid, width in (
        (across, "critical_path link", 0.6 * wide),
        (points, "critical_path", wide),
    ):
        if len(segments):
            line = LineCollection(
                list(segments), colors=INK.path, linewidths=width, capstyle="projecting", zorder=6, gid=gid, clip_on=False
            )
            ax.add_collection(line, autolim=False)


def _arrows(ax: Axes, scene: Scene, thin: float) -> None:
    """Add Forks, straight down, and Joins, along the worker's lane and straight up."""
    reach = STYLES[SpanKind.DECODE].height / 2
    dense = len(scene.lanes) > _CROWD
    gap = (0.008 if dense else 0.002) * (scene.end - scene.start)
    forks = _apart([(time, parent, lane) for time, parent, lane in scene.forks], gap)
    joins = _apart([(at, parent, lane) for _, at, lane, parent in scene.joins], gap)
    lines = {
        "fork": [((time, parent + reach), (time, lane - reach)) for time, parent, lane in forks],
        "join": [((at, lane), (at, parent + reach)) for at, parent, lane in joins],
        "rest": [((done, lane), (at, lane)) for done, at, lane, _ in scene.joins if at > done],
    }
    for gid, segments in lines.items():
        if segments:
            shafts = LineCollection(
                segments,
                colors=INK.faint if dense else INK.arrow,
                linewidths=0.4 + 0.4 * thin,
                linestyles=(0, (1, 2)) if gid == "rest" else "solid",
                zorder=1.5,
                gid=gid,
            )
            ax.add_collection(shafts, autolim=False)
    if not dense:
        size = 1.2 + 2.6 * thin
        color = INK.arrow
        _marks(ax, [(time, lane - reach - 0.06) for time, _, lane in forks], "v", color, size, "fork head")
        _marks(ax, [(at, parent + reach + 0.06) for at, parent, _ in joins], "^", color, size, "join head")


def _apart(arrows: list[tuple[float, int, int]], gap: float) -> list[tuple[float, int, int]]:
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


def _marks(
    ax: Axes, places: Sequence[tuple[float, float]], marker: str, color: str, size: float, gid: str, edge: float = 0.0
) -> None:
    if places:
        times, lanes = zip(*places, strict=True)
        ax.add_line(
            Line2D(
                times,
                lanes,
                linestyle="none",
                marker=marker,
                color=color,
                markersize=size,
                markeredgewidth=edge,
                zorder=7,
                gid=gid,
                clip_on=False,
            )
        )


def _lane_labels(ax: Axes, scene: Scene, pitch: float) -> None:
    """Name the lanes, or every so many of them, aligned left so that indentation shows who forked whom."""
    size = _FONT if pitch >= 9.5 else 7.0 if pitch >= 8 else 6.5
    every = next(n for n in (1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 10**9) if n * pitch >= size + 1)
    named = [lane for lane in range(len(scene.lanes)) if lane % every == 0]
    texts = [
        "   " * scene.lanes[lane].depth
        + scene.lanes[lane].label
        + (f" ({scene.lanes[lane].note})" if scene.lanes[lane].note else "")
        for lane in named
    ]
    width = max(_width(text, size, "normal" if lane else "bold") for lane, text in zip(named, texts, strict=True))
    ax.set_yticks(named, texts, fontsize=size, color=INK.text)
    ax.tick_params(axis="y", length=0, pad=width + 6)
    for lane, label in zip(named, ax.get_yticklabels(), strict=True):
        label.set_horizontalalignment("left")
        label.set_parse_math(False)  # a "$" in a label is a "$"
        if not lane:
            label.set_fontweight("bold")
        elif scene.lanes[lane].note:
            label.set_color(INK.quiet)


def _width(text: str, size: float, weight: str = "normal") -> float:
    """Return the width of `text` in points."""
    font = FontProperties(size=size, weight=weight)
    return float(TextToPath().get_text_width_height_descent(text, font, ismath=False)[0])


def draw_title(ax: Axes, name: str, numbers: str) -> None:
    """Write the trace's name, and beneath it what was measured."""
    lines = 1 + numbers.count("\n")
    title = ax.set_title(name, loc="left", fontsize=10.5, fontweight="bold", color=INK.text, pad=7 + 12 * lines)
    title.set_parse_math(False)
    ax.annotate(
        numbers, (0, 1), (0, 5), "axes fraction", "offset points", fontsize=_FONT, color=INK.quiet, va="bottom",
        parse_math=False, gid="numbers",
    )


def draw_curve(
    ax: Axes,
    times: NDArray[np.float64],
    values: NDArray[np.float64],
    *,
    limit: int | None,
    name: str,
    mean: float | None,
    label: str,
) -> None:
    """Draw a step function with its limit; what lies above the limit is marked."""
    x, y = np.repeat(times, 2)[1:], np.repeat(values, 2)[:-1]
    ax.fill_between(x, 0, y, color=INK.under_curve, linewidth=0, zorder=1.5, gid="area")
    ax.plot(x, y, color=INK.curve, linewidth=1.1, solid_joinstyle="miter", zorder=2, gid="curve")
    peak = float(values.max()) if len(values) else 0.0
    top = max(peak, 1.0)
    if limit is not None:
        if limit <= 4 * top:
            top = max(top, limit)
            ax.axhline(limit, color=INK.capacity, linewidth=1.1, linestyle=(0, (5, 2)), zorder=3, gid="limit")
        _note(ax, min(limit, 1.2 * top), f"{name} = {limit:,}", INK.capacity)
        if peak > limit:
            over = ax.fill_between(x, limit, np.maximum(y, limit), color=INK.overflow, linewidth=0, zorder=2.5)
            over.set_gid("overflow")
    if mean is not None and abs(mean - (limit or -1)) > 0.12 * top:
        _note(ax, mean, f"mean {mean:.2f}", INK.quiet)
        ax.axhline(mean, color=INK.quiet, linewidth=0.8, linestyle=(0, (1, 2)), zorder=3, gid="mean")
    ax.set_ylim(0, 1.2 * top)
    ax.yaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 4, 5, 10]))
    ax.yaxis.set_major_formatter(FuncFormatter(_number))
    ax.set_ylabel(label, fontsize=_FONT, color=INK.text)
    ax.tick_params(axis="y", labelsize=_FONT, colors=INK.text, length=2)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def _note(ax: Axes, y: float, text: str, color: str) -> None:
    ax.annotate(
        text, (1, y), (4, 0), ("axes fraction", "data"), "offset points", fontsize=_FONT, color=color, va="center",
        annotation_clip=False,
    )


def time_axis(ax: Axes, start: float, end: float, unit: str) -> None:
    """Label the time axis and fit it to the data."""
    if end == start:
        end = start + 1
    length = end - start
    ax.set_xlim(start - 0.008 * length, end + 0.012 * length)
    ax.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 2.5, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(_number))
    ax.tick_params(axis="x", labelsize=_FONT, colors=INK.text, length=2)
    ax.set_xlabel(unit, fontsize=_FONT + 0.5, color=INK.text)
    for one in ax.get_figure(root=True).axes if ax.get_shared_x_axes().get_siblings(ax) else [ax]:  # type: ignore[union-attr]
        one.grid(axis="x", color=INK.grid, linewidth=0.6, zorder=0)
        one.set_axisbelow(True)


def _number(value: float, _: int | None = None) -> str:
    """Return a tick's number as people write it: 1,000,000 and 0.3."""
    return f"{value:,.10g}" if abs(value) < 1e7 else f"{value:.5g}"


def draw_legend(ax: Axes, *, own: bool) -> None:
    """Explain what is in `ax`, and only that: beneath everything in a figure of our own, else to the right of it."""
    drawn = {artist.get_gid() for artist in ax.get_children()}
    entries = [_swatch(STYLES[kind]) for kind in _ORDER if kind.value in drawn]
    arrow = {"color": INK.arrow, "linewidth": 0.8, "markersize": 4, "markeredgewidth": 0}
    dots = {"linewidth": 0.9, "linestyle": (0, (1, 2))}
    lines: dict[str, tuple[str, dict[str, Any]]] = {
        "cut": ("cancelled", {"color": INK.cut, "linestyle": "none", "marker": "x", "markersize": 5}),
        "stuck": ("waits in vain", {"color": INK.cut, **dots}),
        "brief": ("takes hardly any time", {"color": INK.curve, "linestyle": "none", "marker": "D", "markersize": 4}),
        "fork head": ("Fork", {"marker": "v", **arrow}),
        "join head": ("Join", {"marker": "^", **arrow}),
        "rest": ("done, not yet joined", {"color": INK.arrow, **dots}),
        "few": ("Forks and Joins, thinned", {"color": INK.faint, "linewidth": 0.8}),
        "critical_path": ("critical path", {"color": INK.path, "linewidth": 2.4}),
    }
    if {"fork", "join"} & drawn and not {"fork head", "join head"} & drawn:
        drawn.add("few")
    for gid, (label, look) in lines.items():
        if gid in drawn:
            entries.append((Line2D([], [], **look), label))
    if {"decode cancelled", "delay cancelled"} & drawn:  # the cross stands on its bar, here too
        place = next(i for i, (_, label) in enumerate(entries) if label == "cancelled")
        entries[place] = ((_swatch(CANCELLED)[0], entries[place][0]), "cancelled")
    look = {"fontsize": _FONT - 0.5, "frameon": False, "labelcolor": INK.text, "handlelength": 1.8, "handletextpad": 0.5}
    if own:
        figure = ax.get_figure(root=True)
        points = sum(_width(label, _FONT - 0.5) + 30 for _, label in entries)  # 30: a handle and the gaps
        rows = math.ceil(points / (72 * figure.get_figwidth()))
        columns = -(-len(entries) // rows)
        # matplotlib fills column after column; people read row after row.
        entries = [entries[i] for column in range(columns) for i in range(column, len(entries), columns)]
        handles, labels = zip(*entries, strict=True)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, columnspacing=1.4, **look)
    else:
        handles, labels = zip(*entries, strict=True)
        ax.legend(handles, labels, loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, **look)


def _swatch(style: BarStyle) -> tuple[Artist | tuple[Artist, ...], str]:
    patch = Patch(facecolor=style.face, edgecolor=style.edge, linewidth=0.6)
    if style.hatch:
        _hatch(patch, style.hatch)
    return patch, style.label
