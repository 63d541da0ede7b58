"""What the commands share: options, input, and how things are printed."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Annotated, Any

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, TimeElapsedColumn
from rich.table import Table

from simulator.cli.layout import fitted, prose
from simulator.cli.report import printable
from simulator.errors import ConfigError, FormatError, SimulatorError
from simulator.formats import writable
from simulator.formats.reading import read
from simulator.support.files import stem
from simulator.trace import Think, Trace
from simulator.trace.tokens import COUNTERS, TokenCounter, load_tokenizer

Paths = Annotated[list[str], typer.Argument(metavar="TRACE...", help="Files of traces, or - for standard input.")]
To = Annotated[str, typer.Option("--to", metavar="FORMAT", help=f"Format to write: {', '.join(writable())}.")]

Json = Annotated[bool, typer.Option("--json", help="Print JSON lines, for machines.")]
Formulas = Annotated[
    bool, typer.Option("--formulas", help="Leave texts in CSV files that a spreadsheet takes for formulas.")
]
Picture = Annotated[str, typer.Option("--out", "-o", metavar="FILE", help="Picture to write: .png, .svg or .pdf.")]


class _Stdout:
    """The stdout of the moment. That it cannot be written is an error of ours, not of whatever file is open besides."""

    def write(self, text: str) -> int:
        """Write `text`."""
        with _told():
            return sys.stdout.write(text)

    def flush(self) -> None:
        """Write what has been held back."""
        with _told():
            sys.stdout.flush()

    def isatty(self) -> bool:
        """Whether a terminal shows it."""
        return sys.stdout.isatty()

    @property
    def encoding(self) -> str:
        """What it can say."""
        return sys.stdout.encoding


stdout: Any = _Stdout()

MIN_WIDTH = 40
"""Tables are no narrower, whatever the terminal says of itself."""


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ConfigError(f"standard output: cannot be written ({error.strerror or error})") from None


def screen_width() -> int:
    """Return the columns of the terminal, or enough for every table where there is none."""
    return max(shutil.get_terminal_size((140, 24)).columns, MIN_WIDTH) if stdout.isatty() else 140


def table(*titles: str, **style: Any) -> Table:
    """Return an empty table: what a line is about, and columns of numbers."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, **style)
    for place, title in enumerate(titles):
        made.add_column(title, justify="right" if place else "left", no_wrap=bool(place))
    return made


def show(table: Table) -> None:
    """Print a table, in parts below each other where the screen has no room for it."""
    width = screen_width()
    console = Console(file=stdout, width=width, highlight=False)
    with console.capture() as captured:  # rich would end the process where its output is not wanted
        for part in fitted(table, width):
            console.print(part)
    stdout.write(captured.get())


def say(line: str = "") -> None:
    """Print a line."""
    stdout.write(line + "\n")


def tell(text: str) -> None:
    """Print a paragraph in lines that the screen has room for."""
    stdout.write(prose(text, screen_width()) + "\n")


def wrote(path: str, json: bool = False) -> None:
    """Say that a file or folder has been written, where people read."""
    if not json:
        say(f"wrote {path}")


def complain(message: str) -> None:
    """Say on stderr what was wrong, in one line."""
    with suppress(OSError):
        print(f"forksim: {printable(' '.join(message.split()), 1000)}", file=sys.stderr)


def counter(text: str) -> TokenCounter:
    """Return the token counter that an option names."""
    if text in COUNTERS:
        return COUNTERS[text]
    try:
        return load_tokenizer(text)
    except ConfigError as error:
        raise ConfigError(f"--tokens takes {', '.join(COUNTERS)} or a tokenizer.json; {error}") from None


class Input:
    """The traces of some files, one at a time. What cannot be read is reported on stderr, and remembered.

    `streams`: the caller prints as it goes. On a terminal that is progress enough.
    """

    def __init__(
        self,
        paths: Sequence[str],
        format: str | None,
        tokens: str,
        *,
        keep_text: bool = False,
        streams: bool = False,
        block_size: int | None = None,
    ) -> None:
        self.paths = paths
        self.format = format
        self.block_size = block_size
        self.count = counter(tokens)
        self.keep_text = keep_text
        self.streams = streams
        self.unreadable = 0

    def __iter__(self) -> Iterator[Trace]:
        return (item for item in self.all() if not isinstance(item, FormatError))

    def all(self) -> Iterator[Trace | FormatError]:
        """Yield what cannot be read as well, once it has been reported."""
        columns = (SpinnerColumn(), "{task.completed} {task.description}", TimeElapsedColumn())
        with on_stderr(*columns, quiet=self.streams and stdout.isatty()) as progress:
            task = progress.add_task("traces", total=None)
            for path in self.paths:
                for item in self._read(path):
                    if isinstance(item, FormatError):
                        self.unreadable += 1
                        complain(str(item))
                    yield item
                    progress.advance(task)

    def _read(self, path: str) -> Iterator[Trace | FormatError]:
        how: dict[str, Any] = {"count": self.count, "keep_text": self.keep_text, "block_size": self.block_size}
        for item in read(path, format=self.format, **how):
            if self.format is None and isinstance(item, Trace) and _is_prose(item, path):
                complain(f"{path}: holds no tag of any format, so it is one thought, without Forks or an answer")
            yield item

    def refuse(self, error: SimulatorError) -> None:
        """Report a trace that was read but cannot be used."""
        self.unreadable += 1
        complain(str(error))

    @property
    def exit_code(self) -> int:
        """2 if something could not be read."""
        return 2 if self.unreadable else 0


def _is_prose(trace: Trace, path: str) -> bool:
    """Return whether a trace is a whole file of plain text: such a one is called like the file."""
    name = stem(path)
    if trace.id != name or trace.faults or len(trace.threads) > 1:
        return False
    return [*map(type, trace.organizer.actions)] == [Think]


@contextmanager
def on_stderr(*columns: ProgressColumn | str, quiet: bool = False) -> Iterator[Progress]:
    """Show progress on stderr, where that is a terminal. It never stands in for stdout."""
    hidden = quiet or not sys.stderr.isatty()
    console = Console(stderr=True)
    progress = Progress(*columns, console=console, transient=True, redirect_stdout=False, disable=hidden)
    # One that is disabled is not entered: older versions of rich end it with an empty line.
    with nullcontext() if hidden else progress:
        yield progress


def picked(record: Any, *names: str) -> dict[str, Any]:
    """Return some attributes of a record by their names, for `print_json`."""
    return {name: getattr(record, name) for name in names}


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON line; what does not exist (NaN) is null, and what UTF-8 cannot say is escaped."""
    try:
        line = msgspec.json.encode(value)
    except UnicodeEncodeError:
        line = msgspec.json.encode(_sayable(value))
    text = line.decode()
    say(text if text.isprintable() else "".join(map(_escaped, text)))


def _escaped(letter: str) -> str:
    """Return a letter of JSON as ASCII, if it is one that acts on a terminal, such as those that turn text around."""
    return letter if letter.isprintable() else json.dumps(letter)[1:-1]


def _sayable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sayable(item) for key, item in value.items()}
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
