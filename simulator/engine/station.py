"""Where the work of threads is done: what a run asks of a station, and the station for what needs no GPU."""

from __future__ import annotations

import typing
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from simulator.engine.clock import EventClock
from simulator.engine.query import Pause, Work
from simulator.errors import ConfigError
from simulator.timeline import Replica

W_contra = TypeVar("W_contra", bound=Work, contravariant=True)


class Station(typing.Protocol[W_contra]):
    """What a run asks of a station. The station says when work has left it, done or cut short."""

    def submit(self, work: W_contra) -> None:
        """Take work; it begins when the station can."""
        ...

    def keep(self, work: W_contra) -> None:
        """Take the work that follows, in its thread, what has just left: it goes on in that one's place, if it can."""
        ...

    def cancel(self, work: W_contra) -> None:
        """Let work leave as soon as that can be."""
        ...

    def plan(self) -> None:
        """Go on, now that all that happens at this time is known."""
        ...

    def record(self) -> tuple[Replica, ...]:
        """Return what each GPU of it did."""
        ...


class Delays:
    """The station of tools and people. There is room for everybody: a Delay begins when it is ready.

    Parameters
    ----------
    clock : EventClock
    left : callable
        Called with each Delay that has left, and whether it was cut short.
    ask : callable
        Called after that, if it has ended by itself.
    """

    def __init__(self, clock: EventClock, left: Callable[[Pause, bool], None], ask: Callable[[], None]) -> None:
        self.clock = clock
        self.left = left
        self.ask = ask

    def submit(self, work: Pause) -> None:
        """Begin a Delay."""
        now = self.clock.now
        if not now + work.seconds > now:
            raise ConfigError(f"at {now:g} s a Delay of {work.seconds:g} s does not move the clock, which has 53 bits")
        work.end = self.clock.call_at(now + work.seconds, partial(self._over, work))

    def keep(self, work: Pause) -> None:
        """Begin a Delay: there are no places to keep."""
        self.submit(work)

    def cancel(self, work: Pause) -> None:
        """End a Delay now."""
        assert work.end is not None
        work.end.cancel()
        self.left(work, True)

    def _over(self, work: Pause, _: object) -> None:
        self.left(work, False)
        self.ask()

    def plan(self) -> None:
        """Nothing: nobody waits here."""

    def record(self) -> tuple[Replica, ...]:
        """Return that no GPU did anything."""
        return ()
