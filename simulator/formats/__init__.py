"""Trace formats: text in, `Trace` out, and back.

`FORMATS` are formats of one trace's text, `LOGS` formats of files. Adding one takes a file and a line in one of these,
as ``docs/extending.md`` shows; the tests then hold it to the laws that all formats keep.
"""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from simulator.errors import ConfigError, FormatError
from simulator.formats import asyncthink, native
from simulator.formats.groups import multiverse, npr, parallel_r1, threadweaver
from simulator.formats.logs import agentic, apr, mooncake, verifiers
from simulator.formats.logs.base import LogFormat
from simulator.trace import Outcome, Trace
from simulator.trace.tokens import TokenCounter, by_characters

__all__ = [
    "FORMATS",
    "LOGS",
    "Format",
    "LogFormat",
    "Parser",
    "detect",
    "detect_written",
    "lookup",
    "parse",
    "readable",
    "refusal",
    "render",
    "writable",
]

_LONGEST_NAME = 260
_FILE = re.compile(r"(?:[A-Za-z]:)?[\w./\\-]*\w\.(?:txt|md|json|jsonl|ndjson)")
_OF_FILES = "is a format of whole files: see simulator.read and simulator.dump"


class Parser(typing.Protocol):
    """The `parse` of a format."""

    def __call__(
        self,
        text: str,
        *,
        id: str = ...,
        count: TokenCounter = ...,
        keep_text: bool = ...,
        outcome: Outcome | None = ...,
    ) -> Trace:
        """Return the Trace of `text`."""


@dataclass(frozen=True, slots=True)
class Format:
    """One trace format."""

    name: str
    summary: str
    parse: Parser
    """Text to Trace. A malformed text gives a Trace with faults; `FormatError` only where no Trace can be built."""
    render: Callable[[Trace], str] | None
    """Trace to text, `FormatError` where the format cannot say it. None: the format is read only."""
    detect: Callable[[str], bool]
    """Whether a text looks like this format. `detect` asks in the order of `FORMATS`."""
    parse_file: Parser | None = None
    """The `parse` of a whole file, where a file may say more than a text that a model wrote."""
    written: bool = True
    """Whether it is what models write. If not, it is a record that a program makes, and says whose text is whose."""


FORMATS: dict[str, Format] = {
    "native": Format(
        "native", "JSON lines, all a Trace holds", native.parse, native.render, native.detect, written=False
    ),
    "verifiers": Format("verifiers", "a rollout of verifiers", verifiers.parse, None, verifiers.detect, written=False),
    "apr": Format("apr", "a search with its calls", apr.parse, None, apr.detect, written=False),
    "asyncthink": Format(
        "asyncthink",
        "<FORK-1> <JOIN-1>",
        asyncthink.parse,
        asyncthink.render,
        asyncthink.detect,
        asyncthink.parse_file,
    ),
    "npr": Format("npr", "<guideline> <step>", npr.parse, npr.render, npr.detect),
    "multiverse": Format("multiverse", "<Goal> <Path>", multiverse.parse, multiverse.render, multiverse.detect),
    "threadweaver": Format("threadweaver", "<Thread>", threadweaver.parse, threadweaver.render, threadweaver.detect),
    "parallel_r1": Format("parallel_r1", "<Path> <Summary>", parallel_r1.parse, parallel_r1.render, parallel_r1.detect),
}
"""Formats of one trace's text. `detect` asks them in this order whether they know a text."""

LOGS: dict[str, LogFormat] = {
    "native": LogFormat("native", "a Trace a line", native.sniff, native.read, native.write, "record"),
    "verifiers": LogFormat("verifiers", "rollouts, or episodes", verifiers.sniff, verifiers.read, None, "record"),
    "apr": LogFormat("apr", "searches with their calls", apr.sniff, apr.read, None, "record"),
    "mooncake": LogFormat("mooncake", "requests that share prefixes", mooncake.sniff, mooncake.read, None, "record"),
    "agentic_mooncake": LogFormat("agentic_mooncake", "requests of agents", agentic.sniff, agentic.read, agentic.write),
}
"""Formats of files. `simulator.read` asks them in this order whether they know a file, or a line of it; lines that none
knows are objects with a text in one of `FORMATS`."""


def readable() -> list[str]:
    """Return the names of the formats that a file may be in."""
    return list(dict.fromkeys([*FORMATS, *LOGS]))


def writable() -> list[str]:
    """Return the names of the formats that a file can be written in.

    >>> "verifiers" in readable(), "verifiers" in writable()
    (True, False)
    """
    rendered = {name for name, form in FORMATS.items() if form.render}
    written = {name for name, log in LOGS.items() if log.write}
    return [name for name in readable() if name in rendered | written]


def refusal(name: str, why: str, accepted: Iterable[str]) -> ConfigError:
    """Return the error that says `why` the format called `name` is not `accepted`, or that there is none."""
    said = f"{name} {why}" if isinstance(name, str) and name in readable() else f"no format is called {name!r}"
    return ConfigError(f"{said}; accepted are {', '.join(accepted)}")


def lookup(name: str) -> Format:
    """Return the format called `name`, one of `FORMATS`.

    Raises
    ------
    ConfigError
        If there is none.

    >>> lookup("native").summary
    'JSON lines, all a Trace holds'
    """
    if not isinstance(name, str) or name not in FORMATS:
        raise refusal(name, _OF_FILES, FORMATS)
    return FORMATS[name]


def detect(text: str) -> str:
    """Return the name of the format that `text` is in, by its tags.

    A text without any tag is ``asyncthink``: sequential thinking.

    >>> detect("so <FORK-1>"), detect("<Goal>"), detect("<Outlines>"), detect("<Parallel><Path>"), detect("plain")
    ('asyncthink', 'multiverse', 'threadweaver', 'parallel_r1', 'asyncthink')
    """
    return next((form.name for form in FORMATS.values() if form.detect(text)), "asyncthink")


def detect_written(text: str) -> str:
    """Return the same as `detect` for a text that a model wrote: never a record, which would say whose text is whose.

    >>> detect('{"schema": "forksim.trace/1"}'), detect_written('{"schema": "forksim.trace/1"}')
    ('native', 'asyncthink')
    """
    return next((form.name for form in FORMATS.values() if form.written and form.detect(text)), "asyncthink")


def parse(
    text: str,
    *,
    format: str | None = None,
    workers: Mapping[str, str] | None = None,
    whole_file: bool = False,
    id: str = "trace",
    count: TokenCounter = by_characters,
    keep_text: bool = True,
    outcome: Outcome | None = None,
) -> Trace:
    """Return the Trace of `text`.

    Parameters
    ----------
    text : str
        One query's thinking, or one native record.
    format : str, optional
        A key of `FORMATS`; by default found from the text, or ``asyncthink`` where there are `workers`.
    workers : mapping from str to str, optional
        Texts of the workers by id. Only ``asyncthink`` has them beside its text.
    whole_file : bool
        Whether `text` is a whole file. Then ``<WORKER-i>`` sections in it are threads; in what a model wrote they are
        text.
    id : str
        The trace's name, where the text does not give one.
    count : callable
        Counts the tokens of a piece of text; `Trace.token_source` then names it.
    keep_text : bool
        Whether actions keep their text. Scoring needs only that of the Answer, which is kept in any case.
    outcome : Outcome, optional
        How the answer was judged.

    Raises
    ------
    FormatError
        If no Trace can be built, or the text is the name of a file. Malformed thinking is no such case: see
        `Trace.faults`.
    ConfigError
        If there is no such format.

    >>> trace = parse("<Parallel><Path>odd</Path><Path>even</Path></Parallel> Final Answer: 9")
    >>> len(trace.threads), trace.token_source
    (3, 'characters')
    """
    if not isinstance(text, str):
        way = "; simulator.read(path) reads a file" if isinstance(text, os.PathLike) else ""
        raise FormatError(f"a text is a str; got {type(text).__name__}{way}")
    if format is None and workers is None and len(text) < _LONGEST_NAME and _FILE.fullmatch(text):
        raise FormatError(
            f"{text!r} is the name of a file, not thinking: simulator.read(path) reads it (with format=, it is a text)"
        )
    if workers is not None:
        if format not in (None, "asyncthink") or whole_file:
            raise ConfigError("workers stand beside a text of the asyncthink format that is no whole file")
        return asyncthink.parse(text, workers=workers, id=id, count=count, keep_text=keep_text, outcome=outcome)
    form = lookup(detect(text) if format is None else format)
    reads = (form.parse_file or form.parse) if whole_file else form.parse
    trace = reads(text, id=id, count=count, keep_text=keep_text, outcome=outcome)
    if not isinstance(trace, Trace):
        raise FormatError(f"parse of the format {form.name!r} must return a Trace; it returned {trace!r:.80}")
    return trace


def render(trace: Trace, format: str) -> str:
    """Return `trace` as text of `format`.

    Raises
    ------
    FormatError
        If the format cannot say it.
    ConfigError
        If there is no such format, or it is read only.

    >>> text = "<Parallel><Path>odd</Path><Path>even</Path></Parallel>"
    >>> render(parse(text), "parallel_r1") == text
    True
    """
    form = FORMATS.get(format)
    if form is None or form.render is None:
        accepted = [name for name, form in FORMATS.items() if form.render]
        raise refusal(format, "is read, not written" if form else _OF_FILES, accepted)
    if not isinstance(trace, Trace):
        raise FormatError(f"what is rendered is a Trace; got {type(trace).__name__}")
    return form.render(trace)
