"""Timelines and metrics as files. Every file is written whole or not at all."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from simulator.support.files import atomic
from simulator.support.tables import Columns, column_file, inert
from simulator.timeline.columns import COLUMNS, Timeline

SPAN_FIELDS = ("trace", "query", "thread", "task", "kind", "start", "finish", "tokens", "cancelled")
"""The fields of `span_rows`."""


def write_csv(timeline: Timeline, path: str | os.PathLike[str], *, formulas: bool = False) -> None:
    """Write one row per task: `COLUMNS`, with the trace's id and the thread's name in front.

    An id that a spreadsheet takes for a formula gets an apostrophe, unless `formulas` may stay.
    """
    said = str if formulas else inert
    with atomic(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("trace", "thread_id", *COLUMNS))
        for row in timeline.stays():
            graph = timeline.graphs[row.query]
            writer.writerow((said(graph.name), graph.threads[row.thread].id, *row))


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


def span_rows(timeline: Timeline, query: int | None = None, *, formulas: bool = False) -> list[tuple[Any, ...]]:
    """Return the spans as rows of `SPAN_FIELDS`, for people and spreadsheets; see `write_csv` for `formulas`."""
    said = str if formulas else inert
    return [
        (
            said(timeline.graphs[span.query].name),
            span.query,
            timeline.graphs[span.query].threads[span.thread].id,
            span.task,
            span.kind.value,
            span.start,
            span.finish,
            span.tokens,
            int(span.cancelled),
        )
        for span in timeline.spans(query)
    ]


def write_spans(timeline: Timeline, path: str | os.PathLike[str], *, formulas: bool = False) -> None:
    """Write one row per span: who did, or waited for, what and when; see `write_csv` for `formulas`."""
    with atomic(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(SPAN_FIELDS)
        writer.writerows(span_rows(timeline, formulas=formulas))


@contextmanager
def score_file(path: str | os.PathLike[str], *, formulas: bool = False) -> Iterator[Callable[[Columns], None]]:
    """Open a file of scores, JSON lines, CSV or Parquet by its ending, and give a function that adds rows to it.

    It is `simulator.support.tables.column_file`, which says what it takes, what it writes and what it raises.

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
    with column_file(path, formulas=formulas) as add:
        yield add
