"""`simulate` against the oracle: two programs written from one page must say the same, to the bit."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import GPU, ConstantRate, ExecutionGraph, LinearBatch, Protocol, Trace, compile_trace
from simulator.graph import GraphThread, Task
from simulator.trace import Delay
from simulator.trace.protocol import WHEN_FULL
from tests.support.engine_scenarios import QUIET, Scenario, agree, scenarios
from tests.support.strategies import protocols, traces

one_gpu = scenarios(paged=False, clusters=False, most=3)


@settings(max_examples=300, **QUIET)
@given(one_gpu)
def test_simpy_equals_heapq(scenario: Scenario):
    agree(scenario)


@pytest.mark.slow
@settings(max_examples=6_000, **QUIET)
@given(one_gpu)
def test_simpy_equals_heapq_many(scenario: Scenario):
    agree(scenario)


def test_a_join_awaits_a_dropped_worker_then_frees_a_slot():
    """The organizer's third task awaits 4, which a full pool may drop, and then 3: its slot is free for 5."""
    tasks = (
        Task(0, 1, forks=(1, 2, 3)),
        Task(1, 10),
        Task(3, 1),
        Task(2, 5),
        Task(0, 5, forks=(4,)),
        Task(4, 3),
        Task(0, 9, joins=(4, 3)),
        Task(0, 8, forks=(5,)),
        Task(5, 2),
        Task(0, 1),
    )
    for when_full in WHEN_FULL:
        protocol = Protocol(capacity=4, when_full=when_full, release="join", after_answer="finish")
        graph = ExecutionGraph(tasks, tuple(map(GraphThread, "012345")), protocol)
        agree(Scenario([graph], protocol=protocol))


def test_slots_freed_by_joins_of_one_instant():
    """The organizer joins 2 and 1 at once, and each slot goes to a Fork that its parent is blocked on."""
    tasks = (
        Task(0, 1, forks=(1, 2, 3)),
        Task(1, 2),
        Task(2, 2),
        Task(3, 1, forks=(4, 5)),
        Task(0, seconds=1.0),
        Task(4),
        Task(5),
        Task(0, joins=(2, 1)),
        Task(3, joins=(5, 4)),
        Task(0, 1, joins=(3,)),
    )
    protocol = Protocol(capacity=4, when_full="block", release="join")
    graph = ExecutionGraph(tasks, tuple(map(GraphThread, "012345")), protocol)
    agree(Scenario([graph], GPU(cost=ConstantRate(2.0)), protocol))


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


@settings(max_examples=100, **QUIET)
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
    scenario = Scenario(graphs, gpu, protocol, times)
    timeline, expected = scenario.simulate(), scenario.oracle()
    # Times differ by a rounding, so rows that finish at once come in any order.
    rows, others = sorted(timeline.rows.tolist()), sorted(expected.rows)
    assert len(rows) == len(others)
    for row, other in zip(rows, others, strict=True):
        assert (row[:3], row[9:12]) == (other[:3], other[9:12])
        assert row[3:9] + row[12:] == pytest.approx(other[3:9] + other[12:], rel=1e-9)
    assert timeline.overflows.tolist() == expected.overflows
    assert timeline.steps == expected.replicas[0].steps
    assert timeline.busy == pytest.approx(expected.replicas[0].busy, rel=1e-9)
