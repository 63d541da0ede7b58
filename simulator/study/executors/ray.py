"""Tasks on a Ray cluster, of which any worker and any node may die at any time."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import simulator
from simulator.errors import ConfigError, why
from simulator.study.executors.backlog import Backlog
from simulator.study.executors.failure import Failure, answer, received, sent

__all__ = ["LOCAL", "check_address", "map_on_ray"]

T = TypeVar("T")
R = TypeVar("R")

LOCAL = "local"
"""The address of a cluster that is started on this machine, for the time it is needed."""

_SERVER = re.compile(r"(?:ray://)?(?P<host>[\w.-]+|\[[\da-fA-F:.]+\]):(?P<port>\d{1,5})")
_REACH_SECONDS = 10.0

_STARTS = 3
"""Actors in a row that may be lost before they run anything."""


def map_on_ray(
    function: Callable[[T], R],
    tasks: Iterable[T],
    address: str,
    cpus: int | None,
    by: Callable[[T], Hashable] | None,
) -> Generator[tuple[T, R | Failure], None, None]:
    """Yield each task with ``function(task)``, in order of completion.

    Parameters
    ----------
    function : callable
        Put into the object store once, and loaded once by each actor.
    tasks : iterable
        Taken one by one: as many are under way as there are actors, which is one a CPU.
    address : str
        Of the cluster (see `Ray`).
    cpus : int or None
        Tasks that run at once.
    by : callable or None
        What a task has in common with others (see `Backlog`).

    Raises
    ------
    ConfigError
        If ray is not installed, the cluster cannot be reached, or forksim on it is missing or another version.
    """
    ray = _load()
    with _connected(ray, address, cpus):
        _check_version(ray)
        crew = _Crew(ray, function, Backlog(iter(tasks), by), cpus)
        try:
            while crew.hand_out():
                if not crew.done:
                    crew.listen()
                    crew.hand_out()
                while crew.done:
                    yield crew.done.popleft()
        finally:
            crew.dismiss()


def check_address(address: object) -> None:
    """Raise `ConfigError` for what is no address of a cluster.

    >>> check_address("head:6379")
    >>> check_address("head")
    Traceback (most recent call last):
    simulator.errors.ConfigError: a Ray address is 'local', 'auto', 'HOST:PORT' or 'ray://HOST:PORT', got 'head'
    """
    if not isinstance(address, str) or not (address in (LOCAL, "auto") or _SERVER.fullmatch(address)):
        raise ConfigError(f"a Ray address is 'local', 'auto', 'HOST:PORT' or 'ray://HOST:PORT', got {address!r}")


def _load() -> Any:
    try:
        import ray
    except ImportError:
        raise ConfigError("running on Ray needs ray: pip install 'forksim[ray]'") from None
    return ray


@contextmanager
def _connected(ray: Any, address: str, cpus: int | None) -> Iterator[None]:
    """Connect, unless the caller has done so already."""
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        options |= {"num_cpus": cpus, "include_dashboard": False}
    try:
        if server := _SERVER.fullmatch(address):  # ray itself would try for minutes
            where = server["host"].strip("[]"), int(server["port"])
            socket.create_connection(where, _REACH_SECONDS).close()
        with _no_reports():
            ray.init(**options)
    except Exception as error:  # of several types, by what is wrong
        raise ConfigError(f"no Ray cluster at {address!r}: {why(error)}") from None
    # What it has to say of a worker that died would go to stdout, log_to_driver or not.
    with suppress(AttributeError):
        sys.modules["ray._private.worker"]._worker_logs_enabled = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _no_reports() -> Iterator[None]:
    """Start no reports on usage to Ray's makers, unless somebody asked for them."""
    name = "RAY_USAGE_STATS_ENABLED"
    if name in os.environ:
        yield
        return
    os.environ[name] = "0"
    try:
        yield
    finally:
        os.environ.pop(name, None)


def _check_version(ray: Any) -> None:
    def version() -> str:  # sent by value: it must run where forksim is not installed
        try:
            import simulator
        except ImportError as error:
            return f"not there ({error})"
        return simulator.__version__

    there = ray.get(ray.remote(max_retries=3)(version).remote())
    if there != simulator.__version__:
        raise ConfigError(
            f"forksim is {simulator.__version__} here and {there} on the Ray cluster: install the same on its nodes"
        )


class _Actor:
    """One process on the cluster; this class runs there."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def greet(self) -> None:
        """Say that it is there."""

    def do(self, message: bytes) -> bytes:
        return answer(self.function, message)


@dataclass(eq=False, slots=True)
class _Worker:
    """An actor, as its employer knows it."""

    actor: Any


class _Crew:
    """All actors, and who does what. Like that of processes, but what was lost is not tried again alone: a cluster
    loses nodes, and others need not wait for that.
    """

    def __init__(self, ray: Any, function: Callable[[Any], Any], backlog: Backlog[Any], cpus: int | None) -> None:
        self.ray = ray
        self.function = ray.put(function)
        self.backlog = backlog
        self.cpus = cpus
        self.make = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Actor).remote
        self.again: deque[tuple[Any, str]] = deque()
        self.done: deque[tuple[Any, Any]] = deque()
        self.idle: list[_Worker] = []
        self.starting: dict[Any, _Worker] = {}
        self.busy: dict[Any, tuple[_Worker, Any, str]] = {}
        self.workers: list[_Worker] = []
        self.lost_starts = 0

    def hand_out(self) -> bool:
        """Give tasks to actors; return whether there is anything to wait for."""
        while self.idle and (self.again or self.backlog.at_least(1)):
            worker = self.idle[-1]
            task, died = self.again.popleft() if self.again else (self.backlog.take(worker), "")
            message = sent(task, self.ray.cloudpickle.dumps)
            if isinstance(message, Failure):
                self.done.append((task, message))
                return True  # and no further before this was seen
            self.idle.pop()
            self.busy[worker.actor.do.remote(message)] = worker, task, died
        if not self.idle:
            room = (self.cpus or self._cpus_there()) - len(self.workers)
            while room > 0 and (len(self.again) > len(self.starting) or self.backlog.at_least(len(self.starting) + 1)):
                self._start()
                room -= 1
        needed = self.again or self.backlog.at_least(1)
        return bool(self.done or self.busy or (self.starting and needed))

    def _cpus_there(self) -> int:
        return max(1, int(self.ray.cluster_resources().get("CPU", 1)))  # a cluster may grow

    def _start(self) -> None:
        worker = _Worker(self.make(self.function))
        self.workers.append(worker)
        self.starting[worker.actor.greet.remote()] = worker

    def _end(self, worker: _Worker) -> None:
        self.workers.remove(worker)
        self.backlog.dismiss(worker)
        with suppress(Exception):
            self.ray.kill(worker.actor)

    def listen(self) -> None:
        """Wait for actors, and take what they have."""
        refs = [*self.busy, *self.starting]
        for ref in self.ray.wait(refs, num_returns=len(refs), timeout=0)[0] or self.ray.wait(refs)[0]:
            if ref in self.starting:
                self._greet(ref, self.starting.pop(ref))
            else:
                self._collect(ref, *self.busy.pop(ref))

    def _greet(self, ref: Any, worker: _Worker) -> None:
        try:
            self.ray.get(ref)
        except self.ray.exceptions.RayError as error:
            self._end(worker)
            self.lost_starts += 1
            if self.lost_starts >= _STARTS:
                raise ConfigError(f"what is to run cannot be started on the Ray cluster: {why(error)}") from None
            return
        self.lost_starts = 0
        self.idle.append(worker)

    def _collect(self, ref: Any, worker: _Worker, task: Any, died: str) -> None:
        try:
            message = self.ray.get(ref)
        except self.ray.exceptions.RayError as error:
            self._end(worker)
            cause = type(error).__name__
            if died:
                self.done.append((task, Failure.twice(died, cause)))
            else:
                self.again.append((task, cause))
            return
        self.idle.append(worker)
        self.done.append((task, received(message)))

    def dismiss(self) -> None:
        """End all actors, whatever they do."""
        while self.workers:
            self._end(self.workers[-1])
