"""What is in a result folder: whose it is, and the rows so far."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from simulator.errors import ConfigError
from simulator.study.store.journal import open_line, scan
from simulator.study.store.rows import chunks, column_kinds, column_of, joined

__all__ = [
    "JOURNAL",
    "LOCK",
    "PARTS",
    "STUDY",
    "Results",
    "digest",
    "enter",
    "read_folder",
    "records",
    "refuse_odd",
    "refuse_study",
]

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
    >>> with tempfile.TemporaryDirectory() as place:
    ...     with ResultFolder(place, {"name": "knee"}, keys=3) as folder:
    ...         folder.add(2, {"latency": 5.5})
    ...         folder.add(0, {"latency": 8})
    ...     results = read_folder(place)
    >>> results.columns["latency"], results.keys, results.missing
    (array([8. , 5.5]), array([0, 2]), 1)
    """
    place = os.fspath(path)
    study = study_of(place)
    offsets = np.full(study["runs"], -1, dtype=np.int64)
    failed: dict[int, str] = {}
    journal = os.path.join(place, JOURNAL)
    try:
        with open(journal, "rb") as file:  # one and the same, even if it is put in order meanwhile
            for begin, _, record in scan(file):
                if record is not None and "run" in record:
                    enter(record, begin, offsets, failed)
            keys = np.flatnonzero(offsets >= 0)
            kinds = column_kinds(record["row"] for record in records(file, offsets))
            parts = [
                {name: column_of(chunk, name, kind) for name, kind in kinds.items()}
                for chunk in chunks(record["row"] for record in records(file, offsets))
            ]
    except FileNotFoundError:
        keys, parts = np.zeros(0, dtype=np.int64), []
    except OSError as error:
        raise ConfigError(f"{journal!r}: cannot be read ({error.strerror})") from None
    columns = joined(parts) if parts else {}
    return Results(identity=study["study"], runs=study["runs"], columns=columns, keys=keys, failed=failed)


def enter(record: Mapping[str, Any], begin: int, offsets: np.ndarray, failed: dict[int, str]) -> None:
    """Take a record of the journal into account: where the line of its run begins, and whether it failed."""
    key = record["run"]
    failed.pop(key, None)
    offsets[key] = -1 if "lost" in record else begin
    if "failed" in record:
        failed[key] = record["failed"]


def records(file: IO[bytes], offsets: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yield the record of each run that has an offset, in the order of runs."""
    for offset in offsets[offsets >= 0].tolist():
        file.seek(offset)
        record = open_line(file.readline())
        if record is None:
            raise ConfigError(f"{file.name!r} was changed while it was in use; run again")
        yield record


def digest(study: Mapping[str, Any]) -> str:
    """Return a short name of a study."""
    return hashlib.sha256(json.dumps(study, sort_keys=True).encode()).hexdigest()[:32]


def study_of(path: str) -> dict[str, Any]:
    """Return what ``study.json`` of a folder holds."""
    name = os.path.join(path, STUDY)
    try:
        with open(name, encoding="utf-8") as file:
            study = json.load(file)
    except OSError as error:
        raise ConfigError(f"{path!r} is no result folder ({STUDY}: {error.strerror})") from None
    except (ValueError, RecursionError):
        study = None
    if not isinstance(study, dict) or study.get("forksim_results") != 1 or type(study.get("runs")) is not int:
        raise ConfigError(f"{name!r} is not what a forksim study writes; choose another -o")
    return study


def refuse_study(path: str, wanted: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if the folder holds another study than `wanted`, and say what differs."""
    old, new = dict(_leaves("", study_of(path))), dict(_leaves("", wanted))
    names = [name for name in {**new, **old} if old.get(name) != new.get(name)]
    if names:
        pairs = [(name, old.get(name, "not set"), new.get(name, "not set")) for name in names[:3]]
        said = "; ".join(f"{name} is {_cut(there)} there, {_cut(here)} here" for name, there, here in pairs)
        more = f"; and {len(names) - 3} more" if len(names) > 3 else ""
        raise ConfigError(
            f"{path!r} holds another study: {said}{more}; choose another -o, or go on with the study it was made with"
        )


def _leaves(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the dotted name of each value in a tree of tables, and the value as JSON."""
    if isinstance(value, dict) and value:
        for key, each in value.items():
            inner = key if name or key not in ("study", "document") else ""  # names start within a study file
            yield from _leaves(f"{name}.{inner}".strip("."), each)
    else:
        yield name, json.dumps(value, ensure_ascii=False)


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
