"""Records that no log knows: objects of somebody else, of which the text is parsed and a few keys are looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from simulator.errors import FormatError
from simulator.formats import LOGS, asyncthink, detect_written, lookup, native, render
from simulator.formats.logs.base import Line, Reading, decode, encode
from simulator.trace import MAX_TOKENS, Outcome, Trace
from simulator.trace.tokens import TokenCounter, spread


class Record(msgspec.Struct):
    """An object of somebody else's: only these keys are looked at."""

    id: str | int | None = None
    index: str | int | None = None
    output: str | None = None
    text: str | None = None
    completion: str | None = None
    response: str | None = None
    organizer: str | None = None
    workers: dict[str, str] | None = None
    correct: bool | None = None
    found: int | None = None
    wanted: int | None = None
    tokens: int | list[int] | None = None
    prompt_tokens: int | None = None

    @property
    def first(self) -> str | None:
        """The text: the first of those that are there."""
        texts = (self.organizer, self.output, self.text, self.completion, self.response)
        return next((text for text in texts if text is not None), None)


_decoder = msgspec.json.Decoder(Record)


def traces_of(lines: Iterable[Line], reading: Reading, format: str | None) -> Iterator[Trace]:
    """Yield the traces of lines that no log knows. What cannot be read is raised, as `trace_of` does.

    >>> [trace.id for trace in traces_of([(1, b'{"output": "9"}')], Reading("run"), None)]
    ['run:1']
    """
    for number, line in lines:
        record = decode(_decoder.decode, line, "a record with a text")
        yield trace_of(record, reading.id(number), format, reading.count, reading.keep_text)


def line_of(trace: Trace, format: str) -> str:
    """Return a trace as a line with its text in `format`, its id and its outcome.

    Raises
    ------
    FormatError
        If the format cannot say it, or JSON cannot.
    """
    judged = trace.outcome or Outcome()
    record: dict[str, Any] = {"id": trace.id}
    if format == "asyncthink":  # sections are for files of one text: in a record a model may have written them
        text, workers = asyncthink.render_threads(trace)
        record |= {"output": text} | ({"workers": workers} if workers else {})
    else:
        record["output"] = render(trace, format)
    record |= {key: value for key, value in msgspec.structs.asdict(judged).items() if value is not None}
    return encode(record, trace.id).decode()


def trace_of(record: Record, name: str, format: str | None, count: TokenCounter, keep: bool) -> Trace:
    """Return the Trace of a record that is not native; `name` is its id where it has none.

    Raises
    ------
    FormatError
        If it has no text, or workers beside a text of a format without.

    >>> from simulator.trace.tokens import by_words
    >>> trace_of(Record(organizer="So <ANSWER>9</ANSWER>", correct=True), "a", None, by_words, True).outcome.accuracy
    1.0
    """
    text = record.first
    if text is None:
        raise FormatError(
            f'has nothing to parse; accepted are native records ("schema": "{native.SCHEMA}") and objects with a text'
            f" under output, text, completion, response or organizer, and records of {', '.join(LOGS)}"
        )
    given = record.id if record.id is not None else record.index
    id = name if given is None else str(given)
    outcome = None
    if record.correct is not None or record.found is not None or record.wanted is not None:
        outcome = Outcome(record.correct, record.found, record.wanted)
    if record.tokens is not None:
        count = spread(record.tokens, len(text) + sum(map(len, (record.workers or {}).values())))
    if record.workers is not None or (record.organizer is not None and format is None):
        if format not in (None, "asyncthink"):
            raise FormatError(f"has workers beside its text, as {format} has not; accepted is the asyncthink format")
        trace = asyncthink.parse(text, workers=record.workers, id=id, count=count, keep_text=keep, outcome=outcome)
    else:
        trace = lookup(format or detect_written(text)).parse(text, id=id, count=count, keep_text=keep, outcome=outcome)
    return prompted(trace, record.prompt_tokens) if record.prompt_tokens else trace


def prompted(trace: Trace, tokens: int) -> Trace:
    """Put the query's tokens in front of every thread's context; workers that share their parent's share them too."""
    if not 0 <= tokens <= MAX_TOKENS:  # older releases of msgspec do not check what is replaced
        raise FormatError(f"prompt_tokens must be a number from 0 to 10^12, got {tokens}")
    threads = tuple(
        msgspec.structs.replace(
            thread,
            prompt_tokens=thread.prompt_tokens + tokens,
            shared_tokens=thread.shared_tokens + (tokens if thread.shared_tokens else 0),
        )
        for thread in trace.threads
    )
    return msgspec.structs.replace(trace, threads=threads)
