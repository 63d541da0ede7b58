"""The native format: JSON lines, one Trace a line.

A line is the `Trace` itself, field by field as `simulator.trace` documents them; what has its default is left out::

    {"schema": "forksim.trace/1", "id": "q7", "threads": [
       {"id": "organizer", "actions": [
          {"do": "think", "tokens": 12, "text": "split it"},
          {"do": "fork", "index": 1, "tokens": 6, "text": "the odd half"},
          {"do": "think", "tokens": 30},
          {"do": "join", "index": 1, "tokens": 3, "inserted_tokens": 4},
          {"do": "answer", "tokens": 2}]},
       {"id": "1", "prompt_tokens": 18, "shared_tokens": 12, "actions": [
          {"do": "delay", "seconds": 0.5},
          {"do": "return", "tokens": 25, "start": 1.5, "finish": 2.25}]}],
     "outcome": {"correct": true}, "arrival": 0.0}

(one line in a file). ``schema`` is the version and must be there. ``do`` names the action: think, fork, join, return,
answer, delay. Every action may carry ``text`` and recorded seconds ``start`` and ``finish``. Also on a trace:
``token_source``, ``faults``, ``meta`` and ``prefix_of``. Unknown keys are refused, so that a misspelt one cannot pass
unseen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

import msgspec

from simulator.errors import FormatError
from simulator.formats.logs import base
from simulator.trace import Action, Answer, Outcome, Trace
from simulator.trace.tokens import TokenCounter, by_characters

SCHEMA = "forksim.trace/1"


class _Nothing(msgspec.Struct, tag_field="schema", tag="forksim.trace/0"):
    """msgspec takes a lone tagged type without its tag; of a union it demands one."""


_decoder: msgspec.json.Decoder[Trace | _Nothing] = msgspec.json.Decoder(Trace | _Nothing)
_SCHEMA = re.compile(rb'"schema"\s*:\s*"forksim\.trace/')


def decode(line: bytes | str) -> Trace:
    """Return the Trace of one line.

    Raises
    ------
    FormatError
        If the line is no record of this version.

    >>> decode(b'{"schema":"forksim.trace/1","id":"a","threads":[{"id":"organizer","actions":[]}]}').id
    'a'
    >>> decode(b'{"id":"a","threads":[]}')
    Traceback (most recent call last):
    simulator.errors.FormatError: not a native record: no "schema"; accepted is "schema": "forksim.trace/1"
    """
    return _decode(line, "object")


def _decode(line: bytes | str, whole: str) -> Trace:
    try:
        trace = _decoder.decode(line)
    except msgspec.ValidationError as error:
        message = str(error)
        if message == "Object missing required field `schema`":
            message = 'no "schema"; accepted is "schema": "' + SCHEMA + '"'
        elif message.endswith("`$.schema`"):
            message += '; accepted is "schema": "' + SCHEMA + '"'
        raise FormatError(f"not a native record: {message}") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise FormatError(f"not one complete JSON {whole}: {error}") from None
    if isinstance(trace, _Nothing):
        raise FormatError(f'not a native record: accepted is "schema": "{SCHEMA}"')
    return trace


def encode(trace: Trace) -> bytes:
    """Return `trace` as one line, without its line break.

    Raises
    ------
    FormatError
        If its text or `meta` holds what JSON cannot say.

    >>> from simulator.trace import Thread
    >>> encode(Trace("a", (Thread("organizer", ()),)))
    b'{"schema":"forksim.trace/1","id":"a","threads":[{"id":"organizer","actions":[]}]}'
    """
    return base.encode(trace, trace.id)


def parse(
    text: str,
    *,
    id: str = "trace",
    count: TokenCounter = by_characters,
    keep_text: bool = True,
    outcome: Outcome | None = None,
) -> Trace:
    """Return the Trace of a text that is one record, which may span lines here.

    The parameters are those of `simulator.parse`. The record has its own `id` and token counts; an `outcome` counts
    where the record has none.

    Raises
    ------
    FormatError
        If the text is no record of this version.

    >>> line = '{"schema":"forksim.trace/1","id":"a","threads":[{"id":"organizer","actions":[{"do":"answer"}]}]}'
    >>> parse(line, outcome=Outcome(correct=True)).outcome.accuracy
    1.0
    """
    trace = decode(text)
    if outcome is not None and trace.outcome is None:
        trace = msgspec.structs.replace(trace, outcome=outcome)
    return trace if keep_text else without_text(trace)


def without_text(trace: Trace) -> Trace:
    """Return `trace` with no text on its actions but Answers, which are judged.

    >>> from simulator.trace import Answer, Think, Thread
    >>> trace = without_text(Trace("a", (Thread("organizer", (Think(1, "so"), Answer(1, "9"))),)))
    >>> [action.text for action in trace.organizer.actions]
    [None, '9']
    """
    replace = msgspec.structs.replace
    bare = (replace(thread, actions=tuple(_bare(action) for action in thread.actions)) for thread in trace.threads)
    return replace(trace, threads=tuple(bare))


def _bare(action: Action) -> Action:
    return action if isinstance(action, Answer) else msgspec.structs.replace(action, text=None)


def render(trace: Trace) -> str:
    """Return `trace` as one line.

    Raises
    ------
    FormatError
        If its text or `meta` holds what JSON cannot say.

    >>> from simulator.trace import Thread
    >>> trace = Trace("a", (Thread("organizer", ()),))
    >>> parse(render(trace)) == trace
    True
    """
    return encode(trace).decode()


def detect(text: str) -> bool:
    """Return whether `text` is a JSON object with a ``schema``.

    >>> detect('{"schema": "forksim.trace/1"}'), detect("{1, 2}")
    (True, False)
    """
    return base.is_object(text) and '"schema"' in text


def sniff(line: bytes) -> bool:
    """Return whether a line is a record, of this version or another. Somebody else's may have a ``schema`` too.

    >>> sniff(b'{"schema": "forksim.trace/2"}'), sniff(b'{"schema": 3, "output": "9"}')
    (True, False)
    """
    return b'"schema"' in line and _SCHEMA.search(line) is not None and line.lstrip()[:1] == b"{"


def read(lines: Iterable[base.Line], reading: base.Reading) -> Iterator[Trace]:
    """Yield the trace of each line."""
    for _, line in lines:
        trace = _decode(line, "object on one line")
        yield trace if reading.keep_text else without_text(trace)


def write(block_size: int | None = None) -> Callable[[Trace], Iterable[str]]:
    """Return what says a trace in a line."""
    return lambda trace: [render(trace)]
