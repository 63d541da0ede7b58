"""``forksim run``: parse, compile, simulate, measure; a table, and files if asked."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import IO, Annotated, Any

import typer

from simulator.cli.common import (
    BlockSize,
    Capacity,
    Format,
    FullPool,
    Input,
    Json,
    Paths,
    TokenCount,
    complain,
    print_json,
    say,
    screen_width,
    show,
)
from simulator.cli.load import ARRIVALS, Load
from simulator.cli.report import LEGEND, Tally, count, metrics_table, summary_table
from simulator.engine.simulation import simulate
from simulator.errors import ConfigError
from simulator.graph import ExecutionGraph
from simulator.graph.compiler import compile_trace
from simulator.machine.gpu import STEP_CLOCK, Cluster
from simulator.machine.policy import POLICIES
from simulator.machine.profiles import gpu_from_text
from simulator.machine.routing import ROUTINGS
from simulator.metrics import METRICS, SUMMARIES, Metrics, measure, summarize
from simulator.support.files import atomic
from simulator.timeline import Timeline
from simulator.timeline.export import SPAN_FIELDS, span_rows
from simulator.trace.protocol import Protocol

__all__ = ["run"]

SUMMARIZED = ("critical_path_steps", "latency", "work", "saved", "speedup", "eta", "eta_over_c", "peak_concurrency")


def run(
    traces: Paths,
    gpu: Annotated[
        list[str],
        typer.Option(
            help="steps (the decode-step clock), a profile (see forksim gpus) or its .toml file,"
            " rate:TOKENS_PER_SECOND, linear:A,B,C,P,Q or aiconfigurator:MODEL,SYSTEM[,BACKEND[,GPUS]]."
            " Several make a cluster."
        ),
    ] = ["steps"],  # noqa: B006  # typer copies it
    replicas: Annotated[int, typer.Option(min=1, max=10_000, help="How many of each --gpu.")] = 1,
    routing: Annotated[str, typer.Option(help=f"In a cluster, by request: {', '.join(ROUTINGS)}.")] = "least-loaded",
    capacity: Capacity = None,
    full_pool: FullPool = "queue",
    max_num_seqs: Annotated[int | None, typer.Option(help="Most sequences in a batch.")] = None,
    max_num_batched_tokens: Annotated[int | None, typer.Option(help="Most tokens in an engine step.")] = None,
    max_prefill_tokens: Annotated[int | None, typer.Option(help="Most prompt tokens in an engine step.")] = None,
    num_kv_blocks: Annotated[int | None, typer.Option(help="Blocks of KV memory, of 16 tokens each.")] = None,
    arrivals: Annotated[
        str,
        typer.Option(help=ARRIVALS),
    ] = "alone",
    max_workers: Annotated[int | None, typer.Option(min=1, help="Most workers of all queries at once.")] = None,
    policy: Annotated[str, typer.Option(help=f"Admission to a full batch: {', '.join(POLICIES)}.")] = "fcfs",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the Poisson arrivals.")] = 0,
    format: Format = None,
    tokens: TokenCount = "characters",
    block_size: BlockSize = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Write metrics.csv, spans.csv and Gantt charts into this folder.")
    ] = None,
    plots: Annotated[int, typer.Option(min=0, help="Gantt charts to draw at most, with --out.")] = 8,
    rows: Annotated[int, typer.Option(min=0, help="Lines of the table at most.")] = 40,
    json: Json = False,
) -> int:
    """Simulate traces and measure them: one line a trace, and a summary."""
    limits: dict[str, Any] = {
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max_num_batched_tokens,
        "max_prefill_tokens": max_prefill_tokens,
        "num_kv_blocks": num_kv_blocks,
    }
    given = {name: value for name, value in limits.items() if value is not None}
    machines = [replace(gpu_from_text(name), **given) for name in gpu] * replicas
    if routing not in ROUTINGS:
        raise ConfigError(f"no routing is called {routing!r}; accepted: {', '.join(ROUTINGS)}")
    cluster = Cluster(replicas=machines, routing=ROUTINGS[routing])
    if policy not in POLICIES:
        raise ConfigError(f"no policy is called {policy!r}; accepted: {', '.join(POLICIES)}")
    rules = Protocol(capacity=capacity, when_full=full_pool)  # type: ignore[arg-type]  # it refuses what it does not know
    if out == "":
        raise ConfigError("--out takes the name of a folder, got ''")
    load = Load.of(arrivals)
    source = Input(traces, format, tokens, streams=json, block_size=block_size)
    together = partial(simulate, gpu=cluster, policy=POLICIES[policy], max_workers=max_workers, on_deadlock="record")
    runs = _timelines(source, rules, together, load, seed)
    tally = Tally(SUMMARIZED)
    shown: list[Metrics] = []
    unit = "steps" if machines[0].cost == STEP_CLOCK.cost else "seconds"
    shared = None
    with ExitStack() as stack:
        files = _Files(stack, out, plots) if out else None
        for timeline, query in runs:
            metrics = measure(timeline, query)
            for deadlock in timeline.deadlocks:
                if deadlock.query == query:
                    complain(f"{metrics.name}: deadlock: {', '.join(deadlock.cycle)}")
            tally.add(metrics.values.__getitem__, (violation.kind.value for violation in metrics.violations))
            if json:
                print_json(_record(metrics, unit))
            elif len(shown) < rows:
                shown.append(metrics)
            if files:
                files.add(timeline, query, metrics)
            shared = timeline if len(timeline) > 1 else None
    if shared is not None and (lost := sum(math.isnan(arrival) for arrival in shared.arrivals.tolist())):
        complain(f"{lost:,} of {len(shared):,} queries never arrived: each user waits for an answer in a deadlock")
    tally.unreadable = source.unreadable
    summary: dict[str, Any] = dict(tally.summary())
    if shared is not None:
        summary["run"] = summarize(shared)
    if json:
        print_json({"summary": summary})
    elif tally.traces:
        _print(shown, tally, unit, summary.get("run"), len(machines))
        if out:
            say(f"wrote {out}")
    return source.exit_code


def _timelines(
    source: Input, rules: Protocol, run: Callable[..., Timeline], load: Load, seed: int
) -> Iterator[tuple[Timeline, int]]:
    """Yield each query with the timeline it is in."""
    if load.kind == "alone":
        for trace in source:
            try:
                timeline = run(compile_trace(trace, rules))
            except ConfigError as error:  # it does not fit into the GPU's memory; others may
                source.refuse(error)
                continue
            yield timeline, 0
        return
    graphs: list[ExecutionGraph] = []
    times: list[float] = []
    for trace in source:
        graphs.append(compile_trace(trace, rules))
        times.append(load.time(trace))
    if not graphs:
        return
    timeline = run(graphs, arrivals=load.arrivals(times, seed))
    for query in range(len(graphs)):
        yield timeline, query


def _record(metrics: Metrics, unit: str) -> dict[str, Any]:
    return {
        "trace": metrics.name,
        "unit": unit,
        **metrics.values,
        "kinds": sorted({violation.kind.value for violation in metrics.violations}),
    }


class _Files:
    """The files of ``--out``: rows are written as they come, and the files appear when all went well."""

    def __init__(self, stack: ExitStack, folder: str, plots: int) -> None:
        self.folder = folder
        self.plots = plots
        self.metrics = self._open(stack, "metrics.csv", ("trace", *METRICS, "kinds"))
        self.spans = self._open(stack, "spans.csv", SPAN_FIELDS)
        self.drawn = 0

    def _open(self, stack: ExitStack, name: str, header: tuple[str, ...]) -> Any:
        file: IO[str] = stack.enter_context(atomic(os.path.join(self.folder, name)))
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        return writer

    def add(self, timeline: Timeline, query: int, metrics: Metrics) -> None:
        """Write one query's rows, and its chart while there are charts left."""
        kinds = sorted({violation.kind.value for violation in metrics.violations})
        self.metrics.writerow((metrics.name, *metrics.values.values(), " ".join(kinds)))
        self.spans.writerows(span_rows(timeline, query))
        if self.drawn < self.plots:
            from simulator import plots  # matplotlib takes a second to load: only where a chart is drawn

            safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in metrics.name)[:80]
            axes = plots.gantt(timeline, query=query)
            plots.save(axes, os.path.join(self.folder, f"gantt-{self.drawn:03d}-{safe}.png"))
            self.drawn += 1


def _print(shown: list[Metrics], tally: Tally, unit: str, run: dict[str, float] | None, gpus: int) -> None:
    if shown:
        show(metrics_table(shown, unit, narrow=screen_width() < 110))
    if tally.traces > len(shown):
        say(f"and {tally.traces - len(shown):,} more (--rows, --json or --out show all)\n")
    if tally.traces > 1:
        show(summary_table(tally, unit))
    if run:
        facts = ", ".join(f"{SUMMARIES[name].title_on(unit)} {count(value)}" for name, value in run.items())
        say(f"{'one GPU' if gpus == 1 else f'{gpus:,} GPUs'} for all: {facts}\n")
    say(tally.sentence())
    if shown:
        say(LEGEND)
