"""Many queries on one GPU: where is the knee?

Covers: load_profile, arrivals, max_num_seqs, summarize

Two hundred queries, each of an organizer and four workers, arrive at random on a modelled GPU whose batch takes 64
sequences. Up to the knee a heavier load only makes each step a little longer; beyond it, work waits for the batch.
"""

from dataclasses import replace

import numpy as np

from simulator import compile_trace, measure, simulate, summarize
from simulator.machine.profiles import load_profile
from simulator.workload import generate, poisson_arrivals

gpu = replace(load_profile("h100-qwen3-8b-database"), max_num_seqs=64)
graphs = [compile_trace(trace) for trace in generate("batch", 200, seed=1, workers=4, rounds=1)]

print("queries/s  p50 s  p95 s  mean batch  critical path waiting for the batch")
for rate in (1, 2, 3, 4, 5, 6):
    arrivals = poisson_arrivals(len(graphs), rate, np.random.default_rng(2))
    timeline = simulate(graphs, gpu=gpu, arrivals=arrivals)
    run = summarize(timeline)
    waiting = np.mean([measure(timeline, query).bound_wait_batch for query in range(len(timeline))])
    print(f"{rate:9}  {run['latency_p50']:5.2f}  {run['latency_p95']:5.2f}  {run['mean_batch']:10.1f}  {waiting:35.0%}")
