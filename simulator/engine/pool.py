"""A pool of slots: who may run, and who waits for a slot."""

from __future__ import annotations

from collections import deque
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Pool", "Waiting"]

T = TypeVar("T")


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


class Pool(Generic[T]):
    """Slots for workers, of one query or of all. First come, first served."""

    __slots__ = ("free", "queue")

    def __init__(self, slots: int | None) -> None:
        self.free = 1 << 60 if slots is None else slots
        """Slots left; below 0 where overflows are allowed."""
        self.queue: deque[T] = deque()

    def take(self) -> bool:
        """Take a slot if there is one."""
        if self.free <= 0:
            return False
        self.free -= 1
        return True

    def give(self) -> T | None:
        """Give a slot back; return who gets it, if anybody waits."""
        if self.queue:
            return self.queue.popleft()
        self.free += 1
        return None
