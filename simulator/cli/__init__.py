"""The ``forksim`` command: the same nouns as the API.

Results go to stdout, everything else to stderr. Exit codes: 0 all is well; 1 (``check`` only) a trace violates the
protocol; 2 something could not be read, was asked for wrongly, or (``run`` only) ends in a deadlock, in one line each,
while the good records were still processed; 130 interrupted; 143 terminated.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated, Any

import typer

from simulator.support.interrupts import INTERRUPTED, TERMINATED, Terminated, raised
from simulator.cli import (
    auditing,
    charts,
    checking,
    fidelity,
    gpus,
    planning,
    recording,
    running,
    scoring,
    studying,
    traces,
    whatif,
)
from simulator.cli.common import complain, say, stdout
from simulator.cli.pieces import with_imports
from simulator.errors import FreePromptWarning, SimulatorError
from simulator.support.own import load_installed
from simulator.support.version import VERSION

__all__ = ["app", "main"]


def _tell_version(asked: bool) -> None:
    if asked:
        say(f"forksim {VERSION}")
        raise typer.Exit


app = typer.Typer(
    name="forksim",
    help="Simulate, measure, reward and draw organizer-worker thinking.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_tell_version, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


_COMMANDS = (
    ("run", running.run, "Simulate traces and measure them."),
    ("score", scoring.score, "Score traces with a reward."),
    ("audit", auditing.audit, "Find out what a reward follows, and how it can be gamed."),
    ("check", checking.check, "List the violations of each trace."),
    ("gantt", charts.gantt, "Draw the Gantt chart of one trace."),
    ("whatif", whatif.whatif, "Rank threads by what their speed-up would save."),
    ("gpus", gpus.gpus, "List the GPU profiles."),
    ("plan", planning.plan, "Plan capacity for objectives, a load or a rollout step."),
    ("calibrate", fidelity.calibrate, "Fit a GPU profile to timed steps or recorded traces."),
    ("validate", fidelity.validate, "Compare simulated with recorded times."),
    ("generate", traces.generate, "Generate synthetic traces from a seed."),
    ("convert", traces.convert, "Convert traces to another format."),
)
for _name, _function, _help in _COMMANDS:
    app.command(_name, short_help=_help)(with_imports(_function))
app.add_typer(recording.app, name="record", short_help="Record traces on a real engine.")
app.add_typer(studying.app, name="study", short_help="Run what-if studies, and show and draw their results.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    _open_streams()
    with raised():
        code = _run(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.stdout.flush()
    except OSError:  # already told, or the reader of our output has gone: nothing is left to say, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _open_streams() -> None:
    """See to it that there is a stdin, stdout and stderr, and that the last two can say whatever a trace is called."""
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115  # open to the end
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")


@cache
def _command() -> Any:
    return typer.main.get_command(app)


def _with_address(arguments: Sequence[str]) -> list[str]:
    """Return arguments in which every ``--ray`` has its address, which may be left out."""
    given: list[str] = []
    for place, argument in enumerate(arguments):
        given.append(argument)
        following = arguments[place + 1] if place + 1 < len(arguments) else ""
        if argument == "--ray" and not (following in ("local", "auto") or ":" in following):
            given.append("local")
    return given


def _run(arguments: Sequence[str]) -> int:
    with warnings.catch_warnings():
        warnings.showwarning = _warned(warnings.showwarning)
        return _invoke(arguments)


def _warned(otherwise: Callable[..., None]) -> Callable[..., None]:
    """Return what prints a warning: ours as a line like all others."""

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, FreePromptWarning):
            complain(f"note: {message}")
        else:
            otherwise(message, category, *where, **more)

    return show


def _invoke(arguments: Sequence[str]) -> int:
    # Not `app()`: typer and click would have their own way with interrupts and broken pipes.
    try:
        for fault in load_installed():
            complain(fault)
        command = _command()
        given = _with_address(arguments)
        if len(given) < 2 and all(hasattr(command.commands.get(name), "commands") for name in given):
            given.append("--help")  # nothing, or a group of commands alone
        with command.make_context("forksim", given) as context:
            code = command.invoke(context)
        stdout.flush()
        return code if isinstance(code, int) else 0
    except typer.Exit as end:
        return end.exit_code
    except SimulatorError as error:
        complain(str(error))
    except (KeyboardInterrupt, typer.Abort) as end:
        terminated = isinstance(end, Terminated)
        complain("; ".join(("terminated" if terminated else "interrupted", *map(str, end.args))))
        return TERMINATED if terminated else INTERRUPTED
    except BrokenPipeError:
        return 0
    except Exception as error:
        # What typer raises for a wrong option changed its base class between releases, but not this method.
        describe = getattr(error, "format_message", None)
        if describe is None:
            raise
        where = getattr(getattr(error, "ctx", None), "command_path", "forksim")
        complain(f"{describe().rstrip('.')}; see {where} --help")
    return 2
