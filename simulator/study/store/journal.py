"""A file that grows at its end and outlives being killed, of JSON lines with checksums; and the runs it tells of."""

from __future__ import annotations

import errno
import json
import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from simulator.errors import ConfigError
from simulator.support.tables import Columns, typed

_MAX_LINE = 1 << 26
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class Log:
    """A file that grows at its end. What a failed write has left behind that end is written over by the next.

    It is made if it is not there; `ConfigError` if it cannot be written, or is something else than a file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with writing(path):
            self.handle = os.open(path, _FLAGS, 0o666)
            there = os.fstat(self.handle)
        if not stat.S_ISREG(there.st_mode):
            os.close(self.handle)
            raise ConfigError(f"{path!r} is no plain file")
        self.end = there.st_size

    def append(self, data: bytes) -> int:
        """Add `data`, and return where it begins."""
        begin, rest = self.end, memoryview(data)
        with writing(self.path):
            os.lseek(self.handle, begin, os.SEEK_SET)
            while rest:
                rest = rest[os.write(self.handle, rest) :]
        self.end = begin + len(data)
        return begin

    def read(self, begin: int, size: int) -> bytes:
        """Return the bytes from `begin` on, fewer where the file ends before."""
        os.lseek(self.handle, begin, os.SEEK_SET)
        return os.read(self.handle, size)

    def cut(self, end: int) -> None:
        """Forget what follows `end`."""
        if end != self.end:
            with writing(self.path):
                os.ftruncate(self.handle, end)
            self.end = end

    def sync(self) -> None:
        """Wait until all of it is on the disk."""
        with writing(self.path):
            os.fsync(self.handle)

    def close(self) -> None:
        """Let the file go. Closing again does nothing."""
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Raise `ConfigError` where `path` cannot be written."""
    try:
        yield
    except OSError as error:
        why = "a link, not a plain file" if error.errno == errno.ELOOP else error.strerror or error
        kept = "; what is finished is kept, the same command goes on from there" if error.errno == errno.ENOSPC else ""
        raise ConfigError(f"{path!r}: cannot be written ({why}){kept}") from None


def seal(record: dict[str, Any]) -> bytes:
    r"""Return a record as a line with its checksum. NaN and infinities are kept.

    >>> seal({"run": 3, "row": {"latency": float("nan")}})
    b'608606d9 {"run":3,"row":{"latency":NaN}}\n'
    """
    body = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


Natural = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class _Whose(msgspec.Struct, forbid_unknown_fields=True):
    study: str


class _Finished(msgspec.Struct, forbid_unknown_fields=True):
    finished: Natural
    tables: dict[str, str]


class _Lost(msgspec.Struct, forbid_unknown_fields=True):
    run: Natural
    lost: bool


class _Ended(msgspec.Struct, forbid_unknown_fields=True):
    run: Natural
    row: dict[str, str | int | float | bool | None]
    failed: str | None = None
    part: tuple[Natural, Natural, Natural] | None = None


_SHAPES = {"study": _Whose, "finished": _Finished, "lost": _Lost, "row": _Ended}
"""What a line of a journal may be, by a name in it."""


def open_line(line: bytes, runs: int) -> dict[str, Any] | None:
    """Return the record of a line, or None if it is not what is written of a study of so many runs.

    >>> open_line(seal({"run": 3, "lost": True}), 4), open_line(seal({"run": 3, "lost": True}), 3), open_line(b"", 4)
    ({'run': 3, 'lost': True}, None, None)
    """
    body = line[9:-1]
    if not line.endswith(b"\n") or line[:9] != b"%08x " % zlib.crc32(body):
        return None
    try:
        record: Any = json.loads(body)
        name = next((name for name in _SHAPES if name in record), None) if isinstance(record, dict) else None
        if name is None:
            return None
        msgspec.convert(record, _SHAPES[name])
    except (ValueError, RecursionError, msgspec.ValidationError):
        return None  # the checksum is right: somebody else has written it
    return record if record.get("run", 0) < runs else None


def scan(file: IO[bytes], runs: int) -> Iterator[tuple[int, int, dict[str, Any] | None]]:
    """Yield the records of a file, each with where its line begins and ends; None for a line that is damaged."""
    begin = 0
    while line := file.readline(_MAX_LINE):
        end = begin + len(line)
        yield begin, end, open_line(line, runs)
        begin = end


def pack(columns: Columns) -> bytes:
    """Return columns as bytes, numbers as they are in memory.

    >>> unpack(pack({"trace": ["a", None], "latency": np.array([1.5, 2.5])}))
    {'trace': ['a', None], 'latency': array([1.5, 2.5])}
    """
    parts: list[tuple[str, str, bytes]] = []
    for name, values in columns.items():
        column = typed(values)
        if isinstance(column, np.ndarray):
            column = column.astype(column.dtype.newbyteorder("<"), copy=False)
            parts.append((name, column.dtype.str, column.tobytes()))
        else:
            parts.append((name, "", json.dumps(column).encode()))
    return msgspec.msgpack.encode(parts)


def unpack(data: bytes) -> dict[str, Any]:
    """Return the columns that `pack` made `data` of."""
    parts = msgspec.msgpack.decode(data, type=list[tuple[str, str, bytes]])
    return {
        name: np.frombuffer(content, dtype=np.dtype(kind)) if kind else json.loads(content)
        for name, kind, content in parts
    }


class Runs:
    """The runs of a study, numbered from 0, as the records of a journal tell of them.

    >>> runs = Runs(3)
    >>> runs.enter({"run": 2, "row": {"latency": 5.5, "error": None}}, 44)
    >>> runs.enter({"run": 0, "row": {"error": "it broke"}, "failed": "it broke"}, 130)
    >>> runs.ended.tolist(), runs.done, runs.failed
    ([0, 2], {2}, {0: 'it broke'})
    """

    def __init__(self, count: int) -> None:
        self.offsets = np.full(count, -1, dtype=np.int64)
        """Where the record of each run that ended begins, and -1."""
        self.packed = np.full(count, -1, dtype=np.int64)
        """Where the columns of its queries end in the file of parts, and -1."""
        self.failed: dict[int, str] = {}
        """Runs that failed, and why."""
        self.columns: set[str] = set()
        """Names of the columns of their rows."""

    def enter(self, record: Mapping[str, Any], begin: int) -> None:
        """Take a record into account, which begins at `begin`."""
        key = record["run"]
        self.failed.pop(key, None)
        self.offsets[key] = -1 if "lost" in record else begin
        self.packed[key] = sum(record["part"][:2]) if "part" in record else -1
        self.columns |= record.get("row", {}).keys()
        if "failed" in record:
            self.failed[key] = record["failed"]

    def forget_parts(self, end: int) -> int:
        """Forget runs that are done but for their queries, of which nothing is beyond `end`; return how many."""
        done = np.zeros(len(self.offsets), dtype=np.bool_)
        done[list(self.done)] = True
        lost = done & ((self.packed < 0) | (self.packed > end))
        self.offsets[lost] = -1
        return int(np.count_nonzero(lost))

    @property
    def ended(self) -> npt.NDArray[np.int64]:
        """Runs that ended, in order."""
        return np.flatnonzero(self.offsets >= 0)

    @property
    def done(self) -> set[int]:
        """Runs that ended, and did not fail."""
        return set(self.ended.tolist()) - self.failed.keys()

    def records(self, file: IO[bytes]) -> Iterator[dict[str, Any]]:
        """Yield the record of each run that ended, in the order of runs, from an open journal."""
        for offset in self.offsets[self.offsets >= 0].tolist():
            file.seek(offset)
            record = open_line(file.readline(), len(self.offsets))
            if record is None:
                raise ConfigError(f"{file.name!r} was changed while it was in use; run again")
            yield record
