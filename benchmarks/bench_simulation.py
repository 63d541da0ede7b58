"""Tasks a second: fork/join queries (organizer and 4 workers), Poisson arrivals, batch limit 256, LinearBatch.

Prints medians of several runs, at 10^4, 10^5 and 10^6 tasks, each beside a bare heapq loop that can do only this
workload, run in turn with it, and checks that both give the same latencies.
"""

from __future__ import annotations

import gc
import platform
import statistics
import sys
from time import process_time

import numpy as np
from bare import bare

from simulator import GPU, Answer, Fork, Join, LinearBatch, Return, Think, Thread, Trace, compile_trace, simulate
from simulator.workload import poisson_arrivals

COST = LinearBatch(a=6.564e-3, b=1.226e-5, c=4.661e-8)  # H100, Qwen3-8B: simulator/machine/profiles/h100-qwen3-8b.toml
LIMIT, RATE, WORKERS = 256, 9.0, 4


def queries(n):
    """Return n queries as the bare loop takes them: worker outputs of 64 to 512 tokens."""
    rng = np.random.default_rng(1)
    out = []
    for think, go_on, answer, *workers in rng.integers(64, 513, (n, 3 + WORKERS)).tolist():
        out.append((200, think // 4, go_on // 4, answer // 4, 80, [(250, tokens) for tokens in workers]))
    return out


def graph(i, query):
    prompt, think, go_on, answer, inserted, workers = query
    forks = tuple(Fork(k) for k in range(1, len(workers) + 1))
    joins = tuple(Join(k, 0, inserted // len(workers)) for k in range(1, len(workers) + 1))
    organizer = Thread("organizer", (Think(think), *forks, Think(go_on), *joins, Answer(answer)), prompt)
    threads = (Thread(str(k), (Return(tokens),), had) for k, (had, tokens) in enumerate(workers, 1))
    return compile_trace(Trace(f"q{i}", (organizer, *threads)))


def compiled(plain):
    return [graph(i, query) for i, query in enumerate(plain)]


def timed(function, *arguments, **options):
    gc.collect()
    start = process_time()
    result = function(*arguments, **options)
    return process_time() - start, result


def main():
    sizes = [int(float(size)) for size in sys.argv[1:]] or [10**4, 10**5, 10**6]
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}, one process")
    print(f"{'tasks':>9} {'compile':>9} {'forksim':>11} {'bare loop':>11} {'ratio':>6} {'forksim':>11}  mean batch")
    print(f"{'':>9} {'us/task':>9} {'us/task':>11} {'us/task':>11} {'':>6} {'tasks/s':>11}")
    for size in sizes:
        plain = queries(max(size // (3 + WORKERS), 1))
        compiling, graphs = timed(compiled, plain)
        tasks = sum(map(len, graphs))
        arrivals = poisson_arrivals(len(graphs), RATE, np.random.default_rng(2))
        gpu = GPU(cost=COST, max_num_seqs=LIMIT)
        ours, theirs = [], []
        for _ in range(7 if size <= 10**5 else 3):
            seconds, timeline = timed(simulate, graphs, gpu=gpu, arrivals=arrivals)
            ours.append(seconds)
            seconds, latencies = timed(bare, plain, arrivals.tolist(), COST.a, COST.b, COST.c, LIMIT)
            theirs.append(seconds)
        assert np.allclose(timeline.latency, latencies, rtol=1e-9), "the two disagree"
        batch = timeline.batch
        mean = float(batch[:-1, 1] @ np.diff(batch[:, 0]) / (batch[-1, 0] - batch[0, 0]))
        ours_us, theirs_us = (statistics.median(times) / tasks * 1e6 for times in (ours, theirs))
        row = f"{tasks:>9,} {compiling / tasks * 1e6:>9.1f} {ours_us:>11.2f} {theirs_us:>11.2f}"
        print(f"{row} {ours_us / theirs_us:>6.2f} {1e6 / ours_us:>11,.0f}  {mean:.0f}")


if __name__ == "__main__":
    main()
