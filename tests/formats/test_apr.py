"""Searches of APR: one by hand, laws of the recorded ones, and what is no search."""

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import compile_trace, measure, read, simulate
from simulator.errors import FormatError
from simulator.formats import parse
from simulator.trace import MAX_NESTING, Answer, Fork, Join, Outcome, Return, Think

ASKS = "<Calling Sub Searches>\n<Start Sub Search 0 at level 1> go left\n<Start Sub Search 1 at level 1> go right\n"
ASKED = ASKS + "<End Calling Sub Searches>\n"
GOT = "<Sub Searches>\n<No Solution in Sub Search 0 at level 1>\n<Goal Reached in Sub Search 1 at level 1>\nby 3\n"
SEARCH = {
    "main_calls": ["a b c\n" + ASKED, "a b c\n" + GOT + "<End Sub Searches>\nd e\n3 equal: Goal Reached\n"],
    "sub_calls": [
        [
            {"main_calls": ["go left\nx y z\nNo solution found.\n"], "sub_calls": []},
            {"main_calls": ["go right\nx\n3 equal: Goal Reached\n"], "sub_calls": []},
        ]
    ],
}


def words(text):
    return len(text.split())


def trace_of(record, **options):
    return parse(json.dumps(record), count=words, **options)


def test_by_hand():
    trace = trace_of({"trace_dict": SEARCH, "target": 3, "nums": [1, 2]}, id="q")
    assert trace.faults == () and trace.meta == {"source": "apr", "target": 3, "nums": [1, 2]}
    assert [(type(action), action.tokens) for action in trace.organizer.actions] == [
        (Think, 3),
        (Fork, 3 + 7 + 2),
        (Fork, 7 + 2 + 4),
        (Join, 0),
        (Join, 0),
        (Think, 2),
        (Answer, 4),
    ]
    assert [action.inserted_tokens for action in trace.organizer.actions if type(action) is Join] == [2 + 9, 9 + 2 + 3]
    left, right = trace.threads[1:]
    assert left.actions == (Think(3, "\nx y z\n"), Return(3, "No solution found.\n"))
    assert right.actions == (Think(1, "\nx\n"), Return(4, "3 equal: Goal Reached\n"))
    assert (left.prompt_tokens, left.shared_tokens) == (2, 0)
    # organizer |-3-|-12-|-13-|..5..|-2-|-4-|   decode steps
    # left               |- 6 -|
    # right                   |- 5 -|
    assert measure(simulate(compile_trace(trace)))["latency"] == 28 + 5 + 6
    assert trace.outcome is None  # that it says so is no proof
    assert trace_of({"trace_dict": SEARCH, "correct": True}).outcome == Outcome(correct=True)


def test_nested_and_cut_off():
    inner = {"main_calls": ["go left\nm\n" + ASKED], "sub_calls": [[{"main_calls": ["go left\nu v\n"]}]]}
    trace = trace_of({"main_calls": ["a\n" + ASKED], "sub_calls": [[inner]]})
    assert [thread.id for thread in trace.threads] == ["organizer", "1", "1.1"]
    assert [type(action) for action in trace.organizer.actions] == [Think, Fork, Fork, Join, Join]
    assert [type(action) for action in trace.thread("1").actions] == [Think, Fork, Fork, Join, Join]
    assert trace.thread("1.1").actions == (Return(2, "\nu v\n"),)


def test_texts_that_do_not_continue_each_other_lose_nothing():
    trace = trace_of({"main_calls": ["a b\n" + ASKED, "a c\nd\n"], "sub_calls": []})
    assert [action.text for action in trace.organizer.actions if isinstance(action, Think | Answer)] == [
        "a b\n",
        "c\n",
        "d\n",
    ]


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"main_calls": 3, "sub_calls": []}, r"not a search of APR: Expected `array \| null`, got `int`"),
        ({"main_calls": None, "sub_calls": []}, "is no search of APR: it has no main_calls"),
        ({"main_calls": ["x"], "sub_calls": [[{}]]}, "not a search of APR: Object missing required field `main_calls`"),
        (
            {"trace_dict": {"main_calls": ["x"], "sub_calls": [["x"]]}},
            "not a search of APR: Expected `object`, got `str`",
        ),
    ],
)
def test_what_is_no_search(record, why):
    with pytest.raises(FormatError, match=why):
        parse(json.dumps(record), format="apr")


def test_deep_and_wide_searches_are_refused():
    search = {"main_calls": ["x"], "sub_calls": []}
    for _ in range(MAX_NESTING + 1):
        search = {"main_calls": ["x"], "sub_calls": [[search]]}
    with pytest.raises(FormatError, match="nests them deeper than 32"):
        trace_of(search)
    with pytest.raises(FormatError, match="has more than 10000 searches"):
        trace_of({"main_calls": ["x"], "sub_calls": [[{"main_calls": []}] * 10_001]})


texts = st.lists(
    st.sampled_from(["a\n", ASKED, ASKS, GOT, "<End Sub Searches>\n", "<Sub Searches>\n", "go left", "\ud800", "é "]),
    max_size=6,
).map("".join)
searches = st.recursive(
    st.builds(lambda calls: {"main_calls": calls, "sub_calls": []}, st.lists(texts, max_size=3)),
    lambda inner: st.builds(
        lambda calls, subs: {"main_calls": calls, "sub_calls": subs},
        st.lists(texts, max_size=3),
        st.lists(st.lists(inner, max_size=3), max_size=3),
    ),
    max_leaves=8,
)


@given(record=searches)
def test_any_search_is_a_trace_whose_forks_are_joined(record):
    record = json.loads(json.dumps(record).replace("\\ud800", "?"))
    trace = parse(json.dumps(record), format="apr", count=len)
    assert not trace.faults
    for thread in trace.threads:
        forks = [action.index for action in thread.actions if isinstance(action, Fork)]
        assert forks == [action.index for action in thread.actions if isinstance(action, Join)]
        assert forks == list(range(1, len(forks) + 1))


corpus = pytest.mark.skipif(
    "FORKSIM_CORPUS" not in os.environ, reason="FORKSIM_CORPUS does not name the recorded traces"
)


@pytest.mark.corpus
@corpus
def test_recorded_searches():
    """The critical path is worked out here from the texts alone, with a counter that adds up: characters."""
    path = Path(os.environ["FORKSIM_CORPUS"]) / "apr.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    traces = list(read(path, count=len))
    assert len(traces) == len(records) == 40
    for record, trace in zip(records, traces, strict=True):
        calls, subs = record["trace_dict"]["main_calls"], record["trace_dict"]["sub_calls"]
        now, before = 0, ""
        for k, text in enumerate(calls):
            new = text.removeprefix(before)
            assert new != text or k == 0
            if k:
                new = re.sub(r"^<Sub Searches>.*?<End Sub Searches>\n", "", new, count=1, flags=re.DOTALL)
            own, calling, asks = new.partition("<Calling Sub Searches>")
            before = text[: len(text) - len(calling + asks)]
            now += len(own)
            if not calling:
                continue
            lines = re.findall(r"(?:<Start Sub Search [^\n]*\n)(?:<End Calling Sub Searches>\n)?", asks)
            lines[0] = calling + "\n" + lines[0]
            ends = []
            for line, sub in zip(lines, subs[k], strict=True):
                now += len(line)
                prompt = re.search(r"> ([^\n]*)", line[line.index("<Start") :])[1]
                assert not sub["sub_calls"] and sub["main_calls"][0].startswith(prompt)
                ends.append(now + len(sub["main_calls"][0]) - len(prompt))
            now = max([now, *ends])
        assert measure(simulate(compile_trace(trace)))["latency"] == now
        assert not trace.faults and isinstance(trace.organizer.actions[-1], Answer)
