"""Workers that are processes of this machine: each is spawned, with a pipe of its own."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import Any

from simulator.errors import ConfigError, why
from simulator.support.crew.failure import answer
from simulator.support.crew.supervisor import Lost

__all__ = ["ProcessTransport"]

# Not forked from this process: threads and locks do not survive that. Not from a fork server either: it would hand on
# this thread's signal mask to everybody else's processes.
_CONTEXT = get_context("spawn")

_LEAVE_SECONDS = 5.0
"""How long a process that has nothing to do may take to end."""


class ProcessTransport:
    """Starts processes that do ``function(task)``, and end with this one, whatever ends it.

    Parameters
    ----------
    function : callable
        Sent once to each process.
    jobs : int
        Processes at once.
    signs : bool
        Whether the function is also given ``beat``, a function that it calls to give a sign of life.

    Raises
    ------
    ConfigError
        If the function cannot be sent; from `hire`, if a process cannot start.
    """

    def __init__(self, function: Callable[..., Any], jobs: int, *, signs: bool = False) -> None:
        self.jobs = jobs
        try:
            self.payload = pickle.dumps((function, signs), pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            raise ConfigError(f"what is to run cannot be sent to another process: {why(error)}") from None

    def dumps(self, task: object) -> bytes:
        """Return a task as a message."""
        return pickle.dumps(task)

    def room(self) -> int:
        """Return how many processes there may be at once."""
        return self.jobs

    def hire(self) -> _Process:
        """Start another process."""
        return _Process(self.payload)

    def wait(self, workers: Sequence[_Process], seconds: float | None) -> list[_Process]:
        """Return the processes that have a message."""
        of = {worker.pipe: worker for worker in workers}
        return [of[pipe] for pipe in wait([*of], seconds)]  # type: ignore[index]  # of pipes, not of sockets


class _Process:
    """One process, and this end of its pipe."""

    def __init__(self, payload: bytes) -> None:
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

    def greet(self) -> None:
        try:
            complaint = self.pipe.recv_bytes()
        except (EOFError, OSError):
            code = self.end()
            said = f"a process could not start ({_ending(code)}); a script that uses processes does so under "
            said += "'if __name__ == \"__main__\":'"
            raise Lost(said, hopeless=code >= 0) from None  # what was ended by a signal may start the next time
        if complaint:
            self.end()
            raise Lost(f"what is to run cannot be loaded in another process: {complaint.decode()}", hopeless=True)

    def give(self, message: bytes) -> None:
        try:
            self.pipe.send_bytes(message)
        except OSError:
            self.dismiss(kill=True)
            raise Lost(_ending(self.end())) from None

    def hear(self) -> bytes:
        try:
            return self.pipe.recv_bytes()
        except (EOFError, OSError):
            raise Lost(_ending(self.end())) from None

    def dismiss(self, *, kill: bool) -> None:
        if kill:
            self.process.kill()
        else:
            self.pipe.close()  # which it takes as a request to leave

    def end(self) -> int:
        """Wait until it is gone, and return its exit code."""
        self.pipe.close()
        self.process.join(_LEAVE_SECONDS)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        code = self.process.exitcode
        assert code is not None
        self.process.close()
        return code


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
