"""``forksim whatif``: which worker would you speed up, by how much does the answer come earlier, and why not more."""

from __future__ import annotations

import math
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from simulator.cli.common import Json, Paths, print_json, say, show, table, tell, wrote
from simulator.cli.options import MachineOptions, PoolOptions, ReadOptions, grouped
from simulator.cli.report import count, number, printable
from simulator.engine.simulation import simulate
from simulator.errors import ConfigError, GraphError
from simulator.graph import ExecutionGraph
from simulator.graph.compiler import compile_trace
from simulator.sensitivity import Sensitivity, SpeedUp, sensitivity, what_if
from simulator.sensitivity.changes import check_scale
from simulator.trace import ORGANIZER

LEGEND = """\
Each thread in turn takes SCALE times as long, and the query is simulated again: "latency" is what comes of it,
"saved" how much earlier the answer comes, and "bound by" what most of that latency is spent on. "saved at 0" is
what would be saved if the thread took no time at all, and "instead" what the answer then waits for. "on path" is
the share of the latency that is spent on the thread. "slack" is how much longer the thread could take without
moving the answer if nothing ever queued."""
"""What the columns of the table mean."""

_WAITS = {"wait_batch": "batch", "wait_pool": "pool slot"}


@grouped
def whatif(
    traces: Paths,
    thread: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Threads to look at, such as 3 or 1.2.", show_default="all of them"),
    ] = None,
    scale: Annotated[float, typer.Option(help="Times as long: 0.5 is twice as fast, 2 half as fast.")] = 0.5,
    *,
    machine: MachineOptions,
    pool: PoolOptions,
    reading: ReadOptions,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="FILE", help="Draw the first trace, before and after: .png, .svg or .pdf."),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Threads of each table at most.")] = 10,
    most: Annotated[
        int, typer.Option(min=1, help="Threads of each trace to simulate at most: those on the critical path first.")
    ] = 100,
    json: Json = False,
) -> int:
    """Rank the threads of each trace by what their speed-up saves, or their slowdown costs."""
    check_scale(scale)
    run, rules, source = machine.run(), pool.protocol(), reading.input(traces, streams=True)
    first: tuple[ExecutionGraph, Sensitivity] | None = None
    for trace in source:
        try:
            graph = compile_trace(trace, rules)
            result = sensitivity(graph, threads=thread, scale=scale, most=most, **run)
        except (
            ConfigError,
            GraphError,
        ) as error:  # it has no such thread, is never answered, does not fit
            source.refuse(ConfigError(f"trace {trace.id!r}: {error}"))
            continue
        if json:
            columns = [each._asdict() for each in result.threads]
            facts = {"trace": result.name, "unit": result.unit, "scale": scale, "latency": result.latency}
            facts["left_out"] = result.left_out
            print_json({**facts, "bound": result.bound, "threads": columns})
        else:
            show(_table(result, rows))
            if len(result.threads) > rows:
                say(f"and {len(result.threads) - rows:,} more (--rows or --json show all)")
            if result.left_out:
                tell(f"{result.left_out:,} threads were not simulated (--most): the critical path spends less on them")
            tell(_sentence(result))
            say()
        first = first or (graph, result)
    if first is None:
        return source.exit_code
    if not json:
        tell(LEGEND)
    if out is not None:
        _draw(*first, out, run)
        wrote(out, json)
    return source.exit_code


def _table(result: Sensitivity, rows: int) -> Table:
    whole = count if result.unit == "steps" else number
    title = f"{printable(result.name)}: answered after {whole(result.latency)} {result.unit}"
    if result.bound:
        title += f", most of it {_named(result.bound)}"
    numbers = ("tokens", "slack", "on path", "latency", "saved", "saved at 0")
    lines = table("thread", *numbers, title=Text(title), title_justify="left", padding=(0, 1, 0, 1))
    lines.columns[0].no_wrap = True
    for name in ("bound by", "instead"):
        lines.add_column(name, no_wrap=True)
    for row in result.threads[:rows]:
        lines.add_row(
            Text(printable(row.thread)),
            count(row.tokens),
            "any" if math.isinf(row.slack) else whole(row.slack),
            f"{row.share:.0%}",
            "deadlock" if math.isnan(row.latency) else whole(row.latency),
            whole(row.saved) + _percent(row.saved, result.latency),
            whole(row.saved_at_zero),
            _named(row.bound),
            _named(row.instead),
        )
    return lines


def _named(bound: str | None) -> Text:
    if bound is None:
        return Text("-")
    return Text(_WAITS.get(bound, bound if bound == ORGANIZER else f"worker {printable(bound)}"))


def _percent(time: float, latency: float) -> str:
    return "" if math.isnan(time) or not latency else f" ({time / latency:.0%})"


def _sentence(result: Sensitivity) -> str:
    """Answer the question in words: of the thread on top of the table, and if that is the organizer, of a worker."""
    text = _told(result, result.threads[0])
    worker = result.worst if result.scale > 1 else result.best
    if worker is not None and result.threads[0].thread == ORGANIZER:
        more = _told(result, worker)
        text += f" Of the workers, {more[0].lower()}{more[1:]}"
    return text


def _told(result: Sensitivity, row: SpeedUp) -> str:
    """Say what becomes of the answer if one thread is scaled."""
    whole = count if result.unit == "steps" else number
    who = f"{_spoken(row.thread)} at {result.scale:g} times its length"
    who = who[0].upper() + who[1:]
    if math.isnan(row.saved):
        return f"{who}: the query runs into a deadlock."
    if row.saved == 0:
        return f"{who}: the answer comes when it came."
    when = "earlier" if row.saved > 0 else "later"
    text = f"{who}: the answer comes {whole(abs(row.saved))} {result.unit}"
    text += f"{_percent(abs(row.saved), result.latency)} {when}"
    if row.saved > 0 and row.saved_at_zero >= row.saved:
        text += f"; if it took no time, {whole(row.saved_at_zero)}"
        text += f", as the answer then waits for {_spoken(row.instead)}" if row.instead else ""
    return text + "."


def _spoken(bound: str) -> str:
    waits = {"wait_batch": "a place in the batch", "wait_pool": "a pool slot", ORGANIZER: "the organizer"}
    return waits.get(bound, f"worker {printable(bound)}")


def _draw(graph: ExecutionGraph, result: Sensitivity, out: str, run: dict[str, Any]) -> None:
    """Draw the query before and after, beside each other."""
    from simulator import plots  # matplotlib takes a second to load

    row = result.threads[0]
    if math.isnan(row.latency):
        raise ConfigError(f"{result.name}: with {row.thread} scaled there is a deadlock: nothing to draw")
    after = what_if(graph, thread=row.thread, scale=result.scale)
    timelines = [simulate(each, **run) for each in (graph, after)]
    notes = ("as it is", f"{_spoken(row.thread)} at {result.scale:g} times its length")
    plots.save(plots.side_by_side(timelines, notes=notes, caption=_told(result, row)), out)
