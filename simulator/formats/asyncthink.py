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
from itertools import accumulate

from simulator.errors import FormatError
from simulator.formats.texts import MAX_WORKERS, Faults, check_filler, filler, is_path
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
    ViolationKind,
    child_id,
)
from simulator.trace.tokens import COUNTERS, TokenCounter, by_characters, counter_name

# One character class up to a fixed bound, then something outside it: nothing here can backtrack.
_TAGS = re.compile(r"<(/?(?:FORK|JOIN|RETURN|ANSWER)-?[0-9]{0,40})>")
_PARTS = re.compile(r"(/?)([A-Z]+)(-?)([0-9]*)")
_FORK, _JOIN, _RETURN, _ANSWER = 1, 3, 5, 7  # odd kinds open, the even one after each closes; 0 is no tag
_NO_TAG = (9, -2)  # behind the last: it ends whatever is open
_NAMES = {"FORK": _FORK, "JOIN": _JOIN, "RETURN": _RETURN, "ANSWER": _ANSWER}
MAX_TAGS = 100_000  # of one thread: what follows is read as text, so that hostile text cannot fill memory
_HINT = re.compile(r"</?(?:FORK|JOIN|RETURN|ANSWER|WORKER)")
_SECTION = re.compile(r"\n?<WORKER-?([\d.]{1,200})>")
_PLAIN = re.compile(r"0|[1-9][0-9]{0,9}").fullmatch  # the index of a worker of the organizer
_RETURNED = re.compile(r"<RETURN>([^<]*)</RETURN>")


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
    id, count, keep_text, outcome
        As of `simulator.parse`.

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
    faults = Faults()
    texts = dict(workers) if workers else {}
    if "<WORKER" in text:
        text = _cut_sections(text, texts, faults)
    names = _in_order(texts, faults)
    scan = _Scan(texts, count, keep_text, faults)
    threads = [Thread(ORGANIZER, scan.thread(ORGANIZER, text))]
    for name in names:
        actions = scan.thread(name, texts[name])
        threads.append(Thread(name, actions, scan.forked.get(name, 0)))
    return Trace(id, tuple(threads), outcome, counter_name(count), None, faults.all())


def _in_order(texts: Mapping[str, str], faults: Faults) -> list[str]:
    """Return the workers' ids, parents before children, without those whose parent is not recorded."""
    if all(map(_PLAIN, texts)):
        return sorted(texts, key=int)
    kept: dict[str, None] = {}
    for name in sorted(texts, key=_path):
        parent = name.rpartition(".")[0]
        if (parent and parent not in kept) or name.count(".") >= MAX_NESTING:
            message = f"worker {name[:40]} is recorded but not its parent"
            faults.add(ViolationKind.WORKER_WITHOUT_FORK, ORGANIZER, message)
        else:
            kept[name] = None
    return list(kept)


def _path(name: str) -> tuple[int, ...]:
    if not is_path(name):
        raise FormatError(f"a worker is called by its Fork index, like '1' or nested '1.2'; got {name[:40]!r}")
    return tuple(map(int, name.split(".")))


def _cut_sections(text: str, texts: dict[str, str], faults: Faults) -> str:
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
        message = ""
        if name in texts:
            message = f"a second text for worker {name[:40]}"
        elif len(texts) >= MAX_WORKERS:
            message = f"more than {MAX_WORKERS} workers; the rest is left out"
        elif not is_path(name):
            message = f"<WORKER-{name[:40]}> is no path of Fork indices"
        if message:
            faults.add(ViolationKind.STRAY_TAG, ORGANIZER, message, start)
        else:
            texts[name] = text[end:close]
        at = stop + 1
    rest = text[at:]
    return organizer + rest if rest.strip() else organizer


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


class _Scan:
    """Reads the texts of a trace's threads, each in one pass from tag to tag.

    A text is cut at its tags: piece 0, tag 0, piece 1, tag 1, ..., the last piece.
    """

    def __init__(self, texts: Mapping[str, str], count: TokenCounter, keep: bool, faults: Faults) -> None:
        self.texts = texts
        self.count = count
        self.by_length = count is by_characters  # then lengths do, and no pieces need putting together
        self.keep = keep
        self.faults = faults
        self.forked: dict[str, int] = {}
        """The prompt tokens of the workers that are forked."""
        self.returned: dict[str, int] = {}
        """The tokens of what workers return, where Joins without a closing tag insert it."""

    def thread(self, name: str, text: str) -> tuple[Action, ...]:
        """Return the actions in the text of one thread."""
        opens = (_FORK, _JOIN, _ANSWER if name == ORGANIZER else _RETURN)
        parts = _TAGS.split(text, MAX_TAGS)
        self.name = name
        self.pieces = parts[::2]
        self.tags = parts[1::2]
        read = self.read = list(map(_read_tag, self.tags))
        read.append(_NO_TAG)
        self.actions: list[Action] = []
        self.start = 0
        """The first piece that belongs to no action yet."""
        self.ended = False
        self.offsets: list[int] = []
        self.closings: frozenset[tuple[int, int]] = frozenset()
        at, n = 0, len(self.tags)
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
        if n >= MAX_TAGS and _TAGS.search(parts[-1]):
            message = f"what follows the first {MAX_TAGS} tags is read as text"
            self.faults.add(ViolationKind.STRAY_TAG, name, message)
        if self.start < n or parts[-1]:
            self._rest(n)
        return tuple(self.actions)

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
            self._bare_join(opening, index)
        else:
            self._fault(opening, f"<{self.tags[opening]}> is never closed", ViolationKind.UNCLOSED_TAG)
        return at

    def _close(self, kind: int, index: int, opening: int, closing: int) -> None:
        """Make the action of an element."""
        pieces, by_length, count = self.pieces, self.by_length, self.count
        thinking = pieces[opening] if self.start == opening else self._text(self.start, opening)
        inside = pieces[closing] if closing == opening + 1 else self._text(opening + 1, closing)
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
            self.forked.setdefault(child_id(self.name, index), tokens)
        else:
            self.actions.append(Answer(tokens, kept) if kind == _ANSWER else Return(tokens, kept))
            self.ended = True

    def _bare_join(self, opening: int, index: int) -> None:
        """Make the Join of a tag that nothing closes: what the worker returned is taken to be inserted."""
        worker = child_id(self.name, index)
        if worker not in self.returned:
            returned = _RETURNED.search(self.texts.get(worker, ""))
            self.returned[worker] = self.count(returned[1]) if returned else 0
        self._think(self._text(self.start, opening))
        self.actions.append(Join(index, self.count(f"<{self.tags[opening]}>"), self.returned[worker]))
        self.start = opening + 1

    def _rest(self, end: int) -> None:
        """Make the last actions, of what follows all others."""
        text = self._text(self.start, end)
        if self.ended and text.isspace():
            return
        boxed = text.rfind("\\boxed{") if self.name == ORGANIZER and not self.ended else -1
        answer = text[boxed:] if boxed >= 0 else ""
        self._think(text[:boxed] if answer else text)
        if answer:
            self.actions.append(Answer(self.count(answer), answer if self.keep else None))

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
        if not self.offsets:
            lengths = zip(map(len, self.pieces), map(len, self.tags), strict=False)
            self.offsets = list(accumulate(piece + tag + 2 for piece, tag in lengths))
        self.faults.add(kind, self.name, message, self.offsets[at] - len(self.tags[at]) - 2)


def detect(text: str) -> bool:
    """Return whether `text` holds a tag of this dialect.

    >>> detect("<FORK-1>x</FORK-1>"), detect("plain")
    (True, False)
    """
    # Texts of other dialects have none of these, and this expression fails at the first letter of their tags.
    if _HINT.search(text) is None:
        return False
    return _TAGS.search(text) is not None or _SECTION.search(text) is not None


def _tagged(text: str | None, tokens: int, opening: str, closing: str) -> str:
    if text is None:
        text = filler(4 * tokens - len(opening) - len(closing))
    return opening + text + closing


def render(trace: Trace) -> str:
    r"""Return `trace` in the one-file layout. Actions without text are filled with neutral words.

    Raises
    ------
    FormatError
        If a thread holds a Delay, which the dialect cannot say, or too many tokens have no text.

    >>> render(parse("a <FORK1>b</FORK1><JOIN-1>c</JOIN-1><ANSWER>d</ANSWER>", workers={"1": "<RETURN>c</RETURN>"}))
    'a <FORK-1>b</FORK-1><JOIN-1>c</JOIN-1><ANSWER>d</ANSWER>\n<WORKER-1><RETURN>c</RETURN></WORKER-1>'
    """
    check_filler(trace)
    parts: list[str] = []
    for thread in trace.threads:
        said = [_said(action, trace) for action in thread.actions]
        is_worker = thread.id != ORGANIZER
        parts += [f"\n<WORKER-{thread.id}>", *said, f"</WORKER-{thread.id}>"] if is_worker else said
    return "".join(parts)


def _said(action: Action, trace: Trace) -> str:
    text = action.text
    match action:
        case Delay():
            raise FormatError(f"trace {trace.id!r}: AsyncThink text cannot hold a Delay; use the native format")
        case Think(tokens=tokens):
            return _tagged(text, tokens, "", "")
        case Fork(index=i, tokens=tokens):
            return _tagged(text, tokens, f"<FORK-{i}>", f"</FORK-{i}>")
        case Join(index=i, inserted_tokens=tokens):
            is_bare = text is None and not tokens
            return f"<JOIN-{i}>" + ("" if is_bare else _tagged(text, tokens, "", f"</JOIN-{i}>"))
        case Return(tokens=tokens):
            return _tagged(text, tokens, "<RETURN>", "</RETURN>")
        case Answer(tokens=tokens):
            count = COUNTERS.get(trace.token_source)
            if text and text.startswith("\\boxed{") and (not count or tokens == count(text)):
                return text
            return _tagged(text, tokens, "<ANSWER>", "</ANSWER>")
