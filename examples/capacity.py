"""Pool capacity: how many agents are worth having?

Covers: generate, Protocol.capacity, simulate, measure

Forty synthetic queries. The organizer of each forks eight workers, thinks on and joins them all, twice. A Fork that
finds the pool full waits for a slot.
"""

from statistics import mean

from simulator import Protocol, compile_trace, measure, simulate
from simulator.workload import generate

graphs = [compile_trace(trace) for trace in generate("batch", 40, seed=1, workers=8, rounds=2)]

print("  c  latency  speed-up  waiting for a slot")
for c in range(2, 10):
    runs = [measure(simulate(graph, protocol=Protocol(capacity=c))) for graph in graphs]
    latency = mean(run.latency for run in runs)
    speedup = mean(run.speedup for run in runs)
    waiting = mean(run.bound_wait_pool for run in runs)
    print(f"{c:3}  {latency:7.0f}  {speedup:8.2f}  {waiting:18.0%}")
