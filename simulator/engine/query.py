"""The run state of one query, and why it cannot go on when it cannot."""

from __future__ import annotations

import math
from typing import Any

import numpy.typing as npt

from simulator.engine.kv import Holder
from simulator.engine.pool import Pool, Waiting
from simulator.engine.server import DECODING, Request
from simulator.graph import ExecutionGraph
from simulator.timeline import Deadlock
from simulator.trace.protocol import Protocol

__all__ = ["Query", "explain_deadlock"]


class Query:
    """The run state of one query."""

    __slots__ = (
        "alive",
        "computed",
        "context",
        "ended",
        "granted",
        "graph",
        "holders",
        "homes",
        "host",
        "index",
        "joining",
        "keys",
        "less_prefill",
        "less_tokens",
        "live",
        "missing",
        "over",
        "place",
        "placed",
        "placeless",
        "pool",
        "prefix",
        "protocol",
        "ready",
        "slotless",
        "waited_from",
    )

    def __init__(
        self,
        index: int,
        graph: ExecutionGraph,
        protocol: Protocol,
        keys: npt.ArrayLike,
        prefix: Query | None = None,
    ) -> None:
        threads = len(graph.threads)
        self.index = index
        self.graph = graph
        self.prefix = prefix  # the query whose organizer's context the organizer's prompt begins with
        self.protocol = protocol
        self.keys: Any = keys
        capacity = protocol.capacity
        self.pool: Pool[Waiting] = Pool(None if capacity is None else capacity - 1)
        self.missing = [1 + len(task.joins) for task in graph.tasks]  # what each task still waits for
        self.context = [thread.shared for thread in graph.threads]  # tokens in each thread's context
        self.waited_from = [math.nan] * threads
        self.granted = [math.nan] * threads
        self.ready = [math.nan] * threads
        self.live: dict[int, Request | int] = {}  # what each thread has on the GPU, or the task that is its Delay
        self.alive = 0  # threads that have begun and not ended
        self.ended = [False] * threads
        self.host: dict[int, Waiting] = {}  # workers whose parent does their work, and where it goes on after
        self.joining: dict[int, int] = {}  # where slots are held until the Join: Joins made, by task that makes them
        self.slotless: set[int] = set()  # workers that hold no slot: done inline, or dropped
        self.less_prefill: dict[int, int] = {}  # by task: what it need not prefill because of that
        self.less_tokens: dict[int, int] = {}  # the same where inserted tokens are decoded
        self.homes: dict[int, int] = {}  # of inline workers: the thread in whose context they work
        self.holders: dict[tuple[int, int], Holder] = {}  # each thread's KV on each replica, where memory is modelled
        self.computed: dict[tuple[int, int], int] = {}  # tokens of each thread's context when it last left a replica
        self.place: dict[int, int] = {}  # the replica that each thread was on last
        self.over = False
        self.placed = 0  # workers that have one of the `max_workers` places of the run
        self.placeless: set[int] = set()  # workers that wait for one

    def home(self, thread: int) -> int:
        """Return the thread in whose context `thread` works: its own, or that of who does its work."""
        return self.homes.get(thread, thread) if self.homes else thread

    def above(self, thread: int) -> tuple[Query | None, int]:
        """Return whose context a thread's prompt begins with: its parent's, or another query's organizer's."""
        return (self, self.graph.threads[thread].parent) if thread else (self.prefix, 0)

    def begins_with_prefix(self, thread: int) -> bool:
        """Whether this is the organizer's first request, and its prompt may begin with another query's context."""
        return self.graph.prefix_of is not None and self.home(thread) == 0 and 0 not in self.place

    def stored(self, step: int) -> int:
        """Return the tokens in memory of the threads that live, at an engine's `step`; shared ones count once."""
        total = 0
        for thread, granted in enumerate(self.granted):
            if math.isnan(granted) or self.ended[thread]:
                continue
            host = self.host.get(thread)  # who does its work in a context of their own, if somebody does
            total += self.context[thread]
            total -= self.graph.threads[thread].shared if host is None else self.context[host.parent or 0]
            live = self.live.get(thread)
            if isinstance(live, Request):
                # The thread's context has the whole prompt from the start, and what is decoded only at the end.
                decoded = step - live.joined_step if live.state == DECODING else 0
                total += live.emitted + decoded - live.prefill
        return total

    def last_forks(self) -> tuple[int, ...]:
        """Forks of the organizer's last task, if the answer cancels their workers before they begin."""
        return self.graph.tasks[self.graph.answer].forks if self.protocol.after_answer == "cancel" else ()


def explain_deadlock(query: Query) -> Deadlock:
    """Follow who waits for whom until it closes, or ends at what will never come."""
    seen: dict[int, str] = {}
    at = query.pool.queue[0].worker if query.pool.queue else 0
    while at not in seen:
        to, why = _blocker(query, at)
        name = query.graph.threads[at].id
        if to is None:
            return Deadlock(query.index, (*seen.values(), f"{name} {why}"))
        seen[at] = f"{name} {why.format(query.graph.threads[to].id)}"
        at = to
    threads = list(seen)
    return Deadlock(query.index, tuple(seen[thread] for thread in threads[threads.index(at) :]))


def _blocker(query: Query, thread: int) -> tuple[int | None, str]:
    """Return the thread that `thread` waits for, if there is one, and how."""
    graph = query.graph
    if any(thread in (slot.worker, slot.parent) for slot in query.pool.queue):
        holder = next((other for other in range(1, len(graph.threads)) if _holds_slot(query, other)), None)
        return holder, "waits for a slot held by {}" if holder else "waits for a slot, and a pool of 1 has none"
    if thread in query.placeless:
        return None, "waits for one of the max_workers places, and all are taken"
    if not _begun(query, thread):
        return graph.threads[thread].parent, "waits to be forked by {}"
    if query.ended[thread]:
        if graph.threads[thread].joined_by < 0:
            return None, "keeps its slot, and nobody joins it"
        return graph.tasks[graph.threads[thread].joined_by].thread, "keeps its slot until {} joins it"
    for child, resumed in query.host.items():
        if resumed.parent == thread:
            return child, "does the work of {} first"
    joins = next(task.joins for i, task in enumerate(graph.tasks) if task.thread == thread and query.missing[i])
    return next(child for child in joins if not query.ended[child]), "waits to join {}"


def _begun(query: Query, thread: int) -> bool:
    return not math.isnan(query.granted[thread])


def _holds_slot(query: Query, thread: int) -> bool:
    """Whether a worker has a slot: until it ends or, under release="join", until the task that joins it runs."""
    if not _begun(query, thread) or thread in query.slotless:
        return False
    if not query.ended[thread]:
        return True
    joiner = query.graph.threads[thread].joined_by
    if query.protocol.release == "return":
        return False
    return joiner < 0 or thread not in query.graph.tasks[joiner].joins[: query.joining.get(joiner, 0)]
