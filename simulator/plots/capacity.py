"""Latency, or any other metric, against capacity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.plots.findings import WITHIN, near_best
from simulator.plots.means import Line, Mean, Points, axis_name, higher_is_better, label_of, reach, shown
from simulator.plots.style import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from simulator.study.table import Table

_SHARE = f"{100 * WITHIN:g} %"
_BANDS = 3  # lines that may each have a region of their own bounds


def latency_capacity(
    table: Table,
    *,
    metric: str = "latency_mean",
    x: str = "protocol.capacity",
    by: str | Sequence[str] | None = None,
    bounds: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw a metric of a study along one of its axes, with intervals, bounds and the knee.

    The knee is the smallest value of the axis whose mean is within 5 % of the best one of its line. Less is better, but
    for metrics such as throughput and utilization. Where that is the largest number of the axis, the knee is not
    reached: more might be better still.

    Parameters
    ----------
    table : Table
        Of a study.
    metric : str
        One of its columns of metrics.
    x : str
        An axis of numbers. Powers of two are drawn equally far apart, and no limit (``"none"``) after the last number.
    by : str or sequence of str, optional
        Axes whose values are a line each. Default: all others that have several values.
    bounds : bool
        Whether to shade where a latency must be by the laws of Brent and Graham, if the table says so
        (``lower_bound_...``, ``upper_bound_...``).
    ax : Axes, optional
        Default: those of a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    ConfigError
        If there is no such column, `x` is not of numbers, some axis is neither `x` nor in `by`, or there are more than
        16 lines.

    Examples
    --------
    >>> import numpy as np
    >>> from simulator.study import Table
    >>> columns = {"point": [0, 1, 2], "c": [1, 2, 4], "latency_mean": [9.0, 5.1, 5.0], "error": [None] * 3}
    >>> table = Table(columns={k: np.array(v) for k, v in columns.items()}, axes=("c",), metrics=("latency_mean",))
    >>> latency_capacity(table, x="c").get_ylabel()
    'mean latency, seconds'
    """
    points = Points(table)
    found, higher = points.metric(metric), higher_is_better(metric)
    lines = points.lines(x, by)
    from simulator.plots import canvas, marks

    along, unlimited = marks.within_reach(points.numbers(x))
    own = ax is None
    ax = canvas.one_panel(8, 4.2) if ax is None else ax
    place = Mean(along, *np.full((2, points.count), np.nan))
    entries: list[tuple[Any, str]] = []
    knees: list[tuple[Line, Any]] = []
    missed: list[Line] = []
    limits = _bounds(points, metric) if bounds else (None, None)
    seen = [reach(found), *(limit for limit in limits if limit is not None)]
    for number, line in enumerate(lines):
        look, some = marks.look_of(number), line.points
        marks.draw_intervals(ax, place, found, some, look.color)
        ax.plot(along[some], found.value[some], gid="line", zorder=3, **look.line())
        if line.label:
            entries.append((marks.swatch(**look.line()), line.label))
        best = None if higher is None else near_best(found.value[some], higher=higher)
        if best is not None and len(some) > 1:
            knee = some[best]
            if best == len(some) - 1 and along[knee] != unlimited:
                missed.append(line)  # who knows what more would give
                continue
            knees.append((line, knee))
            marks.ring(ax, along[knee], found.value[knee])
    if knees:
        entries.append((marks.swatch("knee"), f"smallest within {_SHARE} of the best"))
    entries += _draw_bounds(ax, along, lines, limits)
    broken = np.flatnonzero(points.failures)
    if len(broken):
        floor = np.full(len(broken), 0.02)
        marks.mark_failed(ax, along[broken], floor, transform=ax.get_xaxis_transform(), clip_on=False)
        entries.append((marks.swatch("failed"), "a run failed"))
    marks.number_axis(ax, "x", along, axis_name(x), ticks=True, unlimited=unlimited)
    marks.number_axis(ax, "y", np.concatenate(seen), label_of(metric, table.unit))
    facts = [*_knees(points, metric, x, knees), *_missed(points, x, missed), *points.facts(metric)]
    marks.finish(ax, f"{points.title(metric)} by {axis_name(x)}", facts, entries, own=own)
    return ax


def _knees(points: Points, metric: str, x: str, knees: list[tuple[Line, Any]]) -> list[str]:
    """Return in words which values are enough."""
    values, found = points.axis(x), points.metric(metric).value
    if not knees:
        return []
    if len(knees) > 1:
        each = ", ".join(f"{shown(values[knee])} ({line.label})" for line, knee in knees)
        return [f"knee, the smallest within {_SHARE} of the best: {each}"]
    line, knee = knees[0]
    sign = -1 if higher_is_better(metric) else 1
    best = min(line.points, key=lambda i: sign * found[i] if np.isfinite(found[i]) else np.inf)
    there = f"{shown(float(found[best]))} at {shown(values[best])}"
    here = "the best" if best == knee else f"within {_SHARE} of the best ({there})"
    return [f"knee at {shown(values[knee])}: {shown(float(found[knee]))}, {here}"]


def _missed(points: Points, x: str, lines: list[Line]) -> list[str]:
    """Return in words where no value was enough."""
    if not lines:
        return []
    values = points.axis(x)
    most = ", ".join(dict.fromkeys(shown(values[line.points[-1]]) for line in lines))
    which = ", ".join(line.label for line in lines if line.label)
    return [f"no knee up to {most}{f' ({which})' if which else ''}: the last value is the best by more than {_SHARE}"]


def _bounds(points: Points, metric: str) -> tuple[Any, Any]:
    """Return the bounds of `metric` at each point: a law of each query's latency is one of mean and percentiles too."""
    base, _, which = metric.rpartition("_")
    if base != "latency":
        return None, None
    names = (f"lower_bound_{which}", f"upper_bound_{which}")
    values = [points.metric(name).value if name in points.table.metrics else None for name in names]
    lower, upper = (value if value is not None and np.isfinite(value).any() else None for value in values)
    return lower, upper


def _draw_bounds(ax: Any, along: Any, lines: list[Line], limits: tuple[Any, Any]) -> list[tuple[Any, str]]:
    """Draw the bounds of each line, the same ones once, and return their entries in the legend."""
    from matplotlib.patches import Patch

    from simulator.plots import marks

    lower, upper = limits
    edge: dict[str, Any] = {"color": INK.quiet, "linewidth": 0.9, "linestyle": (0, (1, 1.5))}
    drawn: list[tuple[list[float], ...]] = []
    for line in lines:
        some = line.points
        curves = tuple([] if limit is None else limit[some].tolist() for limit in limits)
        if any(str(curves) == str(each) for each in drawn):  # as text, for a NaN is not equal to itself
            continue
        drawn.append(curves)
        if lower is not None:
            ax.plot(along[some], lower[some], gid="lower bound", zorder=1.6, **edge)
        if upper is not None:
            ax.plot(along[some], upper[some], gid="upper bound", zorder=1.6, **edge)
        if lower is not None and upper is not None and len(drawn) <= _BANDS:
            style: dict[str, Any] = {"color": INK.grid, "alpha": 0.6, "linewidth": 0, "zorder": 1.2}
            ax.fill_between(along[some], lower[some], upper[some], gid="bounds", **style)
    if lower is None and upper is None:
        return []
    if lower is not None and upper is not None:
        return [(Patch(facecolor=INK.grid, edgecolor=INK.quiet, linewidth=0.6), "between Brent's and Graham's bounds")]
    return [(marks.swatch(**edge), "lower bound (Brent)" if upper is None else "upper bound (Graham)")]
