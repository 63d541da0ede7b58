"""The engine with all it has: prompts in chunks, paged KV memory, prefix caching.

    python benchmarks/bench_engine.py [QUERIES]

Queries of an organizer and four workers with outputs of 64 to 512 tokens, a batch limit of 256. Prints tasks a second
at 1, 64 and 1,024 queries at once, beside the same without memory and without prompts; the growth of the cost of a task
with their number; and the ratio to taking every step by itself on long outputs, for this engine and for the reference
of the tests. `bench_cluster.py` has other simulators.

All variants of a table run in turn, and the figures are medians of the turns.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import numpy as np
from bench_simulation import COST, LIMIT, WORKERS, queries, timed

from simulator import (
    GPU,
    Answer,
    ClosedLoop,
    Fork,
    Join,
    LinearBatch,
    Protocol,
    Return,
    Think,
    Thread,
    Trace,
    compile_trace,
    simulate,
)
from simulator.machine.policy import fcfs
from simulator.timeline import PREEMPTED
from simulator.workload import poisson_arrivals

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.support.oracle import oracle  # the slow reference
from tests.support.stepwise import step_by_step

PROMPTS = LinearBatch(COST.a, COST.b, COST.c, p=2.0e-5, q=9e-10)
CHUNKS = GPU(cost=PROMPTS, max_num_seqs=LIMIT, max_num_batched_tokens=8192)
FULL = GPU(cost=PROMPTS, max_num_seqs=LIMIT, max_num_batched_tokens=8192, num_kv_blocks=20_000)
SCARCE = GPU(cost=PROMPTS, max_num_seqs=LIMIT, max_num_batched_tokens=8192, num_kv_blocks=4_000)
VARIANTS = (
    ("prompts and memory free", GPU(cost=COST, max_num_seqs=LIMIT)),
    ("prompts in chunks", CHUNKS),
    ("and 20,000 blocks of KV", FULL),
    ("and 4,000 blocks of KV", SCARCE),
)
AT_ONCE = (1, 64, 1024)


def graph(i, query):
    prompt, think, go_on, answer, inserted, workers = query
    forks = tuple(Fork(k) for k in range(1, WORKERS + 1))
    joins = tuple(Join(k, 0, inserted // WORKERS) for k in range(1, WORKERS + 1))
    organizer = Thread("organizer", (Think(think), *forks, Think(go_on), *joins, Answer(answer)), prompt)
    shared = prompt + think
    threads = (Thread(str(k), (Return(tokens),), shared + 50, shared) for k, (_, tokens) in enumerate(workers, 1))
    return compile_trace(Trace(f"q{i}", (organizer, *threads)))


def in_turn(runs, turns):
    """Return the median CPU seconds of each of `runs`, and what it returned last."""
    taken, last = {name: [] for name in runs}, {}
    for _ in range(turns):
        for name, run in runs.items():
            seconds, last[name] = timed(run)
            taken[name].append(seconds)
    return {name: (statistics.median(seconds), last[name]) for name, seconds in taken.items()}


def load(n):
    graphs = [graph(i, query) for i, query in enumerate(queries(n))]
    tasks = sum(map(len, graphs))
    print(f"tasks a second, {tasks:,} tasks of {n:,} queries, by queries at once ({LIMIT} sequences in a batch)")
    print(f"{'':<24}" + "".join(f"{users:>10,}" for users in AT_ONCE) + "   preempted at 1,024")
    runs = {
        (name, users): lambda gpu=gpu, users=users: simulate(graphs, gpu=gpu, arrivals=ClosedLoop(users))
        for name, gpu in VARIANTS
        for users in AT_ONCE
    }
    done = in_turn(runs, 5)
    for name, _ in VARIANTS:
        speeds = "".join(f"{tasks / done[name, users][0]:>10,.0f}" for users in AT_ONCE)
        preempted = int((done[name, AT_ONCE[-1]][1].column("flags") & PREEMPTED > 0).sum())
        print(f"{name:<24}{speeds}{preempted:>21,}")


def growth():
    print("\nmicroseconds a task by the number of tasks, 7 queries a second, 20,000 blocks of KV")
    for n in (1_000 // 7, 10_000 // 7, 100_000 // 7):
        graphs = [graph(i, query) for i, query in enumerate(queries(n))]
        arrivals = poisson_arrivals(n, 7.0, np.random.default_rng(2))
        ((seconds, timeline),) = in_turn(
            {"": lambda g=graphs, a=arrivals: simulate(g, gpu=FULL, arrivals=a)}, 3
        ).values()
        print(f"{len(timeline.rows):>9,} {seconds / len(timeline.rows) * 1e6:>8.2f}")


def leaps(tokens=4096):
    query = (200, tokens, tokens, tokens, 80, [(250, tokens)] * WORKERS)
    graphs = [graph(i, query) for i in range(4)]
    runs = {
        "leaps": lambda: simulate(graphs, gpu=FULL),
        "this engine, step by step": lambda: step_by_step(graphs, gpu=FULL),
        "the reference of the tests": lambda: oracle(
            graphs, gpu=FULL, protocol=Protocol(), arrivals=[0.0] * len(graphs), policy=fcfs
        ),
    }
    done = in_turn(runs, 3)
    base, timeline = done["leaps"]
    print(f"\n4 queries at once, outputs of {tokens:,} tokens: {timeline.steps:,} steps")
    print(f"{'':<28}{'seconds':>9}{'ratio':>8}")
    for name, (seconds, other) in done.items():
        assert np.allclose(other.answered, timeline.answered, rtol=1e-9), "they disagree"
        print(f"{name:<28}{seconds:>9.4f}{seconds / base:>8.0f}")


def main():
    load(int(float(sys.argv[1])) if sys.argv[1:] else 3000)
    growth()
    leaps()


if __name__ == "__main__":
    main()
