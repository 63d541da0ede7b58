"""Who does the runs of a study: this process, several processes on this machine, or a Ray cluster.

What is run and what comes of it are the same everywhere. Only the order of completion differs.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from simulator.support.checks import whole
from simulator.support.crew.backlog import Backlog
from simulator.support.crew.failure import Key, Results, attempt
from simulator.support.crew.processes import process_crew
from simulator.support.crew.ray import LOCAL, check_address, map_on_ray

T = TypeVar("T")
R = TypeVar("R")


class Executor(typing.Protocol):
    """Anything that runs a function on many tasks."""

    def imap(self, function: Callable[[T], R], tasks: Iterable[T], /, *, by: Key[T] = None) -> Results[T, R]:
        """Yield each task with its result, or the `Failure` it came to, in any order.

        Tasks are taken one by one as there is room for them, and no more than twice as many as can run at once are
        under way, their results included. Closing the generator, an exception, or Ctrl-C ends all work at once.

        Tasks that follow each other and have an equal key, ``by(task)``, are done by one worker where that keeps nobody
        waiting: it may keep what they share. For that, more of them may be taken ahead.
        """


@dataclass(frozen=True)
class Serial:
    """In this process, one after another. A task that ends the process ends everything.

    >>> list(Serial().imap(float, ["1.5", "x"]))
    [('1.5', 1.5), ('x', Failure(reason="ValueError: could not convert string to float: 'x'", died=False))]
    """

    def imap(self, function: Callable[[T], R], tasks: Iterable[T], /, *, by: Key[T] = None) -> Results[T, R]:
        """Yield each task with its result, in the order of the tasks (see `Executor.imap`)."""
        for task in tasks:
            yield task, attempt(function, task)


@dataclass(frozen=True)
class Processes:
    """In several processes on this machine.

    A process that dies, be it by a signal, by memory running out or by itself, is replaced. What it ran is tried once
    more, alone: nothing else runs meanwhile. If that process dies too, the task is a `Failure` with `died` set.
    Processes end with this one, whatever ends it.

    Parameters
    ----------
    jobs : int
        Processes, from 1.

    Raises
    ------
    ConfigError
        If `jobs` is out of range; from `imap`, if the function cannot be pickled, or processes cannot start.

    Notes
    -----
    Processes are spawned: the function, tasks and results are pickled, and a script that uses them does so under
    ``if __name__ == "__main__":``.

    >>> sorted(Processes(jobs=2).imap(abs, [-3, 4, -5]))
    [(-5, 5), (-3, 3), (4, 4)]
    """

    jobs: int = 2

    def __post_init__(self) -> None:
        whole("jobs", self.jobs)

    def imap(self, function: Callable[[T], R], tasks: Iterable[T], /, *, by: Key[T] = None) -> Results[T, R]:
        """Yield each task with its result, in order of completion (see `Executor.imap`)."""
        return process_crew(function, Backlog(iter(tasks), by), self.jobs).results()


@dataclass(frozen=True)
class Ray:
    """On a Ray cluster; needs the extra ``forksim[ray]``.

    A task whose worker or node dies is tried once more, and is a `Failure` with `died` set if that happens again.

    Parameters
    ----------
    address : str
        ``"local"`` starts a cluster on this machine, and stops it at the end; ``"auto"``, ``"HOST:PORT"`` or
        ``"ray://HOST:PORT"`` is one that runs, where this version of forksim must be installed. In a process that
        is connected to a cluster already, that one is used, and stays connected.
    cpus : int, optional
        Tasks that run at once, each on one CPU. Default: as many as the cluster has CPUs.

    Raises
    ------
    ConfigError
        If an argument is out of range; from `imap`, if ray is not installed here, forksim not there, or the cluster
        is out of reach.

    >>> Ray(cpus=0)
    Traceback (most recent call last):
    simulator.errors.ConfigError: cpus must be a whole number from 1, got 0
    """

    address: str = LOCAL
    cpus: int | None = None

    def __post_init__(self) -> None:
        check_address(self.address)
        if self.cpus is not None:
            whole("cpus", self.cpus)

    def imap(self, function: Callable[[T], R], tasks: Iterable[T], /, *, by: Key[T] = None) -> Results[T, R]:
        """Yield each task with its result, in order of completion (see `Executor.imap`)."""
        return map_on_ray(function, Backlog(iter(tasks), by), self.address, self.cpus)


def executor_from(jobs: int | None = None, ray: str | None = None) -> Serial | Processes | Ray:
    """Return what two options of a command line ask for.

    Parameters
    ----------
    jobs : int, optional
        Simulations at once. Default: 1, or all that a Ray cluster can run.
    ray : str, optional
        Address of a Ray cluster.

    Raises
    ------
    ConfigError
        If `jobs` is out of range.

    >>> executor_from(), executor_from(jobs=4), executor_from(jobs=4, ray="auto")
    (Serial(), Processes(jobs=4), Ray(address='auto', cpus=4))
    """
    if ray is not None:
        return Ray(ray, jobs)
    chosen = Processes(1 if jobs is None else jobs)
    return Serial() if chosen.jobs == 1 else chosen
