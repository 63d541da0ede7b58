"""The engine without its leaps: what they are compared with, in tests and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulator import GPU, ExecutionGraph, Timeline
from simulator.engine.run import Run
from simulator.machine.gpu import Cluster
from simulator.machine.policy import fcfs


def step_by_step(
    graphs: Sequence[ExecutionGraph],
    *,
    gpu: GPU,
    arrivals: Sequence[float] | None = None,
    max_workers: int | None = None,
    on_deadlock: str = "raise",
) -> Timeline:
    """Simulate with an event for every engine step."""
    times = np.zeros(len(graphs)) if arrivals is None else np.asarray(arrivals, dtype=float)
    run = Run(tuple(graphs), Cluster(replicas=[gpu]), None, times, fcfs, max_workers, max_leap=1)
    return run.play(on_deadlock)
