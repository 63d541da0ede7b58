"""The AsyncThink reward: correctness, concurrency, and what a format error costs.

    ``R = R_FE`` if the trace has a format error, else ``R_A + lambda * min(eta/c, tau) / tau``

(arXiv 2510.26658.) Every constant is a field of `Protocol`. Scoring needs no simulation: only the decode-step clock.
"""

from __future__ import annotations

from typing import NamedTuple

from simulator.clock import DecodeClock, decode_clock
from simulator.errors import ConfigError
from simulator.protocol import Protocol
from simulator.trace import Outcome, Trace, Violation

__all__ = ["Reward", "reward", "score"]


class Reward(NamedTuple):
    """A reward, its terms, and what they were computed from."""

    total: float
    """The sum of the terms."""
    terms: dict[str, float]
    """``format_error``, ``accuracy`` and ``concurrency``."""
    accuracy: float | None
    """R_A before any format error; None where the trace has no outcome, which then earns 0."""
    latency: int
    """Critical-path latency in decode steps."""
    eta: float
    """Concurrency ratio."""
    eta_over_c: float
    """eta over the pool capacity."""
    peak_concurrency: int
    """Most agents active at once."""
    violations: tuple[Violation, ...]
    """Every violation, format error or not."""


def reward(clock: DecodeClock, outcome: Outcome | None, protocol: Protocol) -> Reward:
    """Return the reward of a trace that the decode-step clock has run.

    Parameters
    ----------
    clock : DecodeClock
    outcome : Outcome, optional
        How the answer was judged.
    protocol : Protocol
        Must have a `capacity`, the c of eta/c.

    Raises
    ------
    ConfigError
        Without a capacity.
    """
    capacity = protocol.capacity
    if capacity is None:
        raise ConfigError("the reward divides eta by the pool capacity: give Protocol(capacity=...)")
    eta = clock.active_steps / clock.latency if clock.latency else 0.0
    ratio = eta / capacity
    accuracy = outcome.accuracy if outcome is not None else None
    violations = clock.violations
    if violations and any(violation.kind in protocol.format_errors for violation in violations):
        terms = {"format_error": protocol.format_error_reward, "accuracy": 0.0, "concurrency": 0.0}
    else:
        tau = protocol.eta_threshold
        concurrency = protocol.eta_weight * (min(ratio, tau) / tau)
        terms = {"format_error": 0.0, "accuracy": accuracy or 0.0, "concurrency": concurrency}
    total = terms["format_error"] + terms["accuracy"] + terms["concurrency"]
    return Reward(total, terms, accuracy, clock.latency, eta, ratio, clock.peak_concurrency, violations)


def score(trace: Trace, protocol: Protocol) -> Reward:
    """Return the reward of `trace`.

    >>> from simulator.trace import Answer, Fork, Join, Return, Think, Thread
    >>> organizer = Thread("organizer", (Think(5), Fork(1), Think(3), Join(1), Answer(2)))
    >>> trace = Trace("t", (organizer, Thread("1", (Return(9),))), Outcome(correct=True))
    >>> result = score(trace, Protocol(capacity=2))
    >>> result.total, result.terms["accuracy"], round(result.terms["concurrency"], 6)
    (1.296875, 1.0, 0.296875)
    """
    return reward(decode_clock(trace, protocol), trace.outcome, protocol)
