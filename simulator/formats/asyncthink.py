r"""AsyncThink text (arXiv 2510.26658): the organizer's text, and beside it one text a worker.

::

    think ... <FORK-1>sub-query</FORK-1> think on ... <JOIN-1>returned text</JOIN-1> ... <ANSWER>42</ANSWER>
    <WORKER-1>think ... <RETURN>takeaways</RETURN></WORKER-1>

The hyphen may be missing (``<FORK1>``), and so may ``</JOIN-i>``: then the inserted text is taken to be what worker i
returned. Workers come as a mapping from id to text, or in one file after the organizer as ``<WORKER-i>`` sections,
which are this project's own layout. Without an ``<ANSWER>`` tag the text from the last ``\boxed{`` on is the answer.

Whose tokens: a Fork's tags and sub-query are decoded by the forking thread, as is the opening ``<JOIN-i>``; the
returned text and ``</JOIN-i>`` are inserted by the runtime (`Join.inserted_tokens`). ``<WORKER-i>`` tags are nobody's.
White space after the last ``</ANSWER>`` or ``</RETURN>`` is not counted.

Recovery, in one pass and without look-ahead: a tag that opens while another is open leaves the first *unclosed*, and
its text is thinking; a closing tag that closes nothing is *stray*, and is text of what it stands in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from simulator.errors import FormatError
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
from simulator.trace.tokens import COUNTERS, TokenCounter, by_characters, counter_name

__all__ = ["detect", "parse", "render"]

# One character class up to a fixed bound, then something outside it: nothing here can backtrack.
_TAGS = re.compile(r"<(/?(?:FORK|JOIN|RETURN|ANSWER)-?[0-9]{0,40})>")
_FORK, _JOIN, _RETURN, _ANSWER = 1, 3, 5, 7  # odd kinds open, the even one after each closes; 0 is no tag
_NAMES = {"FORK": _FORK, "JOIN": _JOIN, "RETURN": _RETURN, "ANSWER": _ANSWER}
MAX_WORKERS = 10_000
MAX_TAGS = 100_000  # of one thread: what follows is read as text, so that hostile text cannot fill memory
_HINT = re.compile(r"</?(?:FORK|JOIN|RETURN|ANSWER|WORKER)")
_SECTION = re.compile(r"\n?<WORKER-?([\d.]{1,200})>")
_PLAIN = re.compile(r"0|[1-9][0-9]{0,9}").fullmatch
_RETURNED = re.compile(r"<RETURN>([^<]*)</RETURN>")
MAX_FAULTS = 100


class _Faults:
    """Violations found so far; beyond `MAX_FAULTS` only their number is kept, so that hostile text cannot fill
    memory.
    """

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
                Violation(ViolationKind.MORE_FAULTS, ORGANIZER, f"and {self.dropped} more faults of this text")
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
    threads = [Thread(ORGANIZER, _scan(text, ORGANIZER, texts, forked, count, keep_text, faults))]
    for name in names:
        actions = _scan(texts[name], name, texts, forked, count, keep_text, faults)
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
            faults.add(
                ViolationKind.WORKER_WITHOUT_FORK, ORGANIZER, f"worker {name[:40]} is recorded but not its parent"
            )
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
        elif len(texts) >= MAX_WORKERS:
            faults.add(
                ViolationKind.STRAY_TAG, ORGANIZER, f"more than {MAX_WORKERS} workers; the rest is left out", start
            )
        elif not all(map(_PLAIN, name.split("."))):
            faults.add(ViolationKind.STRAY_TAG, ORGANIZER, f"<WORKER-{name[:40]}> is no path of Fork indices", start)
        else:
            texts[name] = text[end:close]
        at = stop + 1
    rest = text[at:]
    return organizer + rest if rest.strip() else organizer


@lru_cache(maxsize=4096)
def _read_tag(tag: str) -> tuple[int, int]:
    """Return the kind and the index of a tag, without its brackets; -1 for no index. An index may be too large."""
    name = tag.lstrip("/").rstrip("0123456789")
    digits = tag.lstrip("/")[len(name) :]
    kind = _NAMES[name.rstrip("-")]
    closes = tag.startswith("/")
    if kind > _JOIN:  # these have no index
        return (0 if digits or name.endswith("-") else kind + closes), -1
    if not digits:
        return (kind + 1 if closes and not name.endswith("-") else 0), -1
    return kind + closes, int(digits)


def _scan(
    text: str,
    name: str,
    texts: Mapping[str, str],
    forked: dict[str, int],
    count: TokenCounter,
    keep: bool,
    faults: _Faults,
) -> tuple[Action, ...]:
    """Return the actions in one thread's text. `forked` collects the prompt tokens of the workers it forks."""
    is_organizer = name == ORGANIZER
    by_length = count is by_characters  # then lengths do, and nothing needs putting together
    last = _ANSWER if is_organizer else _RETURN
    actions: list[Action] = []
    parts = _TAGS.split(text, MAX_TAGS)  # text, tag, text, tag, ..., text
    thinking = parts[0]  # text that belongs to no action yet; CPython appends to it in place
    inside = opening = ""
    offset = len(thinking)
    opened = index = opened_at = 0
    ended = False
    returned: dict[int, int] = {}  # what Joins without a closing tag insert
    closings: frozenset[tuple[int, int]] = frozenset()
    for place in range(1, len(parts), 2):
        tag = parts[place]
        piece = parts[place + 1]
        kind, number = _read_tag(tag)
        at = offset
        offset += len(tag) + len(piece) + 2
        if opened:
            if kind == opened + 1 and (number == index or number < 0):
                if thinking:
                    tokens = (len(thinking) + 3) >> 2 if by_length else count(thinking)
                    actions.append(Think(tokens, thinking if keep else None))
                kept = inside if keep else None
                if opened == _JOIN:
                    asked = (len(opening) + 5) >> 2 if by_length else count(f"<{opening}>")
                    inserted = (len(inside) + len(tag) + 5) >> 2 if by_length else count(f"{inside}<{tag}>")
                    actions.append(Join(index, asked, inserted, kept))
                else:
                    size = len(opening) + len(inside) + len(tag)
                    tokens = (size + 7) >> 2 if by_length else count(f"<{opening}>{inside}<{tag}>")
                    if opened == _FORK:
                        actions.append(Fork(index, tokens, kept))
                        forked.setdefault(str(index) if is_organizer else f"{name}.{index}", tokens)
                    else:
                        actions.append(Answer(tokens, kept) if is_organizer else Return(tokens, kept))
                        ended = True
                thinking = piece
                opened = 0
                continue
            # Some runtimes insert a worker's tags with its text; but a worker's own Return may follow a bare Join.
            inserted_tag = opened == _JOIN and kind in (_RETURN, _RETURN + 1)
            if inserted_tag and not is_organizer:
                closings = closings or frozenset(map(_read_tag, parts[1::2]))
                inserted_tag = not closings.isdisjoint(((_JOIN + 1, index), (_JOIN + 1, -1)))
            if inserted_tag or not kind & 1:
                if kind and not inserted_tag:
                    faults.add(ViolationKind.STRAY_TAG, name, f"<{tag}> closes nothing", at)
                inside += f"<{tag}>{piece}"
                continue
            if opened == _JOIN:
                if index not in returned:
                    returned[index] = _returned(texts.get(child_id(name, index), ""), count)
                if thinking:
                    actions.append(Think(count(thinking), thinking if keep else None))
                actions.append(Join(index, count(f"<{opening}>"), returned[index]))
                thinking = inside
            else:
                faults.add(ViolationKind.UNCLOSED_TAG, name, f"<{opening}> is never closed", opened_at)
                thinking += f"<{opening}>{inside}"
            opened = 0
        if kind in (_FORK, _JOIN, last):
            if number <= MAX_INDEX:
                opened, index, opening, opened_at, inside = kind, number, tag, at, piece
                continue
            faults.add(ViolationKind.STRAY_TAG, name, f"sub-query index {number} is above 10^9", at)
        elif kind:
            where = "the organizer" if is_organizer else "a worker"
            why = f"has no place in {where}" if kind & 1 else "closes nothing"
            faults.add(ViolationKind.STRAY_TAG, name, f"<{tag}> {why}", at)
        thinking += f"<{tag}>{piece}"
    if opened == _JOIN:
        if thinking:
            actions.append(Think(count(thinking), thinking if keep else None))
        actions.append(Join(index, count(f"<{opening}>"), _returned(texts.get(child_id(name, index), ""), count)))
        thinking = inside
    elif opened:
        faults.add(ViolationKind.UNCLOSED_TAG, name, f"<{opening}> is never closed", opened_at)
        thinking += f"<{opening}>{inside}"
    if len(parts) > 2 * MAX_TAGS and _TAGS.search(parts[-1]):
        faults.add(ViolationKind.STRAY_TAG, name, f"what follows the first {MAX_TAGS} tags is read as text")
    if thinking and not (ended and thinking.isspace()):
        boxed = thinking.rfind("\\boxed{") if is_organizer and not ended else -1
        answer = thinking[boxed:] if boxed >= 0 else ""
        thinking = thinking[:boxed] if answer else thinking
        if thinking:
            actions.append(Think(count(thinking), thinking if keep else None))
        if answer:
            actions.append(Answer(count(answer), answer if keep else None))
    return tuple(actions)


def _returned(worker: str, count: TokenCounter) -> int:
    """Return the tokens of what a worker's text returns."""
    found = _RETURNED.search(worker)
    return count(found[1]) if found else 0


def detect(text: str) -> bool:
    """Return whether `text` holds a tag of this dialect.

    >>> detect("<FORK-1>x</FORK-1>"), detect("plain")
    (True, False)
    """
    # Texts of other dialects have none of these, and this expression fails at the first letter of their tags.
    if _HINT.search(text) is None:
        return False
    return _TAGS.search(text) is not None or _SECTION.search(text) is not None


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
                    tagged = _tagged(text, tokens, "<ANSWER>", "</ANSWER>")
                    count = COUNTERS.get(trace.token_source)
                    bare = text is not None and text.startswith("\\boxed{") and (not count or tokens == count(text))
                    parts.append(text if bare and text else tagged)
                case Delay():
                    raise FormatError(f"trace {trace.id!r}: AsyncThink text cannot hold a Delay; use the native format")
        if thread.id != ORGANIZER:
            parts.append(f"</WORKER-{thread.id}>")
    return "".join(parts)
