"""``forksim run``: parse, compile, simulate, measure; a table, and files if asked."""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import IO, Annotated, Any

import typer

from simulator.cli.common import (
    Formulas,
    Input,
    Json,
    Paths,
    complain,
    print_json,
    say,
    screen_width,
    show,
    tell,
    wrote,
)
from simulator.cli.layout import NARROW
from simulator.cli.load import ARRIVALS, Load
from simulator.cli.options import MachineOptions, PoolOptions, ReadOptions, grouped
from simulator.cli.report import Tally, metrics_legend, metrics_table, run_table, summary_table
from simulator.engine.simulation import simulate
from simulator.errors import ConfigError, GraphError
from simulator.graph import ExecutionGraph
from simulator.graph.compiler import compile_trace
from simulator.machine.cost import unit_of
from simulator.metrics import METRICS, Metrics, measure, summarize
from simulator.metrics.slo import meets, parse_targets
from simulator.support.files import atomic
from simulator.support.tables import inert
from simulator.timeline import Timeline
from simulator.timeline.export import SPAN_FIELDS, span_rows
from simulator.trace.protocol import Protocol

_STEPS = ("critical_path_steps", "latency", "work", "saved", "speedup", "eta", "eta_over_c", "peak_concurrency")
_SECONDS = (*_STEPS[:2], "ttft", "tpot", "itl", "queue_time", *_STEPS[2:])
"""What is summed up over all traces, on each clock."""


@dataclass(frozen=True)
class Queries:
    """When the queries arrive, and what each must keep to."""

    arrivals: Annotated[str, typer.Option(help=ARRIVALS)] = "alone"
    seed: Annotated[int, typer.Option(min=0, help="Seed of the Poisson arrivals.")] = 0
    slo: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OBJECTIVE",
            help="What each query must keep to, such as 'ttft < 1 s' or 'tpot < 50 ms': goodput counts those that do;"
            " repeatable.",
        ),
    ] = None


@dataclass(frozen=True)
class Output:
    """What comes out."""

    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Write metrics.csv, spans.csv and Gantt charts into this folder.")
    ] = None
    plots: Annotated[int, typer.Option(min=0, help="Gantt charts to draw at most, with --out.")] = 8
    rows: Annotated[int, typer.Option(min=0, help="Lines of the table at most.")] = 40
    formulas: Formulas = False
    json: Json = False


@grouped
def run(
    traces: Paths,
    machine: MachineOptions,
    pool: PoolOptions,
    reading: ReadOptions,
    queries: Queries,
    output: Output,
) -> int:
    """Simulate traces and measure them: one line per trace, and a summary."""
    options, rules = machine.run(), pool.protocol()
    out, json = output.out, output.json
    if out == "":
        raise ConfigError("--out takes the name of a folder, got ''")
    machines = options["gpu"].replicas
    unit = unit_of(machines[0].cost)
    load = Load.of(queries.arrivals)
    load.check(unit)
    targets = parse_targets(queries.slo or (), unit)
    source = reading.input(traces, streams=json)
    runs = _timelines(source, rules, partial(simulate, on_deadlock="record", **options), load, queries.seed)
    tally = Tally(_SECONDS if unit == "seconds" else _STEPS)
    shown: list[Metrics] = []
    shared = None
    deadlocks = good = unknown = 0
    with ExitStack() as stack:
        files = _Files(stack, out, output, bool(targets)) if out else None
        for timeline, query in runs:
            metrics = measure(timeline, query)
            for deadlock in timeline.deadlocks:
                if deadlock.query == query:
                    deadlocks += 1
                    ways = "a larger --capacity, or --full-pool inline, avoids it"
                    complain(f"{metrics.name}: deadlock: {', '.join(deadlock.cycle)} ({ways})")
            kept = meets(targets, metrics.values) if targets else None
            good += bool(kept)
            unknown += any(math.isnan(metrics.values[target.metric]) for target in targets)
            tally.add(metrics.values.__getitem__, (violation.kind.value for violation in metrics.violations))
            if json:
                print_json(_record(metrics, unit, kept))
            elif len(shown) < output.rows:
                shown.append(metrics)
            if files:
                files.add(timeline, query, metrics, kept)
            shared = timeline if len(timeline) > 1 else None
    if files:
        files.tidy()
    if shared is not None and (lost := sum(math.isnan(arrival) for arrival in shared.arrivals.tolist())):
        complain(f"{lost:,} of {len(shared):,} queries never arrived: each user waits for an answer in a deadlock")
    tally.unreadable = source.unreadable
    summary: dict[str, Any] = dict(tally.summary())
    if shared is not None:
        summary["run"] = summarize(shared)
    if targets:
        summary["slo"] = {"objectives": [str(target) for target in targets], "met": good}
        if shared is not None:
            summary["run"]["goodput"] = good / shared.makespan if shared.makespan else 0.0
    if json:
        print_json({"summary": summary})
    elif tally.traces:
        _print(shown, tally, unit)
        if shared is not None:
            show(run_table(summary["run"], unit, len(machines)))
        if targets:
            limits = " and ".join(target.said_on(unit) for target in targets)
            missing = f"; {unknown:,} have no such value, and keep to nothing" if unknown else ""
            tell(f"{good:,} of {tally.traces:,} queries keep to {limits}{missing}.")
        tell(tally.sentence())
        if shown:
            tell(metrics_legend(unit, narrow=screen_width() < NARROW, summed=tally.traces > 1))
        if out:
            wrote(out)
    return source.exit_code or (2 if deadlocks else 0)


def _timelines(
    source: Input, rules: Protocol, run: Callable[..., Timeline], load: Load, seed: int
) -> Iterator[tuple[Timeline, int]]:
    """Yield each query with the timeline it is in."""
    if load.kind == "alone":
        for trace in source:
            try:
                timeline = run(compile_trace(trace, rules))
            except (ConfigError, GraphError) as error:  # it does not fit into the GPU's memory; others may
                source.refuse(error)
                continue
            yield timeline, 0
        return
    graphs: list[ExecutionGraph] = []
    times: list[float] = []
    for trace in source:
        try:
            graphs.append(compile_trace(trace, rules))
        except GraphError as error:
            source.refuse(error)
            continue
        times.append(load.time(trace))
    if not graphs:
        return
    timeline = run(graphs, arrivals=load.arrivals(times, seed))
    for query in range(len(graphs)):
        yield timeline, query


def _record(metrics: Metrics, unit: str, kept: bool | None) -> dict[str, Any]:
    return {
        "trace": metrics.name,
        "unit": unit,
        **metrics.values,
        **({} if kept is None else {"meets_slo": kept}),
        "kinds": sorted({violation.kind.value for violation in metrics.violations}),
    }


class _Files:
    """The files of ``--out``: rows are written as they come, and the files appear when all went well."""

    def __init__(self, stack: ExitStack, folder: str, output: Output, judged: bool) -> None:
        self.folder = folder
        self.plots, self.formulas = output.plots, output.formulas
        header = ("trace", *METRICS, *(("meets_slo",) if judged else ()), "kinds")
        self.metrics = self._open(stack, "metrics.csv", header)
        self.spans = self._open(stack, "spans.csv", SPAN_FIELDS)
        self.drawn: list[str] = []

    def _open(self, stack: ExitStack, name: str, header: tuple[str, ...]) -> Any:
        file: IO[str] = stack.enter_context(atomic(os.path.join(self.folder, name)))
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        return writer

    def add(self, timeline: Timeline, query: int, metrics: Metrics, kept: bool | None) -> None:
        """Write one query's rows, and its chart while there are charts left."""
        kinds = sorted({violation.kind.value for violation in metrics.violations})
        name = metrics.name if self.formulas else inert(metrics.name)
        judged = () if kept is None else (int(kept),)
        self.metrics.writerow((name, *metrics.values.values(), *judged, " ".join(kinds)))
        self.spans.writerows(span_rows(timeline, query, formulas=self.formulas))
        if len(self.drawn) < self.plots:
            from simulator import plots  # matplotlib takes a second to load: only where a chart is drawn

            safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in metrics.name)[:80]
            axes = plots.gantt(timeline, query=query)
            self.drawn.append(f"gantt-{len(self.drawn):03d}-{safe}.png")
            plots.save(axes, os.path.join(self.folder, self.drawn[-1]))

    def tidy(self) -> None:
        """Remove the charts that an earlier run has left in the folder: they do not go with the new tables."""
        for name in os.listdir(self.folder):
            if re.fullmatch(r"gantt-\d{3,}-.*\.png", name) and name not in self.drawn:
                os.unlink(os.path.join(self.folder, name))


def _print(shown: list[Metrics], tally: Tally, unit: str) -> None:
    if shown:
        show(metrics_table(shown, unit, narrow=screen_width() < NARROW))
    if tally.traces > len(shown):
        say(f"and {tally.traces - len(shown):,} more (--rows, --json or --out show all)\n")
    if tally.traces > 1:
        show(summary_table(tally, unit))
