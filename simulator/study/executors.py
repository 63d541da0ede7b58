"""Where the runs of a study are done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from simulator.errors import SimulatorError

__all__ = ["Executor", "Failure", "Serial"]

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Failure:
    """A task that has no result."""

    reason: str
    """One line."""
    died: bool = False
    """Whether the process that ran it died, and died again when it was tried once more."""


class Executor(Protocol):
    """What does tasks."""

    def imap(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[tuple[T, R | Failure]]:
        """Yield each task with its result, or why it has none, as they come."""
        ...


@dataclass(frozen=True)
class Serial:
    """One after another, in this process."""

    def imap(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[tuple[T, R | Failure]]:
        """Yield each task with its result, or why it has none, in order."""
        for task in tasks:
            try:
                yield task, function(task)
            except SimulatorError as error:
                yield task, Failure(str(error))
