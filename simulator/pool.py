"""The agent pool of one query: who may run, and who waits for a slot."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

__all__ = ["Pool", "Waiting"]


class Waiting(NamedTuple):
    """A Fork that found the pool full."""

    worker: int
    """The thread that waits for a slot."""
    parent: int | None
    """The thread that cannot go on until then, if one cannot."""
    task: int
    """The task that forked it."""
    place: int
    """Which of that task's Forks it was."""


class Pool:
    """Slots for the workers of one query; the organizer has its own. First come, first served."""

    __slots__ = ("free", "queue")

    def __init__(self, capacity: int | None) -> None:
        self.free = 1 << 60 if capacity is None else capacity - 1
        """Slots left; below 0 where overflows are allowed."""
        self.queue: deque[Waiting] = deque()

    def take(self) -> bool:
        """Take a slot if there is one."""
        if self.free <= 0:
            return False
        self.free -= 1
        return True

    def give(self) -> Waiting | None:
        """Give a slot back; return the Fork that gets it, if one waits."""
        if self.queue:
            return self.queue.popleft()
        self.free += 1
        return None
