"""Reading and writing files of traces, one at a time.

A file is one document, lines, or one text. `simulator.formats.LOGS` are asked, in their order, whether they know its
first line that is not blank, and `LogFormat.unit` says what follows if one does. A log of single records takes this
line only, and the next line is asked about again. So a file may hold records of several logs, such as native traces and
rollouts of verifiers, side by side.

A line that no log knows is a JSON object with the text of one output under ``output``, ``text``, ``completion`` or
``response``, or of an AsyncThink organizer under ``organizer``; with either, ``workers`` may map worker ids to texts.
Optional: ``id`` or ``index``, ``correct`` (true or false), ``found`` and ``wanted`` (numbers of solutions), ``tokens``
(how many all its texts are, or the token ids themselves) and ``prompt_tokens`` (of the query). Other keys are ignored.
Where ``tokens`` is given, it is spread over the text by characters, and `Trace.token_source` says ``record, spread by
characters``.

Names ending in .jsonl, .ndjson or .json are lines. Those in .txt are one text, and no log is asked about them. Other
files are lines if a log knows the first, or if they begin with ``{``; else the whole file is one text.

What cannot be read comes out as a `FormatError` with its path and line, among the traces, so that good records are
still used. Memory holds one record at a time, and what a log remembers.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from itertools import chain
from typing import IO, Any, BinaryIO

from simulator.errors import FormatError, SimulatorError
from simulator.formats import LOGS, LogFormat, detect, lookup, readable, refusal, writable
from simulator.formats.logs.base import Line, Reading, check_block_size
from simulator.formats.records import line_of, traces_of
from simulator.support.files import stem
from simulator.trace import Trace
from simulator.trace.tokens import TokenCounter, by_characters

MAX_RECORD = 64 * 2**20
"""The most bytes a record may have. Longer ones are skipped."""

_BOM = b"\xef\xbb\xbf"
_JSON_ENDINGS = (".jsonl", ".ndjson", ".json")
_ACCEPTED = "accepted is a file of JSON lines or of plain text, or -"

Items = Iterator[Trace | FormatError]
"""What a file holds: traces, and an error for each record that is none."""


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
    if format is not None and format not in readable():
        raise refusal(format, "", readable())
    check_block_size(block_size)
    path = os.fspath(path)
    name = stem(path)
    return _read(path, format, Reading(name, count or by_characters, keep_text, block_size))


def _read(path: str, format: str | None, reading: Reading) -> Items:
    shown = "<stdin>" if path == "-" else path
    try:
        with nullcontext(_stdin()) if path == "-" else open(path, "rb") as file:
            for item in _items(file, os.path.splitext(path)[1].lower(), format, reading):
                yield item.at(shown) if isinstance(item, FormatError) else item
    except OSError as error:
        yield FormatError(f"cannot be read ({error.strerror or error}); {_ACCEPTED}", path=shown)


def _stdin() -> io.BufferedReader:
    stream: Any = sys.stdin.buffer
    return stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)


def _items(file: io.BufferedReader, ending: str, format: str | None, reading: Reading) -> Items:
    """Decide whether a file is a document, lines or a text, and read it as that."""
    head = file.peek(2**16)
    begin = head.removeprefix(_BOM).lstrip()
    if not head:
        yield FormatError(f"is empty; {_ACCEPTED}")
        return
    if b"\0" in head:
        yield FormatError(f"holds NUL bytes, so it is binary or UTF-16; {_ACCEPTED}, in UTF-8")
        return
    log = given = LOGS.get(format or "")
    if format is None and ending != ".txt":
        line = begin.partition(b"\n")[0]
        log = next((log for log in LOGS.values() if log.sniff(begin if log.unit == "document" else line)), None)
    if log is not None and log.unit == "document":
        yield from _told(log.read, _whole(file, "document"), reading)
    elif log is not None or ending in _JSON_ENDINGS or (ending != ".txt" and begin[:1] == b"{"):
        skipped: list[FormatError] = []
        for item in _of_lines(_lines(file, skipped), skipped, given, format, reading):
            while skipped:
                yield skipped.pop(0)
            yield item
        yield from skipped
    else:
        yield from _told(partial(_text, format=format), _whole(file, "text"), reading)


def _told(read: Any, lines: Iterable[Line], reading: Reading) -> Items:
    """Yield what is read. An error that is raised comes out as the last."""
    try:
        yield from read(lines, reading)
    except SimulatorError as error:
        yield _raised(error)


def _raised(error: SimulatorError) -> FormatError:
    return error if isinstance(error, FormatError) else FormatError(str(error))


def _whole(file: BinaryIO, what: str) -> Iterator[Line]:
    data = file.read(MAX_RECORD + 1)
    if len(data) > MAX_RECORD:
        raise FormatError(f"a {what} of more than {MAX_RECORD} bytes is not read")
    yield 1, data.removeprefix(_BOM)


def _text(lines: Iterable[Line], reading: Reading, format: str | None) -> Items:
    for _, data in lines:
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"is no UTF-8 text: {error.reason} at byte {error.start}") from None
        if "\0" in text:
            raise FormatError("holds NUL characters, so it is no text")
        form = lookup(format or detect(text))
        yield (form.parse_file or form.parse)(text, id=reading.name, count=reading.count, keep_text=reading.keep_text)


def _lines(file: BinaryIO, skipped: list[FormatError]) -> Iterator[Line]:
    """Yield the lines that are not blank. Those that are too long are `skipped`."""
    number = 0
    while line := file.readline(MAX_RECORD + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(_BOM)
        if len(line) > MAX_RECORD and not line.endswith(b"\n"):
            while (rest := file.readline(2**20)) and not rest.endswith(b"\n"):
                pass
            skipped.append(FormatError(f"a record of more than {MAX_RECORD} bytes is not read", line=number))
        elif not line.isspace():
            yield number, line


def _of_lines(
    lines: Iterator[Line], skipped: list[FormatError], given: LogFormat | None, format: str | None, reading: Reading
) -> Items:
    first = next(lines, None)
    if first is None:
        if not skipped:
            yield FormatError("has no records, only blank lines; accepted is one JSON object a line")
        return
    number, line = first
    logs = [log for log in LOGS.values() if log.unit != "document"] if format is None else []
    log = given or next((log for log in logs if log.sniff(line)), None)
    if (line.strip() == b"{" or line.lstrip()[:1] == b"[") and not (log and log.sniff(line)):
        hint = "accepted is one JSON object a line; `jq -c .` makes that of objects, `jq -c '.[]'` of an array"
        yield FormatError(f"is JSON over several lines, or an array; {hint}", line=number)
    elif log and log.unit == "lines":
        yield from _told(log.read, chain([first], lines), reading)
    else:
        logs = [log for log in logs if log.unit == "record"]
        otherwise = given.read if given else partial(traces_of, format=format)
        for number, line in chain([first], lines):
            read = otherwise
            for log in logs:
                if log.sniff(line):
                    read = log.read
                    break
            try:
                for item in read(((number, line),), reading):
                    yield item.at(line=number) if isinstance(item, FormatError) else item
            except SimulatorError as error:
                yield _raised(error).at(line=number)


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
        One of `simulator.formats.writable`. Formats of text become objects with ``id``, ``output`` (the text) and the
        outcome.
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
    said = writer(format, block_size)
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


def writer(format: str, block_size: int | None = None) -> Callable[[Trace], Iterable[str]]:
    """Return what says a trace in lines of `format`.

    Raises
    ------
    ConfigError
        If there is no such format, or it is read only.

    >>> from simulator.formats import parse
    >>> writer("asyncthink")(parse("<FORK-1>odd</FORK-1>", id="q7"))
    ['{"id":"q7","output":"<FORK-1>odd</FORK-1>"}']
    """
    check_block_size(block_size)
    if format not in writable():
        raise refusal(format, "is read, not written", writable())
    log = LOGS.get(format)
    if log is not None and log.write is not None:
        return log.write(block_size)
    return lambda trace: [line_of(trace, format)]
