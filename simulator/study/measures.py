"""What a study measures of a run: of its queries, each metric as mean and percentiles, and of the whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.metrics import METRICS, SUMMARIES, Run
from simulator.metrics.bounds import lower_bound, upper_bound
from simulator.study.spec import Window
from simulator.support.checks import choose
from simulator.timeline import Timeline

__all__ = [
    "QUERY_METRICS",
    "RUN_METRICS",
    "Observed",
    "checked_metrics",
    "columns_of",
    "metric_columns",
    "percentile_column",
]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Observed:
    """A run that has ended, and which part of it is measured."""

    timeline: Timeline
    window: Window
    gpus: int
    max_workers: int | None = None
    dollars_per_gpu_hour: float | None = None

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

    @property
    def cost(self) -> float:
        """Dollars a query: what all GPUs cost while measuring, over the queries answered meanwhile."""
        throughput = self.throughput
        if self.dollars_per_gpu_hour is None or not throughput or self.timeline.unit == "steps":
            return math.nan
        return self.gpus * self.dollars_per_gpu_hour / 3600 / throughput


QUERY_METRICS: dict[str, Callable[[Run], float]] = {**METRICS, "lower_bound": lower_bound, "upper_bound": upper_bound}
"""Metrics of a query that a study takes, by name: all of `METRICS`, and two bounds of the latency."""

RUN_METRICS: dict[str, Callable[[Observed], float]] = {
    **{
        name: (lambda seen, function=function: float(function(seen.timeline)))  # type: ignore[misc]
        for name, function in SUMMARIES.items()
        if not name.startswith("latency")
    },
    "unanswered": lambda seen: int(np.count_nonzero(np.isnan(seen.timeline.answered))),
    "counted": lambda seen: int(np.count_nonzero(seen.counted)),
    "throughput": lambda seen: seen.throughput,
    "gpus": lambda seen: seen.gpus,
    "cost_per_query": lambda seen: seen.cost,
}
"""Metrics of a run that a study takes, by name. Those of `simulator.metrics.SUMMARIES` are of the whole run;
``counted``, ``throughput`` and ``cost_per_query`` of its window."""


def checked_metrics(names: Sequence[str]) -> None:
    """Raise `ConfigError` unless all are metrics."""
    for name in names:
        choose(name, [*QUERY_METRICS, *RUN_METRICS], "metric")


def _query_metrics(names: Sequence[str]) -> list[str]:
    """Return those that are metrics of a query; the latency always, first."""
    return list(dict.fromkeys(["latency", *(name for name in names if name in QUERY_METRICS)]))


def metric_columns(names: Sequence[str], percentiles: Sequence[float]) -> list[str]:
    """Return the columns that metrics make; ``unanswered`` is always there, as what it counts is in no mean.

    >>> metric_columns(["latency", "throughput"], [50, 99.9])
    ['latency_mean', 'latency_p50', 'latency_p99.9', 'throughput', 'unanswered']
    """
    found = []
    for name in dict.fromkeys([*names, "unanswered"]):
        found += [name] if name in RUN_METRICS else _columns(name, percentiles)
    return found


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
    wanted = [name for name in _query_metrics(names) if name != "latency"]
    if wanted:
        for name, column in _each_query(timeline, wanted).items():
            queries[name] = column
    if seen.max_workers is not None and "upper_bound" in queries:
        queries["upper_bound"][:] = math.nan
    measured = seen.counted & ~np.isnan(timeline.answered)
    found: dict[str, float] = {}
    for name in dict.fromkeys([*names, "unanswered"]):
        if name in RUN_METRICS:
            found[name] = float(RUN_METRICS[name](seen))
            continue
        values = queries[name][measured]
        numbers = [float(np.mean(values)), *np.percentile(values, percentiles).tolist()] if len(values) else []
        columns = _columns(name, percentiles)
        found |= dict(zip(columns, numbers or [math.nan] * len(columns), strict=True))
    return found, queries


def _each_query(timeline: Timeline, names: Sequence[str]) -> Mapping[str, Floats]:
    """Return metrics of all queries; what was never answered, or never arrived, has what can be said of it."""
    rows = []
    for query in range(len(timeline)):
        run = Run(timeline, query)
        rows.append([float(QUERY_METRICS[name](run)) for name in names])
    return dict(zip(names, np.array(rows, dtype=np.float64).T.copy(), strict=True))
