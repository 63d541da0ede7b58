"""What a Gantt chart shows of one query, in lanes and times: plain lists, before anything is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from simulator.errors import ConfigError, mistaken
from simulator.graph import ExecutionGraph
from simulator.metrics.realised import realised_path
from simulator.timeline import CANCELLED, INLINE, Row, Span, Timeline
from simulator.trace import nesting
from simulator.trace.full_pool import WHEN_FULL, Admission

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
class Chart:
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


def compose(timeline: Timeline, query: int) -> Chart:
    """Return the chart of `query`.

    >>> from simulator import Answer, Fork, Join, Return, Think, Thread, Trace, compile_trace, simulate
    >>> organizer = Thread("organizer", (Think(5), Fork(1), Think(3), Join(1), Answer(2)))
    >>> chart = compose(simulate(compile_trace(Trace("t", (organizer, Thread("1", (Return(10),)))))), 0)
    >>> chart.forks, chart.joins, chart.path
    ([(5.0, 0, 1)], [(15.0, 15.0, 1, 0)], [(0.0, 0), (5.0, 0), (5.0, 1), (15.0, 1), (15.0, 0), (17.0, 0)])
    """
    if not isinstance(timeline, Timeline):
        raise ConfigError(mistaken("gantt", "Timeline", timeline))
    rows, graph = list(timeline.stays(query)), timeline.graphs[query]
    arrival, answered = float(timeline.arrivals[query]), float(timeline.answered[query])
    never = math.isnan(answered)
    end = max([arrival, *(row.finish for row in rows)] + ([] if never else [answered]))
    if never:  # leave room to see who waits for ever
        end += 0.1 * (end - arrival) or 1.0
    order = _lane_order(graph)
    lane_of = {thread: lane for lane, thread in enumerate(order)}
    done_inline = {row.thread for row in rows if row.flags & INLINE}
    ran = {row.thread for row in rows}
    lanes = [_lane(graph, thread, thread in done_inline, thread in ran) for thread in order]
    chart = Chart(lanes, arrival, end, answered)
    chart.spans = [(lane_of[span.thread], span) for span in timeline.spans(query)]
    chart.cuts = [(row.finish, lane_of[row.thread]) for row in rows if row.flags & CANCELLED]
    _mark_threads(chart, graph, {row.task: row for row in rows}, lane_of)
    dropped = Admission.DROP in WHEN_FULL[timeline.protocol_of(query).when_full].may
    _mark_stuck(chart, graph, rows, lane_of, dropped)
    for piece in () if never else realised_path(timeline, query):
        chart.path += ((piece.start, lane_of[piece.thread]), (piece.finish, lane_of[piece.thread]))
    return chart


def _mark_threads(chart: Chart, graph: ExecutionGraph, by_task: Mapping[int, Row], lane_of: Mapping[int, int]) -> None:
    """Note where threads were forked and joined, and which were too brief to be seen."""
    seen = dict.fromkeys(lane_of.values(), 0.0)
    for lane, span in chart.spans:
        seen[lane] += span.finish - span.start
    for thread, lane in lane_of.items():
        facts = graph.threads[thread]
        first, last = by_task.get(facts.first), by_task.get(facts.last)
        if first is not None and thread:
            chart.forks.append((first.waited_from, lane_of[facts.parent], lane))
        if last is None:
            continue
        if seen[lane] <= _VISIBLE * (chart.end - chart.start):
            chart.brief.append((last.finish, lane))
        if facts.joined_by in by_task:
            joiner = lane_of[graph.tasks[facts.joined_by].thread]
            chart.joins.append((last.finish, by_task[facts.joined_by].ready, lane, joiner))


def _mark_stuck(
    chart: Chart, graph: ExecutionGraph, rows: Sequence[Row], lane_of: Mapping[int, int], dropped: bool
) -> None:
    """Note the threads whose last task has no row: they waited for a slot or a Join at the answer, or wait still."""
    by_task = {row.task: row for row in rows}
    latest: dict[int, float] = {}
    for row in rows:
        latest[row.thread] = max(row.finish, latest.get(row.thread, row.finish))
    cut = {lane for _, lane in chart.cuts}
    stopped = chart.end if math.isnan(chart.answered) else chart.answered
    for thread, lane in lane_of.items():
        if graph.threads[thread].last in by_task or lane in cut:
            continue
        since = latest.get(thread)
        if since is None:
            forked = by_task.get(graph.threads[thread].forked_by)
            if forked is None or forked.flags & CANCELLED or dropped:
                continue
            since = forked.finish
        chart.stuck.append((since, stopped, lane))
        if not math.isnan(chart.answered):
            chart.cuts.append((chart.answered, lane))


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
