"""ThreadWeaver's acceleration, worked out from the rules that its reward's code states, another way than the package.

The code is `get_parallel_stats` of version 2 of its reward. Its rules, in our words: a block opens at ``<Parallel>``
and closes at the first ``</Parallel>`` that is in no thread; a thread opens at ``<Thread>`` in a block and closes at
the first ``</Thread>``; all else is text of what it stands in; both tags of a thread, and the text between them, count
one after the other; the end of the text closes what is open. Here that is done by cutting the text with two regular
expressions, one character a token.
"""

import re

OPEN, CLOSE, BEGIN, END = "(", ")", "[", "]"
"""``<Parallel>``, ``</Parallel>``, ``<Thread>`` and ``</Thread>``, a character each."""

_THREAD = r"\[[^\]]*(?:\]|$)"
_BLOCK = re.compile(rf"\((?:{_THREAD}|[^)\[])*")
_THREADS = re.compile(r"\[([^\]]*)(?:\]|$)")


def longest_and_total(text):
    """Return the tokens on the longest way through a text, and all of them."""
    saved = 0
    for block in _BLOCK.finditer(text):
        lengths = [len(own[1]) for own in _THREADS.finditer(block[0])]
        saved += sum(lengths) - max(lengths, default=0)
    return len(text) - saved, len(text)


def acceleration(text):
    """Return its acceleration ratio.

    >>> acceleration("ab([cde][f])g")  # 13 tokens, of which f is hidden
    0.07692307692307687
    """
    longest, total = longest_and_total(text)
    return 1 - longest / total if total else 0.0
