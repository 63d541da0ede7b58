"""Why a query cannot go on when it cannot."""

from __future__ import annotations

from simulator.engine.query import HOSTS, LEFT, NEW, STALLED, WAITS_SEAT, WAITS_SLOT, QueryRun, ThreadRun
from simulator.timeline import Deadlock


def explain_deadlock(query: QueryRun) -> Deadlock:
    """Follow who waits for whom until it closes, or ends at what will never come."""
    seen: dict[int, str] = {}
    at = query.pool.queue[0] if query.pool.queue else query.threads[0]
    while at.number not in seen:
        to, why = _blocker(at)
        name = at.spec.id
        if to is None:
            return Deadlock(query.index, (*seen.values(), f"{name} {why}"))
        seen[at.number] = f"{name} {why.format(to.spec.id)}"
        at = to
    threads = list(seen)
    return Deadlock(query.index, tuple(seen[thread] for thread in threads[threads.index(at.number) :]))


def _blocker(thread: ThreadRun) -> tuple[ThreadRun | None, str]:
    """Return the thread that `thread` waits for, if there is one, and how."""
    threads, state = thread.query.threads, thread.state
    if state in (WAITS_SLOT, STALLED):
        holder = next((other for other in threads if other.slot), None)
        return holder, "waits for a slot held by {}" if holder else "waits for a slot, and a pool of 1 has none"
    if state is WAITS_SEAT:
        return None, "waits for one of the max_workers seats, and all are taken"
    if state is NEW:
        return thread.parent, "waits to be forked by {}"
    if state is LEFT:
        if thread.spec.joined_by < 0:
            return None, "keeps its slot, and nobody joins it"
        return thread.parent, "keeps its slot until {} joins it"
    if state is HOSTS:
        return next(other for other in threads if other.parent is thread and other.resumes), "does the work of {} first"
    joins = thread.query.graph.tasks[thread.task].joins
    return next(threads[child] for child in joins if threads[child].state is not LEFT), "waits to join {}"
