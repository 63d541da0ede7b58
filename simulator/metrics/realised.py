"""The realised critical path: what bound the latency of a query on the simulated machine."""

from __future__ import annotations

import math
from typing import NamedTuple

from simulator.errors import ConfigError
from simulator.graph import ExecutionGraph
from simulator.timeline import BLOCKED, INLINE, Row, SpanKind, Timeline

BOUNDS = ("decode", "worker", "prefill", "delay", "wait_batch", "wait_pool")
"""What a piece of the path can be bound by, see `Piece.bound`."""


class Piece(NamedTuple):
    """A stretch of the realised critical path."""

    thread: int
    task: int
    kind: SpanKind
    start: float
    finish: float

    @property
    def bound(self) -> str:
        """What the query waited for: ``worker`` for decoding a worker's tasks (inline too), else the kind of span."""
        return "worker" if self.kind == SpanKind.DECODE and self.thread else self.kind.value


def realised_path(timeline: Timeline, query: int = 0) -> tuple[Piece, ...]:
    """Return what bound the latency of `query`: pieces that follow each other from its arrival to its answer.

    Walked back from the answer: while a task ran, it is the bound; before that it waited for the batch; before that for
    a worker, and then the path goes on in that worker; or for a slot; and then for its thread's task before.

    >>> from simulator import Answer, Fork, Join, Return, Think, Thread, Trace, compile_trace, simulate
    >>> organizer = Thread("organizer", (Think(5), Fork(1), Think(3), Join(1), Answer(2)))
    >>> timeline = simulate(compile_trace(Trace("t", (organizer, Thread("1", (Return(10),))))))
    >>> [(piece.thread, piece.bound, piece.start, piece.finish) for piece in realised_path(timeline)]
    [(0, 'decode', 0.0, 5.0), (1, 'worker', 5.0, 15.0), (0, 'decode', 15.0, 17.0)]
    """
    past = _Past(timeline, query)
    graph = past.graph
    if math.isnan(timeline.answered[query]):
        raise ConfigError(f"query {query} was never answered: it has no critical path")
    previous = {following: task for task, following in enumerate(graph.next) if following >= 0}
    pieces: list[Piece] = []
    task, now = graph.answer, float(timeline.answered[query])
    while task >= 0:
        stays = past.stays[task]
        begun = stays[0]
        thread = begun.thread
        if now > stays[-1].finish:  # one of its Forks was done inline, or blocked until `now`
            worker = past.holder(task, now)
            if worker is None:
                began = past.free(task, now)
                pieces.append(Piece(thread, task, SpanKind.WAIT_POOL, began, now))
                now = began
                continue
            first = past.stays[graph.threads[worker].first][0]
            if first.flags & INLINE:
                task = graph.threads[worker].last
            else:
                if now > first.waited_from:
                    pieces.append(Piece(thread, task, SpanKind.WAIT_POOL, first.waited_from, now))
                now = first.waited_from
            continue
        running = SpanKind.DELAY if graph.tasks[task].seconds else SpanKind.DECODE
        marks = []
        for stay in reversed(stays):
            marks += [(running, stay.decode_start, stay.finish), (SpanKind.PREFILL, stay.start, stay.decode_start)]
            marks.append((SpanKind.WAIT_BATCH, stay.ready, stay.start))
        before, now = previous.get(task, -1), begun.ready
        reached = past.passed(before) if before >= 0 else begun.granted
        joins = graph.tasks[task].joins if begun.ready > reached else ()
        worker = next((child for child in joins if past.ended(child) == begun.ready), -1)
        if worker < 0 and before < 0:
            marks.append((SpanKind.WAIT_POOL, begun.waited_from, begun.granted))
            before, now = graph.threads[thread].forked_by, begun.waited_from
        pieces += (Piece(thread, task, kind, begin, end) for kind, begin, end in marks if end > begin)
        task = graph.threads[worker].last if worker >= 0 else before
    return tuple(reversed(pieces))


class _Past:
    """When threads of one query got past their Forks: at once, but for Forks that were blocked or done inline."""

    def __init__(self, timeline: Timeline, query: int) -> None:
        self.stays: dict[int, list[Row]] = {}  # rows of each task: more than one if it was preempted
        for row in timeline.stays(query):
            self.stays.setdefault(row.task, []).append(row)
        self.graph: ExecutionGraph = timeline.graphs[query]
        self.ends: dict[int, float] = {}
        self.holders: dict[int, dict[float, int]] = {}

    def passed(self, task: int) -> float:
        """When the thread of `task` got past it and its Forks."""
        return float(max([self.stays[task][-1].finish, *map(self.held, self.graph.tasks[task].forks)]))

    def holder(self, task: int, until: float) -> int | None:
        """Return the first worker whose Fork held the thread of `task` up until then.

        None: it is one that got its slot then, and never ran, as it waited for one of `max_workers` until the answer.
        """
        if task not in self.holders:
            forks = self.graph.tasks[task].forks
            self.holders[task] = {self.held(fork): fork for fork in reversed(forks)}
        return self.holders[task].get(until)

    def free(self, task: int, before: float) -> float:
        """When the thread of `task` was last free, before a Fork of it held it up until `before`."""
        ends = [self.stays[task][-1].finish, *map(self.held, self.graph.tasks[task].forks)]
        return float(max(end for end in ends if end < before))

    def held(self, worker: int) -> float:
        """Until when the Fork of `worker` held up its parent; before all time if it did not."""
        if self.graph.threads[worker].first not in self.stays:
            return -math.inf
        first = self.stays[self.graph.threads[worker].first][0]
        if first.flags & INLINE:
            return self.ended(worker)
        return first.slotted if first.flags & BLOCKED else -math.inf

    def ended(self, worker: int) -> float:
        """When `worker` ended; infinity if it did not."""
        if worker not in self.ends:
            last = self.graph.threads[worker].last
            self.ends[worker] = self.passed(last) if last in self.stays else math.inf
        return self.ends[worker]


def breakdown(timeline: Timeline, query: int = 0) -> dict[str, float]:
    """Return the fractions of the latency of `query` that each bound accounts for; they sum to 1.

    Keys: ``decode`` (the organizer's own), ``worker`` (decoding of workers it waited for), ``prefill``, ``delay``,
    ``wait_batch``, ``wait_pool``. All 0 for a latency of 0.

    >>> from simulator import Answer, Fork, Join, Return, Think, Thread, Trace, compile_trace, simulate
    >>> organizer = Thread("organizer", (Think(5), Fork(1), Think(3), Join(1), Answer(3)))
    >>> shares = breakdown(simulate(compile_trace(Trace("t", (organizer, Thread("1", (Return(12),)))))))
    >>> {bound: share for bound, share in shares.items() if share}
    {'decode': 0.4, 'worker': 0.6}
    """
    seconds = dict.fromkeys(BOUNDS, 0.0)
    for piece in realised_path(timeline, query):
        seconds[piece.bound] += piece.finish - piece.start
    latency = math.fsum(seconds.values())
    return {bound: value / latency if latency else 0.0 for bound, value in seconds.items()}
