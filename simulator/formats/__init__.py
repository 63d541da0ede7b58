"""Trace formats: text in, `Trace` out, and back.

To add one, write a module with `parse`, `render` and `detect`, and list it in `FORMATS`: the tests then hold it to the
laws that all formats keep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from simulator.errors import ConfigError
from simulator.formats import asyncthink, native
from simulator.formats.groups import multiverse, parallel_r1, threadweaver
from simulator.formats.logs import verifiers
from simulator.trace import Outcome, Trace
from simulator.trace.tokens import TokenCounter, by_characters

__all__ = ["FORMATS", "LOGS", "Format", "Parser", "detect", "lookup", "parse", "render"]


class Parser(Protocol):
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
    render: Callable[[Trace], str]
    """Trace to text, `FormatError` where the format cannot say it."""
    detect: Callable[[str], bool]
    """Whether a text looks like this format. `detect` asks in the order of `FORMATS`."""


FORMATS: dict[str, Format] = {
    "native": Format("native", "JSON lines, all a Trace holds", native.parse, native.render, native.detect),
    "verifiers": Format(
        "verifiers", "rollouts of verifiers; read only", verifiers.parse, verifiers.render, verifiers.detect
    ),
    "asyncthink": Format("asyncthink", "<FORK-1> <JOIN-1>", asyncthink.parse, asyncthink.render, asyncthink.detect),
    "multiverse": Format(
        "multiverse", "<Parallel> <Goal> <Path>", multiverse.parse, multiverse.render, multiverse.detect
    ),
    "threadweaver": Format(
        "threadweaver", "<Parallel> <Outlines> <Thread>", threadweaver.parse, threadweaver.render, threadweaver.detect
    ),
    "parallel_r1": Format(
        "parallel_r1", "<Parallel> <Path> <Summary>", parallel_r1.parse, parallel_r1.render, parallel_r1.detect
    ),
}

LOGS: dict[str, str] = {
    "mooncake": "a request a line, with the blocks of its prompt; read only",
    "agentic_mooncake": "a header, then the requests of fork/join queries",
}
"""Formats of files whose lines mean something only together: `simulator.formats.reading` reads and writes them."""


def lookup(name: str) -> Format:
    """Return the format called `name`, one of `FORMATS`.

    Raises
    ------
    ConfigError
        If there is none.

    >>> lookup("native").summary
    'JSON lines, all a Trace holds'
    """
    if name in LOGS:
        raise ConfigError(f"{name} is a format of whole files: see simulator.read and simulator.dump")
    try:
        return FORMATS[name]
    except KeyError:
        raise ConfigError(f"no format is called {name!r}; accepted are {', '.join(FORMATS)}") from None


def detect(text: str) -> str:
    """Return the name of the format that `text` is in, by its tags.

    A text without any tag is ``asyncthink``: sequential thinking.

    >>> detect("so <FORK-1>"), detect("<Goal>"), detect("<Outlines>"), detect("<Parallel><Path>"), detect("plain")
    ('asyncthink', 'multiverse', 'threadweaver', 'parallel_r1', 'asyncthink')
    """
    return next((form.name for form in FORMATS.values() if form.detect(text)), "asyncthink")


def parse(
    text: str,
    *,
    format: str | None = None,
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
        A key of `FORMATS`; by default found from the text.
    id : str
        The trace's name, where the text does not give one.
    count : callable
        Counts the tokens of a piece of text; `Trace.token_source` then names it.
    keep_text : bool
        Whether actions keep their text. Scoring does not need it.
    outcome : Outcome, optional
        How the answer was judged.

    Raises
    ------
    FormatError
        If no Trace can be built. Malformed thinking is no such case: see `Trace.faults`.
    ConfigError
        If there is no such format.

    >>> trace = parse("<Parallel><Path>odd</Path><Path>even</Path></Parallel> Final Answer: 9")
    >>> len(trace.threads), trace.token_source
    (3, 'characters')
    """
    form = lookup(detect(text) if format is None else format)
    return form.parse(text, id=id, count=count, keep_text=keep_text, outcome=outcome)


def render(trace: Trace, format: str) -> str:
    """Return `trace` as text of `format`.

    Raises
    ------
    FormatError
        If the format cannot say it.
    ConfigError
        If there is no such format.

    >>> text = "<Parallel><Path>odd</Path><Path>even</Path></Parallel>"
    >>> render(parse(text), "parallel_r1") == text
    True
    """
    return lookup(format).render(trace)
