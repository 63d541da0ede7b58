"""Tasks on a Ray cluster, of which any worker and any node may die at any time."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import simulator
from simulator.errors import ConfigError, why
from simulator.study.failure import Failure, attempt

__all__ = ["LOCAL", "check_address", "map_on_ray"]

T = TypeVar("T")
R = TypeVar("R")

LOCAL = "local"
"""The address of a cluster that is started on this machine, for the time it is needed."""

_SERVER = re.compile(r"(?:ray://)?(?P<host>[\w.-]+|\[[\da-fA-F:.]+\]):(?P<port>\d{1,5})")
_REACH_SECONDS = 10.0

_LOST = (
    "WorkerCrashedError",
    "NodeDiedError",
    "LocalRayletDiedError",
    "OutOfMemoryError",
    "ObjectLostError",
    "OwnerDiedError",
)
"""What Ray raises when a task and its process, or node, are gone."""


def map_on_ray(
    function: Callable[[T], R], tasks: Iterable[T], address: str, cpus: int | None
) -> Generator[tuple[T, R | Failure], None, None]:
    """Yield each task with ``function(task)``, in order of completion.

    Parameters
    ----------
    function : callable
        Put into the object store once.
    tasks : iterable
        Taken one by one: twice as many as the cluster has CPUs are under way.
    address : str
        Of the cluster (see `Ray`).
    cpus : int or None
        Tasks that run at once.

    Raises
    ------
    ConfigError
        If ray is not installed, the cluster cannot be reached, or forksim on it is missing or another version.
    """
    ray = _load()
    with _connected(ray, address, cpus):
        _check_version(ray)
        yield from _run(ray, function, iter(tasks), None if address == LOCAL else cpus)


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


def _run(
    ray: Any, function: Callable[[Any], Any], tasks: Iterator[Any], most: int | None
) -> Generator[tuple[Any, Any], None, None]:
    lost = tuple(getattr(ray.exceptions, name) for name in _LOST)
    call = ray.remote(max_retries=0)(attempt)
    shared = ray.put(function)
    limit = unseen = most or _twice_the_cpus(ray)
    again: deque[tuple[Any, str]] = deque()
    pending: dict[Any, tuple[Any, str]] = {}

    def collect(ref: Any) -> Any:
        task, died = pending.pop(ref)
        try:
            return task, ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            return task, Failure(f"the task or its result cannot be sent: {why(error.cause)}")
        except lost as error:
            cause = type(error).__name__
            if not died:
                again.append((task, cause))
                return None
            causes = cause if cause == died else f"{died}, then {cause}"
            return task, Failure(f"its process died, twice: {causes}", died=True)
        except ray.exceptions.RayError as error:
            return task, Failure(why(error))

    def hand_out() -> Iterator[tuple[Any, Failure]]:
        while len(pending) < limit:
            try:
                task, died = again.popleft() if again else (next(tasks), "")
            except StopIteration:
                return
            try:
                pending[call.remote(shared, task)] = task, died
            except Exception as error:
                yield task, Failure(f"the task cannot be sent to another process: {why(error)}")

    try:
        while True:
            yield from hand_out()
            if not pending:
                return
            refs = list(pending)
            ready = ray.wait(refs, num_returns=len(refs), timeout=0)[0] or ray.wait(refs, num_returns=1)[0]
            for ref in ready:
                done = collect(ref)
                yield from hand_out()
                if done is not None:
                    yield done
                unseen -= 1
            if not most and unseen <= 0:  # a cluster may grow
                limit = unseen = _twice_the_cpus(ray)
    finally:
        for ref in pending:
            with suppress(Exception):
                ray.cancel(ref, force=True)


def _twice_the_cpus(ray: Any) -> int:
    return 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
