"""``forksim check``: what is wrong with each trace, and where."""

from __future__ import annotations

from typing import Annotated

import typer

from simulator.cli.common import Json, Paths, picked, print_json, say
from simulator.cli.options import Capacity, ReadOptions, grouped
from simulator.cli.report import Tally, printable
from simulator.graph.clock import check as violations_of
from simulator.trace.protocol import Protocol


@grouped
def check(
    traces: Paths,
    capacity: Capacity = None,
    nested_forks: Annotated[bool, typer.Option(help="May a worker Fork?")] = True,
    *,
    reading: ReadOptions,
    json: Json = False,
) -> int:
    """List the violations of each trace with their positions. Exit code 1 if there are any."""
    rules = Protocol(capacity=capacity, nested_forks=nested_forks)
    source = reading.input(traces, streams=True)
    tally = Tally(())
    for trace in source:
        found = violations_of(trace, rules)
        tally.add(lambda _: 0.0, (violation.kind.value for violation in found))
        for violation in found:
            if json:
                print_json({"trace": trace.id, **picked(violation, "kind", "thread", "action", "offset", "message")})
            else:
                kind, _, what = str(violation).partition(": ")
                say(printable(f"{trace.id}: {what} [{kind}]", 1000))
    tally.unreadable = source.unreadable
    if json:
        print_json({"summary": tally.summary()})
    else:
        say(tally.sentence())
    return source.exit_code or int(tally.with_violations > 0)
