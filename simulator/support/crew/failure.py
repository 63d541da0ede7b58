"""What comes of a task that came to nothing, here or in another process."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from simulator.errors import why

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Failure:
    """A task that has no result."""

    reason: str
    """One line: what a `SimulatorError` says, or the type and text of any other exception."""
    died: bool = False
    """Whether the process that ran it died, and died again when it was tried once more."""

    @classmethod
    def twice(cls, first: str, second: str) -> Self:
        """Return what becomes of a task whose process died, and died again.

        >>> Failure.twice("SIGSEGV", "exit code 3").reason
        'its process died, twice: SIGSEGV, then exit code 3'
        """
        return cls(f"its process died, twice: {second if first == second else f'{first}, then {second}'}", died=True)


Results = Generator[tuple[T, R | Failure], None, None]
"""Tasks, each with its result or what it came to."""
Key = Callable[[T], Hashable] | None
"""What a task has in common with others; see `Backlog`."""


def attempt(function: Callable[[T], R], task: T) -> R | Failure:
    """Return what the function returns, or the failure that its exception amounts to.

    >>> attempt(int, "12"), attempt(int, "a dozen")
    (12, Failure(reason="ValueError: invalid literal for int() with base 10: 'a dozen'", died=False))
    """
    try:
        return function(task)
    except (Exception, SystemExit) as error:
        return Failure(why(error))


def sent(task: object, dumps: Callable[[Any], bytes]) -> bytes | Failure:
    """Return a task as a message to another process, written by `dumps`; or why it cannot be one."""
    try:
        return dumps(task)
    except Exception as error:
        return Failure(f"the task cannot be sent to another process: {why(error)}")


def answer(function: Callable[[Any], Any], message: bytes) -> bytes:
    """Return what another process answers: the result of the task that it was sent, or the failure.

    >>> received(answer(abs, pickle.dumps(-3)))
    3
    """
    try:
        task = pickle.loads(message)
    except Exception as error:
        return pickle.dumps(Failure(f"the task cannot be read in another process: {why(error)}"))
    result = attempt(function, task)
    try:
        return pickle.dumps(result, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        return pickle.dumps(Failure(f"its result cannot be sent to another process: {why(error)}"))


def received(message: bytes) -> Any:
    """Return what is in an answer: a result, or a failure."""
    try:
        return pickle.loads(message)
    except Exception as error:
        return Failure(f"its result cannot be read: {why(error)}")
