"""Latency against throughput under a rising load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.errors import ConfigError
from simulator.plots.findings import power_knee, saturated
from simulator.plots.means import Line, Points, axis_name, label_of, reach, shown
from simulator.plots.style import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from simulator.study.table import Table

_LOADS = ("arrivals.rate", "arrivals.users", "arrivals.speed", "queries")
_MACHINE = ("protocol.", "cluster")
"""What a load meets is no load."""


def knee(
    table: Table,
    *,
    latency: str = "latency_p95",
    throughput: str = "throughput",
    load: str | None = None,
    by: str | Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw latency against throughput, the points joined in order of the load, with intervals both ways.

    The knee is the point of the greatest power, throughput over latency (Kleinrock, ICC 1979): where the ray from the
    origin touches the curve. At the lowest or the highest load it is not known to be one, and none is drawn. A hollow
    point is saturated: from the point before, its throughput grew by less than half the factor by which the load did.

    Parameters
    ----------
    table : Table
        Of a study.
    latency, throughput : str
        Columns of metrics.
    load : str, optional
        The axis of numbers along which points are joined. Default: the rate, users or speed of the arrivals, or the
        only axis that has several values; an axis of the protocol or the cluster is none.
    by : str or sequence of str, optional
        Axes whose values are a line each. Default: all others that have several values.
    ax : Axes, optional
        Default: those of a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    ConfigError
        If there is no such column, the load is not of numbers or not known, some axis is neither the load nor in `by`,
        or there are more than 16 lines.

    Examples
    --------
    >>> import numpy as np
    >>> from simulator.study import Table
    >>> rates = np.array([0.25, 0.5, 0.75])  # M/M/1
    >>> columns = {"point": np.arange(3), "rate": rates, "served": rates, "latency": 1 / (1 - rates)}
    >>> columns["error"] = np.array([None] * 3)
    >>> axes = knee(Table(columns=columns, axes=("rate",), metrics=("served", "latency")), latency="latency",
    ...     throughput="served")
    >>> [artist.get_xdata().tolist() for artist in axes.lines if artist.get_gid() == "knee"]
    [[0.5]]
    """
    points = Points(table)
    across, up = points.metric(throughput), points.metric(latency)
    load = _load(points, load)
    loads = points.numbers(load)
    lines = points.lines(load, by)
    from simulator.plots import canvas, marks

    own = ax is None
    ax = canvas.one_panel(8, 4.6) if ax is None else ax
    entries: list[tuple[Any, str]] = []
    knees: list[tuple[Line, int]] = []
    missed: list[tuple[Line, int]] = []
    full = np.zeros(points.count, dtype=bool)
    for number, line in enumerate(lines):
        look, some = marks.look_of(number), line.points
        marks.draw_intervals(ax, across, up, some, look.color)
        ax.plot(across.value[some], up.value[some], gid="line", zorder=3, **look.line())
        full[some] = saturated(loads[some], across.value[some])
        hollow = some[full[some]]
        style: dict[str, Any] = look.line() | {"linewidth": 0, "markerfacecolor": "white", "markersize": 4.2}
        ax.plot(across.value[hollow], up.value[hollow], gid="saturated", zorder=3.5, **style)
        if line.label:
            entries.append((marks.swatch(**look.line()), line.label))
        at = power_knee(across.value[some], up.value[some])
        if at is not None and len(some) > 1 and not 0 < at < len(some) - 1:
            missed.append((line, int(some[at])))
        elif at is not None and len(some) > 1:
            knees.append((line, int(some[at])))
            marks.ring(ax, across.value[some[at]], up.value[some[at]])
    marks.number_axis(ax, "x", reach(across), label_of(throughput, table.unit))
    marks.number_axis(ax, "y", reach(up), label_of(latency, table.unit))
    entries += _rays(ax, [(across.value[i], up.value[i]) for _, i in knees])
    if full.any():
        entries.append((marks.swatch("saturated"), "saturated: throughput hardly grew"))
    broken = np.flatnonzero(points.failures)
    if len(broken):
        marks.mark_failed(ax, across.value[broken], up.value[broken])
        entries.append((marks.swatch("failed"), "a run failed"))
    facts = [
        *_words(points, load, knees, latency, throughput),
        *_missed(points, load, missed),
        *points.facts(latency, throughput),
    ]
    marks.finish(ax, f"{points.title(latency)} against {points.title(throughput)}", facts, entries, own=own)
    order = [*(i for _, i in knees), *(int(i) for line in lines for i in (*line.points[[0, -1]], *line.points))]
    named = [i for i in dict.fromkeys(order) if np.isfinite(across.value[i]) and np.isfinite(up.value[i])]
    curves: list[Any] = [(across.value[line.points], up.value[line.points]) for line in lines] + marks.bars(
        across, up, named
    )
    curves += [artist.get_data() for artist in ax.lines if artist.get_gid() == "ray"]
    names = points.names([load])
    color_of = {int(i): marks.look_of(place).color for place, line in enumerate(lines) for i in line.points}
    colors = [color_of[i] for i in named] if len(lines) > 1 else None
    texts = [names[i] for i in named]
    marks.label_points(ax, across.value[named], up.value[named], texts, colors=colors, lines=curves)
    return ax


def _load(points: Points, load: str | None) -> str:
    """Return the axis that says the load."""
    varied = points.varied() or list(points.table.axes)
    if load is not None:
        if load.startswith(_MACHINE):
            raise ConfigError(f"a knee is along a load, and {load} is what the load meets: draw the capacity instead")
        return load
    known = [name for name in _LOADS if name in varied]
    if known:
        return known[0]
    loads = [name for name in varied if not name.startswith(_MACHINE)]
    if len(loads) == 1:
        return loads[0]
    if varied and not loads:
        raise ConfigError(
            f"a knee is along a load, such as {_LOADS[0]}; the study has {', '.join(varied)}: draw the capacity instead"
        )
    raise ConfigError(f"say which axis is the load; the study has {', '.join(varied) or 'none'}")


def _words(points: Points, load: str, knees: list[tuple[Line, int]], latency: str, throughput: str) -> list[str]:
    """Return in words where the knees are."""
    values = points.axis(load)
    name = axis_name(load)
    if not knees:
        return [f"labelled with the {name}"]
    if len(knees) > 1:
        each = ", ".join(f"{shown(values[i])} ({line.label})" for line, i in knees)
        return [f"knee, the greatest throughput / latency: {each}", f"labelled with the {name}"]
    i = knees[0][1]
    gained, paid = float(points.metric(throughput).value[i]), float(points.metric(latency).value[i])
    where = f"{points.title(throughput)} {shown(gained)}, {points.title(latency)} {shown(paid)}"
    return [f"knee at {name} {shown(values[i])}: the greatest throughput / latency", where, f"labelled with the {name}"]


def _missed(points: Points, load: str, ends: list[tuple[Line, int]]) -> list[str]:
    """Return in words at which end lines have their greatest throughput / latency: it is not known to be a knee."""
    values = points.axis(load)
    return [
        f"no knee among these loads{f' ({line.label})' if line.label else ''}: throughput / latency is greatest at the"
        f" {'lowest' if i == line.points[0] else 'highest'}, {shown(values[i])}"
        for line, i in ends
    ]


def _rays(ax: Any, knees: list[tuple[float, float]]) -> list[tuple[Any, str]]:
    """Draw the ray from the origin through each knee, and return what the legend says of them."""
    from simulator.plots import marks

    style: dict[str, Any] = {"color": INK.quiet, "linewidth": 0.8, "linestyle": (0, (1, 2))}
    for x, y in knees:
        ends = np.geomspace(x * 1e-3, x * 1e3, 200) if x > 0 else np.array([x])
        ax.plot(ends, ends * (y / x if x else 1.0), gid="ray", zorder=1.5, scalex=False, scaley=False, **style)
    if not knees:
        return []
    return [(marks.swatch("knee"), "knee"), (marks.swatch(**style), "equal throughput / latency")]
