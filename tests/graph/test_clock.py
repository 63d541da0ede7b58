"""The decode-step clock on traces small enough to be counted on paper, and every violation with its position.

In the drawings a character is a step: ``o`` the organizer decodes, ``.`` it waits for a Join, ``w`` a worker decodes.
"""

from __future__ import annotations

import pytest

from simulator import (
    Answer,
    Delay,
    Fork,
    Join,
    Protocol,
    Return,
    Think,
    Thread,
    Trace,
    Violation,
    ViolationKind,
    check,
    decode_clock,
)
from tests.support.drawn import traced

V = ViolationKind
STAGGERED = traced(
    [Fork(1, 2), Fork(2, 2), Think(3), Join(1, 1), Think(4), Join(2, 1), Answer(2)],
    w1=[Return(10)],
    w2=[Think(5), Return(4)],
)
PAIR = traced([Fork(1, 1), Fork(2, 1), Join(1, 1), Join(2, 1), Answer(1)], w1=[Return(5)], w2=[Return(2)])
NESTED = traced(
    [Fork(1, 1), Think(2), Join(1), Answer(1)],
    w1=[Think(1), Fork(1, 1), Think(1), Join(1), Return(2)],
    w1_1=[Return(6)],
)
FREE = traced([Fork(1, 2), Answer(3)], w1=[Return(20)])


def test_thinking_alone():
    """::

    organizer  ooooo
    """
    clock = decode_clock(traced([Think(3), Answer(2)]), Protocol(capacity=4))
    assert clock.latency == clock.active_steps == clock.work == 5
    assert (clock.eta, clock.peak_concurrency, clock.workers, clock.overflows) == (1, 1, 0, 0)


def test_nothing_at_all():
    clock = decode_clock(traced([]))
    assert (clock.latency, clock.eta, clock.peak_concurrency) == (0, 0, 0)


def test_staggered_joins():
    """::

               0         1
               0123456789012345678
    organizer  oooooooo....ooooooo     15
    worker 1     wwwwwwwwww            10
    worker 2       wwwwwwwww            9
    """
    clock = decode_clock(STAGGERED, Protocol(capacity=3))
    assert (clock.latency, clock.active_steps, clock.peak_concurrency) == (19, 34, 3)
    assert clock.eta == 34 / 19
    assert clock.intervals == {"organizer": (0, 19), "1": (2, 12), "2": (4, 13)}
    assert clock.violations == ()


def test_without_the_organizer():
    clock = decode_clock(STAGGERED, Protocol(count_organizer=False))
    assert (clock.latency, clock.active_steps, clock.peak_concurrency) == (19, 19, 2)


def test_nested():
    """A worker that waits for its own worker is not active either.

    ::

                      0         1
                      012345678901
        organizer     ooo........o      4
        worker 1       www.....ww       5
        worker 1.1       wwwwww         6
    """
    clock = decode_clock(NESTED)
    assert (clock.latency, clock.active_steps, clock.peak_concurrency, clock.workers) == (12, 15, 2, 2)
    assert clock.intervals == {"organizer": (0, 12), "1": (1, 11), "1.1": (3, 9)}


def test_what_runs_beyond_the_answer_does_not_count():
    """::

               01234|
    organizer  ooooo|
    worker 1     www|wwwww...
    """
    clock = decode_clock(FREE)
    assert (clock.latency, clock.active_steps, clock.work) == (5, 8, 25)
    assert clock.intervals["1"] == (2, 22)


def test_joins_of_no_tokens():
    """::

               01234567
    organizer  o......o
    worker 1    wwww
    worker 2    wwwwww
    """
    trace = traced([Fork(1, 1), Fork(2), Join(1), Join(2), Answer(1)], w1=[Return(4)], w2=[Return(6)])
    clock = decode_clock(trace)
    assert (clock.latency, clock.active_steps, clock.peak_concurrency) == (8, 12, 2)


@pytest.mark.parametrize(("rate", "latency", "active"), [(0, 6, 8), (2, 12, 14), (0.5, 8, 10)])
def test_a_delay_is_active_for_the_steps_it_takes(rate, latency, active):
    """3 seconds are no steps, 6, or 1.5 rounded up; ``d`` below.

    ::

        organizer  ooo.......oo
        worker 1    wwddddddw
    """
    trace = traced([Fork(1, 1), Think(2), Join(1), Answer(2)], w1=[Think(2), Delay(3.0), Return(1)])
    clock = decode_clock(trace, Protocol(delay_steps_per_second=rate))
    assert (clock.latency, clock.active_steps, clock.work) == (latency, active, 8)


def test_inserted_tokens_cost_steps_if_charged():
    """::

               0123456789
    organizer  oo..iiiiio       Join 1 at step 2, its text inserted from 4 on
    worker 1    www
    """
    trace = traced([Fork(1, 1), Join(1, 1, 5), Answer(1)], w1=[Return(3)])
    assert decode_clock(trace).latency == 5
    charged = decode_clock(trace, Protocol(charge_inserted=True))
    assert (charged.latency, charged.active_steps, charged.work) == (10, 11, 11)


def test_the_second_fork_of_an_index_starts_nobody_but_costs_its_tokens():
    trace = traced([Fork(1, 2), Fork(1, 3), Join(1, 1), Answer(1)], w1=[Return(2)])
    clock = decode_clock(trace)
    assert (clock.latency, clock.workers, clock.intervals["1"]) == (7, 1, (2, 4))


def overflows(trace: Trace, capacity: int, **options: str) -> list[tuple[str, int | None]]:
    clock = decode_clock(trace, Protocol(capacity=capacity, **options))
    found = [(v.thread, v.action) for v in clock.violations if v.kind == V.POOL_OVERFLOW]
    assert clock.overflows == len(found)
    return found


def test_a_fork_overflows_a_pool_in_which_all_workers_live():
    assert overflows(PAIR, 3) == []
    assert overflows(PAIR, 2) == [("organizer", 1)]
    assert overflows(PAIR, 1) == [("organizer", 0), ("organizer", 1)]


def test_a_worker_that_ends_at_the_step_of_a_fork_makes_room():
    trace = traced([Fork(1, 2), Fork(2, 3), Join(1), Join(2), Answer(1)], w1=[Return(3)], w2=[Return(1)])
    assert overflows(trace, 2) == []
    longer = traced([Fork(1, 2), Fork(2, 3), Join(1), Join(2), Answer(1)], w1=[Return(4)], w2=[Return(1)])
    assert overflows(longer, 2) == [("organizer", 1)]


def test_workers_that_overflow_count_as_alive():
    """Worker 2 overflows, and is why worker 3 does.

    ::

                   0123456
        organizer  ooooooo
        worker 1    ww
        worker 2     wwww
        worker 3       w
    """
    actions = [Fork(1, 1), Fork(2, 1), Fork(3, 2), Think(1), Join(1), Join(2, 1), Join(3), Answer(1)]
    trace = traced(actions, w1=[Return(2)], w2=[Return(4)], w3=[Return(1)])
    assert overflows(trace, 2) == [("organizer", 1), ("organizer", 2)]
    assert overflows(trace, 3) == []


def test_a_slot_can_be_held_until_the_join():
    trace = traced(
        [Fork(1, 2), Think(5), Fork(2, 2), Join(1, 1), Join(2, 1), Answer(1)], w1=[Return(3)], w2=[Return(3)]
    )
    assert overflows(trace, 2, release="return") == []
    assert overflows(trace, 2, release="join") == [("organizer", 2)]


def test_forks_of_workers_after_the_answer():
    """Worker 1 forks at 7, the organizer answers at 4 or, in the second trace, at 7."""
    workers = {"w1": [Fork(1, 6), Return(1)], "w1_1": [Return(1)]}
    for answer in (3, 6):
        trace = traced([Fork(1, 1), Answer(answer)], **workers)
        assert overflows(trace, 2, after_answer="finish") == [("1", 0)]
        assert overflows(trace, 2, after_answer="cancel") == []
    before = traced([Fork(1, 1), Answer(7)], **workers)
    assert overflows(before, 2, after_answer="cancel") == [("1", 0)]


def test_forks_of_one_step_are_in_order_of_the_forking_thread_then_of_its_actions():
    assert overflows(traced([Fork(2, 1), Fork(1), Answer(3)], w1=[Return(1)], w2=[Return(1)]), 2) == [("organizer", 1)]
    trace = traced(
        [Fork(1, 1), Think(2), Fork(2), Answer(3)], w1=[Think(2), Fork(1), Return(4)], w1_1=[Return(1)], w2=[Return(1)]
    )
    assert overflows(trace, 3) == [("1", 1)]  # at step 3 the organizer takes the second slot, and worker 1 finds none


WORKER = [Return(1)]
VIOLATIONS = {
    "duplicate index": (
        traced([Fork(1, 1), Fork(1, 1), Join(1), Answer()], w1=WORKER),
        [(V.DUPLICATE_INDEX, "organizer", 1)],
    ),
    "duplicate index after the Join": (
        traced([Fork(1, 1), Join(1), Fork(1, 1), Answer()], w1=WORKER),
        [(V.DUPLICATE_INDEX, "organizer", 2)],
    ),
    "the same index of another thread is another": (
        traced([Fork(1, 1), Join(1), Answer()], w1=[Fork(1, 1), Join(1), Return()], w1_1=WORKER),
        [],
    ),
    "unknown join": (traced([Think(1), Join(3), Answer()]), [(V.UNKNOWN_JOIN, "organizer", 1)]),
    "join before its fork": (
        traced([Join(1), Fork(1), Answer()], w1=WORKER),
        [(V.UNKNOWN_JOIN, "organizer", 0), (V.UNJOINED_WORKER, "organizer", 1)],
    ),
    "a worker cannot join its sibling": (
        traced([Fork(1), Fork(2), Join(1), Join(2), Answer()], w1=WORKER, w2=[Join(1), Return(1)]),
        [(V.UNKNOWN_JOIN, "2", 0)],
    ),
    "missing answer": (traced([Think(1)]), [(V.MISSING_ANSWER, "organizer", None)]),
    "repeated join": (
        traced([Fork(1, 1), Join(1), Join(1), Answer()], w1=WORKER),
        [(V.REPEATED_JOIN, "organizer", 2)],
    ),
    "missing return": (
        traced([Fork(1, 1), Join(1), Answer()], w1=[Think(1)]),
        [(V.MISSING_RETURN, "1", None)],
    ),
    "fork without worker": (
        traced([Fork(1, 1), Fork(7, 1), Join(1), Join(7), Answer()], w1=WORKER),
        [(V.FORK_WITHOUT_WORKER, "organizer", 1)],
    ),
    "worker without fork": (
        traced([Answer(1)], w1=WORKER, w2=WORKER),
        [(V.WORKER_WITHOUT_FORK, "1", None), (V.WORKER_WITHOUT_FORK, "2", None)],
    ),
    "unjoined worker": (traced([Fork(1, 1), Answer()], w1=WORKER), [(V.UNJOINED_WORKER, "organizer", 0)]),
    "a worker answers": (
        traced([Fork(1), Join(1), Answer()], w1=[Answer(1), Return(1)]),
        [(V.MISPLACED_ACTION, "1", 0)],
    ),
    "the organizer returns": (traced([Return(1), Answer(1)]), [(V.MISPLACED_ACTION, "organizer", 0)]),
    "after the end": (traced([Answer(1), Think(1), Think(1)]), [(V.MISPLACED_ACTION, "organizer", 1)]),
    "answers twice": (traced([Answer(1), Answer(1)]), [(V.MISPLACED_ACTION, "organizer", 1)]),
    "in order of thread, then action": (
        traced([Fork(1), Join(2), Join(1)], w1=[Answer(), Join(9)]),
        [
            (V.UNKNOWN_JOIN, "organizer", 1),
            (V.MISSING_ANSWER, "organizer", None),
            (V.MISPLACED_ACTION, "1", 0),
            (V.UNKNOWN_JOIN, "1", 1),
            (V.MISSING_RETURN, "1", None),
        ],
    ),
}


@pytest.mark.parametrize(("trace", "expected"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_violations_and_where(trace, expected):
    assert [(v.kind, v.thread, v.action) for v in check(trace)] == expected


def test_nested_forks_may_be_forbidden():
    assert check(NESTED) == ()
    found = check(NESTED, Protocol(nested_forks=False))
    assert [(v.kind, v.thread, v.action) for v in found] == [(V.NESTED_FORK, "1", 1)]


def test_overflow_names_the_pool():
    found = check(PAIR, Protocol(capacity=2))
    message = "worker 2 is forked while 1 worker runs; a pool of 2 has room for 1"
    assert str(found[0]) == f"pool_overflow: thread organizer action 1: {message}"


def test_what_the_parser_found_comes_first():
    fault = Violation(V.STRAY_TAG, "1", "</JOIN-1> closes nothing", offset=17)
    trace = Trace("t", (Thread("organizer", (Think(1),)),), faults=(fault,))
    assert [v.kind for v in check(trace)] == [V.STRAY_TAG, V.MISSING_ANSWER]
    assert str(fault) == "stray_tag: thread 1 char 17: </JOIN-1> closes nothing"


FROM_TEXTS = {V.FORGED_JOIN, V.UNKNOWN_TAGS}


def test_every_kind_of_violation_is_tested_here_or_belongs_to_parsers():
    tested = {kind for _, expected in VIOLATIONS.values() for kind, *_ in expected}
    assert set(V) - tested == {V.POOL_OVERFLOW, V.NESTED_FORK, V.UNCLOSED_TAG, V.STRAY_TAG, V.MORE_FAULTS, *FROM_TEXTS}


# ---------------------------------------------------------------- what follows an end

LATE = traced([Think(1), Answer(2), Fork(1, 4), Join(1, 1), Answer(8)], w1=[Return(3), Think(9), Return(0)])
# organizer |T1|A2|F4|J1|......|A8|     the worker starts at 7 and needs 3 + 9: the organizer waits from 8 to 19
# worker 1            |R3|T9|R0|


def test_what_follows_an_end_is_counted_or_ignored():
    counted = decode_clock(LATE)
    assert (counted.latency, counted.work) == (19 + 8, 16 + 12)
    assert [str(violation) for violation in counted.violations] == [
        "misplaced_action: thread organizer action 2: what follows the end is counted",
        "misplaced_action: thread 1 action 1: what follows the end is counted",
    ]
    ignored = decode_clock(LATE, Protocol(after_end="ignore"))
    assert (ignored.latency, ignored.work, ignored.workers) == (3, 3, 0)
    assert [violation.kind for violation in ignored.violations] == [V.MISPLACED_ACTION, V.WORKER_WITHOUT_FORK]


@pytest.mark.parametrize("capacity, overflows", [(2, 1), (3, 0)])
def test_a_fork_on_a_full_pool_is_an_overflow_also_of_a_worker_that_nobody_recorded(capacity, overflows):
    """A runtime that obeys the rule starts nobody, so there is nothing to record."""
    trace = traced([Fork(1, 1), Fork(2, 1), Think(4), Fork(3, 1), Join(1), Answer(1)], w1=[Return(3)])
    clock = decode_clock(trace, Protocol(capacity=capacity))
    assert clock.overflows == overflows  # 2 finds worker 1 at work; 3 does not
    assert [v.action for v in clock.violations if v.kind is V.POOL_OVERFLOW] == [1] * overflows
