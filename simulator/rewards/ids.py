"""Token ids as text, with the place where each token ends; and what a mask says a runtime inserted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any, NamedTuple

from msgspec.structs import replace

from simulator.errors import FormatError
from simulator.trace import Answer, Trace

_OPENED = re.compile(r"<JOIN-?([0-9]{1,40})>\s*\Z")
_OPENS = re.compile(r"\s*<JOIN-?([0-9]{1,40})>")
_CLOSED = re.compile(r"</JOIN-?[0-9]{0,40}>\s*\Z")
_LONGEST_TAG = 64
_BROKEN = "\N{REPLACEMENT CHARACTER}"
_MAX_BYTES = 8  # of a character, and so the tokens it can be cut into
_REMEMBERED = 1_000_000
_PLANE = 0x10000  # the first character beyond those that tags are written in
NEUTRAL = "‹"
"""Stands for ``<`` in what a runtime inserted, so that no tag of a worker's becomes one of the thread's."""

Piece = tuple[str, int]
"""Some characters, and how many tokens end with them."""


class Said(NamedTuple):
    """The tokens of one thread as text."""

    text: str
    ends: list[int]
    """The character at which each token ends."""
    insertions: frozenset[int] | None
    """The characters at which a runtime's insertions into Joins begin; None without a mask."""


class ByDecoding:
    """Cuts token ids into pieces of text, a token each where the tokenizer allows it.

    A character of several tokens (bytes of UTF-8) is one piece. Where the tokens decoded one by one are not the text
    decoded as a whole, as of tokenizers that mark the beginnings of words, each is decoded together with the one before
    it. If that does not give the text either, the tokens are spread over it by characters.

    >>> ByDecoding(lambda ids: "".join(map(chr, ids)))([72, 105])
    [('H', 1), ('i', 1)]
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self.decode = decode
        self.known: dict[tuple[int, ...], str] = {}

    def __call__(self, ids: Sequence[int]) -> list[Piece]:
        """Return the pieces, which together are the text."""
        if not ids:
            return []
        text = self._decoded(ids)
        for way in (self._single, self._double):
            found = way(ids)
            if "".join([piece for piece, _ in found]) == text:
                return found
        n = len(ids)
        return [(text[start:end], 1) for start, end in pairwise([len(text) * k // n for k in range(n + 1)])]

    def _decoded(self, ids: Sequence[int]) -> str:
        text = self.decode(list(ids))
        if not isinstance(text, str):
            raise FormatError(f"decode returned no text but {type(text).__name__}")
        return text

    def _look(self, *ids: int) -> str:
        if ids not in self.known:
            if len(self.known) >= _REMEMBERED:
                self.known.clear()
            self.known[ids] = self._decoded(ids)
        return self.known[ids]

    def _single(self, ids: Sequence[int]) -> list[Piece]:
        look = self._look
        pieces: list[Piece] = []
        at = 0
        while at < len(ids):
            size, text = 1, look(ids[at])
            while _BROKEN in text and size < _MAX_BYTES and at + size < len(ids):
                size += 1
                text = look(*ids[at : at + size])
            if _BROKEN in text:  # no character comes of it
                size, text = 1, look(ids[at])
            pieces.append((text, size))
            at += size
        return pieces

    def _double(self, ids: Sequence[int]) -> list[Piece]:
        look = self._look
        return [(look(ids[0]), 1), *((look(one, two)[len(look(one)) :], 1) for one, two in pairwise(ids))]


class ByTag:
    """Cuts token ids into tags, each a token of its own, and other tokens, which are not decoded.

    >>> ByTag({1: "<Path>"}, [7])([1, 7])
    [('<Path>', 1), (' ', 1)]
    """

    def __init__(
        self, tags: Mapping[int, str], spaces: Iterable[int] = (), decode: Callable[[list[int]], str] | None = None
    ) -> None:
        self.known = {**dict.fromkeys(spaces, " "), **tags}
        self.decode = decode

    def __call__(self, ids: Sequence[int]) -> list[Piece]:
        """Return a piece for each id: its tag, a space, or the character of its number beyond all that is written."""
        known = self.known
        return [(known.get(id) or self._learn(id), 1) for id in ids]

    def spelled(self, trace: Trace) -> Trace:
        """Return a trace with its Answers in words, as far as there is a `decode`, or else without a text."""
        organizer = trace.threads[0]
        actions = [
            replace(action, text=self._words(action.text)) if isinstance(action, Answer) and action.text else action
            for action in organizer.actions
        ]
        return replace(trace, threads=(replace(organizer, actions=tuple(actions)), *trace.threads[1:]))

    def _words(self, text: str) -> str | None:
        if self.decode is None:
            return None
        parts = []
        for is_ids, run in groupby(text, key=lambda character: ord(character) >= _PLANE):
            characters = "".join(run)
            parts.append(self.decode([ord(each) - _PLANE for each in characters]) if is_ids else characters)
        return "".join(parts)

    def _learn(self, id: int) -> str:
        space = self.decode is not None and self.decode([id]).isspace()
        self.known[id] = text = " " if space else chr(_PLANE + id % (0x110000 - _PLANE))
        return text


def said(ids: Sequence[int], mask: Sequence[object] | None, pieces: Callable[[Sequence[int]], list[Piece]]) -> Said:
    """Return the text of a thread's token ids.

    Parameters
    ----------
    ids : sequence of int
    mask : sequence, optional
        Of each id, whether the policy sampled it. What it did not is kept as what a Join inserts if it follows a
        Join's tag, and left out elsewhere: nobody decoded it.
    pieces : callable
        From ids to pieces.

    Examples
    --------
    >>> one = lambda ids: [(chr(id), 1) for id in ids]
    >>> said(list(b"<JOIN-1>9</JOIN-1>x"), [1] * 8 + [0] * 10 + [1], one)
    Said(text='<JOIN-1>9</JOIN-1>x', ends=[1, 2, 3, ..., 18, 19], insertions=frozenset({8}))
    """
    if mask is None:
        return Said(*_joined(pieces(ids)), None)
    kept: list[Piece] = []
    insertions: set[int] = set()
    length = 0
    runs = groupby(zip(ids, mask, strict=True), key=lambda each: bool(each[1]))
    for sampled, run in runs:
        found = pieces([id for id, _ in run])
        if not sampled:
            found, begin = _inserted(found, _tail(kept))
            if begin is not None:
                insertions.add(length + begin)
        kept += found
        length += sum([len(piece) for piece, _ in found])
    return Said(*_joined(kept), frozenset(insertions))


def _joined(pieces: Iterable[Piece]) -> tuple[str, list[int]]:
    at = 0
    ends: list[int] = []
    texts: list[str] = []
    for piece, tokens in pieces:
        at += len(piece)
        texts.append(piece)
        ends += [at] * tokens
    return "".join(texts), ends


def _tail(pieces: list[Piece]) -> str:
    """Return the end of a text, long enough for a tag and space after it."""
    tail = ""
    for piece, _ in reversed(pieces):
        tail = piece + tail
        if len(tail) >= _LONGEST_TAG:
            break
    return tail


def _inserted(pieces: list[Piece], before: str) -> tuple[list[Piece], int | None]:
    """Return what is kept of what a runtime inserted behind `before`, and where the content of its Join begins in it.

    That is below 0 where the thread sampled space behind the tag, and None where there is no Join.
    """
    text = "".join([piece for piece, _ in pieces])
    opened = _OPENED.search(before)
    opens = None if opened else _OPENS.match(text)
    if opened is not None:
        begin, index, start = opened.end(1) + 1 - len(before), opened[1], 0
    elif opens is not None:
        begin, index, start = opens.end(), opens[1], opens.end()
    else:
        return [], None
    closed = _CLOSED.search(text, start)
    end = closed.start() if closed else len(text)
    text = text[:start] + text[start:end].replace("<", NEUTRAL) + text[end:]
    kept, at = [], 0
    for piece, tokens in pieces:
        kept.append((text[at : at + len(piece)], tokens))
        at += len(piece)
    if closed is None:
        kept.append((f"</JOIN-{index}>", 0))
    return kept, begin


def mask_of(mask: Any, ids: Sequence[int]) -> list[bool] | None:
    """Return a mask as truth values, one for each of `ids`.

    Raises
    ------
    FormatError
        If it is no sequence of so many numbers.

    >>> mask_of([1, 0], [7, 8]), mask_of(None, [7, 8])
    ([True, False], None)
    """
    if mask is None:
        return None
    values = mask.tolist() if hasattr(mask, "tolist") else mask
    if not isinstance(values, (list, tuple)) or not all(isinstance(each, (int, float)) for each in values):
        raise FormatError(f"a mask is a number for each token id, 1 where it was sampled; got {mask!r:.80}")
    if len(values) != len(ids):
        raise FormatError(f"has a mask of {len(values)} for {len(ids)} token ids")
    return [bool(each) for each in values]
