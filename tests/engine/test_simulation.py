"""The simulation on scenarios small enough to be played on paper.

In the drawings a character is a second: ``o`` the organizer decodes, ``w`` a worker does, ``d`` passes a Delay, ``p``
waits for a slot, ``b`` is blocked or busy for its worker, ``-`` waits for the batch, ``.`` waits for a Join.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from simulator import (
    GPU,
    Answer,
    ConfigError,
    ConstantRate,
    DeadlockError,
    Delay,
    Fork,
    GraphError,
    Join,
    LinearBatch,
    Protocol,
    Return,
    Think,
    Thread,
    Timeline,
    Trace,
    compile_trace,
    simulate,
)
from tests.support.drawn import played, times, traced

ALONE = compile_trace(traced([Answer(10)]))
PAIR = compile_trace(
    traced([Fork(1, 1), Fork(2, 1), Think(2), Join(1), Join(2), Answer(1)], w1=[Return(4)], w2=[Return(3)])
)

# A full pool. Fork 2 at second 2 finds the one slot of PAIR taken by worker 1.


def full(when_full: str) -> Timeline:
    timeline = simulate(PAIR, protocol=Protocol(capacity=2, when_full=when_full))
    assert timeline.overflows.tolist() == [1]
    return timeline


def test_allow():
    """::

               0123456
    organizer  oooo.o
    worker 1    wwww
    worker 2     www
    """
    timeline = full("allow")
    assert played(timeline) == {"organizer": [(0, 1), (1, 2), (2, 4), (5, 6)], "1": [(1, 5)], "2": [(2, 5)]}
    assert simulate(PAIR).rows.tolist() == timeline.rows.tolist()


def test_queue():
    """::

               0123456789
    organizer  oooo....o
    worker 1    wwww
    worker 2     pppwww
    """
    timeline = full("queue")
    assert played(timeline) == {"organizer": [(0, 1), (1, 2), (2, 4), (8, 9)], "1": [(1, 5)], "2": [(5, 8)]}
    assert times(timeline, 3, "waited_from", "granted", "ready", "start") == (2, 5, 5, 5)


def test_block():
    """::

               0123456789
    organizer  oobbboo.o
    worker 1    wwww
    worker 2     pppwww
    """
    timeline = full("block")
    assert played(timeline) == {"organizer": [(0, 1), (1, 2), (5, 7), (8, 9)], "1": [(1, 5)], "2": [(5, 8)]}
    assert times(timeline, 4, "waited_from", "granted", "ready") == (2, 5, 5)


def test_inline():
    """::

               012345678
    organizer  oobbboo o       busy for worker 2
    worker 1    wwww
    worker 2     www           in the organizer's place
    """
    timeline = full("inline")
    assert played(timeline) == {"organizer": [(0, 1), (1, 2), (5, 7), (7, 8)], "1": [(1, 5)], "2^": [(2, 5)]}
    assert times(timeline, 4, "waited_from", "granted", "ready") == (2, 2, 5)


def test_drop():
    """::

               0123456
    organizer  oooo.o
    worker 1    wwww
    """
    timeline = full("drop")
    assert played(timeline) == {"organizer": [(0, 1), (1, 2), (2, 4), (5, 6)], "1": [(1, 5)]}
    assert timeline.column("tokens").sum() == 9


def test_the_first_to_wait_gets_the_first_slot():
    """::

               0123456789
    organizer  ooo......o
    worker 1    www
    worker 2     ppwww
    worker 3      ppppww
    """
    actions = [Fork(1, 1), Fork(2, 1), Fork(3, 1), Join(1), Join(2), Join(3), Answer(1)]
    graph = compile_trace(traced(actions, w1=[Return(3)], w2=[Return(3)], w3=[Return(2)]))
    timeline = simulate(graph, protocol=Protocol(capacity=2))
    assert played(timeline)["2"] == [(4, 7)]
    assert played(timeline)["3"] == [(7, 9)]
    assert (timeline.overflows.tolist(), timeline.makespan) == ([2], 10)


def test_at_one_time_threads_fork_in_their_order():
    """At 2 both workers fork, worker 1 with the step that ends its prompt; 1.1 is first at the one slot left.

    ::

                    01234
        worker 1    ww
        worker 1.1    ww
        worker 2    ww
        worker 2.1    ppw
    """
    threads = (
        Thread("organizer", (Fork(1), Fork(2), Join(1), Join(2))),
        Thread("1", (Fork(1, 1), Join(1)), prompt_tokens=1),
        Thread("1.1", (Return(2),)),
        Thread("2", (Fork(1, 1), Join(1))),
        Thread("2.1", (Return(1),)),
    )
    gpu = GPU(cost=LinearBatch(a=1, p=1))
    timeline = simulate(compile_trace(Trace("t", threads)), gpu=gpu, protocol=Protocol(capacity=4))
    assert (played(timeline)["1.1"], played(timeline)["2.1"]) == ([(2, 4)], [(4, 5)])


def test_a_slot_can_be_held_until_the_join():
    """Worker 1 has ended at 3; it is joined at 7.

    ::

                   0         1
                   0123456789012
        organizer  ooooooo...o
        worker 1    ww
        worker 2         pwww          from 6 if it is the Return that frees the slot
    """
    actions = [Fork(1, 1), Think(4), Fork(2, 1), Join(1, 1), Join(2, 1), Answer(1)]
    graph = compile_trace(traced(actions, w1=[Return(2)], w2=[Return(3)]))
    held = simulate(graph, protocol=Protocol(capacity=2, release="join"))
    assert (played(held)["2"], held.overflows.tolist(), held.makespan) == ([(7, 10)], [1], 11)
    freed = simulate(graph, protocol=Protocol(capacity=2))
    assert (played(freed)["2"], freed.overflows.tolist(), freed.makespan) == ([(6, 9)], [0], 10)


def test_joins_in_a_row_free_slots_one_after_the_other():
    """Join 1 succeeds at 4 and hands its slot to worker 2, which Join 2 then waits for.

    ::

                   0123456
        organizer  oo....o
        worker 1    www
        worker 2     ppww
    """
    graph = compile_trace(traced([Fork(1, 1), Fork(2, 1), Join(1), Join(2), Answer(1)], w1=[Return(3)], w2=[Return(2)]))
    timeline = simulate(graph, protocol=Protocol(capacity=2, release="join"))
    assert played(timeline) == {"organizer": [(0, 1), (1, 2), (6, 7)], "1": [(1, 4)], "2": [(4, 6)]}


# The answer.


def test_the_answer_cancels_what_still_runs():
    """::

               0123|
    organizer  oooo|
    worker 1    www|wwwwwww
    """
    graph = compile_trace(traced([Fork(1, 1), Answer(3)], w1=[Return(10)]))
    timeline = simulate(graph)
    assert played(timeline) == {"organizer": [(0, 1), (1, 4)], "1*": [(1, 4)]}
    assert (timeline.column("tokens").sum(), timeline.makespan) == (7, 4)
    rest = simulate(graph, protocol=Protocol(after_answer="finish"))
    assert (played(rest)["1"], rest.answered[0], rest.makespan) == ([(1, 11)], 4, 11)


def test_a_slot_freed_at_the_answer_starts_nobody():
    """Worker 1 and the organizer end at 5; worker 2 has waited for the slot since 2.

    ::

                   01234|
        organizer  ooooo|
        worker 1    wwww|
        worker 2     ppp|
    """
    graph = compile_trace(traced([Fork(1, 1), Fork(2, 1), Answer(3)], w1=[Return(4)], w2=[Return(4)]))
    timeline = simulate(graph, protocol=Protocol(capacity=2))
    assert played(timeline) == {"organizer": [(0, 1), (1, 2), (2, 5)], "1": [(1, 5)]}
    rest = simulate(graph, protocol=Protocol(capacity=2, after_answer="finish"))
    assert played(rest)["2"] == [(5, 9)]


def test_work_cancelled_in_mid_step_leaves_at_its_end():
    """A step takes 2 s; the Delay ends, and with it the organizer, at 5.

    ::

                   012345
        organizer  ooddd
        worker 1     wwww        2 tokens
    """
    graph = compile_trace(traced([Fork(1, 1), Delay(3.0), Answer()], w1=[Return(10)]))
    timeline = simulate(graph, gpu=GPU(cost=ConstantRate(0.5)))
    assert timeline.answered[0] == 5
    assert played(timeline) == {"organizer": [(0, 2), (2, 5)], "1*": [(2, 6)]}
    assert timeline.column("tokens").tolist() == [1, 0, 2]


def test_work_whose_last_token_comes_in_the_step_of_the_answer_was_not_cut_short():
    """As above, but worker 1 has no more than the 2 tokens it gets by 6."""
    graph = compile_trace(traced([Fork(1, 1), Delay(3.0), Answer()], w1=[Return(2)]))
    timeline = simulate(graph, gpu=GPU(cost=ConstantRate(0.5)))
    assert (timeline.answered[0], played(timeline)["1"]) == (5, [(2, 6)])


def test_cancelled_before_its_admission():
    graph = compile_trace(traced([Fork(1, 1), Answer(3)], w1=[Return(10)]))
    timeline = simulate(graph, gpu=GPU(max_num_seqs=1))
    assert played(timeline)["1*"] == [(4, 4)]
    assert times(timeline, 1, "ready", "start", "decode_start", "tokens") == (1, 4, 4, 0)


def test_a_cancelled_delay_ends_at_once():
    graph = compile_trace(traced([Fork(1, 1), Answer(3)], w1=[Delay(10.0), Return(1)]))
    assert played(simulate(graph, gpu=GPU(cost=ConstantRate(1))))["1*"] == [(1, 4)]


def test_on_the_step_clock_a_delay_takes_the_protocols_steps():
    graph = compile_trace(traced([Think(1), Delay(1.5), Answer(1)]))
    assert simulate(graph).makespan == 2
    assert simulate(graph, protocol=Protocol(delay_steps_per_second=1)).makespan == 4
    assert simulate(graph, gpu=GPU(cost=ConstantRate(1))).makespan == 3.5


# Deadlocks.

NESTED = compile_trace(traced([Fork(1, 1), Join(1), Answer(1)], w1=[Fork(1, 2), Join(1), Return(1)], w1_1=[Return(1)]))


@pytest.mark.parametrize(
    ("protocol", "cycle"),
    [
        (Protocol(capacity=2), ("1.1 waits for a slot held by 1", "1 waits to join 1.1")),
        (Protocol(capacity=2, when_full="block"), ("1.1 waits for a slot held by 1", "1 waits for a slot held by 1")),
        (Protocol(capacity=1), ("1 waits for a slot, and a pool of 1 has none",)),
    ],
    ids=["queue", "block", "alone"],
)
def test_a_deadlock_names_the_cycle(protocol, cycle):
    if protocol.when_full == "block":
        cycle = cycle[1:]  # worker 1 itself is held up by the slot it holds
    with pytest.raises(DeadlockError) as caught:
        simulate(NESTED, protocol=protocol)
    assert str(caught.value) == "t: deadlock: query 0: " + ", ".join(cycle)
    timeline = simulate([NESTED, ALONE], protocol=protocol, on_deadlock="record")
    assert [(each.query, each.cycle) for each in timeline.deadlocks] == [(0, cycle)]
    assert math.isnan(timeline.answered[0])
    assert timeline.answered[1] == 10


def test_a_worker_nobody_joins_can_keep_a_slot_for_ever():
    graph = compile_trace(traced([Fork(1, 1), Answer(1)], w1=[Fork(1, 1), Return(1)], w1_1=[Return(1)]))
    protocol = Protocol(capacity=2, release="join", after_answer="finish")
    timeline = simulate(graph, protocol=protocol, on_deadlock="record")
    assert timeline.answered[0] == 2
    assert timeline.deadlocks[0].cycle[-1] == "1 keeps its slot, and nobody joins it"


def test_workers_that_wait_for_a_slot_at_the_answer_are_no_deadlock():
    graph = compile_trace(traced([Fork(1, 1), Answer(1)], w1=[Return(1)]))
    timeline = simulate(graph, protocol=Protocol(capacity=1))
    assert (timeline.deadlocks, played(timeline)) == ((), {"organizer": [(0, 1), (1, 2)]})


# Arguments.


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (GraphError, "nothing to simulate", {"graphs": []}),
        (GraphError, "takes an ExecutionGraph, and this is a Trace", {"graphs": [traced([Answer(1)])]}),
        (GraphError, "charge_inserted shapes the graph", {"protocol": Protocol(charge_inserted=True)}),
        (ConfigError, "1 queries need as many arrivals; got shape", {"arrivals": [0, 1]}),
        (ConfigError, "1 queries need as many arrivals; got shape", {"arrivals": 0.0}),
        (ConfigError, "arrivals must be numbers from 0", {"arrivals": [-1]}),
        (ConfigError, "arrivals must be numbers from 0", {"arrivals": [math.nan]}),
        (ConfigError, "arrivals must be numbers from 0", {"arrivals": [math.inf]}),
        (ConfigError, "arrivals must be numbers", {"arrivals": ["soon"]}),
        (ConfigError, "on_deadlock must be raise or record, got 'ignore'", {"on_deadlock": "ignore"}),
        (ConfigError, "gpu must be a GPU", {"gpu": LinearBatch(a=1)}),
        (ConfigError, "a policy gives a key for each task, a number, 1 for", {"policy": lambda graph: [0, 0]}),
    ],
)
def test_bad_arguments(error, message, options):
    graphs = options.pop("graphs", ALONE)
    with pytest.raises(error, match=message):
        simulate(graphs, **options)


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("max_num_seqs must be a whole number from 1", {"max_num_seqs": 0}),
        ("max_num_seqs must be a whole number from 1", {"max_num_seqs": True}),
        ("max_num_batched_tokens must be a whole number", {"max_num_batched_tokens": 1.5}),
        ("must be at least max_num_seqs", {"max_num_seqs": 8, "max_num_batched_tokens": 4}),
        ("cost must be a cost model", {"cost": LinearBatch}),
    ],
)
def test_bad_gpus(message, options):
    with pytest.raises(ConfigError, match=message):
        GPU(**options)


def test_one_graph_or_many_and_arrivals_of_any_kind():
    one = simulate(ALONE)
    assert simulate(iter([ALONE])).rows.tolist() == one.rows.tolist()
    assert simulate([ALONE], arrivals=np.array([3], dtype=np.int32)).answered.tolist() == [13]
    assert len(simulate([ALONE] * 3)) == 3
