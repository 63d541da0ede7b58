"""The inverse of `column_file`, for the tests of what is written: nothing in the package reads its own tables."""

import os
import re

import numpy as np
import pytest

from simulator.errors import ConfigError

_NUMBER = re.compile(r"-?(?:\d+(?P<point>\.\d*)?(?P<power>e[+-]?\d+)?|inf|nan)", re.IGNORECASE | re.ASCII)
_FIELD = re.compile(r'(?:"([^"]*(?:""[^"]*)*)"|([^",\r\n]*))(,|\r?\n|\Z)')


def read_columns(path, *, texts=()):
    """Read the columns of a CSV or Parquet file, as `column_file` writes them.

    They are int64, float64 (NaN where there is no number), bool, or texts (objects, None where there is none); `texts`
    are texts even if all fields of them are empty, which a CSV file cannot say.
    """
    name = os.fspath(path)
    try:
        if name.endswith(".csv"):
            with open(name, encoding="utf-8-sig", newline="") as file:
                return _from_csv(file.read(), texts)
        if name.endswith(".parquet"):
            parquet = pytest.importorskip("pyarrow.parquet", exc_type=ImportError)
            with open(name, "rb") as file:
                table = parquet.read_table(file)
            return {each: _from_arrow(table.column(each)) for each in table.column_names}
    except (OSError, ValueError) as error:  # arrow's errors and wrong UTF-8 are ValueErrors
        if isinstance(error, ConfigError):
            raise
        why = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise ConfigError(f"{name!r}: cannot be read ({why})") from None
    raise ConfigError(f"columns are read from .csv or .parquet files, not {name!r}")


def _from_arrow(column):
    kind = str(column.type)
    if kind in ("string", "large_string"):
        return _objects(column.to_pylist())
    return column.to_numpy()


def _objects(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _from_csv(text, texts):
    rows = [[]]  # fields, each with whether it was quoted
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
    titles = [_text(title) for title, _ in rows[0]]
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(titles):
            raise ValueError(f"row {number} has {len(row)} fields, not {len(titles)}")
    return {title: _column([row[i] for row in rows[1:]], title in texts) for i, title in enumerate(titles)}


def _text(field):
    """Return a text without the apostrophe that keeps it from being a formula."""
    return field[1:] if re.match(r"'+[=+\-@\t\r]", field) else field


def _column(fields, texts):
    """Return the fields of one column in the simplest type that holds them all."""
    plain = {field for field, quoted in fields if field and not quoted}
    numbers = [_NUMBER.fullmatch(field) for field in plain]
    empty = any(not field for field, _ in fields)
    if texts or any(quoted for _, quoted in fields) or not (all(numbers) or plain <= {"true", "false"}):
        return _objects([_text(field) if field or quoted else None for field, quoted in fields])
    if plain and not empty:
        if plain <= {"true", "false"}:
            return np.array([field == "true" for field, _ in fields])
        if not any(number["point"] or number["power"] or number[0][-1].isalpha() for number in numbers if number):
            values = [int(field) for field, _ in fields]
            if all(-(2**63) <= value < 2**63 for value in values):
                return np.array(values, dtype=np.int64)
            return np.array(values, dtype=np.uint64 if min(values) >= 0 and max(values) < 2**64 else np.float64)
    return np.array([float(field) if field else np.nan for field, _ in fields], dtype=np.float64)
