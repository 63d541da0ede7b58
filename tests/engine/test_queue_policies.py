"""Policies that see the queue and the time: against the oracle, by hand, and against those that only see the graph."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings

from simulator import GPU, Answer, ConfigError, ConstantRate, Thread, Trace, compile_trace, simulate
from simulator.machine.policy import POLICIES, Entry, Queue, QueuePolicy, shortest_first
from tests.support.engine_scenarios import QUIET, agree, scenarios
from tests.support.stepwise import step_by_step


def fewest_running(queue: Queue) -> Entry:
    """The query with the fewest sequences in the batch."""
    running = [entry.query for entry in queue.running]
    return min(queue.waiting, key=lambda entry: running.count(entry.query))


def turn_about(queue: Queue) -> Entry:
    """The first or the last, as the time says."""
    return queue.waiting[-int(queue.now * 1024) % 2 - 1]


def most_prompt_while_there_is_none(queue: Queue) -> Entry:
    busy = sum(entry.prefill for entry in queue.running)
    return (min if busy else max)(queue.waiting, key=lambda entry: (entry.prefill, entry.since))


def near_the_end(queue: Queue) -> Entry:
    """As many tokens as somebody who runs has left, or as near to it as can be; of several, the last by key."""
    left = min((entry.tokens for entry in queue.running), default=3)
    return min(queue.waiting, key=lambda entry: (abs(entry.tokens - left), -entry.key, entry.thread))


NEWCOMERS = {
    "fewest-running": QueuePolicy(fewest_running),
    "turn-about": QueuePolicy(turn_about, POLICIES["shortest-first"]),
    "most-prompt": QueuePolicy(most_prompt_while_there_is_none),
    "near-the-end": QueuePolicy(near_the_end, POLICIES["critical-path-first"]),
}


@pytest.fixture(autouse=True, scope="module")
def registered():
    with pytest.MonkeyPatch.context() as patch:
        for name, policy in NEWCOMERS.items():
            patch.setitem(POLICIES, name, policy)
        yield


@pytest.mark.parametrize("name", NEWCOMERS)
@pytest.mark.parametrize("paged", [True, False])
def test_two_programs_agree(name, paged):
    @settings(max_examples=80, **QUIET)
    @given(scenarios(paged=paged))
    def check(scenario):
        agree(replace(scenario, policy=name))

    check()


@pytest.mark.slow
@pytest.mark.parametrize("name", NEWCOMERS)
@pytest.mark.parametrize("paged", [True, False])
def test_two_programs_agree_many(name, paged):
    @settings(max_examples=1_000, **QUIET)
    @given(scenarios(paged=paged))
    def check(scenario):
        agree(replace(scenario, policy=name))

    check()


@settings(max_examples=100, **QUIET)
@given(scenarios())
def test_who_always_takes_the_first_by_key_is_a_policy_of_keys(scenario):
    keys = POLICIES[scenario.policy]
    assume(not isinstance(keys, QueuePolicy))
    first = QueuePolicy(lambda queue: queue.waiting[0], keys)
    options = {"protocol": scenario.protocol, "arrivals": scenario.arrivals, "max_workers": scenario.max_workers}
    one, two = (
        simulate(scenario.graphs, gpu=scenario.gpu, policy=policy, on_deadlock="record", **options)
        for policy in (keys, first)
    )
    assert one.rows.tobytes() == two.rows.tobytes()


def one_thread(tokens: int, prompt: int = 0):
    return compile_trace(Trace("t", (Thread("organizer", (Answer(tokens),), prompt),)))


def test_what_a_policy_sees():
    """One place, a step a second. Queries of 3 and 2 tokens are there from the start, one of 4 comes at 1.5."""
    seen = []

    def last(queue: Queue) -> Entry:
        seen.append(queue)
        return queue.waiting[-1]

    timeline = simulate(
        [one_thread(3), one_thread(2, 7), one_thread(4)],
        gpu=GPU(cost=ConstantRate(1), max_num_seqs=1),
        arrivals=[0, 0, 1.5],
        policy=QueuePolicy(last, shortest_first),
    )
    assert timeline.answered.tolist() == [3, 9, 7]
    first, second, third = Entry(0, 0, 0, 3, 0, 0.0, 3), Entry(1, 0, 0, 2, 7, 0.0, 2), Entry(2, 0, 0, 4, 0, 1.5, 4)
    assert seen == [
        Queue(0.0, 0, (second, first), ()),
        Queue(3.0, 0, (second, third), ()),
        Queue(7.0, 0, (second,), ()),
    ]


def test_what_was_not_offered_is_refused():
    with pytest.raises(ConfigError, match="a policy must choose one of those that wait; got None"):
        simulate(one_thread(1), policy=QueuePolicy(lambda queue: None))
    with pytest.raises(ConfigError, match="policy must be a function from a graph to keys, or a QueuePolicy; got 3"):
        simulate(one_thread(1), policy=3)
    with pytest.raises(ConfigError, match=r"no policy is called 'fast'; did you mean fcfs\?"):
        simulate(one_thread(1), policy="fast")


def test_leaps_are_steps():
    """Where nobody may be asked in between, a leap is a leap: there is one place, and it is taken."""
    graphs = [one_thread(50), one_thread(60)]
    gpu = GPU(cost=ConstantRate(1), max_num_seqs=1)
    asked = []
    simulate(graphs, gpu=gpu, policy=QueuePolicy(lambda queue: asked.append(queue.now) or queue.waiting[0]))
    assert asked == [0, 50]
    assert step_by_step(graphs, gpu=gpu).answered.tolist() == [50, 110]
