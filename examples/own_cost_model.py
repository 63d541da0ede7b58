"""A cost model of one's own: sequences are computed in tiles of eight.

Covers: CostModel, GPU, simulate

A cost model is any object with `prefill_is_free`, `step_seconds` and `decode_seconds`; `decode_seconds` must equal
`step_seconds` summed over k steps, which lets the engine leap over them. Here an agent more is free until a tile is
full, and nine agents are slower than eight.
"""

from dataclasses import dataclass

from simulator import GPU, compile_trace, measure, simulate
from simulator.workload import generate


@dataclass(frozen=True)
class Tiled:
    """`base` seconds a step, and `tile` more for each eight sequences or part of eight. Prompts are free."""

    base: float
    tile: float

    @property
    def prefill_is_free(self):
        return True

    def step_seconds(self, n, context, prefill_tokens=0, prefill_context=0):
        return self.base + self.tile * -(-n // 8)

    def decode_seconds(self, n, context, k):
        return k * self.step_seconds(n, context)


gpu = GPU(cost=Tiled(base=4e-3, tile=2e-3))
print("agents  ms a step  latency s  speed-up")
for agents in (1, 4, 7, 8, 9, 12, 16, 17):
    [trace] = generate("parallel", 1, workers=agents, work=1000, takeaways=14, tag=0)
    metrics = measure(simulate(compile_trace(trace), gpu=gpu))
    step = 1000 * gpu.cost.step_seconds(agents, 0)
    print(f"{agents:6}  {step:9.1f}  {metrics.latency:9.3f}  {metrics.speedup:8.2f}")
