"""Running a study: its runs as tasks, their results as rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from simulator.study.executors import Executor, Failure, Serial
from simulator.study.measures import metric_columns
from simulator.study.single import Result, run_one
from simulator.study.study import Study, label
from simulator.study.table import Table

__all__ = ["Task", "columns_of_rows", "row_of", "run_study", "run_task", "table_of", "tasks"]


class Task(NamedTuple):
    """One run of a study."""

    point: int
    replication: int


def tasks(study: Study, done: Collection[Task] = ()) -> Iterator[Task]:
    """Yield the runs of a study that are not done: every point once, then every point again.

    >>> from simulator.study import Source, Study
    >>> study = Study(traces={"a": Source(generate="batch")}, queries=4, axes={"queries": [4, 8]}, replications=2)
    >>> [tuple(task) for task in tasks(study, done={Task(1, 0)})]
    [(0, 0), (0, 1), (1, 1)]
    """
    for replication in range(study.replications):
        for point in range(study.n_points):
            if (task := Task(point, replication)) not in done:
                yield task


def run_task(study: Study, keep_queries: bool, task: Task) -> Result:
    """Do one run of a study; the queries' columns are left out unless they are kept."""
    result = run_one(study.point(task.point).study, study.seed_of(task.replication))
    return result if keep_queries else Result(result.metrics, {})


def row_of(study: Study, task: Task, outcome: Result | Failure) -> dict[str, Any]:
    """Return the row of a run."""
    point = study.point(task.point)
    columns = metric_columns(study.metrics, study.percentiles)
    metrics: Mapping[str, float] = {} if isinstance(outcome, Failure) else outcome.metrics
    return {
        "point": task.point,
        "replication": task.replication,
        "seed": study.seed_of(task.replication),
        **{name: label(value) for name, value in point.values.items()},
        **{name: metrics.get(name, float("nan")) for name in columns},
        "error": outcome.reason if isinstance(outcome, Failure) else None,
        "spec": point.study.spec(),
    }


def columns_of_rows(study: Study, rows: Iterable[Mapping[str, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Return rows of a study as columns."""
    found = list(rows)
    columns: dict[str, np.ndarray[Any, Any]] = {}
    whole = ("point", "replication", "seed")
    metrics = metric_columns(study.metrics, study.percentiles)
    for name in (*whole, *study.axes, *metrics, "error", "spec"):
        values = [row[name] for row in found]
        if name in whole:
            columns[name] = np.array(values, dtype=np.int64)
        elif name in study.axes:
            columns[name] = _axis(values)
        else:
            columns[name] = np.array(values, dtype=np.float64 if name in metrics else object)
    return columns


def _axis(values: list[Any]) -> np.ndarray[Any, Any]:
    """Return a column of an axis: whole numbers, numbers, or texts if any is one."""
    kinds = {type(value) for value in values}
    if kinds <= {int}:
        return np.array(values, dtype=np.int64)
    return np.array(values, dtype=np.float64) if kinds <= {int, float} else np.array(values, dtype=object)


def table_of(study: Study, rows: Iterable[Mapping[str, Any]]) -> Table:
    """Return the table of rows, sorted by point and replication."""
    ordered = sorted(rows, key=lambda row: (row["point"], row["replication"]))
    return Table(
        columns=columns_of_rows(study, ordered),
        axes=tuple(study.axes),
        metrics=tuple(metric_columns(study.metrics, study.percentiles)),
        unit=study.unit,
        confidence=study.confidence,
    )


def run_study(
    study: Study,
    *,
    executor: Executor = Serial(),  # noqa: B008  # it is frozen
    done: Collection[Task] = (),
    each: Callable[[Task, Result | Failure], None] | None = None,
    keep_queries: bool = False,
) -> Table:
    """Run a study and return its table.

    Parameters
    ----------
    study : Study
    executor : Executor
        `Serial`, `Processes` or `Ray`: the table is the same, to the last bit.
    done : collection of Task
        Runs to leave out.
    each : callable, optional
        Called with every task and its outcome, as they come.
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
    rows = []
    for task, outcome in executor.imap(partial(run_task, study, keep_queries), tasks(study, done)):
        rows.append(row_of(study, task, outcome))
        if each is not None:
            each(task, outcome)
    return table_of(study, rows)
