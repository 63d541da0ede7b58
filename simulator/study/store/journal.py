"""A file that grows at its end and outlives being killed: JSON lines, each with a checksum."""

from __future__ import annotations

import errno
import json
import os
import stat
import zlib
from collections.abc import Iterator
from typing import IO, Any

import msgspec
import numpy as np

from simulator.errors import ConfigError
from simulator.support.tables import Columns, typed

__all__ = ["Log", "open_line", "pack", "scan", "seal", "unpack", "unwritable"]

_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_KEPT = "; what is finished is kept, the same command goes on from there"


class Log:
    """A file that grows at its end. What a failed write has left behind that end is written over by the next.

    Parameters
    ----------
    path : str
        Made if it is not there.

    Raises
    ------
    ConfigError
        If it cannot be written, or is something else than a file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self.handle = os.open(path, _FLAGS, 0o666)
            there = os.fstat(self.handle)
        except OSError as error:
            raise unwritable(path, error) from None
        if not stat.S_ISREG(there.st_mode):
            os.close(self.handle)
            raise ConfigError(f"{path!r} is no plain file")
        self.end = there.st_size

    def append(self, data: bytes) -> int:
        """Add `data`, and return where it begins."""
        begin = self.end
        try:
            os.lseek(self.handle, begin, os.SEEK_SET)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self.handle, rest) :]
        except OSError as error:
            raise unwritable(self.path, error) from None
        self.end = begin + len(data)
        return begin

    def read(self, begin: int, size: int) -> bytes:
        """Return the bytes from `begin` on, fewer where the file ends before."""
        os.lseek(self.handle, begin, os.SEEK_SET)
        return os.read(self.handle, size)

    def cut(self, end: int) -> None:
        """Forget what follows `end`."""
        if end == self.end:
            return
        try:
            os.ftruncate(self.handle, end)
        except OSError as error:
            raise unwritable(self.path, error) from None
        self.end = end

    def sync(self) -> None:
        """Wait until all of it is on the disk."""
        try:
            os.fsync(self.handle)
        except OSError as error:
            raise unwritable(self.path, error) from None

    def close(self) -> None:
        """Let the file go. Closing again does nothing."""
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1


def unwritable(path: str, error: OSError) -> ConfigError:
    """Return what to say when `path` cannot be written."""
    why = "a link, not a plain file" if error.errno == errno.ELOOP else error.strerror or error
    return ConfigError(f"{path!r}: cannot be written ({why}){_KEPT if error.errno == errno.ENOSPC else ''}")


def seal(record: dict[str, Any]) -> bytes:
    r"""Return a record as a line with its checksum. NaN and infinities are kept.

    >>> seal({"run": 3, "row": {"latency": float("nan")}})
    b'608606d9 {"run":3,"row":{"latency":NaN}}\n'
    """
    body = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def open_line(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line, or None if the line is not as it was written.

    >>> open_line(seal({"run": 3})), open_line(seal({"run": 3})[:-1])
    ({'run': 3}, None)
    """
    body = line[9:-1]
    if not line.endswith(b"\n") or line[:9] != b"%08x " % zlib.crc32(body):
        return None
    record: dict[str, Any] = json.loads(body)
    return record


def scan(file: IO[bytes]) -> Iterator[tuple[int, int, dict[str, Any] | None]]:
    """Yield the records of a file, each with where its line begins and ends; None for a line that is damaged."""
    begin = 0
    for line in file:
        end = begin + len(line)
        yield begin, end, open_line(line)
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
