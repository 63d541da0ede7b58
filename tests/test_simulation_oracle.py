"""`simulate` against the oracle: two programs written from one page must say the same, to the bit."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator import GPU, ExecutionGraph, Protocol, compile_trace, simulate
from simulator.policy import POLICIES, Policy
from simulator.timeline import CANCELLED, INLINE, Timeline
from tests.oracle import OracleResult, Row, oracle
from tests.strategies import SECONDS, any_traces, arrivals, free_graphs, gpus, protocols, traces

LEGAL = {"nested": True, "delays": SECONDS, "unjoined": True, "prompts": True}
QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}


def rows_of(timeline: Timeline) -> dict[tuple[int, int, int], Row]:
    result = {}
    for query, thread, task, *times, tokens, flags in timeline.rows.tolist():
        key = (int(query), int(thread), int(task))
        assert key not in result, f"task {key} ran twice"
        result[key] = Row(*times, int(tokens), bool(int(flags) & CANCELLED), bool(int(flags) & INLINE))
    return result


def compare(timeline: Timeline, expected: OracleResult) -> None:
    rows = rows_of(timeline)
    for key in sorted(rows.keys() | expected.rows.keys()):
        assert (key, rows.get(key)) == (key, expected.rows.get(key))
    same = [(a, b) for a, b in zip(timeline.answered.tolist(), expected.answered, strict=True) if a == a or b == b]
    assert all(a == b for a, b in same), same
    assert timeline.overflows.tolist() == expected.overflows
    assert tuple(sorted(each.query for each in timeline.deadlocks)) == expected.deadlocked
    assert timeline.steps == expected.steps
    assert timeline.busy == expected.busy
    assert changes(timeline.batch.tolist()) == changes(expected.batch)
    assert sorted(timeline.rows[:, 8].tolist()) == timeline.rows[:, 8].tolist(), "rows are in order of finish"


def changes(batch: list) -> list[tuple[float, int]]:
    """Batch sizes from time to time, where they change: the last word at an instant counts."""
    at = {float(time): int(n) for time, n in batch}
    result: list[tuple[float, int]] = []
    for time in sorted(at):
        if at[time] != (result[-1][1] if result else 0):
            result.append((time, at[time]))
    return result


def both(graphs: list[ExecutionGraph], gpu: GPU, protocol: Protocol, arrivals: list[float], policy: Policy) -> None:
    timeline = simulate(graphs, gpu=gpu, protocol=protocol, arrivals=arrivals, policy=policy, on_deadlock="record")
    expected = oracle(
        graphs,
        cost=gpu.cost,
        max_num_seqs=gpu.max_num_seqs,
        max_num_batched_tokens=gpu.max_num_batched_tokens,
        protocol=protocol,
        arrivals=arrivals,
        policy_key=policy,
    )
    compare(timeline, expected)


@st.composite
def scenarios(draw):
    protocol = draw(protocols())
    recorded = st.one_of(traces(min_tokens=1, prompts=True), traces(**LEGAL), any_traces())
    one = st.one_of(recorded.map(lambda trace: compile_trace(trace, protocol)), free_graphs(protocol))
    graphs = draw(st.lists(one, min_size=1, max_size=3))
    gpu = draw(gpus())
    return graphs, gpu, protocol, draw(arrivals(gpu, len(graphs))), draw(st.sampled_from(list(POLICIES.values())))


@settings(max_examples=1500, **QUIET)
@given(scenarios())
def test_simpy_equals_heapq(scenario):
    both(*scenario)


@pytest.mark.slow
@settings(max_examples=60_000, **QUIET)
@given(scenarios())
def test_simpy_equals_heapq_many(scenario):
    both(*scenario)
