"""What must hold: a metric, a relation and a limit, such as ``p95 < 10 s``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from simulator.errors import ConfigError
from simulator.study.measures import QUERY_METRICS, RUN_METRICS, percentile_column
from simulator.support.checks import choose, one_of, real

__all__ = ["Objective", "parse_objective", "parse_objectives"]

_RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_TIMES = re.compile(r"(latency|makespan|queueing_delay|wait_\w+|critical_path_seconds|\w+_bound)(_|$)")
_FORM = re.compile(
    r"\s*(?P<metric>[^<>=\s]+)\s*(?P<relation><=|>=|<|>)"
    r"\s*(?P<limit>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<unit>%|[a-z]*)\s*",
    re.ASCII,
)


_STATISTIC = re.compile(r"mean|p\d+(\.\d+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Objective:
    """A service level objective: the mean of a metric over replications keeps to a limit.

    >>> Objective("latency_p95", "<", 10.0).holds(9.5)
    True
    """

    metric: str
    """Column of a study's rows, such as ``latency_p95``: a percentile of each replication, its mean over them."""
    relation: str
    """One of ``<``, ``<=``, ``>``, ``>=``."""
    limit: float
    """In the metric's unit."""

    def __post_init__(self) -> None:
        one_of("an objective's relation", self.relation, _RELATIONS)
        real("an objective's limit", self.limit)

    def holds(self, value: float) -> bool:
        """Whether `value` keeps to the limit; NaN does not."""
        return _RELATIONS[self.relation](value, self.limit)

    def judge(self, low: float, high: float) -> bool | None:
        """Whether all values from `low` to `high` keep to the limit; None if only some do.

        >>> objective = Objective("latency_p95", "<", 10.0)
        >>> objective.judge(8, 9), objective.judge(9, 11), objective.judge(11, 12)
        (True, None, False)
        """
        ends = {self.holds(low), self.holds(high)}
        return None if len(ends) == 2 else ends.pop()

    @property
    def base(self) -> str:
        """The metric that the column is of: ``latency`` of ``latency_p95``."""
        return self.metric if self.metric in RUN_METRICS else self.metric.rpartition("_")[0]

    @property
    def percentile(self) -> float | None:
        """Which percentile the column is, if it is one."""
        statistic = self.metric.rpartition("_")[2]
        return float(statistic[1:]) if self.base != self.metric and statistic != "mean" else None

    @property
    def is_time(self) -> bool:
        """Whether the limit is a time."""
        return bool(_TIMES.match(self.metric))

    def __str__(self) -> str:
        return f"{self.metric} {self.relation} {self.limit:g}"


def parse_objective(text: str, unit: str = "seconds") -> Objective:
    """Return the objective that `text` says.

    Parameters
    ----------
    text : str
        METRIC RELATION NUMBER [UNIT]. Metrics of a query end in ``_mean`` or a percentile such as ``_p95``; ``p95`` is
        short for ``latency_p95``, ``mean`` for ``latency_mean``. Units: ms, s, min, h of a time in seconds, steps of
        one in decode steps, % of anything that is no time.
    unit : {"seconds", "steps"}
        What times are in.

    Raises
    ------
    ConfigError
        If it says something else.

    >>> parse_objective("p95 < 1500 ms")
    Objective(metric='latency_p95', relation='<', limit=1.5)
    >>> parse_objective("thruput >= 5")
    Traceback (most recent call last):
    simulator.errors.ConfigError: 'thruput >= 5': no metric is called 'thruput'; did you mean throughput? ...
    """
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ConfigError(
            f"an objective is METRIC < NUMBER [UNIT], such as 'p95 < 10 s' or 'throughput >= 5'; got {text!r:.80}"
        )
    try:
        metric = _column(found["metric"])
        plain = Objective(metric, found["relation"], float(found["limit"]))
    except ConfigError as error:
        raise ConfigError(f"{text!r:.80}: {error}") from None
    return Objective(metric, plain.relation, plain.limit * _scale(text, plain, found["unit"], unit))


def _column(name: str) -> str:
    """Return the column that `name` is, or is short for."""
    if name in RUN_METRICS:
        return name
    full = f"latency_{name}" if _STATISTIC.fullmatch(name) else name
    base, _, statistic = full.rpartition("_")
    if base in QUERY_METRICS and _STATISTIC.fullmatch(statistic):
        if statistic != "mean" and not float(statistic[1:]) <= 100:
            raise ConfigError(f"percentiles are from 0 to 100; got {statistic[1:]}")
        return full if statistic == "mean" else percentile_column(base, float(statistic[1:]))
    if full in QUERY_METRICS:
        raise ConfigError(f"{full} is of each query: say {full}_mean, or a percentile such as {full}_p95")
    choose(base if _STATISTIC.fullmatch(statistic) else full, [*QUERY_METRICS, *RUN_METRICS], "metric")
    raise ConfigError(f"{base} is of the whole run, and has no {statistic}")


def _scale(text: str, objective: Objective, said: str, unit: str) -> float:
    if not said:
        return 1.0
    accepted = {"%": 0.01} if not objective.is_time else {"steps": 1.0} if unit == "steps" else _SECONDS
    if said not in accepted:
        what = f"{objective.metric} is a time in {unit}" if objective.is_time else f"{objective.metric} is no time"
        raise ConfigError(f"{text!r:.80}: {what}, and takes {', '.join(accepted)} or no unit; got {said!r}")
    return accepted[said]


def parse_objectives(texts: Iterable[str], unit: str = "seconds") -> tuple[Objective, ...]:
    """Return the objectives that `texts` say, all of which must hold; see `parse_objective`.

    >>> [str(each) for each in parse_objectives(["p95 < 10", "throughput >= 5"])]
    ['latency_p95 < 10', 'throughput >= 5']
    """
    objectives = tuple(dict.fromkeys(parse_objective(text, unit) for text in texts))
    if not objectives:
        raise ConfigError("there is no objective: say one, such as 'p95 < 10 s'")
    return objectives
