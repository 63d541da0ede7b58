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
from simulator.planning.verdicts import BACKLOG, Batch, Rules, Trial
from simulator.study import Executor, Failure, Serial, Study, run_one
from simulator.study.documents import label
from simulator.study.inputs import warn_of_free_prompts
from simulator.study.table import mean_and_interval
from simulator.support.checks import real

MOST_BACKLOG = 0.1
"""Share of the arrivals that may be left over before a load is called unstable: a tenth more work than can be done."""
_CHECKED = 100
_SHOWN = ("latency", "throughput", "occupancy", "queries", "answered", "counted", "gpus", "cost_per_1000_queries")


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """One of several clusters, or whatever a study's axes vary, and what a search found for it."""

    values: Mapping[str, Any]
    """What it is: one value an axis of the study."""
    found: Found

    @property
    def label(self) -> str:
        """Its values in words."""
        said = ((name.rpartition(".")[2], label(value)) for name, value in self.values.items())
        return ", ".join(value if isinstance(value, str) else f"{name} = {value}" for name, value in said)

    @property
    def price(self) -> float:
        """Dollars per 1,000 queries at the answer; NaN without a price, or without an answer."""
        return self._mean("cost_per_1000_queries")

    @property
    def gpus(self) -> float:
        """GPUs at the answer; NaN without one."""
        return self._mean("gpus")

    def _mean(self, metric: str) -> float:
        return float("nan") if self.found.value is None else self.found.trial(self.found.value).mean(metric)


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
    backlog: float | None = MOST_BACKLOG,
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
    backlog : float, optional
        Of Poisson and gamma arrivals: share of what arrives that may be left over before a value is called unstable.
        None: no test. See `simulator.planning.verdicts.BACKLOG`.
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
    real("backlog", backlog, "above 0 and below 1, or None for no test", kind="a share")
    if name.partition(".")[0] in study.FIXED:
        raise ConfigError(f"{name} is how a study is run, not what is simulated: it cannot be searched")
    if study.cluster.dollars_per_gpu_hour is None and any(
        each.metric == "cost_per_1000_queries" for each in objectives
    ):
        raise ConfigError("cost_per_1000_queries needs a price: dollars_per_gpu_hour in [cluster]")
    asked = _measuring(study, objectives)
    for value in values if len(values) <= _CHECKED else (values[0], values[-1]):
        asked.at({name: value})  # refuses a name or a value before anything runs
    warn_of_free_prompts(asked)
    is_open = study.arrivals.kind in ("poisson", "gamma")
    return search(
        question,
        values,
        _batch(asked, name, executor),
        objectives,
        rules=rules,
        backlog=backlog if is_open else None,
        watch=watch,
    )


def _measuring(study: Study, objectives: Sequence[Objective]) -> Study:
    """Return the study with all metrics that objectives ask for."""
    columns = [objective.column for objective in objectives]
    metrics = dict.fromkeys([*study.metrics, *_SHOWN, *(column.name for column in columns)])
    asked = (column.percentile for column in columns if column.percentile is not None)
    return study.with_(metrics=tuple(metrics), percentiles=tuple(dict.fromkeys([*study.percentiles, *asked])))


def _batch(study: Study, name: str, executor: Executor) -> Batch:
    def batch(value: Any, replications: Sequence[int]) -> list[Mapping[str, float] | str]:
        outcomes: dict[int, Mapping[str, float] | str] = {}
        for replication, outcome in executor.imap(partial(_measured, study.at({name: value})), replications):
            outcomes[replication] = outcome.reason if isinstance(outcome, Failure) else outcome
        return [outcomes[replication] for replication in replications]

    return batch


def _measured(study: Study, replication: int) -> Mapping[str, float]:
    """Return the metrics of one replication, and the growth of the backlog of an open load."""
    metrics, queries = run_one(study, study.seed_of(replication))
    lost = int(metrics["queries"] - metrics["answered"])
    if lost:
        raise ConfigError(f"{lost} of {metrics['queries']:.0f} queries were never answered: they wait for each other")
    return {**metrics, BACKLOG: backlog_growth(queries)}


def backlog_growth(queries: Mapping[str, Any]) -> float:
    """Return the share of what arrives in the window that is left over; see `simulator.planning.verdicts.BACKLOG`.

    Parameters
    ----------
    queries : mapping
        Columns ``arrival``, ``answered`` and ``counted``, one row per query. The window is from the first to the last
        arrival that is counted.

    >>> arrival = np.arange(100.0)
    >>> steady = {"arrival": arrival, "answered": arrival + 5, "counted": arrival >= 10}
    >>> swamped = {**steady, "answered": 2 * arrival + 5}  # one in two
    >>> round(backlog_growth(steady), 2), round(backlog_growth(swamped), 2)
    (0.0, 0.49)
    """
    arrival, answered = queries["arrival"], queries["answered"]
    counted = arrival[np.asarray(queries["counted"], dtype=np.bool_)]
    if len(counted) < 2:
        return 0.0
    begin, end = float(counted.min()), float(counted.max())
    middle = (begin + end) / 2
    if not begin < middle < end:
        return 0.0
    first, second = (
        float(np.clip(np.minimum(answered, high) - np.maximum(arrival, low), 0, None).sum()) / (high - low)
        for low, high in ((begin, middle), (middle, end))
    )
    return (second - first) / (len(counted) / 2)


def compare(
    study: Study,
    question: Question,
    name: str,
    values: Sequence[Any],
    objectives: Callable[[Study], Sequence[Objective]],
    *,
    rules: Rules | None = None,
    backlog: float | None = MOST_BACKLOG,
    executor: Executor = Serial(),  # noqa: B008  # it is frozen
    watch: Callable[[Trial], None] | None = None,
) -> list[Alternative]:
    """Return what `plan` finds at each point of a study's axes: GPU types, pool capacities, policies.

    The error that `rules` allow is split evenly over the points, so all verdicts of all of them hold together.

    Parameters
    ----------
    objectives : callable
        The objectives at a point, whose study it is given: units may differ.
    study, question, name, values, rules, backlog, executor, watch
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
                backlog=backlog,
                executor=executor,
                watch=watch,
            ),
        )
        for point in points
    ]


def cheapest(alternatives: Sequence[Alternative], confidence: float = 0.95) -> list[Gap]:
    """Return the alternatives that have an answer, cheapest first, and what each costs more than the cheapest.

    Cost is dollars per 1,000 queries at the answer or, unless all of them have a price, GPUs; see `priced`. The
    intervals are Student-t intervals of the paired differences, each of `confidence` alone; the order is by the means.
    """
    known = priced(alternatives)
    answered = sorted(
        (each for each in alternatives if each.found.value is not None),
        key=lambda each: each.price if known else each.gpus,
    )
    costs = [_costs(each, "cost_per_1000_queries" if known else "gpus") for each in answered]
    gaps = []
    for each, own in zip(answered, costs, strict=True):
        n = min(len(own), len(costs[0]))
        gaps.append(Gap(each, *mean_and_interval(own[:n] - costs[0][:n], confidence)))
    return gaps


def priced(alternatives: Sequence[Alternative]) -> bool:
    """Whether all alternatives that have an answer have a price: only then are dollars compared.

    >>> priced([])
    True
    """
    return not any(np.isnan(each.price) for each in alternatives if each.found.value is not None)


def _costs(alternative: Alternative, metric: str) -> Any:
    rows = alternative.found.trial(alternative.found.value).rows
    return np.array([row[metric] for row in rows], dtype=np.float64)
