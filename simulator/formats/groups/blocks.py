"""The scanner shared by the group dialects: Multiverse, ThreadWeaver, Parallel-R1 and NPR.

In these dialects a thread forks a whole group of paths at once and waits for all of them::

    text <Parallel> plan <Path>...</Path> <Path>...</Path> summary </Parallel> text

What it becomes: one Fork (0 tokens) and one worker for each path, then one Join (0 tokens) each. A path's worker has
all of its text, tags included; the text up to the first path, and from the end of the last one, is its parent's Think.
All paths of a block are one group. White space between two of them belongs to the second; any other text there is the
parent's, who decodes it when it has joined them. A path's last piece of text is its Return, if ``</Path>`` stands
there. A thread's Forks count up from 1 over its whole life; numbers in the text (``1.1:``) are labels. So each
character of the text belongs to exactly one action, and but for text between paths they are in the order of the text.

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

Labels decide where they are consistent with the Outlines (see `simulator.formats.groups.threads.home`):

- a ``<Path>`` belongs to the innermost block whose Outlines hold its label, if that has no such path yet;
- a path that was ended by a summary or by ``</Parallel>`` ran on after all, if ``</Path>`` follows, or a path that its
  block still lacks;
- a plan without ``<Parallel>`` begins a block, if a path follows that it names.

A *flat* dialect (ThreadWeaver) is read as its own reward reads it: paths do not nest, within a path every tag but its
end is text, also ``</Parallel>``, and white space between paths is their parent's. Without a tag for blocks (NPR), the
plan begins one and the end of its summary ends it.

Tags are matched in the case the models are trained on: all 5,831 tags of 150 recorded outputs have it. Only ``Think``
is taken in both cases.
"""

from __future__ import annotations

from collections.abc import Callable

from simulator.formats.groups.dialect import Dialect
from simulator.formats.groups.threads import LABEL, Block, Cursor, OpenThread, home
from simulator.formats.texts import MAX_WORKERS
from simulator.trace import (
    MAX_NESTING,
    Answer,
    Fork,
    Outcome,
    Return,
    Think,
    Thread,
    Trace,
    child_id,
)
from simulator.trace.answers import BOXED, boxed_answer
from simulator.trace.tokens import TokenCounter, by_characters, counter_name


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


class _Scan(Cursor):
    """One pass over a text."""

    def __init__(self, text: str, dialect: Dialect, count: TokenCounter, keep: bool) -> None:
        super().__init__(text, count, keep)
        self.dialect = dialect
        self.loose = 0  # from here on nothing of the organizer's is open
        self.concluding = 0  # where what the last summary says begins
        self.threads = [self.thread]
        self.parents: list[OpenThread] = []
        self.think: int | None = None  # where <Think> stands
        self.thought = False

    def trace(self, id: str, outcome: Outcome | None) -> Trace:
        outside, within = _HANDLERS.get(self.dialect.name) or _handlers(self.dialect)
        parts = self.dialect.tags.split(self.text)
        start = len(parts[0])
        for tag, text in zip(parts[1::2], parts[2::2], strict=True):
            end = start + len(tag)
            (within if self.parents else outside)[tag](self, start, end)
            start = end + len(text)
        self._finish()
        threads = [
            Thread(thread.id, tuple(thread.actions), thread.prompt, thread.prompt, thread.label)
            for thread in self.threads
        ]
        holders = {thread.id: thread for thread in self.threads} if self.faults.listed else {}
        faults = self.faults.all(lambda thread, offset: holders[thread].action_at(offset))
        return Trace(id, tuple(threads), outcome, counter_name(self.count), None, faults)

    def _finish(self) -> None:
        end = len(self.text)
        while self.parents:
            self._end_path(end)
        root = self.thread
        self._forget_plan()
        if root.block or root.wrappers:
            self.loose = end
        if root.block:
            self._end_block(end)
        if root.wrappers:
            self._end_wrappers()
        if self.think is not None and not self.thought:
            self.unclosed("<Think> is never closed", self.think)
        start = self._answer()
        if start < 0:
            self.give(end)
            return
        self.give(start)
        self.give(end, Answer)

    def _answer(self) -> int:
        """Return where the answer begins, or -1."""
        if self.thought:
            said = self.text[self.loose :].strip().removeprefix("Answer:")
            return self.loose if said else -1
        if self.think is None:
            for sign in self.dialect.answer_signs:
                start = self._answer_line(sign, self.text, self.loose)
                if start >= 0:
                    return start
            said = self.text[: self.loose].removesuffix(f"</{self.dialect.summary}>")
            if (
                not self.dialect.block
                and self.concluding <= len(said) < self.loose
                and not self.text[self.loose :].strip()
            ):
                return self._answer_line(BOXED, said, self.concluding)  # the last summary is the end, and holds it
        return -1

    def _answer_line(self, sign: str, text: str, start: int) -> int:
        """Return where the line of the last sign of an answer begins, or -1."""
        found = boxed_answer(text, start) if sign == BOXED else text.rfind(sign, start)
        return max(start, text.rfind("\n", start, found) + 1) if found >= 0 else -1

    def _open_block(self, start: int, end: int) -> None:
        if len(self.parents) >= MAX_NESTING:
            return self.stray("<Parallel> is nested too deep", start)
        self._forget_plan()
        if self.thread.block:
            if self.dialect.flat:
                return self.stray("<Parallel> stands in a block", start)
            self._end_block(start)
        if self.thread.wrappers:
            self._end_wrappers()
        self.thread.block = Block(self.text, start)

    def _close_block(self, start: int, end: int) -> None:
        if not self.thread.block:
            if not self.parents:
                return self.stray("</Parallel> closes nothing", start)
            self._force_path(start)
        self._end_block(end, closed=True)

    def _end_block(self, at: int, closed: bool = False) -> None:
        thread = self.thread
        if thread.wrappers:
            self._end_wrappers()
        if thread.block and not closed and not thread.block.implied:
            self.unclosed(self.dialect.never_closed, thread.block.offset)
        thread.past, thread.block = thread.block, None
        thread.unsummed = True
        self.loose = at

    def _end_wrappers(self) -> None:
        wrappers = self.thread.wrappers
        while wrappers:
            name, offset = wrappers.pop()
            self.unclosed(f"<{name}> is never closed", offset)

    def _forget_plan(self) -> None:
        """Forget a block that only a plan without ``<Parallel>`` has begun."""
        thread = self.thread
        if thread.block and thread.block.implied and not thread.block.paths:
            thread.block = None
            thread.wrappers.clear()

    def _open_path(self, start: int, end: int) -> None:
        if len(self.threads) > MAX_WORKERS:
            return self.stray(f"a path beyond the {MAX_WORKERS} workers that are read", start)
        found = LABEL.match(self.text, end)
        label = found[1] if found else None
        block = self.thread.block
        if label and (self.parents or block is None or block.concluded) and not self.dialect.flat:
            self._go_home(label, start)
            block = self.thread.block
        if block is None or (block.concluded and not self.dialect.flat):
            if not self.parents:
                return self.stray(f"<{self.dialect.path}> stands outside a block", start)
            self._end_path(start)
            block = self.thread.block
        if block is None or (block.implied and label not in block.outlined):
            self._forget_plan()
            return self.stray(f"<{self.dialect.path}> stands outside a block", start)
        parent = self.thread
        if parent.wrappers:
            self._end_wrappers()
        if not block.paths:
            if self.at < start or parent.waiting:
                self.give(start)
        elif self.at < start and (self.dialect.flat or not self.text[self.at : start].isspace()):
            self.hold(start)
        parent.forks += 1
        block.paths += 1
        if label:
            block.labels[label] = None
        parent.actions.append(Fork(parent.forks))
        name = child_id(parent.id, parent.forks) if self.parents else str(parent.forks)
        self.parents.append(parent)
        self.thread = OpenThread(name, parent.forks, parent.context, start, label)
        self.threads.append(self.thread)

    def _go_home(self, label: str, start: int) -> None:
        """Go to the thread to whose block a path belongs by its label, as far as that says."""
        level = home(label, [*self.parents, self.thread], self.at)
        if level is None:
            return
        while self.thread is not level:
            self._end_path(start)
        if (past := level.ran_on(self.at)) and past.lacks(label):
            self._resume(past)
            self._end_path(start, known=True)

    def _resume(self, block: Block) -> None:
        """Go on with the last path of a block, which ran on after what seemed its end."""
        parent = self.thread
        parent.block, parent.past = block, None
        parent.wrappers.clear()
        block.concluded = False
        parent.waiting.pop()
        self.parents.append(parent)
        assert block.forced is not None
        self.thread, block.forced = block.forced, None

    def _close_path(self, start: int, end: int) -> None:
        if not self.parents:
            past = self.thread.ran_on(self.at)
            if past is None or self.dialect.flat:
                return self.stray(f"</{self.dialect.path}> closes nothing", start)
            self._resume(past)
        self._end_path(end, closed=True)

    def _end_path(self, at: int, closed: bool = False, known: bool = False) -> None:
        """End the path that is being read; `known`: that it was never closed has been said."""
        if self.thread.block:
            self._end_block(at)
        worker = self.thread
        if worker.wrappers:
            self._end_wrappers()
        if not closed and not known:
            self.unclosed(f"<{self.dialect.path}> is never closed", worker.offset)
        self.give(at, Return if closed else Think)
        self.thread = self.parents.pop()
        self.thread.waiting.append((worker.index, worker.context - worker.prompt))

    def _force_path(self, at: int) -> None:
        """End the path that is being read by what can only stand behind it. It may turn out to have run on."""
        worker = self.thread
        self._end_path(at)
        block = self.thread.block
        if block and worker.label and worker.label in block.outlined:
            block.forced, block.forced_at = worker, self.at

    def _open_plan(self, start: int, end: int) -> None:
        thread = self.thread
        block = thread.block
        if block and (block.concluded or (block.paths and not self.dialect.block)) and not self.dialect.flat:
            self._end_block(start)
            block = None
        if block is None and not self.dialect.flat and len(self.parents) < MAX_NESTING and not thread.wrappers:
            if self.dialect.block:
                self.stray(f"<{self.dialect.plan}> stands outside a block", start)
            thread.block = Block(self.text, start, implied=self.dialect.block is not None)
        elif block is None or block.paths or block.concluded or thread.wrappers:
            return self.stray(f"<{self.dialect.plan}> has no place here", start)
        thread.wrappers.append((str(self.dialect.plan), start))

    def _open_outline(self, start: int, end: int) -> None:
        thread = self.thread
        wrappers = thread.wrappers
        if not wrappers or wrappers[0][0] != self.dialect.plan:
            return self.stray(f"<{self.dialect.outline}> stands outside <{self.dialect.plan}>", start)
        if len(wrappers) > 1:
            name, offset = wrappers.pop()
            self.unclosed(f"<{name}> is never closed", offset)
        wrappers.append((self.dialect.outline, start))
        if thread.block:
            thread.block.outlines.append(end)

    def _close_wrapper(self, name: str, start: int, end: int) -> None:
        wrappers = self.thread.wrappers
        if not wrappers or (wrappers[-1][0] != name and all(wrapper != name for wrapper, _ in wrappers)):
            return self.stray(f"</{name}> closes nothing", start)
        while wrappers[-1][0] != name:
            inner, offset = wrappers.pop()
            self.unclosed(f"<{inner}> is never closed", offset)
        wrappers.pop()
        self.loose = end
        if name == self.dialect.summary and not self.dialect.block:
            self._end_block(end, closed=True)

    def _open_summary(self, start: int, end: int) -> None:
        inside = self.dialect.summary_inside
        self._forget_plan()
        thread = self.thread
        if not (thread.block and not thread.block.concluded if inside else thread.block or thread.unsummed):
            if not self.parents:
                return self.stray(f"<{self.dialect.summary}> has no block", start)
            self._force_path(start)
            thread = self.thread
        if inside:
            if thread.wrappers:
                self._end_wrappers()
            if thread.block:
                thread.block.concluded = True
            self.concluding = end
        else:
            if thread.block:
                self._end_block(start)
            thread.unsummed = False
        thread.wrappers.append((self.dialect.summary, start))

    def _open_think(self, start: int, end: int) -> None:
        self._forget_plan()
        if self.parents or self.thread.block or self.think is not None or self.thought:
            return self.stray("<Think> has no place here", start)
        self.think = start

    def _close_think(self, start: int, end: int) -> None:
        # The opening tag may be part of the prompt, and so missing here.
        self._forget_plan()
        if self.parents or self.thread.block or self.thought:
            return self.stray("</Think> closes nothing", start)
        self.thought = True
        self.loose = end


_Handler = Callable[[_Scan, int, int], None]
_Handlers = dict[str, _Handler]
_HANDLERS: dict[str, tuple[_Handlers, _Handlers]] = {}  # making them anew for each text would cost a tenth of it


def _handlers(dialect: Dialect) -> tuple[_Handlers, _Handlers]:
    """Return, and remember, what each tag of a dialect does outside all paths, and within one."""

    def closes(name: str) -> _Handler:
        return lambda scan, start, end: scan._close_wrapper(name, start, end)

    def is_text(tag: str) -> _Handler:
        return lambda scan, start, end: scan.stray(f"{tag} is text of the {dialect.path} that it stands in", start)

    handlers: _Handlers = {}
    for name, opening, closing in (
        (str(dialect.block), _Scan._open_block, _Scan._close_block),
        (dialect.path, _Scan._open_path, _Scan._close_path),
        (str(dialect.plan), _Scan._open_plan, None),
        (dialect.outline, _Scan._open_outline, None),
        (dialect.summary, _Scan._open_summary, None),
        ("Think", _Scan._open_think, _Scan._close_think),
        ("think", _Scan._open_think, _Scan._close_think),
    ):
        handlers[f"<{name}>"] = opening
        handlers[f"</{name}>"] = closing or closes(name)
    within = handlers
    if dialect.flat:
        within = {tag: is_text(tag) for tag in handlers} | {f"</{dialect.path}>": _Scan._close_path}
    _HANDLERS[dialect.name] = handlers, within
    return handlers, within
