"""The scanner of AsyncThink's tags: the text of one thread in, its actions out. See `simulator.formats.asyncthink`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import accumulate

from simulator.formats.texts import SECTION, Faults, foreign_sign, misspelt_tag
from simulator.trace import (
    MAX_INDEX,
    ORGANIZER,
    Action,
    Answer,
    Fork,
    Join,
    Return,
    Think,
    ViolationKind,
)
from simulator.trace.answers import boxed_answer
from simulator.trace.tokens import Along, TokenCounter, by_characters

# One character class up to a fixed bound, then something outside it: nothing here can backtrack.
TAGS = re.compile(r"<(/?(?:FORK|JOIN|RETURN|ANSWER)-?[0-9]{0,40})>")
_PARTS = re.compile(r"(/?)([A-Z]+)(-?)([0-9]*)")
_FORK, _JOIN, _RETURN, _ANSWER = 1, 3, 5, 7  # odd kinds open, the even one after each closes; 0 is no tag
_NO_TAG = (9, -2)  # behind the last: it ends whatever is open
_NAMES = {"FORK": _FORK, "JOIN": _JOIN, "RETURN": _RETURN, "ANSWER": _ANSWER}
MAX_TAGS = 100_000  # of one thread: what follows is read as text, so that hostile text cannot fill memory

Insertions = Mapping[str, frozenset[int]]
"""Of threads whose sampled tokens are known: the characters at which a runtime began to insert something for a Join."""


@lru_cache(maxsize=4096)
def _read_tag(tag: str) -> tuple[int, int]:
    """Return the kind and the index of a tag; -1 for no index. An index may be too large."""
    match = _PARTS.fullmatch(tag)
    assert match is not None
    closes, name, hyphen, digits = match.groups()
    kind = _NAMES[name]
    # A Return and an Answer have no index; that of a Fork or a Join may be missing where it ends.
    known = not (digits or hyphen) if kind > _JOIN else bool(digits or (closes and not hyphen))
    return (kind + bool(closes) if known else 0), int(digits or -1)


class Scan:
    """Reads the texts of a trace's threads, each in one pass from tag to tag.

    A text is cut at its tags: piece 0, tag 0, piece 1, tag 1, ..., the last piece.
    """

    def __init__(
        self,
        texts: Mapping[str, str],
        count: TokenCounter,
        keep: bool,
        faults: Faults,
        insertions: Insertions | None = None,
        whole_file: bool = False,
    ) -> None:
        self.texts = texts
        self.count = count
        # A counter that goes along with the text cannot be asked about a worker's.
        self.along = count if isinstance(count, Along) else None
        self.loose: TokenCounter = by_characters if getattr(count, "goes_along", False) else count
        self.by_length = count is by_characters  # then lengths do, and no pieces need putting together
        self.keep = keep
        self.faults = faults
        self.insertions = insertions or {}
        self.whole_file = whole_file
        self.forked: dict[str, int] = {}
        """The prompt tokens of the workers that are forked."""
        self.returned: dict[str, tuple[frozenset[str], str]] = {}
        """Of workers that are joined: what a runtime may insert for them, and what they return."""
        self.joined: set[str] = set()
        self.counted: dict[str, int] = {}
        """The tokens of the latter, where a Join without a closing tag inserts it."""

    def thread(self, name: str, text: str) -> tuple[Action, ...]:
        """Return the actions in the text of one thread."""
        opens = (_FORK, _JOIN, _ANSWER if name == ORGANIZER else _RETURN)
        parts = TAGS.split(text, MAX_TAGS)
        self.name = name
        self.prefix = "" if name == ORGANIZER else f"{name}."
        if self.along is not None:
            self.along.begin(name)
        self.pieces = parts[::2]
        self.tags = parts[1::2]
        read = self.read = list(map(_read_tag, self.tags))
        read.append(_NO_TAG)
        self.actions: list[Action] = []
        self.start = 0
        """The first piece that belongs to no action yet."""
        self.ended = False
        self.inserted = self.insertions.get(name) if self.insertions else None
        self.offsets: list[int] = []
        self.closings: frozenset[tuple[int, int]] = frozenset()
        at, n = 0, len(self.tags)
        if not n or text.count("<") > n:  # the quickest way to ask whether there is anything else
            self._name_others(text)
        while at < n:
            kind, index = read[at]
            if kind not in opens or index > MAX_INDEX:
                if kind:
                    self._stray(at)
                at += 1
                continue
            after, number = read[at + 1]
            if after == kind + 1 and (number == index or number < 0):  # what nearly all are
                self._close(kind, index, at, at + 1)
                at += 2
            else:
                at = self._element(at)
        if n >= MAX_TAGS and TAGS.search(parts[-1]):
            message = f"what follows the first {MAX_TAGS} tags is read as text"
            self.faults.add(ViolationKind.STRAY_TAG, name, message)
        if self.start < n or parts[-1]:
            self._rest(n)
        return tuple(self.actions)

    def _name_others(self, text: str) -> None:
        """Say which signs of other formats, and of our layout of files, are read as text."""
        if "<WORKER" in text and not self.whole_file and (section := SECTION.search(text)):
            message = f"{section[0].strip()[:40]} begins a section in whole files only; here it is text"
            self.faults.add(ViolationKind.STRAY_TAG, self.name, message, section.start())
        if self.name == ORGANIZER and (foreign := foreign_sign(text)):
            sign, offset = foreign
            capital = sign.upper() if TAGS.fullmatch(sign.upper()) else ""
            hint = f"; tags are written in capitals, {capital}" if capital else ""
            message = f"{sign[:40]} is none of this format, and is read as text{hint}"
            self.faults.add(ViolationKind.UNKNOWN_TAGS, self.name, message, offset)
        elif wrong := misspelt_tag(text):
            message = f"{wrong[0][:60]} is no tag, and is read as text; did you mean {wrong[1]}?"
            self.faults.add(ViolationKind.UNKNOWN_TAGS, self.name, message, wrong[2])

    def _element(self, opening: int) -> int:
        """Read on from an opening tag; return the number of the first tag behind what it opens."""
        read = self.read
        kind, index = read[opening]
        at = opening + 1
        while True:
            other, number = read[at]
            if other == kind + 1 and (number == index or number < 0):
                self._close(kind, index, opening, at)
                return at + 1
            if not (kind == _JOIN and self._is_inserted(other, index)):
                if other & 1:  # another opens, or the text ends
                    break
                if other:
                    self._fault(at, f"<{self.tags[at]}> closes nothing")
            at += 1
        if kind == _JOIN:
            self._bare_join(opening, index, self._count_returned(index))
        else:
            self._fault(opening, f"<{self.tags[opening]}> is never closed", ViolationKind.UNCLOSED_TAG)
        return at

    def _close(self, kind: int, index: int, opening: int, closing: int) -> None:
        """Make the action of an element."""
        pieces, by_length, count = self.pieces, self.by_length, self.count
        inside = pieces[closing] if closing == opening + 1 else self._text(opening + 1, closing)
        if kind == _JOIN:
            worker = f"{self.prefix}{index}"
            if not self._is_returned(opening, worker, inside):
                message = f"what stands in <{self.tags[opening]}> is not what worker {worker} returned"
                self._fault(opening, message, ViolationKind.FORGED_JOIN)
                self._bare_join(opening, index, 0)  # what follows, the closing tag too, was decoded
                return
        elif kind == _ANSWER and not inside.strip():
            self._fault(opening, "an empty answer is none")
            return
        thinking = pieces[opening] if self.start == opening else self._text(self.start, opening)
        if thinking:
            tokens = (len(thinking) + 3) >> 2 if by_length else count(thinking)
            self.actions.append(Think(tokens, thinking if self.keep else None))
        tag = self.tags[opening]
        end = self.tags[closing]
        self.start = closing + 1
        kept = inside if self.keep else None
        if kind == _JOIN:
            asked = (len(tag) + 5) >> 2 if by_length else count(f"<{tag}>")
            inserted = (len(inside) + len(end) + 5) >> 2 if by_length else count(f"{inside}<{end}>")
            self.actions.append(Join(index, asked, inserted, kept))
            return
        size = len(tag) + len(inside) + len(end)
        tokens = (size + 7) >> 2 if by_length else count(f"<{tag}>{inside}<{end}>")
        if kind == _FORK:
            self.actions.append(Fork(index, tokens, kept))
            self.forked.setdefault(f"{self.prefix}{index}", tokens)
        else:
            self.actions.append(Answer(tokens, inside) if kind == _ANSWER else Return(tokens, kept))
            self.ended = True

    def _bare_join(self, opening: int, index: int, inserted: int) -> None:
        """Make the Join of an opening tag alone."""
        self._think(self._text(self.start, opening))
        self.actions.append(Join(index, self.count(f"<{self.tags[opening]}>"), inserted))
        self.start = opening + 1

    def _count_returned(self, index: int) -> int:
        """Return the tokens that the worker of a Join returned: without a closing tag they are taken to be inserted."""
        worker = f"{self.prefix}{index}"
        if worker not in self.counted:
            self.counted[worker] = self.loose(self._returns(worker)[1])
        return self.counted[worker]

    def _returns(self, worker: str) -> tuple[frozenset[str], str]:
        """Return what a runtime may insert for a worker, and what it returned last.

        That is what it returned (each, if it did so more than once), or all that it said.
        """
        if worker not in self.returned:
            text = self.texts.get(worker, "")
            parts = (part.partition("</RETURN>") for part in text.split("<RETURN>")[1:])
            said = [inside for inside, closing, _ in parts if closing]
            accepted = frozenset(["", text.strip(), *(each.strip() for each in said)])
            self.returned[worker] = accepted, said[-1] if said else ""
        return self.returned[worker]

    def _is_returned(self, opening: int, worker: str, inside: str) -> bool:
        """Whether a runtime inserted what stands in a Join: a mask says so, or it is what the worker returned.

        Anything else the policy may have written itself, and then it was decoded.
        """
        if self.inserted is not None:
            return self._offset(opening) in self.inserted
        if worker not in self.joined:  # what nearly all are; a second Join could make the search a square
            self.joined.add(worker)
            text, returned = self.texts.get(worker, ""), f"<RETURN>{inside}</RETURN>"
            if text.endswith(returned) or returned in text:
                return True
        said = inside.strip()
        accepted, _ = self._returns(worker)
        if said in accepted:
            return True
        # Some runtimes insert the tags as well.
        bare = said.removeprefix("<RETURN>").removesuffix("</RETURN>")
        return len(said) - len(bare) == 17 and bare.strip() in accepted

    def _rest(self, end: int) -> None:
        """Make the last actions, of what follows all others."""
        text = self._text(self.start, end)
        if self.ended and text.isspace():
            return
        boxed = boxed_answer(text) if self.name == ORGANIZER and not self.ended else -1
        answer = text[boxed:] if boxed >= 0 else ""
        self._think(text[:boxed] if answer else text)
        if answer:
            self.actions.append(Answer(self.count(answer), answer))

    def _think(self, text: str) -> None:
        if text:
            self.actions.append(Think(self.count(text), text if self.keep else None))

    def _is_inserted(self, kind: int, index: int) -> bool:
        """Whether a tag in an open Join was inserted with the worker's text, as some runtimes do with a Return's.

        A worker's own Return may follow a Join that nothing closes, though.
        """
        if kind not in (_RETURN, _RETURN + 1):
            return False
        if self.name == ORGANIZER:
            return True
        self.closings = self.closings or frozenset(self.read)
        return not self.closings.isdisjoint(((_JOIN + 1, index), (_JOIN + 1, -1)))

    def _text(self, first: int, last: int) -> str:
        """Return the text from one piece to another, with the tags between them."""
        if first == last:
            return self.pieces[first]
        parts = [self.pieces[first]]
        for at in range(first, last):
            parts += ("<", self.tags[at], ">", self.pieces[at + 1])
        return "".join(parts)

    def _stray(self, at: int) -> None:
        """Say why a tag is text of what it stands in."""
        kind, index = self.read[at]
        tag = f"<{self.tags[at]}>"
        if not kind & 1:
            self._fault(at, f"{tag} closes nothing")
        elif kind in (_FORK, _JOIN):
            self._fault(at, f"sub-query index {index} is above 10^9")
        else:
            self._fault(at, f"{tag} has no place in {'the organizer' if self.name == ORGANIZER else 'a worker'}")

    def _fault(self, at: int, message: str, kind: ViolationKind = ViolationKind.STRAY_TAG) -> None:
        self.faults.add(kind, self.name, message, self._offset(at) - len(self.tags[at]) - 2)

    def _offset(self, at: int) -> int:
        """Return the character behind a tag."""
        if not self.offsets:
            lengths = zip(map(len, self.pieces), map(len, self.tags), strict=False)
            self.offsets = list(accumulate(piece + tag + 2 for piece, tag in lengths))
        return self.offsets[at]
