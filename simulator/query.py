"""The run state of one query, and why it cannot go on when it cannot."""

from __future__ import annotations

import math
from typing import Any

import numpy.typing as npt

from simulator.gpu import Work
from simulator.graph import ExecutionGraph
from simulator.pool import Pool, Waiting
from simulator.protocol import Protocol
from simulator.timeline import Deadlock

__all__ = ["Query", "explain_deadlock"]


class Query:
    """The run state of one query."""

    __slots__ = (
        "alive",
        "context",
        "ended",
        "granted",
        "graph",
        "host",
        "index",
        "keys",
        "lighter",
        "live",
        "missing",
        "over",
        "pool",
        "protocol",
        "ready",
        "slotless",
        "waited_from",
    )

    def __init__(self, index: int, graph: ExecutionGraph, protocol: Protocol, keys: npt.ArrayLike) -> None:
        threads = len(graph.threads)
        self.index = index
        self.graph = graph
        self.protocol = protocol
        self.keys: Any = keys
        self.pool = Pool(protocol.capacity)
        self.missing = [1 + len(task.joins) for task in graph.tasks]  # what each task still waits for
        self.context = list(graph.shared)  # tokens in each thread's context
        self.waited_from = [math.nan] * threads
        self.granted = [math.nan] * threads
        self.ready = [math.nan] * threads
        self.live: dict[int, Work | int] = {}  # what each thread has on the GPU, or the task that is its Delay
        self.alive = 0  # threads that have begun and not ended
        self.ended = [False] * threads
        self.host: dict[int, Waiting] = {}  # workers whose parent does their work, and where it goes on after
        self.slotless: set[int] = set()  # workers that hold no slot: done inline, or dropped
        self.lighter: dict[int, int] = {}  # tokens that are not inserted because of that, by task
        self.over = False


def explain_deadlock(query: Query) -> Deadlock:
    """Follow who waits for whom until it closes."""
    graph = query.graph
    names = graph.threads
    waiting = {slot.worker for slot in query.pool.queue} | {slot.parent for slot in query.pool.queue}
    holders = [
        thread
        for thread in range(1, len(names))
        if not math.isnan(query.ready[thread])
        and thread not in query.slotless
        # a slot is held until the thread ends or, under release="join", until the task that joins it runs
        and (not query.ended[thread] or (query.protocol.release == "join" and not _joined(query, thread)))
    ]
    at = query.pool.queue[0].worker if query.pool.queue else 0
    seen: dict[int, str] = {}
    while at not in seen:
        if at in waiting:
            if not holders:
                return Deadlock(query.index, (f"{names[at]} waits for a slot, and a pool of 1 has none for workers",))
            to = holders[0]
            seen[at] = f"{names[at]} waits for a slot held by {names[to]}"
        elif query.ended[at]:
            to = graph.parent(at)
            seen[at] = f"{names[at]} keeps its slot until {names[to]} joins it"
        else:
            joins = next(task.joins for i, task in enumerate(graph.tasks) if task.thread == at and query.missing[i])
            to = next(child for child in joins if not query.ended[child])
            seen[at] = f"{names[at]} waits to join {names[to]}"
        at = to
    cycle = list(seen)
    return Deadlock(query.index, tuple(seen[thread] for thread in cycle[cycle.index(at) :]))


def _joined(query: Query, thread: int) -> bool:
    joiner = query.graph.joined_by[thread]
    return joiner >= 0 and not query.missing[joiner]
