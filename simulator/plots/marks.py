"""Points with intervals, axes of numbers and labels that do not overlap: what the pictures of a study are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from simulator.plots.canvas import draw_title, fitted, points_of, text_width
from simulator.plots.legend import place_legend
from simulator.plots.means import Mean, shown
from simulator.plots.style import FONT, INK, KINDS

Floats = NDArray[np.float64]

_SIZE = 5.0  # points of a marker
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)))
_GAP = 7.5  # points from a point to its label: a ring is between them
_LABEL = 160.0  # points of a label at most
_WIDE = 30.0  # from this ratio of largest to smallest on, a scale is logarithmic
_TICKS = 20  # values that may each have a tick
_SMALL = FONT - 1
_ROWS = 2  # of a legend, for which a figure has room


class Look(NamedTuple):
    """How one line and its points are drawn."""

    marker: str
    color: str
    dash: Any

    def line(self) -> dict[str, Any]:
        """Return the arguments of matplotlib."""
        return {"color": self.color, "marker": self.marker, "markersize": _SIZE, "linewidth": 1.3, "ls": self.dash}


def look_of(number: int) -> Look:
    """Return the look of the line of that number: no two of the first 16 are alike, nor are they in grey."""
    return Look(*KINDS[number % len(KINDS)], _DASHES[number // len(KINDS) % len(_DASHES)])


def draw_intervals(ax: Axes, x: Mean, y: Mean, some: NDArray[np.int64], color: str, alpha: float = 1.0) -> None:
    """Draw the intervals of `some` points, where they have one: across if `x` has any, and up."""
    if not len(some):
        return
    style: dict[str, Any] = {"fmt": "none", "ecolor": color, "elinewidth": 0.9, "capsize": 2.2, "alpha": alpha}
    for which, of in (("xerr", x), ("yerr", y)):
        has = some[np.isfinite(of.low[some]) & np.isfinite(of.high[some])]
        has = has[np.isfinite(x.value[has]) & np.isfinite(y.value[has])]
        if not len(has):
            continue
        sides: Any = np.maximum([of.value[has] - of.low[has], of.high[has] - of.value[has]], 0.0)
        drawn: Any = ax.errorbar(x.value[has], y.value[has], **{which: sides}, **style)
        for artist in (*drawn.lines[1], *drawn.lines[2]):
            artist.set_gid("interval")
            artist.set_zorder(2)


def bars(x: Mean, y: Mean, some: Iterable[int]) -> list[tuple[list[float], list[float]]]:
    """Return the intervals of `some` points as lines, for labels to keep off."""
    found = []
    for i in some:
        at_x, at_y = float(x.value[i]), float(y.value[i])
        found.append(([float(x.low[i]), float(x.high[i])], [at_y, at_y]))
        found.append(([at_x, at_x], [float(y.low[i]), float(y.high[i])]))
    return [line for line in found if np.isfinite(line).all()]


def ring(ax: Axes, x: float, y: float) -> None:
    """Put a ring around a point: the knee."""
    ax.plot([x], [y], marker="o", markersize=13, markerfacecolor="none", gid="knee", **_RING)


def mark_failed(ax: Axes, x: Floats, y: Floats, **more: Any) -> None:
    """Cross out points of which a run failed."""
    if len(x):
        ax.plot(x, y, gid="failed", **_FAILED, **more)


_RING: dict[str, Any] = {
    "linestyle": "none",
    "markeredgecolor": INK.path,
    "markeredgewidth": 1.4,
    "zorder": 4,
    "clip_on": False,
}
_FAILED: dict[str, Any] = {
    "linestyle": "none",
    "marker": "x",
    "markersize": 7,
    "markeredgewidth": 1.6,
    "color": INK.cut,
    "zorder": 5,
}
_HANDLES: dict[str, dict[str, Any]] = {
    "knee": {"marker": "o", "markersize": 9, "markerfacecolor": "none", **_RING},
    "failed": _FAILED,
    "saturated": {"marker": "o", "markersize": 6, "markerfacecolor": "white", "color": INK.quiet, "linestyle": "none"},
}


def swatch(what: str | None = None, **look: Any) -> Line2D:
    """Return the handle of a legend's entry: of a mark by name, or of a line with that look."""
    return Line2D([], [], **(_HANDLES[what] if what else look))


def within_reach(values: Floats) -> tuple[Floats, float]:
    """Return `values` with the infinite ones a step beyond the others, where they can be drawn, and that place.

    >>> within_reach(np.array([1, 2, 4, np.inf])), within_reach(np.array([3.0]))
    ((array([1., 2., 4., 8.]), 8.0), (array([3.]), nan))
    """
    if not np.isinf(values).any():
        return values, np.nan
    finite = np.unique(values[np.isfinite(values)])
    last, step = (finite[-1], finite[-1] - finite[-2]) if len(finite) > 1 else (np.append(finite, 1.0)[0], 1.0)
    beyond = float(2 * last if _powers_of_two(finite) else last + step)
    return np.where(np.isinf(values), beyond, values), beyond


def _powers_of_two(values: Floats) -> bool:
    return bool(len(values) and values[0] > 0 and (np.frexp(values)[0] == 0.5).all())


def number_axis(
    ax: Axes, which: str, values: Floats, label: str, *, ticks: bool = False, unlimited: float = np.nan
) -> None:
    """Scale and label the axis ``x`` or ``y`` for `values`.

    With `ticks` the values themselves are ticks, and powers of two are equally far apart. Otherwise the scale begins at
    zero, or is logarithmic if the largest is 30 times the smallest or more. The number `unlimited` is called none.
    """
    axis: Any = getattr(ax, f"{which}axis")
    scale, limits = getattr(ax, f"set_{which}scale"), getattr(ax, f"set_{which}lim")
    finite = np.unique(values[np.isfinite(values)])
    low, high = (float(finite[0]), float(finite[-1])) if len(finite) else (0.0, 1.0)
    room = points_of(ax)[which == "y"]
    if ticks and len(finite) > 1 and _powers_of_two(finite):
        scale("log", base=2)
        limits(low / 1.25, high * 1.25)
        _ticks(axis, finite, np.log2(finite), room)
    elif low > 0 and high >= _WIDE * low:
        scale("log")
        limits(low / 1.3, high * 1.3)
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 2000 * low else (1.0,)))
        axis.set_minor_formatter(NullFormatter())
        if ticks and len(finite) <= _TICKS:
            _ticks(axis, finite, np.log(finite), room)
    elif ticks:
        margin = 0.05 * (high - low) or 0.5
        limits(low - margin, high + margin)
        if len(finite) <= _TICKS:
            _ticks(axis, finite, finite, room)
        else:
            axis.set_major_locator(MaxNLocator(9, steps=[1, 2, 2.5, 5, 10]))
    else:
        bottom = 1.1 * min(low, 0.0)
        limits(bottom, high + 0.12 * (high - bottom) if high > bottom else bottom + 1.0)
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: "none" if value == unlimited else shown(float(value))))
    axis.set_label_text(fitted(label, FONT + 0.5, 0.95 * room), fontsize=FONT + 0.5, color=INK.text, parse_math=False)


def _ticks(axis: Any, values: NDArray[np.float64], places: NDArray[np.float64], room: float) -> None:
    """Put ticks at `values`, as many as have room for their numbers; `places` says how far apart they are."""
    scale = 0.85 * room / (float(np.ptp(places)) or 1.0)
    kept, end = [], -np.inf
    for value, place in zip(values.tolist(), (scale * places).tolist(), strict=True):
        half = text_width(shown(value), FONT) / 2 + 3
        if place - half >= end:
            kept.append(value)
            end = place + half
    axis.set_major_locator(FixedLocator(kept))
    axis.set_minor_locator(NullLocator())


def finish(
    ax: Axes, title: str, facts: Iterable[str], entries: list[tuple[Any, str]], *, own: bool, grid: str = "both"
) -> None:
    """Write title, facts and legend, and draw the grid."""
    draw_title(ax, title, list(facts), points_of(ax)[0] - 8)
    if grid:
        ax.grid(axis=grid, color=INK.grid, linewidth=0.6)  # type: ignore[arg-type]
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=FONT, colors=INK.text, length=2)
    entries = [(handle, fitted(label, FONT, 2 * _LABEL)) for handle, label in entries]
    rows = place_legend(ax, entries, own=own)
    if own and rows > _ROWS:
        figure: Any = ax.figure
        figure.set_figheight(figure.get_figheight() + (rows - _ROWS) * 0.165)


def label_points(
    ax: Axes,
    x: Floats,
    y: Floats,
    texts: Sequence[str],
    *,
    colors: Sequence[str] | None = None,
    lines: Iterable[Any] = (),
) -> None:
    """Write a text beside each point where there is room, the first points first.

    A text is left out where it would lie on another, on a point, or outside of `ax`. Of the places around a point the
    one is taken that lies least on `lines`, pairs of coordinates. A text has the color of its line, where `colors` says
    it: then nobody takes it for that of a point of another line.
    """
    if not len(x):
        return
    figure: Any = ax.get_figure(root=True) if hasattr(ax, "get_figure") else ax.figure
    figure.draw_without_rendering()  # lays the figure out, so that places are known
    scale = 72 / figure.dpi
    at = _places(ax, x, y) * scale
    left, bottom, right, top = (scale * edge for edge in ax.bbox.extents)
    taken = [(px - 4, py - 4, px + 4, py + 4) for px, py in at.tolist()]
    soft = np.concatenate([_along(_places(ax, *line) * scale) for line in lines] or [np.empty((0, 2))])
    colors = colors or [INK.text] * len(texts)
    for (px, py), text, color in zip(at.tolist(), texts, colors, strict=True):
        text = fitted(text, _SMALL, _LABEL)
        wide, high = text_width(text, _SMALL) + 2, _SMALL + 2
        best: tuple[float, Any] | None = None
        for across, up in _AROUND:
            box_left, box_bottom = px + _GAP * across - wide * (1 - across) / 2, py + _GAP * up - high * (1 - up) / 2
            box = (box_left, box_bottom, box_left + wide, box_bottom + high)
            if box[0] < left or box[1] < bottom or box[2] > right or box[3] > top:
                continue
            if any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
                continue
            inside = (soft >= box[:2]).all(axis=1) & (soft <= box[2:]).all(axis=1)
            crossed = float(inside.sum())
            if best is None or crossed < best[0]:
                best = (crossed, box)
        if best is not None:
            box = best[1]
            taken.append(box)
            note: dict[str, Any] = {"fontsize": _SMALL, "color": color, "parse_math": False, "in_layout": False}
            shift = ((box[0] + box[2]) / 2 - px, (box[1] + box[3]) / 2 - py)
            where = ax.transData.inverted().transform((px / scale, py / scale))
            text_at: dict[str, Any] = {"xytext": shift, "textcoords": "offset points", "ha": "center", "va": "center"}
            ax.annotate(text, tuple(where), gid="label", zorder=6, **text_at, **note)


_AROUND = ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
"""Where a text may go: above, to the right, below, to the left, and between them."""


def _places(ax: Axes, x: Any, y: Any) -> Floats:
    """Return where points are on the figure, in pixels; those that are nowhere are far away."""
    found = np.asarray(ax.transData.transform(np.column_stack([np.asarray(x, float), np.asarray(y, float)])), float)
    return np.where(np.isfinite(found), found, -1e6)


def _along(corners: Floats) -> Floats:
    """Return places along a line, close together."""
    if len(corners) < 2:
        return corners
    steps = np.linspace(0, 1, 60)[:, None]
    return np.concatenate([a + steps * (b - a) for a, b in pairwise(corners)])
