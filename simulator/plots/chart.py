"""What a Gantt chart shows of one query, in lanes and times: plain lists, before anything is drawn."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from simulator.graph import ExecutionGraph
from simulator.metrics.realised import realised_path
from simulator.timeline import CANCELLED, INLINE, Span, Timeline
from simulator.trace import nesting
from simulator.trace.full_pool import WHEN_FULL, Admission

__all__ = ["Lane", "Scene", "compose", "printable"]

_VISIBLE = 1e-3  # of the time shown
_LABEL = 30  # characters of a lane's label


class Lane(NamedTuple):
    """One thread's row of the chart."""

    thread: int
    depth: int
    """Forks between the organizer and this thread."""
    label: str
    note: str = ""
    """What is special about it, such as ``inline``."""


@dataclass(slots=True)
class Scene:
    """One query. A lane is a number, 0 on top."""

    lanes: list[Lane]
    start: float
    end: float
    answered: float
    """NaN if it never was."""
    spans: list[tuple[int, Span]] = field(default_factory=list)
    """Lane and span."""
    forks: list[tuple[float, int, int]] = field(default_factory=list)
    """Time, parent's lane, worker's lane."""
    joins: list[tuple[float, float, int, int]] = field(default_factory=list)
    """Worker's end, parent's resumption, worker's lane, parent's lane."""
    cuts: list[tuple[float, int]] = field(default_factory=list)
    """Where cancelled threads end."""
    brief: list[tuple[float, int]] = field(default_factory=list)
    """Where threads end that were too short to be seen."""
    stuck: list[tuple[float, float, int]] = field(default_factory=list)
    """From when to when threads waited for what never came."""
    path: list[tuple[float, int]] = field(default_factory=list)
    """Corners of the realised critical path; each two make one piece, and pieces follow each other."""


def printable(text: str, limit: int) -> str:
    r"""Return `text` on one line, without control characters, cut to `limit` characters.

    >>> printable("two\nlines\x00", 20), printable("countdown-17", 8)
    ('two lines', 'countdo…')
    """
    text = "".join(letter for letter in " ".join(text[: 4 * limit].split()) if letter.isprintable())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def compose(timeline: Timeline, query: int) -> Scene:
    """Return the scene of `query`.

    >>> from simulator import Answer, Fork, Join, Return, Think, Thread, Trace, compile_trace, simulate
    >>> organizer = Thread("organizer", (Think(5), Fork(1), Think(3), Join(1), Answer(2)))
    >>> scene = compose(simulate(compile_trace(Trace("t", (organizer, Thread("1", (Return(10),)))))), 0)
    >>> scene.forks, scene.joins, scene.path
    ([(5.0, 0, 1)], [(15.0, 15.0, 1, 0)], [(0.0, 0), (5.0, 0), (5.0, 1), (15.0, 1), (15.0, 0), (17.0, 0)])
    """
    rows = list(timeline.stays(query))
    graph = timeline.graphs[query]
    by_task = {row.task: row for row in rows}
    arrival, answered = float(timeline.arrivals[query]), float(timeline.answered[query])
    end = max([arrival, *(row.finish for row in rows)] + ([] if math.isnan(answered) else [answered]))
    if math.isnan(answered):  # leave room to see who waits for ever
        end += 0.1 * (end - arrival) or 1.0

    order = _lane_order(graph)
    lane_of = {thread: lane for lane, thread in enumerate(order)}
    done_inline = {row.thread for row in rows if row.flags & INLINE}
    ran = Counter(row.thread for row in rows)
    lanes = [_lane(graph, thread, thread in done_inline, thread in ran) for thread in order]
    scene = Scene(lanes, arrival, end, answered)
    scene.spans = [(lane_of[span.thread], span) for span in timeline.spans(query)]
    scene.cuts = [(row.finish, lane_of[row.thread]) for row in rows if row.flags & CANCELLED]

    stopped = end if math.isnan(answered) else answered
    seen = [0.0] * len(order)
    for lane, span in scene.spans:
        seen[lane] += span.finish - span.start
    cut = {lane for _, lane in scene.cuts}
    may = WHEN_FULL[timeline.protocol_of(query).when_full].may
    for lane, thread in enumerate(order):
        first, last = by_task.get(graph.threads[thread].first), by_task.get(graph.threads[thread].last)
        forked = by_task.get(graph.threads[thread].forked_by)
        if first is not None and thread:
            scene.forks.append((first.waited_from, lane_of[graph.threads[thread].parent], lane))
        if last is not None and seen[lane] <= _VISIBLE * (end - arrival):
            scene.brief.append((last.finish, lane))
        joiner = graph.threads[thread].joined_by
        if last is not None and joiner in by_task:
            resumed = by_task[joiner].ready
            scene.joins.append((last.finish, resumed, lane, lane_of[graph.tasks[joiner].thread]))
        if last is None and lane not in cut:
            # It has no row: it waited for a slot or a Join when the query was answered, or waits still.
            since = max((row.finish for row in rows if row.thread == thread), default=-1.0)
            if since < 0 and forked is not None and not forked.flags & CANCELLED:
                since = forked.finish
            if since < 0 or (thread not in ran and Admission.DROP in may):
                continue
            scene.stuck.append((since, stopped, lane))
            if not math.isnan(answered):
                scene.cuts.append((answered, lane))
    if not math.isnan(answered):
        for piece in realised_path(timeline, query):
            scene.path += ((piece.start, lane_of[piece.thread]), (piece.finish, lane_of[piece.thread]))
    return scene


def _lane_order(graph: ExecutionGraph) -> list[int]:
    """Return the threads from top to bottom: each below its parent, siblings in thread order."""
    children: list[list[int]] = [[] for _ in graph.threads]
    for thread in range(1, len(graph.threads)):
        children[graph.threads[thread].parent].append(thread)
    order, todo = [], [0]
    while todo:
        thread = todo.pop()
        order.append(thread)
        todo += reversed(children[thread])
    return order


def _lane(graph: ExecutionGraph, thread: int, inline: bool, ran: bool) -> Lane:
    name = graph.threads[thread].id
    recorded = graph.trace.thread(name)
    label = f"{name} · {recorded.label}" if recorded and recorded.label not in (None, "", name) else name
    note = "inline" if inline else "" if ran else "never ran"
    return Lane(thread, nesting(name), printable(label, _LABEL), note)
