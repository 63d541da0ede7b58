"""The threads and blocks of a text of a group dialect while they are read, and where a path belongs by its label."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence

from simulator.formats.texts import Faults
from simulator.trace import ORGANIZER, Action, Answer, Join, Return, Think, ViolationKind
from simulator.trace.tokens import TokenCounter, by_characters

LABEL = re.compile(r"\s?([0-9.]{1,64}):")


class Block:
    """A block whose paths are being read.

    These two are made for each block and path of a text, which is why they are no dataclasses.
    """

    __slots__ = (
        "_looked",
        "_names",
        "concluded",
        "forced",
        "forced_at",
        "implied",
        "labels",
        "offset",
        "outlines",
        "paths",
        "text",
    )

    def __init__(self, text: str, offset: int, implied: bool = False) -> None:
        self.text = text
        self.offset = offset
        self.implied = implied  # it has a plan, and no <Parallel>
        self.paths = 0
        self.concluded = False  # its summary has begun
        self.outlines: list[int] = []  # where the text of each Outline begins
        self.labels: dict[str, None] = {}  # of its paths, in order
        self.forced: OpenThread | None = None  # the outlined path that a summary, or the block's end, has ended
        self.forced_at = 0
        self._looked = 0  # how many of its Outlines are in
        self._names: set[str] | None = None

    @property
    def outlined(self) -> set[str]:
        """The labels of its Outlines, found when they are asked for: in a text that is in order nobody asks."""
        names = self._names = self._names or set()
        for at in self.outlines[self._looked :]:
            if label := LABEL.match(self.text, at):
                names.add(label[1])
        self._looked = len(self.outlines)
        return names

    @property
    def first(self) -> str | None:
        """The first label in it."""
        found = LABEL.match(self.text, self.outlines[0]) if self.outlines else None
        return found[1] if found else next(iter(self.labels), None)

    def lacks(self, label: str | None) -> bool:
        """Return whether its Outlines hold a label that none of its paths has."""
        return label in self.outlined and label not in self.labels


class OpenThread:
    """A thread that is being read."""

    __slots__ = (
        "actions",
        "block",
        "context",
        "forks",
        "given",
        "held",
        "id",
        "index",
        "label",
        "offset",
        "past",
        "prompt",
        "starts",
        "unsummed",
        "waiting",
        "wrappers",
    )

    def __init__(self, id: str, index: int = 0, prompt: int = 0, offset: int = 0, label: str | None = None) -> None:
        self.id = id
        self.index = index
        self.prompt = self.context = prompt
        self.offset = offset
        self.label = label
        self.actions: list[Action] = []
        self.forks = 0
        self.waiting: list[tuple[int, int]] = []  # paths that have ended and are not joined yet: index, tokens
        self.held: tuple[int, list[str]] | None = None  # text between these paths: tokens, pieces
        self.block: Block | None = None
        self.past: Block | None = None  # the block that ended last
        self.unsummed = False  # a block has ended, and its summary may follow
        self.wrappers: list[tuple[str, int]] = []  # the plan, Outline or summary that is open, and where
        self.starts: list[int] = []  # where each piece of its text begins
        self.given: list[int] = []  # the action that has it; -1 while it is held

    def join(self) -> None:
        """Join the paths that have ended."""
        for index, tokens in self.waiting:
            self.actions.append(Join(index, 0, tokens))
            self.context += tokens
        self.waiting.clear()

    def hold(self, start: int, tokens: int, piece: str | None) -> None:
        """Keep a piece of text for the next action."""
        self.starts.append(start)
        self.given.append(-1)
        if self.held is None:
            self.held = (0, [])
        before, pieces = self.held
        if piece is not None:
            pieces.append(piece)
        self.held = (before + tokens, pieces)

    def release(self, tokens: int, piece: str | None) -> tuple[int, str | None]:
        """Return what is held together with what follows it, for the action that comes next."""
        assert self.held is not None
        before, pieces = self.held
        self.held = None
        for at in range(len(self.given) - 1, -1, -1):
            if self.given[at] == -1:
                self.given[at] = len(self.actions)
            elif at < len(self.given) - 1:
                break
        return before + tokens, None if piece is None else "".join(pieces) + piece

    def action_at(self, offset: int) -> int | None:
        """Return the action that has a character of the text."""
        at = bisect_right(self.starts, offset) - 1
        return self.given[max(at, 0)] if self.given else None

    def ran_on(self, at: int) -> Block | None:
        """Return the block whose last path may run on at a character: all before it was given to that path."""
        for block in (self.block, self.past):
            if block is not None and block.forced is not None and block.forced_at == at:
                return block
        return None


class Cursor:
    """Where a text is being read, and by whom: deals it out to the actions of threads."""

    def __init__(self, text: str, count: TokenCounter, keep: bool) -> None:
        self.text = text
        self.count = count
        self.keep = keep
        self.by_length = count is by_characters and not keep  # then no piece of the text is needed
        self.at = 0  # text before here belongs to an action
        self.thread = OpenThread(ORGANIZER)
        self.faults = Faults()

    def give(self, end: int, kind: type[Think] | type[Return] | type[Answer] = Think) -> None:
        """Give the text up to `end` to the thread that is being read, after the Joins it waits for."""
        thread = self.thread
        if thread.waiting:
            thread.join()
        start = self.at
        if start < end or thread.held is not None:
            thread.starts.append(start)
            thread.given.append(len(thread.actions))
            if self.by_length and kind is not Answer:
                self.at = end
                tokens, piece = (end - start + 3) >> 2, None
            else:
                tokens, piece = self._counted(end, kind is Answer)
            if thread.held is not None:
                tokens, piece = thread.release(tokens, piece)
            thread.actions.append(kind(tokens, piece))
            thread.context += tokens

    def hold(self, end: int) -> None:
        """Keep the text up to `end`, which stands between two paths, until they are joined."""
        thread = self.thread
        thread.hold(self.at, *self._counted(end, False))

    def _counted(self, end: int, wanted: bool) -> tuple[int, str | None]:
        """Return the tokens and, where it is kept or wanted, the text up to `end`, which then belongs to an action."""
        start, self.at = self.at, end
        if self.by_length and not wanted:
            return (end - start + 3) >> 2, None
        piece = self.text[start:end]
        return self.count(piece) if piece else 0, piece if self.keep or wanted else None

    def stray(self, message: str, offset: int) -> None:
        """Say that a tag does not belong where it stands."""
        self.faults.add(ViolationKind.STRAY_TAG, self.thread.id, message, offset)

    def unclosed(self, message: str, offset: int) -> None:
        """Say that a tag is never closed."""
        self.faults.add(ViolationKind.UNCLOSED_TAG, self.thread.id, message, offset)


def home(label: str, levels: Sequence[OpenThread], at: int) -> OpenThread | None:
    """Return the thread to whose block a path belongs by its label, or None where that does not say.

    It is the innermost whose Outlines hold the label and that has no such path yet. Where none has it, but the first
    label in the innermost block continues that of its thread (2.1 in path 2) and this one does not, it is the thread
    that the label continues.

    Parameters
    ----------
    label : str
    levels : sequence of OpenThread
        From the organizer to the thread that is being read.
    at : int
        The first character that belongs to no action yet.

    Examples
    --------
    >>> outer, inner = OpenThread("organizer"), OpenThread("2", 2, label="2")
    >>> outer.block, inner.block = Block("1: 2: 3:", 0), Block("2.1:", 0)
    >>> outer.block.outlines, outer.block.labels, inner.block.outlines = [0, 2, 5], {"1": None, "2": None}, [0]
    >>> [level and level.id for level in (home(label, [outer, inner], 0) for label in ("2.1", "3", "4.1"))]
    ['2', 'organizer', None]
    """
    last = levels[-1]
    for level in reversed(levels):
        block = level.block
        if block is not None and not block.concluded and block.lacks(label):
            return level
        if level is last and (past := level.ran_on(at)) and past.lacks(label):
            return level
    block = last.block
    if last.label and block is not None:
        inner = f"{last.label}."
        if (block.first or "").startswith(inner) and not label.startswith(inner):
            parent = label.rpartition(".")[0]
            for level in reversed(levels[:-1]):
                around = level.block
                if (level.label or "") == parent and around is not None and label not in around.labels:
                    return level
    return None
