"""The critical path in closed form: no clock, only longest paths through the graph.

Weights are decode steps unless the caller gives others. Two ends are told apart: the *answer* (the organizer's last
task), which is the latency of the query, and the *span*, the longest path to anywhere, which an unjoined worker can
stretch beyond the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simulator.errors import GraphError, mistaken
from simulator.graph.graph import ExecutionGraph


@dataclass(frozen=True, slots=True)
class CriticalPath:
    """What bounds a query that never has to wait for the machine.

    >>> from simulator import Answer, Fork, Join, Return, Think, Thread, Trace, compile_trace
    >>> organizer = Thread("organizer", (Think(5), Fork(1), Think(3), Join(1), Answer(2)))
    >>> bound = critical_path(compile_trace(Trace("t", (organizer, Thread("1", (Return(10),))))))
    >>> bound.latency, bound.path, bound.slack
    (17, (0, 1, 3), (0, 0, 7, 0))
    """

    latency: float
    """Length of the longest path to the answer, in the weights' unit (decode steps by default)."""
    path: tuple[int, ...]
    """The tasks of that path, in order; of equal ones, the one through the earlier task."""
    start: tuple[float, ...]
    """Earliest start of each task (t-level)."""
    b_level: tuple[float, ...]
    """Longest path from the start of each task to any end of the graph, its own weight included."""
    slack: tuple[float, ...]
    """How much later each task could start without moving the answer; infinite where the answer does not depend on
    it."""
    work: float
    """Sum of all weights: the latency of one agent that does everything."""
    span: float
    """Longest path through the graph, to whatever end."""

    @property
    def parallelism(self) -> float:
        """``work / span``: the speed-up no number of agents can exceed. 0 for an empty graph."""
        return self.work / self.span if self.span else 0.0


def _weights(graph: ExecutionGraph, weights: Sequence[float] | None) -> Sequence[float]:
    if weights is None:
        return [graph.weight(i) for i in range(len(graph))]
    if len(weights) != len(graph):
        raise GraphError(f"got {len(weights)} weights for {len(graph)} tasks")
    return weights


def t_levels(graph: ExecutionGraph, weights: Sequence[float] | None = None) -> list[float]:
    """Return the earliest start of each task: the longest path up to it.

    Parameters
    ----------
    graph : ExecutionGraph
    weights : sequence of float, optional
        One per task; decode steps if not given.
    """
    weights = _weights(graph, weights)
    start: list[float] = [0] * len(graph)
    for source, target, _ in graph.edges():
        reached = start[source] + weights[source]
        if reached > start[target]:
            start[target] = reached
    return start


def b_levels(graph: ExecutionGraph, weights: Sequence[float] | None = None) -> list[float]:
    """Return the longest path from the start of each task to any end of the graph (HLFET priority).

    >>> from simulator import Answer, Fork, Join, Return, Think, Thread, Trace, compile_trace
    >>> organizer = Thread("organizer", (Think(5), Fork(1), Think(3), Join(1), Answer(2)))
    >>> b_levels(compile_trace(Trace("t", (organizer, Thread("1", (Return(10),))))))
    [17, 12, 5, 2]
    """
    weights = _weights(graph, weights)
    level = list(weights)
    for source, target, _ in reversed(list(graph.edges())):
        level[source] = max(level[source], weights[source] + level[target])
    return level


def critical_path(graph: ExecutionGraph, weights: Sequence[float] | None = None) -> CriticalPath:
    """Return the critical path of `graph`.

    Parameters
    ----------
    graph : ExecutionGraph
    weights : sequence of float, optional
        One per task; decode steps if not given.

    Returns
    -------
    CriticalPath

    Examples
    --------
    ::

        organizer  5 fork --- 3 ------ join 2          5 + 10 + 2 = 17 > 5 + 3 + 2
                      `-- worker 10 --'

    >>> from simulator import Answer, Fork, Join, Return, Think, Thread, Trace, compile_trace
    >>> organizer = Thread("organizer", (Think(5), Fork(1), Think(3), Join(1), Answer(2)))
    >>> result = critical_path(compile_trace(Trace("t", (organizer, Thread("1", (Return(10),))))))
    >>> result.latency, result.path, result.slack, result.work
    (17, (0, 1, 3), (0, 0, 7, 0), 20)
    """
    if not isinstance(graph, ExecutionGraph):
        raise GraphError(mistaken("critical_path", "ExecutionGraph", graph))
    weights = _weights(graph, weights)
    start = t_levels(graph, weights)
    before = graph.predecessors()
    answer = graph.answer
    # Longest path from each task's start to the answer; -inf where there is none.
    to_answer: list[float] = [float("-inf")] * len(graph)
    to_answer[answer] = weights[answer]
    for i in range(answer, -1, -1):
        for source in before[i]:
            to_answer[source] = max(to_answer[source], weights[source] + to_answer[i])
    latency = start[answer] + weights[answer]
    path = [answer]
    while before[path[-1]]:
        here = path[-1]
        path.append(next(i for i in before[here] if start[i] + weights[i] == start[here]))
    return CriticalPath(
        latency=latency,
        path=tuple(reversed(path)),
        start=tuple(start),
        b_level=tuple(b_levels(graph, weights)),
        slack=tuple(latency - (start[i] + to_answer[i]) for i in range(len(graph))),
        work=sum(weights),
        span=max(start[i] + weights[i] for i in range(len(graph))),
    )
