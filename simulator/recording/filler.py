"""Text of a wanted number of tokens, for a tokenizer that one can only ask."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from simulator.errors import ConfigError

_WORDS = """
the of and to in is that it was for on are as with his they at be this from have or by one had not
but what all were when we there can an your which their said if do will each about how up out them
then she many some so these would other into has more her two like him see time could no make than
first been its who now people my made over did down only way find use may water long little very
after words called just where most know"""
WORDS = tuple(_WORDS.split())
"""Words that nearly every vocabulary has as one token each."""


class Filler:
    """Words, and how many tokens they make.

    Parameters
    ----------
    measure : callable
        Tokens that the server makes of a text as a prompt.
    seed : int

    Raises
    ------
    ConfigError
        If what it measures does not grow with the text.

    >>> filler = Filler(lambda text: 1 + len(text.split()), 0)
    >>> text, tokens = filler.text(5, first=True)
    >>> len(text.split()), tokens
    (4, 5)
    >>> filler.text(2, first=False)[1]
    2
    """

    def __init__(self, measure: Callable[[str], int], seed: int) -> None:
        self._random = np.random.default_rng(seed)
        sizes = (8, 40, 72)
        counts = [measure(self._words(size)) for size in sizes]
        self.per_word = (counts[2] - counts[0]) / (sizes[2] - sizes[0])
        if self.per_word <= 0:
            raise ConfigError(
                f"the server makes {counts} tokens of {list(sizes)} words: prompts cannot be measured out"
            )
        self.first = counts[0] - self.per_word * sizes[0]
        """Tokens that a prompt has before its words."""

    def _words(self, count: int) -> str:
        return " ".join(WORDS[i] for i in self._random.integers(len(WORDS), size=count))

    def text(self, tokens: int, *, first: bool) -> tuple[str, int]:
        """Return a text of as nearly so many tokens as can be, and how many they should be.

        `first`: it begins a context, whose first tokens belong to it.
        """
        before = self.first if first else 0.0
        words = max(round((tokens - before) / self.per_word), 1)
        return ("" if first else " ") + self._words(words), max(round(before + words * self.per_word), 1)
