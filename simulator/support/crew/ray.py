"""Workers that are actors on a Ray cluster, of which any worker and any node may die at any time."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from simulator.errors import ConfigError, why
from simulator.support.crew.backlog import Backlog
from simulator.support.crew.failure import Results, answer
from simulator.support.crew.supervisor import Crew, Lost
from simulator.support.own import with_pieces
from simulator.support.version import VERSION

T = TypeVar("T")
R = TypeVar("R")

LOCAL = "local"
"""The address of a cluster that is started on this machine, for the time it is needed."""

_SERVER = re.compile(r"(?:ray://)?(?P<host>[\w.-]+|\[[\da-fA-F:.]+\]):(?P<port>\d{1,5})")
_REACH_SECONDS = 10.0


def map_on_ray(function: Callable[[T], R], backlog: Backlog[T], address: str, cpus: int | None) -> Results[T, R]:
    """Yield each task with ``function(task)``, in order of completion.

    Raises
    ------
    ConfigError
        If ray is not installed, the cluster cannot be reached, or forksim on it is missing or another version.
    """
    try:
        import ray
    except ImportError:
        raise ConfigError("running on Ray needs ray: pip install 'forksim[ray]'") from None
    with _connected(ray, address, cpus):
        _check_version(ray)
        yield from Crew(_Actors(ray, function, cpus), backlog).results()


def check_address(address: object) -> None:
    """Raise `ConfigError` for what is no address of a cluster.

    >>> check_address("head:6379")
    >>> check_address("head")
    Traceback (most recent call last):
    simulator.errors.ConfigError: a Ray address is 'local', 'auto', 'HOST:PORT' or 'ray://HOST:PORT', got 'head'
    """
    if not isinstance(address, str) or not (address in (LOCAL, "auto") or _SERVER.fullmatch(address)):
        raise ConfigError(f"a Ray address is 'local', 'auto', 'HOST:PORT' or 'ray://HOST:PORT', got {address!r}")


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
    before = os.environ.get(name)
    os.environ.setdefault(name, "0")
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


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


class _There:
    """One process on the cluster; this class runs there."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def greet(self) -> bytes:
        return b""

    def do(self, message: bytes) -> bytes:
        return answer(self.function, message)


@dataclass(eq=False, slots=True)
class _Actor:
    actor: Any
    ref: Any
    """Of the message that it is asked for."""


class _Actors:
    """Starts actors that do ``function(task)``, each on one CPU of the cluster."""

    def __init__(self, ray: Any, function: Callable[[Any], Any], cpus: int | None) -> None:
        self.ray = ray
        self.function = ray.put(with_pieces(function))
        self.cpus = cpus
        self.make = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_There).remote

    def room(self) -> int:
        return self.cpus or max(1, int(self.ray.cluster_resources().get("CPU", 1)))  # a cluster may grow

    def hire(self) -> _Actor:
        actor = self.make(self.function)
        return _Actor(actor, actor.greet.remote())

    def dumps(self, task: object) -> bytes:
        message: bytes = self.ray.cloudpickle.dumps(task)
        return message

    def give(self, worker: _Actor, message: bytes) -> None:
        worker.ref = worker.actor.do.remote(message)

    def hear(self, worker: _Actor) -> bytes:
        try:
            message: bytes = self.ray.get(worker.ref)
        except self.ray.exceptions.RayError as error:
            self.end([worker], kill=True)
            said = f"what is to run cannot be started on the Ray cluster: {why(error)}"
            raise Lost(type(error).__name__, said) from None
        return message

    def wait(self, workers: Sequence[_Actor], seconds: float | None) -> list[_Actor]:
        of = {worker.ref: worker for worker in workers}
        # All that are ready, or else the first one to be.
        ready = self.ray.wait([*of], num_returns=len(of), timeout=0)[0] or self.ray.wait([*of], timeout=seconds)[0]
        return [of[ref] for ref in ready]

    def end(self, workers: Sequence[_Actor], *, kill: bool) -> None:
        for worker in workers:
            with suppress(Exception):
                self.ray.kill(worker.actor)
