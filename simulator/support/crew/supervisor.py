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

_STARTS = 3
"""Workers in a row that may be lost before they do anything."""

_START_SECONDS = 120.0
"""How long a worker may take to start, where there is a limit of time."""


class Lost(Exception):
    """A worker is gone, and what was left of it has been ended. The text says how it ended.

    `cannot_start`, for a worker that had not started, is what to say if others do not start either; it is `hopeless`
    to try again where they would end the same way.
    """

    def __init__(self, how: str, cannot_start: str = "", *, hopeless: bool = False) -> None:
        super().__init__(how)
        self.cannot_start, self.hopeless = cannot_start, hopeless


W = TypeVar("W", bound=Hashable)


class Transport(typing.Protocol[W]):
    """Where workers come from, and how they are reached. `give` and `hear` may raise `Lost`."""

    def room(self) -> int:
        """Return how many workers there may be at once."""

    def hire(self) -> W:
        """Start another worker. Its first message says that it has started."""

    def dumps(self, task: object) -> bytes:
        """Return a task as a message."""

    def give(self, worker: W, message: bytes) -> None:
        """Send a worker a task."""

    def hear(self, worker: W) -> bytes:
        """Return a message of a worker: the result of its task, or nothing, which is a sign of life."""

    def wait(self, workers: Sequence[W], seconds: float | None) -> Iterable[W]:
        """Return those workers that have a message, as soon as there is one, or none when the time is up."""

    def end(self, workers: Sequence[W], *, kill: bool) -> None:
        """Make workers leave, or kill them, and wait until they are gone."""


class Limit(NamedTuple):
    """A limit of time, for workers that give a sign of life after each part of a task."""

    seconds: float
    """How long a worker may be silent before it is killed."""
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

    `alone` says whether a task is tried again only while nobody else does anything: it may have been the machine that
    ran out of memory. On a cluster, which loses whole nodes, others need not wait for that. With a `limit`, a task is
    instead done again without the part that is to blame.
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
            self._end([worker for worker in self.workers if worker not in self.idle], kill=True)
            self._end(self.idle, kill=False)

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
            room = 0 if self.idle else self.transport.room() - len(self.workers)
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

    def _end(self, workers: Sequence[W], *, kill: bool) -> None:
        self.transport.end(workers, kill=kill)
        for worker in [*workers]:
            self._forget(worker)

    def _forget(self, worker: W) -> None:
        self.workers.remove(worker)
        if worker in self.idle:
            self.idle.remove(worker)
        self.fresh.discard(worker)
        self.backlog.dismiss(worker)

    def _try_alone(self) -> None:
        self._end([worker for worker in self.idle if worker not in self.fresh], kill=False)  # they may hold memory
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
        try:
            self.transport.give(worker, message)
        except Lost:  # it died while it had nothing to do
            self._forget(worker)
            if job.died:
                self.suspects.appendleft(job)
                self._start()
            else:
                self.backlog.give_back(job.task)
            return True
        self.idle.remove(worker)
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
            self._end([worker], kill=True)
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
            self.transport.hear(worker)
        except Lost as lost:
            self._forget(worker)
            self.lost_starts += 1
            if lost.hopeless or self.lost_starts >= _STARTS:
                raise ConfigError(lost.cannot_start) from None
            return
        self.lost_starts = 0
        self.fresh.add(worker)
        self.idle.append(worker)

    def _collect(self, worker: W, job: _Job) -> None:
        try:
            message = self.transport.hear(worker)
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
