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
    for row in sorted(timeline.of_query(query).tolist(), key=lambda row: (row[1], row[2])):
        flags = int(row[10])
        name = timeline.graphs[query].threads[int(row[1])].id
        name += "*" * bool(flags & CANCELLED) + "^" * bool(flags & INLINE)
        if row[8] > row[6] or flags & CANCELLED:
            result.setdefault(name, []).append((row[6], row[8]))
    return result


def times(timeline: Timeline, task: int, *names: str) -> tuple[float, ...]:
    """The named times of one task of the first query."""
    place = timeline.column("task").tolist().index(task)
    return tuple(float(timeline.column(name)[place]) for name in names)
