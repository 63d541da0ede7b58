"""The supervisor of a crew: which worker does which task, and which task is to blame when a worker dies.

Each worker has one task at a time, so it is always known whose task it was. A pool with a shared queue
(concurrent.futures, multiprocessing) breaks as a whole when one process dies, and cannot say which task killed it.
"""

from __future__ import annotations

import math
import typing
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Generic, NamedTuple, TypeVar

from simulator.errors import ConfigError
from simulator.support.crew.backlog import Backlog
from simulator.support.crew.failure import Failure, received, sent

__all__ = ["Crew", "Limit", "Lost", "Transport", "Worker"]

_STARTS = 3
"""Workers in a row that may be lost before they do anything."""

_START_SECONDS = 120.0
"""How long a worker may take to start, where there is a limit of time."""


class Lost(Exception):
    """A worker is gone, and what was left of it has been ended. The text says how it ended.

    It is `hopeless` if any other worker would end so too.
    """

    def __init__(self, how: str, *, hopeless: bool = False) -> None:
        super().__init__(how)
        self.hopeless = hopeless


class Worker(Hashable, typing.Protocol):
    """What the supervisor asks of a worker. Each method may raise `Lost`, but for the last two."""

    def greet(self) -> None:
        """Take its first message, which says that it has started."""

    def give(self, message: bytes) -> None:
        """Send it a task."""

    def hear(self) -> bytes:
        """Return its message: the result of its task, or nothing, which is a sign of life."""

    def dismiss(self, *, kill: bool) -> None:
        """Ask it to leave, or kill it; do not wait for that."""

    def end(self) -> object:
        """Wait until it is gone."""


W = TypeVar("W", bound=Worker)


class Transport(typing.Protocol[W]):
    """Where workers come from, and how they are reached."""

    def dumps(self, task: object) -> bytes:
        """Return a task as a message."""

    def room(self) -> int:
        """Return how many workers there may be at once."""

    def hire(self) -> W:
        """Start another worker."""

    def wait(self, workers: Sequence[W], seconds: float | None) -> Iterable[W]:
        """Return those workers that have a message, as soon as there is one, or none when the time is up."""


class Limit(NamedTuple):
    """A limit of time, for workers that give a sign of life after each part of a task."""

    seconds: float
    """How long a worker may be silent. It is killed then."""
    strike: Callable[[Any, int, str | None], None]
    """Called with a task whose worker is gone, the number of its signs of life, and how it ended, None if it was silent
    for too long. It takes the culprit out of the task, which is then done again."""


@dataclass(slots=True)
class _Job:
    task: Any
    died: str = ""
    """How the worker ended that did this task before."""
    signs: int = 0
    due: float = math.inf
    """When its worker has been silent for too long."""


@dataclass
class Crew(Generic[W]):
    """All workers, and who does what.

    A task whose worker dies is tried once more. If that worker dies too, the task is a `Failure`. A worker that dies
    without a task is replaced, and nobody is blamed.

    Parameters
    ----------
    transport : Transport
    backlog : Backlog
        The tasks.
    alone : bool
        Whether a task is tried again only while no other worker does anything: it may have been the machine that ran
        out of memory. On a cluster, which loses whole nodes, others need not wait for that.
    limit : Limit, optional
        With it, a task whose worker is gone is done again without the part that is to blame.
    """

    transport: Transport[W]
    backlog: Backlog[Any]
    alone: bool = False
    limit: Limit | None = None
    suspects: deque[_Job] = field(default_factory=deque, init=False)
    """Tasks whose worker died, to be tried once more."""
    done: deque[tuple[Any, Any]] = field(default_factory=deque, init=False)
    idle: list[W] = field(default_factory=list, init=False)
    fresh: set[W] = field(default_factory=set, init=False)
    """Workers that have not done anything yet."""
    starting: dict[W, float] = field(default_factory=dict, init=False)
    """And when they should have started."""
    busy: dict[W, _Job] = field(default_factory=dict, init=False)
    workers: list[W] = field(default_factory=list, init=False)
    """All of them: an interrupt may come while one is neither idle nor starting nor busy."""
    lost_starts: int = field(default=0, init=False)

    def results(self) -> Generator[tuple[Any, Any], None, None]:
        """Yield each task with its result, in order of completion. However this ends, so do all workers."""
        try:
            while self._hand_out():
                if not self.done:
                    self._listen()
                    self._hand_out()  # before the caller, who may be slow, gets to see anything
                while self.done:
                    yield self.done.popleft()
        finally:
            for worker in self.workers:
                worker.dismiss(kill=worker not in self.idle)
            while self.workers:
                self._end(self.workers[-1])

    def _hand_out(self) -> bool:
        """Give tasks to workers; return whether there is anything to wait for."""
        if self.suspects and self.alone:
            if not self.busy and not self.starting:
                self._try_alone()
        else:
            while self.idle and self._at_least(1):
                worker = self.idle[-1]
                job = self.suspects.popleft() if self.suspects else _Job(self.backlog.take(worker))
                if not self._give(worker, job):
                    break
            if not self.idle:
                room = self.transport.room() - len(self.workers)
                while room > 0 and self._at_least(len(self.starting) + 1):
                    self._start()
                    room -= 1
        return bool(self.done or self.busy or (self.starting and self._at_least(1)))

    def _at_least(self, count: int) -> bool:
        return self.backlog.at_least(count - len(self.suspects))

    def _start(self) -> None:
        worker = self.transport.hire()
        self.workers.append(worker)
        self.starting[worker] = monotonic() + _START_SECONDS if self.limit else math.inf

    def _end(self, worker: W) -> None:
        worker.end()
        self._forget(worker)

    def _forget(self, worker: W) -> None:
        self.workers.remove(worker)
        self.fresh.discard(worker)
        self.backlog.dismiss(worker)

    def _try_alone(self) -> None:
        for worker in [each for each in self.idle if each not in self.fresh]:  # they may hold memory
            self.idle.remove(worker)
            worker.dismiss(kill=False)
            self._end(worker)
        if self.idle:
            self._give(self.idle[-1], self.suspects.popleft())
        else:
            self._start()

    def _give(self, worker: W, job: _Job) -> bool:
        """Send a task to an idle worker; return whether the next one may be sent."""
        message = sent(job.task, self.transport.dumps)
        if isinstance(message, Failure):
            self.done.append((job.task, message))
            return False  # not before this was seen
        self.idle.remove(worker)
        try:
            worker.give(message)
        except Lost:  # it died while it had nothing to do
            self._forget(worker)
            if job.died:
                self.suspects.appendleft(job)
                self._start()
            else:
                self.backlog.give_back(job.task)
            return True
        self.fresh.discard(worker)
        self._expect(worker, job)
        return True

    def _expect(self, worker: W, job: _Job) -> None:
        """Wait for the next message of a worker that is at work."""
        if self.limit is not None:
            job.due = monotonic() + self.limit.seconds
        self.busy[worker] = job

    def _listen(self) -> None:
        """Wait for workers, take the messages they have, and kill those that were silent for too long."""
        for worker in self.transport.wait([*self.busy, *self.starting], self._seconds_left()):
            if worker in self.starting:
                self._greet(worker)
            else:
                self._collect(worker, self.busy.pop(worker))
        if self.limit is None or self._seconds_left():
            return
        if min(self.starting.values(), default=math.inf) <= monotonic():
            raise ConfigError(f"a process did not start within {_START_SECONDS:g} s")
        for worker in [each for each, job in self.busy.items() if job.due <= monotonic()]:
            worker.dismiss(kill=True)
            self._end(worker)
            self._blame(self.busy.pop(worker), None)

    def _seconds_left(self) -> float | None:
        """Return how long until somebody has been silent for too long; None where there is no limit."""
        if self.limit is None:
            return None
        dues = (*self.starting.values(), *(job.due for job in self.busy.values()))
        return max(0.0, min(dues, default=math.inf) - monotonic())

    def _greet(self, worker: W) -> None:
        del self.starting[worker]
        try:
            worker.greet()
        except Lost as lost:
            self._forget(worker)
            self.lost_starts += 1
            if lost.hopeless or self.lost_starts >= _STARTS:
                raise ConfigError(str(lost)) from None
            return
        self.lost_starts = 0
        self.fresh.add(worker)
        self.idle.append(worker)

    def _collect(self, worker: W, job: _Job) -> None:
        try:
            message = worker.hear()
        except Lost as lost:
            self._forget(worker)
            self._blame(job, str(lost))
            return
        if not message:
            job.signs += 1
            self._expect(worker, job)
            return
        self.idle.append(worker)
        result = received(message)
        if self.limit is not None and isinstance(result, Failure):
            self._blame(job, result.reason)
        else:
            self.done.append((job.task, result))

    def _blame(self, job: _Job, cause: str | None) -> None:
        """Decide what becomes of a task that came to nothing."""
        if self.limit is not None:
            self.limit.strike(job.task, job.signs, cause)
            self.backlog.give_back(job.task)
        elif job.died:
            self.done.append((job.task, Failure.twice(job.died, str(cause))))
        else:
            job.died = str(cause)
            self.suspects.append(job)
