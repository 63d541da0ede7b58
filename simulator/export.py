"""Timelines and metrics as files. Every file is written whole or not at all."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np

from simulator.errors import ConfigError
from simulator.files import atomic
from simulator.timeline import Timeline

__all__ = ["SPAN_FIELDS", "score_file", "span_rows", "write_csv", "write_npz", "write_spans"]

SPAN_FIELDS = ("trace", "query", "thread", "task", "kind", "start", "finish", "tokens", "cancelled")


def write_csv(timeline: Timeline, path: str | os.PathLike[str]) -> None:
    """Write one row a task: `COLUMNS`, with the trace's id and the thread's name in front."""
    columns = timeline.columns()
    with atomic(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("trace", "thread_id", *columns))
        for row in zip(*(values.tolist() for values in columns.values()), strict=True):
            graph = timeline.graphs[row[0]]
            writer.writerow((graph.name, graph.threads[row[1]], *row))


def write_npz(timeline: Timeline, path: str | os.PathLike[str]) -> None:
    """Write the columns as a compressed ``.npz``, with ``arrivals``, ``answered``, ``batch`` and the names of the
    traces.
    """
    extra: dict[str, Any] = {
        "arrivals": timeline.arrivals,
        "answered": timeline.answered,
        "batch": timeline.batch,
        "traces": np.array([graph.name for graph in timeline.graphs]),
    }
    content = io.BytesIO()  # on a full disk, older numpy would leave an open archive behind
    np.savez_compressed(content, **{**timeline.columns(), **extra})
    with atomic(path, "wb") as file:
        file.write(content.getbuffer())


def span_rows(timeline: Timeline, query: int | None = None) -> list[tuple[Any, ...]]:
    """Return the spans as rows of `SPAN_FIELDS`, for people and spreadsheets."""
    return [
        (
            timeline.graphs[span.query].name,
            span.query,
            timeline.graphs[span.query].threads[span.thread],
            span.task,
            span.kind.value,
            span.start,
            span.finish,
            span.tokens,
            int(span.cancelled),
        )
        for span in timeline.spans(query)
    ]


def write_spans(timeline: Timeline, path: str | os.PathLike[str]) -> None:
    """Write one row a span: who did, or waited for, what and when."""
    with atomic(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(SPAN_FIELDS)
        writer.writerows(span_rows(timeline))


Columns = Mapping[str, Sequence[Any]]


@contextmanager
def score_file(path: str | os.PathLike[str]) -> Iterator[Callable[[Columns], None]]:
    """Open a file of scores, JSON lines or Parquet by its ending, and give a function that adds rows to it.

    The function takes columns of equal length, the same ones each time. NaN is null in JSON. Memory holds what one call
    adds.

    Raises
    ------
    ConfigError
        If the name ends otherwise, pyarrow is not installed, or the file cannot be written.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with score_file(f"{folder}/scores.jsonl") as add:
    ...         add({"trace": ["a", "b"], "total": np.array([1.5, -1.0])})
    ...     print(Path(f"{folder}/scores.jsonl").read_text())
    {"trace":"a","total":1.5}
    {"trace":"b","total":-1.0}
    <BLANKLINE>
    """
    name = os.fspath(path)
    if name.endswith((".jsonl", ".ndjson")):
        with atomic(name, "wb") as file:
            yield lambda columns: _add_lines(file, columns)
    elif name.endswith(".parquet"):
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise ConfigError("Parquet files need: pip install 'forksim[parquet]'") from None
        with atomic(name, "wb") as file, _Parquet(file, pyarrow, parquet) as add:
            yield add
    else:
        raise ConfigError(f"scores are written to .jsonl, .ndjson or .parquet files, not {name!r}")


def _add_lines(file: Any, columns: Columns) -> None:
    lists = [
        column.tolist() if isinstance(column, np.ndarray) and column.dtype != object else _sayable(column)
        for column in columns.values()
    ]
    encode = msgspec.json.Encoder().encode
    for row in zip(*lists, strict=True):
        file.write(encode(dict(zip(columns, row, strict=True))) + b"\n")


def _sayable(texts: Sequence[Any]) -> list[Any]:
    """Return texts without the lone surrogates that UTF-8 cannot say."""
    return [text.encode(errors="backslashreplace").decode() if isinstance(text, str) else text for text in texts]


class _Parquet:
    """A Parquet file that takes its columns from the first rows."""

    def __init__(self, file: Any, pyarrow: Any, parquet: Any) -> None:
        self.file = file
        self.pyarrow = pyarrow
        self.parquet = parquet
        self.writer: Any = None

    def __enter__(self) -> _Parquet:
        return self

    def __exit__(self, *error: object) -> None:
        if self.writer is None and error[0] is None:
            self({"trace": []})
        if self.writer is not None:
            self.writer.close()

    def __call__(self, columns: Columns) -> None:
        arrow = self.pyarrow
        arrays = {}
        for name, column in columns.items():
            text = not isinstance(column, np.ndarray) or column.dtype == object
            arrays[name] = arrow.array(_sayable(list(column)), arrow.string()) if text else arrow.array(column)
        table = arrow.table(arrays)
        if self.writer is None:
            self.writer = self.parquet.ParquetWriter(self.file, table.schema)
        self.writer.write_table(table)
