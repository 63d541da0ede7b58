"""Reading and writing files of traces, one at a time.

A file is either JSON lines or plain text. JSON lines hold one record each:

- a native record (`simulator.formats.native`), known by its ``schema``;
- a rollout of verifiers, or an episode of several (`simulator.formats.logs.verifiers`), known by its ``nodes``;
- any other object with the text of one output under ``output``, ``text``, ``completion`` or ``response``, or of an
  AsyncThink organizer under ``organizer``; with either, ``workers`` may map worker ids to texts. Optional: ``id`` or
  ``index``, ``correct`` (true or false), ``found`` and ``wanted`` (numbers of solutions), ``tokens`` (how many all its
  texts are, or the token ids themselves) and ``prompt_tokens`` (of the query). Other keys are ignored.

- a request of a Mooncake log, known by its ``hash_ids`` and ``input_length`` (`simulator.formats.logs.mooncake`).

If the first line is a header of agentic Mooncake, the rest are the requests of its plays
(`simulator.formats.logs.agentic`).

Where ``tokens`` is given, it is spread over the text by characters, and `Trace.token_source` says ``record, spread by
characters``.

Anything else is plain text: the whole file is one trace. Names ending in .jsonl, .ndjson or .json are JSON lines, those
in .txt are text; other files are JSON lines if they begin with ``{``.

What cannot be read comes out as a `FormatError` with its path and line, among the traces, so that good records are
still used. Memory holds one record at a time, or one play; of a Mooncake log also its tree of prefixes.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import IO, Any, BinaryIO

import msgspec

from simulator.errors import ConfigError, FormatError, SimulatorError
from simulator.formats import FORMATS, LOGS, detect, lookup, native
from simulator.formats.logs import agentic, mooncake, verifiers
from simulator.formats.records import Record, trace_of
from simulator.trace import Outcome, Trace
from simulator.trace.tokens import TokenCounter, by_characters

__all__ = ["MAX_RECORD", "dump", "read", "sayer"]

MAX_RECORD = 64 * 2**20
"""The most bytes a record may have. Longer ones are skipped."""

_ROLLOUT = (b'"task"', b'"nodes"', b'"sampled"')  # as keys: inside a JSON string the quotes would be escaped
_JSON_ENDINGS = (".jsonl", ".ndjson", ".json")


_decoder = msgspec.json.Decoder(Record)


def read(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    count: TokenCounter | None = None,
    keep_text: bool = True,
    block_size: int | None = None,
) -> Iterator[Trace | FormatError]:
    """Yield the traces of a file, and an error for each record that is none.

    Parameters
    ----------
    path : str or path-like
        A file, or ``-`` for standard input.
    format : str, optional
        A key of `FORMATS` or of `LOGS` that all records are in; by default found from each.
    count : callable, optional
        Counts the tokens of a piece of text, where the record gives no counts; by default `by_characters`.
    keep_text : bool
        Whether actions keep their text.
    block_size : int, optional
        Tokens in a block of a Mooncake log's ``hash_ids``; by default 512. A file of agentic Mooncake says its own.

    Yields
    ------
    Trace or FormatError
        In the order of the file.

    Raises
    ------
    ConfigError
        If there is no such format, or `block_size` is none. Nothing in a file raises.

    >>> [error] = read("no/such/file.jsonl")
    >>> error.message
    'cannot be read (No such file or directory); accepted is a file of JSON lines or of plain text, or -'
    """
    if format is not None and format not in FORMATS and format not in LOGS:
        raise ConfigError(f"no format is called {format!r}; accepted are {', '.join([*FORMATS, *LOGS])}")
    size = agentic.block_size_of(block_size, mooncake.BLOCK_SIZE)
    return _read(os.fspath(path), _Records(format, count or by_characters, keep_text, size))


def _read(path: str, records: _Records) -> Iterator[Trace | FormatError]:
    shown = "<stdin>" if path == "-" else path
    name = "stdin" if path == "-" else os.path.splitext(os.path.basename(path))[0]
    accepted = "accepted is a file of JSON lines or of plain text, or -"
    try:
        with nullcontext(_stdin()) if path == "-" else open(path, "rb") as file:
            head = file.peek(2**16)
            if not head:
                yield FormatError(f"is empty; {accepted}", path=shown)
            elif b"\0" in head:
                yield FormatError(f"holds NUL bytes, so it is binary or UTF-16; {accepted}, in UTF-8", path=shown)
            elif _is_json(path, head, records.format):
                yield from _lines(file, shown, name, records)
            else:
                yield _text(file, shown, name, records)
    except OSError as error:
        yield FormatError(f"cannot be read ({error.strerror or error}); {accepted}", path=shown)


def _stdin() -> io.BufferedReader:
    stream: Any = sys.stdin.buffer
    return stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)


def _is_json(path: str, head: bytes, format: str | None) -> bool:
    ending = os.path.splitext(path)[1].lower()
    if ending in _JSON_ENDINGS or format == "native" or format in LOGS:
        return True
    return ending != ".txt" and head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"


def _text(file: BinaryIO, path: str, name: str, records: _Records) -> Trace | FormatError:
    data = file.read(MAX_RECORD + 1)
    try:
        if len(data) > MAX_RECORD:
            raise FormatError(f"a text of more than {MAX_RECORD} bytes is not read")
        text = _decode(data)
        form = lookup(records.format or detect(text))
        return form.parse(text, id=name, count=records.count, keep_text=records.keep)
    except SimulatorError as error:
        return _placed(error, path, None)


def _decode(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"is no UTF-8 text: {error.reason} at byte {error.start}") from None
    if "\0" in text:
        raise FormatError("holds NUL characters, so it is no text")
    return text


def _lines(file: BinaryIO, path: str, name: str, records: _Records) -> Iterator[Trace | FormatError]:
    number = 0
    blank = True
    while line := file.readline(MAX_RECORD + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if len(line) > MAX_RECORD and not line.endswith(b"\n"):
            while (rest := file.readline(2**20)) and not rest.endswith(b"\n"):
                pass
            blank = False
            yield FormatError(f"a record of more than {MAX_RECORD} bytes is not read", path=path, line=number)
        elif not line.isspace():
            if blank and (line.strip() == b"{" or line.lstrip()[:1] == b"["):
                hint = "accepted is one JSON object a line; `jq -c .` makes that of objects, `jq -c '.[]'` of an array"
                yield FormatError(f"is JSON over several lines, or an array; {hint}", path=path, line=number)
                return
            if blank and records.begins_plays(line):
                yield from _plays(line, file, path, number)
                return
            blank = False
            try:
                yield from records.traces(line, f"{name}:{number}")
            except SimulatorError as error:
                yield _placed(error, path, number)
    if blank:
        yield FormatError("has no records, only blank lines; accepted is one JSON object a line", path=path)


def _plays(header: bytes, file: BinaryIO, path: str, number: int) -> Iterator[Trace | FormatError]:
    """Yield what a file of agentic Mooncake holds behind its header, which is line `number`."""
    try:
        reader = agentic.Reader(header)
    except FormatError as error:
        yield error.at(path, number)
        return
    rows = False
    while line := file.readline(MAX_RECORD + 1):
        number += 1
        if line.isspace():
            continue
        rows = True
        if len(line) > MAX_RECORD and not line.endswith(b"\n"):
            while (rest := file.readline(2**20)) and not rest.endswith(b"\n"):
                pass
            yield FormatError(f"a record of more than {MAX_RECORD} bytes is not read", path=path, line=number)
            continue
        for item in reader.feed(line, number):
            yield item.at(path) if isinstance(item, FormatError) else item
    for item in reader.close():
        yield item.at(path) if isinstance(item, FormatError) else item
    if not rows:
        yield FormatError("has a header of agentic Mooncake, but no requests", path=path)


class _Records:
    """Makes traces of the records of one file."""

    def __init__(self, format: str | None, count: TokenCounter, keep: bool, block_size: int) -> None:
        self.format = format
        self.count = count
        self.keep = keep
        self.log = mooncake.Log(block_size)

    def begins_plays(self, line: bytes) -> bool:
        """Whether `line`, the first, is meant as a header of agentic Mooncake."""
        return self.format == "agentic_mooncake" or (self.format is None and agentic.is_header(line))

    def traces(self, line: bytes, name: str) -> list[Trace]:
        """Return the traces of a record, called `name` unless it has a name: several of an episode, else one."""
        # Inside a JSON string the quotes would be escaped, so these are keys.
        asked = self.format is None and b'"hash_ids"' in line and b'"input_length"' in line
        if asked or self.format == "mooncake":
            return [self.log.trace(line, name)]
        if self.format == "verifiers" or (self.format is None and all(key in line for key in _ROLLOUT)):
            return verifiers.records(line, name, count=self.count, keep_text=self.keep)
        return [_record(line, name, self.format, self.count, self.keep)]


def _record(line: bytes, name: str, format: str | None, count: TokenCounter, keep: bool) -> Trace:
    not_native = None
    # Inside a JSON string the quotes would be escaped, so this is a key.
    if format == "native" or (format is None and b'"schema"' in line):
        try:
            trace = native.decode(line)
            return trace if keep else native.without_text(trace)
        except FormatError as error:
            if format == "native":
                raise
            not_native = error  # unless somebody else uses the key
    try:
        record = _decoder.decode(line)
    except msgspec.ValidationError as error:
        raise not_native or FormatError(str(error)) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise FormatError(f"not one complete JSON object on one line: {error}") from None
    if not_native and record.first is None:
        raise not_native
    return trace_of(record, name, format, count, keep)


def _placed(error: SimulatorError, path: str, line: int | None) -> FormatError:
    return error.at(path, line) if isinstance(error, FormatError) else FormatError(str(error), path=path, line=line)


def dump(
    traces: Iterable[Trace],
    file: IO[str],
    format: str = "native",
    *,
    block_size: int | None = None,
    refused: Callable[[FormatError], None] | None = None,
) -> int:
    r"""Write traces as JSON lines, and return how many.

    Parameters
    ----------
    traces : iterable of Trace
        Taken one at a time.
    file : text file
        Open for writing, in UTF-8.
    format : str
        A key of `FORMATS`, or ``agentic_mooncake``. Formats of text become objects with ``id``, ``output`` (the text)
        and the outcome.
    block_size : int, optional
        Tokens in a block of ``hash_ids``; by default 64. Only agentic Mooncake has them.
    refused : callable, optional
        Takes the error of a trace that cannot be said in `format`; the others are still written.

    Raises
    ------
    FormatError
        If a trace cannot be said in `format`, unless there is `refused`. Those before it have been written.
    ConfigError
        If there is no such format, or it is read only.

    >>> from simulator.formats import parse
    >>> _ = dump([parse("<FORK-1>odd</FORK-1>", id="q7")], sys.stdout, "asyncthink")
    {"id":"q7","output":"<FORK-1>odd</FORK-1>"}
    """
    said = sayer(format, block_size)
    written = 0
    for trace in traces:
        try:
            lines = list(said(trace))
        except FormatError as error:
            if refused is None:
                raise
            refused(error)
            continue
        for line in lines:
            file.write(line + "\n")
        written += 1
    return written


def sayer(format: str, block_size: int | None = None) -> Callable[[Trace], Iterable[str]]:
    """Return what says a trace in lines of `format`.

    Raises
    ------
    ConfigError
        If there is no such format, or it is read only.

    >>> from simulator.formats import parse
    >>> sayer("asyncthink")(parse("<FORK-1>odd</FORK-1>", id="q7"))
    ['{"id":"q7","output":"<FORK-1>odd</FORK-1>"}']
    """
    size = agentic.block_size_of(block_size, 64)
    if format == "agentic_mooncake":
        return agentic.Writer(size).lines
    if format in LOGS:
        raise ConfigError(f"{format} is read, not written; agentic_mooncake says the same and more")
    form = lookup(format)

    def say(trace: Trace) -> list[str]:
        line = form.render(trace)
        if format == "native":
            return [line]
        judged = trace.outcome or Outcome()
        record = {"id": trace.id, "output": line}
        record |= {key: value for key, value in msgspec.structs.asdict(judged).items() if value is not None}
        try:
            return [msgspec.json.encode(record).decode()]
        except UnicodeEncodeError as error:
            raise FormatError(f"trace {trace.id!r} cannot be written as JSON: {error}") from None

    return say
