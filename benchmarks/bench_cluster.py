"""forksim beside sched-sim and NVIDIA AISimulate: the same requests, the same step times, the same answers; how fast.

    python benchmarks/bench_cluster.py [REQUESTS [QUERIES]]

Everything runs on one core, program after program in turn, `TURNS` times; where a peer is not installed its part is
skipped, see `peers.py`. Both peers give each request the time that forksim gives it, which is checked.

"Simulation": CPU seconds of `simulate`, of sched-sim's `Simulator.run`, and the wall time that AISimulate reports for
its replay. "File to result": CPU seconds from a file of requests to the times of all; of AISimulate, those of its
process less those (in the median) of one that runs a single query, as it imports for a second before it reads.
"""

from __future__ import annotations

import gc
import os
import platform
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import process_time

import numpy as np
import peers

from simulator import (
    GPU,
    Answer,
    Cluster,
    Fork,
    Join,
    Return,
    Think,
    Thread,
    Trace,
    compile_trace,
    dump,
    read,
    simulate,
)
from simulator.machine.routing import ROUTINGS
from simulator.workload import poisson_arrivals

TURNS = 5

MODELLED = """\
What each models that the other does not
  sched-sim    takes every step by itself; requests wait for nobody. It also has shortest-first and SLO-aware orders,
               swapping to the host, and prefill and decode on different GPUs.
  AISimulate   takes every step by itself and records each token; graphs of requests, vLLM's and SGLang's schedulers,
               silicon databases, prefill and decode on different GPUs, speculation, offloading of KV memory.
               Requests of its own engine stack go to its replicas in turn. A Fork ends a request there.
  forksim      leaps over steps in which nothing changes. Organizers that go on decoding after a Fork, pools of agents
               and what a full one does, cancelling at the Answer, Delays, policies by critical path, routing by load
               or memory; and a row for each task, from which follow spans, bounds and the realised critical path.
"""


@dataclass(frozen=True)
class Roofline:
    """What a step costs in sched-sim: `weights` + `kv` context seconds, or `work` seconds a token, if that is more.

    It does not count a sequence's newest token as context.
    """

    weights: float
    kv: float
    work: float
    launch: float
    prefill_is_free = False

    def step_seconds(self, n, context, prefill_tokens=0, prefill_context=0):
        return max(self.weights + self.kv * (context - n), self.work * (n + prefill_tokens)) + self.launch

    def decode_seconds(self, n, context, k):
        first, work = self.weights + self.kv * (context - n), self.work * n
        growth = self.kv * n
        # The context grows: work bounds the first steps, if any, and memory the rest.
        bound = min(max(int((work - first) / growth) + 1, 0), k) if work > first else 0
        rest = k - bound
        by_memory = rest * (first + bound * growth) + growth * (rest * (rest - 1) // 2)
        return bound * work + by_memory + k * self.launch


# sched-sim's own "a100": an A100 of 80 GB with Llama 3 8B.
HARDWARE = {
    "vram_gb": 80.0,
    "memory_bandwidth_gb_s": 1935.0,
    "fp16_tflops": 312.0,
    "tensor_core_efficiency": 0.52,
    "kernel_launch_overhead_ms": 0.05,
    "parameter_count_billions": 8.03,
    "num_layers": 32,
    "num_kv_heads": 8,
    "head_dim": 128,
}
_BANDWIDTH = HARDWARE["memory_bandwidth_gb_s"] * 1e9
_PARAMETERS = HARDWARE["parameter_count_billions"] * 1e9
A100 = Roofline(
    weights=2 * _PARAMETERS / _BANDWIDTH,
    kv=2 * 32 * 8 * 128 * 2 / _BANDWIDTH,
    work=2 * _PARAMETERS / (HARDWARE["fp16_tflops"] * HARDWARE["tensor_core_efficiency"] * 1e12),
    launch=5e-5,
)


def plain(n, rate=10.0):
    """Return n requests of 512 prompt and 128 output tokens, `rate` a second."""
    return [(at, 512, 128) for at in poisson_arrivals(n, rate, np.random.default_rng(0)).tolist()]


def as_traces(requests):
    """Return requests as traces of a token more: the step that ends a prompt yields one here, and none in sched-sim."""
    return [
        Trace(f"q{i}", (Thread("organizer", (Answer(output + 1),), prompt),), arrival=at)
        for i, (at, prompt, output) in enumerate(requests)
    ]


def fork_join(n, *, workers=4, gap=0.15, seed=0):
    """Queries of an organizer and `workers` workers; everybody's outputs are 64 to 512 tokens."""
    rng = np.random.default_rng(seed)
    arrivals = np.floor(np.cumsum(rng.exponential(gap, n)) * 2**20) / 2**20  # sums with step times are exact
    arrivals -= arrivals[0]  # AISimulate begins with the first
    traces = []
    for i in range(n):
        think, answer, *work = (int(tokens) for tokens in rng.integers(64, 513, workers + 2))
        shared = 256 + think
        forks = [Fork(k) for k in range(1, workers + 1)]
        joins = [Join(k, 0, 32) for k in range(1, workers + 1)]
        organizer = Thread("organizer", (Think(think), *forks, *joins, Answer(answer)), 256)
        rest = (Thread(str(k), (Return(tokens),), shared + 32, shared) for k, tokens in enumerate(work, 1))
        traces.append(Trace(f"q{i}", (organizer, *rest), arrival=float(arrivals[i])))
    return traces


def timed(function):
    gc.collect()
    start = process_time()
    result = function()
    return process_time() - start, result


def run(traces, gpu):
    """Return the CPU seconds of the simulation alone, and its timeline."""
    graphs = [compile_trace(trace) for trace in traces]
    arrivals = [trace.arrival for trace in traces]
    return timed(lambda: simulate(graphs, gpu=gpu, arrivals=arrivals))


def from_file(path, gpu):
    """Read, compile, simulate and take the latencies, as a caller would."""
    timeline = run(list(read(path)), gpu)[1]
    return np.percentile(timeline.latency, [50, 95, 99])


class Table:
    """Seconds of each program, turn by turn."""

    def __init__(self, of):
        self.of, self.seconds = of, {}

    def add(self, name, seconds):
        self.seconds.setdefault(name, []).append(seconds)

    def show(self, ours):
        """Print a rate a line, best and median, and how many times it `ours` is: best to best, and turn by turn."""
        for name, seconds in self.seconds.items():
            rates = [self.of / each for each in seconds]
            line = f"  {name:<44} {max(rates):>9,.0f} {statistics.median(rates):>9,.0f}"
            if name not in ours:
                mine = self.seconds[ours[0] if "simulation" in name else ours[1]]
                ratios = [theirs / here for theirs, here in zip(seconds, mine, strict=True)]
                line += f"   {min(seconds) / min(mine):>5.1f}  ({min(ratios):.1f} to {max(ratios):.1f})"
            print(line)


HEAD = f"  {'':<44} {'best':>9} {'median':>9}   forksim is so many times faster (turn by turn)"
OURS = ("forksim, simulation", "forksim, file to result")


def beside_sched_sim(n):
    print(f"\n{n:,} requests of 512/128 tokens at 10 a second, one replica: requests a CPU second")
    requests = plain(n)
    traces = as_traces(requests)
    # Both hold 33,000 blocks of 16 tokens and take at most 512 tokens a step.
    gpu = GPU(cost=A100, max_num_batched_tokens=512, num_kv_blocks=33_000, prefix_caching=False)
    table, steps = Table(n), {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requests.jsonl"
        with path.open("w", encoding="utf-8") as file:
            dump(traces, file)
        for _ in range(TURNS):
            seconds, timeline = run(traces, gpu)
            table.add(OURS[0], seconds)
            table.add(OURS[1], timed(lambda: from_file(path, gpu))[0])
            steps["forksim"] = timeline.steps
            there = peers.sched_sim(requests, hardware=HARDWARE)
            table.add("sched-sim, simulation", there.seconds)
            table.add("sched-sim, file to result", there.total)
            steps["sched-sim"] = there.steps
    off = np.abs(timeline.answered - np.array(there.records)).max()
    print(HEAD)
    table.show(OURS)
    assert off < 1e-6, f"they disagree by {off} seconds"
    mean = float(timeline.latency.mean())
    print(f"  the same end of each request in both, to {off:.0e} s; steps: {steps}; mean latency {mean:.3f} s")


PREFILL, DECODE = 2.0**-7, 3 * 2.0**-8  # seconds that floats and whole nanoseconds hold exactly


def beside_aisimulate(n):
    print(
        f"\n{n:,} queries of an organizer and 4 workers, 6 nodes each, batch limit 256, paged memory, fixed step times"
    )
    traces = fork_join(n)
    gpu = GPU(
        cost=peers.Phases(PREFILL, DECODE),
        max_num_seqs=256,
        max_num_batched_tokens=1_000_000,
        num_kv_blocks=1_000_000,
        block_size=64,
    )
    there = {"prefill_ms": PREFILL * 1000, "decode_ms": DECODE * 1000}
    for replicas in (1, 2, 4):
        cluster = Cluster(replicas=[gpu] * replicas, routing=ROUTINGS["round-robin"])
        table, processes, idle = Table(6 * n), [], []
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "queries.jsonl"
            with path.open("w", encoding="utf-8") as file:
                dump(traces, file)
            for _ in range(TURNS):
                seconds, timeline = run(traces, cluster)
                table.add(OURS[0], seconds)
                table.add(OURS[1], timed(lambda c=cluster, p=path: from_file(p, c))[0])
                other = peers.aisimulate(traces, replicas=replicas, capture=False, **there)
                table.add("AISimulate, simulation (its own wall time)", other.seconds)
                processes.append(other.process)
                idle.append(peers.aisimulate(traces[:1], capture=False).process)
        for process in processes:
            table.add("AISimulate, file to result, start-up taken off", process - statistics.median(idle))
        other = peers.aisimulate(traces, replicas=replicas, **there)
        ends = {row["request_id"]: row["last_token_ms"] / 1000 for row in other.records}
        equal = sum(end in ends_here for end, ends_here in paired(timeline, ends))
        print(f" {replicas} {'replica' if replicas == 1 else 'replicas, in turn'}: nodes a second")
        print(HEAD)
        table.show(OURS)
        assert equal == 6 * n, f"only {equal:,} of {6 * n:,} nodes end at the same time"
        print("  the same end of each node in both, to the bit")


def paired(timeline, ends):
    """Yield the end of each request there, and those of its thread's tasks here."""
    here = {}
    for query, thread, finish in zip(
        *(timeline.column(c).tolist() for c in ("query", "thread", "finish")), strict=True
    ):
        here.setdefault((query, thread), []).append(finish)
    for name, end in ends.items():
        query, thread, _ = map(int, name.split("."))
        yield end, here[query, thread]


def routings(n):
    print("\nforksim alone, the same queries: nodes a CPU second by routing")
    print(f"  {'':<18}" + "".join(f"{replicas:>4} replicas" for replicas in (2, 4, 8)))
    traces = fork_join(n)
    gpu = GPU(cost=peers.Phases(PREFILL, DECODE), max_num_seqs=256, num_kv_blocks=1_000_000, block_size=64)
    for name, routing in ROUTINGS.items():
        clusters = [Cluster(replicas=[gpu] * replicas, routing=routing) for replicas in (2, 4, 8)]
        rates = [6 * n / min(run(traces, cluster)[0] for _ in range(3)) for cluster in clusters]
        print(f"  {name:<18}" + "".join(f"{rate:>13,.0f}" for rate in rates))


def main():
    n = int(float(sys.argv[1])) if sys.argv[1:] else 5000
    queries = int(float(sys.argv[2])) if sys.argv[2:] else 2000
    core = max(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else None
    if core is not None:
        os.sched_setaffinity(0, {core})
    where = f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}"
    print(f"{where}; {TURNS} turns" + ", all on one core" * (core is not None))
    for part, size in ((beside_sched_sim, n), (beside_aisimulate, queries)):
        try:
            part(size)
        except peers.Absent as error:
            print(f"  skipped: {error}")
    routings(queries)
    print("\n" + MODELLED, end="")


if __name__ == "__main__":
    main()
