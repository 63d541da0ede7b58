"""What is in a result folder: whose it is, and the rows so far."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from simulator.errors import ConfigError
from simulator.study.documents import flat
from simulator.study.store.journal import Runs, scan
from simulator.study.store.rows import joined, typed_chunks
from simulator.support.checks import is_whole
from simulator.support.files import require_plain

FORMAT = 2
"""The number of the format of a folder, in its study.json. It is another one where files or columns of rows change."""

MAX_RUNS = 10_000_000
"""Runs of a study that a folder holds."""
_MAX_BYTES = 1 << 26
"""No study.json is read further."""

STUDY, JOURNAL, PARTS, LOCK = "study.json", "journal.jsonl", "parts.bin", ".lock"
_TABLES = ("rows.parquet", "rows.csv", "queries.parquet", "queries.csv", "summary.csv", "comparison.csv")


@dataclass(frozen=True, eq=False, kw_only=True)
class Results:
    """The rows of a result folder so far."""

    identity: Mapping[str, Any]
    """What the folder was opened with."""
    runs: int
    """Number of runs of the study."""
    columns: Mapping[str, np.ndarray]
    """Int64, float64, bool or texts (objects). One row for each run that ended, in the order of runs."""
    keys: np.ndarray
    """The number of the run of each row."""
    failed: Mapping[int, str]
    """Runs that failed, and why. They have rows."""
    damage: str = ""
    """What is wrong with the folder, if anything: runs whose lines cannot be read count as missing."""

    @property
    def missing(self) -> int:
        """Number of runs that have not ended."""
        return self.runs - len(self.keys)


def read_folder(path: str | os.PathLike[str]) -> Results:
    """Read the rows of a result folder, also of one that is not finished, or is being written.

    Raises
    ------
    ConfigError
        If it is no result folder, or cannot be read.

    >>> import tempfile
    >>> from simulator.study.store.folder import ResultFolder
    >>> with tempfile.TemporaryDirectory() as path:
    ...     with ResultFolder(path, {"name": "knee"}, keys=3) as folder:
    ...         folder.add(2, {"latency": 5.5})
    ...         folder.add(0, {"latency": 8})
    ...     results = read_folder(path)
    >>> results.columns["latency"], results.keys, results.missing
    (array([8. , 5.5]), array([0, 2]), 1)
    """
    folder = os.fspath(path)
    study = study_of(folder)
    runs, parts, damage = Runs(study["runs"]), [], ""
    lines = broken = first = 0
    journal = os.path.join(folder, JOURNAL)
    require_plain(journal, "journal")
    try:
        with open(journal, "rb") as file:  # one and the same, even if it is put in order meanwhile
            for begin, end, record in scan(file, study["runs"]):
                lines += 1
                if record is not None and "run" in record:
                    runs.enter(record, begin)
                elif record is None and not _is_unfinished(file, end):
                    broken += 1
                    first = first or lines
            parts = list(typed_chunks(lambda: (record["row"] for record in runs.records(file))))
    except FileNotFoundError:
        lines = -1
    except OSError as error:
        raise ConfigError(f"{journal!r}: cannot be read ({error.strerror})") from None
    if lines < 1 and (there := _tables_in(folder)):
        how = "is empty" if not lines else "is not there"
        damage = f"{journal!r} {how}, so no run is known to have ended; {there} can still be read as they are"
    if broken:
        damage = (
            f"{journal!r} is damaged: {broken:,} of its {lines:,} lines are not what was written, first line {first}"
        )
    return Results(
        identity=study["study"],
        runs=study["runs"],
        columns=joined(parts) if parts else {},
        keys=runs.ended,
        failed=runs.failed,
        damage=damage,
    )


def _is_unfinished(file: IO[bytes], end: int) -> bool:
    """Whether a line that ends there is the last, and is not whole: that is how a killed study leaves it."""
    if end < os.fstat(file.fileno()).st_size:
        return False
    here = file.tell()
    file.seek(end - 1)
    cut = file.read(1) != b"\n"
    file.seek(here)
    return cut


def _tables_in(path: str) -> str:
    """Return the names of the tables that are there, in words."""
    return ", ".join(name for name in _TABLES if os.path.exists(os.path.join(path, name)))


def digest(study: Mapping[str, Any]) -> str:
    """Return a short name of a study."""
    return hashlib.sha256(json.dumps(study, sort_keys=True).encode()).hexdigest()[:32]


def study_of(path: str) -> dict[str, Any]:
    """Return what ``study.json`` of a folder holds."""
    name = os.path.join(path, STUDY)
    require_plain(name, "study")
    why = f"it is no table that says forksim_results, {FORMAT}"
    try:
        with open(name, encoding="utf-8") as file:
            text = file.read(_MAX_BYTES)
        why = why if text.strip() else "it is empty"
        study = json.loads(text)
    except OSError as error:
        raise ConfigError(f"{path!r} is no result folder ({STUDY}: {error.strerror})") from None
    except (ValueError, RecursionError) as error:
        study = None
        why = f"it is no JSON ({error!s:.80})" if why != "it is empty" else why
    number = study.get("forksim_results") if isinstance(study, dict) else None
    ours = number is not None
    if number in (1, FORMAT):
        ours = is_whole(study.get("runs")) and 0 <= study["runs"] <= MAX_RUNS and isinstance(study.get("study"), dict)
    if not ours:
        tables = _tables_in(path)
        beside = f"; {tables} can still be read as they are" if tables else ""
        raise ConfigError(
            f"{name!r} is not what a forksim study writes: {why}; run the study into another folder (forksim study run"
            f" STUDY.toml -o DIR){beside}"
        )
    if number != FORMAT:
        raise other_version(path, f"in format {number!r:.20}, and this one has format {FORMAT}")
    found: dict[str, Any] = study
    return found


def other_version(path: str | os.PathLike[str], what: str) -> ConfigError:
    """Return what to say of a folder that another version of forksim has written."""
    return ConfigError(
        f"{os.fspath(path)!r} holds results of another version of forksim, {what}: run the study again into another "
        "folder (forksim study run STUDY.toml -o DIR), or read them with that version"
    )


def refuse_study(path: str, wanted: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if the folder holds another study than `wanted`, and say what differs."""
    old, new = _leaves(study_of(path)), _leaves(wanted)
    names = [name for name in {**new, **old} if old.get(name) != new.get(name)]
    if names:
        pairs = [(name, old.get(name, "not set"), new.get(name, "not set")) for name in names[:3]]
        said = "; ".join(f"{name} is {_cut(there)} there, {_cut(here)} here" for name, there, here in pairs)
        more = f"; and {len(names) - 3} more" if len(names) > 3 else ""
        raise ConfigError(
            f"{path!r} holds another study: {said}{more}; choose another -o, or go on with the study it was made with"
        )


def _leaves(study: Mapping[str, Any]) -> dict[str, str]:
    """Return the values of a study as JSON, under the names that they have in a study file."""
    leaves = {name: json.dumps(value, ensure_ascii=False) for name, value in flat(study).items()}
    return {name.removeprefix("study.").removeprefix("document."): leaf for name, leaf in leaves.items()}


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def refuse_odd(path: str) -> None:
    """Raise `ConfigError` if files under our names are not ours."""
    names = (STUDY, JOURNAL, PARTS, *_TABLES)
    there = [name for name in names if os.path.lexists(os.path.join(path, name))]
    for name in there:
        if not stat.S_ISREG(os.lstat(os.path.join(path, name)).st_mode):
            raise ConfigError(f"{os.path.join(path, name)!r} is no plain file; choose another -o")
    if there and STUDY not in there:
        raise ConfigError(f"{path!r} has a file {there[0]} of other origin, and no {STUDY}; choose another -o")
