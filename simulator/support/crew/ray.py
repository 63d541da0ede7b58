"""Workers that are actors on a Ray cluster, of which any worker and any node may die at any time."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from simulator.errors import ConfigError, why
from simulator.support.crew.backlog import Backlog
from simulator.support.crew.failure import Failure, answer
from simulator.support.crew.supervisor import Crew, Lost
from simulator.support.version import VERSION

__all__ = ["LOCAL", "check_address", "map_on_ray"]

T = TypeVar("T")
R = TypeVar("R")

LOCAL = "local"
"""The address of a cluster that is started on this machine, for the time it is needed."""

_SERVER = re.compile(r"(?:ray://)?(?P<host>[\w.-]+|\[[\da-fA-F:.]+\]):(?P<port>\d{1,5})")
_REACH_SECONDS = 10.0


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
        yield from Crew(RayTransport(ray, function, cpus), Backlog(iter(tasks), by)).results()


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
            from simulator.support.version import VERSION
        except ImportError as error:
            return f"not there ({error})"
        return VERSION

    there = ray.get(ray.remote(max_retries=3)(version).remote())
    if there != VERSION:
        raise ConfigError(f"forksim is {VERSION} here and {there} on the Ray cluster: install the same on its nodes")


class RayTransport:
    """Starts actors that do ``function(task)``, each on one CPU of the cluster."""

    def __init__(self, ray: Any, function: Callable[[Any], Any], cpus: int | None) -> None:
        self.ray = ray
        self.function = ray.put(function)
        self.cpus = cpus
        self.make = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_There).remote

    def dumps(self, task: object) -> bytes:
        """Return a task as a message."""
        message: bytes = self.ray.cloudpickle.dumps(task)
        return message

    def room(self) -> int:
        """Return how many actors there may be at once: a cluster may grow."""
        return self.cpus or max(1, int(self.ray.cluster_resources().get("CPU", 1)))

    def hire(self) -> _Actor:
        """Start another actor."""
        return _Actor(self.ray, self.make(self.function))

    def wait(self, workers: Sequence[_Actor], seconds: float | None) -> list[_Actor]:
        """Return the actors that have a message."""
        of = {worker.ref: worker for worker in workers}
        # All that are ready, or else the first one to be.
        ready = self.ray.wait([*of], num_returns=len(of), timeout=0)[0] or self.ray.wait([*of], timeout=seconds)[0]
        return [of[ref] for ref in ready]


class _There:
    """One process on the cluster; this class runs there."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def greet(self) -> None:
        """Say that it is there."""

    def do(self, message: bytes) -> bytes:
        return answer(self.function, message)


class _Actor:
    """An actor, as its employer knows it, and what it is asked for."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self.ray = ray
        self.actor = actor
        self.ref = actor.greet.remote()

    def greet(self) -> None:
        try:
            self.ray.get(self.ref)
        except self.ray.exceptions.RayError as error:
            self.dismiss(kill=True)
            raise Lost(f"what is to run cannot be started on the Ray cluster: {why(error)}") from None

    def give(self, message: bytes) -> None:
        self.ref = self.actor.do.remote(message)

    def hear(self) -> bytes:
        try:
            message: bytes = self.ray.get(self.ref)
        except self.ray.exceptions.RayError as error:
            self.dismiss(kill=True)
            raise Lost(type(error).__name__) from None
        return message

    def dismiss(self, *, kill: bool) -> None:
        with suppress(Exception):
            self.ray.kill(self.actor)

    def end(self) -> None:
        """Do nothing: the cluster sees to it."""
