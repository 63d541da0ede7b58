"""``forksim gantt``: one trace as a picture."""

from __future__ import annotations

from typing import Annotated

import typer

from simulator.cli.common import Capacity, Format, FullPool, Input, TokenCount, say
from simulator.engine.simulation import simulate
from simulator.errors import ConfigError
from simulator.graph.compiler import compile_trace
from simulator.machine.profiles import gpu_from_text
from simulator.trace.protocol import Protocol

__all__ = ["gantt"]


def gantt(
    trace: Annotated[str, typer.Argument(metavar="TRACE", help="A file of traces, or - for standard input.")],
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE", help="Picture to write: .png, .svg or .pdf.")],
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="Which trace of the file, from 1.")] = 1,
    gpu: Annotated[str, typer.Option(help="As for forksim run.")] = "steps",
    capacity: Capacity = None,
    full_pool: FullPool = "queue",
    format: Format = None,
    tokens: TokenCount = "characters",
) -> int:
    """Draw the Gantt chart of one trace, with its critical path."""
    from simulator import plots

    machine = gpu_from_text(gpu)
    rules = Protocol(capacity=capacity, when_full=full_pool)
    source = Input([trace], format, tokens)
    chosen = None
    last = 0
    for last, found in enumerate(source, 1):
        if last == number:
            chosen = found
            break
    if chosen is None:
        if not last and source.unreadable:  # which has been told
            return source.exit_code
        raise ConfigError(f"{trace}: there is no trace {number}; --number is from 1 to {last} here")
    timeline = simulate(compile_trace(chosen, rules), gpu=machine)
    plots.save(plots.gantt(timeline), out)
    say(f"wrote {out}")
    return source.exit_code
