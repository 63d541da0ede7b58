"""What an engine is to the recorder: threads with a context, generations, and events with their times.

An engine holds one context a thread. The recorder opens a thread, perhaps on a prefix of its parent's context, gives
it tokens or text, and asks it to generate; what comes of it arrives as events from `poll`. Nothing here knows of Forks.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Key = tuple[int, int]
"""A thread: the number of its query in the run, and its number in the query."""


@dataclass(frozen=True, slots=True)
class Generate:
    """What a thread asks of the engine."""

    tokens: int
    """Tokens at most; exactly so many if `exact`."""
    exact: bool
    """Whether an end-of-sequence token is to be ignored."""
    stops: tuple[str, ...] = ()
    """Strings that the engine may end at. The recorder watches the text itself, so it need not."""
    missing: Callable[[str], str] | None = None
    """Given the text so far, the stop string that must have ended it (a beginning of one, if several could have)."""


@dataclass(frozen=True, slots=True)
class Began:
    """The engine began to work on a generation."""

    key: Key
    at: float


@dataclass(frozen=True, slots=True)
class Burst:
    """Tokens of a generation that came at one time."""

    key: Key
    at: float
    """Seconds from the start of the run, as everywhere."""
    text: str
    tokens: int | None = None
    """How many, if the engine says so."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A generation has ended by itself."""

    key: Key
    at: float
    reason: str
    """``length``, ``stop`` or ``eos``."""
    tokens: int | None = None
    """Tokens of all its bursts, if the engine says so."""
    prompt_tokens: int | None = None
    """Tokens of the context that it was generated from, if the engine says so."""
    drift: int = 0
    """How many more these are than `give` and the counts of generations add up to."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A generation that came to nothing more."""

    key: Key
    at: float
    why: str


Event = Began | Burst | Ended | Failed
"""What an engine reports of a generation."""


class Engine(typing.Protocol):
    """An engine that can be recorded.

    All times are seconds from the last `reset`. Keys are never used twice in a run.
    """

    description: dict[str, Any]
    """What `Trace.meta` says of it."""
    counts_prompts: bool
    """Whether `give` is sure of its counts."""
    ends_at_stops: bool
    """Whether a generation may be over by itself behind a stop string."""

    @property
    def busy(self) -> bool:
        """Whether an event will come."""

    def reset(self, free: bool) -> None:
        """Begin a run: forget all threads, start the clock. `free`: texts will be given; else token counts."""

    def now(self) -> float:
        """Return the time."""

    def open(self, key: Key, parent: Key | None, shared: int) -> int:
        """Begin a thread on the first `shared` tokens of its parent's context; return how many it really shares."""

    def context(self, key: Key) -> int:
        """Return the tokens in a thread's context that a child could share now."""

    def give(self, key: Key, tokens: int, text: str | None) -> int:
        """Append to a context `text`, or where it is None any `tokens` tokens; return how many tokens it were."""

    def generate(self, key: Key, asked: Generate) -> None:
        """Begin a generation. It is over with `Ended`, `Failed` or `stop`."""

    def stop(self, key: Key, keep: int | None = None) -> str:
        """End the thread's generation now, after `keep` characters; return what could not be cut off.

        It may just have ended by itself: then too its text counts only so far.
        """

    def close(self, key: Key) -> None:
        """End a thread."""

    def poll(self, until: float | None) -> Sequence[Event]:
        """Wait for events, at most until `until`, and return them in order of time."""

    def shut(self) -> None:
        """Give back what it holds."""
