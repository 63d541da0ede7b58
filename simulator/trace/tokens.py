"""How many tokens a text is, where the record does not say.

A counter is any function from text to a count. Counts add up piece by piece, so a counter sees the pieces between tags.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence

from simulator.errors import ConfigError, FormatError
from simulator.support.files import require_plain
from simulator.trace.model import MAX_TOKENS

TokenCounter = Callable[[str], int]
"""A function from a piece of text to its number of tokens."""


def by_characters(text: str) -> int:
    """Return a quarter of the characters, rounded up: the usual rule of thumb for English.

    It is the built-in approximation. It costs no pass over the text, which the reward needs at training speed, and it
    is wrong by tens of percent on code, formulae and other scripts: pass a real counter where counts matter.

    >>> by_characters(""), by_characters("abcde")
    (0, 2)
    """
    return (len(text) + 3) >> 2


def by_words(text: str) -> int:
    """Return the number of words between white space.

    >>> by_words("two words")
    2
    """
    return len(text.split())


APPROXIMATE = "characters"
"""The name of the default counter, `by_characters`."""
COUNTERS: dict[str, TokenCounter] = {APPROXIMATE: by_characters, "words": by_words}
"""The counters that have a name."""


def counter_name(counter: TokenCounter) -> str:
    """Return what `Trace.token_source` calls `counter`."""
    for name, known in COUNTERS.items():
        if counter is known:
            return name
    return str(getattr(counter, "token_source", None) or getattr(counter, "__name__", "caller's counter"))


def load_tokenizer(path: str | os.PathLike[str]) -> TokenCounter:
    """Return a counter that uses a local Hugging Face ``tokenizer.json``.

    Needs the extra ``forksim[tokenizers]``. Nothing is downloaded. Special tokens are not added.

    Raises
    ------
    ConfigError
        If the extra is not installed or the file is no tokenizer.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise ConfigError("counting with a tokenizer.json needs: pip install 'forksim[tokenizers]'") from None
    name = os.fspath(path)
    require_plain(name, "tokenizer")
    try:
        tokenizer = Tokenizer.from_file(name)
    except Exception as error:  # the library raises bare Exception
        raise ConfigError(f"{name}: not a readable tokenizer.json ({error})") from None

    def count(text: str) -> int:
        if not text.isascii():
            text = text.encode(errors="replace").decode()  # lone surrogates, which it refuses
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    count.token_source = f"tokenizer:{os.path.basename(name)}"  # type: ignore[attr-defined]
    return count


class Along:
    """A counter that knows where each token ends: it counts pieces of texts one after another, as they stand there.

    Parameters
    ----------
    ends : mapping from str to sequence of int
        Of each thread, the characters at which its tokens end, in order.

    Examples
    --------
    >>> count = Along({"organizer": [3, 3, 8]})
    >>> count.begin("organizer")
    >>> count("four"), count("more")
    (2, 1)
    """

    token_source = "token ids"
    goes_along = True

    def __init__(self, ends: Mapping[str, Sequence[int]]) -> None:
        self.ends = ends
        self.begin(next(iter(ends), ""))

    def begin(self, thread: str) -> None:
        """Go on with the text of another thread."""
        self.current = self.ends.get(thread, ())
        self.at = self.counted = 0

    def __call__(self, piece: str) -> int:
        """Return how many tokens end in a piece. One that ends nowhere visible is counted with what precedes it."""
        self.at += len(piece)
        before, self.counted = self.counted, bisect_right(self.current, self.at)
        return self.counted - before


def spread(tokens: int | list[int], characters: int) -> TokenCounter:
    """Return a counter that deals `tokens` out over the pieces of a text by their characters.

    Parameters
    ----------
    tokens : int or list of int
        How many; or the token ids themselves.
    characters : int
        Of the whole text.

    Raises
    ------
    FormatError
        If there can be no so many tokens.

    >>> count = spread(5, 8)
    >>> count("four"), count("more")
    (2, 3)
    """
    total = tokens if isinstance(tokens, int) else len(tokens)
    if not 0 <= total <= MAX_TOKENS:
        raise FormatError(f"tokens must be a number from 0 to 10^12, or the token ids; got {total}")
    seen = 0

    def count(piece: str) -> int:
        nonlocal seen
        before, seen = seen, seen + len(piece)
        return total * seen // characters - total * before // characters if characters else 0

    count.token_source = "record, spread by characters"  # type: ignore[attr-defined]
    count.goes_along = True  # type: ignore[attr-defined]
    return count
