"""Tables of a study for people: one line per point, mean and half width of each metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from simulator.cli.report import number, printable
from simulator.study import Summary


class Shown(NamedTuple):
    """A table, and what is said above and below it."""

    title: str
    table: Table
    note: str


def study_table(summary: Summary, name: str, metrics: Sequence[str] | None, width: int) -> Shown:
    """Return one line per point: its axis values, and mean and half width of the interval of each metric."""
    percent = f"{100 * summary.confidence:g} %"
    title = f"{name or 'study'}: mean over n replications ± half the {percent} interval; times in {summary.unit}"
    return Shown(title, *_table(summary, metrics, width, ratios=False))


def comparison_table(
    compared: Summary, baseline: Mapping[str, Any], metrics: Sequence[str] | None, width: int
) -> Shown:
    """Return one line per point: how each metric differs from the baseline's, and their ratio."""
    said = ", ".join(f"{key} = {value}" for key, value in baseline.items())
    title = f"difference to {said}, replication by replication, ± half the interval; and the ratio of the means"
    return Shown(title, *_table(compared, metrics, width, ratios=True))


def _table(summary: Summary, metrics: Sequence[str] | None, width: int, *, ratios: bool) -> tuple[Table, str]:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    columns = {_short(name, summary.axes): [_value(value) for value in summary[name].tolist()] for name in summary.axes}
    columns["n"] = [str(n) for n in summary["n"].tolist()]
    for name, cells in columns.items():
        texts = name in map(_last, summary.axes) and not all(cell[:1].isdigit() for cell in cells)
        table.add_column(name, justify="left" if texts else "right", no_wrap=True)
    room = width - sum(_wide(name, cells) for name, cells in columns.items())
    rows = list(summary.rows())
    chosen: dict[str, list[str]] = {}
    worth = [name for name in summary.metrics if name != "unanswered" or summary[name].any()]
    for name in metrics or _by_importance(worth):
        cells = [_cell(row, name, ratios) for row in rows]
        room -= _wide(name, cells)
        if room < 0 and chosen and not metrics:
            break
        chosen[name] = cells
    for name in [name for name in summary.metrics if name in chosen]:
        table.add_column(name, justify="right", no_wrap=True)
        columns[name] = chosen[name]
    for line in zip(*columns.values(), strict=True):
        table.add_row(*line)
    left = len(worth) - len(chosen)
    note = f"and {left} more column{'s' * (left > 1)}: --metric NAME, --json, or the files"
    return table, note if left and not metrics else ""


def _short(name: str, axes: Sequence[str]) -> str:
    """Return the last part of a dotted name, where that says enough."""
    alone = [_last(axis) for axis in axes].count(_last(name)) == 1
    return printable(_last(name) if alone else name, 40)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _wide(name: str, cells: Sequence[str]) -> int:
    return max(len(name), *map(len, cells)) + 3 if cells else len(name) + 3


def _by_importance(metrics: Sequence[str]) -> list[str]:
    """Return the metrics, those first that are shown where not all fit: a mean, a tail, single numbers, the rest."""
    single = [name for name in metrics if not _percentile(name)]
    tails = [name for name in metrics if name.endswith("_p95")] or [name for name in metrics if _percentile(name)][-1:]
    first = [*single[:1], *tails[:1], *single[1:]]
    return [*first, *(name for name in metrics if name not in first)]


def _percentile(name: str) -> bool:
    return name.rpartition("_p")[2].replace(".", "", 1).isdecimal()


def _cell(row: Mapping[str, Any], name: str, ratios: bool) -> str:
    mean, half = row[name], (row[f"{name}_high"] - row[f"{name}_low"]) / 2
    exact = math.isnan(half) or half <= 1e-9 * abs(mean)
    text = _number(mean) if exact else f"{_number(mean)} ± {_number(half)}"
    ratio = row.get(f"{name}_ratio", math.nan) if ratios else math.nan
    return text if math.isnan(ratio) else f"{text} ({ratio:.3f}x)"


def _number(value: float) -> str:
    """Return three or four digits, also of small numbers."""
    if abs(value) < 1e-12:  # what is left of a difference of equal numbers
        return "0"
    return f"{value:.3g}" if abs(value) < 0.1 else number(value)


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else printable(str(value), 40)
