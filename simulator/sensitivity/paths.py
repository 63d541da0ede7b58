"""What became of a realised critical path."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from simulator.graph import ExecutionGraph
from simulator.metrics.realised import Piece, realised_path
from simulator.timeline import SpanKind, Timeline

_WAITS = (SpanKind.WAIT_BATCH, SpanKind.WAIT_POOL)


class PathChange(NamedTuple):
    """The realised critical path of one query before and after a change; times in the timelines' unit."""

    before: Mapping[str, float]
    """Time on the path of each thread at work (its prompts, decoding and delays), by name, and of waits:
    ``wait_batch``, ``wait_pool``. It sums to the latency.
    """
    after: Mapping[str, float]
    moved: float
    """Share of the new path that lies on tasks, or waits before tasks, that were not on the old one; from 0 to 1."""
    instead: str | None
    """The thread or wait that most of what moved is spent on; None if the path goes where it went."""


def path_change(before: Timeline, after: Timeline, *, query: int = 0) -> PathChange:
    """Compare the realised critical paths of one query in two runs.

    The graphs must be of the same trace, or one be a `what_if` of the other; machines and protocols may differ.

    Parameters
    ----------
    before, after : Timeline
    query : int
        Which of their queries.

    Returns
    -------
    PathChange

    Raises
    ------
    ConfigError
        If there is no such query, or it was never answered.

    Examples
    --------
    Worker 1 at half its length is no longer the longer one.

    >>> from simulator import Answer, Fork, Join, Return, Thread, Trace, compile_trace, simulate, what_if
    >>> organizer = Thread("organizer", (Fork(1, 1), Fork(2), Join(1), Join(2), Answer(2)))
    >>> graph = compile_trace(Trace("t", (organizer, Thread("1", (Return(10),)), Thread("2", (Return(7),)))))
    >>> change = path_change(simulate(graph), simulate(what_if(graph, thread="1", scale=0.5)))
    >>> change.before, change.after
    ({'organizer': 3.0, '1': 10.0}, {'organizer': 3.0, '2': 7.0})
    >>> change.moved, change.instead
    (0.7, '2')
    """
    return compare(Realised(before, query), Realised(after, query))


class Realised:
    """The realised critical path of one query."""

    def __init__(self, timeline: Timeline, query: int) -> None:
        self.graph = timeline.graphs[query]
        self.path = realised_path(timeline, query)
        self.places = {place for piece in self.path for place in _places(self.graph, piece)}
        self.times = self.sums(self.path)

    def sums(self, path: Iterable[Piece]) -> dict[str, float]:
        """Return the time of each thread at work, and of each kind of wait."""
        times: dict[str, list[float]] = {}
        for piece in path:
            bound = piece.kind.value if piece.kind in _WAITS else self.graph.threads[piece.thread].id
            times.setdefault(bound, []).append(piece.finish - piece.start)
        return {bound: math.fsum(each) for bound, each in times.items()}

    @property
    def bound(self) -> str | None:
        """What most of it is spent on."""
        return max(self.times, key=lambda bound: self.times[bound], default=None)


def compare(before: Realised, after: Realised) -> PathChange:
    """Do what `path_change` does, with paths that are known."""
    moved = after.sums(piece for piece in after.path if before.places.isdisjoint(_places(after.graph, piece)))
    latency = math.fsum(after.times.values())
    return PathChange(
        before.times,
        after.times,
        math.fsum(moved.values()) / latency if latency else 0.0,
        max(moved, key=lambda bound: moved[bound], default=None),
    )


def _places(graph: ExecutionGraph, piece: Piece) -> set[tuple[str, bool, float]]:
    """Return what a piece of the path is made of, the same however tasks are numbered: actions."""
    begin, end = graph.tasks[piece.task].actions
    places = range(begin, end) or (begin - 0.5,)  # a task of nothing but inserted tokens that are charged
    return {(graph.threads[piece.thread].id, piece.kind in _WAITS, place) for place in places}
