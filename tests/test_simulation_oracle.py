"""`simulate` against the oracle: two programs written from one page must say the same, to the bit."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator import GPU, ExecutionGraph, LinearBatch, Protocol, Trace, compile_trace, simulate
from simulator.graph import Task
from simulator.policy import POLICIES, Policy, fcfs
from simulator.protocol import WHEN_FULL
from simulator.timeline import CANCELLED, INLINE, Timeline
from simulator.trace import Delay
from tests.oracle import oracle
from tests.oracle_state import OracleResult, Row
from tests.strategies import SECONDS, any_traces, arrivals, free_graphs, gpus, protocols, traces

LEGAL = {"nested": True, "delays": SECONDS, "unjoined": True, "prompts": True}
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]


def rows_of(timeline: Timeline) -> dict[tuple[int, int, int], Row]:
    result = {}
    for query, thread, task, *times, tokens, flags, _ in timeline.rows.tolist():
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


def both(
    graphs: list[ExecutionGraph], gpu: GPU, protocol: Protocol, arrivals: list[float], policy: Policy
) -> tuple[Timeline, OracleResult]:
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
    return timeline, expected


@st.composite
def scenarios(draw):
    protocol = draw(protocols())
    recorded = st.one_of(traces(min_tokens=1, prompts=True), traces(**LEGAL), any_traces())
    one = st.one_of(recorded.map(lambda trace: compile_trace(trace, protocol)), free_graphs(protocol))
    graphs = draw(st.lists(one, min_size=1, max_size=3))
    gpu = draw(gpus())
    return graphs, gpu, protocol, draw(arrivals(gpu, len(graphs))), draw(st.sampled_from(list(POLICIES.values())))


@settings(max_examples=1500, suppress_health_check=QUIET)
@given(scenarios())
def test_simpy_equals_heapq(scenario):
    compare(*both(*scenario))


@pytest.mark.slow
@settings(max_examples=12_000, suppress_health_check=QUIET)
@given(scenarios())
def test_simpy_equals_heapq_many(scenario):
    compare(*both(*scenario))


def test_joins_by_another_thread_than_the_parent():
    """Task 6 of thread 1 awaits 4, which thread 2 forks and the full pool drops, and then 3: its slot is free for 5."""
    tasks = (
        Task(0, 1, forks=(1, 2, 3)),
        Task(1, 1),
        Task(3, 1),
        Task(2, 5, forks=(4,)),
        Task(2, 1),
        Task(4, 3),
        Task(1, 9, joins=(4, 3)),
        Task(0, 8, forks=(5,)),
        Task(5, 2),
        Task(0, 1),
    )
    for when_full in WHEN_FULL:
        protocol = Protocol(capacity=4, when_full=when_full, release="join", after_answer="finish")
        graph = ExecutionGraph(tasks, tuple("012345"), (0,) * 6, (0,) * 6, protocol)
        compare(*both([graph], GPU(), protocol, [0.0], fcfs))


def longer(trace: Trace, times: int) -> Trace:
    """The same trace with every action `times` as many tokens."""
    threads = []
    for thread in trace.threads:
        actions = (
            action if isinstance(action, Delay) else msgspec.structs.replace(action, tokens=action.tokens * times)
            for action in thread.actions
        )
        threads.append(msgspec.structs.replace(thread, actions=tuple(actions)))
    return msgspec.structs.replace(trace, threads=tuple(threads))


@settings(max_examples=150, suppress_health_check=QUIET)
@given(
    # Without Delays: 0.5 + 0.5 and 1.0 seconds later is one time in one program and two in the other.
    st.lists(traces(nested=True, unjoined=True, prompts=True), min_size=1, max_size=3),
    protocols(charge_inserted=False),
    st.sampled_from((None, 1, 2, 4)),
    st.sampled_from((None, 4, 64)),
    st.booleans(),
    st.data(),
)
def test_long_leaps_equal_steps_taken_one_by_one(recorded, protocol, places, budget, prefill, data):
    """Costs as measured, hundreds of tokens: a leap sums in one formula what the oracle adds up step by step."""
    cost = LinearBatch(6.1e-3, 1.3e-5, 4.7e-8, *((1.1e-5, 3e-10) if prefill else ()))
    gpu = GPU(cost=cost, max_num_seqs=places, max_num_batched_tokens=budget)
    times = data.draw(st.lists(st.floats(0, 3), min_size=len(recorded), max_size=len(recorded)))
    graphs = [compile_trace(longer(trace, 29)) for trace in recorded]
    timeline, expected = both(graphs, gpu, protocol, times, fcfs)
    rows = rows_of(timeline)
    assert rows.keys() == expected.rows.keys()
    for key, row in rows.items():
        assert row[:6] == pytest.approx(expected.rows[key][:6], rel=1e-9)
        assert row[6:] == expected.rows[key][6:]
    assert timeline.overflows.tolist() == expected.overflows
    assert timeline.steps == expected.steps
    assert timeline.busy == pytest.approx(expected.busy, rel=1e-9)
