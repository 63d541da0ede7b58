"""Tables for people: rich tables of metrics, rewards and summaries."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from simulator.metrics import Metrics
from simulator.reward import Reward

__all__ = ["Tally", "count", "metrics_table", "number", "rewards_table", "summary_table"]

BOUNDS = ("decode", "worker", "prefill", "delay", "wait_batch", "wait_pool")
_BOUND_NAMES = {"decode": "organizer", "worker": "workers", "wait_batch": "batch", "wait_pool": "pool slot"}


def number(value: float) -> str:
    """Return `value` to three or four digits, a dash where it does not exist.

    >>> number(0.64721), number(1), number(152.34), number(12345.678), number(float("nan"))
    ('0.647', '1.000', '152.3', '12,346', '-')
    """
    if math.isnan(value):
        return "-"
    size = abs(value)
    return (
        f"{value:,.0f}"
        if size >= 1000
        else f"{value:.1f}"
        if size >= 100
        else f"{value:.2f}"
        if size >= 10
        else f"{value:.3f}"
    )


def count(value: float) -> str:
    """Return a whole number with thousands separated, and anything else as `number` does.

    >>> count(1468.0), count(2.5)
    ('1,468', '2.500')
    """
    return f"{int(value):,}" if math.isfinite(value) and value == int(value) else number(value)


class Column(NamedTuple):
    """One column of the table of metrics."""

    title: str
    cell: Callable[[Metrics], str]


def bound_by(metrics: Metrics) -> str:
    """Return what most of the latency was spent on, and its share."""
    shares = {name: metrics[f"bound_{name}"] for name in BOUNDS}
    if any(math.isnan(share) for share in shares.values()) or not any(shares.values()):
        return "-"
    name = max(shares, key=lambda key: shares[key])
    return f"{_BOUND_NAMES.get(name, name)} {shares[name]:.0%}"


def faults(metrics: Metrics) -> str:
    """Return the kinds of violations, and how many of each."""
    kinds = Counter(violation.kind.value for violation in metrics.violations)
    return ", ".join(kind if n == 1 else f"{kind} x{n}" for kind, n in kinds.items()) or "-"


def metrics_table(rows: Iterable[Metrics], unit: str, *, title: str | None = None) -> Table:
    """Return a table with one line a query.

    Parameters
    ----------
    rows : iterable of Metrics
    unit : str
        The timelines' unit, ``steps`` or ``seconds``.
    """
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    table.add_column("trace", overflow="fold", min_width=8)
    latency = "latency" if unit == "steps" else "latency s"
    columns = [
        Column("tokens", lambda m: count(m.work)),
        Column("T steps", lambda m: count(m.critical_path_steps)),
        Column(
            latency,
            lambda m: "deadlock" if math.isnan(m.latency) else (count if unit == "steps" else number)(m.latency),
        ),
        Column("speed-up", lambda m: number(m.speedup)),
        Column("eta", lambda m: number(m.eta)),
        Column("eta/c", lambda m: number(m.eta_over_c)),
        Column("peak", lambda m: count(m.peak_concurrency)),
    ]
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
    table.add_column("bound by", no_wrap=True)
    table.add_column("violations", overflow="fold")
    for metrics in rows:
        broken = faults(metrics)
        table.add_row(
            Text(metrics.name),
            *(column.cell(metrics) for column in columns),
            bound_by(metrics),
            Text(broken, style="red" if broken != "-" else "dim"),
        )
    return table


def rewards_table(rows: Iterable[tuple[str, Reward]]) -> Table:
    """Return a table with one line a reward."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("trace", overflow="fold", min_width=8)
    for title in ("reward", "accuracy", "concurrency", "format", "T steps", "eta", "eta/c"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("violations", overflow="fold")
    for name, reward in rows:
        kinds = Counter(violation.kind.value for violation in reward.violations)
        accuracy = "unknown" if reward.accuracy is None else number(reward.terms["accuracy"])
        table.add_row(
            Text(name),
            number(reward.total),
            accuracy,
            number(reward.terms["concurrency"]),
            number(reward.terms["format_error"]),
            count(reward.latency),
            number(reward.eta),
            number(reward.eta_over_c),
            Text(", ".join(f"{kind} x{n}" if n > 1 else kind for kind, n in kinds.items()) or "-"),
        )
    return table


class Tally:
    """Running totals over any number of traces, in 8 bytes a trace and number."""

    def __init__(self, names: Sequence[str]) -> None:
        self.values = {name: array("d") for name in names}
        self.kinds: Counter[str] = Counter()
        self.traces = 0
        self.with_violations = 0
        self.unreadable = 0

    def add(self, values: Callable[[str], float], kinds: Iterable[str]) -> None:
        """Count one trace."""
        self.traces += 1
        for name, column in self.values.items():
            column.append(values(name))
        before = self.kinds.total()
        self.kinds.update(kinds)
        self.with_violations += self.kinds.total() > before

    def summary(self) -> dict[str, float | int | dict[str, int] | dict[str, float]]:
        """Return counts, and mean and percentiles of each number, without those that do not exist."""
        result: dict[str, float | int | dict[str, int] | dict[str, float]] = {
            "traces": self.traces,
            "with_violations": self.with_violations,
            "unreadable": self.unreadable,
            "violations": dict(sorted(self.kinds.items())),
        }
        for name, column in self.values.items():
            known = np.frombuffer(column) if column else np.empty(0)
            known = known[~np.isnan(known)]
            if len(known):
                middle, high = np.percentile(known, [50, 95])
                result[name] = {"mean": float(known.mean()), "p50": float(middle), "p95": float(high)}
        return result


def summary_table(tally: Tally) -> Table:
    """Return the totals as a table: mean, median and 95th percentile of each number."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("over all traces")
    for title in ("mean", "median", "p95"):
        table.add_column(title, justify="right")
    for name, value in tally.summary().items():
        if isinstance(value, dict) and "mean" in value:
            table.add_row(name.replace("_", " "), *(number(value[key]) for key in ("mean", "p50", "p95")))
    return table
