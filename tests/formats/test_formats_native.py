"""The native format."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.errors import FormatError
from simulator.formats import native
from simulator.trace import (
    Answer,
    Delay,
    Fork,
    Join,
    Outcome,
    Return,
    Think,
    Thread,
    Trace,
    Violation,
    ViolationKind,
    child_id,
)

SAMPLE = '{"schema": "forksim.trace/1", "id": "a", "threads": [{"id": "organizer", "actions": []}]}'


def test_the_documented_example_is_read():
    example = native.__doc__.split("::\n")[1].split("\n(one line")[0]
    trace = native.parse(example)
    assert native.parse(native.render(trace)) == trace
    assert "\n" not in native.render(trace)
    assert trace == Trace(
        "q7",
        (
            Thread(
                "organizer",
                (
                    Think(12, "split it"),
                    Fork(1, 6, "the odd half"),
                    Think(30),
                    Join(1, 3, 4),
                    Answer(2),
                ),
            ),
            Thread("1", (Delay(0.5), Return(25, start=1.5, finish=2.25)), 18, 12),
        ),
        Outcome(correct=True),
        arrival=0.0,
    )


seconds = st.none() | st.floats(0, 1e9)
words = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
counts = st.integers(0, 10**12)
indices = st.integers(0, 10**9)
recorded = {"text": words, "start": seconds, "finish": seconds}
actions = st.one_of(
    st.builds(Think, counts, **recorded),
    st.builds(Fork, indices, counts, **recorded),
    st.builds(Join, indices, counts, counts, **recorded),
    st.builds(Return, counts, **recorded),
    st.builds(Answer, counts, **recorded),
    st.builds(Delay, st.floats(0, 1e9), **recorded),
)
faults = st.builds(
    Violation, st.sampled_from(ViolationKind), st.just("organizer"), st.text("abc"), st.none() | st.integers(0, 9)
)


@st.composite
def whole_traces(draw):
    """Traces with every field in use."""
    names = ["organizer"]
    for _ in range(draw(st.integers(0, 4))):
        name = child_id(draw(st.sampled_from(names)), draw(indices))
        if name not in names:
            names.append(name)
    threads = []
    for name in names:
        prompt = draw(counts)
        threads.append(
            Thread(name, tuple(draw(st.lists(actions, max_size=4))), prompt, draw(st.integers(0, prompt)), draw(words))
        )
    return Trace(
        draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=9)),
        tuple(threads),
        draw(st.none() | st.builds(Outcome, st.none() | st.booleans(), st.integers(0, 9), st.integers(1, 9))),
        draw(st.sampled_from(["record", "words"])),
        draw(seconds),
        tuple(draw(st.lists(faults, max_size=2))),
        draw(st.dictionaries(st.text("abc"), st.integers(0, 10**30) | st.booleans() | st.text("xyz"), max_size=3)),
    )


@given(trace=whole_traces())
def test_native_gives_back_everything(trace):
    line = native.encode(trace)
    assert b"\n" not in line
    assert native.decode(line) == trace
    assert native.encode(native.decode(line)) == line
    assert json.loads(line)["schema"] == native.SCHEMA


@given(trace=whole_traces())
def test_without_text_all_else_is_the_same(trace):
    bare = native.without_text(trace)
    assert all(action.text is None or isinstance(action, Answer) for _, _, action in bare.actions())
    assert [thread.tokens for thread in bare.threads] == [thread.tokens for thread in trace.threads]
    assert (bare.id, bare.outcome, bare.faults, bare.meta) == (trace.id, trace.outcome, trace.faults, trace.meta)
    assert native.parse(native.render(trace), keep_text=False) == bare


GOOD = json.loads(SAMPLE)
ACCEPTED = '"schema": "forksim.trace/1"'


def changed(**changes):
    return json.dumps({key: value for key, value in (GOOD | changes).items() if value is not ...})


def acting(*acts):
    return changed(threads=[{"id": "organizer", "actions": acts}])


BAD = {
    "no schema": (changed(schema=...), f'not a native record: no "schema"; accepted is {ACCEPTED}'),
    "a later schema": (changed(schema="forksim.trace/2"), "Invalid value 'forksim.trace/2'"),
    "a later schema is told the accepted one": (changed(schema="forksim.trace/2"), f"accepted is {ACCEPTED}"),
    "an earlier schema": (changed(schema="forksim.trace/0"), f"accepted is {ACCEPTED}"),
    "a schema of another type": (changed(schema=1), f"accepted is {ACCEPTED}"),
    "an unknown key": (changed(colour="red"), "unknown field `colour`"),
    "an unknown key of an action": (acting({"do": "think", "tokens": 1, "words": 2}), "unknown field `words`"),
    "an unknown action": (acting({"do": "ponder"}), "Invalid value 'ponder' - at `$.threads[0].actions[0].do`"),
    "no action": (acting({"tokens": 1}), "missing required field `do`"),
    "negative tokens": (acting({"do": "think", "tokens": -3}), "tokens must be an int from 0 to 10^12, got -3"),
    "tokens that are no int": (acting({"do": "think", "tokens": 1.5}), "Expected `int`, got `float`"),
    "NaN": (acting({"do": "delay", "seconds": float("nan")}), "not one complete JSON object"),
    "a huge index": (acting({"do": "fork", "index": 10**30}), "index must be an int from 0 to 10^9"),
    "a worker without its parent": (changed(threads=[*GOOD["threads"], {"id": "1.1", "actions": []}]), "its parent"),
    "no threads": (changed(threads=[]), "the first thread must be 'organizer'"),
    "a list": ("[]", "Expected `object`, got `array`"),
    "half a line": (SAMPLE[:40], "not one complete JSON object: Input data was truncated"),
    "two on one line": (SAMPLE * 2, "trailing characters"),
    "nothing": ("", "not one complete JSON object"),
    "deeper than any JSON": ('{"schema":' + "[" * 100_000, "not one complete JSON object"),
    "a lone surrogate": ('{"id": "\\ud800"}', "not one complete JSON object"),
}


@pytest.mark.parametrize(("line", "message"), BAD.values(), ids=BAD)
def test_a_bad_record_has_one_clear_message(line, message):
    for text in (line, line.encode()):
        with pytest.raises(FormatError) as caught:
            native.decode(text)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_bytes_that_are_no_utf8():
    with pytest.raises(FormatError, match="not one complete JSON object"):
        native.decode(SAMPLE.replace('"a"', '"\xff"').encode("latin-1"))


def test_what_json_cannot_say_is_a_format_error():
    with pytest.raises(FormatError, match="cannot be written as JSON"):
        native.encode(Trace("\ud800", (Thread("organizer", ()),)))


def test_an_outcome_beside_the_record_fills_in_for_one_within():
    judged = changed(outcome={"correct": False})
    assert native.parse(judged, outcome=Outcome(correct=True)).outcome == Outcome(correct=False)
    assert native.parse(SAMPLE, outcome=Outcome(correct=True)).outcome == Outcome(correct=True)
