"""Why a query cannot go on when it cannot."""

from __future__ import annotations

from simulator.engine.query import HOSTS, LEFT, NEW, STALLED, WAITS_SEAT, WAITS_SLOT, QueryRun, ThreadRun
from simulator.timeline import Deadlock

__all__ = ["explain_deadlock"]


def explain_deadlock(query: QueryRun) -> Deadlock:
    """Follow who waits for whom until it closes, or ends at what will never come."""
    seen: dict[int, str] = {}
    at = query.pool.queue[0] if query.pool.queue else query.threads[0]
    while at.number not in seen:
        to, why = _blocker(at)
        name = query.graph.threads[at.number]
        if to is None:
            return Deadlock(query.index, (*seen.values(), f"{name} {why}"))
        seen[at.number] = f"{name} {why.format(query.graph.threads[to.number])}"
        at = to
    threads = list(seen)
    return Deadlock(query.index, tuple(seen[thread] for thread in threads[threads.index(at.number) :]))


def _blocker(thread: ThreadRun) -> tuple[ThreadRun | None, str]:
    """Return the thread that `thread` waits for, if there is one, and how."""
    graph, threads = thread.query.graph, thread.query.threads
    state = thread.state
    if state in (WAITS_SLOT, STALLED):
        holder = next((other for other in threads if other.slot), None)
        return holder, "waits for a slot held by {}" if holder else "waits for a slot, and a pool of 1 has none"
    if state is WAITS_SEAT:
        return None, "waits for one of the max_workers seats, and all are taken"
    if state is NEW:
        return thread.parent, "waits to be forked by {}"
    if state is LEFT:
        if thread.joined_by < 0:
            return None, "keeps its slot, and nobody joins it"
        return threads[graph.tasks[thread.joined_by].thread], "keeps its slot until {} joins it"
    if state is HOSTS:
        return next(other for other in threads if other.parent is thread and other.resumes), "does the work of {} first"
    joins = graph.tasks[thread.task].joins
    return next(threads[child] for child in joins if threads[child].state is not LEFT), "waits to join {}"
