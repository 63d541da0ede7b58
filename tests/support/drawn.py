"""Traces written down by hand, and what became of them, to be compared with a drawing."""

from __future__ import annotations

from simulator import Thread, Timeline, Trace
from simulator.timeline import CANCELLED, INLINE
from simulator.trace import ORGANIZER, Action


def traced(organizer: list[Action], **workers: list[Action]) -> Trace:
    """Return the trace of the organizer's actions and those of workers ``w1``, ``w1_1``, ..."""
    threads = [Thread(name[1:].replace("_", "."), tuple(actions)) for name, actions in workers.items()]
    return Trace("t", (Thread(ORGANIZER, tuple(organizer)), *threads))


def played(timeline: Timeline, query: int = 0) -> dict[str, list[tuple[float, float]]]:
    """Start and finish of all that took time, by thread; ``*`` marks what was cancelled, ``^`` what was done inline."""
    result: dict[str, list[tuple[float, float]]] = {}
    for row in sorted(timeline.stays(query), key=lambda row: (row.thread, row.task)):
        flags = row.flags
        name = timeline.graphs[query].threads[row.thread].id
        name += "*" * bool(flags & CANCELLED) + "^" * bool(flags & INLINE)
        if row.finish > row.start or flags & CANCELLED:
            result.setdefault(name, []).append((row.start, row.finish))
    return result


def times(timeline: Timeline, task: int, *names: str) -> tuple[float, ...]:
    """The named times of one task of the first query."""
    place = timeline.column("task").tolist().index(task)
    return tuple(float(timeline.column(name)[place]) for name in names)
