"""Columns as files, and back: JSON lines, CSV and Parquet by the ending of the name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any

import msgspec
import numpy as np

from simulator.errors import ConfigError
from simulator.support.files import atomic

__all__ = ["Columns", "can_write_parquet", "column_file", "objects", "read_columns", "typed"]

Columns = Mapping[str, Sequence[Any] | np.ndarray]
"""Values by the name of their column: arrays of numbers, or texts. All are equally long."""

_NUMBER = re.compile(r"-?(?:\d+(?P<point>\.\d*)?(?P<power>e[+-]?\d+)?|inf|nan)", re.IGNORECASE | re.ASCII)
_SPECIAL = re.compile(r'[",\r\n]|^(?:true|false)$|^\s|\s$')
_FIELD = re.compile(r'(?:"([^"]*(?:""[^"]*)*)"|([^",\r\n]*))(,|\r?\n|\Z)')


@contextmanager
def column_file(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[Callable[[Columns], None]]:
    """Open a file of columns, JSON lines, CSV or Parquet by its ending, and give a function that adds rows to it.

    The function takes columns of equal length, the same ones each time: numbers, truth values, or texts, where None
    means that there is none. Memory holds what one call adds. The file appears when the block ends well; what was there
    before stays otherwise.

    The same calls give the same bytes. Numbers are written exactly: `read_columns` gives equal floats. A number that
    does not exist is NaN in Parquet, empty in CSV, and null in JSON, which has no word for infinity either. A text that
    looks like something else is quoted in CSV. Half a character (a lone surrogate), which UTF-8 cannot say, is escaped.

    Parameters
    ----------
    path : str or os.PathLike
        Ends in ``.jsonl``, ``.ndjson``, ``.csv`` or ``.parquet``.
    durable : bool, optional
        Whether it is on the disk when the block ends, whatever becomes of the machine.

    Raises
    ------
    ConfigError
        If the name ends otherwise, pyarrow is not installed, the columns differ from those before, or the file cannot
        be written.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("scores.jsonl", "scores.csv"):
    ...         with column_file(f"{folder}/{name}") as add:
    ...             add({"trace": ["a, b", "2"], "total": np.array([1.5, np.nan]), "tokens": np.array([3, 4])})
    ...         print(Path(f"{folder}/{name}").read_text(), end="")
    {"trace":"a, b","total":1.5,"tokens":3}
    {"trace":"2","total":null,"tokens":4}
    trace,total,tokens
    "a, b",1.5,3
    "2",,4
    """
    name = os.fspath(path)
    if name.endswith((".jsonl", ".ndjson")):
        with atomic(name, "wb", durable=durable) as file:
            yield _Layout(name, _Lines(file))
    elif name.endswith(".csv"):
        with atomic(name, "wb", durable=durable) as file:
            yield _Layout(name, _Csv(file))
    elif name.endswith(".parquet"):
        arrow, parquet = _pyarrow()
        with atomic(name, "wb", durable=durable) as file, _Parquet(file, arrow, parquet) as add:
            yield _Layout(name, add)
    else:
        raise ConfigError(f"columns are written to .jsonl, .ndjson, .csv or .parquet files, not {name!r}")


class _Layout:
    """Adds columns that are like the first ones: their names, their types, all equally long."""

    def __init__(self, path: str, add: Callable[[dict[str, Any]], None]) -> None:
        self.path = path
        self.add = add
        self.kinds: dict[str, str] = {}

    def __call__(self, columns: Columns) -> None:
        values = {name: typed(column) for name, column in columns.items()}
        kinds = {name: column.dtype.kind if _numeric(column) else "text" for name, column in values.items()}
        self.kinds = self.kinds or kinds
        if list(kinds.items()) != list(self.kinds.items()):
            new, old = (", ".join(f"{name} ({kind})" for name, kind in each.items()) for each in (kinds, self.kinds))
            raise ConfigError(f"{self.path!r}: its columns are {old}, not {new}")
        if len({len(column) for column in values.values()}) > 1:
            lengths = ", ".join(f"{name} {len(column)}" for name, column in values.items())
            raise ConfigError(f"{self.path!r}: columns must be equally long, not {lengths}")
        self.add(values)


def _numeric(column: Any) -> bool:
    return isinstance(column, np.ndarray)


def typed(column: Any) -> Any:
    """Return an array of numbers, or a list of None and texts that UTF-8 can say."""
    if isinstance(column, np.ndarray) and column.dtype.kind in "biuf":
        return column
    values = column.tolist() if isinstance(column, np.ndarray) else list(column)
    if values and all(isinstance(value, (int, float, np.number, np.bool_)) for value in values):
        array = np.array(values)
        return array if array.dtype.kind in "biuf" else [str(value) for value in values]
    return [None if text is None else str(text).encode(errors="backslashreplace").decode() for text in values]


class _Lines:
    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.encode = msgspec.json.Encoder().encode

    def __call__(self, columns: dict[str, Any]) -> None:
        for row in zip(*(column.tolist() if _numeric(column) else column for column in columns.values()), strict=True):
            self.file.write(self.encode(dict(zip(columns, row, strict=True))) + b"\n")


class _Csv:
    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.begun = False

    def __call__(self, columns: dict[str, Any]) -> None:
        if not self.begun:
            self.begun = True
            self._write([_quoted(name) for name in columns])
        for row in zip(*(_fields(column) for column in columns.values()), strict=True):
            self._write(row)

    def _write(self, row: Sequence[str]) -> None:
        self.file.write(",".join(row).encode() + b"\n")


def _fields(column: Any) -> list[str]:
    """Return the fields of one column of a CSV file."""
    if not _numeric(column):
        return ["" if text is None else _quoted(text) for text in column]
    if column.dtype.kind == "f":
        return ["" if value != value else repr(value) for value in column.astype(np.float64).tolist()]
    if column.dtype.kind == "b":
        return ["true" if value else "false" for value in column.tolist()]
    return [str(value) for value in column.tolist()]


def _quoted(text: str) -> str:
    """Return a text as a CSV field, quoted where a reader could take it for something else."""
    if text and not _SPECIAL.search(text) and not _NUMBER.fullmatch(text):
        return text
    return '"' + text.replace('"', '""') + '"'


class _Parquet:
    """A Parquet file that takes its columns from the first rows."""

    def __init__(self, file: IO[bytes], arrow: Any, parquet: Any) -> None:
        self.file = file
        self.arrow = arrow
        self.parquet = parquet
        self.writer: Any = None

    def __enter__(self) -> _Parquet:
        return self

    def __exit__(self, *error: object) -> None:
        if self.writer is None and error[0] is None:
            self({"trace": []})
        if self.writer is not None:
            self.writer.close()

    def __call__(self, columns: dict[str, Any]) -> None:
        arrow = self.arrow
        table = arrow.table(
            {
                name: arrow.array(column) if _numeric(column) else arrow.array(column, arrow.string())
                for name, column in columns.items()
            }
        )
        if self.writer is None:
            self.writer = self.parquet.ParquetWriter(self.file, table.schema)
        self.writer.write_table(table)


def can_write_parquet() -> bool:
    """Return whether pyarrow is there and can be loaded: a new one wants a new numpy.

    >>> can_write_parquet() in (True, False)
    True
    """
    try:
        _pyarrow()
    except ConfigError:
        return False
    return True


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ConfigError("Parquet files need: pip install 'forksim[parquet]'") from None
    return pyarrow, parquet


def read_columns(path: str | os.PathLike[str], *, texts: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Read the columns of a CSV or Parquet file, as `column_file` writes them.

    Columns are int64, float64 (NaN where there is no number), bool, or texts (objects, None where there is none).

    Parameters
    ----------
    path : str or os.PathLike
        Ends in ``.csv`` or ``.parquet``.
    texts : collection of str, optional
        Columns that are texts even if all fields of them are empty, which a CSV file cannot say.

    Raises
    ------
    ConfigError
        If the name ends otherwise, pyarrow is not installed, or the file cannot be read as what it says it is.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with column_file(f"{folder}/a.csv") as add:
    ...         add({"trace": ["a, b", "2"], "total": np.array([1.5, np.nan]), "tokens": np.array([3, 4])})
    ...     {name: column.tolist() for name, column in read_columns(f"{folder}/a.csv").items()}
    {'trace': ['a, b', '2'], 'total': [1.5, nan], 'tokens': [3, 4]}
    """
    name = os.fspath(path)
    try:
        if name.endswith(".csv"):
            with open(name, encoding="utf-8-sig", newline="") as file:
                return _from_csv(file.read(), texts)
        if name.endswith(".parquet"):
            _, parquet = _pyarrow()
            with open(name, "rb") as file:
                table = parquet.read_table(file)
            return {each: _from_arrow(table.column(each)) for each in table.column_names}
    except (OSError, ValueError) as error:  # arrow's errors and wrong UTF-8 are ValueErrors
        if isinstance(error, ConfigError):
            raise
        why = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise ConfigError(f"{name!r}: cannot be read ({why})") from None
    raise ConfigError(f"columns are read from .csv or .parquet files, not {name!r}")


def _from_arrow(column: Any) -> np.ndarray:
    kind = str(column.type)
    if kind in ("string", "large_string"):
        return objects(column.to_pylist())
    array: np.ndarray = column.to_numpy()
    return array


def objects(values: Sequence[Any]) -> np.ndarray:
    """Return values as a column of objects."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _from_csv(text: str, texts: Collection[str]) -> dict[str, np.ndarray]:
    rows: list[list[tuple[str, bool]]] = [[]]  # fields, each with whether it was quoted
    position = 0
    while position < len(text):
        match = _FIELD.match(text, position)
        if match is None:
            raise ValueError(f"row {len(rows)} is no CSV")
        quoted, plain, end = match.groups()
        rows[-1].append((plain, False) if quoted is None else (quoted.replace('""', '"'), True))
        position = match.end()
        if end == ",":
            if position == len(text):
                rows[-1].append(("", False))
        else:
            rows.append([])
    rows.pop()
    if not rows:
        raise ValueError("there is no row of titles")
    titles = [title for title, _ in rows[0]]
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(titles):
            raise ValueError(f"row {number} has {len(row)} fields, not {len(titles)}")
    return {title: _column([row[i] for row in rows[1:]], title in texts) for i, title in enumerate(titles)}


def _column(fields: list[tuple[str, bool]], texts: bool) -> np.ndarray:
    """Return the fields of one column in the simplest type that holds them all."""
    plain = {field for field, quoted in fields if field and not quoted}
    numbers = [_NUMBER.fullmatch(field) for field in plain]
    empty = any(not field for field, _ in fields)
    if texts or any(quoted for _, quoted in fields) or not (all(numbers) or plain <= {"true", "false"}):
        return objects([field if field or quoted else None for field, quoted in fields])
    if plain and not empty:
        if plain <= {"true", "false"}:
            return np.array([field == "true" for field, _ in fields])
        if not any(number["point"] or number["power"] or number[0][-1].isalpha() for number in numbers if number):
            values = [int(field) for field, _ in fields]
            if all(-(2**63) <= value < 2**63 for value in values):
                return np.array(values, dtype=np.int64)
            return np.array(values, dtype=np.uint64 if min(values) >= 0 and max(values) < 2**64 else np.float64)
    return np.array([float(field) if field else np.nan for field, _ in fields], dtype=np.float64)
