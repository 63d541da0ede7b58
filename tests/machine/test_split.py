"""`SplitTable`: by hand, and its count of what is in memory against a second one."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import (
    GPU,
    Answer,
    Cluster,
    ConfigError,
    Fork,
    Join,
    Protocol,
    Return,
    Think,
    Thread,
    Trace,
    compile_trace,
    simulate,
)
from simulator.machine.cost import SplitTable
from simulator.workload import generate
from tests.support.stepwise import step_by_step


def test_by_hand():
    law = SplitTable((1, 2, 4), (1.0, 3.0, 4.0), b=0.5, c=0.01, q=0.001, overhead=0.1)
    assert law.step_seconds(1, 100) == pytest.approx(0.1 + 1.0 + 0.5 + 1.0)
    assert law.step_seconds(1, 100, 2, 50) == pytest.approx(0.1 + 3.5 + 0.5 + 1.0 + 0.05)
    assert law.step_seconds(0, 0, 4, 10) == pytest.approx(0.1 + 4.0 + 0.01)
    assert law.decode_seconds(2, 100, 3) == pytest.approx(3 * (0.1 + 3.0 + 1.0) + 0.01 * (100 + 102 + 104))
    assert law.cache_seconds is None and law.decode_seconds(2, 100, 0) == 0


def test_outside_the_table():
    law = SplitTable((2, 4), (3.0, 4.0))
    for n in (1, 5):
        with pytest.raises(ConfigError, match=f"SplitTable: {n} tokens in a step are outside the 2 to 4 measured"):
            law.step_seconds(n, 9)
    on = SplitTable((2, 4), (3.0, 4.0), extrapolate="linear")
    assert [on.step_seconds(n, 0) for n in (1, 5, 8)] == [2.5, 4.5, 6.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SplitTable((1,), (1.0,)), "tokens must be two or more"),
        (lambda: SplitTable(3, (1.0, 2.0)), "tokens must be a list of numbers"),
        (lambda: SplitTable((2, 1), (1.0, 2.0)), "tokens must increase"),
        (lambda: SplitTable((1, 2.5), (1.0, 2.0)), "tokens must be numbers from 1"),
        (lambda: SplitTable((1, 2, 3), (1.0, 2.0)), "3 tokens need as many seconds; got 2"),
        (lambda: SplitTable((1, 2), (1.0, math.nan)), "seconds must be numbers from 1e-12"),
        (lambda: SplitTable((1, 2), (1.0, 0.0)), "seconds must be numbers"),
        (lambda: SplitTable((1, 2), (1.0, 2.0), c=-1.0), "c must be a number from 0"),
        (lambda: SplitTable((1, 2), (1.0, 2.0), r=math.inf), "r must be a number from 0"),
        (lambda: SplitTable((1, 2), (1.0, 2.0), extrapolate="cubic"), 'extrapolate must be "linear" or None'),
        (lambda: SplitTable((1, 2), (2.0, 1.0), extrapolate="linear"), "shrink towards the largest step"),
        (lambda: SplitTable((4, 8), (1.0, 3.0), extrapolate="linear"), "extrapolated to a step of one token"),
        (lambda: GPU(cost=SplitTable((1, 2), (1.0, 2.0), r=0.1), num_kv_blocks=9), "give one of both"),
        (lambda: Cluster(replicas=[GPU(cost=SplitTable((1, 2), (1.0, 2.0), r=0.1))] * 2), "for a single replica"),
    ],
)
def test_nonsense_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_what_is_in_memory_by_hand():
    """Step 1 reads 3 tokens and stores 3; then 4, 5, 6 are stored: 3 + 3*3/2, and 1 + 4/2, 1 + 5/2, 1 + 6/2."""
    trace = Trace("t", (Thread("organizer", (Answer(4),), 3),))
    law = SplitTable((1, 3), (1.0, 3.0), r=0.5)
    assert simulate(compile_trace(trace), gpu=GPU(cost=law)).makespan == 7.5 + 3.0 + 3.5 + 4.0


def test_what_is_shared_is_stored_once():
    """The organizer has 10 + 2 tokens at the Fork; two workers that share them read 5 more each, in one step."""
    crew = tuple(Thread(name, (Return(1),), 17, 12) for name in "12")
    actions = (Think(2), Fork(1), Fork(2), Join(1, inserted_tokens=4), Join(2), Answer(1))
    trace = Trace("t", (Thread("organizer", actions, 10), *crew))
    law = SplitTable((1, 100), (1.0, 1.0), r=1.0)
    finish = simulate(compile_trace(trace), gpu=GPU(cost=law)).column("finish")
    prompt, token, both, answer = 1 + 10 * 10, 1 + 11, 1 + 10 * (12 + 10), 1 + 4 * (12 + 4)
    assert sorted(set(finish.tolist()))[-1] == prompt + token + both + answer


class Watched:
    """Notes at each leap what the server says is stored, and when."""

    def __init__(self):
        self.seen = []

    def __call__(self, leap):
        self.seen.append((leap.start, leap.stored))


@settings(max_examples=60)
@given(
    family=st.sampled_from(["random_organizer", "interleaved", "nested"]),
    seed=st.integers(0, 10**6),
    capacity=st.integers(2, 6),
    when_full=st.sampled_from(["queue", "block", "allow"]),
    max_workers=st.one_of(st.none(), st.integers(3, 8)),
)
def test_what_is_in_memory_is_what_the_rows_say(family, seed, capacity, when_full, max_workers):
    """Every step takes a second, so the rows tell how far each thread is at any time."""
    rules = Protocol(capacity=capacity, when_full=when_full)
    graphs = [compile_trace(trace, rules) for trace in generate(family, 2, seed=seed)]
    cost = SplitTable((1, 10**6), (1.0, 1.0), r=1e-18)
    watched = Watched()
    options = {"arrivals": [0.0, 3.0], "max_workers": max_workers, "on_deadlock": "record"}
    timeline = simulate(graphs, gpu=GPU(cost=cost), observe=watched, **options)
    if timeline.deadlocks:
        return
    assert watched.seen
    for time, stored in watched.seen:
        assert stored == sum(_stored(timeline, query, time) for query in range(2))


def _stored(timeline, query, time):
    """Return the tokens of the threads that live at a time, from the rows alone."""
    if time > timeline.answered[query] - 0.5:
        return 0
    held, ends = {}, {}
    columns = [timeline.column(name) for name in ("query", "thread", "task", "start", "decode_start", "finish")]
    for number, thread, task, start, begun, finish in zip(*columns, strict=True):
        if number != query:
            continue
        graph_task = timeline.graphs[query].tasks[task]
        read = begun > start + 0.5
        ends[thread] = max(ends.get(thread, 0.0), finish)
        if time > finish - 0.5:
            done = graph_task.tokens + graph_task.prefill
        elif time > begun - 0.5:  # the step that ended the prompt yielded a token
            done = round(time - begun) + (graph_task.prefill + 1 if read else 0)
        else:
            done = 0
        held[thread] = held.get(thread, 0) + done
    return sum(count for thread, count in held.items() if ends[thread] > time + 0.5)


@settings(max_examples=40)
@given(
    family=st.sampled_from(["random_organizer", "interleaved", "nested"]),
    seed=st.integers(0, 10**6),
    later=st.floats(0, 20),
    max_workers=st.one_of(st.none(), st.integers(4, 8)),
)
def test_leaps_are_steps_one_by_one(family, seed, later, max_workers):
    """Also where each token costs more with all that is in memory, and a query arrives in mid-leap."""
    graphs = [compile_trace(trace) for trace in generate(family, 2, seed=seed)]
    law = SplitTable((1, 3, 8, 128), (16e-3, 40e-3, 45e-3, 0.6), b=1e-3, c=6e-6, q=4e-6, r=2e-6, extrapolate="linear")
    gpu = GPU(cost=law, max_prefill_tokens=64)
    options = {"gpu": gpu, "arrivals": [0.0, later], "max_workers": max_workers, "on_deadlock": "record"}
    leaps, steps = simulate(graphs, **options), step_by_step(graphs, **options)
    assert leaps.steps == steps.steps
    assert leaps.rows.shape == steps.rows.shape
    assert np.allclose(leaps.answered, steps.answered, rtol=1e-9, equal_nan=True)
