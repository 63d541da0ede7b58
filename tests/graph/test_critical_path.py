"""Critical paths of graphs small enough to be worked out on paper.

In the drawings a number is a task of so many tokens, with the task's own number in brackets; workers hang below the
task that forks them and end below the one that joins them.
"""

from __future__ import annotations

import math

import pytest

from simulator import (
    Answer,
    Delay,
    ExecutionGraph,
    Fork,
    GraphError,
    Join,
    Protocol,
    Return,
    Think,
    compile_trace,
    critical_path,
)
from simulator.graph.critical_path import b_levels, t_levels
from simulator.trace import Action
from tests.support.drawn import traced


def graph(organizer: list[Action], protocol: Protocol | None = None, **workers: list[Action]) -> ExecutionGraph:
    return compile_trace(traced(organizer, **workers), protocol)


def test_thinking_alone():
    """::

    5
    """
    found = critical_path(graph([Think(3), Answer(2)]))
    assert (found.latency, found.path, found.work, found.span, found.parallelism) == (5, (0,), 5, 5, 1)
    assert (found.start, found.b_level, found.slack) == ((0,), (5,), (0,))


def test_nothing_at_all():
    found = critical_path(graph([]))
    assert (found.latency, found.path, found.work, found.parallelism) == (0, (0,), 0, 0)


def test_worker_is_the_longer_way():
    """::

    4 [0] ------ 3 [2] ------ 2 [3]      4 + 10 + 2 = 16 > 4 + 3 + 2
         `------ 10 [1] -----'
    """
    found = critical_path(graph([Think(4), Fork(1), Think(3), Join(1), Answer(2)], w1=[Return(10)]))
    assert (found.latency, found.path) == (16, (0, 1, 3))
    assert (found.start, found.b_level, found.slack) == ((0, 4, 4, 14), (16, 12, 5, 2), (0, 0, 7, 0))
    assert found.parallelism == 19 / 16


def test_organizer_is_the_longer_way():
    """::

    4 [0] ------ 8 [2] ------ 2 [3]      4 + 8 + 2 = 14 > 4 + 3 + 2
         `------ 3 [1] ------'
    """
    found = critical_path(graph([Think(4), Fork(1), Think(8), Join(1), Answer(2)], w1=[Return(3)]))
    assert (found.latency, found.path, found.slack) == (14, (0, 2, 3), (0, 5, 0, 0))


def test_of_two_equal_ways_the_one_through_the_earlier_task():
    """::

    1 [0] ------ 3 [2] ------ 1 [3]
         `------ 3 [1] ------'
    """
    found = critical_path(graph([Fork(1, 1), Think(3), Join(1), Answer(1)], w1=[Return(3)]))
    assert (found.latency, found.path, found.slack) == (5, (0, 1, 3), (0, 0, 0, 0))


def test_staggered_joins():
    """Worker 1 holds the organizer up from 8 to 12; worker 2 has ended when its Join comes, at 17.

    ::

        0   2   4       8     12      17  19
        2 - 2 - 4 [4] - . . . 5 [5] - 2 [6]
         `----- 10 [1] ------'       /
             `- 9 [3] ---- 13 ------'
    """
    found = critical_path(
        graph(
            [Fork(1, 2), Fork(2, 2), Think(3), Join(1, 1), Think(4), Join(2, 1), Answer(2)],
            w1=[Return(10)],
            w2=[Think(5), Return(4)],
        )
    )
    assert (found.latency, found.path, found.work) == (19, (0, 1, 5, 6), 34)
    assert found.start == (0, 2, 2, 4, 4, 12, 17)
    assert found.b_level == (19, 17, 13, 11, 11, 7, 2)
    assert found.slack == (0, 0, 4, 4, 4, 0, 0)


def test_workers_are_joined_in_the_other_order():
    """::

    1 [0] --- 1 [2] --------- 1 [4]     one task awaits both
          |        `- 7 [3] --'|
          `- 3 [1] ------------'
    """
    found = critical_path(graph([Fork(1, 1), Fork(2, 1), Join(2), Join(1), Answer(1)], w1=[Return(3)], w2=[Return(7)]))
    assert (found.latency, found.path, found.slack) == (10, (0, 2, 3, 4), (0, 5, 0, 0, 0))


def test_nested_forks():
    """::

    0   1           3           9       11  12
    1 - 2 [5] ------------------------- 1 [6]
     `- 2 [1] ----- 1 [3] ----- 2 [4] -'
             `----- 6 [2] -----'
    """
    found = critical_path(
        graph(
            [Fork(1, 1), Think(2), Join(1), Answer(1)],
            w1=[Think(1), Fork(1, 1), Think(1), Join(1), Return(2)],
            w1_1=[Return(6)],
        )
    )
    assert (found.latency, found.path) == (12, (0, 1, 2, 4, 6))
    assert found.start == (0, 1, 3, 3, 9, 1, 11)
    assert found.slack == (0, 0, 0, 5, 0, 8, 0)


def test_unjoined_worker_outlives_the_answer():
    """The answer does not wait for it; the span does.

    ::

        2 --- 3 [2]     answer at 5
         `--- 20 [1] -------- ends at 22
    """
    found = critical_path(graph([Fork(1, 2), Answer(3)], w1=[Return(20)]))
    assert (found.latency, found.path, found.span, found.work) == (5, (0, 2), 22, 25)
    assert (found.b_level, found.slack) == ((22, 20, 3), (0, math.inf, 0))


def test_one_task_forks_two_and_one_awaits_two():
    """Forks and Joins without tokens in between are of one task.

    ::

        1 ----------- 1 [3]
        |`-- 4 [1] --'|
         `-- 6 [2] ---'
    """
    g = graph([Fork(1, 1), Fork(2), Join(1), Join(2), Answer(1)], w1=[Return(4)], w2=[Return(6)])
    assert [(task.forks, task.joins) for task in g.tasks] == [((1, 2), ()), ((), ()), ((), ()), ((), (1, 2))]
    found = critical_path(g)
    assert (found.latency, found.path, found.slack) == (8, (0, 2, 3), (0, 2, 0, 0))


def test_an_organizer_of_no_tokens():
    """The path goes through its tasks all the same.

    ::

        0 --- 0 --- 0
         `- 3 '`- 4 '
    """
    g = graph([Fork(1), Join(1), Fork(2), Join(2), Answer()], w1=[Return(3)], w2=[Return(4)])
    found = critical_path(g)
    assert (found.latency, found.path, found.work) == (7, (0, 1, 2, 3, 4), 7)


@pytest.mark.parametrize(("rate", "latency"), [(0, 6), (2, 12), (0.5, 8)])
def test_a_delay_counts_what_the_protocol_says(rate, latency):
    """3 seconds are no steps, 6 steps, or 1.5 rounded up.

    ::

        1 [0] ------------ 2 [4] ------------ 2 [5]       1 + 2 + Delay + 1 + 2 > 1 + 2 + 2
             `-- 2 [1] --- 3 s [2] --- 1 [3] -'
    """
    protocol = Protocol(delay_steps_per_second=rate)
    organizer = [Fork(1, 1), Think(2), Join(1), Answer(2)]
    g = graph(organizer, protocol, w1=[Think(2), Delay(3.0), Return(1)])
    assert [task.seconds for task in g.tasks] == [0, 0, 3.0, 0, 0, 0]
    found = critical_path(g)
    assert found.latency == latency
    assert found.path == (0, 1, 2, 3, 5)
    assert found.slack == (0, 0, 0, 0, latency - 5, 0)


def test_inserted_tokens_cost_steps_if_charged():
    organizer = [Fork(1, 1), Join(1, 1, 5), Answer(1)]
    assert critical_path(graph(organizer, w1=[Return(3)])).latency == 5
    assert critical_path(graph(organizer, Protocol(charge_inserted=True), w1=[Return(3)])).latency == 10


def test_other_weights():
    """The same graph in seconds: a worker on a machine ten times as fast is no longer the longer way."""
    g = graph([Think(4), Fork(1), Think(3), Join(1), Answer(2)], w1=[Return(10)])
    found = critical_path(g, [4.0, 1.0, 3.0, 2.0])
    assert (found.latency, found.path, found.slack) == (9.0, (0, 2, 3), (0, 2.0, 0, 0))
    assert t_levels(g, (4.0, 1.0, 3.0, 2.0)) == [0, 4.0, 4.0, 7.0]
    assert b_levels(g, (4.0, 1.0, 3.0, 2.0)) == [9.0, 3.0, 5.0, 2.0]


def test_weights_must_fit():
    with pytest.raises(GraphError, match="got 1 weights for 4 tasks"):
        critical_path(graph([Fork(1, 4), Think(3), Join(1), Answer(2)], w1=[Return(10)]), [1.0])
