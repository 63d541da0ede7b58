"""Recording on llama.cpp in this process. Needs llama-cpp-python, and a GGUF file that FORKSIM_GGUF names."""

import os
from itertools import pairwise

import pytest

from simulator import GPU, check, compile_trace, simulate
from simulator.errors import ConfigError
from simulator.machine.cost import LinearBatch
from simulator.recording import Prompts, Question, Setup, record
from simulator.trace import ORGANIZER, Answer, Fork, Join, Return, Think, Thread, Trace

GGUF = os.environ.get("FORKSIM_GGUF")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not GGUF, reason="FORKSIM_GGUF names no GGUF file"),
]

# The organizer's context at the Forks is 40 + 5 + 2; the token sampled last is not stored yet.
SPEC = Trace(
    "spec",
    (
        Thread(ORGANIZER, (Think(5), Fork(1, 2), Fork(2), Think(9), Join(1, 1, 4), Join(2, 0, 5), Answer(6)), 40),
        Thread("1", (Think(12), Return(2)), 47 + 10, 47),
        Thread("2", (Return(20),), 20),
    ),
)


@pytest.fixture(scope="module")
def engine():
    pytest.importorskip("llama_cpp", reason="needs forksim[llama]")
    from simulator.recording.llamacpp import LlamaEngine

    one = LlamaEngine(GGUF, context=1024, max_prefill=32, sequences=8)
    yield one
    one.shut()


@pytest.fixture
def played(engine):
    def play(queries, arrivals=None, **setup):
        found, steps = [], []
        engine.on_step = steps.append
        record(queries, engine, found.append, Setup(**setup), arrivals=arrivals)
        return found, steps

    return play


def test_every_token_is_decoded_and_every_step_is_in_the_record(played):
    [trace], steps = played([SPEC])
    assert check(trace) == ()
    assert {t.id: t.tokens for t in trace.threads} == {t.id: t.tokens for t in SPEC.threads}
    assert trace.thread("1").shared_tokens == 46 and trace.thread("1").prompt_tokens == 57
    # The prompt, the own part of both tasks, and what was returned with the token before it.
    assert sum(step.prefill_tokens for step in steps) == 40 + 11 + 20 + (4 + 5 + 1)
    # Each generation's first token comes with its prefill.
    assert sum(step.decodes for step in steps) == trace.tokens - 4
    assert max(step.prefill_tokens for step in steps) == 32
    assert steps[0].prefill_context == 32 * 33 // 2
    assert all(a.start + a.seconds == pytest.approx(b.start) for a, b in pairwise(steps))
    ends = {round(step.start + step.seconds, 6) for step in steps}
    for thread in trace.threads:
        for action in thread.actions:
            assert min(abs(action.finish - end) for end in ends) < 2e-6
    assert trace.meta["latency"] == pytest.approx(steps[-1].start + steps[-1].seconds, abs=1e-3)


def test_the_steps_are_those_of_a_simulation(played):
    """The same trace on a GPU that takes the same prompt tokens a step: as many steps, of the same sizes."""
    found, steps = played([SPEC, SPEC], arrivals=[0.0, 0.0], max_workers=3)
    gpu = GPU(cost=LinearBatch(a=1.0, p=1e-9), max_prefill_tokens=32)
    timeline = simulate([compile_trace(trace) for trace in found], gpu=gpu, max_workers=3)
    # A Join's prefill holds one token more here: the one that was sampled before it.
    assert abs(timeline.steps - len(steps)) <= 1


def test_free_thinking_runs(played):
    [trace], _ = played([Question("q", "What is 1 + 2?")], prompts=Prompts(organizer_tokens=40, worker_tokens=20))
    assert trace.tokens > 0 and trace.meta["ended"] in ("answer", "max_tokens", "no_answer")
    assert "prompt_counts" not in trace.meta


def test_a_full_cache_ends_the_query_that_came_last(played):
    long = Trace("long", (Thread(ORGANIZER, (Answer(200),), 700),))
    found, _ = played([long, long], arrivals=[0.0, 0.0])
    assert sorted(trace.meta["ended"] for trace in found) == ["answer", "error"]
    assert any("KV cache of 1024 tokens" in str(trace.meta.get("error")) for trace in found)


def test_more_threads_than_sequences(played):
    forks = tuple(Fork(i) for i in range(1, 10))
    joins = tuple(Join(i) for i in range(1, 10))
    many = Trace(
        "many",
        (Thread(ORGANIZER, (*forks, *joins, Answer(1)), 3), *(Thread(str(i), (Return(2),), 3) for i in range(1, 10))),
    )
    [trace], _ = played([many])
    assert trace.meta["ended"] == "error" and "only 8 sequences" in trace.meta["error"]
    [trace], _ = played([many], max_workers=4)
    assert trace.meta["ended"] == "answer"


def test_what_is_no_model(tmp_path):
    from simulator.recording.llamacpp import LlamaEngine

    (tmp_path / "x.gguf").write_bytes(b"no model")
    for path, message in (("none.gguf", "there is no such file"), (str(tmp_path / "x.gguf"), "cannot load it")):
        with pytest.raises(ConfigError, match=message):
            LlamaEngine(path)
    with pytest.raises(ConfigError, match="threads must be from 1"):
        LlamaEngine(GGUF, threads=0)
