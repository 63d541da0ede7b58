"""Agentic Mooncake, version 2: requests of agents, and which wait for which, as NVIDIA Dynamo and AISimulate read them.

A file of JSON lines. The first is a header, every other is a request::

    {"schema": "dynamo.agentic_mooncake", "version": 2, "block_size": 64, "hash_id_scope": "local",
     "source": {"format": "forksim.trace/1", "digest": "none"}}
    {"request_id": "00000000.0001.0000", "play_id": "q7", "source_play_ordinal": 0, "session_id": "1",
     "model": "unknown", "input_length": 130, "output_length": 9, "hash_ids": [0, 1, 2], "not_before_ms": 0.0,
     "dependencies": [{"request_id": "00000000.0000.0000", "trigger": "completion", "delay_ms": 0.0,
                       "relation": "spawn"}]}

(each on one line). A play is a query, a session a thread, a request one stay of the thread on the engine: its whole
context is read, then `output_length` tokens are decoded. ``hash_ids`` name the blocks of the context; contexts that
begin with the same ids begin with the same tokens. A request comes when all its dependencies are completed and their
delays have passed. ``docs/formats.md`` says what is lost on the way there and back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import msgspec

from simulator.errors import FormatError, GraphError
from simulator.formats.logs.base import Line, Reading, check_milliseconds, check_tokens, decode, encode
from simulator.formats.logs.requests import requests
from simulator.formats.logs.to_threads import DependencyRow, RequestRow
from simulator.formats.logs.to_trace import to_trace
from simulator.graph.compiler import compile_trace
from simulator.trace import MAX_TOKENS, Trace

SCHEMA: Literal["dynamo.agentic_mooncake"] = "dynamo.agentic_mooncake"
VERSION = 2


class _Header(msgspec.Struct):
    schema: Literal["dynamo.agentic_mooncake"]
    version: int
    block_size: int
    hash_id_scope: Literal["local"]
    source: Any = None


_headers = msgspec.json.Decoder(_Header)
_rows = msgspec.json.Decoder(RequestRow)


def sniff(line: bytes) -> bool:
    """Return whether a line looks like a header.

    >>> sniff(b'{"schema": "dynamo.agentic_mooncake"}'), sniff(b'{"text": "dynamo.agentic_mooncake"}')
    (True, False)
    """
    return b'"schema"' in line and b'"dynamo.agentic_mooncake"' in line and line.lstrip()[:1] == b"{"


def read(lines: Iterable[Line], reading: Reading) -> Iterator[Trace | FormatError]:
    """Yield the trace of each play. The first line is the header."""
    rest = iter(lines)
    first, header = next(rest)
    try:
        reader = PlayReader(header)
    except FormatError as error:
        raise error.at(line=first) from None
    number = first
    for number, line in rest:
        yield from reader.feed(line, number)
    yield from reader.close()
    if number == first:
        yield FormatError("has a header of agentic Mooncake, but no requests")


def write(block_size: int | None = None) -> Callable[[Trace], Iterable[str]]:
    """Return what says a trace in lines."""
    return Writer(block_size or 64).lines


class PlayReader:
    """Reads the lines of a file, and gives each play when its last row has passed. It holds one play at a time.

    Parameters
    ----------
    header : bytes or str
        The first line.

    Raises
    ------
    FormatError
        If it is no header of this version.

    >>> header = '{"schema": "dynamo.agentic_mooncake", "version": 2, "block_size": 64, "hash_id_scope": "local"}'
    >>> reader = PlayReader(header)
    >>> row = '{"request_id": "r", "play_id": "q7", "session_id": "main", "model": "m", "input_length": 100,'
    >>> list(reader.feed(row + ' "output_length": 9, "hash_ids": [0, 1], "not_before_ms": 0}', 2))
    []
    >>> [trace.id for trace in reader.close()]
    ['q7']
    """

    def __init__(self, header: bytes | str) -> None:
        accepted = f'accepted is "schema": "{SCHEMA}", "version": {VERSION}, "hash_id_scope": "local" and a block_size'
        try:
            said = _headers.decode(header)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise FormatError(f"not a header of agentic Mooncake: {error}; {accepted}") from None
        if said.version != VERSION:
            raise FormatError(f"version {said.version} of agentic Mooncake is not read; {accepted}")
        if not 1 <= said.block_size <= MAX_TOKENS:
            raise FormatError(f"block_size must be a number of tokens from 1 on, got {said.block_size}; {accepted}")
        self.block_size = said.block_size
        self.play: str | None = None
        self.rows: dict[str, tuple[int, RequestRow]] = {}
        self.broken = False
        self.ended: set[str] = set()
        self.ordinal = -1

    def feed(self, line: bytes | str, number: int) -> Iterator[Trace | FormatError]:
        """Take a row, which is line `number`. Yield the play before it if this is the first of another."""
        try:
            row = decode(_rows.decode, line, "a request of agentic Mooncake")
        except FormatError as error:
            yield error.at(line=number)
            return
        if row.play_id != self.play:
            yield from self.close()
            self.play, self.broken = row.play_id, False
            if self._is_over(row):
                self.broken = True
                yield FormatError(
                    f"play {row.play_id!r} was over before this line; accepted are files where the rows of a play stand"
                    " together",
                    line=number,
                )
        if self.broken:
            return
        try:
            self._check(row)
            if row.request_id in self.rows:
                raise FormatError(f"request {row.request_id!r} is there twice in play {row.play_id!r}")
        except FormatError as error:
            self.broken, self.rows = True, {}
            yield error.at(line=number)
        else:
            self.rows[row.request_id] = number, row

    def close(self) -> Iterator[Trace | FormatError]:
        """Yield the play whose rows have passed, if there is one."""
        rows, self.rows = list(self.rows.values()), {}
        if rows:
            try:
                yield to_trace(rows, self.block_size)
            except FormatError as error:
                yield error

    def _is_over(self, row: RequestRow) -> bool:
        """Whether the play of `row` has been before. Where plays are numbered, their names need not be kept."""
        if row.source_play_ordinal is not None:
            over = row.source_play_ordinal <= self.ordinal
            self.ordinal = max(self.ordinal, row.source_play_ordinal)
            return over
        over = row.play_id in self.ended
        self.ended.add(row.play_id)
        return over

    def _check(self, row: RequestRow) -> None:
        """Refuse numbers that are none."""
        name = f"request {row.request_id!r}"
        check_tokens(f"{name}: input_length", row.input_length, 1)
        check_tokens(f"{name}: output_length", row.output_length, 1)
        blocks = -(-row.input_length // self.block_size)
        if len(row.hash_ids) != blocks:
            raise FormatError(
                f"{name}: {row.input_length} tokens are {blocks} blocks of {self.block_size}, but there are"
                f" {len(row.hash_ids)} hash_ids"
            )
        check_milliseconds(f"{name}: not_before_ms", row.not_before_ms)
        for each in row.dependencies:
            check_milliseconds(f"{name}: delay_ms", each.delay_ms)
            if each.relation not in ("sequence", "spawn", "join"):
                raise FormatError(f"{name}: relation {each.relation!r} is none of sequence, spawn, join")
            if each.trigger != "completion" and (each.trigger, each.relation) != ("dispatch", "spawn"):
                raise FormatError(
                    f"{name}: trigger {each.trigger!r} is not accepted with {each.relation}; accepted is completion,"
                    " and dispatch with spawn"
                )


class Writer:
    """Gives the lines of a file, play by play. Block ids count up over the whole file, so no two plays share any.

    Parameters
    ----------
    block_size : int
        Tokens in a block of ``hash_ids``. A shared prefix is said in whole blocks: with 1, exactly.

    >>> from simulator.trace import Answer, Thread
    >>> header, row = Writer(64).lines(Trace("q7", (Thread("organizer", (Answer(9),), 100),)))
    >>> row[:88]
    '{"request_id":"00000000.0000.0000","play_id":"q7","source_play_ordinal":0,"session_id":"'
    """

    def __init__(self, block_size: int = 64) -> None:
        self.block_size = block_size
        self.plays = 0
        self.blocks = 0
        self.names: dict[str, int] = {}

    def lines(self, trace: Trace) -> Iterator[str]:
        """Yield the lines that say `trace`, the header before the first.

        Raises
        ------
        FormatError
            If requests cannot say it. Then nothing was yielded, and the next trace may come.
        """
        try:
            graph = compile_trace(trace)
        except GraphError as error:
            raise FormatError(f"trace {trace.id!r}: {error}") from None
        asked = requests(graph, self.block_size, self.blocks)
        model = trace.meta.get("model")
        # A Delay before everything is a later arrival.
        first = min(request.wait for request in asked if not request.dependencies)
        arrival = trace.arrival or 0.0
        name = self._name(trace.id)
        ids = [f"{self.plays:08d}.{request.thread:04d}.{request.index:04d}" for request in asked]
        rows = []
        for request_id, request in zip(ids, asked, strict=True):
            row = RequestRow(
                request_id=request_id,
                play_id=name,
                source_play_ordinal=self.plays,
                session_id=graph.threads[request.thread].id,
                model=model if isinstance(model, str) and model.strip() else "unknown",
                input_length=request.input_length,
                output_length=request.output_length,
                hash_ids=request.blocks,
                not_before_ms=(arrival + max(first, request.wait)) * 1000,
                dependencies=[
                    DependencyRow(ids[each.request], "completion", each.seconds * 1000, each.relation)
                    for each in request.dependencies
                ],
            )
            rows.append(encode(row, trace.id).decode())
        if not self.plays:
            source = {"format": "forksim.trace/1", "digest": "none"}
            header = _Header(SCHEMA, VERSION, self.block_size, "local", source)
            yield encode(header, trace.id).decode()
        self.plays += 1
        self.names[name] = self.names.get(name, 0)
        self.blocks = max(self.blocks, 1 + max(max(request.blocks) for request in asked))
        yield from rows

    def _name(self, id: str) -> str:
        """Return a name that no play before has."""
        name = id if id.strip() else "trace"
        while name in self.names:
            self.names[name] += 1
            name = f"{name}#{self.names[name] + 1}"
        return name
