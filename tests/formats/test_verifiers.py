"""Rollouts of verifiers: message graphs small enough to be drawn, and hostile ones."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import ConfigError, FormatError, check, decode_clock, read, render
from simulator.formats.logs import verifiers
from simulator.trace import Answer, Delay, Fork, Join, Outcome, Return, Think, Thread, Trace, ViolationKind


def rollout(*turns, **fields):
    """Build a rollout: turns of (parent, tokens, start, end) and, optionally, {edge: node} and more of the call."""
    nodes, calls = [], []
    for i, (parent, tokens, start, end, *rest) in enumerate(turns):
        edges, extra = (*rest, {}, {})[:2]
        links = [{"node": node, "type": kind} for kind, node in edges.items()]
        nodes.append({"message": {"role": "assistant", "content": "x"}, "sampled": True, "semantic_parents": links})
        if parent is not None:
            nodes[-1]["parent"] = parent
        usage = {"prompt_tokens": extra.pop("prompt", 10), "completion_tokens": tokens}
        calls.append({"node": i, "usage": usage, "time": {"start": start, "end": end}, **extra})
    return {"id": "r", "task": {}, "nodes": nodes, "calls": calls, **fields}


def shape(record):
    """Return the actions of each thread without texts and recorded seconds."""
    trace = verifiers.trace_of(record)
    return {
        thread.id: [
            (
                type(action).__name__[0],
                *(getattr(action, name) for name in ("index", "seconds") if hasattr(action, name)),
            )
            + ((action.tokens,) if action.__class__ in (Think, Answer, Return) else ())
            for action in thread.actions
        ]
        for thread in trace.threads
    }


CALL, RETURN = "subagent_call", "subagent_return"


def test_sub_agents_by_their_edges():
    """Two sub-agents side by side, a tool of 1 s after them.

    ::

        0 ---- 3
         `- 1 -/
         `- 2 -/
    """
    record = rollout(
        (None, 5, 0, 1),
        (None, 7, 1, 3, {CALL: 0}),
        (None, 9, 1.5, 4, {CALL: 0}),
        (0, 3, 5, 6, {RETURN: 1}, {"prompt": 40}),
    )
    record["nodes"][3]["semantic_parents"].append({"node": 2, "type": RETURN})
    assert shape(record) == {
        "organizer": [("T", 5), ("F", 1), ("F", 2), ("J", 1), ("J", 2), ("D", 1.0), ("A", 3)],
        "1": [("R", 7)],
        "2": [("D", 0.5), ("R", 9)],
    }
    trace = verifiers.trace_of(record)
    assert [action.inserted_tokens for action in trace.organizer.actions if isinstance(action, Join)] == [25, 0]
    assert decode_clock(trace).latency == 5 + 9 + 3
    assert decode_clock(trace).violations == ()
    assert (trace.organizer.actions[-1].start, trace.organizer.actions[-1].finish) == (5.0, 6.0)


@pytest.mark.parametrize(
    ("times", "organizer", "worker"),
    [
        ((1, 3), [("T", 5), ("F", 1), ("J", 1), ("D", 1.0), ("T", 3), ("D", 2.0), ("A", 2)], [("R", 7)]),
        ((1, 5.5), [("T", 5), ("F", 1), ("D", 3.0), ("T", 3), ("J", 1), ("D", 1.5), ("A", 2)], [("R", 7)]),
        ((5, 9), [("T", 5), ("D", 3.0), ("T", 3), ("F", 1), ("D", 2.0), ("A", 2)], [("R", 7)]),  # never joined
        (
            (8, 9),
            [("T", 5), ("D", 3.0), ("T", 3), ("D", 2.0), ("T", 2), ("A", 7)],
            None,
        ),  # goes on, as after compaction
        ((0, 3), [("F", 1), ("T", 5), ("J", 1), ("D", 1.0), ("T", 3), ("D", 2.0), ("A", 2)], [("R", 7)]),
    ],
)
def test_branches_without_edges_by_time(times, organizer, worker):
    """The organizer's turns are at 0 to 1, 4 to 5 and 7 to 8."""
    record = rollout((None, 5, 0, 1), (None, 7, *times), (0, 3, 4, 5), (2, 2, 7, 8))
    found = shape(record)
    assert found == {"organizer": organizer} | ({"1": worker} if worker else {})


def test_what_a_piece_forked_its_thread_forked():
    """Node 1 continues the organizer, by time; node 2 is its sub-agent, node 3 takes it back."""
    record = rollout((None, 5, 0, 1), (None, 6, 2, 3), (None, 7, 3, 4, {CALL: 1}), (1, 8, 4, 5, {RETURN: 2}))
    assert shape(record) == {
        "organizer": [("T", 5), ("D", 1.0), ("T", 6), ("F", 1), ("J", 1), ("A", 8)],
        "1": [("R", 7)],
    }


def test_branches_off_a_piece_that_was_moved():
    record = rollout(
        (None, 1, 0, 0), (None, 2, 0, 0), (None, 3, 0, 0), (None, 4, 0, 0, {"continuation": 2}), (2, 5, 0, 0)
    )
    assert shape(record) == {"organizer": [("T", 1), ("T", 2), ("T", 3), ("T", 4), ("A", 5)]}


def test_nested_sub_agents_and_shared_prefixes():
    record = rollout(
        (None, 5, 0, 1),
        (0, 6, 1, 2, {CALL: 0}, {"prompt": 30}),
        (None, 7, 2, 3, {CALL: 1}),
        (1, 4, 3, 4, {RETURN: 2}),
        (0, 8, 4, 5, {RETURN: 3}),
    )
    assert shape(record) == {
        "organizer": [("T", 5), ("F", 1), ("J", 1), ("A", 8)],
        "1": [("T", 6), ("F", 1), ("J", 1), ("R", 4)],
        "1.1": [("R", 7)],
    }
    threads = verifiers.trace_of(record).threads
    assert [(thread.prompt_tokens, thread.shared_tokens) for thread in threads] == [(10, 0), (30, 15), (10, 0)]


def test_a_turn_that_was_cut_off_or_called_a_tool_is_no_answer():
    assert shape(rollout((None, 5, 0, 1, {}, {"finish_reason": "length"}))) == {"organizer": [("T", 5)]}
    record = rollout((None, 5, 0, 1))
    record["nodes"][0]["message"]["tool_calls"] = [{"id": "a", "name": "f", "arguments": "{}"}]
    assert shape(record) == {"organizer": [("T", 5)]}


def test_tokens_without_usage():
    record = {"nodes": [{"message": {"content": "four char"}, "sampled": True, "mask": [False, True, True]}]}
    assert verifiers.trace_of(record).tokens == 2
    assert verifiers.trace_of(record).token_source == "record"
    del record["nodes"][0]["mask"]
    assert (verifiers.trace_of(record).tokens, verifiers.trace_of(record).token_source) == (3, "characters")


def test_tags_in_the_text_of_one_thread_are_read_as_such():
    record = rollout((None, 12, 0, 1))
    record["nodes"][0]["message"]["content"] = "so <FORK-1>q</FORK-1><JOIN-1>9</JOIN-1><ANSWER>9</ANSWER>"
    kinds = [type(action) for action in verifiers.trace_of(record).organizer.actions]
    assert kinds == [Think, Fork, Join, Think, Answer]  # no worker is there that could have returned the 9
    record["info"] = {"workers": {"1": "well <RETURN>9</RETURN>"}}
    assert len(verifiers.trace_of(record).threads) == 2
    kinds = [type(action) for action in verifiers.trace_of(record).organizer.actions]
    assert kinds == [Think, Fork, Join, Answer]


def test_outcome_and_reward():
    record = rollout(
        (None, 5, 0, 1), rewards={"correct": {"score": 1.0}, "style": {"score": 0.5, "weight": 2.0}, "x": None}
    )
    trace = verifiers.trace_of(record)
    assert trace.outcome == Outcome(correct=True) and trace.meta == {"source": "verifiers", "reward": 2.0}
    assert verifiers.trace_of(rollout((None, 5, 0, 1), metrics={"correct": 0.0})).outcome == Outcome(correct=False)
    assert verifiers.trace_of(rollout((None, 5, 0, 1), metrics={"correct": 0.5})).outcome is None


def test_files_of_episodes(tmp_path):
    path = tmp_path / "traces.jsonl"
    one = rollout((None, 5, 0, 1))
    broken = {"task": {}, "traces": [{**one, "nodes": [{"message": {}, "parent": 3, "sampled": True}]}]}
    lines = [{"task": {}, "traces": [one, {**one, "id": "s"}]}, one, broken, {"task": {}, "output": "plain"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = list(read(path))
    assert [getattr(each, "id", str(each)) for each in found] == [
        "r",
        "s",
        "r",
        f"{path}:3: node 0 has parent 3; accepted is an earlier node",
        "traces:4",
    ]
    with pytest.raises(FormatError, match="episode of 2 traces"):
        verifiers.parse(json.dumps(lines[0]))


def test_it_cannot_be_written():
    with pytest.raises(ConfigError, match="verifiers is read, not written; accepted are native, asyncthink, "):
        render(Trace("t", (Thread("organizer", (Answer(1), Delay(1))),)), "verifiers")


times = st.sampled_from((0.0, 0.5, 1.0, 2.0, 3.0, 1e12, -1.0))
edges = st.dictionaries(
    st.sampled_from((CALL, RETURN, "continuation", "compaction", "x")), st.integers(-1, 6), max_size=3
)
turns = st.tuples(st.none() | st.integers(-1, 5), st.sampled_from((0, 3, -1)), times, times, edges)


@settings(max_examples=500)
@given(drawn=st.lists(turns, min_size=1, max_size=7))
def test_any_graph_gives_a_trace_or_a_format_error(drawn):
    try:
        trace = verifiers.trace_of(rollout(*drawn))
    except FormatError as error:
        assert "\n" not in str(error)
        return
    said = sorted(action.tokens for _, _, action in trace.actions() if action.__class__ in (Think, Answer, Return))
    assert said == sorted(tokens for _, tokens, *_ in drawn)  # every turn is on one thread
    assert decode_clock(trace).latency <= sum(said)


# ---------------------------------------------------------------- clocks that disagree


def test_a_worker_whose_clock_is_behind_is_forked_after_what_it_answers():
    """Its sub-agent, which begins before it does, is joined by whom forked it, and after that."""
    record = rollout((None, 5, 10, 11), (0, 7, 3, 4), (1, 2, 1, 2), (0, 4, 20, 21))
    trace = verifiers.trace_of(record)
    assert {violation.kind for violation in check(trace)} <= {ViolationKind.UNJOINED_WORKER}


times = st.integers(0, 9).map(float)


@given(st.lists(st.tuples(st.integers(0, 30), times, times), min_size=1, max_size=12))
def test_no_clock_makes_a_join_of_what_was_not_forked(turns):
    record = rollout(*((at % i if i else None, 3, begin, end) for i, (at, begin, end) in enumerate(turns)))
    for call in record["calls"]:
        call["time"]["end"] = max(call["time"].values())
    kinds = {violation.kind for violation in check(verifiers.trace_of(record))}
    assert kinds <= {ViolationKind.UNJOINED_WORKER, ViolationKind.MISSING_ANSWER, ViolationKind.MISSING_RETURN}
