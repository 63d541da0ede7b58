"""Limits that queries share, on paper: users of a closed loop, workers of all queries, prompt tokens of a step."""

from __future__ import annotations

import pytest

from simulator import (
    GPU,
    Answer,
    ClosedLoop,
    ConfigError,
    DeadlockError,
    ExecutionGraph,
    Fork,
    Join,
    LinearBatch,
    Protocol,
    Return,
    Think,
    Thread,
    Trace,
    compile_trace,
    decode_clock,
    simulate,
)
from simulator.workload import generate


def one_thread(tokens: int, prompt: int = 0) -> ExecutionGraph:
    return compile_trace(Trace("t", (Thread("organizer", (Answer(tokens),), prompt),)))


def test_closed_loop_of_two_users():
    """Each of 5 queries takes 3, 1, 2, 2, 1 steps, whoever else runs.

    user 1   0 0 0 2 2 4
    user 2   1 . . .     query 2 arrives when 1 is answered, at 1: user 2 has 2 until 3, then 3 or 4
    """
    graphs = [one_thread(n) for n in (3, 1, 2, 2, 1)]
    timeline = simulate(graphs, arrivals=ClosedLoop(2))
    assert timeline.arrivals.tolist() == [0, 0, 1, 3, 3]
    assert timeline.answered.tolist() == [3, 1, 3, 5, 4]
    assert timeline.makespan == 5
    pausing = simulate(graphs, arrivals=ClosedLoop(2, think=0.5))
    assert pausing.arrivals.tolist() == [0, 0, 1.5, 3.5, 4.5]  # each then waits half a step for the one under way
    assert pausing.answered.tolist() == [3, 1, 4, 6, 6]
    assert simulate(graphs, arrivals=ClosedLoop(9)).arrivals.tolist() == [0] * 5


def test_closed_loop_of_one_user_is_each_query_alone():
    graphs = [compile_trace(trace) for trace in generate("random_organizer", 8, seed=3)]
    timeline = simulate(graphs, arrivals=ClosedLoop(1))
    alone = [simulate(graph).latency[0] for graph in graphs]
    assert timeline.latency.tolist() == pytest.approx(alone)
    assert timeline.arrivals.tolist() == [0, *timeline.answered.tolist()[:-1]]


def test_max_workers_holds_over_all_queries():
    """Two queries fork two workers of 4 each at step 2; three run at once; the fourth waits for the first that ends.

    q0 organizer  2 F F J J 1      workers 1: 2-6, 2: 2-6
    q1 organizer  2 F F J J 1      workers 1: 2-6, 2: 6-10
    """
    organizer = Thread("organizer", (Think(2), Fork(1), Fork(2), Join(1), Join(2), Answer(1)))
    graph = compile_trace(Trace("t", (organizer, Thread("1", (Return(4),)), Thread("2", (Return(4),)))))
    timeline = simulate([graph, graph], max_workers=3)
    assert timeline.answered.tolist() == [7, 11]
    last = next(row for row in timeline.stays() if row[:2] == (1, 2))
    assert last[3:9] == (2, 6, 6, 6, 6, 10)  # forked at 2, has its place at 6
    assert simulate([graph, graph], max_workers=4).answered.tolist() == [7, 7]
    assert simulate([graph, graph], max_workers=1).answered.tolist() == [11, 19]


def test_answer_gives_back_the_places_of_cancelled_workers():
    """The first query answers at 3 and never joins its worker of 100 steps; the second's worker then has its place."""
    leaving = compile_trace(Trace("a", (Thread("organizer", (Fork(1, 1), Answer(2))), Thread("1", (Return(100),)))))
    staying = compile_trace(
        Trace("b", (Thread("organizer", (Fork(1, 2), Join(1), Answer(1))), Thread("1", (Return(5),))))
    )
    timeline = simulate([leaving, staying], max_workers=1)
    assert timeline.answered.tolist() == [3, 9]


def test_nested_workers_can_deadlock_over_places():
    threads = (
        Thread("organizer", (Fork(1, 1), Join(1), Answer(1))),
        Thread("1", (Fork(1, 1), Join(1), Return(1))),
        Thread("1.1", (Return(1),)),
    )
    graph = compile_trace(Trace("t", threads))
    assert simulate(graph, max_workers=2).makespan == 5
    with pytest.raises(DeadlockError, match=r"1\.1 waits for one of the max_workers seats, and all are taken"):
        simulate(graph, max_workers=1)


def test_max_prefill_tokens_are_beside_the_decodes():
    """Steps of 1 s and 1 s a prompt token. Query 0 decodes 9 tokens; query 1 has a prompt of 5, two tokens a step.

    step          1  2    3    4    5 ...
    query 0       1  1    1    1    1
    query 1       2  2    1+1  1
    """
    gpu = GPU(cost=LinearBatch(a=1, p=1), max_prefill_tokens=2)
    timeline = simulate([one_thread(9), one_thread(2, 5)], gpu=gpu)
    assert timeline.answered.tolist() == [14, 9]  # 3 + 3 + 2 + 1; then five more steps
    with pytest.raises(ConfigError, match="max_prefill_tokens must be a whole number from 1"):
        GPU(max_prefill_tokens=0)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3"])
def test_max_workers_is_checked(value):
    with pytest.raises(ConfigError, match="max_workers must be a whole number from 1"):
        simulate(one_thread(1), max_workers=value)


def test_a_fork_in_the_organizers_last_task_counts_on_both_clocks():
    """The pool of 2 is full at the end; the clock and the simulation both count the overflow."""
    trace = Trace(
        "t", (Thread("organizer", (Fork(1, 1), Fork(2, 1))), Thread("1", (Return(9),)), Thread("2", (Return(9),)))
    )
    protocol = Protocol(capacity=2)
    timeline = simulate(compile_trace(trace, protocol))
    assert timeline.overflows.tolist() == [decode_clock(trace, protocol).overflows] == [1]
    assert timeline.answered.tolist() == [2]
