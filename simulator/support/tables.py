"""Columns as files: JSON lines, CSV and Parquet by the ending of the name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import chain
from typing import IO, Any

import msgspec
import numpy as np

from simulator.errors import ConfigError
from simulator.support.files import atomic

Columns = Mapping[str, Sequence[Any] | np.ndarray]
"""Values by the name of their column: arrays of numbers, or texts. All are equally long."""
Adder = Callable[[dict[str, Any]], None]

_NUMBER = re.compile(r"-?(?:\d+(\.\d*)?(e[+-]?\d+)?|inf|nan)", re.IGNORECASE | re.ASCII)
_SPECIAL = re.compile(r'[",\r\n]|^(?:true|false)$|^\s|\s$')


_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def inert(text: str) -> str:
    """Return a text as a cell of a CSV file that no spreadsheet takes for a formula: with an apostrophe before it.

    What has apostrophes before such a beginning gets one more, so that nothing is lost.

    >>> inert("=1+1"), inert("'=1"), inert("a=1"), inert("'tis")
    ("'=1+1", "''=1", 'a=1', "'tis")
    """
    return "'" + text if _FORMULA.match(text) else text


@contextmanager
def column_file(
    path: str | os.PathLike[str], *, durable: bool = False, formulas: bool = False
) -> Iterator[Callable[[Columns], None]]:
    """Open a file of columns, JSON lines, CSV or Parquet by its ending, and give a function that adds rows to it.

    The function takes columns of equal length, the same ones each time: numbers, truth values, or texts, where None
    means that there is none. Memory holds what one call adds. The file appears when the block ends well; what was there
    before stays otherwise.

    The same calls give the same bytes. Numbers are written exactly: who reads them gets equal floats. A number that
    does not exist is NaN in Parquet, empty in CSV, and null in JSON, which has no word for infinity either. A text that
    looks like something else is quoted in CSV. Half a character (a lone surrogate), which UTF-8 cannot say, is escaped.

    Parameters
    ----------
    path : str or os.PathLike
        Ends in ``.jsonl``, ``.ndjson``, ``.csv`` or ``.parquet``.
    durable : bool, optional
        Whether it is on the disk when the block ends, whatever becomes of the machine.
    formulas : bool, optional
        Whether texts that a spreadsheet takes for formulas stay as they are in CSV. Default: they get an apostrophe.

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
    write = next((writer for ending, writer in _WRITERS.items() if name.endswith(ending)), None)
    if write is None:
        raise ConfigError(f"columns are written to .jsonl, .ndjson, .csv or .parquet files, not {name!r}")
    if write is _parquet:
        _pyarrow()  # before there is a file
    if write is _csv and formulas:
        write = partial(_csv, formulas=True)
    with atomic(name, "wb", durable=durable) as file, write(file) as add:
        yield _alike(name, add)


def _alike(path: str, add: Adder) -> Callable[[Columns], None]:
    """Return what adds columns that are like the first ones: their names, their types, all equally long."""
    first: dict[str, str] = {}

    def checked(columns: Columns) -> None:
        nonlocal first
        values = {name: typed(column) for name, column in columns.items()}
        kinds = {name: column.dtype.kind if _numeric(column) else "text" for name, column in values.items()}
        first = first or kinds
        if [*kinds.items()] != [*first.items()]:
            new, old = (", ".join(f"{name} ({kind})" for name, kind in each.items()) for each in (kinds, first))
            raise ConfigError(f"{path!r}: its columns are {old}, not {new}")
        if len({len(column) for column in values.values()}) > 1:
            lengths = ", ".join(f"{name} {len(column)}" for name, column in values.items())
            raise ConfigError(f"{path!r}: columns must be equally long, not {lengths}")
        add(values)

    return checked


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


@contextmanager
def _lines(file: IO[bytes]) -> Iterator[Adder]:
    encode = msgspec.json.Encoder().encode

    def add(columns: dict[str, Any]) -> None:
        for row in zip(*(column.tolist() if _numeric(column) else column for column in columns.values()), strict=True):
            file.write(encode(dict(zip(columns, row, strict=True))) + b"\n")

    yield add


@contextmanager
def _csv(file: IO[bytes], formulas: bool = False) -> Iterator[Adder]:
    begun = False
    said = str if formulas else inert

    def add(columns: dict[str, Any]) -> None:
        nonlocal begun
        titles = [] if begun else [[_quoted(said(name)) for name in columns]]
        begun = True
        for row in chain(titles, zip(*(_fields(column, said) for column in columns.values()), strict=True)):
            file.write(",".join(row).encode() + b"\n")

    yield add


def _fields(column: Any, said: Callable[[str], str]) -> list[str]:
    """Return the fields of one column of a CSV file."""
    if not _numeric(column):
        return ["" if text is None else _quoted(said(text)) for text in column]
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


@contextmanager
def _parquet(file: IO[bytes]) -> Iterator[Adder]:
    arrow, parquet = _pyarrow()
    writer: Any = None

    def add(columns: dict[str, Any]) -> None:
        nonlocal writer
        arrays = [
            arrow.array(each) if _numeric(each) else arrow.array(each, arrow.string()) for each in columns.values()
        ]
        table = arrow.table(arrays, names=[*columns])
        writer = writer or parquet.ParquetWriter(file, table.schema)
        writer.write_table(table)

    try:
        yield add
        if writer is None:  # a file without columns is none
            add({"trace": []})
    finally:
        if writer is not None:
            writer.close()


_WRITERS: dict[str, Callable[[IO[bytes]], AbstractContextManager[Adder]]] = {
    ".jsonl": _lines,
    ".ndjson": _lines,
    ".csv": _csv,
    ".parquet": _parquet,
}


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
