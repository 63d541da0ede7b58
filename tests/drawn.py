"""Traces written down by hand."""

from __future__ import annotations

from simulator import Thread, Trace
from simulator.trace import ORGANIZER, Action


def traced(organizer: list[Action], **workers: list[Action]) -> Trace:
    """Return the trace of the organizer's actions and those of workers ``w1``, ``w1_1``, ..."""
    threads = [Thread(name[1:].replace("_", "."), tuple(actions)) for name, actions in workers.items()]
    return Trace("t", (Thread(ORGANIZER, tuple(organizer)), *threads))
