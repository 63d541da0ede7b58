"""What comes of a task that came to nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from simulator.errors import why

__all__ = ["Failure", "attempt"]

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Failure:
    """A task that has no result."""

    reason: str
    """One line: what a `SimulatorError` says, or the type and text of any other exception."""
    died: bool = False
    """Whether the process that ran it died, and died again when it was tried once more."""


def attempt(function: Callable[[T], R], task: T) -> R | Failure:
    """Return what the function returns, or the failure that its exception amounts to.

    >>> attempt(int, "12"), attempt(int, "a dozen")
    (12, Failure(reason="ValueError: invalid literal for int() with base 10: 'a dozen'", died=False))
    """
    try:
        return function(task)
    except (Exception, SystemExit) as error:
        return Failure(why(error))
