"""What people hand to `simulate` that is no cost model, policy or time: one clear error, or their own with a note."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest

import simulator.engine.run
from simulator import (
    GPU,
    Answer,
    Fork,
    Join,
    LinearBatch,
    Return,
    Thread,
    Trace,
    compile_trace,
    measure,
    simulate,
)
from simulator.engine.server import MAX_PROMPT_STEPS
from simulator.errors import ConfigError, FormatError, GraphError, TraceError
from simulator.formats import FORMATS, parse, render, writable
from simulator.machine.policy import fcfs
from simulator.trace import Delay

COMPILED = not simulator.engine.run.__file__.endswith(".py")


def graph(prompt: int = 5, tokens: int = 8) -> Any:
    organizer = Thread("organizer", (Fork(1), Join(1), Answer(tokens)), prompt)
    return compile_trace(Trace("who", (organizer, Thread("1", (Return(4),)))))


@dataclass(frozen=True)
class Says:
    """A cost model that says one thing, from some number of steps on, or of prompts."""

    what: Any
    steps: int = 1
    prefill_is_free: bool = True
    unit: str = "seconds"
    monotone: bool = False

    def _said(self) -> Any:
        if isinstance(self.what, Exception):
            raise self.what
        return self.what

    def step_seconds(self, *_: int) -> Any:
        return self._said()

    def decode_seconds(self, n: int, context: int, steps: int) -> Any:
        return self._said() if steps >= self.steps else float(steps)


NUMBERS = (0, 0.0, -1.0, math.nan, math.inf)
OTHERS = ("x", None, [1.0], 1 + 2j, 10**400)


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("what", NUMBERS if COMPILED else NUMBERS + OTHERS)
def test_a_cost_model_that_says_no_time(what, free):
    with pytest.raises(ConfigError, match=r"says that \d steps take"):
        simulate(graph(), gpu=GPU(cost=Says(what, prefill_is_free=free)))


@pytest.mark.parametrize("what", NUMBERS if COMPILED else NUMBERS + OTHERS)
@pytest.mark.parametrize("steps", [2, 3, 7])
def test_a_cost_model_that_says_no_time_for_some_numbers_of_steps(what, steps):
    # The second query cuts the first one's leap, and the engine asks how long shorter ones take.
    with pytest.raises(ConfigError, match=r"says that \d steps take"):
        simulate([graph(), graph()], gpu=GPU(cost=Says(what, steps)), arrivals=[0.0, 6.5])


def test_what_a_cost_model_raises_passes_with_a_note():
    # Workers run from 1 to 5 and from 2 to 6; at 6 the answers have 7 and 8 steps to go, and a leap of 7 is asked for.
    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        simulate([graph(), graph()], gpu=GPU(cost=Says(ZeroDivisionError("mine"), 5)), arrivals=[1.0, 2.0])
    assert caught.value.__notes__ == ["at 6 of simulated time, after 5 engine steps, in 'who', 'who'"]


@pytest.mark.parametrize(
    "keys", [None, 3, [1, None, 3], ["a"] * 3, [math.nan] * 3, [1.0], [[1.0] * 3], "abc", {1: 2}, [10**400] * 3]
)
def test_a_policy_that_gives_no_keys(keys):
    with pytest.raises(ConfigError, match="a policy gives a key for each task, a number, 3 for 'who'; got "):
        simulate(graph(), policy=lambda graph: keys)


def test_keys_may_be_whole_numbers_and_infinite():
    assert simulate(graph(), policy=lambda graph: [math.inf, -math.inf, 3]).makespan == simulate(graph()).makespan


def test_what_a_policy_raises_passes_with_a_note():
    def policy(_: object) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        simulate(graph(), policy=policy)
    assert caught.value.__notes__[0] == "raised by the policy for 'who'"


def test_what_an_observer_raises_passes_with_a_note():
    def observe(_: object) -> None:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine") as caught:
        simulate(graph(), observe=observe)
    assert "of simulated time" in caught.value.__notes__[0]


@pytest.mark.parametrize("nothing", [None, 5, "abc", object(), Trace("t", (Thread("organizer", (Answer(1),)),))])
def test_verbs_take_their_nouns(nothing):
    with pytest.raises(GraphError, match="takes an ExecutionGraph, and this is a"):
        simulate(nothing)
    with pytest.raises(ConfigError, match="takes a Timeline"):
        measure(nothing)
    if not isinstance(nothing, Trace):
        with pytest.raises(TraceError, match="takes a Trace"):
            compile_trace(nothing)


def test_measure_takes_the_number_of_a_query():
    for query in ("x", 1.5, 1, -1):
        with pytest.raises(ConfigError, match="there is no query"):
            measure(simulate(graph()), query)


def test_compile_takes_a_protocol():
    with pytest.raises(ConfigError, match="takes a Protocol; got 5"):
        compile_trace(Trace("t", (Thread("organizer", (Answer(1),)),)), 5)


@pytest.mark.parametrize("nothing", [None, 3, b"", b"<FORK-1>", ["a"], object()])
def test_parse_takes_a_text_and_render_a_trace(nothing):
    for form in (None, *FORMATS):
        with pytest.raises(FormatError, match="a text is a str; got"):
            parse(nothing, format=form)
    for form in writable():
        if form in FORMATS:
            with pytest.raises(FormatError, match="what is rendered is a Trace; got"):
                render(nothing, form)


@pytest.mark.parametrize("size", [1_000_001, 10**18, 10**30])
def test_blocks_have_a_bound(size):
    with pytest.raises(ConfigError, match="block_size must be a whole number of tokens from 1 to 1,000,000"):
        GPU(num_kv_blocks=100, block_size=size)


# Times and counts that would never end.


def test_a_prompt_takes_no_more_steps_than_anybody_waits_for():
    gpu = GPU(cost=LinearBatch(1.0, p=0.25), max_num_batched_tokens=2)
    long = 2 * MAX_PROMPT_STEPS + 1
    with pytest.raises(ConfigError, match=r"who: thread organizer has 2,000,001 prompt tokens to process, which is"):
        simulate(graph(long), gpu=gpu)
    assert simulate(graph(long), gpu=GPU(cost=LinearBatch(1.0, p=0.25))).makespan > long / 4  # a step takes them all
    assert simulate(graph(10**12), gpu=GPU(cost=LinearBatch(1.0), max_num_batched_tokens=2)).makespan == 12.0  # free


@pytest.mark.parametrize("tokens", [1, 2, 10**6])
def test_a_step_moves_the_clock_or_is_refused(tokens):
    late = {"gpu": GPU(cost=LinearBatch(2.0**-20)), "arrivals": [2.0**37]}  # a float of this size moves by 2^-15
    with pytest.raises(ConfigError, match=r"at 1\.37439e\+11 s a step of 9\.53674e-07 s does not move the clock"):
        simulate(graph(0, tokens), **late)
    assert simulate(graph(0, 1), gpu=GPU(cost=LinearBatch(2.0**-15)), arrivals=[2.0**37]).latency[0] == 5 * 2.0**-15


def test_a_delay_moves_the_clock_or_is_refused():
    waits = compile_trace(Trace("t", (Thread("organizer", (Delay(1e-6), Answer(1))),)))
    with pytest.raises(ConfigError, match="a Delay of 1e-06 s does not move the clock"):
        simulate(waits, gpu=GPU(cost=LinearBatch(1.0)), arrivals=[1e11])


def test_a_shipped_policy_and_the_same_as_ones_own_agree():
    queries = [graph(5, n) for n in (3, 9, 4)]
    limits = {"gpu": GPU(cost=LinearBatch(1.0), max_num_seqs=1)}
    ours = simulate(queries, policy=fcfs, **limits)
    assert ours.rows.tolist() == simulate(queries, policy=lambda graph: [0] * len(graph), **limits).rows.tolist()
