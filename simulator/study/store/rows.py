"""Rows of plain values, one a run, as typed columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np

from simulator.errors import ConfigError

__all__ = ["CHUNK", "chunks", "column_kinds", "column_of", "joined", "plain_row", "repeated"]

CHUNK = 8192
"""Rows in memory at once while tables are written."""
_LIMIT = 2**63

Row = dict[str, Any]


def plain_row(key: int, row: Mapping[str, Any]) -> Row:
    """Return the row of run `key` with Python's own values, and with a column ``error``.

    >>> plain_row(3, {"latency": np.float64(1.5)})
    {'latency': 1.5, 'error': None}

    Raises
    ------
    ConfigError
        If a value is none of those.
    """
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in row.items()}
    for name, value in plain.items():
        if value is not None and not isinstance(value, (str, int, float)):
            raise ConfigError(f"run {key}: {name} must be a number, a text, a truth value or None; got {value!r:.80}")
    plain.setdefault("error", None)
    return plain


def chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield the rows, at most `CHUNK` at a time."""
    rest = iter(rows)
    while some := list(islice(rest, CHUNK)):
        yield some


def column_kinds(rows: Iterable[Row]) -> dict[str, str]:
    """Return, for each column, the simplest kind that holds all its values: ``bool``, ``int``, ``float`` or ``text``.

    A value that a row lacks is None. Whole numbers beyond 64 bits are texts.

    >>> column_kinds([{"c": 1, "gpu": "a", "latency": 2}, {"c": 2, "gpu": "b", "latency": None}])
    {'c': 'int', 'gpu': 'text', 'latency': 'float'}
    """
    seen: dict[str, set[type]] = {}
    held: dict[str, int] = {}
    count = 0
    for row in rows:
        count += 1
        for name, value in row.items():
            kind = type(value)
            seen.setdefault(name, set()).add(str if kind is int and not -_LIMIT <= value < _LIMIT else kind)
            held[name] = held.get(name, 0) + 1
    return {name: _kind(kinds | ({type(None)} if held[name] < count else set())) for name, kinds in seen.items()}


def _kind(kinds: set[type]) -> str:
    if kinds in ({bool}, {int}, {float}):
        return kinds.pop().__name__
    return "text" if str in kinds or kinds == {type(None)} else "float"


def column_of(rows: Sequence[Row], name: str, kind: str) -> np.ndarray:
    """Return one column of rows.

    >>> column_of([{"a": 1}, {}], "a", "float")
    array([ 1., nan])
    """
    values = [row.get(name) for row in rows]
    if kind == "text":
        return _objects([value if value is None else str(value) for value in values])
    if kind == "float":
        values = [np.nan if value is None else value for value in values]
    return np.array(values, dtype={"int": np.int64, "float": np.float64, "bool": np.bool_}[kind])


def _objects(values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def repeated(value: Any, count: int) -> Any:
    """Return a column that has one value throughout."""
    return [value] * count if value is None or isinstance(value, str) else np.full(count, value)


def joined(parts: Sequence[Row]) -> Row:
    """Return columns one after another: arrays, or lists of texts."""
    return {
        name: np.concatenate([part[name] for part in parts])
        if isinstance(first, np.ndarray)
        else list(chain.from_iterable(part[name] for part in parts))
        for name, first in parts[0].items()
    }
