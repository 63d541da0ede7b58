"""Timed engine steps: what a law is fitted to, read from CSV or JSON lines.

One row a step. ``decodes`` sequences decode and attend to ``decode_context`` tokens in all, the new ones included;
``prefill_tokens`` prompt tokens are processed and attend to ``prefill_context`` tokens in all (a chunk of m on c cached
ones: m*c + m*(m+1)/2); the step takes ``seconds``, from its start to the start of the next. Optional: ``kv_tokens`` in
memory after the step, shared ones once; ``run``, the name of the run the step belongs to; ``start``, its second in that
run. Other columns are ignored.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulator.errors import ConfigError, FormatError

COLUMNS = ("decodes", "decode_context", "prefill_tokens", "prefill_context")
_LIMITS = {"seconds": 3600.0, **dict.fromkeys((*COLUMNS, "kv_tokens"), 1e12), "start": 1e12}
_MAX_LINE = 1 << 16

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Steps:
    """Timed steps, as columns of equal length."""

    decodes: Numbers
    """Sequences that decode."""
    decode_context: Numbers
    """Tokens they attend to, in all."""
    prefill_tokens: Numbers
    """Prompt tokens."""
    prefill_context: Numbers
    """Tokens those attend to, in all."""
    seconds: Numbers
    """What the step took."""
    run: NDArray[np.int64]
    """Which run each step belongs to, from 0."""
    names: tuple[str, ...]
    """What the runs are called; empty if the data name none."""
    kv_tokens: Numbers | None = None
    """Tokens in memory after the step, shared ones once; None if not recorded."""
    timed: bool = False
    """Whether steps have a start: then rows without a run are one timeline."""
    simulated: bool = False
    """Whether these are the steps of a simulation, whose times nobody measured."""
    inside: Steps | None = None
    """Where a row is not a step but a task, which takes many: the steps of a simulation, in order."""
    first: NDArray[np.int64] | None = None
    """The first of them, of each task."""
    last: NDArray[np.int64] | None = None
    """The one after its last."""

    def __len__(self) -> int:
        return len(self.seconds)

    @property
    def basis(self) -> Steps:
        """The steps themselves, where rows are tasks."""
        return self.inside or self

    @property
    def tokens(self) -> Numbers:
        """Tokens of each step."""
        return self.decodes + self.prefill_tokens

    @property
    def groups(self) -> NDArray[np.int64]:
        """What is held out together, from 0: runs; without any, ten stretches of time; without that, equal steps."""
        if len(self.names) > 1:
            return self.run
        if self.timed:
            return np.arange(len(self)) * min(10, len(self)) // len(self)
        kinds = np.column_stack([self.decodes, self.decode_context, self.prefill_tokens, self.prefill_context])
        return np.unique(kinds, axis=0, return_inverse=True)[1].ravel().astype(np.int64)

    def take(self, which: NDArray[np.bool_]) -> Steps:
        """Return the steps where `which` is true, with the runs that they are of."""
        there, run = np.unique(self.run[which], return_inverse=True)
        return replace(
            self,
            **{name: getattr(self, name)[which] for name in (*COLUMNS, "seconds")},
            run=run.ravel().astype(np.int64),
            names=tuple(self.names[i] for i in there) if self.names else (),
            kv_tokens=None if self.kv_tokens is None else self.kv_tokens[which],
            first=None if self.first is None else self.first[which],
            last=None if self.last is None else self.last[which],
        )

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> Steps:
        """Return the steps of `rows`, each a mapping from column to number.

        Raises
        ------
        ConfigError
            If there is no row, or one is no step.

        >>> row = {"decodes": 2, "decode_context": 300, "prefill_tokens": 0, "prefill_context": 0, "seconds": 0.04}
        >>> Steps.from_rows([row]).tokens
        array([2.])
        """
        checked = [_checked(row) for row in rows]
        if not checked:
            raise ConfigError("there are no steps to fit to")
        runs = [str(row["run"]) if row.get("run") is not None else "" for row in checked]
        number = {name: i for i, name in enumerate(dict.fromkeys(runs))}
        cache = all(row.get("kv_tokens") is not None for row in checked)
        table: dict[str, Any] = {
            name: np.array([row[name] for row in checked], dtype=np.float64) for name in (*COLUMNS, "seconds")
        }
        return cls(
            **table,
            run=np.array([number[name] for name in runs], dtype=np.int64),
            names=tuple(number) if any(runs) else (),
            kv_tokens=np.array([row["kv_tokens"] for row in checked], dtype=np.float64) if cache else None,
            timed=all(row.get("start") is not None for row in checked),
        )


def _checked(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a row that are used, as numbers."""
    found: dict[str, Any] = {"run": row.get("run")}
    for name, most in _LIMITS.items():
        value = row.get(name)
        if value is None or value == "":
            if name in ("kv_tokens", "start"):
                continue
            raise ConfigError(f"a step needs {name}; accepted are {', '.join((*COLUMNS, 'seconds'))}")
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 <= number <= most or (name == "seconds" and not number):
            raise ConfigError(
                f"{name} must be a number {'above' if name == 'seconds' else 'from'} 0, got {value!r:.60}"
            )
        if name in COLUMNS and number != int(number):
            raise ConfigError(f"{name} must be a whole number, got {value!r:.60}")
        found[name] = number
    if not found["decodes"] + found["prefill_tokens"]:
        raise ConfigError("a step needs decodes or prefill_tokens above 0")
    if found["decode_context"] < found["decodes"] or found["prefill_context"] < found["prefill_tokens"]:
        raise ConfigError("each token attends to itself at least: a context is smaller than its tokens")
    return found


def read_steps(path: str | os.PathLike[str]) -> Iterator[dict[str, Any] | FormatError]:
    r"""Yield the rows of a file of steps, and an error for each that is none.

    CSV with a header if the name ends in .csv, else JSON lines.

    Raises
    ------
    ConfigError
        If the file cannot be read.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
    ...     _ = file.write("decodes,decode_context,prefill_tokens,prefill_context,seconds\n1,9,0,0,0.02\n1,9,0,0,-1\n")
    ...     file.flush()
    ...     rows = list(read_steps(file.name))
    >>> rows[0]["seconds"], rows[1].message
    (0.02, "seconds must be a number above 0, got '-1'")
    """
    name = os.fspath(path)
    try:
        with open(name, encoding="utf-8", errors="replace", newline="") as file:
            rows = _from_csv(file) if name.lower().endswith(".csv") else _from_json(file)
            for line, row in rows:
                try:
                    if isinstance(row, str):
                        raise ConfigError(row)
                    yield _checked(row)
                except ConfigError as error:
                    yield FormatError(str(error), path=name, line=line)
    except OSError as error:
        raise ConfigError(f"{name!r}: cannot be read ({error.strerror or error})") from None


def _from_csv(file: Iterable[str]) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    reader = csv.DictReader(file)
    try:
        missing = [name for name in (*COLUMNS, "seconds") if name not in (reader.fieldnames or ())]
        if missing:
            yield 1, f"no column {', '.join(missing)}; the first line must name the columns"
            return
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        yield reader.line_num, f"not CSV: {error}"


def _from_json(file: Iterable[str]) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line) if len(line) <= _MAX_LINE else None
        except (msgspec.DecodeError, RecursionError) as error:
            yield number, f"not one complete JSON object: {error}"
            continue
        yield number, row if isinstance(row, dict) else "not a JSON object of at most 64 KiB"
