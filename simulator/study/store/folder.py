"""The folder of a study's results: whatever ends a run, the next one goes on where it ended."""

from __future__ import annotations

import json
import os
import re
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from simulator.errors import ConfigError
from simulator.study.store.journal import Log, Runs, pack, scan, seal, unpack, writing
from simulator.study.store.results import (
    FORMAT,
    JOURNAL,
    LOCK,
    MAX_RUNS,
    PARTS,
    STUDY,
    digest,
    refuse_odd,
    refuse_study,
)
from simulator.study.store.rows import Row, plain_row, query_chunks, typed_chunks
from simulator.support.files import atomic, file_digest
from simulator.support.tables import Columns, can_write_parquet, column_file

_ENDINGS = (".parquet", ".csv")
_LEFT = re.compile(r"\.(.+\.(?:parquet|csv|json|jsonl))\.[a-z0-9_]{8}")  # what a killed `atomic` leaves behind


class ResultFolder:
    """The results of the runs of one study, numbered from 0, in a folder that is ours alone while the block lasts.

    Each finished run is a line of a journal, added when the run ends. A process may be killed at any moment: the next
    one finds the runs that were finished, and no half of one. When all are there, `finish` makes tables of them, whose
    bytes depend on the rows alone. To enter it is refused if another process is writing there, the folder holds another
    study or files of other origin, or it cannot be written.

    Parameters
    ----------
    path : str or os.PathLike
        Made if it is not there.
    identity : mapping
        What the results depend on, as JSON can say it. It is kept in ``study.json``.
    keys : int
        Number of runs.
    queries : bool, optional
        Whether runs come with columns of their queries, which are kept too.
    parquet : bool, optional
        Whether tables are Parquet files; they are CSV files otherwise, or if pyarrow is not installed.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as path:
    ...     with ResultFolder(f"{path}/out", {"name": "knee"}, keys=2, parquet=False) as folder:
    ...         folder.add(1, {"c": 2, "latency": 5.5})
    ...     with ResultFolder(f"{path}/out", {"name": "knee"}, keys=2, parquet=False) as folder:
    ...         folder.done
    ...         folder.add(0, {"c": 1, "latency": 8.0})
    ...         folder.finish()
    ...     print(Path(f"{path}/out/rows.csv").read_text(), end="")
    {1}
    c,latency,error
    1,8.0,
    2,5.5,
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        identity: Mapping[str, Any],
        *,
        keys: int,
        queries: bool = False,
        parquet: bool = True,
    ) -> None:
        self.path = os.fspath(path)
        if keys > MAX_RUNS:
            raise ConfigError(f"a result folder holds at most {MAX_RUNS:,} runs; got {keys:,}")
        self.keys = keys
        self.queries = queries
        self.ending = ".parquet" if parquet and can_write_parquet() else ".csv"
        """Of the names of tables."""
        self.notes: list[str] = []
        """What was found damaged and is done again, a line each."""
        self.runs = Runs(keys)
        self._study = json.loads(json.dumps({"forksim_results": FORMAT, "runs": keys, "study": identity}))
        self._tables: dict[str, str] = {}  # digests of tables that are finished
        self._damaged = False  # lines of the journal that nothing depends on
        self._complete = False  # the tables hold all there is, and the parts are gone
        self._lock = FileLock(self._at(LOCK))
        self._journal: Log | None = None
        self._parts: Log | None = None
        self._synced = time.monotonic()

    # ------------------------------------------------------------------ opening and closing

    def __enter__(self) -> Self:
        with writing(self.path):
            os.makedirs(self.path, exist_ok=True)
            refuse_odd(self.path)  # before a lock is left there
            try:
                self._lock.acquire(timeout=0)
            except Timeout:  # an OSError too
                said = f"another forksim study is writing to {self.path!r}; wait for it, or choose another -o"
                raise ConfigError(said) from None
            try:
                self._claim()
            except BaseException:
                self._close()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._journal is not None:
                self._sync()
        except ConfigError:
            if error is None:
                raise
        finally:
            self._close()

    def _close(self) -> None:
        for log in (self._journal, self._parts):
            if log is not None:
                log.close()
        self._journal = self._parts = None
        self._lock.release()

    def _claim(self) -> None:
        """Take possession: the study must be ours, and the journal is read."""
        refuse_odd(self.path)
        if os.path.lexists(self._at(STUDY)):
            refuse_study(self.path, self._study)
        else:
            with atomic(self._at(STUDY), durable=True) as file:
                file.write(json.dumps(self._study, indent=1) + "\n")
        for name in os.listdir(self.path):
            if _LEFT.fullmatch(name):
                os.unlink(self._at(name))
        self._journal = Log(self._at(JOURNAL))
        if self.queries or os.path.lexists(self._at(PARTS)):
            self._parts = Log(self._at(PARTS))
        self._load(self._journal)
        if self._complete:
            self._drop_parts()

    def _load(self, journal: Log) -> None:
        """Read the journal: which runs are done, which failed. What is no line of ours at its end is cut off."""
        kept = count = 0
        suspects: list[int] = []
        damaged: list[int] = []
        with open(journal.path, "rb") as file:
            for count, (begin, end, record) in enumerate(scan(file, self.keys), start=1):
                if record is None:
                    suspects.append(count)
                    continue
                self._take(begin, record)
                damaged += suspects
                suspects = []
                kept = end
        if kept == 0 and count > 1:
            raise ConfigError(f"{journal.path!r} is not what a forksim study writes; choose another -o")
        journal.cut(kept)
        if kept == 0:
            journal.append(seal({"study": digest(self._study)}))
        if damaged:
            shown = ", ".join(map(str, damaged[:5])) + (", ..." if len(damaged) > 5 else "")
            self.notes.append(f"{journal.path!r}: damaged in line {shown}; the runs there are done again")
        self._damaged = bool(damaged)
        self._complete = self._complete and len(self.runs.ended) == self.keys
        if self._parts is not None:
            self._parts.cut(min(self._parts.end, max(0, int(self.runs.packed.max(initial=0)))))
            if self.queries and not self._complete and (lost := self.runs.forget_parts(self._parts.end)):
                self.notes.append(
                    f"{self.path!r}: the queries of {lost} finished runs are not there; they are done again"
                )

    def _take(self, begin: int, record: dict[str, Any]) -> None:
        """Take in a record of the journal."""
        self._complete = False
        if "study" in record:
            if record["study"] != digest(self._study):
                raise ConfigError(f"{self._at(JOURNAL)!r} is the journal of another study; choose another -o")
        elif "finished" in record:
            self._tables = record["tables"]
            kept = any(self._is_whole(f"queries{ending}") for ending in _ENDINGS)
            self._complete = kept or not self.queries
        else:
            self.runs.enter(record, begin)

    # ------------------------------------------------------------------ while runs end

    @property
    def done(self) -> set[int]:
        """Runs that are finished, and did not fail."""
        return self.runs.done

    @property
    def failed(self) -> dict[int, str]:
        """Runs that failed, and why. They may be tried again."""
        return self.runs.failed

    def add(self, key: int, row: Mapping[str, Any], queries: Columns | None = None) -> None:
        """Keep the results of run `key`. When this returns, a killed process does not lose them.

        A row has a number, text, truth value or None for each column, and gets a column ``error``. Columns of queries
        are kept only if the folder was opened with `queries`. What is refused leaves the folder as it was.
        """
        record: dict[str, Any] = {"run": key, "row": self._checked(key, row)}
        if self.queries:
            if queries is None:
                raise ConfigError(f"run {key} comes without the columns of its queries")
            data = pack(queries)
            assert self._parts is not None
            record["part"] = [self._parts.append(data), len(data), zlib.crc32(data)]
        self._enter(record)

    def fail(self, key: int, reason: str, row: Mapping[str, Any]) -> None:
        """Keep that run `key` failed, and why. Its row has the reason as ``error``."""
        self._enter({"run": key, "row": {**self._checked(key, row), "error": reason}, "failed": reason})

    def _checked(self, key: int, row: Mapping[str, Any]) -> dict[str, Any]:
        if not 0 <= key < self.keys:
            raise ConfigError(f"there are runs 0 to {self.keys - 1}; got {key!r}")
        if self.runs.offsets[key] >= 0 and key not in self.failed:
            raise ConfigError(f"run {key} is finished already")
        return plain_row(key, row)

    def _enter(self, record: dict[str, Any]) -> None:
        assert self._journal is not None
        self.runs.enter(record, self._journal.append(seal(record)))
        self._complete = False
        if time.monotonic() - self._synced >= 1:
            self._sync()

    def _sync(self) -> None:
        """Put all on the disk, in case the machine dies; a killed process loses nothing anyhow."""
        for log in (self._parts, self._journal):
            if log is not None:
                log.sync()
        self._synced = time.monotonic()

    # ------------------------------------------------------------------ when all have ended

    def write(self, name: str, columns: Columns) -> None:
        """Write a table of its own into the folder, atomically; its ending says how."""
        if os.path.basename(name) != name or name in (STUDY, JOURNAL, PARTS, LOCK):
            raise ConfigError(f"a table in a result folder cannot be called {name!r}")
        with column_file(self._at(name)) as add:
            add(columns)

    def finish(self, order: Sequence[str] = (), *, tags: Sequence[str] = ()) -> None:
        """Write ``rows`` and, with queries, ``queries``: in the order of runs, with bytes that depend on rows alone.

        A column holds whole numbers, numbers, truth values or texts, whichever holds all of its values. Unless a run
        failed, the journal is then put in order as well, and working files are removed. Does nothing if there is
        nothing new. Columns in `order` come first in ``rows``; those in `tags` each query of a run gets too.
        """
        if missing := self.keys - len(self.runs.ended):
            raise ConfigError(f"{self.path!r}: {missing} of {self.keys} runs have not ended")
        rows, queries = f"rows{self.ending}", f"queries{self.ending}"
        if self._complete and self._is_whole(rows):
            if self._damaged:
                self._tidy()
            return
        assert self._journal is not None
        self._sync()
        with column_file(self._at(rows), durable=True) as add:
            for columns in typed_chunks(lambda: (record["row"] for record in self._records()), order):
                add(columns)
        self._drop_other("rows")
        if self._complete:
            before, line = self._tables, self._finished()
            if self._tables != before:
                self._journal.append(line)
            return
        if self.queries:
            with column_file(self._at(queries), durable=True) as add:
                for columns in query_chunks(self._queries(), tags):
                    add(columns)
        else:  # those of an earlier call are not those of these rows
            self._remove(queries)
        self._drop_other("queries")
        if not self.failed:
            self._tidy()

    def _records(self) -> Iterator[dict[str, Any]]:
        """Yield the record of each run, in order."""
        with open(self._at(JOURNAL), "rb") as file:
            yield from self.runs.records(file)

    def _queries(self) -> Iterator[tuple[int, Row, Row]]:
        """Yield the number of each run that did not fail, its row, and the columns of its queries."""
        for record in self._records():
            if "failed" not in record:
                yield record["run"], record["row"], self._part(record["run"], *record["part"])

    def _part(self, key: int, begin: int, size: int, checksum: int) -> dict[str, Any]:
        assert self._parts is not None and self._journal is not None
        data = self._parts.read(begin, size)
        if len(data) != size or zlib.crc32(data) != checksum:
            self._enter({"run": key, "lost": True})
            raise ConfigError(f"{self._at(PARTS)!r}: the queries of run {key} are damaged; run again to do it anew")
        return unpack(data)

    def _tidy(self) -> None:
        """Put the journal in the order of runs, and remove what is in the tables now."""
        assert self._journal is not None
        offsets = self.runs.offsets.copy()
        try:
            with atomic(self._at(JOURNAL), "wb", durable=True) as file:
                file.write(seal({"study": digest(self._study)}))
                for record in self._records():
                    offsets[record["run"]] = file.tell()
                    record.pop("part", None)
                    file.write(seal(record))
                file.write(self._finished())
                self._journal.close()  # not every system replaces a file that is open
                self._journal = None
            self.runs.offsets = offsets
            self._complete = True
        finally:
            self._journal = Log(self._at(JOURNAL))
        self._drop_parts()

    def _finished(self) -> bytes:
        """Return the last line of a finished journal, with a digest of each table."""
        names = [f"{name}{ending}" for name in ("rows", "queries") for ending in _ENDINGS]
        self._tables = {name: file_digest(self._at(name)) for name in names if os.path.exists(self._at(name))}
        return seal({"finished": self.keys, "tables": self._tables})

    def _is_whole(self, name: str) -> bool:
        """Return whether a finished table is as it was written."""
        there = name in self._tables and os.path.exists(self._at(name))
        return there and file_digest(self._at(name)) == self._tables[name]

    def _drop_parts(self) -> None:
        """Remove what is in the tables now."""
        if self._parts is not None:
            self._parts.close()
            self._parts = None
            self._remove(PARTS)

    def _drop_other(self, name: str) -> None:
        """Remove a table of the other kind: it may be older."""
        for ending in {*_ENDINGS} - {self.ending}:
            self._remove(name + ending)

    def _remove(self, name: str) -> None:
        with writing(self._at(name)), suppress(FileNotFoundError):
            os.unlink(self._at(name))

    def _at(self, name: str) -> str:
        return os.path.join(self.path, name)
