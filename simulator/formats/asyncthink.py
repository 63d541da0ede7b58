r"""AsyncThink text (arXiv 2510.26658): the organizer's text, and beside it one text a worker.

::

    think ... <FORK-1>sub-query</FORK-1> think on ... <JOIN-1>returned text</JOIN-1> ... <ANSWER>42</ANSWER>
    <WORKER-1>think ... <RETURN>takeaways</RETURN></WORKER-1>

The hyphen may be missing (``<FORK1>``), and so may ``</JOIN-i>``: then the inserted text is taken to be what worker i
returned. Workers come as a mapping from id to text, or in one file after the organizer as ``<WORKER-i>`` sections,
which are this project's own layout. Without an ``<ANSWER>`` tag the text from the last ``\boxed{`` on is the answer.

Whose tokens: a Fork's tags and sub-query are decoded by the forking thread, as is the opening ``<JOIN-i>``; the returned
text and ``</JOIN-i>`` are inserted by the runtime (`Join.inserted_tokens`). ``<WORKER-i>`` tags are nobody's. White space
after the last ``</ANSWER>`` or ``</RETURN>`` is not counted.

Recovery, in one pass and without look-ahead: a tag that opens while another is open leaves the first *unclosed*, and its
text is thinking; a closing tag that closes nothing is *stray*, and is text of what it stands in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from simulator.errors import FormatError
from simulator.tokens import TokenCounter, by_characters, counter_name
from simulator.trace import (
    MAX_INDEX,
    MAX_NESTING,
    ORGANIZER,
    Action,
    Answer,
    Delay,
    Fork,
    Join,
    Outcome,
    Return,
    Think,
    Thread,
    Trace,
    Violation,
    ViolationKind,
    child_id,
)

__all__ = ["detect", "parse", "render"]

# An odd group opens, the even one after it closes. No quantifier can backtrack: each repeats one character class
# up to a fixed bound, followed by something outside that class.
_TAG = re.compile(
    r"<(?:FORK-?(\d{1,40})|/FORK-?(\d{0,40})|JOIN-?(\d{1,40})|/JOIN-?(\d{0,40})"
    r"|(RETURN)|(/RETURN)|(ANSWER)|(/ANSWER))>"
)
_FORK, _JOIN, _RETURN, _END_RETURN, _ANSWER = 1, 3, 5, 6, 7
_NAMES = {1: "FORK", 3: "JOIN", 5: "RETURN", 7: "ANSWER"}
_SECTION = re.compile(r"\n?<WORKER-?([\d.]{1,200})>")
_PLAIN = re.compile(r"0|[1-9][0-9]{0,9}").fullmatch
_RETURNED = re.compile(r"<RETURN>([^<]*)</RETURN>")
MAX_FAULTS = 100


class _Faults:
    """Violations found so far; beyond `MAX_FAULTS` only their number is kept, so that hostile text cannot fill memory."""

    def __init__(self) -> None:
        self.found: list[Violation] = []
        self.dropped = 0

    def add(self, kind: ViolationKind, thread: str, message: str, offset: int | None = None) -> None:
        if len(self.found) < MAX_FAULTS:
            self.found.append(Violation(kind, thread, message, offset=offset))
        else:
            self.dropped += 1

    def all(self) -> tuple[Violation, ...]:
        if self.dropped:
            self.found.append(
                Violation(ViolationKind.STRAY_TAG, ORGANIZER, f"and {self.dropped} more faults of this text")
            )
        return tuple(self.found)


def parse(
    text: str,
    *,
    workers: Mapping[str, str] | None = None,
    id: str = "trace",
    count: TokenCounter = by_characters,
    keep_text: bool = True,
    outcome: Outcome | None = None,
) -> Trace:
    """Return the Trace of an organizer's text and its workers' texts.

    Parameters
    ----------
    text : str
        The organizer's text, with or without ``<WORKER-i>`` sections after it.
    workers : mapping from str to str, optional
        Text of each worker by id (``"1"``, nested ``"1.2"``).
    id : str
        The trace's name.
    count : callable
        Counts the tokens of a piece of text.
    keep_text : bool
        Whether actions keep their text. Scoring does not need it.
    outcome : Outcome, optional
        How the answer was judged.

    Raises
    ------
    FormatError
        If a worker's id is no path of Fork indices. Nothing in a text raises.

    Examples
    --------
    >>> trace = parse("Split it. <FORK-1>odd half</FORK-1> <JOIN-1>9</JOIN-1><ANSWER>9</ANSWER>",
    ...               workers={"1": "1 + 3 + 5 = 9 <RETURN>9</RETURN>"})
    >>> [type(action).__name__ for action in trace.organizer.actions]
    ['Think', 'Fork', 'Think', 'Join', 'Answer']
    >>> trace.faults
    ()
    """
    faults = _Faults()
    texts = dict(workers) if workers else {}
    if "<WORKER" in text:
        text = _cut_sections(text, texts, faults)
    names = _in_order(texts, faults)
    forked: dict[str, int] = {}
    threads = [Thread(ORGANIZER, _actions(text, ORGANIZER, texts, forked, count, keep_text, faults))]
    for name in names:
        actions = _actions(texts[name], name, texts, forked, count, keep_text, faults)
        threads.append(Thread(name, actions, forked.get(name, 0)))
    return Trace(id, tuple(threads), outcome, counter_name(count), None, faults.all())


def _in_order(texts: Mapping[str, str], faults: _Faults) -> list[str]:
    """Return the workers' ids, parents before children, without those whose parent is not recorded."""
    if all(map(_PLAIN, texts)):
        return sorted(texts, key=int)
    kept: dict[str, None] = {}
    for name in sorted(texts, key=_path):
        parent = name.rpartition(".")[0]
        if (parent and parent not in kept) or name.count(".") >= MAX_NESTING:
            faults.add(ViolationKind.WORKER_WITHOUT_FORK, ORGANIZER, f"worker {name[:40]} is recorded but not its parent")
        else:
            kept[name] = None
    return list(kept)


def _path(name: str) -> tuple[int, ...]:
    parts = name.split(".")
    if not all(map(_PLAIN, parts)):
        raise FormatError(f"a worker is called by its Fork index, like '1' or nested '1.2'; got {name[:40]!r}")
    return tuple(map(int, parts))


def _cut_sections(text: str, texts: dict[str, str], faults: _Faults) -> str:
    """Move the ``<WORKER-i>`` sections of `text` into `texts` and return what precedes them."""
    organizer, at = "", 0
    for match in _SECTION.finditer(text):
        start, end = match.span()
        if start < at:
            continue
        organizer += text[at:start]
        name = match[1]
        close = text.find("</WORKER", end)
        stop = text.find(">", close) if close >= 0 else -1
        if stop < 0:
            faults.add(ViolationKind.UNCLOSED_TAG, name, f"<WORKER-{name[:40]}> is never closed", start)
            close = stop = len(text)
        if name in texts:
            faults.add(ViolationKind.STRAY_TAG, ORGANIZER, f"a second text for worker {name[:40]}", start)
        elif not all(map(_PLAIN, name.split("."))):
            faults.add(ViolationKind.STRAY_TAG, ORGANIZER, f"<WORKER-{name[:40]}> is no path of Fork indices", start)
        else:
            texts[name] = text[end:close]
        at = stop + 1
    rest = text[at:]
    return organizer + rest if rest.strip() else organizer


def _actions(
    text: str,
    name: str,
    texts: Mapping[str, str],
    forked: dict[str, int],
    count: TokenCounter,
    keep: bool,
    faults: _Faults,
) -> tuple[Action, ...]:
    """Scan one thread's text. `forked` collects the prompt tokens of the workers it forks."""
    is_organizer = name == ORGANIZER
    last = _ANSWER if is_organizer else _RETURN
    actions: list[Action] = []
    add = actions.append
    at = 0  # text before here belongs to an action
    opened = index = open_at = open_end = 0
    digits = ""
    ended = False
    for match in _TAG.finditer(text):
        tag = match.lastindex or 0
        start, end = match.span()
        if opened:
            if tag == opened + 1 and (tag > 4 or (shown := match[tag]) == digits or not shown or int(shown) == index):
                if at < open_at:
                    add(Think(count(piece := text[at:open_at]), piece if keep else None))
                if opened == _FORK:
                    tokens = count(text[open_at:end])
                    add(Fork(index, tokens, text[open_end:start] if keep else None))
                    forked[str(index) if is_organizer else f"{name}.{index}"] = tokens
                elif opened == _JOIN:
                    inserted = text[open_end:start] if keep else None
                    add(Join(index, count(text[open_at:open_end]), count(text[open_end:end]), inserted))
                elif is_organizer:
                    add(Answer(count(text[open_at:end]), text[open_end:start] if keep else None))
                    ended = True
                else:
                    add(Return(count(text[open_at:end]), text[open_end:start] if keep else None))
                    ended = True
                at = end
                opened = 0
                continue
            if not tag & 1:  # a closing tag, but not ours
                if not (opened == _JOIN and tag == _END_RETURN):
                    faults.add(ViolationKind.STRAY_TAG, name, f"{match[0][:60]} closes nothing", start)
                continue
            if opened == _JOIN:
                if tag == _RETURN:  # some runtimes insert the worker's tags with its text
                    continue
                at = _bare_join(text, name, texts, index, (at, open_at, open_end), actions, count, keep)
            else:
                faults.add(ViolationKind.UNCLOSED_TAG, name, f"<{_NAMES[opened]}> is never closed", open_at)
            opened = 0
        if tag <= _JOIN and tag & 1:
            digits = match[tag]
            index = int(digits)
            if index > MAX_INDEX:
                faults.add(ViolationKind.STRAY_TAG, name, f"sub-query index {digits} is above 10^9", start)
                continue
        elif tag != last:
            what = "closes nothing" if not tag & 1 else f"has no place in {'the organizer' if is_organizer else 'a worker'}"
            faults.add(ViolationKind.STRAY_TAG, name, f"{match[0][:60]} {what}", start)
            continue
        opened, open_at, open_end = tag, start, end
    if opened == _JOIN:
        at = _bare_join(text, name, texts, index, (at, open_at, open_end), actions, count, keep)
    elif opened:
        faults.add(ViolationKind.UNCLOSED_TAG, name, f"<{_NAMES[opened]}> is never closed", open_at)
    rest = text[at:]
    if rest and not (ended and not rest.strip()):
        boxed = rest.rfind("\\boxed{") if is_organizer and not ended else -1
        if boxed >= 0:
            if boxed:
                add(Think(count(rest[:boxed]), rest[:boxed] if keep else None))
            add(Answer(count(rest[boxed:]), rest[boxed:] if keep else None))
        else:
            add(Think(count(rest), rest if keep else None))
    return tuple(actions)


def _bare_join(
    text: str,
    name: str,
    texts: Mapping[str, str],
    index: int,
    spot: tuple[int, int, int],
    actions: list[Action],
    count: TokenCounter,
    keep: bool,
) -> int:
    """Add a Join that has no closing tag; return where the text after it begins."""
    at, start, end = spot
    if at < start:
        actions.append(Think(count(text[at:start]), text[at:start] if keep else None))
    returned = _RETURNED.search(texts.get(child_id(name, index), ""))
    inserted = count(returned[1]) if returned else 0
    actions.append(Join(index, count(text[start:end]), inserted))
    return end


def detect(text: str) -> bool:
    """Return whether `text` holds a tag of this dialect.

    >>> detect("<FORK-1>x</FORK-1>"), detect("plain")
    (True, False)
    """
    return _TAG.search(text) is not None or _SECTION.search(text) is not None


def _filler(characters: int) -> str:
    """Return neutral text: a word and a token each four characters."""
    return ("tok " * (characters // 4 + 1))[:characters] if characters > 0 else ""


def _tagged(text: str | None, tokens: int, opening: str, closing: str) -> str:
    if text is None:
        text = _filler(4 * tokens - len(opening) - len(closing))
    return opening + text + closing


def render(trace: Trace) -> str:
    r"""Return `trace` in the one-file layout. Actions without text are filled with neutral words.

    Raises
    ------
    FormatError
        If a thread holds a Delay, which the dialect cannot say.

    >>> render(parse("a <FORK1>b</FORK1><JOIN-1>c</JOIN-1><ANSWER>d</ANSWER>", workers={"1": "<RETURN>c</RETURN>"}))
    'a <FORK-1>b</FORK-1><JOIN-1>c</JOIN-1><ANSWER>d</ANSWER>\n<WORKER-1><RETURN>c</RETURN></WORKER-1>'
    """
    parts: list[str] = []
    for thread in trace.threads:
        if thread.id != ORGANIZER:
            parts.append(f"\n<WORKER-{thread.id}>")
        for action in thread.actions:
            match action:
                case Think(tokens=tokens, text=text):
                    parts.append(_tagged(text, tokens, "", ""))
                case Fork(index=i, tokens=tokens, text=text):
                    parts.append(_tagged(text, tokens, f"<FORK-{i}>", f"</FORK-{i}>"))
                case Join(index=i, inserted_tokens=tokens, text=text):
                    closing = f"</JOIN-{i}>" if text is not None or tokens else ""
                    parts.append(f"<JOIN-{i}>" + (_tagged(text, tokens, "", closing) if closing else ""))
                case Return(tokens=tokens, text=text):
                    parts.append(_tagged(text, tokens, "<RETURN>", "</RETURN>"))
                case Answer(tokens=tokens, text=text):
                    boxed = text is not None and text.startswith("\\boxed{")
                    parts.append(text if boxed and text else _tagged(text, tokens, "<ANSWER>", "</ANSWER>"))
                case Delay():
                    raise FormatError(f"trace {trace.id!r}: AsyncThink text cannot hold a Delay; use the native format")
        if thread.id != ORGANIZER:
            parts.append(f"</WORKER-{thread.id}>")
    return "".join(parts)
