r"""Searches of Adaptive Parallel Reasoning, APR (arXiv 2504.15466, github.com/Parallel-Reasoning/APR).

As its generator writes them, a line each: a JSON object with ``trace_dict``, or that alone::

    {"main_calls": ["... <Calling Sub Searches> ...", "... <Sub Searches> ..."], "sub_calls": [[{...}, {...}]]}

``main_calls`` are the texts of one thread, each from its beginning to where it stops: each repeats the one before up to
its ``<Calling Sub Searches>``, goes on with what the searches brought, and then with what is new. ``sub_calls[k]`` are
the searches that run at once between texts k and k + 1, each again such an object. So:

- What is new in a text, up to ``<Calling Sub Searches>``, is a Think.
- Each ``<Start Sub Search i ...>`` line is a Fork, with the first ``<Calling Sub Searches>`` and with the last its end.
  What stands behind it is the search's prompt, which the search's own text repeats and does not decode.
- What ``<Sub Searches>`` says of each is what the Join of its search inserts: the runtime writes it.
- The last line is the Answer, of a search its Return. A text that was cut off has none.

Whether the last line is right is for a judge to say; ``Goal Reached`` is only what the text says. `Trace.meta` has the
problem: ``target`` and ``nums``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec

from simulator.errors import FormatError, TraceError
from simulator.formats.logs.base import Line, Reading, decode, is_object
from simulator.formats.texts import MAX_WORKERS
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
    child_id,
)
from simulator.trace.tokens import TokenCounter, by_characters, counter_name

_CALLING = "<Calling Sub Searches>"
_CALL = re.compile(r"^<Start Sub Search [0-9]{1,9} [^>\n]{0,64}>([^\n]*)", re.MULTILINE)
_GOT = re.compile(r"^<[^<>\n]{1,64} in Sub Search [0-9]{1,9} ", re.MULTILINE)
_RESULTS, _RESULTS_END = "<Sub Searches>", "<End Sub Searches>"


class _Search(msgspec.Struct):
    main_calls: list[str]
    sub_calls: list[list[_Search]] = []


class _Record(msgspec.Struct):
    trace_dict: _Search | None = None
    main_calls: list[str] | None = None
    sub_calls: list[list[_Search]] = []
    id: str | int | None = None
    correct: bool | None = None
    target: int | None = None
    nums: list[int] | None = None


_decoder = msgspec.json.Decoder(_Record)


def detect(text: str) -> bool:
    """Return whether `text` is a search.

    >>> detect('{"main_calls": ["x"], "sub_calls": []}'), detect("<Calling Sub Searches>")
    (True, False)
    """
    return is_object(text) and sniff(text.encode(errors="replace"))


def sniff(line: bytes) -> bool:
    """Return whether a line has the keys of a search.

    >>> sniff(b'{"main_calls": ["x"], "sub_calls": []}'), sniff(b'{"output": "main_calls"}')
    (True, False)
    """
    return b'"main_calls"' in line and b'"sub_calls"' in line and line.lstrip()[:1] == b"{"


def parse(
    text: str,
    *,
    id: str = "trace",
    count: TokenCounter = by_characters,
    keep_text: bool = True,
    outcome: Outcome | None = None,
) -> Trace:
    """Return the Trace of a search. The parameters are those of `simulator.parse`.

    Raises
    ------
    FormatError
        If it is none, or nests too deep, or has too many searches.

    >>> trace = parse('{"main_calls": ["so ", "so 9"], "sub_calls": [[{"main_calls": ["b"]}]]}', count=len)
    >>> [type(action).__name__ for action in trace.organizer.actions]
    ['Think', 'Fork', 'Join', 'Answer']
    """
    return _trace(text, id, count, keep_text, outcome)


def read(lines: Iterable[Line], reading: Reading) -> Iterator[Trace]:
    """Yield the Trace of each line.

    >>> [trace.id for trace in read([(7, b'{"main_calls": ["x"], "sub_calls": []}')], Reading("apr"))]
    ['apr:7']
    """
    for number, line in lines:
        yield _trace(line, reading.id(number), reading.count, reading.keep_text, None)


def _trace(line: str | bytes, name: str, count: TokenCounter, keep: bool, outcome: Outcome | None) -> Trace:
    try:
        record = decode(_decoder.decode, line, "a search of APR")
    except UnicodeEncodeError as error:
        raise FormatError(f"is no UTF-8 text: {error.reason}") from None
    search = record.trace_dict
    if search is None:
        if record.main_calls is None:
            raise FormatError("is no search of APR: it has no main_calls")
        search = _Search(record.main_calls, record.sub_calls)
    if outcome is None and record.correct is not None:
        outcome = Outcome(correct=record.correct)
    meta: dict[str, Any] = {"source": "apr"}
    meta |= {key: value for key in ("target", "nums") if (value := getattr(record, key)) is not None}
    id = name if record.id is None else str(record.id)
    threads: list[Thread] = []
    todo = [_Call(ORGANIZER, search, "")]
    while todo:
        call = todo.pop()
        if len(threads) > MAX_WORKERS or call.name.count(".") >= MAX_NESTING:
            raise FormatError(f"has more than {MAX_WORKERS} searches, or nests them deeper than {MAX_NESTING}")
        thread, calls = _read_thread(call, count, keep)
        threads.append(thread)
        todo += reversed(calls)
    try:
        return Trace(id, tuple(threads), outcome, counter_name(count), meta=meta)
    except TraceError as error:
        raise FormatError(f"is no trace: {error}") from None


class _Call(NamedTuple):
    """A search that a thread has started."""

    name: str
    search: _Search
    prompt: str


def _read_thread(call: _Call, count: TokenCounter, keep: bool) -> tuple[Thread, list[_Call]]:
    """Return a thread and the searches that it starts."""
    actions: list[Action] = []
    calls: list[_Call] = []
    texts, subs = call.search.main_calls, call.search.sub_calls

    def add(kind: type[Think] | type[Answer] | type[Return], text: str) -> None:
        if text:
            actions.append(kind(count(text), text if keep or kind is Answer else None))

    known = call.prompt if texts and texts[0].startswith(call.prompt) else ""
    waiting: list[int] = []
    forks = 0
    for k in range(max(len(texts), len(subs))):
        text = texts[k] if k < len(texts) else known
        at = len(known) if text.startswith(known) else _shared(known, text)
        if waiting:
            at = _join(text, at, waiting, actions, count, keep)
        group = subs[k] if k < len(subs) else []
        start = text.rfind(_CALLING, at)
        if start < 0:
            start = len(text)
            if not group and k >= len(texts) - 1:
                start = max(at, text.rstrip("\n").rfind("\n") + 1)
                start = start if text[at:start].strip() else at
                add(Think, text[at:start])
                add(Answer if call.name == ORGANIZER else Return, text[start:])
                break
        add(Think, text[at:start])
        asked = list(_CALL.finditer(text, start))
        pieces = _pieces(text, start, [found.start() for found in asked])
        for i in range(max(len(group), len(asked))):
            forks += 1
            said = pieces[i] if i < len(pieces) else ""
            actions.append(Fork(forks, count(said) if said else 0, said if keep and said else None))
            waiting.append(forks)
            if i < len(group):
                name = str(forks) if call.name == ORGANIZER else child_id(call.name, forks)
                calls.append(_Call(name, group[i], asked[i][1].strip() if i < len(asked) else ""))
        known = text[:start]
    actions += [Join(index) for index in waiting]
    return Thread(call.name, tuple(actions), count(call.prompt) if call.prompt else 0), calls


def _join(text: str, at: int, waiting: list[int], actions: list[Action], count: TokenCounter, keep: bool) -> int:
    """Join all searches that run, and return where the text goes on behind what they brought."""
    end = text.find(_RESULTS_END, at) if text.startswith(_RESULTS, at) else -1
    pieces: list[str] = []
    if end >= 0:
        end += len(_RESULTS_END)
        end += text.startswith("\n", end)
        pieces = _pieces(text[:end], at, [got.start() for got in _GOT.finditer(text, at, end)])
        at = end
    for i, index in enumerate(waiting):
        got = pieces[i] if i < len(pieces) else ""
        actions.append(Join(index, 0, count(got) if got else 0, got if keep and got else None))
    waiting.clear()
    return at


def _shared(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _pieces(text: str, start: int, begins: list[int]) -> list[str]:
    """Cut a text from `start` on where each piece begins; the first has what stands before it, too."""
    if not begins:
        return [text[start:]] if start < len(text) else []
    return [text[a:b] for a, b in pairwise([start, *begins[1:], len(text)])]
