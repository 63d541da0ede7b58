"""Writing a trace as text of a group dialect: the way back from `simulator.formats.groups.blocks`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from simulator.errors import FormatError
from simulator.formats.groups import blocks
from simulator.formats.groups.dialect import Dialect
from simulator.formats.texts import MAX_FAULTS, check_filler, filler
from simulator.trace import ORGANIZER, Answer, Fork, Join, Return, Think, Thread, Trace, child_id
from simulator.trace.answers import BOXED, boxed_answer

# A text that moves to another dialect leaves its tags behind.
_TAGS = re.compile(
    r"</?(?:(?:FORK|JOIN|WORKER)-?[0-9.]{0,64}|RETURN|ANSWER"
    r"|Parallel|Path|Thread|Goal|Outlines?|Conclusion|Summary|[Tt]hink|guideline|plan|step|takeaway)>"
)
_LABEL = re.compile(r"<\w+>\n?([0-9.]+:) ")


def render(trace: Trace, dialect: Dialect) -> str:
    """Return `trace` as text of `dialect`.

    The texts of a trace that was read from this dialect are its source, and are only strung together (what stood
    between paths then stands behind them). Any other trace
    is laid out anew: with its texts, less their tags, or if it has none with neutral words, four characters a token.
    A Fork's own tokens come before its group, those of a Join after it, and workers are numbered anew.

    Raises
    ------
    FormatError
        If the trace does more than fork groups of workers and wait for all of each, or too many tokens have no text;
        in a flat dialect also if a worker forks, or never returns.
    """
    check_filler(trace)
    text = _source(trace)
    if text is not None and _shape(_read(text, dialect)) == _shape(trace):
        return text
    root = _plan(trace, trace.organizer, {thread.id: thread for thread in trace.threads}, dialect)
    worded = any(not isinstance(action, Fork | Join) and action.text for _, _, action in trace.actions())
    text = "".join(_Writer(dialect, worded).thread(root))
    again = _read(text, dialect)
    # A worker without a Return is a path without its end tag, and that is all that may be wrong.
    faults = min(_open_paths(root), MAX_FAULTS + 1)
    if _groups(_plan_of(again, dialect)) != _groups(root) or len(again.faults) != faults:
        raise FormatError(f"trace {trace.id!r}: in {dialect.name} text its words would read as tags or as an answer")
    return text


def _read(text: str, dialect: Dialect) -> Trace:
    return blocks.parse(text, dialect, count=len, keep_text=False)


def _shape(trace: Trace) -> list[tuple[str, list[type]]]:
    return [(thread.id, [action.__class__ for action in thread.actions]) for thread in trace.threads]


def _source(trace: Trace) -> str | None:
    """Return the texts of all actions in document order, or None where one is missing."""
    threads = {thread.id: thread for thread in trace.threads}
    pieces: list[str] = []
    pending = [(ORGANIZER, iter(trace.organizer.actions))]
    while pending:
        name, actions = pending[-1]
        action = next(actions, None)
        if action is None:
            pending.pop()
        elif isinstance(action, Fork):
            worker = threads.pop(child_id(name, action.index), None)  # once, whatever the Forks say
            if worker is not None:
                pending.append((worker.id, iter(worker.actions)))
        elif not isinstance(action, Join):
            if action.text is None:
                return None
            pieces.append(action.text)
    return "".join(pieces)


@dataclass(slots=True)
class _Piece:
    """What one thread decodes between two groups."""

    tokens: int = 0
    texts: list[str] = field(default_factory=list)

    def add(self, tokens: int, text: str | None = None) -> None:
        self.tokens += tokens
        if text:
            self.texts.append(text)


@dataclass(slots=True)
class _Plan:
    """A thread as the dialects see it: pieces with a group of workers between each two."""

    label: str
    pieces: list[_Piece]
    groups: list[list[_Plan]]
    queries: list[list[str | None]]
    end: _Piece | None = None


def _groups(plan: _Plan) -> Any:
    """Return what of a plan must survive: the tree of groups, and which threads end properly."""
    return plan.end is None, [[_groups(child) for child in group] for group in plan.groups]


def _open_paths(plan: _Plan) -> int:
    return sum((child.end is None) + _open_paths(child) for group in plan.groups for child in group)


def _plan_of(trace: Trace, dialect: Dialect) -> _Plan:
    return _plan(trace, trace.organizer, {thread.id: thread for thread in trace.threads}, dialect)


def _plan(trace: Trace, thread: Thread, threads: dict[str, Thread], dialect: Dialect) -> _Plan:
    """Cut a thread into pieces and groups; `threads` loses the workers that found their place."""

    def refuse(why: str) -> FormatError:
        return FormatError(
            f"trace {trace.id!r}: thread {thread.id} {why}; {dialect.name} text forks groups of workers and waits for"
            " all of each: use the asyncthink or native format"
        )

    del threads[thread.id]
    is_organizer = thread is trace.organizer
    plan = _Plan(thread.label or ("" if is_organizer else thread.id), [_Piece()], [], [])
    forked: dict[int, _Plan] = {}  # of the group that is open
    waiting: set[int] = set()
    for action in thread.actions:
        if plan.end is not None:
            raise refuse("goes on after its end")
        match action:
            case Think(tokens=tokens, text=text):
                if waiting and (tokens or text):
                    raise refuse(f"thinks while worker {min(waiting)} runs")
                plan.pieces[-1].add(tokens, text)
            case Fork(index=index, tokens=tokens, text=text):
                if dialect.flat and not is_organizer:
                    raise refuse("forks, and in this dialect only the organizer does")
                if waiting and len(waiting) < len(forked):
                    raise refuse(f"forks sub-query {index} while worker {min(waiting)} runs")
                child = threads.get(child_id(thread.id, index))
                if child is None:
                    raise refuse(f"forks sub-query {index}, which has no worker or is a duplicate")
                if not waiting:
                    forked = {}
                    plan.groups.append([])
                    plan.queries.append([])
                    plan.pieces.append(_Piece())
                plan.pieces[-2].add(tokens)
                waiting.add(index)
                forked[index] = _plan(trace, child, threads, dialect)
                plan.groups[-1].append(forked[index])
                plan.queries[-1].append(text)
            case Join(index=index, tokens=tokens):
                if index not in waiting:
                    raise refuse(f"joins sub-query {index}, which is not running")
                waiting.remove(index)
                plan.pieces[-1].add(tokens)
            case Return() | Answer() if isinstance(action, Answer) == is_organizer and not waiting:
                plan.end = _Piece()
                plan.end.add(action.tokens, action.text)
            case _:
                raise refuse(f"has an action {type(action).__name__} where it cannot be said")
    if dialect.flat and not is_organizer and plan.end is None:
        raise refuse("never returns, and would take the rest of the text")
    if waiting:
        raise refuse(f"never joins sub-query {min(waiting)}")
    if is_organizer and threads:
        raise refuse(f"does not fork worker {min(threads)}")
    return plan


def _shortest(tag: str | None) -> str:
    """Return a tag with nothing in it."""
    return f"<{tag}></{tag}>"


class _Writer:
    """Lays out plans: with their words where the trace is `worded`, else with neutral ones."""

    def __init__(self, dialect: Dialect, worded: bool) -> None:
        self.dialect = dialect
        self.worded = worded

    def piece(self, piece: _Piece, opening: str, closing: str, bare: tuple[str, str], least: int = 0) -> str:
        """Return a piece with its tags: `bare` ones where the full ones cost more tokens than it has."""
        if self.worded:
            words = _TAGS.sub("", "".join(piece.texts)).strip("\n")
            label = _LABEL.match(opening)
            return opening + (words.removeprefix(label[1]).lstrip() if label else words) + closing
        room = 4 * piece.tokens
        if len(opening) + len(closing) > room:
            opening, closing = bare
        room = max(room - len(opening) - len(closing), least)
        return opening + filler(room) + closing

    def thread(self, plan: _Plan, opening: str = "", bare: str = "") -> list[str]:
        """Return the text of one thread and its workers, in pieces; `opening`, or `bare`, precedes its first words."""
        dialect, line = self.dialect, self.dialect.newline
        is_organizer = not opening
        last = ""  # what follows the last piece
        if plan.end and not is_organizer:
            last = f"{line}</{dialect.path}>"
            plan.pieces[-1].tokens += plan.end.tokens
            plan.pieces[-1].texts += plan.end.texts
        elif plan.end and dialect.think:
            opening, last = f"<{dialect.think}>\n", f"\n</{dialect.think}>\n\n"
        elif plan.end:
            last = "\n\n"
        out: list[str] = []
        for piece, group, queries in zip_longest(plan.pieces, plan.groups, plan.queries):
            if group is None:
                if piece.tokens or piece.texts or opening or last:
                    out.append(self.piece(piece, opening, last, (bare, last.strip("\n") or last[:1])))
                continue
            first, last_tag = f"<{dialect.outline}>{line}", f"{line}</{dialect.outline}>\n"
            outlines = [
                f"{first}{child.label}: {_TAGS.sub('', query or 'sub-query')}{last_tag}"
                for child, query in zip(group, queries, strict=True)
            ]
            aims = f"<{dialect.plan}>\n{''.join(outlines)}</{dialect.plan}>\n" if dialect.plan else ""
            begin, end = (f"<{dialect.block}>\n", f"</{dialect.block}>\n") if dialect.block else ("", "")
            out.append(self.piece(piece, opening, f"\n{begin}{aims}", (bare, begin.strip() or _shortest(dialect.plan))))
            for child in group:
                out += self.thread(child, f"<{dialect.path}>{line}{child.label}: ", f"<{dialect.path}>")
            summary = f"<{dialect.summary}>\n</{dialect.summary}>\n"
            opening = f"{summary}{end}" if dialect.summary_inside else f"{end}{summary}"
            bare = end.strip() or _shortest(dialect.summary)
        if plan.end and is_organizer:
            sign, close, bare = ("Answer: ", "", "") if dialect.think else ("Final Answer: ", "", "\\boxed{0}")
            if not dialect.think and sign.strip(": ") not in dialect.answer_signs:
                boxed = self.worded and boxed_answer("".join(plan.end.texts), 0) >= 0
                sign, close = ("", "") if boxed else (BOXED, "}")
            out.append(self.piece(plan.end, sign, close, (bare, ""), least=1))
        return out
