"""Service level objectives: what a limit on a metric says, and whether a query keeps to its limits."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from simulator.errors import ConfigError
from simulator.metrics.measures import METRICS
from simulator.metrics.metric import Metric, record_of
from simulator.metrics.view import QueryView
from simulator.support.checks import choose, one_of, real
from simulator.timeline import Timeline

RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
ALIASES = {"e2e": "latency", "e2el": "latency"}
"""Other names of metrics, as people who serve models know them."""
_UNITS = {"": {"%": 0.01}, "seconds": {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}}
"""Ways to say a limit in the unit of a metric; in any other it is said in that unit itself."""
_FORM = re.compile(
    r"\s*(?:(?P<statistic>mean|p\d+(?:\.\d+)?)\s+)?(?P<metric>[^<>=\s]+)\s*(?P<relation><=|>=|<|>)"
    r"\s*(?P<limit>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<unit>(?:[^\s\d_.+<>=-][^<>=]*?)?)\s*",
    re.ASCII,
)


class Said(NamedTuple):
    """A limit as somebody has said it."""

    statistic: str
    """``p95``, where it stands before the metric."""
    metric: str
    relation: str
    limit: float
    unit: str


def read_limit(text: str, example: str) -> Said:
    """Return the parts of ``[STATISTIC] METRIC RELATION NUMBER [UNIT]``.

    >>> read_limit("p95 ttft < 900 ms", "")
    Said(statistic='p95', metric='ttft', relation='<', limit=900.0, unit='ms')
    """
    form = _FORM.fullmatch(text) if isinstance(text, str) else None
    if form is None:
        raise ConfigError(f"an objective is METRIC < NUMBER [UNIT], such as {example}; got {text!r:.80}")
    return Said(form["statistic"] or "", form["metric"], form["relation"], float(form["limit"]), form["unit"])


def scale(said: Said, name: str, metric: Metric[Any], clock: str) -> float:
    """Return what a limit is multiplied by that was said in some unit, where time is counted in `clock`."""
    unit = metric.unit_on(clock)
    accepted = _UNITS.get(unit, {unit: 1.0})
    if said.unit and said.unit not in accepted:
        what = f"a time in {unit}" if unit in ("seconds", "steps") else "no time"
        takes = f"takes {', '.join(accepted)} or no unit; got {said.unit!r:.40}"
        raise ConfigError(f"{name} is {what}, and {takes}")
    return accepted[said.unit] if said.unit else 1.0


@dataclass(frozen=True, slots=True)
class Limit:
    """What all objectives are: a metric, a relation and a limit. See `Target` and `simulator.planning.Objective`."""

    metric: str
    relation: str
    """One of ``<``, ``<=``, ``>``, ``>=``."""
    limit: float
    """In the metric's unit."""

    def __post_init__(self) -> None:
        one_of("an objective's relation", self.relation, RELATIONS)
        real("an objective's limit", self.limit)

    def holds(self, value: float) -> bool:
        """Whether `value` keeps to the limit; NaN does not."""
        return RELATIONS[self.relation](value, self.limit)

    def __str__(self) -> str:
        return f"{self.metric} {self.relation} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Target(Limit):
    """A service level objective of one query: a metric of `simulator.metrics.METRICS` keeps to a limit.

    >>> Target("ttft", "<", 1.0).holds(0.8)
    True
    """

    def __post_init__(self) -> None:
        record_of(METRICS, choose(self.metric, METRICS, "metric of a query"))
        Limit.__post_init__(self)

    def said_on(self, clock: str) -> str:
        """Return what it says, with the unit, where time is counted in `clock`.

        >>> Target("tpot", "<", 0.05).said_on("seconds"), Target("eta", ">=", 2).said_on("seconds")
        ('TPOT < 50 ms', 'eta >= 2')
        """
        metric = METRICS[self.metric]
        heading, unit = metric.heading_on(clock), metric.unit_on(clock)
        if unit == "seconds":
            heading, _, unit = heading.rpartition(" ")
        return f"{heading} {self.relation} {metric.shown_on(clock, self.limit):g} {unit}".rstrip()


def parse_target(text: str, unit: str = "seconds") -> Target:
    """Return the objective of one query that `text` says.

    Parameters
    ----------
    text : str
        METRIC RELATION NUMBER [UNIT]; ``e2e`` is the latency. Units: ms, s, min, h of a time in seconds, % of a share.
    unit : {"seconds", "steps"}
        What times are in.

    Raises
    ------
    ConfigError
        If it says something else.

    >>> parse_target("tpot < 50 ms"), parse_target("e2e <= 20")
    (Target(metric='tpot', relation='<', limit=0.05), Target(metric='latency', relation='<=', limit=20.0))
    >>> parse_target("p95 ttft < 1 s")
    Traceback (most recent call last):
    simulator.errors.ConfigError: 'p95 ttft < 1 s': this is asked of each query, which has no p95: say ttft < 1 s
    """
    said = read_limit(text, "'ttft < 1 s'")
    try:
        if said.statistic:
            way_out = text.replace(said.statistic, "", 1).strip()
            raise ConfigError(f"this is asked of each query, which has no {said.statistic}: say {way_out:.80}")
        plain = Target(ALIASES.get(said.metric, said.metric), said.relation, said.limit)
        return replace(plain, limit=plain.limit * scale(said, plain.metric, METRICS[plain.metric], unit))
    except ConfigError as error:
        raise ConfigError(f"{text!r:.80}: {error}") from None


def parse_targets(texts: Iterable[str], unit: str = "seconds") -> tuple[Target, ...]:
    """Return the objectives of one query that `texts` say; see `parse_target`."""
    return tuple(dict.fromkeys(parse_target(text, unit) for text in texts))


def meets(targets: Iterable[Target], values: Mapping[str, float]) -> bool:
    """Whether a query with these metrics was answered and keeps to all targets.

    >>> targets = parse_targets(["ttft < 1 s"])
    >>> meets(targets, {"latency": 9.0, "ttft": 0.7}), meets(targets, {"latency": math.nan, "ttft": 0.7})
    (True, False)
    """
    return not math.isnan(values["latency"]) and all(target.holds(values[target.metric]) for target in targets)


def query_meets(targets: Sequence[Target], timeline: Timeline, query: int) -> bool:
    """Whether a query was answered and keeps to all targets; see `meets`. No other metric of it is computed."""
    view, names = QueryView(timeline, query), {"latency", *(target.metric for target in targets)}
    return meets(targets, {name: METRICS[name].function(view) for name in names})
