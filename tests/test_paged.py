"""Paged KV memory: scenes worked out by hand, and `simulate` against the block-by-block oracle."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator import GPU, ConstantRate, ExecutionGraph, LinearBatch, Protocol, compile_trace, simulate
from simulator.cost import DecodeSteps
from simulator.policy import POLICIES, Policy
from simulator.timeline import Timeline
from tests.paged_oracle import PagedResult, Stay, paged_oracle
from tests.strategies import SECONDS, any_traces, arrivals, free_graphs, protocols, traces
from tests.test_simulation_oracle import changes

LEGAL = {"nested": True, "delays": SECONDS, "unjoined": True, "prompts": True}
QUIET = {"deadline": None, "report_multiple_bugs": False, "suppress_health_check": list(HealthCheck)}


def rows_of(timeline: Timeline) -> dict[tuple[int, int, int], list[Stay]]:
    result: dict[tuple[int, int, int], list[Stay]] = {}
    for query, thread, task, *times, tokens, flags in timeline.rows.tolist():
        stays = result.setdefault((int(query), int(thread), int(task)), [])
        stays.append(Stay(*times, int(tokens), int(flags)))
    return result


def compare(timeline: Timeline, expected: PagedResult) -> None:
    rows = rows_of(timeline)
    for key in sorted(rows.keys() | expected.rows.keys()):
        assert (key, rows.get(key)) == (key, expected.rows.get(key))
    for answered, other in zip(timeline.answered.tolist(), expected.answered, strict=True):
        assert answered == other or (answered != answered and other != other)
    assert timeline.overflows.tolist() == expected.overflows
    assert tuple(sorted(each.query for each in timeline.deadlocks)) == expected.deadlocked
    assert timeline.steps == expected.steps
    assert timeline.busy == expected.busy
    assert changes(timeline.batch.tolist()) == changes(expected.batch)
    assert sorted(timeline.rows[:, 8].tolist()) == timeline.rows[:, 8].tolist(), "rows are in order of finish"


def reference(
    graphs: list[ExecutionGraph], gpu: GPU, protocol: Protocol, arrivals: list[float], policy: Policy
) -> PagedResult:
    assert gpu.num_kv_blocks is not None
    return paged_oracle(
        graphs,
        cost=gpu.cost,
        num_kv_blocks=gpu.num_kv_blocks,
        block_size=gpu.block_size,
        prefix_caching=gpu.prefix_caching,
        max_num_seqs=gpu.max_num_seqs,
        max_num_batched_tokens=gpu.max_num_batched_tokens,
        protocol=protocol,
        arrivals=arrivals,
        policy_key=policy,
    )


def blocks_needed(graph: ExecutionGraph, protocol: Protocol, block_size: int) -> int:
    """The fewest blocks that no request of `graph` is too large for."""
    context = list(graph.shared)
    largest = 1
    for task in graph.tasks:
        if task.tokens:
            context[task.thread] = max(context[task.thread] + task.prefill, 1) + task.tokens
            largest = max(largest, context[task.thread] - 1)
    if protocol.when_full == "inline":  # anybody may do anybody's work
        largest = max(largest, sum(context))
    return -(-largest // block_size)


_milli = st.integers(0, 4).map(lambda k: k * 2.0**-10)
_some = st.integers(1, 4).map(lambda k: k * 2.0**-10)
# A step of prompts alone must take time, so `a` or `p` is not 0.
_costs = st.one_of(
    st.just(DecodeSteps()),
    st.sampled_from((1.0, 0.5)).map(ConstantRate),
    st.builds(LinearBatch, _some, _milli, _milli),
    st.builds(LinearBatch, _some, _milli, _milli, _some, _milli),
    st.builds(LinearBatch, _milli, _some, _milli, _milli, _some),
)


@st.composite
def scenarios(draw: st.DrawFn) -> tuple[list[ExecutionGraph], GPU, Protocol, list[float], Policy]:
    protocol = draw(protocols())
    recorded = st.one_of(traces(min_tokens=1, prompts=True), traces(**LEGAL), any_traces())
    one = st.one_of(recorded.map(lambda trace: compile_trace(trace, protocol)), free_graphs(protocol))
    graphs = draw(st.lists(one, min_size=1, max_size=4))
    block_size = draw(st.integers(1, 4))
    least = max(blocks_needed(graph, protocol, block_size) for graph in graphs)
    seqs = draw(st.sampled_from((None, None, 1, 2, 3, 4, 8)))
    extra = draw(st.sampled_from((None, None, 0, 1, 3, 8)))
    gpu = GPU(
        cost=draw(_costs),
        max_num_seqs=seqs,
        max_num_batched_tokens=None if extra is None else extra + (seqs or 1),
        num_kv_blocks=least + draw(st.sampled_from((0, 1, 2, 3, 5, 8, 13, 30, 1000))),
        block_size=block_size,
        prefix_caching=draw(st.sampled_from((True, True, True, False))),
    )
    return graphs, gpu, protocol, draw(arrivals(gpu, len(graphs))), draw(st.sampled_from(list(POLICIES.values())))


def both(graphs: list[ExecutionGraph], gpu: GPU, protocol: Protocol, arrivals: list[float], policy: Policy) -> None:
    timeline = simulate(graphs, gpu=gpu, protocol=protocol, arrivals=arrivals, policy=policy, on_deadlock="record")
    compare(timeline, reference(graphs, gpu, protocol, arrivals, policy))


@settings(max_examples=300, **QUIET)
@given(scenarios())
def test_simulate_equals_blocks_one_by_one(scenario):
    both(*scenario)


@pytest.mark.slow
@settings(max_examples=20_000, **QUIET)
@given(scenarios())
def test_simulate_equals_blocks_one_by_one_many(scenario):
    both(*scenario)
