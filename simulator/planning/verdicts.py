"""Whether a value meets its objectives: replications are added until it is settled.

After 4, 8, 16 and 32 replications (`Rules.looks`) each objective's mean gets a Student-t interval. The value meets when
all intervals lie within their limits, and fails when one lies beyond its. Looking several times, at several values, for
several objectives gives chance several occasions; so the error that is allowed in all is split evenly over all of them
(Bonferroni), and each interval is as wide as its part asks for. All verdicts of one search then hold together with the
stated confidence. That a load is steady (`BACKLOG`) is shown with that confidence for each value alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from simulator.errors import ConfigError
from simulator.planning.objectives import Objective
from simulator.study.table import mean_and_interval
from simulator.support.checks import real, whole

Evaluate = Callable[[Any, int], Mapping[str, float]]
"""The metrics of one replication at one value. Replication r sees the same random numbers at every value."""
Batch = Callable[[Any, Sequence[int]], Sequence[Mapping[str, float] | str]]
"""The same for several replications; a text says why one cannot be run."""

BACKLOG = "backlog_growth"
"""Metric of an open load: how many more queries are open in the second half of the window than in the first, in the
mean over time, over half of those that arrive in it. 0 in a steady state; where work comes in r times as fast as it can
be done, 1 - 1/r of what arrives is left over."""


class Verdict(StrEnum):
    """What is known of a value."""

    MEETS = "meets"
    FAILS = "fails"
    UNSTABLE = "unstable"
    """It fails because there is no steady state: more and more queries are open as long as the load lasts."""
    CANNOT_RUN = "cannot run"
    UNDECIDED = "undecided"
    """Not settled by the most replications allowed. A search takes it for not met."""

    @property
    def settled_against(self) -> bool:
        """Whether the value is known not to do."""
        return self in (Verdict.FAILS, Verdict.UNSTABLE, Verdict.CANNOT_RUN)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How sure to be, and how much to spend on it.

    >>> Rules(replications=20).looks
    (4, 8, 16, 20)
    """

    confidence: float = 0.95
    """Probability that all verdicts of a search are right."""
    replications: int = 32
    """Most replications of a value."""
    first: int = 4
    """Replications before the first look; each further look has twice as many."""

    def __post_init__(self) -> None:
        real("confidence", self.confidence, "from 0.5 to below 1")
        whole("first", self.first, "from 2 to 10000")
        whole("replications", self.replications, f"from {self.first} to 10000")

    @property
    def looks(self) -> tuple[int, ...]:
        """Replications at each look."""
        doubled = [self.first]
        while doubled[-1] * 2 < self.replications:
            doubled.append(doubled[-1] * 2)
        return tuple(dict.fromkeys([*doubled, self.replications]))

    @property
    def error(self) -> float:
        """Probability allowed for any wrong verdict."""
        return 1 - self.confidence


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is known of one objective at one value."""

    objective: Objective
    mean: float
    low: float
    """Lower end of the interval that the verdict goes by."""
    high: float
    met: bool | None
    """None: the limit lies within the interval."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One value that was tried."""

    value: Any
    verdict: Verdict
    replications: int
    estimates: tuple[Estimate, ...]
    """One an objective, in order."""
    why: str = ""
    """Why it could not be run, or judged."""
    rows: tuple[Mapping[str, float], ...] = ()
    """All metrics of each replication."""

    def mean(self, metric: str) -> float:
        """Return the mean of a metric over the replications; NaN if it does not exist."""
        return float(np.mean([row.get(metric, math.nan) for row in self.rows])) if self.rows else math.nan


def in_turn(evaluate: Evaluate) -> Batch:
    """Return `evaluate` as a `Batch`, one replication after the other.

    >>> in_turn(lambda value, replication: {"latency_mean": value + replication})(10, [0, 1])
    [{'latency_mean': 10}, {'latency_mean': 11}]
    """
    return lambda value, replications: [evaluate(value, replication) for replication in replications]


def settle(
    value: Any, batch: Batch, objectives: Sequence[Objective], rules: Rules, share: float, backlog: float | None = None
) -> Trial:
    """Add replications of `value` until it is known whether it meets `objectives`, or there are enough.

    Parameters
    ----------
    value : object
        What to try.
    batch : callable
        Runs it.
    objectives : sequence of Objective
        All must hold.
    rules : Rules
    share : float
        Probability allowed for a wrong verdict on this value.
    backlog : float, optional
        `BACKLOG` from which on a load is called unstable. Default: the load is not open, nothing to look for.

    >>> noisy = in_turn(lambda value, replication: {"latency_mean": value + [-0.1, 0.0, 0.1, 0.0][replication % 4]})
    >>> settle(5, noisy, [Objective("latency_mean", "<", 6)], Rules(), 0.05).verdict
    <Verdict.MEETS: 'meets'>
    >>> settle(6, noisy, [Objective("latency_mean", "<", 6)], Rules(), 0.05).verdict
    <Verdict.UNDECIDED: 'undecided'>
    """
    asked = [*objectives]
    if backlog is not None:
        asked.append(Objective(BACKLOG, "<", backlog))
    level = share / len(rules.looks) / len(asked)
    rows: list[Mapping[str, float]] = []
    trial = Trial(value, Verdict.UNDECIDED, 0, ())
    for look in rules.looks:
        for row in batch(value, range(len(rows), look)):
            if isinstance(row, str):
                return Trial(value, Verdict.CANNOT_RUN, len(rows), (), row)
            rows.append(row)
        trial = _judge(value, rows, asked, level, rules.error)
        if trial.verdict is not Verdict.UNDECIDED:
            break
    return trial


def _judge(
    value: Any, rows: Sequence[Mapping[str, float]], objectives: Sequence[Objective], level: float, plain: float
) -> Trial:
    """Return what `rows` show: intervals leave out `level` on either side, or `plain` where one test stands alone."""
    estimates = []
    missing = ""
    for objective in objectives:
        if objective.metric not in rows[0]:
            raise ConfigError(f"no metric is called {objective.metric!r} in what was measured: {', '.join(rows[0])}")
        values = np.array([row[objective.metric] for row in rows], dtype=np.float64)
        if not np.isfinite(values).all():
            missing = missing or f"{objective.metric} does not exist in some replication"
            estimates.append(Estimate(objective, math.nan, math.nan, math.nan, None))
            continue
        mean, low, high = mean_and_interval(values, 1 - 2 * level)
        met = objective.judge(low, high)
        if objective.metric == BACKLOG and met is None:
            # That a load is steady is a condition, not an objective: a plain interval is enough for it.
            met = objective.holds(mean_and_interval(values, 1 - 2 * plain)[2]) or None
        estimates.append(Estimate(objective, mean, low, high, met))
    verdicts = {each.met for each in estimates}
    grows = any(each.met is False and each.objective.metric == BACKLOG for each in estimates)
    if missing:
        verdict = Verdict.CANNOT_RUN
    elif False in verdicts:
        verdict = Verdict.UNSTABLE if grows else Verdict.FAILS
    else:
        verdict = Verdict.UNDECIDED if None in verdicts else Verdict.MEETS
    return Trial(value, verdict, len(rows), tuple(estimates), missing, tuple(rows))
