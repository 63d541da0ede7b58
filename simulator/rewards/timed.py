"""A bound on the time of each rollout: processes that are watched, and ended when a row takes too long.

Nothing less will do: a decoder, a token counter or a term of the caller's may hang in C code, where no exception and no
signal gets through. A watched process says after each row that it is alive. One that has been silent for too long is
killed, its row is taken for a bad one, and the chunk is scored again without it: so all other rows come out as they
would without a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from typing import Any

from simulator.errors import ConfigError, FormatError
from simulator.support.crew.backlog import Backlog
from simulator.support.crew.failure import Failure
from simulator.support.crew.processes import process_crew
from simulator.support.crew.supervisor import Limit

Chunk = list[tuple[Any, Any]]


def map_watched(work: Callable[..., Any], chunks: Iterable[Chunk], *, seconds: float, workers: int) -> list[Any]:
    """Return ``work(chunk)`` of each chunk, where no row may take more than `seconds`.

    `work` must be picklable, and call the function given as ``beat`` after each row.
    """
    limit = Limit(seconds, partial(_strike, seconds))
    crew = process_crew(partial(_score, work), Backlog(enumerate(chunks)), workers, limit)
    parts: dict[int, Any] = {}
    with closing(crew.results()) as results:
        for (number, _), part in results:
            if isinstance(part, Failure):
                raise ConfigError(part.reason)
            parts[number] = part
    return [parts[number] for number in sorted(parts)]


def _score(work: Callable[..., Any], task: tuple[int, Chunk], beat: Callable[[], None]) -> Any:
    return work(task[1], beat=beat)


def _strike(seconds: float, task: tuple[int, Chunk], row: int, cause: str | None) -> None:
    """Take the row that was being scored for a bad one."""
    _, chunk = task
    if row >= len(chunk):
        raise ConfigError(f"{len(chunk)} scored rows were not handed over within {seconds:g} s")
    why = f"took more than {seconds:g} s" if cause is None else "ended the process that scored it"
    chunk[row] = (FormatError(why), None)
