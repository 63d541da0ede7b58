"""A pool of slots: who may run, and who waits for a slot."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Pool(Generic[T]):
    """Slots for workers, of one query or of all. First come, first served."""

    __slots__ = ("free", "queue", "slots")

    def __init__(self, slots: int | None) -> None:
        self.slots = 1 << 60 if slots is None else slots
        self.free = self.slots
        """Slots left; below 0 where overflows are allowed."""
        self.queue: deque[T] = deque()

    def give(self) -> T | None:
        """Give a slot back; return who gets it, if anybody waits."""
        if self.queue:
            return self.queue.popleft()
        self.free += 1
        return None
