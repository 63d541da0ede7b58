"""Other simulators on our workloads: NVIDIA AISimulate and sched-sim, each in a process of its own.

Neither is a dependency. AISimulate is found by the environment variable FORKSIM_AISIMULATE (its executable), beside
this Python, or on PATH; sched-sim by FORKSIM_SCHED_SIM (a Python that has it), or in this Python. Where one is not
installed, its function raises `Absent` with a line that says so.

`python benchmarks/peers.py [QUERIES]` runs both on fork/join queries and prints how fast they were.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from simulator import GPU, Answer, Fork, Join, LinearBatch, Return, Think, Thread, Trace, compile_trace, dump, simulate
from simulator.formats._requests import requests

AISIMULATE = "aisimulate==0.13.0.dev202610270000000085"
SCHED_SIM = "sched-sim==0.2.1"


class Absent(Exception):
    """The peer is not installed."""


@dataclass
class Result:
    """What a peer did."""

    seconds: float
    """Of its simulation, as it says or as measured inside its process: without start-up and files."""
    requests: int
    tokens: int
    records: list[dict] = field(default_factory=list)
    """AISimulate's record of each request."""


def find_aisimulate() -> str:
    given = os.environ.get("FORKSIM_AISIMULATE")
    beside = Path(sys.executable).parent / "aisimulate"
    found = given or (str(beside) if beside.exists() else shutil.which("aisimulate"))
    if not found or not shutil.which(found):
        raise Absent(
            f"AISimulate is not installed: pip install {AISIMULATE}, or name its executable in FORKSIM_AISIMULATE"
        )
    return found


def aisimulate(
    traces,
    *,
    prefill_ms=10.0,
    decode_ms=10.0,
    max_num_seqs=256,
    max_num_batched_tokens=1_000_000,
    num_kv_blocks=1_000_000,
    block_size=64,
    prefix_caching=True,
):
    """Run traces with fixed times of a step: `prefill_ms` if it holds prompts, and `decode_ms` if it holds decodes."""
    executable = find_aisimulate()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        with (path / "plays.jsonl").open("w", encoding="utf-8") as file:
            dump(traces, file, "agentic_mooncake", block_size=block_size)
        worker = {
            "parallelism": {"replicas": 1, "tensor": 1, "pipeline": 1},
            "scheduler": {"max_batched_tokens": max_num_batched_tokens, "max_sequences": max_num_seqs},
            "kv_cache": {
                "block_size": block_size,
                "prefix_caching": prefix_caching,
                "capacity": {"type": "fixed", "blocks": num_kv_blocks},
            },
            "timing": {"type": "fixed", "prefill_ms": prefill_ms, "decode_ms": decode_ms},
        }
        source = {"type": "trace", "format": "agentic_mooncake", "paths": [str(path / "plays.jsonl")]}
        config = {
            "traffic": {"source": source | {"block_size": block_size}, "load": {"type": "trace_timestamps"}},
            "engine": {
                "mode": "aggregated",
                "model": "any",
                "hardware": "h200_sxm",
                "backend": "vllm",
                "context_length": 10_000_000,
                "workers": {"aggregated": worker},
            },
        }
        (path / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
        command = [executable, "predict", "--config", "config.yaml", "--capture-per-request", "--format", "json"]
        done = subprocess.run([*command, "--output-dir", "out"], cwd=path, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"aisimulate: {done.stderr.strip()[-1000:]}")
        report = json.loads((path / "out" / "prediction.json").read_text())
        records = [json.loads(line) for line in (path / "out" / "requests.jsonl").read_text().splitlines()]
    return Result(report["wall_time_ms"] / 1000, len(records), report["total_output_tokens"], records)


_SCHED_SIM = """
import json, sys, time
from sched_sim.core.event_engine import Simulator
from sched_sim.core.request import Request
from sched_sim.hardware.profile import HardwareProfile
from sched_sim.schedulers.factory import create_scheduler
asked = json.load(sys.stdin)
hardware = HardwareProfile(name="80 GB", vram_gb=10_000.0, memory_bandwidth_gb_s=3350.0, fp16_tflops=990.0)
scheduler = create_scheduler("chunked", hardware, token_budget=asked["budget"], max_batch_size=asked["batch"])
simulator = Simulator(hardware, scheduler)
simulator.submit_workload([
    Request(request_id=str(i), arrived_at=at, prompt_tokens=prompt, output_tokens=output)
    for i, (at, prompt, output) in enumerate(asked["requests"])
])
began = time.process_time()
simulator.run()
seconds = time.process_time() - began
done = [request for request in simulator.all_requests if request.completed_at is not None]
print(json.dumps([seconds, len(done), sum(request.decoded_tokens for request in done)]))
"""


def find_sched_sim() -> str:
    given = os.environ.get("FORKSIM_SCHED_SIM")
    if given and shutil.which(given):
        return given
    if given or importlib.util.find_spec("sched_sim") is None:
        raise Absent(
            f"sched-sim is not installed: pip install {SCHED_SIM}, or name a Python that has it in FORKSIM_SCHED_SIM"
        )
    return sys.executable


def sched_sim(requests, *, max_num_seqs=256, max_num_batched_tokens=8192):
    """Run requests (arrival, prompt tokens, output tokens), which wait for nobody: it knows no dependencies."""
    python = find_sched_sim()
    asked = {"requests": requests, "batch": max_num_seqs, "budget": max_num_batched_tokens}
    command = [python, "-c", _SCHED_SIM]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"sched-sim: {done.stderr.strip()[-1000:]}")
    return Result(*json.loads(done.stdout))


def fork_join(n, *, workers=4, gap=0.15, seed=0):
    """Queries of an organizer and `workers` workers; everybody's outputs are 64 to 512 tokens."""
    rng = np.random.default_rng(seed)
    arrivals = np.floor(np.cumsum(rng.exponential(gap, n)) * 1024) / 1024
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


def as_requests(traces):
    """Return (arrival, prompt tokens, output tokens) of every request of `traces`, all due when their query arrives."""
    return [
        (trace.arrival, request.input_length, request.output_length)
        for trace in traces
        for request in requests(compile_trace(trace), 64)
    ]


def forksim(traces, *, prefill_ms=10.0, decode_ms=10.0, max_num_seqs=256, num_kv_blocks=1_000_000, block_size=64):
    """Run traces here, with prompts, paged memory and prefix caching, and the same time for each step."""
    graphs = [compile_trace(trace) for trace in traces]
    gpu = GPU(
        cost=LinearBatch(a=decode_ms / 1000, p=1e-9),
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=1_000_000,
        num_kv_blocks=num_kv_blocks,
        block_size=block_size,
    )
    began = time.process_time()
    timeline = simulate(graphs, gpu=gpu, arrivals=[trace.arrival for trace in traces])
    seconds = time.process_time() - began
    return Result(seconds, len(timeline.rows), int(timeline.column("tokens").sum()))


def main():
    n = int(float(sys.argv[1])) if sys.argv[1:] else 1000
    traces = fork_join(n)
    runs = {
        "forksim": lambda: forksim(traces),
        "AISimulate, fixed times": lambda: aisimulate(traces),
        "sched-sim, chunked": lambda: sched_sim(as_requests(traces[: max(1, n // 10)])),
    }
    print(f"{n:,} queries of an organizer and 4 workers, 6 requests each, batch limit 256; the best of three runs")
    print("(sched-sim gets a tenth of the queries, as its time a request grows with them)")
    print(f"{'':<26} {'requests':>9} {'tokens':>11} {'seconds':>8} {'requests/s':>11}")
    for name, run in runs.items():
        try:
            best = min((run() for _ in range(3)), key=lambda result: result.seconds)
        except Absent as error:
            print(f"{name:<26} {error}")
            continue
        speed = best.requests / best.seconds
        print(f"{name:<26} {best.requests:>9,} {best.tokens:>11,} {best.seconds:>8.2f} {speed:>11,.0f}")


if __name__ == "__main__":
    main()
