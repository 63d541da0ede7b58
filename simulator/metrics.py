"""What a timeline amounts to. Pure functions: nothing here simulates or plots.

`measure` looks at one query and `summarize` at the whole run. Both are dicts of small functions, `METRICS` and
`SUMMARIES`; a new metric is one function and one line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from simulator.clock import DecodeClock, decode_clock
from simulator.critical_path import critical_path, t_levels
from simulator.errors import ConfigError
from simulator.graph import ExecutionGraph
from simulator.timeline import COLUMNS, SpanKind, Timeline
from simulator.trace import Outcome, Violation

__all__ = ["METRICS", "SUMMARIES", "Metrics", "Piece", "Run", "breakdown", "measure", "realised_path", "summarize"]

_READY, _FINISH = COLUMNS.index("ready"), COLUMNS.index("finish")


class Piece(NamedTuple):
    """A stretch of the realised critical path."""

    thread: int
    task: int
    kind: SpanKind
    start: float
    finish: float

    @property
    def bound(self) -> str:
        """What the query waited for: ``worker`` for a worker's decoding, else the kind of span."""
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
    graph = timeline.graphs[query]
    rows = {int(row[2]): row for row in timeline.of_query(query).tolist()}
    if math.isnan(timeline.answered[query]):
        raise ConfigError(f"query {query} was never answered: it has no critical path")
    previous = {following: task for task, following in enumerate(graph.next) if following >= 0}
    pieces: list[Piece] = []
    task = graph.answer
    while task >= 0:
        _, thread, _, waited_from, granted, ready, start, decode_start, finish, _, _ = rows[task]
        thread = int(thread)
        running = SpanKind.DELAY if graph.tasks[task].seconds else SpanKind.DECODE
        before = previous.get(task, graph.forked_by[thread])
        marks = [(running, decode_start, finish), (SpanKind.PREFILL, start, decode_start)]
        marks.append((SpanKind.WAIT_BATCH, ready, start))
        worker = _bounding_worker(graph, rows, task, before, ready) if ready > granted else -1
        if worker < 0:
            marks.append((SpanKind.WAIT_POOL, waited_from, granted))
        pieces += (Piece(thread, task, kind, begin, end) for kind, begin, end in marks if end > begin)
        task = worker if worker >= 0 else before
    return tuple(reversed(pieces))


def _bounding_worker(graph: ExecutionGraph, rows: dict[int, list[float]], task: int, before: int, ready: float) -> int:
    """Return the last task of the worker whose end made `task` ready: one it joins, or one done inline before it."""
    candidates = graph.tasks[task].joins + (graph.tasks[before].forks if before >= 0 else ())
    ends = (graph.last[worker] for worker in candidates)
    return next((end for end in ends if end in rows and rows[end][_FINISH] == ready), -1)


def breakdown(timeline: Timeline, query: int = 0) -> dict[str, float]:
    """Return the fractions of the latency of `query` that each bound accounts for; they sum to 1.

    Keys: ``decode`` (the organizer's own), ``worker`` (decoding of workers it waited for), ``prefill``, ``delay``,
    ``wait_batch``, ``wait_pool``. All 0 for a latency of 0.
    """
    seconds = dict.fromkeys(("decode", "worker", "prefill", "delay", "wait_batch", "wait_pool"), 0.0)
    for piece in realised_path(timeline, query):
        seconds[piece.bound] += piece.finish - piece.start
    latency = math.fsum(seconds.values())
    return {bound: value / latency if latency else 0.0 for bound, value in seconds.items()}


@dataclass(frozen=True)
class Run:
    """One query of a timeline, and what several metrics need of it, computed once."""

    timeline: Timeline
    query: int

    @property
    def graph(self) -> ExecutionGraph:
        """Its execution graph."""
        return self.timeline.graphs[self.query]

    @property
    def capacity(self) -> int | None:
        """Its pool capacity."""
        return self.timeline.protocol_of(self.query).capacity

    @cached_property
    def clock(self) -> DecodeClock:
        """Its decode-step clock."""
        protocol = self.timeline.protocol_of(self.query)
        return decode_clock(self.graph.trace, protocol) if self.graph.trace else _graph_clock(self.graph)

    @cached_property
    def spans(self) -> dict[SpanKind, float]:
        """Seconds of all its threads by kind."""
        seconds = dict.fromkeys(SpanKind, 0.0)
        for span in self.timeline.spans(self.query):
            seconds[span.kind] += span.finish - span.start
        return seconds

    @cached_property
    def breakdown(self) -> dict[str, float]:
        """See `breakdown`."""
        return breakdown(self.timeline, self.query) if not math.isnan(self.latency) else {}

    @cached_property
    def alone(self) -> list[float]:
        """Seconds of each task alone in the batch."""
        return _seconds_alone(self.graph, self.timeline)

    @property
    def latency(self) -> float:
        """Seconds from arrival to answer; NaN without an answer."""
        return float(self.timeline.latency[self.query])


def _graph_clock(graph: ExecutionGraph) -> DecodeClock:
    """Return the decode-step clock of a graph that comes without its trace, and so without violations."""
    start = t_levels(graph)
    latency = int(start[graph.answer] + graph.weight(graph.answer))
    changes: list[tuple[float, int]] = []
    for i, task in enumerate(graph.tasks):
        if task.thread or graph.protocol.count_organizer:
            changes += ((start[i], 1), (start[i] + graph.weight(i), -1))
    active = peak = now = 0
    for step, change in sorted(changes):
        if step < latency:
            active += change * (latency - int(step))
            now += change
            peak = max(peak, now)
    return DecodeClock(latency, active, graph.tokens, peak, len(graph.threads) - 1, 0, (), {})


def _seconds_alone(graph: ExecutionGraph, timeline: Timeline) -> list[float]:
    cost = timeline.cost
    context = list(graph.shared)
    seconds = []
    for task in graph.tasks:
        have, prefill, tokens = context[task.thread], task.prefill, task.tokens
        context[task.thread] += prefill + tokens
        if not tokens:
            seconds.append(task.seconds)
        elif prefill and not cost.prefill_is_free:
            prompt = cost.step_seconds(0, 0, prefill, prefill * have + prefill * (prefill + 1) // 2)
            rest = cost.decode_seconds(1, have + prefill + 1, tokens - 1) if tokens > 1 else 0.0
            seconds.append(prompt + rest)
        else:
            seconds.append(cost.decode_seconds(1, have + prefill, tokens))
    return seconds


def _latency(run: Run) -> float:
    """Time from arrival to answer, in the timeline's unit."""
    return run.latency


def _critical_path_steps(run: Run) -> float:
    """Critical-path latency T on the decode-step clock: the paper's latency."""
    return run.clock.latency


def _critical_path_seconds(run: Run) -> float:
    """Longest path to the answer if every task had the GPU to itself and no slot were short: a floor under `latency`
    (but for ``drop`` and ``inline``, which change the work).
    """
    return critical_path(run.graph, run.alone).latency


def _work(run: Run) -> float:
    """Tokens decoded, those of cancelled workers up to their end included."""
    return float(run.timeline.of_query(run.query)[:, COLUMNS.index("tokens")].sum())


def _eta(run: Run) -> float:
    """Concurrency ratio: mean number of active agents on the decode-step clock."""
    return run.clock.eta


def _eta_over_c(run: Run) -> float:
    """Eta over the pool capacity; NaN without a capacity."""
    return run.clock.eta / run.capacity if run.capacity else math.nan


def _peak_concurrency(run: Run) -> float:
    """Most agents active at once on the decode-step clock."""
    return run.clock.peak_concurrency


def _concurrency(run: Run) -> float:
    """Mean number of active agents on the simulated clock, from arrival to answer."""
    return _active(run) / run.latency if run.latency else 0.0


def _active(run: Run) -> float:
    busy = (SpanKind.DECODE, SpanKind.PREFILL, SpanKind.DELAY)
    end = float(run.timeline.answered[run.query])
    counted = run.timeline.protocol_of(run.query).count_organizer
    return math.fsum(
        max(min(span.finish, end) - span.start, 0.0)
        for span in run.timeline.spans(run.query)
        if span.kind in busy and (span.thread or counted)
    )


def _overflows(run: Run) -> float:
    """Forks that found the pool full, on the decode-step clock."""
    return run.clock.overflows


def _violations(run: Run) -> float:
    """Breaches of the protocol, of every kind."""
    return len(run.clock.violations)


def _speedup_steps(run: Run) -> float:
    """Decode steps one agent would take for everything, over T."""
    steps = sum(run.graph.weight(i) for i in range(len(run.graph)))
    return steps / run.clock.latency if run.clock.latency else 1.0


def _speedup(run: Run) -> float:
    """Time of all tasks one after another, each alone in the batch, over the latency."""
    return math.fsum(run.alone) / run.latency if run.latency else 1.0


def _queueing_delay(run: Run) -> float:
    """Time on the realised critical path spent waiting for the batch or for a slot."""
    waits = run.breakdown.get("wait_batch", math.nan) + run.breakdown.get("wait_pool", math.nan)
    return waits * run.latency


METRICS: dict[str, Callable[[Run], float]] = {
    "latency": _latency,
    "critical_path_steps": _critical_path_steps,
    "critical_path_seconds": _critical_path_seconds,
    "eta": _eta,
    "eta_over_c": _eta_over_c,
    "peak_concurrency": _peak_concurrency,
    "overflows": _overflows,
    "violations": _violations,
    "work": _work,
    "speedup_steps": _speedup_steps,
    "speedup": _speedup,
    "concurrency": _concurrency,
    "queueing_delay": _queueing_delay,
    **{
        kind.value: (lambda run, kind=kind: run.spans[kind])  # type: ignore[misc]
        for kind in (SpanKind.WAIT_JOIN, SpanKind.WAIT_POOL, SpanKind.WAIT_BATCH)
    },
    **{
        f"bound_{name}": (lambda run, name=name: run.breakdown.get(name, math.nan))  # type: ignore[misc]
        for name in ("decode", "worker", "prefill", "delay", "wait_batch", "wait_pool")
    },
}
"""What `measure` computes of a query, by name."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics of one query: ``metrics["eta"]`` or ``metrics.eta``."""

    name: str
    """The trace's id."""
    values: Mapping[str, float]
    """One a name in `METRICS`."""
    violations: tuple[Violation, ...]
    outcome: Outcome | None

    def __getitem__(self, name: str) -> float:
        return self.values[name]

    def __getattr__(self, name: str) -> float:
        # Only called where there is no field of that name.
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(f"no metric is called {name!r}; there are {', '.join(self.values)}") from None


def measure(timeline: Timeline, query: int = 0) -> Metrics:
    """Return the metrics of one query.

    Times are in the timeline's unit, steps or seconds. NaN stands for what does not exist: a latency without an answer,
    eta/c without a capacity.

    >>> from simulator import Answer, Fork, Join, Protocol, Return, Think, Thread, Trace, compile_trace, simulate
    >>> organizer = Thread("organizer", (Think(5), Fork(1), Think(3), Join(1), Answer(2)))
    >>> trace = Trace("t", (organizer, Thread("1", (Return(10),))))
    >>> metrics = measure(simulate(compile_trace(trace, Protocol(capacity=2))))
    >>> metrics.latency, metrics.eta, metrics.speedup, metrics.bound_worker
    (17.0, 1.1764705882352942, 1.1764705882352942, 0.5882352941176471)
    """
    timeline.of_query(query)  # refuses a query that is not there
    run = Run(timeline, query)
    trace = run.graph.trace
    return Metrics(
        run.graph.name,
        {name: float(function(run)) for name, function in METRICS.items()},
        run.clock.violations,
        trace.outcome if trace else None,
    )


def _utilization(timeline: Timeline) -> float:
    """Share of the makespan in which the GPU had a step under way."""
    return timeline.busy / timeline.makespan if timeline.makespan else 0.0


def _mean_batch(timeline: Timeline) -> float:
    """Mean number of sequences in the batch over the makespan."""
    times, sizes = timeline.batch[:, 0], timeline.batch[:, 1]
    return float(np.dot(sizes[:-1], np.diff(times)) / timeline.makespan) if timeline.makespan else 0.0


def _slot_utilization(timeline: Timeline) -> float:
    """Mean share of the batch limit in use; NaN without a limit."""
    return _mean_batch(timeline) / timeline.max_num_seqs if timeline.max_num_seqs else math.nan


def _tokens_per_second(timeline: Timeline) -> float:
    """Tokens decoded per unit of time, over the makespan."""
    return float(timeline.column("tokens").sum() / timeline.makespan) if timeline.makespan else 0.0


def _percentile(q: float) -> Callable[[Timeline], float]:
    def latency(timeline: Timeline) -> float:
        answered = timeline.latency[~np.isnan(timeline.latency)]
        return float(np.percentile(answered, q)) if len(answered) else math.nan

    return latency


SUMMARIES: dict[str, Callable[[Timeline], float]] = {
    "queries": len,
    "answered": lambda timeline: int(np.count_nonzero(~np.isnan(timeline.answered))),
    "makespan": lambda timeline: timeline.makespan,
    "latency_mean": lambda t: float(np.nanmean(t.latency)) if not np.isnan(t.latency).all() else math.nan,
    "latency_p50": _percentile(50),
    "latency_p95": _percentile(95),
    "latency_p99": _percentile(99),
    "utilization": _utilization,
    "slot_utilization": _slot_utilization,
    "mean_batch": _mean_batch,
    "tokens_per_second": _tokens_per_second,
    "overflows": lambda timeline: int(timeline.overflows.sum()),
    "deadlocks": lambda timeline: len(timeline.deadlocks),
}
"""What `summarize` computes of a run, by name."""


def summarize(timeline: Timeline) -> dict[str, float]:
    """Return the metrics of the whole run.

    >>> from simulator import Answer, Thread, Trace, compile_trace, simulate
    >>> graph = compile_trace(Trace("t", (Thread("organizer", (Answer(4),)),)))
    >>> summary = summarize(simulate([graph, graph], arrivals=[0, 2]))
    >>> summary["makespan"], summary["mean_batch"]
    (6.0, 1.3333333333333333)
    """
    return {name: function(timeline) for name, function in SUMMARIES.items()}
