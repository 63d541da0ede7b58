"""Latency against cost: which points nobody beats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simulator.errors import ConfigError
from simulator.plots.findings import pareto_front
from simulator.plots.means import MOST_LINES, Points, axis_name, higher_is_better, label_of, reach, short, shown
from simulator.plots.style import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from simulator.study.table import Table

_FAINT = 0.35


def pareto(
    table: Table,
    *,
    cost: str = "cost_per_1000_queries",
    latency: str = "latency_p95",
    by: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw all points of a study by cost and latency, and the front of those that no other point beats in both.

    The front is a staircase: what lies beyond it is beaten by one of its corners. Its points are labelled with their
    values on the axes. Means decide, whatever their intervals.

    Parameters
    ----------
    table : Table
        Of a study.
    cost, latency : str
        Columns of metrics. Of those of which more is better, such as throughput, more is better here too.
    by : str, optional
        An axis whose values have a mark each.
    ax : Axes, optional
        Default: those of a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    ConfigError
        If there is no such column or axis, no point has both metrics, or `by` has more than 16 values.

    Examples
    --------
    >>> import numpy as np
    >>> from simulator.study import Table
    >>> columns = {"point": [0, 1, 2], "c": [1, 2, 4], "gpus": [1, 1, 2], "latency_p95": [9, 5, 6], "error": [None] * 3}
    >>> columns = {name: np.array(values) for name, values in columns.items()}
    >>> axes = pareto(Table(columns=columns, axes=("c",), metrics=("gpus", "latency_p95")), cost="gpus")
    >>> [text.get_text() for text in axes.texts if text.get_gid() == "label"]
    ['2']
    """
    points = Points(table)
    across, up = points.metric(cost), points.metric(latency)
    known = np.isfinite(across.value) & np.isfinite(up.value)
    if not known.any():
        empty = cost if not np.isfinite(across.value).any() else latency
        hint = ": give the cluster dollars_per_gpu_hour, or another cost" if empty.startswith("cost") else ""
        raise ConfigError(f"no point has a value of {empty}{hint}")
    kinds = [shown(value) for value in points.axis(by)] if by else [""] * points.count
    names = list(dict.fromkeys(kinds))
    if len(names) > MOST_LINES:
        raise ConfigError(f"{by} has {len(names)} values; at most {MOST_LINES} can be told apart")
    from simulator.plots import canvas, marks

    signs = [-1.0 if higher_is_better(metric) else 1.0 for metric in (cost, latency)]
    front = pareto_front(
        *(np.where(known, sign * of.value, np.nan) for sign, of in zip(signs, (across, up), strict=True))
    )
    on_front = np.isin(np.arange(points.count), front)
    own = ax is None
    ax = canvas.one_panel(8, 4.6) if ax is None else ax
    entries: list[tuple[Any, str]] = []
    for number, name in enumerate(names):
        look = marks.look_of(number)
        some = np.array([kind == name for kind in kinds]) & known
        for which, alpha, gid in ((some & ~on_front, _FAINT, "dominated"), (some & on_front, 1.0, "front")):
            at = np.flatnonzero(which)
            marks.draw_intervals(ax, across, up, at, look.color, alpha)
            style: dict[str, Any] = look.line() | {"linewidth": 0, "alpha": alpha, "gid": gid}
            if gid == "front":
                style |= {"markeredgecolor": INK.path, "markeredgewidth": 0.9, "markersize": 6.5, "zorder": 4}
            ax.plot(across.value[at], up.value[at], **style)
        if by:
            entries.append((marks.swatch(**look.line() | {"linewidth": 0}), f"{short([by])[0]} = {name}"))
    marks.number_axis(ax, "x", reach(across), label_of(cost, table.unit))
    marks.number_axis(ax, "y", reach(up), label_of(latency, table.unit))
    corners = _staircase(ax, across.value[front], up.value[front], signs)
    stairs: dict[str, Any] = {"color": INK.path, "linewidth": 1.1}
    ax.plot(*corners, gid="staircase", zorder=2.5, **stairs)
    entries.append((marks.swatch(**stairs), "front: none better in both"))
    if not on_front[known].all():
        style = marks.look_of(0).line() | {"linewidth": 0, "alpha": _FAINT, "color": INK.quiet if by else None}
        entries.append((marks.swatch(**{k: v for k, v in style.items() if v is not None}), "beaten by another point"))
    broken = np.flatnonzero((points.failures > 0) & known)
    if len(broken):
        marks.mark_failed(ax, across.value[broken], up.value[broken])
        entries.append((marks.swatch("failed"), "a run failed"))
    axes = points.varied()
    facts = [f"{len(front):,} of {points.count:,} points are on the front", *points.facts(cost, latency)]
    if axes:
        facts.insert(1, f"labelled with {' / '.join(map(axis_name, axes))}")
    marks.finish(ax, f"{points.title(latency)} against {points.title(cost)}", facts, entries, own=own)
    if axes:
        texts = points.names(axes)
        named = [*front[[0, -1]].tolist(), *front.tolist()]
        named = list(dict.fromkeys(named))
        lines = [corners, *marks.bars(across, up, named)]
        marks.label_points(ax, across.value[named], up.value[named], [texts[i] for i in named], lines=lines)
    return ax


def _staircase(
    ax: Any, x: NDArray[np.float64], y: NDArray[np.float64], signs: list[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the corners of the front's edge, from the worst edge of `ax` in one metric to that in the other."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    worst_x, worst_y = (right if signs[0] > 0 else left), (top if signs[1] > 0 else bottom)
    across = np.append(np.repeat(x, 2), worst_x)
    up = np.append(worst_y, np.repeat(y, 2))
    return across, up
