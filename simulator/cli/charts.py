"""``forksim gantt``: one trace as a picture."""

from __future__ import annotations

from typing import Annotated

import typer

from simulator.cli.common import Picture, wrote
from simulator.cli.options import MachineOptions, PoolOptions, ReadOptions, grouped
from simulator.engine.simulation import simulate
from simulator.errors import ConfigError
from simulator.graph.compiler import compile_trace


@grouped
def gantt(
    trace: Annotated[str, typer.Argument(metavar="TRACE", help="A file of traces, or - for standard input.")],
    out: Picture,
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="Which trace of the file, from 1.")] = 1,
    *,
    machine: MachineOptions,
    pool: PoolOptions,
    reading: ReadOptions,
) -> int:
    """Draw the Gantt chart of one trace, with its critical path."""
    from simulator import plots

    run, rules, source = machine.run(), pool.protocol(), reading.input([trace])
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
    timeline = simulate(compile_trace(chosen, rules), **run)
    plots.save(plots.gantt(timeline), out)
    wrote(out)
    return source.exit_code
