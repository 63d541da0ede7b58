"""Figures, axes, titles and curves.

With `lanes`, `legend` and `marks`, the only modules that import matplotlib at their top.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import TextToPath
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from simulator.plots.style import FONT, INK
from simulator.timeline import Timeline

_PANEL = 0.95  # inches of the panel beneath
_REST = 1.35  # inches of title, legend and time axis


def time_unit(timeline: Timeline) -> str:
    """Return the label of the time axis."""
    return "decode steps" if timeline.unit == "steps" else timeline.unit


def two_panels(width: float, height: float) -> tuple[Axes, Axes]:
    """Return the axes of a chart whose lanes are `height` inches high, and of the panel beneath."""
    figure = _figure(width, height + _PANEL + _REST)
    ax, panel = figure.subplots(2, 1, sharex=True, height_ratios=[height, _PANEL])
    ax.tick_params(axis="x", length=0, labelbottom=False)
    _grid(ax)
    return ax, panel


def one_panel(width: float = 8, height: float = 2) -> Axes:
    """Return the axes of a new figure, `width` by `height` inches."""
    ax: Axes = _figure(width, height).subplots()
    return ax


def panels_beside(count: int, width: float, height: float) -> list[Axes]:
    """Return the axes of `count` charts side by side, whose lanes are `height` inches high."""
    row = _figure(width, height + _REST).subplots(1, count, squeeze=False)[0]
    return list(row)


def _figure(width: float, height: float) -> Figure:
    layout = ConstrainedLayoutEngine(h_pad=0.05, w_pad=0.08, hspace=0.0)
    return Figure(figsize=(width, height), layout=layout, facecolor="white")


def points_of(ax: Axes) -> tuple[float, float]:
    """Return the width and the height of `ax` in points, as they are before any layout."""
    figure: Any = ax.figure
    return float(ax.bbox.width * 72 / figure.dpi), float(ax.bbox.height * 72 / figure.dpi)


def draw_title(ax: Axes, name: str, facts: Sequence[str], room: float) -> None:
    """Write the trace's name, and beneath it what was measured, within `room` points. A "$" in either is a "$"."""
    lines: list[str] = []
    for fact in facts:
        longer = f"{lines[-1]} · {fact}" if lines else ""
        if longer and text_width(longer, FONT) <= room:
            lines[-1] = longer
        else:
            lines.append(fitted(fact, FONT, room))
    name = fitted(name, 10.5, room, "bold")
    pad = 7 + 1.5 * FONT * len(lines)
    title = ax.set_title(name, loc="left", fontsize=10.5, fontweight="bold", color=INK.text, pad=pad)
    title.set_parse_math(False)
    note: dict[str, Any] = {"fontsize": FONT, "color": INK.quiet, "va": "bottom", "parse_math": False}
    ax.annotate("\n".join(lines), (0, 1), (0, 5), "axes fraction", "offset points", gid="numbers", **note)


def draw_curve(
    ax: Axes,
    times: NDArray[np.float64],
    values: NDArray[np.float64],
    *,
    label: str,
    limit: int | None,
    name: str,
    mean: float | None = None,
) -> None:
    """Draw a step function, its mean, and its limit called `name`; what lies above the limit is marked."""
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
            over = np.maximum(y, limit)
            ax.fill_between(x, limit, over, color=INK.overflow, linewidth=0, zorder=2.5, gid="overflow")
    if mean is not None and (limit is None or abs(mean - limit) > 0.15 * top):
        ax.axhline(mean, color=INK.quiet, linewidth=0.8, linestyle=(0, (1, 2)), zorder=3, gid="mean")
        _note(ax, mean, f"mean {mean:.2f}", INK.quiet)
    ax.set_ylim(0, 1.2 * top)
    ax.yaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 4, 5, 10]))
    ax.yaxis.set_major_formatter(FuncFormatter(_number))
    ax.set_ylabel(label, fontsize=FONT, color=INK.text)
    ax.tick_params(axis="y", labelsize=FONT, colors=INK.text, length=2)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    _grid(ax)


def _note(ax: Axes, y: float, text: str, color: str) -> None:
    """Write `text` to the right of `ax`, at height `y`."""
    where = ("axes fraction", "data")
    look: dict[str, Any] = {"fontsize": FONT, "color": color, "va": "center", "annotation_clip": False}
    ax.annotate(text, (1, y), (4, 0), where, "offset points", **look)


def time_axis(ax: Axes, start: float, end: float, unit: str) -> None:
    """Label the time axis and fit it to the data."""
    length = end - start or 1.0
    ax.set_xlim(start - 0.008 * length, start + 1.012 * length)
    ax.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 2.5, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(_number))
    ax.tick_params(axis="x", labelsize=FONT, colors=INK.text, length=2)
    ax.set_xlabel(unit, fontsize=FONT + 0.5, color=INK.text, parse_math=False)
    _grid(ax)


def _grid(ax: Axes) -> None:
    ax.grid(axis="x", color=INK.grid, linewidth=0.6)
    ax.set_axisbelow(True)


def _number(value: float, _: int | None = None) -> str:
    """Return a tick's number as people write it: 1,000,000 and 0.3."""
    return f"{value:,.10g}" if abs(value) < 1e7 else f"{value:.5g}"


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Return the width of `text` in points."""
    font = FontProperties(size=size, weight=weight)
    return float(TextToPath().get_text_width_height_descent(text, font, ismath=False)[0])


def fitted(text: str, size: float, room: float, weight: str = "normal") -> str:
    """Return as much of `text` as is at most `room` points wide."""
    if text_width(text, size, weight) <= room:
        return text
    keep = bisect_left(range(len(text)), True, key=lambda n: text_width(f"{text[: n + 1]}…", size, weight) > room)
    return f"{text[:keep].rstrip()}…"
