"""What must hold: a metric, a relation and a limit, such as ``p95 < 10 s``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from simulator.errors import ConfigError
from simulator.metrics.slo import ALIASES, Limit, read_limit, scale
from simulator.study.measures import Column, check_metric, is_of_run, percentile_column, read_column

_STATISTIC = re.compile(r"mean|p\d+(\.\d+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Objective(Limit):
    """A service level objective: the mean of a metric over replications keeps to a limit.

    Its metric is a column of a study's rows, such as ``latency_p95``: a percentile of each replication, its mean over
    them.

    >>> Objective("latency_p95", "<", 10.0).holds(9.5)
    True
    """

    def judge(self, low: float, high: float) -> bool | None:
        """Whether all values from `low` to `high` keep to the limit; None if only some do.

        >>> objective = Objective("latency_p95", "<", 10.0)
        >>> objective.judge(8, 9), objective.judge(9, 11), objective.judge(11, 12)
        (True, None, False)
        """
        ends = {self.holds(low), self.holds(high)}
        return None if len(ends) == 2 else ends.pop()

    @property
    def column(self) -> Column:
        """What the column is of, with the metric's unit and title."""
        return read_column(self.metric)


def parse_objective(text: str, unit: str = "seconds") -> Objective:
    """Return the objective that `text` says.

    Parameters
    ----------
    text : str
        METRIC RELATION NUMBER [UNIT]. A metric of a query needs a statistic, ``mean`` or a percentile: ``p95 ttft``, or
        as a study's column is called, ``ttft_p95``. Alone, ``p95`` is that of the latency, and ``e2e`` is another name
        of the latency. Units: ms, s, min, h of a time in seconds; % of a
        plain number; else that of the metric, such as steps or tokens.
    unit : {"seconds", "steps"}
        What times are in.

    Raises
    ------
    ConfigError
        If it says something else.

    >>> parse_objective("p95 < 1500 ms")
    Objective(metric='latency_p95', relation='<', limit=1.5)
    >>> parse_objective("p99 ttft <= 1")
    Objective(metric='ttft_p99', relation='<=', limit=1.0)
    >>> parse_objective("thruput >= 5")
    Traceback (most recent call last):
    simulator.errors.ConfigError: 'thruput >= 5': no metric is called 'thruput'; did you mean throughput? ...
    """
    said = read_limit(text, "'p95 ttft < 1 s' or 'throughput >= 5'")
    try:
        plain = Objective(_column(said.metric, said.statistic), said.relation, said.limit)
        return replace(plain, limit=plain.limit * scale(said, plain.metric, plain.column.metric, unit))
    except ConfigError as error:
        raise ConfigError(f"{text!r:.80}: {error}") from None


def _column(text: str, before: str) -> str:
    """Return the column that `text` is, or is short for; `before` is a statistic that stood before it."""
    full = f"latency_{text}" if _STATISTIC.fullmatch(text) else text
    name, statistic, _ = read_column(full)
    if before and statistic:
        raise ConfigError(f"{before} and {full}: say one statistic")
    full = f"{ALIASES.get(name, name)}_{before or statistic}" if before or statistic else name
    name, statistic, _ = column = read_column(full)
    check_metric(name)
    if is_of_run(name):
        if statistic:
            raise ConfigError(f"{name} is of the whole run, and has no {statistic}")
        return name
    if not statistic:
        raise ConfigError(f"{name} is of each query: say {name}_mean, or a percentile such as {name}_p95")
    if column.percentile is None:
        return full
    if column.percentile > 100:
        raise ConfigError(f"percentiles are from 0 to 100; got {statistic[1:]}")
    return percentile_column(name, column.percentile)


def parse_objectives(texts: Iterable[str], unit: str = "seconds") -> tuple[Objective, ...]:
    """Return the objectives that `texts` say, all of which must hold; see `parse_objective`.

    >>> [str(each) for each in parse_objectives(["p95 < 10", "throughput >= 5"])]
    ['latency_p95 < 10', 'throughput >= 5']
    """
    objectives = tuple(dict.fromkeys(parse_objective(text, unit) for text in texts))
    if not objectives:
        raise ConfigError("there is no objective: say one, such as 'p95 ttft < 1 s'")
    return objectives
