"""Tasks that nobody has begun, and who shall do which."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

_LOT = 64
"""Tasks of equal key that one worker gets at most before it asks again."""


class Backlog(Generic[T]):
    """Tasks in lots of equal key, each for one worker, which may keep what they share.

    A worker that has none left, and finds no further lot, takes half of the longest of another's. So nobody is idle
    while there is work, and few prepare what another has prepared.

    Parameters
    ----------
    tasks : iterator
        Taken as workers ask; with a key, some ahead.
    key : callable, optional
        What tasks have in common. Default: nothing; then no task is taken ahead.

    >>> backlog = Backlog(iter(["a1", "a2", "a3", "b1"]), key=lambda task: task[0])
    >>> [backlog.take(worker) for worker in (1, 2, 2, 1)]
    ['a1', 'b1', 'a3', 'a2']
    """

    def __init__(self, tasks: Iterator[T], key: Callable[[T], Hashable] | None = None) -> None:
        self._tasks = tasks
        self._key = key
        self._ahead: deque[T] = deque()
        self._lots: dict[Hashable, deque[T]] = {}
        self._orphans: deque[deque[T]] = deque()

    def take(self, worker: Hashable) -> T:
        """Return the next task of a worker; there must be one: ``at_least(1)``."""
        lot = self._lots.get(worker) or (self._orphans.popleft() if self._orphans else self._next_lot())
        if not lot:
            longest = max(self._lots.values(), key=len)
            lot = deque(longest.pop() for _ in range((len(longest) + 1) // 2))
            lot.reverse()
        self._lots[worker] = lot
        return lot.popleft()

    def give_back(self, task: T) -> None:
        """Put a task back, to be the next one."""
        self._orphans.appendleft(deque([task]))

    def dismiss(self, worker: Hashable) -> None:
        """Leave what a worker has to others."""
        if lot := self._lots.pop(worker, None):
            self._orphans.append(lot)

    def at_least(self, count: int) -> bool:
        """Return whether there are that many tasks; as many are taken ahead to know it."""
        known = sum(map(len, self._lots.values())) + sum(map(len, self._orphans))
        return self._look_ahead(count - known)

    def _look_ahead(self, count: int) -> bool:
        while len(self._ahead) < count:
            try:
                self._ahead.append(next(self._tasks))
            except StopIteration:
                return False
        return True

    def _next_lot(self) -> deque[T]:
        lot: deque[T] = deque()
        while len(lot) < (1 if self._key is None else _LOT) and self._look_ahead(1):
            if lot and self._key is not None and self._key(self._ahead[0]) != self._key(lot[0]):
                break
            lot.append(self._ahead.popleft())
        return lot
