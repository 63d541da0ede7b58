"""The native format, and the laws that every entry of FORMATS keeps."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.errors import ConfigError, FormatError
from simulator.formats import FORMATS, detect, lookup, native, parse, render
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
from simulator.trace.tokens import by_words
from tests.support.strategies import any_traces

formats = pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
writable = pytest.mark.parametrize(
    "form", [form for form in FORMATS.values() if form.render], ids=lambda form: form.name
)

# ---------------------------------------------------------------- every format

SAMPLES = {
    "native": '{"schema": "forksim.trace/1", "id": "a", "threads": [{"id": "organizer", "actions": []}]}',
    "verifiers": '{"task": {}, "nodes": [{"message": {"role": "assistant", "content": "9"}, "sampled": true}]}',
    "asyncthink": "so <FORK-1>odd</FORK-1>",
    "multiverse": "<Think>so",
    "threadweaver": "<think>so",
    "parallel_r1": "so <Parallel>",
}


def test_formats_are_listed_under_their_names():
    assert {name: form.name for name, form in FORMATS.items()} == {name: name for name in SAMPLES}
    assert list(FORMATS) == list(SAMPLES)


@formats
def test_a_format_knows_its_own(form):
    assert form.detect(SAMPLES[form.name])
    assert detect(SAMPLES[form.name]) == form.name
    assert parse(SAMPLES[form.name]) == form.parse(SAMPLES[form.name])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "asyncthink"),
        ("no tags, \\boxed{9}", "asyncthink"),
        ("<think><Parallel><Path>", "parallel_r1"),
        ("<think><Parallel><Outlines>", "threadweaver"),
        ("<Parallel><Path>x</Path><Conclusion>", "multiverse"),
        ("<Parallel><Goal>", "multiverse"),
        ("no block\n\nFinal Answer: 9", "parallel_r1"),
        ("{1, 2} is a set", "asyncthink"),
        ("<FORK-1> <Parallel>", "asyncthink"),
    ],
)
def test_detection(text, name):
    assert detect(text) == name


def test_an_unknown_format_is_named_with_those_there_are():
    message = (
        "no format is called 'yaml'; accepted are native, verifiers, asyncthink, multiverse, threadweaver, parallel_r1"
    )
    for call in (lambda: lookup("yaml"), lambda: parse("", format="yaml")):
        with pytest.raises(ConfigError) as caught:
            call()
        assert str(caught.value) == message
    with pytest.raises(ConfigError) as caught:
        render(FORK_JOIN, "yaml")
    assert str(caught.value) == message.replace("verifiers, ", "")


@formats
@given(text=st.text(max_size=200) | st.sampled_from([*SAMPLES.values(), "\ud800", "[" * 5000, "\0"]))
def test_no_text_raises_anything_but_a_format_error(form, text):
    form.detect(text)
    for keep in (True, False):
        try:
            trace = form.parse(text, id="q", count=by_words, keep_text=keep, outcome=Outcome(correct=True))
        except FormatError as error:
            assert form.name in ("native", "verifiers") and "\n" not in str(error)
        else:
            assert keep or all(action.text is None for _, _, action in trace.actions())
            assert form.name == "native" or (trace.id, trace.token_source) == ("q", "words")
            assert trace.outcome == Outcome(correct=True)


@writable
@given(trace=any_traces())
def test_no_trace_makes_render_raise_anything_but_a_format_error(form, trace):
    try:
        text = form.render(trace)
    except FormatError as error:
        assert "\n" not in str(error)
        assert form.name != "native"
    else:
        assert form.parse(text).id


FORK_JOIN = Trace(
    "t",
    (
        Thread("organizer", (Think(9, "plan"), Fork(1), Fork(2), Join(1), Join(2), Think(9, "so"), Answer(9, "9"))),
        Thread("1", (Return(9, "odd half"),)),
        Thread("2", (Return(9, "even half"),)),
    ),
)


@writable
def test_every_format_can_say_fork_join(form):
    for trace in (FORK_JOIN, native.without_text(FORK_JOIN)):
        text = form.render(trace)
        assert detect(text) == form.name
        again = form.parse(text, id="t")
        assert again.faults == ()
        kinds = [
            (thread.id, [type(act) for act in thread.actions if type(act) is not Think]) for thread in trace.threads
        ]
        assert kinds == [
            (thread.id, [type(act) for act in thread.actions if type(act) is not Think]) for thread in again.threads
        ]


@formats
def test_detection_of_ten_megabytes(form):
    for unit in ("<", "{", " ", "<Parallel>", "a ", '"schem'):
        form.detect(unit * (10_000_000 // len(unit)))


# ---------------------------------------------------------------- native


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
    assert all(action.text is None for _, _, action in bare.actions())
    assert [thread.tokens for thread in bare.threads] == [thread.tokens for thread in trace.threads]
    assert (bare.id, bare.outcome, bare.faults, bare.meta) == (trace.id, trace.outcome, trace.faults, trace.meta)
    assert native.parse(native.render(trace), keep_text=False) == bare


GOOD = json.loads(SAMPLES["native"])
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
    "half a line": (SAMPLES["native"][:40], "not one complete JSON object: Input data was truncated"),
    "two on one line": (SAMPLES["native"] * 2, "trailing characters"),
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
        native.decode(SAMPLES["native"].replace('"a"', '"\xff"').encode("latin-1"))


def test_what_json_cannot_say_is_a_format_error():
    with pytest.raises(FormatError, match="cannot be written as JSON"):
        native.encode(Trace("\ud800", (Thread("organizer", ()),)))


def test_an_outcome_beside_the_record_fills_in_for_one_within():
    judged = changed(outcome={"correct": False})
    assert native.parse(judged, outcome=Outcome(correct=True)).outcome == Outcome(correct=False)
    assert native.parse(SAMPLES["native"], outcome=Outcome(correct=True)).outcome == Outcome(correct=True)
