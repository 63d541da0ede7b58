"""What an OpenAI-compatible server streams: server-sent events, each a chunk of a completion."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

MAX_EVENT = 16 * 2**20


class BadStream(Exception):
    """What came is no stream of a completion. Never leaves the engine: it ends a generation."""


class Events:
    r"""Cuts a stream of bytes into the data of its events, wherever the network cut it.

    >>> events = Events()
    >>> [events.feed(data) for data in (b'data: {"a', b'":1}\r', b"\n\r\ndata: [DO", b"NE]\n\n: ping\n\n")]
    [[], [], [b'{"a":1}'], [b'[DONE]']]
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._size = 0  # of the event so far

    def feed(self, received: bytes) -> list[bytes]:
        """Take in bytes; return the data of the events that are complete now."""
        found = []
        head, *rest = received.split(b"\n")
        self._rest += head
        for following in rest:
            line = bytes(self._rest.removesuffix(b"\r"))
            self._rest = bytearray(following)
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
                self._size += len(line)
            elif not line and self._data:
                found.append(b"\n".join(self._data))
                self._data, self._size = [], 0
        if len(self._rest) + self._size > MAX_EVENT:
            raise BadStream(f"an event of more than {MAX_EVENT} bytes")
        return found


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None  # vLLM
    matched_stop: str | int | list[int] | None = None  # SGLang


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None
    message: str | None = None


class Chunk(NamedTuple):
    """One event of a completion."""

    text: str
    finish_reason: str | None
    stop: str | None
    """The stop string that ended it, if the server says so."""
    prompt_tokens: int | None
    completion_tokens: int | None
    """Of the whole completion up to here."""
    bursts: int = 0
    """Events with text that this is the sum of."""


_decoder = msgspec.json.Decoder(_Chunk)


def chunk(data: bytes) -> Chunk:
    """Return what one event says.

    Raises
    ------
    BadStream
        If it is no chunk of a completion, or says that the server has failed.

    >>> chunk(b'{"choices":[{"text":"so","finish_reason":null}]}').text
    'so'
    >>> chunk(b'{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}').completion_tokens
    2
    """
    try:
        found = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadStream(f"the server sent what is no chunk of a completion ({error})") from None
    if found.error is not None:
        message = found.error.get("message", found.error) if isinstance(found.error, dict) else found.error
        raise BadStream(f"the server says: {message}")
    usage = found.usage or _Usage()
    for count in (usage.prompt_tokens, usage.completion_tokens):
        if count is not None and not 0 <= count <= 10**9:
            raise BadStream(f"the server counts {count} tokens")
    text, reason, stop = "", None, None
    for choice in found.choices[:1]:
        delta = choice.delta or _Delta()
        text = choice.text or (delta.reasoning_content or "") + (delta.content or "")
        reason = choice.finish_reason
        said = choice.stop_reason if choice.stop_reason is not None else choice.matched_stop
        stop = said if isinstance(said, str) else None
    return Chunk(text, reason, stop, usage.prompt_tokens, usage.completion_tokens)
