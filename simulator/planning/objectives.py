"""What must hold: a metric, a relation and a limit, such as ``p95 < 10 s``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from simulator.errors import ConfigError
from simulator.study.measures import Column, check_metric, is_of_run, percentile_column, read_column
from simulator.support.checks import one_of, real

_RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_UNITS = {"": {"%": 0.01}, "seconds": {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}}
"""Ways to say a limit in the unit of a metric; in any other it is said in that unit itself."""
_FORM = re.compile(
    r"\s*(?P<metric>[^<>=\s]+)\s*(?P<relation><=|>=|<|>)"
    r"\s*(?P<limit>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<unit>(?:[^\s\d_.+<>=-][^<>=]*?)?)\s*",
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
    def column(self) -> Column:
        """What the column is of, with the metric's unit and title."""
        return read_column(self.metric)

    def __str__(self) -> str:
        return f"{self.metric} {self.relation} {self.limit:g}"


def parse_objective(text: str, unit: str = "seconds") -> Objective:
    """Return the objective that `text` says.

    Parameters
    ----------
    text : str
        METRIC RELATION NUMBER [UNIT]. Metrics of a query end in ``_mean`` or a percentile such as ``_p95``; ``p95`` is
        short for ``latency_p95``, ``mean`` for ``latency_mean``. Units: ms, s, min, h of a time in seconds; % of a
        plain number; else that of the metric, such as steps or tokens.
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
    form = _FORM.fullmatch(text) if isinstance(text, str) else None
    if form is None:
        raise ConfigError(
            f"an objective is METRIC < NUMBER [UNIT], such as 'p95 < 10 s' or 'throughput >= 5'; got {text!r:.80}"
        )
    try:
        metric = _column(form["metric"])
        plain = Objective(metric, form["relation"], float(form["limit"]))
    except ConfigError as error:
        raise ConfigError(f"{text!r:.80}: {error}") from None
    return Objective(metric, plain.relation, plain.limit * _scale(text, plain, form["unit"], unit))


def _column(text: str) -> str:
    """Return the column that `text` is, or is short for."""
    full = f"latency_{text}" if _STATISTIC.fullmatch(text) else text
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


def _scale(text: str, objective: Objective, said: str, clock: str) -> float:
    """Return what a limit is multiplied by that was said in some unit."""
    unit = objective.column.metric.unit_on(clock)
    accepted = _UNITS.get(unit, {unit: 1.0})
    if said and said not in accepted:
        what = f"a time in {unit}" if unit in ("seconds", "steps") else "no time"
        takes = f"takes {', '.join(accepted)} or no unit; got {said!r:.40}"
        raise ConfigError(f"{text!r:.80}: {objective.metric} is {what}, and {takes}")
    return accepted[said] if said else 1.0


def parse_objectives(texts: Iterable[str], unit: str = "seconds") -> tuple[Objective, ...]:
    """Return the objectives that `texts` say, all of which must hold; see `parse_objective`.

    >>> [str(each) for each in parse_objectives(["p95 < 10", "throughput >= 5"])]
    ['latency_p95 < 10', 'throughput >= 5']
    """
    objectives = tuple(dict.fromkeys(parse_objective(text, unit) for text in texts))
    if not objectives:
        raise ConfigError("there is no objective: say one, such as 'p95 < 10 s'")
    return objectives
