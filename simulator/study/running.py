"""Running a study: one run of it, all of them, and what comes of them as rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from functools import lru_cache, partial
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from simulator.engine.simulation import simulate
from simulator.errors import FreePromptWarning
from simulator.graph import ExecutionGraph
from simulator.machine.policy import POLICIES
from simulator.metrics.slo import parse_targets
from simulator.study.axes import indices_at
from simulator.study.documents import label
from simulator.study.executors import Executor, Serial
from simulator.study.inputs import arrival_times, compiled, warn_of_free_prompts
from simulator.study.measures import Observed, columns_of, metric_columns
from simulator.study.study import Study
from simulator.study.table import Table
from simulator.support.crew.failure import Failure
from simulator.timeline import Timeline


class Result(NamedTuple):
    """What came out of a run."""

    metrics: Mapping[str, float]
    """One per column, see `simulator.study.measures.metric_columns`."""
    queries: Mapping[str, npt.NDArray[Any]]
    """Columns with one row per query."""


def simulate_one(study: Study, seed: int, graphs: Sequence[ExecutionGraph] | None = None) -> Timeline:
    """Return the timeline of one run of a study without axes.

    Parameters
    ----------
    study : Study
    seed : int
        See `Study.seed_of`.
    graphs : sequence of ExecutionGraph, optional
        The queries. Default: those that the study draws.

    Raises
    ------
    SimulatorError
        If it cannot be run: a trace that fits into no memory, a file without traces.
    """
    queries = compiled(study, seed) if graphs is None else tuple(graphs)
    with warnings.catch_warnings():  # the caller says it, once: see `warn_of_free_prompts`
        warnings.simplefilter("ignore", FreePromptWarning)
        return simulate(
            queries,
            gpu=study.cluster.cluster(study.base),
            protocol=study.protocol,
            arrivals=arrival_times(study, queries, seed),
            policy=POLICIES[study.cluster.policy],
            max_workers=study.cluster.max_workers,
            on_deadlock="record",
        )


def run_one(study: Study, seed: int) -> Result:
    """Simulate and measure one run of a study without axes.

    The same study and seed give the same result, alone or among others, in any process.

    >>> from simulator.study import Source, Study
    >>> study = Study(traces={"a": Source(generate="asyncthink_math")}, queries=4, metrics=["latency", "eta"])
    >>> result = run_one(study, study.seed_of(0))
    >>> sorted(result.metrics)[:3], len(result.queries["latency"])
    (['eta_mean', 'eta_p50', 'eta_p95'], 4)
    """
    seen = Observed(
        simulate_one(study, seed),
        study.window,
        study.cluster.gpus(study.base),
        study.cluster.max_workers,
        study.cluster.dollars_per_gpu_hour,
        parse_targets(study.slo, study.unit),
    )
    return Result(*columns_of(seen, study.metrics, study.percentiles))


class RunKey(NamedTuple):
    """Which run of a study: one replication of one point."""

    point: int
    replication: int


def run_keys(study: Study, done: Collection[RunKey] = ()) -> Iterator[RunKey]:
    """Yield the runs of a study that are not done: every point once, then every point again.

    >>> from simulator.study import Source, Study
    >>> study = Study(traces={"a": Source(generate="batch")}, queries=4, axes={"queries": [4, 8]}, replications=2)
    >>> [tuple(key) for key in run_keys(study, done={RunKey(1, 0)})]
    [(0, 0), (0, 1), (1, 1)]
    """
    for replication in range(study.replications):
        for point in range(study.n_points):
            if (key := RunKey(point, replication)) not in done:
                yield key


def do_run(study: Study, keep_queries: bool, key: RunKey) -> Result:
    """Do one run of a study; the queries' columns are left out unless they are kept."""
    result = run_one(study.point(key.point).study, study.seed_of(key.replication))
    return result if keep_queries else Result(result.metrics, {})


def row_names(study: Study) -> list[str]:
    """Return the columns of a row, in order."""
    metrics = metric_columns(study.metrics, study.percentiles)
    return ["point", "replication", "seed", *study.axes, *metrics, "error", "spec"]


def row_maker(study: Study) -> Callable[[RunKey, Result | Failure], dict[str, Any]]:
    """Return what makes the row of a run of a study, from its key and what came of it.

    >>> from simulator.study import Source, Study
    >>> study = Study(traces={"a": Source(generate="batch")}, queries=4, axes={"queries": [4, 8]}, metrics=["makespan"])
    >>> row = row_maker(study)(RunKey(1, 0), Failure("it is late"))
    >>> row["queries"], row["makespan"], row["error"]
    (8, nan, 'it is late')
    """
    columns = metric_columns(study.metrics, study.percentiles)

    # To make a point takes ten times as long as the rest of a row; the same points come again in each replication.
    @lru_cache(maxsize=4096)
    def said(number: int) -> tuple[dict[str, Any], str]:
        point = study.point(number)
        return {name: label(value) for name, value in point.values.items()}, point.study.spec()

    def row_of(key: RunKey, outcome: Result | Failure) -> dict[str, Any]:
        metrics: Mapping[str, float] = {} if isinstance(outcome, Failure) else outcome.metrics
        values, spec = said(key.point)
        return {
            "point": key.point,
            "replication": key.replication,
            "seed": study.seed_of(key.replication),
            **values,
            **{name: metrics.get(name, float("nan")) for name in columns},
            "error": outcome.reason if isinstance(outcome, Failure) else None,
            "spec": spec,
        }

    return row_of


def table_of(study: Study, columns: Mapping[str, Sequence[Any] | npt.NDArray[Any]]) -> Table:
    """Return the table of rows of a study, given as columns, sorted by point and replication."""
    metrics = tuple(metric_columns(study.metrics, study.percentiles))
    typed: dict[str, npt.NDArray[Any]] = {}
    for name in ("point", "replication", "seed"):
        typed[name] = np.asarray(columns[name], dtype=np.int64)
    # Not as they were stored: a column of a file has one type, and an axis may have numbers and texts.
    for name, indices in indices_at(study.axes, typed["point"]).items():
        labels = [label(value) for value in study.axes[name]]
        typed[name] = _axis_column([labels[i] for i in indices.tolist()])
    typed |= {name: np.asarray(columns[name], dtype=np.float64) for name in metrics}
    typed |= {name: np.array(columns[name], dtype=object) for name in ("error", "spec")}
    order = np.lexsort((typed["replication"], typed["point"]))
    return Table(
        columns={name: column[order] for name, column in typed.items()},
        axes=tuple(study.axes),
        metrics=metrics,
        unit=study.unit,
        confidence=study.confidence,
    )


def _axis_column(values: Sequence[Any]) -> npt.NDArray[Any]:
    """Return labels of an axis as a column: whole numbers, numbers, or as they are if any is a text."""
    kinds = {type(value) for value in values}
    if kinds <= {int} and all(-(2**63) <= value < 2**63 for value in values):
        return np.array(values, dtype=np.int64)
    return np.array(values, dtype=np.float64 if kinds <= {int, float} else object)


def run_study(
    study: Study,
    *,
    executor: Executor = Serial(),  # noqa: B008  # it is frozen
    done: Collection[RunKey] = (),
    each: Callable[[RunKey, Result | Failure], None] | None = None,
    keep_queries: bool = False,
) -> Table:
    """Run a study and return its table.

    Parameters
    ----------
    study : Study
    executor : Executor
        `Serial`, `Processes` or `Ray`: the table is the same, to the last bit.
    done : collection of RunKey
        Runs to leave out.
    each : callable, optional
        Called with the key and the outcome of every run, as it ends.
    keep_queries : bool
        Whether `each` gets the columns of the queries too.

    Returns
    -------
    Table
        A run that failed is a row too: its metrics are NaN, and ``error`` says why.

    >>> from simulator.study import Source, Study
    >>> study = Study(traces={"a": Source(generate="batch")}, queries=8, axes={"protocol.capacity": [2, 8]})
    >>> table = run_study(study)
    >>> len(table), bool(table.compare({"protocol.capacity": 2})["latency_mean"][1] < 0)
    (10, True)
    """
    rows, row_of = [], row_maker(study)
    for key, outcome in outcomes(study, executor, done, keep_queries):
        rows.append(row_of(key, outcome))
        if each is not None:
            each(key, outcome)
    return table_of(study, {name: [row[name] for row in rows] for name in row_names(study)})


def outcomes(
    study: Study, executor: Executor, done: Collection[RunKey] = (), keep_queries: bool = False
) -> Iterator[tuple[RunKey, Result | Failure]]:
    """Do the runs that are not done, and yield each as it ends. However this ends, so do the executor's workers."""
    warn_of_free_prompts(study)
    work = partial(do_run, study, keep_queries)
    # All points of a replication have their traces in common.
    with closing(executor.imap(work, run_keys(study, done), by=attrgetter("replication"))) as results:
        yield from results
