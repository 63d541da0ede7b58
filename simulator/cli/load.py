"""When the queries of a run arrive, as the command line says it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.errors import ConfigError
from simulator.trace import Trace
from simulator.workload import ClosedLoop, poisson_arrivals

ARRIVALS = (
    "alone: each trace on a GPU of its own; together: all at 0 on one; recorded; poisson:PER_SECOND; closed:USERS, each"
    " of whom asks the next when one is answered. Without --gpu there are no seconds: poisson:RATE/step."
)


@dataclass(frozen=True)
class Load:
    """What ``--arrivals`` says."""

    kind: str
    rate: float = 0.0
    """Queries a second or, where the text says so, a decode step."""
    unit: str = ""
    """What time a rate is in: ``seconds`` or ``steps``; empty without a rate."""
    users: ClosedLoop | None = None

    @classmethod
    def of(cls, text: str) -> Load:
        """Return what `text` says, or raise ConfigError."""
        kind, colon, number = text.partition(":")
        numbered = kind in ("poisson", "closed")
        if not (numbered or kind in ("alone", "together", "recorded")) or numbered != bool(colon):
            raise ConfigError(
                f"--arrivals takes alone, together, recorded, poisson:PER_SECOND or closed:USERS; got {text!r}"
            )
        if kind == "poisson":
            unit = "steps" if number.endswith("/step") else "seconds"
            return cls(kind, rate=poisson_rate(number.removesuffix("/step")), unit=unit)
        if kind == "closed":
            return cls(kind, users=_users(number))
        return cls(kind)

    def check(self, unit: str) -> None:
        """Raise ConfigError if the machine counts time in another unit than the rate."""
        if self.unit and self.unit != unit:
            if unit == "steps":
                raise ConfigError(
                    f"--arrivals poisson:{self.rate:g} is a rate per second, and without --gpu time is counted in"
                    f" decode steps: give --gpu, or say poisson:{self.rate:g}/step"
                )
            raise ConfigError(
                f"--arrivals poisson:{self.rate:g}/step is a rate per decode step, and this --gpu counts seconds: say"
                f" poisson:{self.rate:g}"
            )

    def time(self, trace: Trace) -> float:
        """Return when a trace arrives, where it does not depend on the others."""
        if self.kind != "recorded":
            return 0.0
        if trace.arrival is None:
            raise ConfigError(
                f"trace {trace.id!r} has no recorded arrival; use --arrivals together or poisson:PER_SECOND"
            )
        return trace.arrival

    def arrivals(self, times: list[float], seed: int) -> NDArray[np.float64] | ClosedLoop:
        """Return the arrivals of as many queries as there are `times`."""
        if self.kind == "poisson":
            return poisson_arrivals(len(times), self.rate, np.random.default_rng(seed))
        return self.users or np.array(times)


def poisson_rate(number: str) -> float:
    """Return the rate of ``poisson:PER_SECOND``, or raise ConfigError."""
    try:
        rate = float(_plain(number))
        poisson_arrivals(1, rate, np.random.default_rng(0))
    except ValueError:
        raise ConfigError(f"--arrivals poisson:PER_SECOND takes a number from 10^-9 to 10^9; got {number!r}") from None
    return rate


def _users(number: str) -> ClosedLoop:
    try:
        return ClosedLoop(int(_plain(number)))
    except ValueError:
        raise ConfigError(f"--arrivals closed:USERS takes a whole number from 1 to 10^9; got {number!r}") from None


def _plain(number: str) -> str:
    """Refuse what int() and float() take besides: blanks, underscores, digits of other scripts."""
    if not number.isascii() or "_" in number or number != number.strip():
        raise ValueError
    return number
