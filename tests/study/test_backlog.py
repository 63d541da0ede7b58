"""Who gets which task: every task once, lots stay together, nobody waits while there is work."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.support.crew.backlog import Backlog

keys = st.lists(st.integers(0, 4), max_size=40).map(sorted)


@given(keys=keys, workers=st.lists(st.integers(0, 3), min_size=60, max_size=60), data=st.data())
def test_every_task_is_given_once_whoever_asks_and_whoever_dies(keys, workers, data):
    tasks = list(enumerate(keys))
    backlog = Backlog(iter(tasks), key=lambda task: task[1])
    given_out = []
    for worker in workers:
        if not backlog.at_least(1):
            break
        task = backlog.take(worker)
        what = data.draw(st.sampled_from(["do it", "do it", "give it back", "die"]))
        if what == "give it back":
            backlog.give_back(task)
        else:
            given_out.append(task)
        if what == "die":
            backlog.dismiss(worker)
    while backlog.at_least(1):
        given_out.append(backlog.take(0))
    assert sorted(given_out) == tasks


@given(lots=st.integers(1, 6), size=st.integers(1, 30), workers=st.integers(1, 4))
def test_one_worker_does_a_lot_until_another_has_nothing_to_do(lots, size, workers):
    tasks = [(lot, i) for lot in range(lots) for i in range(size)]
    backlog = Backlog(iter(tasks), key=lambda task: task[0])
    prepared = {worker: [] for worker in range(workers)}
    turns = {worker: 0 for worker in range(workers)}
    while backlog.at_least(1):
        for worker in range(workers):  # all take equally long
            if backlog.at_least(1):
                lot, _ = backlog.take(worker)
                turns[worker] += 1
                if prepared[worker][-1:] != [lot]:
                    prepared[worker].append(lot)
    assert max(turns.values()) - min(turns.values()) <= 1
    # Each lot is begun once, and what is left at the end is halved among those who have nothing.
    halvings = workers * (size.bit_length() + 1)
    assert sum(map(len, prepared.values())) <= lots + halvings


def test_without_a_key_no_task_is_taken_ahead():
    taken = []
    backlog = Backlog(taken.append(i) or i for i in range(9))
    assert [backlog.at_least(1), backlog.take(1), backlog.at_least(1), backlog.take(2)] == [True, 0, True, 1]
    assert taken == [0, 1]
    assert backlog.at_least(3) and not backlog.at_least(8)


def test_a_long_lot_is_taken_in_pieces():
    backlog = Backlog(iter(range(10**9)), key=lambda task: 0)
    assert backlog.at_least(1)
    assert [backlog.take(1), backlog.take(2), backlog.take(1)] == [0, 64, 1]


def test_errors_of_the_tasks_are_the_callers():
    def tasks():
        yield 1
        raise KeyError("gone")

    backlog = Backlog(tasks())
    assert backlog.at_least(1) and backlog.take(1) == 1
    with pytest.raises(KeyError, match="gone"):
        backlog.at_least(1)
