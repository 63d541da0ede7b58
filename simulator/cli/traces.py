"""``forksim generate`` and ``forksim convert``: traces in, or out of nothing, and traces out."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from simulator.cli.common import Format, Input, Paths, To, TokenCount
from simulator.errors import ConfigError
from simulator.files import atomic
from simulator.formats import lookup
from simulator.formats.reading import dump
from simulator.trace import Trace
from simulator.workload import FAMILIES, PRESETS
from simulator.workload import generate as synthetic

__all__ = ["convert", "generate"]

Output = Annotated[
    str | None, typer.Option("--out", "-o", metavar="FILE", help="Where to write; standard output if not given.")
]


def generate(
    family: Annotated[str, typer.Argument(help=f"One of {', '.join([*FAMILIES, *PRESETS])}.")],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[OPTION=VALUE]...", help="Such as workers=4 work=lognormal:256:0.6.")
    ] = None,
    n: Annotated[int, typer.Option("-n", min=0, help="How many traces.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the series.")] = 0,
    start: Annotated[int, typer.Option(min=0, help="Number of the first trace.")] = 0,
    to: To = "native",
    out: Output = None,
) -> None:
    """Generate synthetic traces from a seed. Trace i depends on the seed and i alone."""
    chosen: dict[str, Any] = {}
    for option in options or ():
        name, equals, value = option.partition("=")
        if not equals:
            raise ConfigError(f"{option!r} is no OPTION=VALUE, such as workers=4")
        chosen[name.replace("-", "_")] = value
    _write(synthetic(family, n, seed=seed, start=start, **chosen), out, to)


def convert(
    traces: Paths,
    to: To = "native",
    out: Output = None,
    format: Format = None,
    tokens: TokenCount = "characters",
) -> int:
    """Convert traces to another format, as JSON lines."""
    source = Input(traces, format, tokens, keep_text=True)
    _write(source, out, to)
    return source.exit_code


def _write(traces: Iterable[Trace], out: str | None, to: str) -> None:
    lookup(to)  # before anything is read
    if out is None or out == "-":
        dump(traces, sys.stdout, to)
    else:
        with atomic(out) as file:
            dump(traces, file, to)
