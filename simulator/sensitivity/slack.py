"""Slack and drag in closed form: what each task could lose, and what it costs, if nobody ever waits for a machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from simulator.graph import ExecutionGraph
from simulator.graph.critical_path import critical_path

_ROUNDING = 1e-9  # of the latency: what sums of seconds may be off


class Slack(NamedTuple):
    """One task in the critical-path method; times in the unit of its weight."""

    task: int
    thread: str
    weight: float
    """How long it takes."""
    start: float
    """Earliest start."""
    b_level: float
    """Longest path from its start to any end of the graph, its own weight included."""
    slack: float
    """Total slack: how much later it could start, or how much longer it could take, without moving the answer.
    Infinite where the answer does not depend on it; 0 on a critical path.
    """
    free_slack: float
    """How much later it could end without moving the start of any other task. Infinite where nothing follows that the
    answer could depend on.
    """
    drag: float
    """By how much earlier the answer would come if the task took no time (Devaux's critical-path drag). Shortened by d,
    it saves ``min(d, drag)``.
    """

    @property
    def critical(self) -> bool:
        """Whether it is on a critical path."""
        return self.slack == 0


def slack_table(graph: ExecutionGraph, weights: Sequence[float] | None = None) -> tuple[Slack, ...]:
    """Return slack and drag of each task.

    Of one task changed at a time, they say exactly what becomes of the latency L in closed form: e longer, it is
    ``L + max(0, e - slack)``, and d shorter, ``L - min(d, drag)``.

    Parameters
    ----------
    graph : ExecutionGraph
    weights : sequence of float, optional
        One per task; decode steps if not given. See `simulator.metrics.uncontended.seconds_alone` for seconds.

    Returns
    -------
    tuple of Slack
        One per task, in their order.

    Examples
    --------
    Worker 1 ends 7 steps after the organizer asks for it; if it took no time at all, its own 3 steps would bind.

    >>> from simulator import Answer, Fork, Join, Return, Think, Thread, Trace, compile_trace
    >>> organizer = Thread("organizer", (Think(5), Fork(1), Think(3), Join(1), Answer(2)))
    >>> graph = compile_trace(Trace("t", (organizer, Thread("1", (Return(10),)))))
    >>> for row in slack_table(graph):
    ...     print(row.thread, row.weight, row.slack, row.free_slack, row.drag)
    organizer 5 0 0 5
    1 10 0 0 7
    organizer 3 7 7 0
    organizer 2 0 0 2
    """
    weights = [graph.weight(i) for i in range(len(graph))] if weights is None else weights
    path = critical_path(graph, weights)
    latency = path.latency
    free = [math.inf] * len(graph)
    free[graph.answer] = 0
    crossing = []  # longest path over each edge, and the tasks that it passes by
    for source, target, _ in graph.edges():
        finish = path.start[source] + weights[source]
        free[source] = min(free[source], path.start[target] - finish)
        crossing.append((finish + latency - path.start[target] - path.slack[target], source, target))
    around = _around(crossing, len(graph))
    rows = []
    for i, weight in enumerate(weights):
        slack = path.slack[i]
        shortest = max(around[i], latency - slack - weight)
        drag = latency - shortest if math.isfinite(slack) else 0
        rows.append(
            Slack(
                i,
                graph.threads[graph.tasks[i].thread].id,
                weight,
                path.start[i],
                path.b_level[i],
                _exact(slack, latency),
                _exact(free[i], latency),
                _exact(drag, latency),
            )
        )
    return tuple(rows)


def _exact(value: float, latency: float) -> float:
    """Return 0 for what is only rounding."""
    return value if abs(value) > _ROUNDING * latency else 0


def _around(crossing: list[tuple[float, int, int]], n: int) -> list[float]:
    """Return the longest path to the answer that passes by each task; -inf where none does.

    Tasks are in topological order, so a path passes by task i if one of its edges leads from before i to behind it.
    Longest first, each edge fills what is still empty between its ends.
    """
    longest = [-math.inf] * n
    empty = list(range(n + 1))  # the first task from here on that has not been filled, perhaps by way of others

    def find(i: int) -> int:
        while empty[i] != i:
            empty[i] = empty[empty[i]]
            i = empty[i]
        return i

    for length, source, target in sorted(crossing, reverse=True):
        i = find(source + 1)
        while i < target:
            longest[i] = length
            empty[i] = i + 1
            i = find(i)
    return longest
