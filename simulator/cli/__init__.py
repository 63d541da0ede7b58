"""The ``forksim`` command: the same nouns as the API.

Results go to stdout, everything else to stderr. Exit codes: 0 all is well; 1 (``check`` only) a trace violates the
protocol; 2 something could not be read or was asked for wrongly, in one line each, while the good records were still
processed; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from simulator.cli import charts, checking, running, scoring, traces
from simulator.errors import SimulatorError

__all__ = ["app", "main"]

app = typer.Typer(
    name="forksim",
    help="Simulate, measure, reward and draw organizer-worker thinking.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command("run")(running.run)
app.command("score")(scoring.score)
app.command("check")(checking.check)
app.command("gantt")(charts.gantt)
app.command("generate")(traces.generate)
app.command("convert")(traces.convert)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="forksim", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except SimulatorError as error:
        return _complain(str(error))
    except (KeyboardInterrupt, typer.Abort):
        print("forksim: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone: nothing is left to say, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        # What typer raises for a wrong option changed its base class between releases, but not this method.
        describe = getattr(error, "format_message", None)
        if describe is None:
            raise
        message = describe()
        return _complain(message) if message else 2


def _complain(message: str) -> int:
    print(f"forksim: {' '.join(message.split())}", file=sys.stderr)
    return 2
