"""Workers that are processes of this machine: each is spawned, with a pipe of its own."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from threading import Thread
from typing import Any

from simulator.errors import ConfigError, why
from simulator.support.crew.backlog import Backlog
from simulator.support.crew.failure import answer
from simulator.support.crew.supervisor import Crew, Limit, Lost
from simulator.support.own import with_pieces

# Not forked from this process: threads and locks do not survive that. Not from a fork server either: it would hand on
# this thread's signal mask to everybody else's processes.
_CONTEXT = get_context("spawn")

_LEAVE_SECONDS = 5.0
"""How long a process that has nothing to do may take to end."""


@dataclass(eq=False, slots=True)
class _Process:
    process: SpawnProcess
    pipe: Connection[Any, Any]
    """This end of it."""
    started: bool = False
    code: int | None = None
    """Its exit code, once it is gone."""


def process_crew(
    function: Callable[..., Any], backlog: Backlog[Any], jobs: int, limit: Limit | None = None
) -> Crew[_Process]:
    """Return a crew of processes that do ``function(task)``, and end with this one, whatever ends it.

    With a limit, the function is also given ``beat``, a function that it calls to give a sign of life.

    Raises
    ------
    ConfigError
        If the function cannot be sent; from `Crew.results`, if a process cannot start.
    """
    return Crew(_Processes(function, jobs, limit is not None), backlog, alone=limit is None, limit=limit)


class _Processes:
    def __init__(self, function: Callable[..., Any], jobs: int, signs: bool) -> None:
        self.jobs = jobs
        try:
            self.payload = pickle.dumps((with_pieces(function), signs), pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            raise ConfigError(f"what is to run cannot be sent to another process: {why(error)}") from None

    def room(self) -> int:
        return self.jobs

    def hire(self) -> _Process:
        mine, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_serve, args=(theirs, self.payload), daemon=True)
        try:
            with _no_interrupts():
                process.start()
        except OSError as error:
            mine.close()
            raise ConfigError(f"cannot start another process: {error.strerror}") from None
        finally:
            theirs.close()
        return _Process(process, mine)

    def dumps(self, task: object) -> bytes:
        return pickle.dumps(task)

    def give(self, worker: _Process, message: bytes) -> None:
        try:
            worker.pipe.send_bytes(message)
        except OSError:
            worker.process.kill()
            raise Lost(_ending(_end(worker))) from None

    def hear(self, worker: _Process) -> bytes:
        try:
            message = worker.pipe.recv_bytes()
        except (EOFError, OSError):
            code = _end(worker)
            said = f"a process could not start ({_ending(code)}); a script that uses processes does so under "
            said += "'if __name__ == \"__main__\":'"
            # What was ended by a signal may start the next time.
            raise Lost(_ending(code), said, hopeless=code >= 0) from None
        if message and not worker.started:
            complaint = f"what is to run cannot be loaded in another process: {message.decode()}"
            raise Lost(_ending(_end(worker)), complaint, hopeless=True)
        worker.started = True
        return message

    def wait(self, workers: Sequence[_Process], seconds: float | None) -> list[_Process]:
        of = {worker.pipe: worker for worker in workers}
        return [of[pipe] for pipe in wait([*of], seconds)]  # type: ignore[index]  # of pipes, not of sockets

    def end(self, workers: Sequence[_Process], *, kill: bool) -> None:
        for worker in workers:
            worker.pipe.close()  # which it takes as a request to leave
            if kill and worker.code is None:
                worker.process.kill()
        for worker in workers:
            _end(worker)


def _end(worker: _Process) -> int:
    """Wait until a process is gone, and return its exit code. Again it returns the same: an interrupt may come at any
    time.
    """
    if worker.code is None:
        worker.pipe.close()
        worker.process.join(_LEAVE_SECONDS)
        if worker.process.exitcode is None:
            worker.process.kill()
            worker.process.join()
        worker.code = worker.process.exitcode or 0
        worker.process.close()
    return worker.code


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
    resource_tracker.ensure_running()  # or the first process would start it, and it lets Ctrl-C through when it has
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
        function, signs = pickle.loads(payload)
    except Exception as error:
        pipe.send_bytes(why(error).encode())
        return
    if signs:
        function = partial(function, beat=lambda: pipe.send_bytes(b""))
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
