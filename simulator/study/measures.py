"""What a study measures of a run: of its queries, each metric as mean and percentiles, and of the whole."""

from __future__ import annotations

import math
import re
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from simulator.metrics import METRICS, SUMMARIES, TIME, Metric, QueryView
from simulator.metrics.bounds import lower_bound, upper_bound
from simulator.metrics.metric import record_of
from simulator.metrics.slo import Target, query_meets
from simulator.study.spec import Window
from simulator.support.checks import choose
from simulator.timeline import Timeline


@dataclass(frozen=True, eq=False)
class Observed:
    """A run that has ended, and which part of it is measured."""

    timeline: Timeline
    window: Window
    gpus: int
    max_workers: int | None = None
    dollars_per_gpu_hour: float | None = None
    slo: tuple[Target, ...] = ()
    """What a query must keep to."""

    @cached_property
    def start(self) -> float:
        """When measuring begins."""
        arrivals = self.timeline.arrivals
        first = float(np.nanmin(arrivals)) if not np.isnan(arrivals).all() else 0.0
        return max(first, self.window.warmup)

    @cached_property
    def end(self) -> float:
        """When measuring ends: with the last answer; where there is a window, as the last query arrives, less the
        cooldown.
        """
        timeline = self.timeline
        if self.window.warmup or self.window.cooldown:
            return max(float(timeline.arrivals.max()) - self.window.cooldown, self.start)
        return float(np.nanmax(timeline.answered)) if not np.isnan(timeline.answered).all() else self.start

    @cached_property
    def counted(self) -> npt.NDArray[np.bool_]:
        """Which queries are measured: those that arrive meanwhile. Shape (queries,)."""
        arrivals = self.timeline.arrivals
        counted: npt.NDArray[np.bool_] = (arrivals >= self.start) & (arrivals <= self.end)
        return counted

    @property
    def throughput(self) -> float:
        """Queries answered per unit of time, while measuring."""
        length = self.end - self.start
        answered = self.timeline.answered
        return float(np.count_nonzero((answered > self.start) & (answered <= self.end)) / length) if length > 0 else 0.0

    @cached_property
    def good(self) -> npt.NDArray[np.bool_]:
        """Which queries were answered and keep to the service level objectives. Shape (queries,)."""
        return np.array([query_meets(self.slo, self.timeline, query) for query in range(len(self.timeline))], np.bool_)

    @property
    def goodput(self) -> float:
        """Queries answered per unit of time, while measuring, that keep to the objectives; NaN if there are none."""
        length, answered = self.end - self.start, self.timeline.answered
        if not self.slo or length <= 0:
            return math.nan if not self.slo else 0.0
        return float(np.count_nonzero(self.good & (answered > self.start) & (answered <= self.end)) / length)

    @property
    def attainment(self) -> float:
        """Share of the queries measured that keep to the objectives; NaN if there are none."""
        return float(self.good[self.counted].mean()) if self.slo and self.counted.any() else math.nan

    @property
    def cost(self) -> float:
        """Dollars per 1,000 queries: what all GPUs cost while measuring, over the queries answered meanwhile."""
        throughput = self.throughput
        if self.dollars_per_gpu_hour is None or not throughput or self.timeline.unit == "steps":
            return math.nan
        return 1000 * self.gpus * self.dollars_per_gpu_hour / 3600 / throughput


QUERY_METRICS: ChainMap[str, Metric[QueryView]] = ChainMap(
    {
        "lower_bound": Metric(lower_bound, TIME, None, "lower bound"),
        "upper_bound": Metric(upper_bound, TIME, None, "upper bound"),
    },
    METRICS,
)
"""Metrics of a query that a study takes, by name: two bounds of the latency, and all of `simulator.metrics.METRICS`."""

RUN_METRICS: dict[str, Metric[Observed]] = {
    "unanswered": Metric(
        lambda seen: int(np.count_nonzero(np.isnan(seen.timeline.answered))), "queries", "lower", "unanswered"
    ),
    "counted": Metric(lambda seen: int(np.count_nonzero(seen.counted)), "queries", None, "counted"),
    "throughput": Metric(lambda seen: seen.throughput, "queries per time", "higher", "throughput"),
    "goodput": Metric(lambda seen: seen.goodput, "queries per time", "higher", "goodput"),
    "slo_attainment": Metric(lambda seen: seen.attainment, "", "higher", "SLO attainment"),
    "gpus": Metric(lambda seen: seen.gpus, "GPUs", "lower", "GPUs"),
    "cost_per_1000_queries": Metric(lambda seen: seen.cost, "dollars", "lower", "cost per 1,000 queries"),
}
"""Metrics of the window of a run, by name. A study also takes those of the whole run, in
`simulator.metrics.SUMMARIES`."""

_STATISTIC = re.compile(r"(.+)_(mean|p\d+(?:\.\d+)?(?:e-\d+)?)", re.ASCII)


class Column(NamedTuple):
    """What a column of a study's rows is of."""

    name: str
    """The metric's name: ``latency`` of ``latency_p95``."""
    statistic: str
    """Which number of those of all queries: ``mean``, ``p95``; empty for a metric of a run, which is one number."""
    metric: Metric[Any]

    @property
    def percentile(self) -> float | None:
        """Which percentile it is, if it is one."""
        return float(self.statistic[1:]) if self.statistic.startswith("p") else None

    def title_on(self, clock: str) -> str:
        """Return what people call it, where time is counted in `clock`."""
        return f"{self.statistic} {self.metric.title_on(clock)}".strip()


def read_column(text: str) -> Column:
    """Return what a column is of. A metric that is not listed now, as in results of another program, has no unit.

    >>> column = read_column("queueing_delay_p99.9")
    >>> column.title_on("seconds"), column.metric.unit_on("seconds"), column.percentile
    ('p99.9 queueing delay', 'seconds', 99.9)
    >>> read_column("makespan").name, read_column("cuts_mean").title_on("steps")
    ('makespan', 'mean cuts')
    """
    split = _STATISTIC.fullmatch(text)
    name, statistic = text, ""
    if split and text not in RUN_METRICS and (split[1] in QUERY_METRICS or text not in SUMMARIES):
        name, statistic = split[1], split[2]
    registry = _registry(name)
    unknown: Metric[Any] = Metric(lambda of: math.nan, "", None, name.replace("_", " "))
    return Column(name, statistic, unknown if registry is None else record_of(registry, name))


def _registry(name: str) -> Mapping[str, Metric[Any]] | None:
    """Return the registry of a metric that a study takes; None where there is no such metric."""
    if name in RUN_METRICS:
        return RUN_METRICS
    split = _STATISTIC.fullmatch(name)
    if name in SUMMARIES and not (split and split[1] in QUERY_METRICS):  # latency_mean is a column of latency
        return SUMMARIES
    return QUERY_METRICS if name in QUERY_METRICS else None


def check_metric(name: str) -> None:
    """Raise `ConfigError` unless a study takes a metric of that name."""
    registry = _registry(name)
    if registry is None:
        choose(name, [each for each in (*QUERY_METRICS, *SUMMARIES, *RUN_METRICS) if _registry(each)], "metric")
    else:
        record_of(registry, name)


def is_of_run(name: str) -> bool:
    """Whether a metric that a study takes is one number per run, and not one per query."""
    return _registry(name) is not QUERY_METRICS


def metric_columns(names: Sequence[str], percentiles: Sequence[float]) -> list[str]:
    """Return the columns that metrics make; ``unanswered`` is always there, as what it counts is in no mean.

    >>> metric_columns(["latency", "throughput"], [50, 99.9])
    ['latency_mean', 'latency_p50', 'latency_p99.9', 'throughput', 'unanswered']
    """
    columns = []
    for name in dict.fromkeys([*names, "unanswered"]):
        columns += [name] if is_of_run(name) else _columns(name, percentiles)
    return columns


def percentile_column(name: str, percentile: float) -> str:
    """Return the column of a percentile of a metric.

    >>> percentile_column("latency", 95.0), percentile_column("latency", 99.99999)
    ('latency_p95', 'latency_p99.99999')
    """
    return f"{name}_p{percentile:.12g}"


def _columns(name: str, percentiles: Sequence[float]) -> list[str]:
    return [f"{name}_mean", *(percentile_column(name, value) for value in percentiles)]


def columns_of(
    seen: Observed, names: Sequence[str], percentiles: Sequence[float]
) -> tuple[dict[str, float], dict[str, npt.NDArray[Any]]]:
    """Return the metrics of a run, and those of each query, as columns.

    Means and percentiles are over the queries that are measured and were answered; NaN where the metric does not exist
    for one of them. Percentiles are interpolated linearly between order statistics (numpy's default).
    """
    timeline = seen.timeline
    count = len(timeline)
    queries: dict[str, npt.NDArray[Any]] = {
        "query": np.arange(count, dtype=np.int64),
        "trace": np.array([graph.name for graph in timeline.graphs], dtype=object),
        "arrival": timeline.arrivals,
        "answered": timeline.answered,
        "counted": seen.counted.astype(np.int64),
        "latency": timeline.latency,
    }
    wanted = [name for name in dict.fromkeys(names) if name != "latency" and not is_of_run(name)]
    if wanted:
        functions = [QUERY_METRICS[name].function for name in wanted]
        views = (QueryView(timeline, query) for query in range(count))
        # Of what was never answered, or never arrived, there is what can be said of it.
        values = np.array([[float(function(view)) for function in functions] for view in views], dtype=np.float64)
        queries |= dict(zip(wanted, values.T.copy(), strict=True))
    if seen.max_workers is not None and "upper_bound" in queries:
        queries["upper_bound"][:] = math.nan
    measured = seen.counted & ~np.isnan(timeline.answered)
    metrics: dict[str, float] = {}
    for name in dict.fromkeys([*names, "unanswered"]):
        if name in RUN_METRICS:
            metrics[name] = float(RUN_METRICS[name].function(seen))
        elif is_of_run(name):
            metrics[name] = float(SUMMARIES[name].function(timeline))
        else:
            of_queries = queries[name][measured]
            numbers = [np.mean(of_queries), *np.percentile(of_queries, percentiles)] if len(of_queries) else []
            columns = _columns(name, percentiles)
            metrics |= dict(zip(columns, map(float, numbers or [math.nan] * len(columns)), strict=True))
    return metrics, queries
