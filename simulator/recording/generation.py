"""One generation as it was seen: when which tokens came."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from msgspec.structs import replace

from simulator.recording.engine import Generate
from simulator.trace import Action, Delay, Join, Think


class Generation:
    """A generation: what was asked, and the bursts that came."""

    __slots__ = (
        "asked",
        "began",
        "counted",
        "drift",
        "kept",
        "prompt_tokens",
        "reason",
        "texts",
        "times",
        "tokens",
    )

    def __init__(self, asked: Generate) -> None:
        self.asked = asked
        self.began: float | None = None
        self.times: list[float] = []
        self.texts: list[str] = []
        self.counted: list[int | None] = []
        self.tokens: int | None = None
        """All tokens, as the engine says."""
        self.prompt_tokens: int | None = None
        self.drift = 0
        """How many more tokens its context was than the engine had thought."""
        self.reason = "cut"
        self.kept: int | None = None
        """Characters of the text that count, where the recorder cut it."""

    def add(self, at: float, text: str, tokens: int | None) -> None:
        """Take in a burst."""
        self.times.append(at)
        self.texts.append(text)
        self.counted.append(tokens)

    @property
    def text(self) -> str:
        """The text that counts."""
        return "".join(self.texts)[: self.kept]

    @property
    def complete(self) -> bool:
        """Whether all of the text counts."""
        return self.kept == sum(map(len, self.texts))

    @property
    def exact(self) -> bool:
        """Whether the engine said how many tokens there were."""
        return self.tokens is not None or None not in self.counted

    def per_burst(self) -> list[int]:
        """Return the tokens of each burst.

        Those that the engine says; to the others what is left of the total, evenly; without a total, one each.

        >>> generation = Generation(Generate(9, True))
        >>> for text in ("a", "bc", "d"):
        ...     generation.add(0.5, text, None)
        >>> generation.per_burst()
        [1, 1, 1]
        >>> generation.tokens = 5
        >>> generation.per_burst()
        [1, 2, 2]
        """
        known = sum(count for count in self.counted if count is not None)
        open = [place for place, count in enumerate(self.counted) if count is None]
        if self.tokens is None or not self.counted:
            return [1 if count is None else count for count in self.counted]
        counts = [count or 0 for count in self.counted]
        rest = self.tokens - known
        if rest < 0 or (rest and not open):
            counts, rest, open = [0] * len(counts), self.tokens, list(range(len(counts)))
        for i, place in enumerate(open):
            counts[place] = rest * (i + 1) // len(open) - rest * i // len(open)
        return counts

    def token_times(self) -> list[float]:
        """Return when each token came."""
        return [at for at, tokens in zip(self.times, self.per_burst(), strict=True) for _ in range(tokens)]

    def upto(self, characters: Sequence[int]) -> list[int]:
        """Return how many tokens had come when each of some numbers of characters had.

        >>> generation = Generation(Generate(9, False))
        >>> for text in ("think", "<JO", "IN-1>"):
        ...     generation.add(0.5, text, 1)
        >>> generation.upto([0, 5, 6, 13])
        [0, 1, 2, 3]
        """
        ends = list(accumulate(map(len, self.texts)))
        tokens = [0, *accumulate(self.per_burst())]
        return [tokens[min(bisect_left(ends, place) + 1, len(ends))] if place else 0 for place in characters]


def stamped(actions: Sequence[Action], ends: Sequence[int], generation: Generation, *, whole: bool) -> list[Action]:
    """Return actions with the tokens and times of a generation.

    Parameters
    ----------
    actions : sequence of Action
        What the generation was for, none of them a Delay.
    ends : sequence of int
        Behind which token each of them ends.
    generation : Generation
    whole : bool
        Whether the generation ended by itself. If not, an action that is not all there is a Think of what is there, and
        those after it are left out.

    >>> generation = Generation(Generate(3, True))
    >>> generation.began = 1.0
    >>> for at in (2.0, 3.0):
    ...     generation.add(at, "", 1)
    >>> from simulator.trace import Fork
    >>> stamped([Think(1), Fork(1, 2)], [1, 3], generation, whole=False)
    [Think(tokens=1, text=None, start=1.0, finish=2.0), Think(tokens=1, text=None, start=2.0, finish=3.0)]
    """
    times = generation.token_times()
    began = generation.began if generation.began is not None else (times[0] if times else None)
    done: list[Action] = []
    at = 0
    for number, (action, end) in enumerate(zip(actions, ends, strict=True)):
        assert not isinstance(action, Delay)
        stop = len(times) if number == len(actions) - 1 and whole else min(end, len(times))
        start = times[at - 1] if at else began
        finish = times[stop - 1] if stop else began
        if not whole and isinstance(action, Join):
            finish = None  # asked for, and never made
        if not whole and end > len(times):
            if stop > at:
                done.append(Think(stop - at, start=start, finish=finish))
            break
        done.append(replace(action, tokens=stop - at, start=start, finish=finish))
        at = stop
    return done
