"""Mooncake request logs: what a serving system was asked, as its operator recorded it.

JSON lines, one request each (arXiv 2407.00079)::

    {"timestamp": 27482, "input_length": 2300, "output_length": 52, "hash_ids": [46, 47, 48, 2353, 2354]}

``timestamp`` is milliseconds. ``hash_ids`` name the blocks of the input, in Mooncake's own logs of 512 tokens; the last
may be partly filled. Inputs that begin with the same ids begin with the same tokens. Other keys are ignored, but for
``request_id``, which names the trace.

A request becomes a query of one thread: a prompt, and an answer. `Trace.prefix_of` says which earlier query begins with
the most blocks of it, the latest of several, and the organizer's `shared_tokens` how many tokens that are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from simulator.errors import FormatError
from simulator.formats.logs.base import Line, Reading, check_milliseconds, check_tokens, decode
from simulator.trace import ORGANIZER, Answer, Thread, Trace

BLOCK_SIZE = 512
"""Tokens in a block of `hash_ids`, in the logs that Mooncake published."""


class _Request(msgspec.Struct):
    timestamp: float
    input_length: int
    output_length: int
    hash_ids: list[int]
    request_id: str | None = None


_decoder = msgspec.json.Decoder(_Request)


class Log:
    """The requests of one log so far. It remembers which blocks they began with, one entry a block.

    Parameters
    ----------
    block_size : int
        Tokens in a block of ``hash_ids``.

    >>> log = Log(64)
    >>> first = '{"timestamp": 500, "input_length": 100, "output_length": 7, "hash_ids": [0, 1]}'
    >>> second = '{"timestamp": 750, "input_length": 200, "output_length": 9, "hash_ids": [0, 2, 3, 4]}'
    >>> for trace in (log.trace(first, "a"), log.trace(second, "b")):
    ...     thread = trace.organizer
    ...     print(trace.id, trace.arrival, thread.prompt_tokens, thread.shared_tokens, trace.prefix_of)
    a 0.5 100 0 None
    b 0.75 200 64 a
    """

    def __init__(self, block_size: int = BLOCK_SIZE) -> None:
        self.block_size = block_size
        self.steps: dict[tuple[int, int], int] = {}
        """A tree of prefixes: a node and the id of the next block give the node behind it. The root is 0."""
        self.latest: list[tuple[str, int]] = [("", 0)]
        """The latest request through each node, and its input length."""

    def trace(self, line: bytes | str, id: str) -> Trace:
        """Return the Trace of the next request, called `id` unless it has a name.

        Raises
        ------
        FormatError
            If the line is no request. It is forgotten then.
        """
        try:
            request = decode(_decoder.decode, line, "a request of a Mooncake log")
        except FormatError as error:
            if b'"play_id"' not in (line if isinstance(line, bytes) else line.encode(errors="replace")):
                raise
            hint = "rows with a play_id are agentic Mooncake, and need its header as the first line of the file"
            raise FormatError(f"{error.message}; {hint}") from None
        self._check(request)
        name = id if request.request_id is None else request.request_id
        earlier, shared = self._longest(request)
        self._remember(request, name)
        organizer = Thread(ORGANIZER, (Answer(request.output_length),), request.input_length, shared)
        return Trace(name, (organizer,), arrival=request.timestamp / 1000, prefix_of=earlier)

    def _check(self, request: _Request) -> None:
        check_tokens("input_length", request.input_length, 0)
        check_tokens("output_length", request.output_length, 0)
        check_milliseconds("timestamp", request.timestamp)
        blocks = -(-request.input_length // self.block_size)
        if len(request.hash_ids) not in (0, blocks):  # none: nothing is known of what it shares
            raise FormatError(
                f"an input_length of {request.input_length} is {blocks} blocks of {self.block_size} tokens, but there"
                f" are {len(request.hash_ids)} hash_ids; is the block size another?"
            )

    def _longest(self, request: _Request) -> tuple[str | None, int]:
        """Return the earlier request with the longest prefix in common, and how many tokens that surely is."""
        node = depth = 0
        for block in request.hash_ids:
            step = self.steps.get((node, block))
            if step is None:
                break
            node, depth = step, depth + 1
        name, length = self.latest[node]
        shared = min(depth * self.block_size, length, request.input_length - 1)
        return (name, shared) if shared > 0 else (None, 0)

    def _remember(self, request: _Request, name: str) -> None:
        node = 0
        for block in request.hash_ids:
            node = self.steps.setdefault((node, block), len(self.latest))
            if node == len(self.latest):
                self.latest.append((name, request.input_length))
            else:
                self.latest[node] = (name, request.input_length)


def sniff(line: bytes) -> bool:
    """Return whether a line has the keys of a request. Inside a JSON string the quotes would be escaped.

    >>> sniff(b'{"timestamp": 5, "hash_ids": [], "input_length": 9}'), sniff(b'{"text": "hash_ids, input_length"}')
    (True, False)
    """
    return b'"hash_ids"' in line and b'"input_length"' in line and line.lstrip()[:1] == b"{"


def read(lines: Iterable[Line], reading: Reading) -> Iterator[Trace]:
    """Yield the trace of each request."""
    log = reading.once(_log)
    for number, line in lines:
        yield log.trace(line, reading.id(number))


def _log(reading: Reading) -> Log:
    return Log(reading.block_size or BLOCK_SIZE)
