"""Scenarios for `simulate` and the oracle, and what both must agree on.

A scenario is everything that `simulate` takes. All its times are multiples of 2^-12, so that sums are exact, and the
two programs must agree to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

import numpy as np
from hypothesis import HealthCheck
from hypothesis import strategies as st

from simulator import GPU, ClosedLoop, Cluster, ExecutionGraph, LinearBatch, Protocol, Timeline, compile_trace, simulate
from simulator.engine.run import Run
from simulator.machine.cost import ConstantRate, CostModel, DecodeSteps
from simulator.machine.policy import POLICIES
from simulator.machine.routing import ROUTINGS
from simulator.trace.full_pool import WHEN_FULL, Admission
from tests.support.oracle import oracle
from tests.support.oracle_state import OracleResult, Row
from tests.support.strategies import SECONDS, TICK, any_traces, arrivals, free_graphs, protocols, traces

QUIET: dict[str, Any] = {
    "deadline": None,
    "report_multiple_bugs": False,
    "suppress_health_check": list(HealthCheck),
}
LEGAL: dict[str, Any] = {"nested": True, "delays": SECONDS, "unjoined": True, "prompts": True}


@dataclass(frozen=True)
class Scenario:
    """What is simulated; the fields are those of `simulate`, but for names in place of functions."""

    graphs: Sequence[ExecutionGraph]
    gpu: GPU | Cluster = field(default_factory=GPU)
    protocol: Protocol = field(default_factory=Protocol)
    arrivals: Sequence[float] | ClosedLoop = (0.0,)
    policy: str = "fcfs"
    max_workers: int | None = None
    routing: str = "least-loaded"

    @property
    def replicas(self) -> Sequence[GPU]:
        return self.gpu.replicas if isinstance(self.gpu, Cluster) else (self.gpu,)

    def run(self) -> Run:
        """The simulation before its first event, for tests that look into it."""
        cluster = self.gpu if isinstance(self.gpu, Cluster) else Cluster(replicas=[self.gpu])
        times = self.arrivals if isinstance(self.arrivals, ClosedLoop) else np.asarray(self.arrivals, dtype=float)
        graphs, policy = tuple(self.graphs), POLICIES[self.policy]
        return Run(graphs, cluster, self.protocol, times, policy, self.max_workers)

    def simulate(self) -> Timeline:
        return simulate(
            self.graphs,
            gpu=self.gpu,
            protocol=self.protocol,
            arrivals=self.arrivals,
            policy=POLICIES[self.policy],
            max_workers=self.max_workers,
            on_deadlock="record",
        )

    def oracle(self) -> OracleResult:
        return oracle(
            self.graphs,
            gpu=self.gpu,
            routing=self.routing,
            protocol=self.protocol,
            arrivals=self.arrivals,
            policy=POLICIES[self.policy],
            max_workers=self.max_workers,
        )


def agree(scenario: Scenario) -> OracleResult:
    """Run both, and compare them to the bit. Return what they say."""
    timeline, expected = scenario.simulate(), scenario.oracle()
    for row, other in zip_longest([Row(*row) for row in timeline.rows.tolist()], expected.rows):
        assert row == other
    for name in ("arrivals", "first_token", "answered"):
        for time, other in zip(getattr(timeline, name).tolist(), getattr(expected, name), strict=True):
            assert time == other or (time != time and other != other), name
    assert timeline.overflows.tolist() == expected.overflows
    assert tuple(sorted(each.query for each in timeline.deadlocks)) == expected.deadlocked
    for replica, other in zip(timeline.replicas, expected.replicas, strict=True):
        assert (replica.steps, replica.busy) == (other.steps, other.busy)
        assert changes(replica.batch.tolist()) == changes(other.batch)
        begins, ends = ({step[i]: step[2] for step in other.pinned} for i in (0, 1))
        steps = iter(replica.kv.tolist())
        for (begin, first), (end, last) in zip(steps, steps, strict=True):
            assert (first, last) == (begins.pop(begin), ends[end])
        assert len(replica.kv) <= 2 * len(other.pinned)
        assert bool(len(replica.kv)) == bool(other.pinned)
    together: dict[float, float] = {}
    for other in expected.replicas:
        before = 0
        for time, n in changes(other.batch):
            together[time] = together.get(time, 0) + n - before
            before = n
    n, sizes = 0, []
    for time in sorted(together):
        n += together[time]
        sizes.append((time, n))
    assert changes(timeline.batch.tolist()) == changes(sizes)
    return expected


def changes(batch: Sequence[Sequence[float]]) -> list[tuple[float, int]]:
    """Batch sizes from time to time, where they change: the last word at an instant counts."""
    at = {float(time): int(n) for time, n in batch}
    result: list[tuple[float, int]] = []
    for time in sorted(at):
        if at[time] != (result[-1][1] if result else 0):
            result.append((time, at[time]))
    return result


def blocks_needed(graph: ExecutionGraph, protocol: Protocol, block_size: int) -> int:
    """The fewest blocks that no request of `graph` is too large for."""
    context = [thread.shared for thread in graph.threads]
    largest = 1
    for task in graph.tasks:
        if task.tokens:
            context[task.thread] = max(context[task.thread] + task.prefill, 1) + task.tokens
            largest = max(largest, context[task.thread] - 1)
    if Admission.INLINE in WHEN_FULL[protocol.when_full].may:  # anybody may do anybody's work
        largest = max(largest, sum(context))
    return -(-largest // block_size)


_milli = st.integers(0, 4).map(lambda k: k * 2.0**-10)
_some = st.integers(1, 4).map(lambda k: k * 2.0**-10)
_steps = st.just(DecodeSteps())
# A step of prompts alone must take time, so `a` or `p` is not 0.
_seconds = st.one_of(
    st.sampled_from((1.0, 0.5, 2.0)).map(ConstantRate),
    st.builds(LinearBatch, _some, _milli, _milli),
    st.builds(LinearBatch, _some, _milli, _milli, _some, _milli),
    st.builds(LinearBatch, _milli, _some, _milli, _milli, _some),
)


@st.composite
def machines(
    draw: st.DrawFn,
    cost: st.SearchStrategy[CostModel],
    graphs: Sequence[ExecutionGraph],
    protocol: Protocol,
    paged: bool,
) -> GPU:
    """A GPU, with KV memory that is just enough for the largest request of `graphs`, or more, if `paged`."""
    seqs = draw(st.sampled_from((None, None, 1, 2, 3, 4, 8)))
    extra = draw(st.sampled_from((None, None, 0, 1, 3, 8)))
    gpu = GPU(
        cost=draw(cost),
        max_num_seqs=seqs,
        max_num_batched_tokens=None if extra is None else extra + (seqs or 1),
        max_prefill_tokens=draw(st.sampled_from((None, None, None, 1, 2, 5))),
    )
    if not paged:
        return gpu
    block_size = draw(st.integers(1, 4))
    least = max(blocks_needed(graph, protocol, block_size) for graph in graphs)
    return replace(
        gpu,
        num_kv_blocks=least + draw(st.sampled_from((0, 1, 2, 3, 5, 8, 13, 30, 1000))),
        block_size=block_size,
        prefix_caching=draw(st.sampled_from((True, True, True, False))),
    )


@st.composite
def conversations(draw: st.DrawFn, graphs: list[ExecutionGraph]) -> list[ExecutionGraph]:
    """`graphs` with names that come twice, and prefixes of others: earlier, later, itself, or nobody."""
    names = st.sampled_from("aabc")
    return [
        replace(
            graph,
            name=draw(names),
            prefix_of=draw(st.sampled_from((None, "a", "b", "c", "nobody"))),
            threads=(
                graph.threads[0]._replace(shared=draw(st.sampled_from((0, 1, 2, 3, 5, 9, 14)))),
                *graph.threads[1:],
            ),
        )
        for graph in graphs
    ]


@st.composite
def scenarios(
    draw: st.DrawFn,
    *,
    paged: bool | None = None,
    clusters: bool = True,
    routing: str | None = None,
    most: int = 4,
    **fixed: Any,
) -> Scenario:
    """Scenarios of every kind; `paged`: all replicas have KV memory, or none. `fixed` is of the protocol."""
    protocol = draw(protocols(**fixed))
    recorded = st.one_of(traces(min_tokens=1, prompts=True), traces(**LEGAL), any_traces())
    one = st.one_of(recorded.map(lambda trace: compile_trace(trace, protocol)), free_graphs(protocol))
    graphs = draw(st.lists(one, min_size=1, max_size=most))
    if draw(st.booleans()):
        graphs = draw(conversations(graphs))
    cost = draw(st.sampled_from((_steps, _seconds, _seconds, _seconds)))
    n = draw(st.sampled_from((2, 2, 3) if routing else (0, 1, 2, 2, 3))) if clusters else 0
    paging = st.booleans() if paged is None else st.just(paged)
    replicas = [draw(machines(cost, graphs, protocol, draw(paging))) for _ in range(max(n, 1))]
    if n and draw(st.booleans()):
        replicas = replicas[:1] * n
    routing = routing or (draw(st.sampled_from(list(ROUTINGS))) if n else "least-loaded")
    times: list[float] | ClosedLoop = draw(arrivals(replicas[0], len(graphs)))
    if draw(st.sampled_from((False, False, True))):
        times = ClosedLoop(draw(st.integers(1, 3)), draw(st.sampled_from((0.0, 0.0, 0.5, 1.0, 5 * TICK))))
    return Scenario(
        graphs,
        Cluster(replicas=replicas, routing=ROUTINGS[routing]) if n else replicas[0],
        protocol,
        times,
        draw(st.sampled_from(list(POLICIES))),
        draw(st.sampled_from((None, None, 1, 2, 3))),
        routing,
    )
