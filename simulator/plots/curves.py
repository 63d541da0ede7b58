"""How many at a time: agents of a query, sequences in the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simulator.timeline import Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = 4000  # more steps than this in one curve cannot be told apart

Steps = tuple[NDArray[np.float64], NDArray[np.float64]]


def active_agents(timeline: Timeline, query: int | None = None) -> Steps:
    """Return when the number of active agents changes, and to what.

    An agent is active while it decodes, has its prompt processed, or is in a Delay.

    >>> from simulator import Answer, Fork, Join, Return, Think, Thread, Trace, compile_trace, simulate
    >>> organizer = Thread("organizer", (Think(5), Fork(1), Think(3), Join(1), Answer(2)))
    >>> times, agents = active_agents(simulate(compile_trace(Trace("t", (organizer, Thread("1", (Return(10),)))))))
    >>> times.tolist(), agents.tolist()
    ([0.0, 5.0, 8.0, 15.0, 17.0], [1.0, 2.0, 1.0, 1.0, 0.0])
    """
    rows = timeline.rows if query is None else timeline.of_query(query)
    silent = [q for q in range(len(timeline)) if not timeline.protocol_of(q).count_organizer]
    if silent:
        rows = rows[~((rows["thread"] == 0) & np.isin(rows["query"], silent))]
    return _counted(rows["start"], rows["finish"])


def _counted(starts: NDArray[np.float64], finishes: NDArray[np.float64]) -> Steps:
    times = np.concatenate([starts, finishes])
    changes = np.concatenate([np.ones(len(starts)), -np.ones(len(finishes))])
    at, where = np.unique(times, return_inverse=True)
    return at, np.cumsum(np.bincount(where.ravel(), changes, len(at)))


def thinned(times: NDArray[np.float64], values: NDArray[np.float64], points: int = _POINTS) -> Steps:
    """Return a step function with few enough steps to draw: within a bin, its highest, its lowest and its last value.

    >>> times, values = thinned(np.arange(1e6), np.arange(1e6) % 7, 100)
    >>> len(times), float(values.min()), float(values.max()), float(times[-1])
    (300, 0.0, 6.0, 999999.0)
    """
    if len(times) <= points:
        return times, values
    bins = np.minimum((times - times[0]) / (times[-1] - times[0]) * points, points - 1).astype(np.int64)
    first = np.flatnonzero(np.diff(bins, prepend=-1))
    last = np.append(first[1:], len(times)) - 1
    high, low = np.maximum.reduceat(values, first), np.minimum.reduceat(values, first)
    at = np.column_stack([times[first], times[first], times[last]]).ravel()
    return at, np.column_stack([high, low, values[last]]).ravel()


def concurrency(
    timeline: Timeline, *, query: int | None = None, ax: Axes | None = None, unit: str | None = None
) -> Axes:
    """Draw the number of agents active at each time, and the pool capacity it should not exceed.

    Parameters
    ----------
    timeline : Timeline
    query : int, optional
        Which of its queries; then its capacity and the mean up to its answer are drawn too. Default: all together.
    ax : Axes, optional
        Default: those of a new figure.
    unit : str, optional
        Label of the time axis. Default: ``decode steps`` on the decode-step clock, else ``seconds``.

    Returns
    -------
    Axes

    Raises
    ------
    ConfigError
        If there is no such query.

    Examples
    --------
    >>> from simulator import Answer, Thread, Trace, compile_trace, simulate
    >>> timeline = simulate(compile_trace(Trace("t", (Thread("organizer", (Answer(4),)),))))
    >>> concurrency(timeline).get_ylabel()
    'active agents'
    """
    from simulator.plots import canvas

    if query is not None:
        timeline.of_query(query)
    ax = canvas.one_panel() if ax is None else ax
    draw_concurrency(ax, timeline, query)
    canvas.time_axis(ax, *_reach(timeline, query), unit or canvas.time_unit(timeline))
    return ax


def draw_concurrency(ax: Axes, timeline: Timeline, query: int | None) -> None:
    """Draw the curve of `concurrency` and label its limits; the time axis is the caller's."""
    from simulator.plots import canvas

    times, agents = active_agents(timeline, query)
    limit = mean = None
    if query is not None:
        limit = timeline.protocol_of(query).capacity
        end, arrival = float(timeline.answered[query]), float(timeline.arrivals[query])
        if end > arrival:
            inside = np.append(np.clip(times, arrival, end), end)
            mean = float(np.dot(agents, np.diff(inside)) / (end - arrival)) if len(times) else 0.0
    canvas.draw_curve(ax, *thinned(times, agents), limit=limit, name="c", mean=mean, label="active agents")


def batch(timeline: Timeline, *, ax: Axes | None = None, unit: str | None = None) -> Axes:
    """Draw the number of sequences in the GPU's batch at each time, and its limit `max_num_seqs`.

    Parameters
    ----------
    timeline : Timeline
    ax : Axes, optional
        Default: those of a new figure.
    unit : str, optional
        Label of the time axis. Default: ``decode steps`` on the decode-step clock, else ``seconds``.

    Returns
    -------
    Axes

    Examples
    --------
    >>> from simulator import GPU, Answer, Thread, Trace, compile_trace, simulate
    >>> graph = compile_trace(Trace("t", (Thread("organizer", (Answer(4),)),)))
    >>> batch(simulate([graph, graph, graph], gpu=GPU(max_num_seqs=2))).get_ylabel()
    'sequences in the batch'
    """
    from simulator.plots import canvas

    ax = canvas.one_panel() if ax is None else ax
    times, sizes = timeline.batch[:, 0], timeline.batch[:, 1]
    last = np.append(np.diff(times) > 0, True)[: len(times)]  # of several changes at one time, the last
    canvas.draw_curve(
        ax,
        *thinned(times[last], sizes[last]),
        limit=timeline.max_num_seqs,
        name="max_num_seqs",
        mean=None,
        label="sequences in the batch",
    )
    canvas.time_axis(ax, *_reach(timeline, None), unit or canvas.time_unit(timeline))
    return ax


def _reach(timeline: Timeline, query: int | None) -> tuple[float, float]:
    """Return the first and the last time worth showing."""
    if query is None:
        start = float(np.nanmin(timeline.arrivals))
        return start, start + timeline.makespan
    start = float(timeline.arrivals[query])
    return start, max([start, *timeline.of_query(query)["finish"].tolist()])
