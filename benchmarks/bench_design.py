"""What the design's choices cost or save: each beside what was rejected, on the same input, in turn.

The reasons are in docs/design.md. Prints medians and their ratio; absolute times are this machine's, ratios travel.
"""

from __future__ import annotations

import statistics
import sys
from array import array
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
import simpy

from simulator import (
    GPU,
    ExecutionGraph,
    LinearBatch,
    Think,
    Thread,
    Trace,
    compile_trace,
    critical_path,
    decode_clock,
    simulate,
)
from simulator.graph import to_networkx
from simulator.workload import generate, poisson_arrivals

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.support.stepwise import step_by_step

COST = LinearBatch(a=6.6e-3, b=1.2e-5)  # without context, so that a process per sequence can follow it too


@dataclass(frozen=True, slots=True)
class DataclassThink:
    """`simulator.trace.Think` as a dataclass, with the same check."""

    tokens: int
    text: str | None = None
    start: float | None = None
    finish: float | None = None

    def __post_init__(self):
        if self.tokens.__class__ is not int or not 0 <= self.tokens <= 10**12:
            raise ValueError(self.tokens)


def without_leaps(graphs, arrivals):
    return step_by_step(graphs, gpu=GPU(cost=COST), arrivals=arrivals).makespan


def process_per_sequence(lengths, arrivals):
    """Each sequence a SimPy process; whoever joins or leaves interrupts all others, whose rate has changed."""
    env = simpy.Environment()
    batch = {}

    def changed(number):
        for other, process in batch.items():
            if other != number:
                process.interrupt()

    def sequence(number, left, arrival):
        yield env.timeout(arrival)
        batch[number] = env.active_process
        changed(number)
        while left > 0:
            step, since = COST.step_seconds(len(batch), 0), env.now
            try:
                yield env.timeout(left * step)
                left = 0
            except simpy.Interrupt:
                left = max(left - (env.now - since) / step, 0)
        del batch[number]
        changed(number)

    for number, (length, arrival) in enumerate(zip(lengths, arrivals, strict=True)):
        env.process(sequence(number, length, arrival))
    env.run()
    return env.now


class RowObject(NamedTuple):
    query: int
    thread: int
    task: int
    waited_from: float
    granted: float
    ready: float
    start: float
    decode_start: float
    finish: float
    tokens: int
    flags: int


def row_objects(n):
    rows = [RowObject(1, 2, i, i * 0.1, i * 0.2, i * 0.3, i * 0.4, i * 0.5, i * 0.6, 500, 0) for i in range(n)]
    return np.array(rows, dtype=np.float64)  # what every metric needs


def flat_array(n):
    rows = array("d")
    for i in range(n):
        rows.extend((1, 2, i, i * 0.1, i * 0.2, i * 0.3, i * 0.4, i * 0.5, i * 0.6, 500, 0))
    return np.frombuffer(rows).reshape(-1, 11)


def seconds(function, *arguments, repeat):
    start = perf_counter()
    for _ in range(repeat):
        function(*arguments)
    return (perf_counter() - start) / repeat


def compare(title, ours, other, *, repeat=1, rounds=5):
    """Print the median times of two callables that are run in turn, and their ratio."""
    times = [(seconds(*ours, repeat=repeat), seconds(*other, repeat=repeat)) for _ in range(rounds)]
    a, b = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"{title:62} {a * 1e6:12,.1f} {b * 1e6:14,.1f} {b / a:8.1f}")


def main(scale=1.0):
    rng = np.random.default_rng(1)
    n = max(int(1000 * scale), 20)
    lengths = rng.integers(64, 513, n).tolist()
    arrivals = poisson_arrivals(n, 30.0, np.random.default_rng(2)).tolist()
    singles = [compile_trace(Trace("t", (Thread("organizer", (Think(length),)),))) for length in lengths]
    [trace] = generate("interleaved", 1, workers=4, forks=8)
    graph = compile_trace(trace)
    # The three ways to play the same sequences agree; one without step boundaries is off by less than a few steps.
    leaps = simulate(singles, gpu=GPU(cost=COST), arrivals=arrivals).makespan
    assert abs(without_leaps(singles, arrivals) - leaps) < 1e-9 * leaps
    assert abs(process_per_sequence(lengths, arrivals) - arrivals[0] - leaps) < 0.01 * leaps
    print(f"{'microseconds':62} {'ours':>12} {'the other':>14} {'ratio':>8}")
    compare("an action: msgspec Struct / dataclass", (Think, 5), (DataclassThink, 5), repeat=n * 20)
    compare(
        "steps and violations of a trace: one walk / graph and longest path",
        (decode_clock, trace),
        (lambda: critical_path(compile_trace(trace)),),
        repeat=n // 5,
    )
    compare(
        "a graph built: tuples, checked / networkx, unchecked",
        (ExecutionGraph, graph.tasks, graph.threads, graph.protocol, graph.name, None, graph.trace),
        (to_networkx, graph),
        repeat=n // 5,
    )
    compare(
        "that query alone: leaps / an event a step",
        (lambda: simulate(graph, gpu=GPU(cost=COST)),),
        (without_leaps, [graph], [0.0]),
        repeat=n // 50,
    )
    compare(
        f"{n} sequences: leaps / an event a step",
        (lambda: simulate(singles, gpu=GPU(cost=COST), arrivals=arrivals).makespan,),
        (without_leaps, singles, arrivals),
    )
    compare(
        f"{n} sequences: one server / a process a sequence, interrupted",
        (lambda: simulate(singles, gpu=GPU(cost=COST), arrivals=arrivals).makespan,),
        (process_per_sequence, lengths, arrivals),
    )
    compare(f"{n * 10} rows to numpy: flat array / objects", (flat_array, n * 10), (row_objects, n * 10))


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
