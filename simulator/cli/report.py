"""Tables for people: rich tables of metrics, rewards and summaries."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from simulator.metrics import BOUNDS, METRICS, SUMMARIES, Metrics
from simulator.rewards import FORMAT_ERROR, Score
from simulator.study.measures import RUN_METRICS
from simulator.trace import Violation

REWARD_LEGEND = """\
The reward is accuracy + concurrency, or R_FE where there is a format error; concurrency is lambda * min(eta/c, tau)
/ tau. T is the number of decode steps until the answer, and eta the mean number of agents that are active during
them."""
"""What the columns of `rewards_table` mean."""


def number(value: float) -> str:
    """Return `value` to three or four digits, a dash where it does not exist.

    >>> number(0.64721), number(1), number(99.999), number(12345.678), number(float("nan"))
    ('0.647', '1.000', '100.0', '12,346', '-')
    """
    if math.isnan(value):
        return "-"
    size = float(f"{abs(value):.4g}")  # as it will be shown: 99.999 has four digits as 100.0
    digits = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3
    return f"{value:,.{digits}f}"


def count(value: float) -> str:
    """Return a whole number with thousands separated, and anything else as `number` does.

    >>> count(1468.0), count(2.5)
    ('1,468', '2.500')
    """
    return f"{int(value):,}" if math.isfinite(value) and value == int(value) else number(value)


def printable(text: str, limit: int = 120) -> str:
    r"""Return `text` as one line that does nothing to a terminal: escaped, and cut after `limit` characters.

    >>> print(printable("red \x1b[31m\n"))
    red \x1b[31m\n
    """
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def bound_by(metrics: Metrics) -> str:
    """Return what most of the latency was spent on, and its share."""
    shares = {name: metrics[name] for name in (f"bound_{bound}" for bound in BOUNDS)}
    if any(math.isnan(share) for share in shares.values()) or not any(shares.values()):
        return "-"
    name = max(shares, key=lambda key: shares[key])
    return f"{METRICS[name].heading} {shares[name]:.0%}"


def faults(violations: Iterable[Violation]) -> Text:
    """Return the kinds of violations, and how many of each."""
    kinds = Counter(violation.kind.value for violation in violations)
    text = ", ".join(kind if n == 1 else f"{kind} x{n:,}" for kind, n in kinds.items())
    return Text(text or "-", style="red" if text else "dim")


def _table(titles: Iterable[str], *, title: str | None = None, narrow: bool = False) -> Table:
    """Return an empty table with columns of numbers between the trace and its violations."""
    table = Table(
        title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, int(not narrow), 0, 1)
    )
    table.add_column("trace", overflow="fold", min_width=8 if narrow else None)
    for each in titles:
        table.add_column(each, justify="left" if each == "bound by" else "right", no_wrap=True)
    table.add_column("violations", overflow="fold", min_width=10 if narrow else None)
    return table


_COLUMNS = ("work", "critical_path_steps", "latency", "speedup", "eta", "eta_over_c", "peak_concurrency")
_TIMED = ("critical_path_steps", "latency", "ttft", "tpot", "speedup", "eta", "eta_over_c")
"""Columns on the decode-step clock, and where there are seconds."""
_NEEDED = ("critical_path_steps", "latency", "speedup", "eta")
"""Those of them for which a narrow screen has room."""


def metrics_table(rows: Iterable[Metrics], unit: str, *, title: str | None = None, narrow: bool = False) -> Table:
    """Return a table with one line per query.

    Parameters
    ----------
    rows : iterable of Metrics
    unit : str
        The timelines' unit, ``steps`` or ``seconds``.
    title : str, optional
    narrow : bool
        Leave out what a screen of 80 columns has no room for.
    """
    names = _NEEDED if narrow else _TIMED if unit == "seconds" else _COLUMNS
    table = _table((*(METRICS[name].heading_on(unit) for name in names), "bound by"), title=title, narrow=narrow)
    for metrics in rows:
        cells = {
            name: _cell(METRICS[name].shown_on(unit, metrics[name]), METRICS[name].unit_on(unit)) for name in names
        }
        if math.isnan(metrics.latency):
            cells["latency"] = "deadlock"
        name, violations = Text(printable(metrics.name)), faults(metrics.violations)
        table.add_row(name, *cells.values(), bound_by(metrics), violations)
    return table


def metrics_legend(unit: str, *, narrow: bool, summed: bool) -> str:
    """Return what the columns of `metrics_table` mean, and, if `summed`, the lines of `summary_table`."""
    timed = unit == "seconds"
    means = [
        '"bound by" names what most of the latency was spent on',
        "the speed-up is over one agent that does it all",
    ]
    if timed and (summed or not narrow):
        means.append("TTFT is the time to the first token of the organizer")
        means.append("TPOT is the mean time between its tokens, waits included")
    if timed and summed:
        means.append("ITL is the mean time between tokens of any thread while it decodes")
        means.append("the queue time is how long the organizer's first request waits for a place in the batch")
    if summed:
        means.append('"saved" is the share of that one agent\'s decode steps that need not be waited for')
    if not narrow:
        means.append("c is the pool capacity")
    if not timed and (summed or not narrow):
        means.append('"peak" is the largest number of active agents')
    hidden = "the TTFT, the TPOT and eta/c" if timed else "the tokens, eta/c and the peak"
    more = f" A wider terminal also shows {hidden}." if narrow else ""
    return (
        "T is the number of decode steps until the answer, on the paper's clock, and eta the mean number of agents that"
        " are active during them. The latency is that of the simulated machine, from arrival to answer. Further,"
        f" {'; '.join(means)}.{more}"
    )


_ELSEWHERE = ("latency_mean", "latency_p50", "latency_p95", "latency_p99")


def run_table(run: Mapping[str, float], unit: str, gpus: int) -> Table:
    """Return what is true of all queries together, one line per metric; the latency is in `summary_table`."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("one GPU for all queries" if gpus == 1 else f"{gpus:,} GPUs for all queries")
    table.add_column("", justify="right")
    table.add_column("unit")
    for name, value in run.items():
        metric = RUN_METRICS[name] if name in RUN_METRICS else SUMMARIES[name]
        if name not in _ELSEWHERE and not math.isnan(value):
            title, counted = metric.title_on(unit), metric.unit_on(unit)
            table.add_row(title, count(value), counted if counted != title else "")
    return table


def _cell(value: float, unit: str) -> str:
    """Return a value as a table shows it: plain numbers and seconds are real, what is counted in other units whole."""
    return number(value) if unit in ("", "seconds") else count(value)


def rewards_table(rows: Iterable[tuple[str, Score]], *, narrow: bool = False) -> Table:
    """Return a table with one line per score, all of one reward; see `metrics_table` for `narrow`."""
    scores = list(rows)
    names = [name for name in (scores[0][1].terms if scores else ()) if name != FORMAT_ERROR] + [FORMAT_ERROR]
    titles = (name.replace("_", " ") for name in names)
    table = _table(("reward", *titles, *(() if narrow else ("T steps", "eta")), "eta/c"), narrow=narrow)
    for name, score in scores:
        unknown = score.accuracy is None
        table.add_row(
            Text(printable(name)),
            number(score.total),
            *("unknown" if unknown and term == "accuracy" else number(score.terms[term]) for term in names),
            *(() if narrow else (count(score.latency), number(score.eta))),
            number(score.eta_over_c),
            faults(score.violations),
        )
    return table


class Tally:
    """Running totals over any number of traces.

    Means are over all of them. Percentiles are, too, up to `SAMPLE` traces; of more, they are those of a random sample
    of that size, so that memory stays flat.
    """

    SAMPLE = 100_000

    def __init__(self, names: Sequence[str]) -> None:
        self.values = {name: array("d") for name in names}
        self.sums = dict.fromkeys(names, 0.0)
        self.known = dict.fromkeys(names, 0)
        self.kinds: Counter[str] = Counter()
        self.traces = 0
        self.with_violations = 0
        self.unreadable = 0
        self._rng = np.random.default_rng(0)

    def add(self, values: Callable[[str], float], kinds: Iterable[str]) -> None:
        """Count one trace."""
        self.traces += 1
        place = self.traces - 1
        if place >= self.SAMPLE and self.values:
            place = int(self._rng.integers(self.traces))  # each trace stays with the same probability
        for name, column in self.values.items():
            value = values(name)
            if not math.isnan(value):
                self.sums[name] += value
                self.known[name] += 1
            if len(column) < self.SAMPLE:
                column.append(value)
            elif place < self.SAMPLE:
                column[place] = value
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
            sample = np.array(column)
            sample = sample[~np.isnan(sample)]
            if len(sample):
                middle, high, highest = np.percentile(sample, [50, 95, 99]).tolist()
                result[name] = {"mean": self.sums[name] / self.known[name], "p50": middle, "p95": high, "p99": highest}
        return result

    def sentence(self) -> str:
        """Return the counts in words."""
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in sorted(self.kinds.items()))
        return (
            f"{self.traces:,} {'trace' if self.traces == 1 else 'traces'}: {self.traces - self.with_violations:,} ok,"
            f" {self.with_violations:,} with violations{f' ({kinds})' if kinds else ''}, {self.unreadable:,} unreadable"
        )


def summary_table(tally: Tally, unit: str = "steps") -> Table:
    """Return the totals as a table: mean, median and two percentiles of each number."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("over all traces")
    for title in ("mean", "median", "p95", "p99"):
        table.add_column(title, justify="right")
    for name, value in tally.summary().items():
        if isinstance(value, dict) and "mean" in value:
            metric = METRICS.get(name)
            title = metric.heading_on(unit) if metric else name.replace("_", " ")
            numbers = [value[key] for key in ("mean", "p50", "p95", "p99")]
            table.add_row(title, *(number(metric.shown_on(unit, each) if metric else each) for each in numbers))
    return table
