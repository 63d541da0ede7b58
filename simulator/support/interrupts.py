"""Ctrl-C and SIGTERM, as the command answers them: in one line, with nothing left half done.

Imported before all else (see `simulator/__init__.py`): until `simulator.cli.main` runs, Python would answer Ctrl-C with
a traceback through whatever is being loaded.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of the signal, as shells have it."""
TERMINATED = 143


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends what is under way as Ctrl-C does."""


def _is_command() -> bool:
    """Whether this process is the command, and not somebody's program that imports the package."""
    name = os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else ""
    return name.removesuffix(".exe") == "forksim" or sys.orig_argv[1:3] == ["-m", "simulator"]


def _leave(*_: object) -> NoReturn:
    os.write(2, b"forksim: interrupted\n")
    os._exit(INTERRUPTED)  # nothing has begun, or all is done


def _terminate(*_: object) -> NoReturn:
    raise Terminated


if _is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    with suppress(ValueError):  # in a thread no signal arrives
        signal.signal(signal.SIGINT, _leave)


@contextmanager
def raised() -> Iterator[None]:
    """Raise KeyboardInterrupt at Ctrl-C, and `Terminated` at SIGTERM, while the block lasts."""
    try:
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        if before[0] is _leave:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if before[1] is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _terminate)
    except ValueError:  # in a thread no signal arrives
        yield
        return
    try:
        yield
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)
