"""Other simulators on our workloads: NVIDIA AISimulate and sched-sim, each in a process of its own.

Neither is a dependency. AISimulate is found by the environment variable FORKSIM_AISIMULATE (its executable), beside
this Python, or on PATH; sched-sim by FORKSIM_SCHED_SIM (a Python that has it), or in this Python. Where one is not
installed, its function raises `Absent` with a line that says so. `bench_cluster.py` times them beside forksim.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from simulator import dump

AISIMULATE = "aisimulate==0.13.0.dev202610270000000085"
SCHED_SIM = "sched-sim==0.2.1"


class Absent(Exception):
    """The peer is not installed."""


@dataclass(frozen=True)
class Phases:
    """AISimulate's fixed times as a cost: `prefill` seconds if a step holds prompts, `decode` besides if decodes."""

    prefill: float
    decode: float
    prefill_is_free = False

    def step_seconds(self, n, context, prefill_tokens=0, prefill_context=0):
        return self.decode * (n > 0) + self.prefill * (prefill_tokens > 0)

    def decode_seconds(self, n, context, k):
        return k * self.decode


@dataclass
class Result:
    """What a peer did."""

    seconds: float
    """Of its simulation, as it says or as measured inside its process: without start-up and files."""
    process: float
    """CPU seconds of its whole process."""
    total: float
    """Of reading requests, simulating and taking the results, as measured inside its process; NaN if not."""
    requests: int
    tokens: int
    records: list = field(default_factory=list)
    """AISimulate's record of each request; sched-sim's time of each end."""
    steps: int = 0


def _run(command, **options):
    """Run a peer; return what it did and the CPU seconds of its process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()[-1000:]}")
    return done, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


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
    replicas=1,
    capture=True,
):
    """Run traces with fixed times of a step: `prefill_ms` if it holds prompts, and `decode_ms` if it holds decodes.

    Several replicas take requests in turn. Without `capture` there are no records.
    """
    executable = find_aisimulate()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        with (path / "plays.jsonl").open("w", encoding="utf-8") as file:
            dump(traces, file, "agentic_mooncake", block_size=block_size)
        worker = {
            "parallelism": {"replicas": replicas, "tensor": 1, "pipeline": 1},
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
        command = [executable, "predict", "--config", "config.yaml", "--format", "json", "--output-dir", "out"]
        _, process = _run(command + ["--capture-per-request"] * capture, cwd=path)
        report = json.loads((path / "out" / "prediction.json").read_text())
        records = []
        if capture:
            records = [json.loads(line) for line in (path / "out" / "requests.jsonl").read_text().splitlines()]
    seconds = report["wall_time_ms"] / 1000
    return Result(seconds, process, float("nan"), report["completed_requests"], report["total_output_tokens"], records)


_SCHED_SIM = """
import json, sys, time
from sched_sim.core.event_engine import Simulator
from sched_sim.core.request import Request
from sched_sim.hardware.profile import HardwareProfile
from sched_sim.schedulers.factory import create_scheduler
start = time.process_time()
asked = json.load(sys.stdin)
hardware = HardwareProfile(**asked["hardware"])
scheduler = create_scheduler("chunked", hardware, token_budget=asked["budget"])
simulator = Simulator(hardware, scheduler)
simulator.submit_workload([
    Request(request_id=str(i), arrived_at=at, prompt_tokens=prompt, output_tokens=output)
    for i, (at, prompt, output) in enumerate(asked["requests"])
])
began = time.process_time()
simulator.run()
done = time.process_time()
ends = [request.completed_at for request in simulator.all_requests]
tokens = sum(request.decoded_tokens for request in simulator.all_requests)
print(json.dumps([done - began, done - start, len(ends), tokens, ends, len(simulator.iteration_batch_sizes)]))
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


def sched_sim(requests, *, hardware, max_num_batched_tokens=512):
    """Run requests (arrival, prompt tokens, output tokens), which wait for nobody: it knows no dependencies.

    `hardware` are the fields of its `HardwareProfile`. Its scheduler of chunked prompts knows no batch limit.
    """
    python = find_sched_sim()
    asked = {"requests": requests, "hardware": hardware, "budget": max_num_batched_tokens}
    done, process = _run([python, "-c", _SCHED_SIM], input=json.dumps(asked))
    seconds, total, *rest = json.loads(done.stdout)
    return Result(seconds, process, total, *rest)
