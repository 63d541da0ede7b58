"""What a timeline amounts to. Pure functions: nothing here simulates or plots.

`measure` looks at one query and `summarize` at the whole run. What they compute is listed in `METRICS` and
`SUMMARIES`, and so are its units and titles; a new metric is one function and one line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from simulator.errors import ConfigError, mistaken
from simulator.graph.critical_path import critical_path
from simulator.metrics import serving
from simulator.metrics.metric import TIME, Metric, values_of
from simulator.metrics.realised import BOUNDS
from simulator.metrics.uncontended import seconds_alone
from simulator.metrics.view import QueryView
from simulator.support.html import html_table
from simulator.timeline import SpanKind, Timeline
from simulator.trace import Outcome, Violation


def _critical_path_steps(view: QueryView) -> float:
    """Critical-path latency T on the decode-step clock: the paper's latency."""
    return view.clock.latency


def _critical_path_seconds(view: QueryView) -> float:
    """Longest path to the answer if every task had the GPU to itself and no slot were short: a floor under the latency,
    but for ``drop`` and ``inline``, which change the work.
    """
    return critical_path(view.graph, view.alone).latency


def _work(view: QueryView) -> float:
    """Tokens decoded, those of cancelled workers up to their end included."""
    return float(view.timeline.of_query(view.query)["tokens"].sum())


def _eta(view: QueryView) -> float:
    """Concurrency ratio: mean number of active agents on the decode-step clock."""
    return view.clock.eta


def _eta_over_c(view: QueryView) -> float:
    """Eta over the pool capacity; NaN without a capacity."""
    return view.clock.eta / view.capacity if view.capacity else math.nan


def _concurrency(view: QueryView) -> float:
    """Mean number of active agents on the simulated clock, from arrival to answer."""
    return _active(view) / view.latency if view.latency else 0.0


def _active(view: QueryView) -> float:
    busy = (SpanKind.DECODE, SpanKind.PREFILL, SpanKind.DELAY)
    end = float(view.timeline.answered[view.query])
    counted = view.timeline.protocol_of(view.query).count_organizer
    return math.fsum(
        max(min(span.finish, end) - span.start, 0.0)
        for span in view.stretches
        if span.kind in busy and (span.thread or counted)
    )


def _speedup_steps(view: QueryView) -> float:
    """Steps one agent would take for what all agents did by T, over T."""
    return view.clock.total_steps / view.clock.latency if view.clock.latency else 1.0


def _saved(view: QueryView) -> float:
    """Share of those steps that working together saves: ``1 - 1 / speedup_steps``."""
    return 1 - view.clock.latency / view.clock.total_steps if view.clock.total_steps else 0.0


def _speedup(view: QueryView) -> float:
    """Time of all that was decoded, one task after another and each alone in the batch, over the latency."""
    rows = view.timeline.of_query(view.query)
    done: dict[int, float] = {}
    for task, tokens in zip(rows["task"].tolist(), rows["tokens"].tolist(), strict=True):
        done[int(task)] = done.get(int(task), 0) + tokens
    return math.fsum(seconds_alone(view.timeline, view.query, done)) / view.latency if view.latency else 1.0


def _queueing_delay(view: QueryView) -> float:
    """Time on the realised critical path spent waiting for the batch or for a slot."""
    waits = view.breakdown.get("wait_batch", math.nan) + view.breakdown.get("wait_pool", math.nan)
    return waits * view.latency


def _spent(kind: SpanKind) -> Callable[[QueryView], float]:
    return lambda view: view.spans[kind]


def _share(bound: str) -> Callable[[QueryView], float]:
    return lambda view: view.breakdown.get(bound, math.nan)


_BOUND_BY = {
    "decode": "organizer",
    "worker": "workers",
    "prefill": "prefill",
    "delay": "delay",
    "wait_batch": "batch",
    "wait_pool": "pool slot",
}

METRICS: dict[str, Metric[QueryView]] = {
    "latency": Metric(lambda view: view.latency, TIME, "lower", "latency"),
    "ttft": Metric(serving.ttft, TIME, "lower", "time to first token", "TTFT"),
    "tpot": Metric(serving.tpot, TIME, "lower", "time per output token", "TPOT", milli=True),
    "itl": Metric(serving.itl, TIME, "lower", "inter-token latency", "ITL", milli=True),
    "queue_time": Metric(serving.queue_time, TIME, "lower", "queue time"),
    "critical_path_steps": Metric(_critical_path_steps, "steps", "lower", "critical path", "T steps"),
    "critical_path_seconds": Metric(_critical_path_seconds, TIME, "lower", "critical path without queueing"),
    "eta": Metric(_eta, "", "higher", "eta"),
    "eta_over_c": Metric(_eta_over_c, "", "higher", "eta/c"),
    "peak_concurrency": Metric(
        lambda view: view.clock.peak_concurrency, "agents", "higher", "peak concurrency", "peak"
    ),
    "overflows": Metric(lambda view: view.clock.overflows, "Forks", "lower", "overflows"),
    "violation_count": Metric(lambda view: len(view.clock.violations), "violations", "lower", "violations"),
    "work": Metric(_work, "tokens", "lower", "tokens"),
    "speedup_steps": Metric(_speedup_steps, "", "higher", "speed-up in steps"),
    "saved": Metric(_saved, "", "higher", "share of steps saved", "saved"),
    "speedup": Metric(_speedup, "", "higher", "speed-up"),
    "concurrency": Metric(_concurrency, "", "higher", "concurrency"),
    "queueing_delay": Metric(_queueing_delay, TIME, "lower", "queueing delay"),
    "wait_join": Metric(_spent(SpanKind.WAIT_JOIN), TIME, None, "wait for Joins"),
    "wait_pool": Metric(_spent(SpanKind.WAIT_POOL), TIME, "lower", "wait for a pool slot"),
    "wait_batch": Metric(_spent(SpanKind.WAIT_BATCH), TIME, "lower", "wait for the batch"),
    **{
        f"bound_{bound}": Metric(_share(bound), "", None, f"share bound by {_BOUND_BY[bound]}", _BOUND_BY[bound])
        for bound in BOUNDS
    },
}
"""Metrics of a query, by name: what `measure` computes. Their functions take a `QueryView`."""


_SHOWN = 5  # metrics that a repr names


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics of one query: ``metrics["eta"]`` or ``metrics.eta``.

    >>> from simulator import Answer, Thread, Trace, compile_trace, simulate
    >>> metrics = measure(simulate(compile_trace(Trace("t", (Thread("organizer", (Answer(4),)),)))))
    >>> metrics.latency, metrics["eta"], metrics.unit
    (4.0, 1.0, 'steps')
    """

    name: str
    """The trace's id."""
    values: Mapping[str, float]
    """One per name in `METRICS`."""
    violations: tuple[Violation, ...]
    outcome: Outcome | None
    unit: str = ""
    """What times are in: ``steps`` or ``seconds``."""

    def __getitem__(self, name: str) -> float:
        return self.values[name]

    def __getattr__(self, name: str) -> float:
        # Only called where there is no field of that name.
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(f"no metric is called {name!r}; there are {', '.join(self.values)}") from None

    def __dir__(self) -> list[str]:
        return [*object.__dir__(self), *self.values]

    def __repr__(self) -> str:
        shown = [f"{name} {value:.4g}" for name, value in list(self.values.items())[:_SHOWN]]
        more = f", and {len(self.values) - _SHOWN} more" if len(self.values) > _SHOWN else ""
        return f"Metrics({self.name!r}: {', '.join(shown)}{more})"

    def _repr_html_(self) -> str:
        units = {name: metric.unit_on(self.unit or TIME) for name, metric in METRICS.items()}
        rows = [(name, value, units.get(name, "")) for name, value in self.values.items()]
        return html_table(["metric", "value", "unit"], rows, f"of {self.name}")


def measure(timeline: Timeline, query: int | None = None) -> Metrics:
    """Return the metrics of one query: of the only one, or else of the one that `query` counts from 0.

    Times are in the timeline's unit, steps or seconds. NaN stands for what does not exist: a latency without an answer,
    eta/c without a capacity.

    >>> from simulator import Answer, Fork, Join, Protocol, Return, Think, Thread, Trace, compile_trace, simulate
    >>> organizer = Thread("organizer", (Think(5), Fork(1), Think(3), Join(1), Answer(2)))
    >>> trace = Trace("t", (organizer, Thread("1", (Return(10),))))
    >>> metrics = measure(simulate(compile_trace(trace, Protocol(capacity=2))))
    >>> metrics.latency, metrics.eta, metrics.speedup, metrics.bound_worker
    (17.0, 1.1764705882352942, 1.1764705882352942, 0.5882352941176471)
    """
    if not isinstance(timeline, Timeline):
        raise ConfigError(mistaken("measure", "Timeline", timeline))
    if query is None:
        query = 0
        if len(timeline) > 1:
            raise ConfigError(
                f"the timeline holds {len(timeline):,} queries: measure(timeline, query) is of one of them, and"
                " summarize(timeline) of all"
            )
    timeline.of_query(query)  # refuses a query that is not there
    view = QueryView(timeline, query)
    trace = view.graph.trace
    return Metrics(
        view.graph.name,
        {name: float(value) for name, value in values_of(METRICS, view).items()},
        view.clock.violations,
        trace.outcome if trace else None,
        timeline.unit,
    )


def _utilization(timeline: Timeline) -> float:
    """Share of the makespan in which the GPU had a step under way; the mean over replicas."""
    return timeline.busy / timeline.makespan / len(timeline.replicas) if timeline.makespan else 0.0


def _queries_per_second(timeline: Timeline) -> float:
    """Queries answered per unit of time, over the makespan."""
    return float(np.count_nonzero(~np.isnan(timeline.answered)) / timeline.makespan) if timeline.makespan else 0.0


def _tokens_per_second(timeline: Timeline) -> float:
    """Tokens decoded per unit of time, over the makespan."""
    return float(timeline.column("tokens").sum() / timeline.makespan) if timeline.makespan else 0.0


def _mean_latency(timeline: Timeline) -> float:
    return float(np.nanmean(timeline.latency)) if not np.isnan(timeline.latency).all() else math.nan


def _percentile(q: float) -> Callable[[Timeline], float]:
    def latency(timeline: Timeline) -> float:
        answered = timeline.latency[~np.isnan(timeline.latency)]
        return float(np.percentile(answered, q)) if len(answered) else math.nan

    return latency


SUMMARIES: dict[str, Metric[Timeline]] = {
    "queries": Metric(len, "queries", None, "queries"),
    "answered": Metric(
        lambda timeline: int(np.count_nonzero(~np.isnan(timeline.answered))), "queries", "higher", "answered"
    ),
    "makespan": Metric(lambda timeline: timeline.makespan, TIME, "lower", "makespan"),
    "latency_mean": Metric(_mean_latency, TIME, "lower", "latency mean"),
    "latency_p50": Metric(_percentile(50), TIME, "lower", "latency p50"),
    "latency_p95": Metric(_percentile(95), TIME, "lower", "latency p95"),
    "latency_p99": Metric(_percentile(99), TIME, "lower", "latency p99"),
    "utilization": Metric(_utilization, "", "higher", "utilization"),
    "occupancy": Metric(serving.occupancy, "", "higher", "GPU occupancy"),
    "batch_occupancy": Metric(serving.batch_occupancy, "", "higher", "batch occupancy"),
    "kv_occupancy": Metric(serving.kv_occupancy, "", "higher", "KV occupancy"),
    "mean_batch": Metric(serving.mean_batch, "sequences", "higher", "mean batch"),
    "queries_per_second": Metric(_queries_per_second, "queries per time", "higher", "queries per time"),
    "tokens_per_second": Metric(_tokens_per_second, "tokens per time", "higher", "tokens per time"),
    "forks_on_full_pool": Metric(
        lambda timeline: int(timeline.overflows.sum()), "Forks", "lower", "forks on full pool"
    ),
    "deadlocks": Metric(lambda timeline: len(timeline.deadlocks), "", "lower", "deadlocks"),
}
"""Metrics of a whole run, by name: what `summarize` computes. Their functions take a `Timeline`."""


def summarize(timeline: Timeline) -> dict[str, float]:
    """Return the metrics of the whole run.

    >>> from simulator import Answer, Thread, Trace, compile_trace, simulate
    >>> graph = compile_trace(Trace("t", (Thread("organizer", (Answer(4),)),)))
    >>> summary = summarize(simulate([graph, graph], arrivals=[0, 2]))
    >>> summary["makespan"], summary["mean_batch"]
    (6.0, 1.3333333333333333)
    """
    if not isinstance(timeline, Timeline):
        raise ConfigError(mistaken("summarize", "Timeline", timeline))
    return values_of(SUMMARIES, timeline)
