"""The clock of a simulation: SimPy's event loop, by absolute time, with calls that can be cancelled."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappush

import simpy
from simpy.events import NORMAL


class Call(simpy.Event):
    """The handle of a call that is to come.

    To SimPy it is an event that has happened when it is scheduled, as a `simpy.Timeout` is: these two never change.
    """

    _ok = True
    _value = None

    def __init__(self, clock: EventClock, callback: Callable[[simpy.Event], None]) -> None:
        self.env = clock
        self.callbacks = [callback]

    def cancel(self) -> None:
        """See to it that nothing is called. Cancelling what is over does nothing."""
        self.callbacks = []


class EventClock(simpy.Environment):
    """A SimPy environment that can schedule at an absolute time.

    `simpy.Environment.schedule` takes a delay, and ``now + (t - now)`` is not always ``t``: step boundaries would
    drift.
    """

    def call_at(self, time: float, callback: Callable[[simpy.Event], None], priority: int = NORMAL) -> Call:
        """Call `callback` at `time`; lower priorities first among equal times."""
        call = Call(self, callback)
        heappush(self._queue, (time, priority, next(self._eid), call))  # type: ignore[misc]
        return call

    def is_settled(self) -> bool:
        """Whether nothing else is to happen at this time."""
        queue = self._queue
        return not queue or queue[0][0] > self._now
