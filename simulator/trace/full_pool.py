"""What a runtime does with a Fork that finds the agent pool of its query full.

A behaviour is a function from what the Fork finds to an `Admission`. Simulation and recording both ask `admit`, and
carry out whatever it says: so a behaviour of one's own is a function and a line in `WHEN_FULL`.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from enum import Enum
from typing import NamedTuple

from simulator.errors import ConfigError


class Admission(Enum):
    """What becomes of a worker that has just been forked, and of its parent."""

    START = "the worker runs, with a slot; beyond the capacity where the pool is full"
    QUEUE = "the worker waits for a slot, first come first served; its parent goes on"
    BLOCK = "the worker waits likewise; its parent waits until it has its slot"
    INLINE = "the parent does the sub-query itself, without a slot, and goes on after that"
    DROP = "the worker never runs; whoever joins it need not wait; its parent goes on"


class FullPool(NamedTuple):
    """A pool without a free slot, as a Fork finds it."""

    slots: int
    """Slots for workers: the capacity less one."""
    taken: int
    """Workers that have one; above `slots` where more were started all the same."""
    waiting: int
    """Workers that wait for one."""


class Behaviour(NamedTuple):
    """What a runtime does with Forks on a full pool."""

    decide: Callable[[FullPool], Admission]
    may: Set[Admission]
    """What `decide` may say. Bounds and recorded models need to know: not everything goes with everything."""


def _always(admission: Admission) -> Behaviour:
    return Behaviour(lambda pool: admission, {admission})


WHEN_FULL: dict[str, Behaviour] = {
    "queue": _always(Admission.QUEUE),
    "block": _always(Admission.BLOCK),
    "inline": _always(Admission.INLINE),
    "drop": _always(Admission.DROP),
    "allow": _always(Admission.START),
}
"""By name, as `Protocol.when_full` says it."""


def admit(when_full: str, pool: FullPool) -> Admission:
    """Return what becomes of a worker whose Fork finds `pool`.

    Raises
    ------
    ConfigError
        If the behaviour says what it may not say.

    >>> admit("block", FullPool(slots=3, taken=3, waiting=0)).name
    'BLOCK'
    """
    behaviour = WHEN_FULL[when_full]
    admission = behaviour.decide(pool)
    if admission not in behaviour.may:
        may = ", ".join(sorted(each.name for each in behaviour.may))
        raise ConfigError(f"when_full {when_full!r} may say {may}; it said {getattr(admission, 'name', admission)!r}")
    return admission
