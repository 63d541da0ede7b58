"""``forksim generate`` and ``forksim convert``: traces in, or out of nothing, and traces out."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Annotated, Any

import typer

from simulator.cli.common import Paths, To, complain, stdout, wrote
from simulator.cli.options import ReadOptions, grouped
from simulator.errors import ConfigError, FormatError
from simulator.formats.reading import dump, writer
from simulator.support.files import atomic
from simulator.trace import Trace
from simulator.workload import FAMILIES, PRESETS
from simulator.workload import generate as synthetic

ToBlockSize = Annotated[
    int | None, typer.Option(help="Tokens in a block of the hash_ids that are written.", show_default="64")
]

Output = Annotated[
    str | None, typer.Option("--out", "-o", metavar="FILE", help="Where to write; standard output if not given.")
]


def generate(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help=f"One of {', '.join([*FAMILIES, *PRESETS])}.")],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[OPTION=VALUE]...", help="Such as workers=4 work=lognormal:256:0.6.")
    ] = None,
    n: Annotated[int, typer.Option("-n", min=0, help="How many traces.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the series.")] = 0,
    start: Annotated[int, typer.Option(min=0, help="Number of the first trace.")] = 0,
    to: To = "native",
    out: Output = None,
    to_block_size: ToBlockSize = None,
) -> int:
    """Generate synthetic traces from a seed. Trace i depends on the seed and i alone."""
    chosen: dict[str, Any] = {}
    for option in options or ():
        name, equals, value = option.partition("=")
        if not equals:
            raise ConfigError(f"{option!r} is no OPTION=VALUE, such as workers=4")
        if name in ("family", "n", "seed", "start"):
            raise ConfigError(f"{name} is no option of a family: see forksim generate --help; got {option!r}")
        chosen[name.replace("-", "_")] = value
    return _write(synthetic(family, n, seed=seed, start=start, **chosen), out, to, to_block_size)


@grouped
def convert(
    traces: Paths,
    to: To = "native",
    out: Output = None,
    to_block_size: ToBlockSize = None,
    *,
    reading: ReadOptions,
) -> int:
    """Convert traces to another format, as JSON lines."""
    source = reading.input(traces, keep_text=True, streams=out in (None, "-"))
    return _write(source, out, to, to_block_size) or source.exit_code


def _write(traces: Iterable[Trace], out: str | None, to: str, block_size: int | None = None) -> int:
    """Write what can be said in the format `to`; return the exit code."""
    writer(to, block_size)  # wrong options are told before anything is read
    refused: list[FormatError] = []

    def refuse(error: FormatError) -> None:
        refused[:] = [error]
        complain(str(error))

    with nullcontext(stdout) if out is None or out == "-" else atomic(out) as file:
        dump(traces, file, to, block_size=block_size, refused=refuse)
    if out is not None and out != "-":
        wrote(out)
    return 2 if refused else 0
