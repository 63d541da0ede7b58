"""What one would like to be a law, and is not. Examples found by brute force over small traces, smallest first.

Each is an anomaly of list scheduling (Graham 1969): the batch takes what is ready, and never waits for what matters
more. All run at one token a step with two places in the batch.
"""

from __future__ import annotations

from simulator import GPU, Answer, Fork, Join, Protocol, Return, Think, compile_trace, simulate
from simulator.machine.policy import critical_path_first, fcfs
from tests.support.drawn import traced

TWO = GPU(max_num_seqs=2)


def test_a_shorter_task_can_make_first_come_first_served_slower():
    """Worker 1 forks one token earlier, and its worker takes the place that the long worker 2 would have had.

    ::

        as it was                         1 shorter
        step  0  1  2  3  4  5            0  1  2  3  4  5  6
        org   2 |                         2 |
        1     F  F |-t |                  F |-t |
        1.1         .  a  a |                a  a |
        2        b  b  b  b  b |             .  b  b  b  b  b |
                               6                              7
    """

    def answered(fork: int) -> float:
        trace = traced(
            [Fork(1), Fork(2, 1), Join(2), Join(1), Answer()],
            w1=[Fork(1, fork), Think(1), Join(1), Return()],
            w1_1=[Return(2)],
            w2=[Return(5)],
        )
        return float(simulate(compile_trace(trace), gpu=TWO).answered[0])

    assert answered(2) == 6
    assert answered(1) == 7


def test_longest_path_first_can_be_slower_than_first_come_first_served():
    """At step 1 three tasks are ready: 1 (1 token), 1.1 (3, joined by 1), 2 (3). Their paths are 3, 5 and 4 long.

    The longest two go first, and 1 token of worker 1 is left over, before which worker 1 cannot return.

    ::

        first come                        longest path
        step  0  1  2  3  4  5            0  1  2  3  4  5  6
        org   1 |           A             1 |              A
        1        t |     r |                 .  .  .  t  r |
        1.1      a  a  a |                   a  a  a |
        2        .  b  b  b |                b  b  b |
                             6                              7
    """
    trace = traced(
        [Fork(1, 1), Fork(2), Join(2), Join(1), Answer(1)],
        w1=[Fork(1), Think(1), Join(1), Return(1)],
        w1_1=[Return(3)],
        w2=[Return(3)],
    )
    graph = compile_trace(trace)
    assert simulate(graph, gpu=TWO, policy=fcfs).answered[0] == 6
    assert simulate(graph, gpu=TWO, policy=critical_path_first).answered[0] == 7


def test_a_larger_pool_can_be_slower():
    """With a third slot worker 2 is ready at 2, and goes before the end of worker 1, which the answer waits for.

    ::

        capacity 3                        capacity 4
        step  0  1  2  3  4               0  1  2  3  4  5
        org   1  2  t  t |                1  2  t  t |
        1        t |  r  r |                 t |  .  r  r |
        1.1      .  a |                      .  a |
        2           pool .  b |                 .  b |
                              5                           6
    """
    trace = traced(
        [Fork(1, 1), Fork(2, 1), Think(2), Join(1), Join(2), Answer()],
        w1=[Fork(1), Think(1), Join(1), Return(2)],
        w1_1=[Return(1)],
        w2=[Return(1)],
    )
    graph = compile_trace(trace)
    assert simulate(graph, gpu=TWO, protocol=Protocol(capacity=3)).answered[0] == 5
    assert simulate(graph, gpu=TWO, protocol=Protocol(capacity=4)).answered[0] == 6
