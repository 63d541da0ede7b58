"""Worker processes, any of which may die at any time.

Each has a pipe of its own and one task at a time, so it is always known whose task it was. A pool with a shared queue
(concurrent.futures, multiprocessing) breaks as a whole when one process dies, and cannot say which task killed it.
"""

from __future__ import annotations

import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import Any, Generic, TypeVar

from simulator.errors import ConfigError, why
from simulator.study.executors.backlog import Backlog
from simulator.study.executors.failure import Failure, answer, received, sent

__all__ = ["map_in_processes"]

T = TypeVar("T")
R = TypeVar("R")

# Not forked from this process: threads and locks do not survive that. Not from a fork server either: it would hand on
# this thread's signal mask to everybody else's processes.
_CONTEXT = get_context("spawn")

_STARTS = 3
"""Processes in a row that may be killed from outside before they run anything."""

_LEAVE_SECONDS = 5.0
"""How long a process that has nothing to do may take to end."""


def map_in_processes(
    function: Callable[[T], R], tasks: Iterable[T], jobs: int, by: Callable[[T], Hashable] | None
) -> Generator[tuple[T, R | Failure], None, None]:
    """Yield each task with ``function(task)``, in order of completion.

    Parameters
    ----------
    function : callable
        Sent once to each process.
    tasks : iterable
        Taken one by one: at most `jobs` are under way, and at most as many results wait to be yielded.
    jobs : int
        Processes.
    by : callable or None
        What a task has in common with others (see `Backlog`).

    Raises
    ------
    ConfigError
        If the function cannot be sent, or a process cannot start.
    """
    try:
        payload = pickle.dumps(function, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise ConfigError(f"what is to run cannot be sent to another process: {why(error)}") from None
    return _run(_Crew(payload, Backlog(iter(tasks), by), jobs))


def _run(crew: _Crew) -> Generator[tuple[Any, Any], None, None]:
    try:
        while crew.hand_out():
            if not crew.done:
                crew.listen()
                crew.hand_out()  # before the caller, who may be slow, gets to see anything
            while crew.done:
                yield crew.done.popleft()
    finally:
        crew.dismiss()


class _Worker:
    """One process, and this end of its pipe."""

    def __init__(self, payload: bytes) -> None:
        self.fresh = True
        self.pipe, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_serve, args=(theirs, payload), daemon=True)
        try:
            with _no_interrupts():
                self.process.start()
        except OSError as error:
            self.pipe.close()
            raise ConfigError(f"cannot start another process: {error.strerror}") from None
        finally:
            theirs.close()

    def end(self, *, kill: bool) -> int:
        """End it, and return its exit code."""
        self.pipe.close()  # which it takes as a request to leave
        if kill:
            self.process.kill()
        self.process.join(_LEAVE_SECONDS)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        code = self.process.exitcode
        assert code is not None
        self.process.close()
        return code


@dataclass(slots=True)
class _Job(Generic[T]):
    task: T
    died: str = ""
    """What became of the process that ran it before."""


@dataclass
class _Crew:
    """All workers, and who does what."""

    payload: bytes
    backlog: Backlog[Any]
    jobs: int
    suspects: deque[_Job[Any]] = field(default_factory=deque)
    """Tasks whose process died. Each is tried once more, alone: it may have been the machine that ran out of memory."""
    done: deque[tuple[Any, Any]] = field(default_factory=deque)
    idle: list[_Worker] = field(default_factory=list)
    starting: dict[Connection[Any, Any], _Worker] = field(default_factory=dict)
    busy: dict[Connection[Any, Any], tuple[_Worker, _Job[Any]]] = field(default_factory=dict)
    workers: list[_Worker] = field(default_factory=list)
    """All of them: an interrupt may come while one is neither idle nor starting nor busy."""
    killed_starts: int = 0

    def hand_out(self) -> bool:
        """Give tasks to workers; return whether there is anything to wait for."""
        if self.suspects:
            if not self.busy and not self.starting:
                self._try_alone()
        else:
            while self.idle and self.backlog.at_least(1):
                worker = self.idle[-1]
                if not self._give(worker, _Job(self.backlog.take(worker))):
                    break
            while not self.idle and len(self.workers) < self.jobs and self.backlog.at_least(len(self.starting) + 1):
                self._start()
        return bool(self.done or self.busy or self.starting)

    def _start(self) -> None:
        worker = _Worker(self.payload)
        self.workers.append(worker)
        self.starting[worker.pipe] = worker

    def _end(self, worker: _Worker, *, kill: bool = False) -> int:
        code = worker.end(kill=kill)
        self.workers.remove(worker)
        self.backlog.dismiss(worker)
        return code

    def _try_alone(self) -> None:
        for worker in [each for each in self.idle if not each.fresh]:
            self.idle.remove(worker)
            self._end(worker)
        if not self.idle:
            self._start()
        else:
            self._give(self.idle[-1], self.suspects.popleft())

    def _give(self, worker: _Worker, job: _Job[Any]) -> bool:
        """Send a task to an idle worker; return whether the next one may be sent."""
        message = sent(job.task, pickle.dumps)
        if isinstance(message, Failure):
            self.done.append((job.task, message))
            return False  # not before this was seen
        self.idle.remove(worker)
        try:
            worker.pipe.send_bytes(message)
        except OSError:  # it died while it had nothing to do
            self._end(worker, kill=True)
            if job.died:
                self.suspects.appendleft(job)
                self._start()
            else:
                self.backlog.give_back(job.task)
            return True
        worker.fresh = False
        self.busy[worker.pipe] = worker, job
        return True

    def listen(self) -> None:
        """Wait for workers, and take what they have."""
        for pipe in wait([*self.busy, *self.starting]):
            assert isinstance(pipe, Connection)
            if pipe in self.starting:
                self._greet(self.starting.pop(pipe))
            else:
                self._collect(*self.busy.pop(pipe))

    def _greet(self, worker: _Worker) -> None:
        try:
            complaint = worker.pipe.recv_bytes()
        except (EOFError, OSError):
            code = self._end(worker)
            self.killed_starts += 1
            if code >= 0 or self.killed_starts >= _STARTS:
                raise ConfigError(
                    f"a process could not start ({_ending(code)}); a script that uses processes does so under "
                    "'if __name__ == \"__main__\":'"
                ) from None
            return
        if complaint:
            raise ConfigError(f"what is to run cannot be loaded in another process: {complaint.decode()}")
        self.killed_starts = 0
        self.idle.append(worker)

    def _collect(self, worker: _Worker, job: _Job[Any]) -> None:
        try:
            message = worker.pipe.recv_bytes()
        except (EOFError, OSError):
            cause = _ending(self._end(worker))
            if job.died:
                self.done.append((job.task, Failure.twice(job.died, cause)))
            else:
                job.died = cause
                self.suspects.append(job)
            return
        self.idle.append(worker)
        self.done.append((job.task, received(message)))

    def dismiss(self) -> None:
        """End all processes; at once those that are at work."""
        for worker in self.workers:
            if worker in self.idle:
                worker.pipe.close()
            else:
                worker.process.kill()
        while self.workers:
            self._end(self.workers[-1])


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, as when memory runs out" if name == "SIGKILL" else name


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back; a process that starts here inherits that, and prints no traceback while it starts."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ---------------------------------------------------------------- in the other process


def _serve(pipe: Connection[Any, Any], payload: bytes) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started this sees to it
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    Thread(target=_leave_with_parent, daemon=True).start()
    try:
        function = pickle.loads(payload)
    except Exception as error:
        pipe.send_bytes(why(error).encode())
        return
    try:
        pipe.send_bytes(b"")
        while True:
            pipe.send_bytes(answer(function, pipe.recv_bytes()))
    except (EOFError, OSError):  # nobody wants anything any more
        return


def _leave_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
