"""Questions of a study: the smallest value of one name that meets objectives, or the highest load that keeps them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from simulator.errors import ConfigError
from simulator.planning.objectives import Objective
from simulator.planning.search import Found, Question, search
from simulator.planning.verdicts import TREND, Batch, Rules, Trial
from simulator.study import Executor, Failure, Serial, Study, run_one
from simulator.study.study import label
from simulator.study.table import mean_and_interval

__all__ = ["STEADY", "Alternative", "Gap", "cheapest", "compare", "plan", "trend"]

STEADY = 1.5
"""Growth of the mean latency, second half of the queries over the first, from which on a load is called unstable."""
_SHOWN = ("latency", "throughput", "utilization", "queries", "answered", "counted", "gpus", "cost_per_query")


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """One of several clusters, or whatever a study's axes vary, and what a search found for it."""

    values: Mapping[str, Any]
    """What it is: one value an axis of the study."""
    found: Found

    @property
    def label(self) -> str:
        """Its values in words."""
        return ", ".join(str(label(value)) for value in self.values.values())

    @property
    def price(self) -> float:
        """Dollars a query at the answer; without a price, GPUs. NaN without an answer."""
        if self.found.value is None:
            return float("nan")
        trial = self.found.trial(self.found.value)
        cost = trial.mean("cost_per_query")
        return trial.mean("gpus") if np.isnan(cost) else cost


@dataclass(frozen=True, slots=True)
class Gap:
    """How much more one alternative costs than the cheapest, over replications that saw the same random numbers."""

    alternative: Alternative
    mean: float
    low: float
    high: float


def plan(
    study: Study,
    question: Question,
    name: str,
    values: Sequence[Any],
    objectives: Sequence[Objective],
    *,
    rules: Rules | None = None,
    steady: float | None = STEADY,
    executor: Executor = Serial(),  # noqa: B008  # it is frozen
    watch: Callable[[Trial], None] | None = None,
) -> Found:
    """Return the smallest value of one name of a study that meets objectives, or the highest.

    Parameters
    ----------
    study : Study
        Without axes; see `compare` for one with.
    question : {"smallest", "highest"}
        ``smallest`` of a resource: ``cluster.replicas``, ``protocol.capacity``. ``highest`` of a load:
        ``arrivals.rate``, ``arrivals.users``.
    name : str
        Dotted name.
    values : sequence
        Candidates, in increasing order; see `ladder` for real numbers.
    objectives : sequence of Objective
        All must hold for the mean over replications.
    rules : Rules, optional
        Confidence and replications. Replication r is that of the study: the same random numbers at every value.
    steady : float, optional
        Of Poisson and gamma arrivals: growth of the latency from which on a value is called unstable. None: no test.
    executor : Executor
        Where the replications of a value are run.
    watch : callable, optional
        Called with each `Trial` when it is settled.

    Raises
    ------
    ConfigError
        If there is no such name, a value does not fit, or nothing could be run.

    >>> from simulator.planning import parse_objectives
    >>> from simulator.study import Arrivals, Hardware, Source
    >>> fixed = Source(generate="sequential", options={"work": "constant:85", "answer": "constant:5"})
    >>> hardware = Hardware(gpu="rate:100", max_num_seqs=1)  # a second a query
    >>> study = Study(traces={"a": fixed}, queries=12, cluster=hardware)
    >>> found = plan(study, "smallest", "cluster.replicas", range(1, 9), parse_objectives(["makespan <= 4 s"]))
    >>> found.value, found.trial(2).mean("makespan")
    (3, 6.0)
    """
    if study.axes:
        raise ConfigError("the study has axes: each of their points is a plan of its own")
    if steady is not None and (isinstance(steady, bool) or not 1 < steady <= 100):
        raise ConfigError(f"steady must be a ratio above 1 and at most 100, got {steady!r}")
    asked = _measuring(study, objectives)
    for value in values:
        asked.at({name: value})  # refuses a name or a value before anything runs
    grows = study.arrivals.kind in ("poisson", "gamma") and steady is not None
    return search(
        question,
        values,
        _batch(asked, name, executor),
        objectives,
        rules=rules,
        steady=steady if grows else None,
        watch=watch,
    )


def _measuring(study: Study, objectives: Sequence[Objective]) -> Study:
    """Return the study with all metrics that objectives ask for."""
    metrics = [*study.metrics, *_SHOWN, *(objective.base for objective in objectives)]
    percentiles = [*study.percentiles, *(each.percentile for each in objectives if each.percentile is not None)]
    return study.with_(metrics=tuple(dict.fromkeys(metrics)), percentiles=tuple(dict.fromkeys(percentiles)))


def _batch(study: Study, name: str, executor: Executor) -> Batch:
    def batch(value: Any, replications: Sequence[int]) -> list[Mapping[str, float] | str]:
        outcomes: dict[int, Mapping[str, float] | str] = {}
        for replication, outcome in executor.imap(partial(_measured, study.at({name: value})), replications):
            outcomes[replication] = outcome.reason if isinstance(outcome, Failure) else outcome
        return [outcomes[replication] for replication in replications]

    return batch


def _measured(study: Study, replication: int) -> Mapping[str, float]:
    """Return the metrics of one replication, and the trend of an open load."""
    metrics, queries = run_one(study, study.seed_of(replication))
    lost = int(metrics["queries"] - metrics["answered"])
    if lost:
        raise ConfigError(f"{lost} of {metrics['queries']:.0f} queries were never answered: they wait for each other")
    return {**metrics, TREND: trend(queries)}


def trend(queries: Mapping[str, Any]) -> float:
    """Return how latency grows over a run: 0 in a steady state, 0.5 where it grows in proportion to time.

    ``(m2 - m1) / (m2 + m1)``: mean latency of the first and of the second half of the counted queries, by arrival.

    >>> trend({"arrival": np.arange(4.0), "latency": np.array([1.0, 1, 3, 3]), "counted": np.ones(4)})
    0.5
    """
    counted = np.flatnonzero(queries["counted"])
    ordered = queries["latency"][counted[np.argsort(queries["arrival"][counted], kind="stable")]]
    half = len(ordered) // 2
    if not half:
        return 0.0
    first, second = float(np.mean(ordered[:half])), float(np.mean(ordered[-half:]))
    return (second - first) / (second + first) if first + second else 0.0


def compare(
    study: Study,
    question: Question,
    name: str,
    values: Sequence[Any],
    objectives: Callable[[Study], Sequence[Objective]],
    *,
    rules: Rules | None = None,
    steady: float | None = STEADY,
    executor: Executor = Serial(),  # noqa: B008  # it is frozen
    watch: Callable[[Trial], None] | None = None,
) -> list[Alternative]:
    """Return what `plan` finds at each point of a study's axes: GPU types, pool capacities, policies.

    The error that `rules` allow is split evenly over the points, so all verdicts of all of them hold together.

    Parameters
    ----------
    objectives : callable
        The objectives at a point, whose study it is given: units may differ.
    study, question, name, values, rules, steady, executor, watch
        See `plan`.
    """
    rules = rules or Rules()
    if name in study.axes:
        raise ConfigError(f"{name} is what is searched: it cannot be an axis as well")
    points = list(study.points())
    each = replace(rules, confidence=1 - rules.error / len(points))
    return [
        Alternative(
            values=point.values,
            found=plan(
                point.study,
                question,
                name,
                values,
                objectives(point.study),
                rules=each,
                steady=steady,
                executor=executor,
                watch=watch,
            ),
        )
        for point in points
    ]


def cheapest(alternatives: Sequence[Alternative], confidence: float = 0.95) -> list[Gap]:
    """Return the alternatives that have an answer, cheapest first, and what each costs more than the cheapest.

    Cost is dollars a query at the answer, or GPUs where no price is known. The intervals are Student-t intervals of the
    paired differences, each of `confidence` alone; the order is by the means.
    """
    answered = sorted((each for each in alternatives if each.found.value is not None), key=lambda each: each.price)
    if not answered:
        return []
    known = not np.isnan(_costs(answered[0], "cost_per_query")).any()
    costs = [_costs(each, "cost_per_query" if known else "gpus") for each in answered]
    gaps = []
    for each, own in zip(answered, costs, strict=True):
        n = min(len(own), len(costs[0]))
        gaps.append(Gap(each, *mean_and_interval(own[:n] - costs[0][:n], confidence)))
    return gaps


def _costs(alternative: Alternative, metric: str) -> Any:
    rows = alternative.found.trial(alternative.found.value).rows
    return np.array([row[metric] for row in rows], dtype=np.float64)
