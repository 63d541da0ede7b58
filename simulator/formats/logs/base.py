"""What a log format is, what its reader is given, and what most readers need."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import msgspec

from simulator.errors import ConfigError, FormatError
from simulator.trace import MAX_SECONDS, MAX_TOKENS, Trace
from simulator.trace.tokens import TokenCounter, by_characters

T = TypeVar("T")
_OBJECT = re.compile(r"\s*\{")
Line = tuple[int, bytes]
"""The number of a line, from 1 on, and the line. A document is one line."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a log is read."""

    name: str
    """The file's name, without its ending."""
    count: TokenCounter = by_characters
    """Counts the tokens of a piece of text, where the log gives no counts."""
    keep_text: bool = True
    """Whether actions keep their text."""
    block_size: int | None = None
    """Tokens in a block of ``hash_ids``; None if the caller did not say."""
    _made: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def id(self, number: int) -> str:
        """Return the name of a trace that has none in the log.

        >>> Reading("requests").id(7)
        'requests:7'
        """
        return f"{self.name}:{number}"

    def once(self, make: Callable[[Reading], T]) -> T:
        """Return what `make` gave when it was first asked for in this log: what is remembered between records."""
        if make not in self._made:
            self._made[make] = make(self)
        made: T = self._made[make]
        return made


@dataclass(frozen=True, slots=True)
class LogFormat:
    """One format of files: of traces, of requests, of whatever traces can be made of."""

    name: str
    summary: str
    sniff: Callable[[bytes], bool]
    """Whether a line is the log's: the first that is not blank, or each (see `unit`). Of a document it is asked about
    the first bytes."""
    read: Callable[[Iterable[Line], Reading], Iterable[Trace | FormatError]]
    """Lines to traces. What is no trace comes out as a `FormatError` with its line; one that is raised is the last
    that is read, and nothing else may be raised, whatever the file holds."""
    write: Callable[[int | None], Callable[[Trace], Iterable[str]]] | None = None
    """Takes a block size, or None, and returns what says a trace in lines: `FormatError` where the format cannot say
    it. None: the format is read only."""
    unit: Literal["record", "lines", "document"] = "lines"
    """What `read` takes at once. ``lines``: all lines of a file, which `sniff` knows by the first. ``record``: one
    line, which may stand among lines of other formats. ``document``: all of a file, which need not be lines."""


def is_object(text: str) -> bool:
    r"""Return whether a text begins as a JSON object does.

    >>> is_object('\n {"id": 1}'), is_object("[{}]")
    (True, False)
    """
    return _OBJECT.match(text) is not None


def decode(decoder: Callable[[bytes | str], T], line: bytes | str, what: str) -> T:
    """Return what a JSON decoder makes of a line.

    Raises
    ------
    FormatError
        If the line is no JSON object, or not `what` is decoded.

    >>> decode(msgspec.json.Decoder(dict).decode, "[1]", "a request")
    Traceback (most recent call last):
    simulator.errors.FormatError: not a request: Expected `object`, got `array`
    """
    try:
        return decoder(line)
    except msgspec.ValidationError as error:
        raise FormatError(f"not {what}: {error}") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise FormatError(f"not one complete JSON object on one line: {error}") from None


def encode(record: Any, id: str) -> bytes:
    """Return what says the trace `id` as JSON.

    Raises
    ------
    FormatError
        If JSON cannot say it.

    >>> encode({"id": "q7"}, "q7")
    b'{"id":"q7"}'
    """
    try:
        return msgspec.json.encode(record)
    except (TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"trace {id!r} cannot be written as JSON: {error}") from None


def check_block_size(size: int | None) -> None:
    """Raise `ConfigError` unless `size` is a number of tokens, or None."""
    if size is not None and (size.__class__ is not int or not 1 <= size <= MAX_TOKENS):
        raise ConfigError(f"the block size is a number of tokens from 1 on; got {size!r}")


def check_tokens(what: str, value: int, least: int) -> None:
    """Raise `FormatError` unless `value` is a number of tokens from `least` on."""
    if not least <= value <= MAX_TOKENS:
        raise FormatError(f"{what} must be from {least} to 10^12, got {value}")


def check_milliseconds(what: str, value: float) -> None:
    """Raise `FormatError` unless `value` is a time."""
    if not (math.isfinite(value) and 0 <= value <= MAX_SECONDS * 1000):
        raise FormatError(f"{what} must be from 0 to 10^12 milliseconds, got {value}")
