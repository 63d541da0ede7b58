"""What a timeline amounts to. Pure functions: nothing here simulates or plots.

`measure` looks at one query and `summarize` at the whole run. Both are dicts of small functions, `METRICS` and
`SUMMARIES`; a new metric is one function and one line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from simulator.graph import ExecutionGraph
from simulator.graph.clock import DecodeClock, decode_clock
from simulator.graph.critical_path import critical_path
from simulator.metrics.realised import BOUNDS, breakdown
from simulator.metrics.uncontended import seconds_alone
from simulator.timeline import SpanKind, Timeline
from simulator.trace import Outcome, Violation

__all__ = ["METRICS", "SUMMARIES", "Metrics", "Run", "measure", "summarize"]


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
        return decode_clock(self.graph.trace, protocol)

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
        return seconds_alone(self.timeline, self.query)

    @property
    def latency(self) -> float:
        """Seconds from arrival to answer; NaN without an answer."""
        return float(self.timeline.latency[self.query])


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
    return float(run.timeline.of_query(run.query)["tokens"].sum())


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
    """Steps one agent would take for what all agents did by T, over T."""
    return run.clock.total_steps / run.clock.latency if run.clock.latency else 1.0


def _saved(run: Run) -> float:
    """Share of those steps that working together saves: ``1 - 1 / speedup_steps``."""
    return 1 - run.clock.latency / run.clock.total_steps if run.clock.total_steps else 0.0


def _speedup(run: Run) -> float:
    """Time of all that was decoded, one task after another and each alone in the batch, over the latency."""
    rows = run.timeline.of_query(run.query)
    done: dict[int, float] = {}
    for task, tokens in zip(rows["task"].tolist(), rows["tokens"].tolist(), strict=True):
        done[int(task)] = done.get(int(task), 0) + tokens
    return math.fsum(seconds_alone(run.timeline, run.query, done)) / run.latency if run.latency else 1.0


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
    "violation_count": _violations,
    "work": _work,
    "speedup_steps": _speedup_steps,
    "saved": _saved,
    "speedup": _speedup,
    "concurrency": _concurrency,
    "queueing_delay": _queueing_delay,
    **{
        kind.value: (lambda run, kind=kind: run.spans[kind])  # type: ignore[misc]
        for kind in (SpanKind.WAIT_JOIN, SpanKind.WAIT_POOL, SpanKind.WAIT_BATCH)
    },
    **{
        f"bound_{name}": (lambda run, name=name: run.breakdown.get(name, math.nan))  # type: ignore[misc]
        for name in BOUNDS
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
    """Share of the makespan in which the GPU had a step under way; the mean over replicas."""
    return timeline.busy / timeline.makespan / len(timeline.replicas) if timeline.makespan else 0.0


def _mean_batch(timeline: Timeline) -> float:
    """Mean number of sequences in the batch over the makespan, of all replicas together."""
    if not len(timeline.batch):
        return 0.0
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
    "forks_on_full_pool": lambda timeline: int(timeline.overflows.sum()),
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
