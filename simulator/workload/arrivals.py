"""When queries arrive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.support.checks import real, whole


def poisson_arrivals(n: int, rate: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the seconds at which `n` queries arrive, `rate` a second, independently of each other.

    >>> poisson_arrivals(3, 2.0, np.random.default_rng(0)).round(3)
    array([0.34, 0.85, 0.86])
    """
    return gamma_arrivals(n, rate, rng, variation=1.0)


def gamma_arrivals(n: int, rate: float, rng: np.random.Generator, *, variation: float) -> NDArray[np.float64]:
    """Return the seconds at which `n` queries arrive, `rate` a second, in bursts or evenly.

    Intervals are gamma distributed with mean ``1 / rate`` and coefficient of variation `variation`: 1 is Poisson,
    more is burstier, less is more even, 0 is a fixed interval.

    >>> gamma_arrivals(3, 2.0, np.random.default_rng(0), variation=0)
    array([0.5, 1. , 1.5])
    """
    whole("n", n, f"from 0 to {2**63 - 1:,}")
    real("rate", rate, "from 10^-9 to 10^9")
    real("variation", variation, "from 0 to 100")
    shape = 1 / variation**2 if variation else None
    intervals = np.full(n, 1 / rate) if shape is None else rng.gamma(shape, 1 / (rate * shape), n)
    return np.cumsum(intervals)


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """A fixed number of users: each asks the next query when its last one is answered.

    Queries are asked in order. ``simulate(graphs, arrivals=ClosedLoop(8))`` is what a benchmark of concurrency 8 does.

    >>> from simulator import Answer, Thread, Trace, compile_trace, simulate
    >>> graph = compile_trace(Trace("t", (Thread("organizer", (Answer(4),)),)))
    >>> simulate([graph] * 4, arrivals=ClosedLoop(2)).arrivals.tolist()
    [0.0, 0.0, 4.0, 4.0]
    """

    users: int
    """Queries open at once, at most; that many arrive at 0."""
    think: float = 0.0
    """Seconds from an answer to the user's next query."""

    def __post_init__(self) -> None:
        whole("users", self.users, "from 1 to 10^9")
        real("think", self.think, "from 0 to 10^9")
