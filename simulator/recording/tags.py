"""Finding the tags that have an effect, in text that comes in pieces.

A tag may be cut anywhere between two pieces. Each character is looked at a bounded number of times.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from simulator.trace import MAX_INDEX

_TAG = re.compile(r"<(/?)(FORK|JOIN|RETURN|ANSWER)(?:-?([0-9]{1,10}))?>")
_LONGEST = len("</RETURN-1000000000>")


class Effect(NamedTuple):
    """What a segment of text came to: ``fork``, ``join``, ``return``, ``answer``, or ``none``."""

    kind: str
    number: int
    """Of the sub-query, or -1."""
    before: int
    """Characters of the segment before the tag that opens this."""
    inside: str
    """Text between the tags."""


class Scanner:
    """Watches the text of one thread for the first tag that has an effect.

    That is ``</FORK-i>`` of an open ``<FORK-i>``, ``<JOIN-i>``, and ``</RETURN>`` of a worker or ``</ANSWER>`` of the
    organizer.

    >>> scanner = Scanner(organizer=True)
    >>> [scanner.feed(piece) for piece in ("so <FO", "RK-1>the odd", " half</FORK", "-1> and on")]
    [None, None, None, 32]
    >>> scanner.effect
    Effect(kind='fork', number=1, before=3, inside='the odd half')
    >>> scanner.next("")
    """

    def __init__(self, *, organizer: bool) -> None:
        self._last = "ANSWER" if organizer else "RETURN"
        self.text = ""
        self.end = 0
        """Behind the last tag; once there is an effect, behind that."""
        self.opened: tuple[str, int, int, int] | None = None  # tag, index, where it begins, where it ends
        self.unclosed = 0
        self.effect: Effect | None = None

    def next(self, left: str) -> int | None:
        """Begin a segment with the text that was `left` over; say where it ends, if it does already."""
        self.text, self.end, self.opened, self.effect = "", 0, None, None
        return self.feed(left)

    def feed(self, piece: str) -> int | None:
        """Take in a piece of text; return behind which character of the segment it ends, or None if it goes on."""
        self.text += piece
        for match in _TAG.finditer(self.text, self.end):
            self.end = match.end()
            effect = self._tag(match)
            if effect is not None:
                self.effect = effect
                return match.end()
        self.end = max(self.end, len(self.text) - _LONGEST)
        return None

    def _tag(self, match: re.Match[str]) -> Effect | None:
        closing, name, digits = match.groups()
        index = -1 if digits is None else int(digits)
        if index > MAX_INDEX or (digits is None) == (name in ("FORK", "JOIN")):
            return None
        if closing:
            if self.opened is None or self.opened[:2] != (name, index):
                return None
            _, _, start, end = self.opened
            self.opened = None
            return Effect(name.lower(), index, start, self.text[end : match.start()])
        if name == "JOIN":
            self.unclosed += self.opened is not None
            self.opened = None
            return Effect("join", index, match.start(), "")
        if name in ("FORK", self._last):
            self.unclosed += self.opened is not None
            self.opened = (name, index, match.start(), match.end())
        return None
