"""Continuous batching on scenarios small enough to be played on paper.

In the drawings a character is a second: ``o`` the organizer decodes, ``w`` a worker does, ``-`` it waits for the batch,
``.`` for a Join.
"""

from __future__ import annotations

import pytest

from simulator import (
    GPU,
    Answer,
    ConstantRate,
    Delay,
    Fork,
    Join,
    LinearBatch,
    Protocol,
    Return,
    Think,
    Thread,
    Trace,
    compile_trace,
    simulate,
)
from simulator.machine.policy import POLICIES, critical_path_first, fcfs, organizer_first, shortest_first
from tests.support.drawn import played, times, traced

ALONE = compile_trace(traced([Answer(10)]))


def test_who_comes_in_mid_leap_joins_at_the_next_boundary():
    """A step of one takes 2 s, of two 3 s; the second query arrives at 5.

    ::

                 0         1         2
                 0123456789012345678901
        query 0  o o o o  o  o o o o o       10 tokens
        query 1       -o  o
    """
    gpu = GPU(cost=LinearBatch(a=1, b=1))
    timeline = simulate([ALONE, compile_trace(traced([Answer(2)]))], gpu=gpu, arrivals=[0, 5])
    assert (played(timeline, 0), played(timeline, 1)) == ({"organizer": [(0, 22)]}, {"organizer": [(6, 12)]})
    assert timeline.latency.tolist() == [22, 7]
    assert timeline.batch.tolist() == [[0, 1], [6, 2], [12, 1], [22, 0]]
    assert (timeline.steps, timeline.busy) == (10, 22)


def test_who_comes_at_a_boundary_joins_at_once():
    timeline = simulate([ALONE, ALONE], gpu=GPU(cost=LinearBatch(a=1, b=1)), arrivals=[0, 4])
    assert played(timeline, 1) == {"organizer": [(4, 4 + 8 * 3 + 2 * 2)]}


def test_context_costs():
    """Steps over 2, 3 and 4 tokens of context take 3, 4 and 5 s."""
    graph = compile_trace(Trace("t", (Thread("organizer", (Answer(3),), prompt_tokens=2),)))
    assert simulate(graph, gpu=GPU(cost=LinearBatch(a=1, c=1))).makespan == 12


def test_chunks_of_a_prompt():
    """10 prompt tokens, 4 a step: chunks of 4, 4 and 2, the last yields the first token. Then two steps of 1 s."""
    graph = compile_trace(Trace("t", (Thread("organizer", (Answer(3),), prompt_tokens=10),)))
    timeline = simulate(graph, gpu=GPU(cost=LinearBatch(a=1, p=1), max_num_batched_tokens=4))
    assert times(timeline, 0, "start", "decode_start", "finish") == (0, 13, 15)
    whole = simulate(graph, gpu=GPU(cost=LinearBatch(a=1, p=1)))
    assert times(whole, 0, "start", "decode_start", "finish") == (0, 11, 13)
    # Attended: 4*0 + 10, 4*4 + 10, 2*8 + 3.
    quadratic = simulate(graph, gpu=GPU(cost=LinearBatch(a=1, q=1), max_num_batched_tokens=4))
    assert times(quadratic, 0, "decode_start", "finish") == (58, 60)


def test_shared_tokens_are_context_but_not_prefilled():
    graph = compile_trace(Trace("t", (Thread("organizer", (Answer(1),), prompt_tokens=10, shared_tokens=8),)))
    assert simulate(graph, gpu=GPU(cost=LinearBatch(a=1, p=1))).makespan == 3
    assert simulate(graph, gpu=GPU(cost=LinearBatch(a=1, q=1))).makespan == 1 + 2 * 8 + 3


def test_prompts_share_a_step_in_order_of_admission():
    """4 tokens a step: (4 of A), (2 of A, 2 of B), (A decodes, 1 of B), (B decodes)."""
    graphs = [compile_trace(Trace("t", (Thread("organizer", (Answer(2),), prompt_tokens=n),))) for n in (6, 3)]
    timeline = simulate(graphs, gpu=GPU(cost=LinearBatch(a=1, p=1), max_num_batched_tokens=4))
    assert timeline.column("decode_start").tolist() == [10, 12]
    assert timeline.answered.tolist() == [12, 13]


def test_inserted_text_is_prefilled_after_the_join_unless_nobody_returned_it():
    """Prompt tokens take 1 s each: the Join inserts 5."""
    graph = compile_trace(traced([Fork(1, 1), Join(1, 0, 5), Answer(2)], w1=[Return(2)]))
    gpu = GPU(cost=LinearBatch(a=1, p=1))
    assert times(simulate(graph, gpu=gpu), 2, "ready", "decode_start", "finish") == (3, 9, 10)
    for when_full, ready in (("drop", 1), ("inline", 3)):
        timeline = simulate(graph, gpu=gpu, protocol=Protocol(capacity=1, when_full=when_full))
        assert times(timeline, 2, "ready", "decode_start", "finish") == (ready, ready, ready + 2)


def test_what_a_worker_without_a_slot_does_not_insert_costs_no_steps_either():
    """Worker 1 is dropped, so its Join decodes nothing, and the next task is no faster admitted than any other."""
    protocol = Protocol(capacity=1, when_full="drop", charge_inserted=True)
    actions = [Fork(1), Delay(0.5), Join(1, 0, 5), Fork(2), Answer(2)]
    graph = compile_trace(traced(actions, w1=[Return(2)], w2=[Return(2)]), protocol)
    other = compile_trace(traced([Answer(3)]), protocol)
    timeline = simulate([graph, other], gpu=GPU(cost=ConstantRate(1)), protocol=protocol)
    assert played(timeline, 0) == {"organizer": [(0, 0.5), (1, 3)]}
    assert played(timeline, 1) == {"organizer": [(0, 3)]}
    alone = simulate([graph, other], gpu=GPU(cost=ConstantRate(1), max_num_seqs=1), protocol=protocol)
    assert played(alone, 0) == {"organizer": [(0, 0.5), (3, 5)]}


@pytest.mark.parametrize("charge", [False, True])
def test_an_inline_worker_reads_no_prompt_but_all_that_is_inserted(charge):
    """Its prompt of 4 is in the organizer's context; the 3 tokens that follow a Join of nobody are not."""
    protocol = Protocol(capacity=1, when_full="inline", charge_inserted=charge)
    worker = Thread("1", (Join(7, 0, 3), Return(1)), prompt_tokens=4)
    graph = compile_trace(Trace("t", (Thread("organizer", (Fork(1, 1), Answer(1))), worker)), protocol)
    timeline = simulate(graph, gpu=GPU(cost=LinearBatch(a=1, p=1)), protocol=protocol.with_(after_answer="finish"))
    assert timeline.makespan == 6  # 1, then 3 prompt tokens and a step or 3 + 1 steps, then 1


def test_an_inline_workers_prompt_is_not_read_where_inserted_tokens_are_charged():
    """The organizer decodes 1 token, then 1 for 2.1, then 1 for 2 (not the 3 that 2.1 would have returned), then 1."""
    protocol = Protocol(capacity=2, when_full="inline", charge_inserted=True)
    worker = Thread("2", (Fork(1), Join(1, 0, 3), Return(1)), prompt_tokens=4)
    holder = Thread("1", (Delay(1e3), Return(1)))
    organizer = Thread("organizer", (Fork(1), Fork(2, 1), Answer(1)))
    graph = compile_trace(Trace("t", (organizer, holder, worker, Thread("2.1", (Return(1),)))), protocol)
    timeline = simulate(graph, gpu=GPU(cost=LinearBatch(a=1, p=1)), protocol=protocol)
    assert timeline.answered[0] == 4


def test_one_place_a_fork_does_not_lose_it():
    """::

               01234567
    organizer  oooo...o
    worker 1     --www
    """
    graph = compile_trace(traced([Fork(1, 2), Think(2), Join(1), Answer(1)], w1=[Return(3)]))
    timeline = simulate(graph, gpu=GPU(max_num_seqs=1))
    assert played(timeline) == {"organizer": [(0, 2), (2, 4), (7, 8)], "1": [(4, 7)]}
    assert times(timeline, 1, "ready", "start") == (2, 4)


def test_a_join_loses_it_even_of_a_worker_that_has_ended():
    """The other query has waited since 2, the organizer asks anew at 4; worker 1 is of no tokens.

    ::

                   012345678
        organizer  oooo----o
        other        --oooo
    """
    graph = compile_trace(traced([Fork(1, 1), Think(3), Join(1), Answer(1)], w1=[Return()]))
    other = compile_trace(traced([Answer(4)]))
    timeline = simulate([graph, other], gpu=GPU(max_num_seqs=1), arrivals=[0, 2])
    assert played(timeline, 0) == {"organizer": [(0, 1), (1, 4), (8, 9)]}
    assert played(timeline, 1) == {"organizer": [(4, 8)]}


def test_two_places_in_order_of_query():
    """::

             01234
    query 0  ooo
    query 1  oo
    query 2  --oo
    """
    timeline = simulate([compile_trace(traced([Answer(n)])) for n in (3, 2, 2)], gpu=GPU(max_num_seqs=2))
    assert timeline.answered.tolist() == [3, 2, 4]


ORDERS = {
    fcfs: [3, 8, 9],
    organizer_first: [3, 8, 9],
    critical_path_first: [8, 5, 9],
    shortest_first: [4, 9, 1],
}
"""When queries of 3, 5 and 1 tokens that come together are answered one at a time."""


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_a_policy_orders_what_waits(policy):
    graphs = [compile_trace(traced([Answer(n)])) for n in (3, 5, 1)]
    assert simulate(graphs, gpu=GPU(max_num_seqs=1), policy=policy).answered.tolist() == ORDERS[policy]


def test_a_policy_takes_nothing_out():
    graphs = [compile_trace(traced([Answer(n)])) for n in (5, 3, 1)]
    late = simulate(graphs, gpu=GPU(max_num_seqs=1), policy=shortest_first, arrivals=[0, 1, 2])
    assert late.answered.tolist() == [5, 9, 6]


def test_the_keys_of_policies():
    """::

    1 [0] ------ 2 [5] --------------------- 1 [6]
         `- 2 [1] ----- 1 [3] ----- 2 [4] -'
                 `----- 6 [2] -----'
    """
    graph = compile_trace(
        traced(
            [Fork(1, 1), Think(2), Join(1), Answer(1)],
            w1=[Think(1), Fork(1, 1), Think(1), Join(1), Return(2)],
            w1_1=[Return(6)],
        )
    )
    assert list(critical_path_first(graph)) == [-12, -11, -9, -4, -3, -3, -1]
    assert list(organizer_first(graph)) == [0, 1, 2, 1, 1, 0, 0]
    assert list(shortest_first(graph)) == [1, 2, 6, 1, 2, 2, 1]
    assert len(set(fcfs(graph))) == 1
