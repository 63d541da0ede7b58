"""What the commands share: options, input, and how things are printed."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from simulator.errors import FormatError
from simulator.formats import FORMATS, lookup
from simulator.formats.reading import read
from simulator.protocol import WHEN_FULL
from simulator.tokens import COUNTERS, TokenCounter, load_tokenizer
from simulator.trace import Trace

__all__ = ["Capacity", "Format", "FullPool", "Input", "Json", "Paths", "To", "TokenCount", "console", "print_json"]

Paths = Annotated[list[str], typer.Argument(metavar="TRACE...", help="Files of traces, or - for standard input.")]
Format = Annotated[
    str | None,
    typer.Option(metavar="FORMAT", help=f"Format of all traces: {', '.join(FORMATS)}; by default found from each."),
]
To = Annotated[str, typer.Option("--to", metavar="FORMAT", help=f"Format to write: {', '.join(FORMATS)}.")]
FullPool = Annotated[
    str, typer.Option("--full-pool", metavar="MODE", help=f"What a Fork on a full pool does: {', '.join(WHEN_FULL)}.")
]
TokenCount = Annotated[
    str,
    typer.Option(
        "--tokens",
        help="How to count tokens where no count is recorded: characters, words, or a path to a tokenizer.json.",
    ),
]
Capacity = Annotated[
    int | None,
    typer.Option("--capacity", "-c", help="Pool capacity c: the organizer and c - 1 workers.", show_default="no limit"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON lines, for machines.")]


def console() -> Console:
    """Return a console on stdout, as wide as the terminal, and wide enough for the tables where there is none."""
    width = None if sys.stdout.isatty() else max(shutil.get_terminal_size((140, 24)).columns, 140)
    return Console(file=sys.stdout, width=width, highlight=False, soft_wrap=False)


def counter(text: str) -> TokenCounter:
    """Return the token counter that an option names."""
    return COUNTERS[text] if text in COUNTERS else load_tokenizer(text)


class Input:
    """The traces of some files, one at a time. What cannot be read is reported on stderr, and remembered."""

    def __init__(self, paths: Sequence[str], format: str | None, tokens: str, *, keep_text: bool = False) -> None:
        self.paths = paths
        self.format = None if format is None else lookup(format).name
        self.count = counter(tokens)
        self.keep_text = keep_text
        self.unreadable = 0

    def __iter__(self) -> Iterator[Trace]:
        with _progress() as progress:
            task = progress.add_task("traces", total=None)
            for path in self.paths:
                for item in read(path, format=self.format, count=self.count, keep_text=self.keep_text):
                    if isinstance(item, FormatError):
                        self.unreadable += 1
                        self.complain(str(item))
                    else:
                        yield item
                    progress.advance(task)

    def complain(self, message: str) -> None:
        """Say what was wrong, in one line."""
        print(f"forksim: {' '.join(message.split())}", file=sys.stderr)

    @property
    def exit_code(self) -> int:
        """2 if something could not be read."""
        return 2 if self.unreadable else 0


def _progress() -> Progress:
    """Return a progress display on stderr that shows only on a terminal."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.completed} {task.description}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON line; what does not exist (NaN) is null."""
    sys.stdout.write(msgspec.json.encode(_plain(value)).decode() + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
