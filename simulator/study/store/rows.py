"""Rows of plain values, one per run, as typed columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np

from simulator.errors import ConfigError

CHUNK = 8192
"""Rows in memory at once while tables are written."""
_LIMIT = 2**63

Row = dict[str, Any]


def plain_row(key: int, row: Mapping[str, Any]) -> Row:
    """Return the row of run `key` with Python's own values, and with a column ``error``.

    >>> plain_row(3, {"latency": np.float64(1.5)})
    {'latency': 1.5, 'error': None}
    """
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in row.items()}
    for name, value in plain.items():
        if value is not None and not isinstance(value, (str, int, float)):
            raise ConfigError(f"run {key}: {name} must be a number, a text, a truth value or None; got {value!r:.80}")
    plain.setdefault("error", None)
    return plain


def typed_chunks(rows: Callable[[], Iterable[Row]], order: Sequence[str] = ()) -> Iterator[dict[str, np.ndarray]]:
    """Yield rows as columns, at most `CHUNK` rows at a time, those in `order` first.

    `rows` returns the rows. It is called twice: what type a column has, only all of its values say.

    >>> list(typed_chunks(lambda: [{"c": 1, "latency": 2}, {"c": 2, "latency": None}], order=["latency"]))
    [{'latency': array([ 2., nan]), 'c': array([1, 2])}]
    """
    kinds = column_kinds(rows())
    names = [*(name for name in order if name in kinds), *(name for name in kinds if name not in order)]
    rest = iter(rows())
    while chunk := list(islice(rest, CHUNK)):
        yield {name: column_of(chunk, name, kinds[name]) for name in names}


def query_chunks(runs: Iterable[tuple[int, Row, Row]], tags: Sequence[str]) -> Iterator[Row]:
    """Yield the columns of all queries, some runs at a time; `ConfigError` where they differ between runs.

    `runs` are the number of each run, its row, and the columns of its queries; `tags` are columns of its row that each
    query gets too.
    """
    waiting: list[Row] = []
    count = 0
    layout: dict[str, Any] = {}
    for key, row, queries in runs:
        length = len(next(iter(queries.values()), ()))
        columns = {"run": key, **{tag: row.get(tag) for tag in tags}}
        columns = {**{name: repeated(value, length) for name, value in columns.items()}, **queries}
        kinds = {name: getattr(column, "dtype", str) for name, column in columns.items()}
        layout = layout or kinds
        if kinds != layout:
            raise ConfigError(f"run {key}: its queries have columns {list(kinds)}, not {list(layout)} as before")
        waiting.append(columns)
        count += length
        if count >= CHUNK:
            yield joined(waiting)
            waiting, count = [], 0
    yield joined(waiting) if waiting else {"run": np.zeros(0, dtype=np.int64)}


def column_kinds(rows: Iterable[Row]) -> dict[str, str]:
    """Return, for each column, the simplest kind that holds all its values: ``bool``, ``int``, ``float`` or ``text``.

    A value that a row lacks is None. Whole numbers beyond 64 bits are texts.

    >>> column_kinds([{"c": 1, "gpu": "a", "latency": 2}, {"c": 2, "gpu": "b", "latency": None}])
    {'c': 'int', 'gpu': 'text', 'latency': 'float'}
    """
    seen: dict[str, set[type]] = {}
    having: Counter[str] = Counter()
    count = 0
    for row in rows:
        count += 1
        having.update(row.keys())
        for name, value in row.items():
            kind = type(value)
            seen.setdefault(name, set()).add(str if kind is int and not -_LIMIT <= value < _LIMIT else kind)
    return {name: _kind(kinds | ({type(None)} if having[name] < count else set())) for name, kinds in seen.items()}


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
        return np.array([value if value is None else str(value) for value in values], dtype=object)
    if kind == "float":
        values = [np.nan if value is None else value for value in values]
    return np.array(values, dtype={"int": np.int64, "float": np.float64, "bool": np.bool_}[kind])


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
