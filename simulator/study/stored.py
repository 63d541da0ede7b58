"""A study whose results are in a folder: run, interrupted, gone on with, read again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from simulator.errors import ConfigError
from simulator.study.executors import Executor, Serial
from simulator.study.inputs import input_digests
from simulator.study.running import Result, RunKey, outcomes, row_maker, row_names, run_one, table_of
from simulator.study.store.folder import ResultFolder
from simulator.study.store.results import other_version, read_folder
from simulator.study.study import Study, parse_study
from simulator.study.table import Table
from simulator.support.checks import within
from simulator.support.crew.failure import Failure, attempt


class Stored(NamedTuple):
    """What a result folder holds."""

    study: Study
    table: Table
    missing: int
    """Runs that have not ended."""
    damage: str = ""
    """What is wrong with the folder, if anything: runs that cannot be read count as missing."""


def _identity(study: Study, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return all that the rows of a study depend on: what it says, and the files it reads."""
    inputs = input_digests(study)
    base = os.path.relpath(os.path.realpath(study.base or "."), os.path.realpath(path))
    where = {"base": base, "inputs": inputs} if inputs else {}
    return {"document": study.document(), **where}


def run_in_folder(
    study: Study,
    path: str | os.PathLike[str],
    *,
    executor: Executor = Serial(),  # noqa: B008  # it is frozen
    queries: bool = False,
    parquet: bool = True,
    begun: Callable[[ResultFolder], None] | None = None,
    each: Callable[[RunKey, Result | Failure], None] | None = None,
) -> Table:
    """Run what is not done yet of a study, and keep the results in a folder.

    It may be stopped at any moment, by whatever means. The next call goes on; the files in the end are the same, byte
    for byte, as of a study that was never stopped, with any executor. Runs that failed are tried again.

    Parameters
    ----------
    study : Study
    path : str or os.PathLike
        The folder. Made if it is not there; refused if it holds something else.
    executor : Executor
    queries : bool
        Whether to keep the columns of each query too.
    parquet : bool
        Whether tables are Parquet files, if pyarrow is there; else CSV.
    begun, each : callable, optional
        Called with the open folder, before the first run; with the key and the outcome of each run.

    Returns
    -------
    Table

    Raises
    ------
    ConfigError
        If the folder or a file in it cannot be used. What was done is kept.

    >>> import tempfile
    >>> from simulator.study import Source, Study, load_results
    >>> study = Study(traces={"a": Source(generate="batch")}, queries=4, replications=2)
    >>> with tempfile.TemporaryDirectory() as path:
    ...     table = run_in_folder(study, f"{path}/out")
    ...     load_results(f"{path}/out").table["latency_mean"].tolist() == table["latency_mean"].tolist()
    True
    """
    runs, row_of = study.n_points * study.replications, row_maker(study)
    with ResultFolder(path, _identity(study, path), keys=runs, queries=queries, parquet=parquet) as folder:
        _refuse_columns(path, folder.runs.columns, study)
        if begun is not None:
            begun(folder)
        done = {RunKey(*divmod(number, study.replications)) for number in folder.done}
        for key, outcome in outcomes(study, executor, done, queries):
            number, row = key.point * study.replications + key.replication, row_of(key, outcome)
            if isinstance(outcome, Failure):
                folder.fail(number, outcome.reason, row)
            else:
                folder.add(number, row, outcome.queries if queries else None)
            if each is not None:
                each(key, outcome)
        folder.finish(row_names(study), tags=("point", "replication"))
        table = table_of(study, read_folder(path).columns)
        folder.write("summary.csv", table.summary().columns)
        if study.baseline:
            folder.write("comparison.csv", table.compare(study.baseline).columns)
    return table


def load_results(path: str | os.PathLike[str]) -> Stored:
    """Read a result folder, also one that is not finished.

    Raises
    ------
    ConfigError
        If there is none, it is damaged, or another version of forksim has written it.
    """
    results = read_folder(path)
    document, base = results.identity.get("document"), results.identity.get("base", "")
    if not isinstance(document, Mapping) or not isinstance(base, str):
        raise ConfigError(f"{os.fspath(path)!r} holds no study of forksim")
    if base:
        base = os.path.normpath(os.path.join(os.path.realpath(path), base))
    try:
        study = parse_study(document, base=base)
    except ConfigError as error:
        raise ConfigError(
            f"{os.fspath(path)!r} holds a study that does not run here: {error}{_imports(document)}"
        ) from None
    if results.runs != study.n_points * study.replications:
        raise ConfigError(f"{os.fspath(path)!r} says {results.runs:,} runs, and its study has another number of them")
    _refuse_columns(path, results.columns, study)
    _refuse_values(path, results.columns, study)
    columns = results.columns or {name: np.zeros(0) for name in row_names(study)}
    return Stored(study, table_of(study, columns), results.missing, results.damage)


def _imports(document: Mapping[str, Any]) -> str:
    """Return what to do where a study does not run for want of its own pieces. A folder's word runs no code."""
    names = document.get("import")
    if not isinstance(names, list):
        return ""
    return f"; the study has code of its own: --import {' --import '.join(map(str, names))}"


def _refuse_columns(path: str | os.PathLike[str], names: Collection[str], study: Study) -> None:
    """Raise `ConfigError` where rows have other columns than those of the study: what it measures has changed."""
    wanted = row_names(study)
    absent = [f"without {name}" for name in wanted if name not in names]
    unknown = [f"with {name}" for name in sorted(names) if name not in wanted]
    if names and (absent or unknown):
        raise other_version(path, f"whose rows are {', '.join((absent + unknown)[:5])}")


def _refuse_values(path: str | os.PathLike[str], columns: Mapping[str, np.ndarray], study: Study) -> None:
    """Raise `ConfigError` where a column holds other values than a run of the study gives: somebody else wrote it."""
    if not columns:
        return
    kinds = dict.fromkeys(row_names(study), "biuf")
    kinds |= {"point": "i", "replication": "i", "seed": "i", "error": "O", "spec": "O"}
    kinds |= dict.fromkeys(study.axes, "biufO")
    for name, kind in kinds.items():
        values = columns[name]
        fine = values.dtype.kind in kind
        if name in ("point", "replication"):
            fine = fine and bool(np.all((values >= 0) & (values < getattr(study, _COUNTS[name]))))
        if name == "spec":
            fine = fine and all(isinstance(value, str) for value in values.tolist())
        if not fine:
            raise ConfigError(f"{os.fspath(path)!r}: column {name} holds values that no run of its study gives")


_COUNTS = {"point": "n_points", "replication": "replications"}


def rerun(row: Mapping[str, Any], study: Study) -> dict[str, Any]:
    """Do the run of a row again, from what the row records, and return its row.

    Parameters
    ----------
    row : mapping
        One of ``table.rows()``.
    study : Study
        Where the row comes from. Taken from it: names of axes, and the folder where relative paths start.
    """
    with within("spec of the row"):
        try:
            document = json.loads(row["spec"])
        except (ValueError, TypeError, RecursionError) as error:
            raise ConfigError(f"not JSON: {error}") from None
        alone = parse_study(document, base=study.base)
    outcome = attempt(partial(run_one, alone), int(row["seed"]))
    if isinstance(outcome, Failure):
        return {**row, "error": outcome.reason}
    return {**row, **outcome.metrics, "error": None}
