"""What memory costs to model: fork/join queries with prompts, KV blocks and prefix caching, beside the same without.

Queries as in `bench_simulation.py`, but workers share the prefix of the organizer and Joins insert text. All
variants run in turn; the ratio is to the first, prompts and memory free.
"""

from __future__ import annotations

import statistics
import sys

import numpy as np
from bench_simulation import COST, LIMIT, WORKERS, queries, timed

from simulator import GPU, Answer, Fork, Join, LinearBatch, Return, Think, Thread, Trace, compile_trace, simulate
from simulator.timeline import PREEMPTED
from simulator.workload import poisson_arrivals

PROMPTS = LinearBatch(COST.a, COST.b, COST.c, p=2.0e-5, q=9e-10)
RATE = 7.0
VARIANTS = (
    ("prompts and memory free", GPU(cost=COST, max_num_seqs=LIMIT)),
    ("prompts in chunks", GPU(cost=PROMPTS, max_num_seqs=LIMIT, max_num_batched_tokens=8192)),
    ("20,000 blocks", GPU(cost=PROMPTS, max_num_seqs=LIMIT, max_num_batched_tokens=8192, num_kv_blocks=20_000)),
    ("4,000 blocks", GPU(cost=PROMPTS, max_num_seqs=LIMIT, max_num_batched_tokens=8192, num_kv_blocks=4_000)),
    (
        "20,000, no prefix cache",
        GPU(cost=PROMPTS, max_num_seqs=LIMIT, max_num_batched_tokens=8192, num_kv_blocks=20_000, prefix_caching=False),
    ),
)


def graph(i, query):
    prompt, think, go_on, answer, inserted, workers = query
    forks = tuple(Fork(k) for k in range(1, WORKERS + 1))
    joins = tuple(Join(k, 0, inserted // WORKERS) for k in range(1, WORKERS + 1))
    organizer = Thread("organizer", (Think(think), *forks, Think(go_on), *joins, Answer(answer)), prompt)
    shared = prompt + think
    threads = (Thread(str(k), (Return(tokens),), shared + 50, shared) for k, (_, tokens) in enumerate(workers, 1))
    return compile_trace(Trace(f"q{i}", (organizer, *threads)))


def main():
    n = int(float(sys.argv[1])) if sys.argv[1:] else 3000
    graphs = [graph(i, query) for i, query in enumerate(queries(n))]
    tasks = sum(map(len, graphs))
    arrivals = poisson_arrivals(n, RATE, np.random.default_rng(2))
    times = {name: [] for name, _ in VARIANTS}
    last = {}
    for _ in range(5):
        for name, gpu in VARIANTS:
            seconds, last[name] = timed(simulate, graphs, gpu=gpu, arrivals=arrivals)
            times[name].append(seconds)
    print(f"{tasks:,} tasks of {n:,} queries, one process")
    print(f"{'':<26} {'tasks/s':>9} {'ratio':>6} {'mean latency s':>15} {'preemptions':>12}")
    base = times[VARIANTS[0][0]]
    for name, taken in times.items():
        ratio = statistics.median(mine / least for mine, least in zip(taken, base, strict=True))
        preempted = int((last[name].column("flags") & PREEMPTED > 0).sum())
        speed = tasks / statistics.median(taken)
        print(f"{name:<26} {speed:>9,.0f} {ratio:>6.2f} {last[name].latency.mean():>15.2f} {preempted:>12}")


if __name__ == "__main__":
    main()
