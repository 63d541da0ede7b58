"""The scanner shared by the group dialects: Multiverse, ThreadWeaver and Parallel-R1.

In these dialects a thread forks a whole group of paths at once and waits for all of them::

    text <Parallel> plan <Path>...</Path> <Path>...</Path> summary </Parallel> text

What it becomes: one Fork (0 tokens) and one worker for each path, then one Join (0 tokens) each. A path's worker has
all of its text, tags included; the text up to the first path, and from the end of the last one, is its parent's Think.
White space between two paths belongs to the second. Any other text there is the parent's: it comes after the Joins of
the paths before it, and the paths after it are a new group. A path's last piece of text is its Return, if ``</Path>``
stands there. A thread's Forks count up from 1 over its whole life; numbers in the text (``1.1:``) are only labels.
So each character of the text belongs to exactly one action, and the texts, in document order, are the source.

The parent attends to all of a path once it is joined: `Join.inserted_tokens` counts the path with everything nested in
it, and its text is not repeated. A path's prompt is its parent's context at the Fork, all of it shared.

Model output is often cut off or mis-nested. One pass, without look-ahead, in linear time; every defect is a `Violation`
whose `offset` is a character of the source text:

- a tag that does not belong where it stands is *stray*: plain text of the thread it stands in;
- ``</Parallel>`` ends what is open inside its block; ``</Path>`` ends a block left open inside its path;
- ``<Path>`` directly in a path, and a summary in a path that has no block for it, end that path;
- a block is done with paths once its summary has begun: a later ``<Path>`` belongs to the block around it, or is stray;
- ``<Parallel>`` directly in a block ends that block;
- the end of the text ends everything; the Joins stay, so that latency counts what was decoded;
- beyond `MAX_NESTING` levels ``<Parallel>`` is stray, beyond `MAX_WORKERS` workers ``<Path>`` is.

Tags are matched in the case the models are trained on: all 5,831 tags of 150 recorded outputs have it. Only ``Think``
is taken in both cases.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from simulator.formats.groups.dialect import Dialect
from simulator.formats.texts import MAX_WORKERS, Faults
from simulator.trace import (
    MAX_NESTING,
    ORGANIZER,
    Action,
    Answer,
    Fork,
    Join,
    Outcome,
    Return,
    Think,
    Thread,
    Trace,
    ViolationKind,
    child_id,
)
from simulator.trace.answers import BOXED, boxed_answer
from simulator.trace.tokens import TokenCounter, by_characters, counter_name

_LABEL = re.compile(r"\s?([0-9.]{1,64}):")


def parse(
    text: str,
    dialect: Dialect,
    *,
    id: str = "trace",
    count: TokenCounter = by_characters,
    keep_text: bool = True,
    outcome: Outcome | None = None,
) -> Trace:
    """Return the Trace of one output of a model. Nothing in a text raises.

    Parameters
    ----------
    text : str
        The whole output.
    dialect : Dialect
    id, count, keep_text, outcome
        As of `simulator.parse`.
    """
    return _Scan(text, dialect, count, keep_text).trace(id, outcome)


Mark = tuple[int, int]  # of a tag: its offset in the text, and which action of its thread holds it


@dataclass(slots=True)
class _Open:
    """A thread that is being read."""

    id: str
    index: int
    prompt: int
    context: int
    mark: Mark
    label: str | None
    actions: list[Action] = field(default_factory=list)
    forks: int = 0
    waiting: list[tuple[int, int]] = field(default_factory=list)  # ended paths not joined yet: index, tokens
    block: Mark | None = None
    paths: int = 0  # in the block that is open
    concluded: bool = False  # the open block's summary has begun
    unsummed: bool = False  # a block has ended, and its summary may follow
    wrappers: list[tuple[str, Mark]] = field(default_factory=list)  # plan, Outline or summary that is open


class _Scan:
    """One pass over a text."""

    def __init__(self, text: str, dialect: Dialect, count: TokenCounter, keep: bool) -> None:
        self.text = text
        self.dialect = dialect
        self.count = count
        self.keep = keep
        self.by_length = count is by_characters and not keep  # then no piece of the text is needed
        self.at = 0  # text before here belongs to an action
        self.loose = 0  # from here on nothing of the organizer's is open
        self.thread = _Open(ORGANIZER, 0, 0, 0, (0, 0), None)
        self.threads = [self.thread]
        self.parents: list[_Open] = []
        self.think: Mark | None = None
        self.thought = False
        self.faults = Faults()

    def trace(self, id: str, outcome: Outcome | None) -> Trace:
        handlers = _HANDLERS.get(self.dialect.name) or _handlers(self.dialect)
        for match in self.dialect.tags.finditer(self.text):
            start, end = match.span()
            handlers[match[0]](self, start, end)
        self._finish()
        threads = [
            Thread(thread.id, tuple(thread.actions), thread.prompt, thread.prompt, thread.label)
            for thread in self.threads
        ]
        return Trace(id, tuple(threads), outcome, counter_name(self.count), None, self.faults.all())

    def _finish(self) -> None:
        end = len(self.text)
        while self.parents:
            self._end_path(end)
        root = self.thread
        if root.block or root.wrappers:
            self.loose = end
        if root.block:
            self._end_block(end)
        if self.thread.wrappers:
            self._end_wrappers()
        if self.think and not self.thought:
            self._unclosed("<Think> is never closed", self.think)
        start = self._answer()
        if start < 0:
            self._give(end)
            return
        before = len(root.actions) + len(root.waiting)
        self._give(start)
        shift = len(root.actions) - before  # what was thought to stand in a Think stands in the Answer
        self.faults.shift(start, shift)
        self._give(end, Answer)

    def _answer(self) -> int:
        """Return where the answer begins, or -1."""
        if self.thought:
            said = self.text[self.loose :].strip().removeprefix("Answer:")
            return self.loose if said else -1
        if self.think is None:
            for sign in self.dialect.answer_signs:
                boxed = sign == BOXED
                found = boxed_answer(self.text, self.loose) if boxed else self.text.rfind(sign, self.loose)
                if found >= 0:
                    return max(self.loose, self.text.rfind("\n", self.loose, found) + 1)
        return -1

    def _give(self, end: int, kind: type[Think] | type[Return] | type[Answer] = Think) -> None:
        """Give the text up to `end` to the thread that is being read, after the Joins it waits for."""
        thread = self.thread
        if thread.waiting:
            for index, tokens in thread.waiting:
                thread.actions.append(Join(index, 0, tokens))
                thread.context += tokens
            thread.waiting.clear()
        if self.at < end:
            if self.by_length and kind is not Answer:
                tokens, piece = (end - self.at + 3) >> 2, None
            else:
                piece = self.text[self.at : end]
                tokens = self.count(piece)
            thread.actions.append(kind(tokens, piece if self.keep or kind is Answer else None))
            thread.context += tokens
            self.at = end

    def _mark(self, offset: int) -> Mark:
        return offset, len(self.thread.actions) + len(self.thread.waiting)

    def _stray(self, message: str, offset: int) -> None:
        self.faults.add(ViolationKind.STRAY_TAG, self.thread.id, message, *self._mark(offset))

    def _unclosed(self, message: str, mark: Mark) -> None:
        self.faults.add(ViolationKind.UNCLOSED_TAG, self.thread.id, message, *mark)

    def _open_block(self, start: int, end: int) -> None:
        if len(self.parents) >= MAX_NESTING:
            return self._stray("<Parallel> is nested too deep", start)
        if self.thread.block:
            self._end_block(start)
        if self.thread.wrappers:
            self._end_wrappers()
        self.thread.block = self._mark(start)

    def _close_block(self, start: int, end: int) -> None:
        if not self.thread.block:
            if not self.parents:
                return self._stray("</Parallel> closes nothing", start)
            self._end_path(start)
        self._end_block(end, closed=True)

    def _end_block(self, at: int, closed: bool = False) -> None:
        thread = self.thread
        if self.thread.wrappers:
            self._end_wrappers()
        if thread.block and not closed:
            self._unclosed("<Parallel> is never closed", thread.block)
        thread.block = None
        thread.paths = 0
        thread.concluded = False
        thread.unsummed = True
        self.loose = at

    def _end_wrappers(self) -> None:
        wrappers = self.thread.wrappers
        while wrappers:
            name, mark = wrappers.pop()
            self._unclosed(f"<{name}> is never closed", mark)

    def _open_path(self, start: int, end: int) -> None:
        if len(self.threads) > MAX_WORKERS:
            return self._stray(f"a path beyond the {MAX_WORKERS} workers that are read", start)
        if not self.thread.block or self.thread.concluded:
            if not self.parents:
                return self._stray(f"<{self.dialect.path}> stands outside a block", start)
            self._end_path(start)
        parent = self.thread
        if self.thread.wrappers:
            self._end_wrappers()
        if self.at < start and not (parent.waiting and self.text[self.at : start].isspace()):
            self._give(start)
        parent.forks += 1
        parent.paths += 1
        parent.actions.append(Fork(parent.forks))
        label = _LABEL.match(self.text, end)
        name = child_id(parent.id, parent.forks) if self.parents else str(parent.forks)
        self.parents.append(parent)
        context = parent.context
        self.thread = _Open(name, parent.forks, context, context, (start, 0), label[1] if label else None)
        self.threads.append(self.thread)

    def _close_path(self, start: int, end: int) -> None:
        if not self.parents:
            return self._stray(f"</{self.dialect.path}> closes nothing", start)
        self._end_path(end, closed=True)

    def _end_path(self, at: int, closed: bool = False) -> None:
        worker = self.thread
        if worker.block:
            self._end_block(at)
        if self.thread.wrappers:
            self._end_wrappers()
        if not closed:
            self._unclosed(f"<{self.dialect.path}> is never closed", worker.mark)
        self._give(at, Return if closed else Think)
        self.thread = self.parents.pop()
        self.thread.waiting.append((worker.index, worker.context - worker.prompt))

    def _open_plan(self, start: int, end: int) -> None:
        thread = self.thread
        if not thread.block or thread.paths or thread.concluded or thread.wrappers:
            return self._stray(f"<{self.dialect.plan}> has no place here", start)
        thread.wrappers.append((str(self.dialect.plan), self._mark(start)))

    def _open_outline(self, start: int, end: int) -> None:
        wrappers = self.thread.wrappers
        if not wrappers or wrappers[0][0] != self.dialect.plan:
            return self._stray(f"<Outline> stands outside <{self.dialect.plan}>", start)
        if len(wrappers) > 1:
            self._unclosed("<Outline> is never closed", wrappers.pop()[1])
        wrappers.append(("Outline", self._mark(start)))

    def _close_wrapper(self, name: str, start: int, end: int) -> None:
        wrappers = self.thread.wrappers
        if not wrappers or (wrappers[-1][0] != name and all(wrapper != name for wrapper, _ in wrappers)):
            return self._stray(f"</{name}> closes nothing", start)
        while wrappers[-1][0] != name:
            inner, mark = wrappers.pop()
            self._unclosed(f"<{inner}> is never closed", mark)
        wrappers.pop()
        self.loose = end

    def _open_summary(self, start: int, end: int) -> None:
        inside, thread = self.dialect.summary_inside, self.thread
        if not (thread.block and not thread.concluded if inside else thread.block or thread.unsummed):
            if not self.parents:
                return self._stray(f"<{self.dialect.summary}> has no block", start)
            self._end_path(start)
            thread = self.thread
        if inside:
            if self.thread.wrappers:
                self._end_wrappers()
            thread.concluded = True
        else:
            if thread.block:
                self._end_block(start)
            thread.unsummed = False
        thread.wrappers.append((self.dialect.summary, self._mark(start)))

    def _open_think(self, start: int, end: int) -> None:
        if self.parents or self.thread.block or self.think or self.thought:
            return self._stray("<Think> has no place here", start)
        self.think = self._mark(start)

    def _close_think(self, start: int, end: int) -> None:
        # The opening tag may be part of the prompt, and so missing here.
        if self.parents or self.thread.block or self.thought:
            return self._stray("</Think> closes nothing", start)
        self.thought = True
        self.loose = end


_Handler = Callable[[_Scan, int, int], None]
_HANDLERS: dict[str, dict[str, _Handler]] = {}  # by dialect: making them anew for each text would cost a tenth of it


def _handlers(dialect: Dialect) -> dict[str, _Handler]:
    """Return, and remember, what each tag of a dialect does."""

    def closes(name: str) -> _Handler:
        return lambda scan, start, end: scan._close_wrapper(name, start, end)

    handlers: dict[str, _Handler] = {}
    for name, opening, closing in (
        ("Parallel", _Scan._open_block, _Scan._close_block),
        (dialect.path, _Scan._open_path, _Scan._close_path),
        (str(dialect.plan), _Scan._open_plan, None),
        ("Outline", _Scan._open_outline, None),
        (dialect.summary, _Scan._open_summary, None),
        ("Think", _Scan._open_think, _Scan._close_think),
        ("think", _Scan._open_think, _Scan._close_think),
    ):
        handlers[f"<{name}>"] = opening
        handlers[f"</{name}>"] = closing or closes(name)
    _HANDLERS[dialect.name] = handlers
    return handlers
