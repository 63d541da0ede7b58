"""What a journal says of the runs of a study: which have ended, how, and where the record of each begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from simulator.errors import ConfigError
from simulator.study.store.journal import open_line

__all__ = ["Runs"]


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
            record = open_line(file.readline())
            if record is None:
                raise ConfigError(f"{file.name!r} was changed while it was in use; run again")
            yield record
