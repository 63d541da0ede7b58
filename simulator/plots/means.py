"""What the pictures of a study read off its table: means and intervals of its points, and lines of points."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.errors import ConfigError
from simulator.plots.chart import printable
from simulator.study.measures import read_column
from simulator.support.checks import choose

if TYPE_CHECKING:
    from simulator.study.table import Table

MOST_LINES = 16
"""More lines than this cannot be told apart."""
_LABEL = 24  # characters of a value, or of an axis beside it


class Mean(NamedTuple):
    """A metric of each point: the mean over replications, and its interval (NaN where there is none)."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def reach(*means: Mean) -> NDArray[np.float64]:
    """Return the numbers for which an axis must have room. Where no mean is below zero, no interval is drawn there.

    >>> reach(Mean(np.array([1.0, 4.0]), np.array([-2.0, 3.0]), np.array([4.0, 5.0]))).tolist()
    [1.0, 4.0, 0.0, 3.0, 4.0, 5.0]
    """
    values = np.concatenate([mean.value for mean in means])
    all_of_it = np.concatenate([np.concatenate(mean) for mean in means])
    positive = not np.any(values < 0)
    return np.maximum(all_of_it, 0.0) if positive else all_of_it


class Line(NamedTuple):
    """Points that belong together, in order of the axis along which they lie."""

    label: str
    """Empty if it is the only one."""
    points: NDArray[np.int64]


class Points:
    """The points of a table.

    Raises
    ------
    ConfigError
        If the table has no rows.
    """

    def __init__(self, table: Table) -> None:
        if not len(table):
            raise ConfigError("the table has no rows, so there is nothing to draw")
        self.table = table
        self.summary = table.summary()
        self.count = len(self.summary["n"])
        failed = np.array([error is not None for error in table["error"].tolist()])
        _, of = np.unique(table["point"], return_inverse=True)
        self.failures = np.bincount(of.ravel()[failed], minlength=self.count)
        """Failed runs of each point."""

    def axis(self, name: str) -> list[Any]:
        """Return the value of each point on the axis `name`."""
        if not self.table.axes:
            raise ConfigError(f"the study has no axes, so there is no {name!r} to draw over")
        values: list[Any] = self.summary[choose(name, self.table.axes, "axis of the study")].tolist()
        return values

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Return the same, of an axis of numbers. Its value ``"none"``, no limit, is infinite."""
        values = [np.inf if value in (None, "none") else value for value in self.axis(name)]
        other = [value for value in values if isinstance(value, (bool, str))]
        if other:
            raise ConfigError(f"the axis {name} must be of numbers to be drawn along, got {shown(other[0])}")
        return np.array(values, dtype=float)

    def metric(self, name: str) -> Mean:
        """Return the mean of each point and its interval."""
        choose(name, self.table.metrics, "metric of the table")
        return Mean(*(np.asarray(self.summary[name + end], dtype=float) for end in ("", "_low", "_high")))

    def title(self, metric: str) -> str:
        """Return what a metric is called in a sentence."""
        return read_column(metric).title_on(self.table.unit)

    def varied(self) -> list[str]:
        """Return the axes that have more than one value."""
        return [name for name in self.table.axes if len(set(self.axis(name))) > 1]

    def free(self, *used: str) -> list[str]:
        """Return the axes beside those in `used` that have more than one value."""
        return [name for name in self.varied() if name not in used]

    def covered(self, *used: str) -> None:
        """Raise `ConfigError` if an axis that has several values is not in `used`: its points would be mixed up."""
        left = self.free(*used)
        if left:
            raise ConfigError(
                f"the axis {left[0]} has several values here: draw along it or by it, or choose one with "
                f"table.where({{{left[0]!r}: {self.axis(left[0])[0]!r}}})"
            )

    def lines(self, x: str, by: str | Sequence[str] | None) -> list[Line]:
        """Return the points along the axis `x`, a line for each value of `by`: by default, of all other axes.

        Raises
        ------
        ConfigError
            If `x` or `by` is no axis, some axis is neither, or there are too many lines.
        """
        along = self.numbers(x)
        names = self.free(x) if by is None else [by] if isinstance(by, str) else list(by)
        if x in names:
            raise ConfigError(f"{x} cannot be both what is drawn along and what tells lines apart")
        values = list(zip(*(self.axis(name) for name in names), strict=True)) if names else [()] * self.count
        self.covered(x, *names)
        keys, called = list(dict.fromkeys(values)), short(names)
        if len(keys) > MOST_LINES:
            raise ConfigError(
                f"{' and '.join(names)} would give {len(keys)} lines; at most {MOST_LINES} can be told apart: "
                "choose some with table.where(...)"
            )
        found = []
        for key in keys:
            of = np.array([i for i, value in enumerate(values) if value == key])
            label = ", ".join(f"{name} = {shown(value)}" for name, value in zip(called, key, strict=True))
            found.append(Line(label if len(keys) > 1 else "", of[np.argsort(along[of], kind="stable")]))
        return found

    def names(self, axes: Sequence[str]) -> list[str]:
        """Return what each point is called: its values on `axes`."""
        columns = [self.axis(name) for name in axes]
        return [" / ".join(shown(column[i]) for column in columns) for i in range(self.count)]

    def facts(self, *metrics: str, intervals: bool = True) -> list[str]:
        """Return what has to be said of runs, and of intervals if they are drawn, and of points that cannot be."""
        runs = np.asarray(self.summary["n"], dtype=int)
        least, most = int(runs.min()), int(runs.max())
        per_point = f"{least}" if least == most else f"{least} to {most}"
        note = f", {100 * self.table.confidence:g} % Student-t intervals" if most > 1 else ", so no intervals"
        facts = [(f"means of {per_point} runs" if most > 1 else "one run each") + (note if intervals else "")]
        if self.failures.any():
            facts.append(f"{self.failures.sum():,} of {len(self.table):,} runs failed")
        missing = {name: ~np.isfinite(self.metric(name).value) for name in metrics}
        without = int(np.any(list(missing.values()), axis=0).sum()) if missing else 0
        if without:
            names = " or ".join(self.title(name) for name, none in missing.items() if none.any())
            facts.append(f"{without:,} of {self.count:,} points without {names}")
        return facts


def short(names: Sequence[str]) -> list[str]:
    """Return the last parts of dotted names, where they tell them apart.

    >>> short(["protocol.capacity", "arrivals.rate"]), short(["traces.a.weight", "traces.b.weight"])
    (['capacity', 'rate'], ['traces.a.weight', 'traces.b.weight'])
    """
    last = [name.rpartition(".")[2] for name in names]
    return [printable(name, _LABEL) for name in (last if len(set(last)) == len(last) else names)]


def shown(value: Any) -> str:
    """Return a value of an axis or a metric as people write it.

    >>> [shown(value) for value in (4, 0.25, 1234567.8, 3e12, True, None, "h100-qwen3-8b", 8.0)]
    ['4', '0.25', '1,234,568', '3e+12', 'true', 'none', 'h100-qwen3-8b', '8']
    """
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, (int, float)):
        return printable(str(value), _LABEL)
    size = abs(value)
    if size >= 1e10:
        return f"{value:.4g}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.4g}"


_AXES = {
    "protocol.capacity": "pool capacity c",
    "arrivals.rate": "arrival rate",
    "arrivals.users": "users",
    "arrivals.speed": "speed of the recorded arrivals",
    "cluster.gpu": "GPU",
    "cluster.replicas": "replicas",
    "cluster.max_num_seqs": "sequences in a batch at most",
    "cluster.max_workers": "workers of all queries at most",
    "cluster.num_kv_blocks": "KV blocks",
    "queries": "queries",
    "samples": "samples of each query",
}


def axis_name(name: str) -> str:
    """Return what people call an axis of a study.

    >>> axis_name("protocol.capacity"), axis_name("traces.math.options.workers")
    ('pool capacity c', 'traces.math.options.workers')
    """
    return _AXES.get(name, printable(name, 2 * _LABEL))


def label_of(metric: str, clock: str) -> str:
    """Return the label of an axis of that metric, with its unit, where time is counted in `clock`.

    >>> label_of("latency_p95", "steps"), label_of("throughput", "seconds"), label_of("work_mean", "seconds")
    ('p95 latency, decode steps', 'throughput, queries per second', 'mean tokens')
    """
    column = read_column(metric)
    unit = column.metric.unit_on(clock)
    said = "" if unit == column.metric.title_on(clock) else re.sub(r"\bsteps?\b", r"decode \g<0>", unit)
    return ", ".join(filter(None, (column.title_on(clock), said)))


def higher_is_better(metric: str) -> bool | None:
    """Return whether more of a metric is better; None if it is neither better nor worse.

    >>> higher_is_better("throughput"), higher_is_better("latency_p95"), higher_is_better("bound_worker_mean")
    (True, False, None)
    """
    better = read_column(metric).metric.better
    return None if better is None else better == "higher"
