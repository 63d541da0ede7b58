"""Multiverse, ThreadWeaver and Parallel-R1: counts done by hand, laws on generated text, hostile text, real text."""

import json
import os
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.errors import FormatError
from simulator.formats.groups import GROUPS, multiverse, npr, parallel_r1, threadweaver
from simulator.formats.groups.layout import _source
from simulator.formats.texts import MAX_FAULTS, MAX_WORKERS
from simulator.trace import (
    MAX_NESTING,
    Answer,
    Delay,
    Fork,
    Join,
    Return,
    Think,
    Thread,
    Trace,
    ViolationKind,
    child_id,
    nesting,
)
from simulator.trace.tokens import by_characters, by_words

DIALECTS = {module.DIALECT.name: module for module in GROUPS}
SIGNS = {Think: "T", Fork: "F", Join: "J", Return: "R", Answer: "A"}

dialects = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)


def shape(trace):
    """Every thread's actions in short: 'organizer TF1J1T, 1 R'."""
    return ", ".join(
        f"{thread.id} " + "".join(SIGNS[type(action)] + str(getattr(action, "index", "")) for action in thread.actions)
        for thread in trace.threads
    )


def faults(trace):
    return [(fault.kind.value, fault.thread, fault.message) for fault in trace.faults]


def latency(trace):
    """Critical path in tokens, with unlimited workers."""
    threads = {thread.id: thread for thread in trace.threads}

    def finish(name, now):
        ends = {}
        for action in threads[name].actions:
            now += action.tokens
            if isinstance(action, Fork):
                ends[action.index] = finish(child_id(name, action.index), now)
            elif isinstance(action, Join):
                now = max(now, ends[action.index])
        return now

    return finish("organizer", 0)


# ---------------------------------------------------------------- by hand

MULTIVERSE = """<Think>
plan it now
<Parallel>
<Goal>
<Outline>
1: odd
</Outline>
<Outline>
2: even
</Outline>
</Goal>
<Path>
1: one two three
</Path>
<Path>
2: four
</Path>
<Conclusion>
both
</Conclusion>
</Parallel>
so nine
</Think>

Answer: 9"""


def test_multiverse_by_hand():
    # organizer |---- 15 ----|......|-- 7 --|-2-|   words; T = 15 + 6 + 7 + 2 = 30
    # path 1                 |- 6 --|
    # path 2                 | 4 |
    trace = multiverse.parse(MULTIVERSE, count=by_words)
    assert shape(trace) == "organizer TF1F2J1J2TA, 1 R, 2 R"
    before, fork_1, _, join_1, join_2, after, answer = trace.organizer.actions
    assert (before.tokens, after.tokens, answer.tokens) == (15, 7, 2)
    assert (fork_1.tokens, join_1.tokens) == (0, 0)
    assert (join_1.inserted_tokens, join_2.inserted_tokens) == (6, 4)
    assert [(thread.prompt_tokens, thread.shared_tokens, thread.label) for thread in trace.threads[1:]] == [
        (15, 15, "1"),
        (15, 15, "2"),
    ]
    assert trace.threads[1].actions == (Return(6, "<Path>\n1: one two three\n</Path>"),)
    assert trace.threads[2].actions == (Return(4, "\n<Path>\n2: four\n</Path>"),)
    assert answer.text == "\n\nAnswer: 9"
    assert (trace.faults, trace.token_source, latency(trace), trace.tokens) == ((), "words", 30, 34)


def test_threadweaver_by_hand():
    # The prompt ends in <think>. Characters, a quarter of them rounded up.
    text = "We split.<Parallel><Outlines><Outline>1: x</Outline></Outlines><Thread>1: a</Thread></Parallel>ok</think>9"
    trace = threadweaver.parse(text)
    assert shape(trace) == "organizer TF1J1TA, 1 R"
    before, _, join, after, answer = trace.organizer.actions
    assert before.tokens == 16  # 9 + 10 + 10 + 9 + 4 + 10 + 11 = 63 characters
    assert join.inserted_tokens == trace.threads[1].tokens == 6  # 8 + 4 + 9 = 21
    assert after.tokens == 6  # 11 + 2 + 8 = 21
    assert answer.text == "9"
    assert trace.faults == ()


def test_parallel_r1_by_hand():
    text = (
        "so <Parallel> <Path>a b</Path> <Path>c</Path> </Parallel> <Summary>d</Summary> then"
        " <Parallel><Path>e</Path></Parallel><Summary>f</Summary>\nthus\nFinal Answer: 9"
    )
    trace = parallel_r1.parse(text, count=by_words)
    # indices go on in the second block; its prompt holds what the first one inserted
    assert shape(trace) == "organizer TF1F2J1J2TF3J3TA, 1 R, 2 R, 3 R"
    assert [action.tokens for action in trace.organizer.actions] == [2, 0, 0, 0, 0, 4, 0, 0, 2, 3]
    assert [thread.prompt_tokens for thread in trace.threads] == [0, 2, 2, 2 + 2 + 1 + 4]
    assert trace.organizer.actions[-2].text == "</Parallel><Summary>f</Summary>\nthus\n"
    assert trace.organizer.actions[-1].text == "Final Answer: 9"
    assert trace.faults == ()


def test_nested_by_hand():
    text = (
        "a <Parallel> <Path>1: b <Parallel> <Path>1.1: c d</Path> <Path>1.2: e</Path> </Parallel> f </Path>"
        " <Path>2: g</Path> </Parallel> h"
    )
    trace = multiverse.parse(text, count=by_words)
    assert shape(trace) == "organizer TF1F2J1J2T, 1 TF1F2J1J2R, 1.1 R, 1.2 R, 2 R"
    assert [thread.label for thread in trace.threads] == [None, "1", "1.1", "1.2", "2"]
    # path 1 decodes 3 + 3, and 3 + 2 are inserted: all 11 are inserted into the organizer
    assert [thread.tokens for thread in trace.threads] == [4, 6, 3, 2, 2]
    assert [thread.prompt_tokens for thread in trace.threads] == [0, 2, 5, 5, 2]
    assert [action.inserted_tokens for action in trace.organizer.actions if isinstance(action, Join)] == [11, 2]
    assert latency(trace) == 2 + (3 + 3 + 3) + 2


# ---------------------------------------------------------------- recovery

RECOVERY = {
    "an end tag without a beginning": ("</Path>", "organizer T", ["stray organizer </Path> closes nothing"]),
    "a path outside a block": (
        "<Path>x</Path>",
        "organizer T",
        ["stray organizer <Path> stands outside a block", "stray organizer </Path> closes nothing"],
    ),
    "cut off in a path": (
        "<Parallel><Path>x",
        "organizer TF1J1, 1 T",
        ["unclosed 1 <Path> is never closed", "unclosed organizer <Parallel> is never closed"],
    ),
    "cut off in an outline": (
        "<Parallel><Goal><Outline>x",
        "organizer T",
        [
            "unclosed organizer <Outline> is never closed",
            "unclosed organizer <Goal> is never closed",
            "unclosed organizer <Parallel> is never closed",
        ],
    ),
    "a block's end closes its path": (
        "<Parallel><Path>x</Parallel>y",
        "organizer TF1J1T, 1 T",
        ["unclosed 1 <Path> is never closed"],
    ),
    "a path's end closes a block in it": (
        "<Parallel><Path>x<Parallel><Goal></Path></Parallel>",
        "organizer TF1J1T, 1 R",
        ["unclosed 1 <Goal> is never closed", "unclosed 1 <Parallel> is never closed"],
    ),
    "a path directly in a path": (
        "<Parallel><Path>x<Path>y</Path></Parallel>",
        "organizer TF1F2J1J2T, 1 T, 2 R",
        ["unclosed 1 <Path> is never closed"],
    ),
    "a conclusion in a path": (
        "<Parallel><Path>x<Conclusion>y</Conclusion></Parallel>",
        "organizer TF1J1T, 1 T",
        ["unclosed 1 <Path> is never closed"],
    ),
    "a path after an inner conclusion": (
        "<Parallel><Path>1<Parallel><Path>1.1</Path><Conclusion>c<Path>2</Path></Parallel>",
        "organizer TF1F2J1J2T, 1 TF1J1T, 1.1 R, 2 R",
        [
            "unclosed 1 <Conclusion> is never closed",
            "unclosed 1 <Parallel> is never closed",
            "unclosed 1 <Path> is never closed",
        ],
    ),
    "a path after the conclusion": (
        "<Parallel><Path>x</Path><Conclusion>y</Conclusion><Path></Parallel>",
        "organizer TF1J1T, 1 R",
        ["stray organizer <Path> stands outside a block"],
    ),
    "two conclusions": (
        "<Parallel><Path>x</Path><Conclusion>y</Conclusion><Conclusion>",
        "organizer TF1J1T, 1 R",
        ["stray organizer <Conclusion> has no block", "unclosed organizer <Parallel> is never closed"],
    ),
    "a block directly in a block": (
        "<Parallel><Path>x</Path><Parallel><Path>y</Path></Parallel>",
        "organizer TF1J1TF2J2T, 1 R, 2 R",
        ["unclosed organizer <Parallel> is never closed"],
    ),
    "words between paths": (
        "<Parallel><Path>x</Path> <Path>y</Path>or<Path>z</Path></Parallel>",
        "organizer TF1F2F3J1J2J3T, 1 R, 2 R, 3 R",
        [],
    ),
    "a plan after the paths": (
        "<Parallel><Path>x</Path><Goal></Goal></Parallel>",
        "organizer TF1J1T, 1 R",
        ["stray organizer <Goal> has no place here", "stray organizer </Goal> closes nothing"],
    ),
    "an outline without a plan": (
        "<Parallel><Outline>x</Outline></Parallel>",
        "organizer T",
        ["stray organizer <Outline> stands outside <Goal>", "stray organizer </Outline> closes nothing"],
    ),
    "an outline in an outline": (
        "<Parallel><Goal><Outline>x<Outline>y</Goal></Parallel>",
        "organizer T",
        ["unclosed organizer <Outline> is never closed", "unclosed organizer <Outline> is never closed"],
    ),
    "thinking ends in a path": (
        "<Think><Parallel><Path>x</Think>9",
        "organizer TF1J1, 1 T",
        [
            "stray 1 </Think> closes nothing",
            "unclosed 1 <Path> is never closed",
            "unclosed organizer <Parallel> is never closed",
            "unclosed organizer <Think> is never closed",
        ],
    ),
    "thinking begins twice": ("<Think><Think></Think>9", "organizer TA", ["stray organizer <Think> has no place here"]),
    "a stray tag in the answer": ("</Think>9</Path>", "organizer TA", ["stray organizer </Path> closes nothing"]),
    "two blocks": (
        "<Parallel><Goal></Goal><Path>x</Path><Conclusion>y</Conclusion></Parallel>" * 2,
        "organizer TF1J1TF2J2T, 1 R, 2 R",
        [],
    ),
    "thinking ends in a block": (
        "<Parallel></Think>9",
        "organizer T",
        ["stray organizer </Think> closes nothing", "unclosed organizer <Parallel> is never closed"],
    ),
    "a plan in a plan": (
        "<Parallel><Goal><Goal></Goal></Parallel>",
        "organizer T",
        ["stray organizer <Goal> has no place here"],
    ),
    "another case is text": ("<parallel><PATH></path>", "organizer T", []),
    "nothing": ("", "organizer ", []),
}


@pytest.mark.parametrize(("text", "expected", "found"), RECOVERY.values(), ids=RECOVERY)
def test_recovery(text, expected, found):
    trace = multiverse.parse(text)
    assert shape(trace) == expected
    assert [f"{kind.removesuffix('_tag')} {thread} {message}" for kind, thread, message in faults(trace)] == found
    for fault in trace.faults:
        action = trace.thread(fault.thread).actions[fault.action]
        assert fault.message.split(">")[0] + ">" in (action.text or "")
        assert text.startswith(fault.message.split(">")[0] + ">", fault.offset)


def plan(*labels):
    return "<Goal>" + "".join(f"<Outline>{label}: x</Outline>" for label in labels) + "</Goal>"


def path(label, text="", end="</Path>"):
    return f"<Path>{label}: {text}{end}"


LABELS = {
    "a path cut inside an inner block, and the next one of the outer": (
        "<Parallel>"
        + plan(1, 2, 3)
        + path(1)
        + path(2, "<Parallel>" + plan(2.1, 2.2) + path(2.1, end=""), "")
        + path(3),
        "organizer TF1F2F3J1J2J3, 1 R, 2 TF1J1, 2.1 T, 3 R",
    ),
    "cut inside an inner plan": (
        "<Parallel>"
        + plan(1, 2, 3)
        + path(1)
        + path(2, "<Parallel><Goal><Outline>2.1: ", "")
        + path(3)
        + "</Parallel>",
        "organizer TF1F2F3J1J2J3T, 1 R, 2 T, 3 R",
    ),
    "by the label alone": (
        "<Parallel>" + path(1) + path(2, "<Parallel>" + path(2.1), "") + path(3) + "</Parallel>",
        "organizer TF1F2F3J1J2J3T, 1 R, 2 TF1J1, 2.1 R, 3 R",
    ),
    "two levels up": (
        "<Parallel>"
        + plan(1, 2)
        + path(1, "<Parallel>" + plan(1.1) + path(1.1, "<Parallel>" + plan("1.1.1"), ""), "")
        + path(2),
        "organizer TF1F2J1J2, 1 TF1J1, 1.1 T, 2 R",
    ),
    "inner labels that begin anew": (
        "<Parallel>" + plan(1, 2) + path(1) + path(2, "<Parallel>" + plan(1, 2) + path(1) + path(2) + "</Parallel>"),
        "organizer TF1F2J1J2, 1 R, 2 TF1F2J1J2R, 2.1 R, 2.2 R",
    ),
    "inner labels that begin anew, and an inner path that is never closed": (
        "<Parallel>" + plan(1, 2) + path(1, "<Parallel>" + plan(1, 2) + path(1, end=""), "") + path(2) + path(2),
        "organizer TF1F2J1J2, 1 TF1F2J1J2, 1.1 T, 1.2 R, 2 R",
    ),
    "a path that ran on past its block's end": (
        "<Parallel>" + plan(1, 2) + path(1, "a</Parallel>b") + path(2) + "</Parallel>c",
        "organizer TF1F2J1J2T, 1 TR, 2 R",
    ),
    "and was never closed": (
        "<Parallel>" + plan(1, 2) + path(1, "a</Parallel>b", "") + path(2) + "</Parallel>c",
        "organizer TF1F2J1J2T, 1 TT, 2 R",
    ),
    "a path that concluded by itself": (
        "<Parallel>" + plan(1, 2) + path(1, "a<Conclusion>b</Conclusion></Parallel>c") + path(2) + "</Parallel>d",
        "organizer TF1F2J1J2T, 1 TR, 2 R",
    ),
    "a path after the conclusion that its block does not lack": (
        "<Parallel>" + plan(1) + path(1, "a", "") + "<Conclusion>b</Conclusion>" + path(1) + "</Parallel>d",
        "organizer TF1J1T, 1 TR",
    ),
    "without Outlines the end is the end": (
        "<Parallel>" + path(1, "a</Parallel>b") + path(2) + "</Parallel>c",
        "organizer TF1J1T, 1 T",
    ),
    "a plan without a block": (
        "so " + plan(1, 2) + path(1) + path(2) + "</Parallel>c",
        "organizer TF1F2J1J2T, 1 R, 2 R",
    ),
    "a plan without a block, and a path that it does not name": ("so " + plan(1, 2) + path(3), "organizer T"),
    "a plan without a block, twice": (
        plan(1) + path(1) + "<Conclusion>x</Conclusion>" + plan(1) + path(1) + "</Parallel>",
        "organizer TF1J1TF2J2T, 1 R, 2 R",
    ),
    "a plan that nothing follows": ("<Think>so " + plan(1, 2) + "</Think>9", "organizer TA"),
    "a plan in a path": (
        "<Parallel>" + path(1, plan(1.1, 1.2) + path(1.1) + path(1.2)) + path(2) + "</Parallel>",
        "organizer TF1F2J1J2T, 1 TF1F2J1J2R, 1.1 R, 1.2 R, 2 R",
    ),
    "a stray end": ("<Parallel>" + path(1) + "</Path>" + path(2) + "</Parallel>", "organizer TF1F2J1J2T, 1 R, 2 R"),
}


@pytest.mark.parametrize(("text", "expected"), LABELS.values(), ids=LABELS)
def test_labels_decide_where_they_are_consistent(text, expected):
    trace = multiverse.parse(text)
    assert shape(trace) == expected
    assert trace.faults  # what is not in order stays a violation
    assert all(trace.thread(fault.thread).actions[fault.action] is not None for fault in trace.faults)


def test_text_between_paths_comes_after_them_all():
    #                |- 3 -|.....|- 2 + 1 -|   "or so" is said when both paths are there
    # path 1               |- 2 -|
    # path 2               |- 4 ---|
    text = "a b <Parallel> <Path>x y</Path> or so <Path>x y z w</Path> </Parallel>"
    trace = multiverse.parse(text, count=by_words)
    assert shape(trace) == "organizer TF1F2J1J2T, 1 R, 2 R"
    assert trace.organizer.actions[-1] == Think(3, " or so  </Parallel>")
    assert (trace.tokens, latency(trace), trace.threads[2].prompt_tokens) == (12, 3 + 4 + 3, 3)
    assert multiverse.render(trace) == "a b <Parallel> <Path>x y</Path><Path>x y z w</Path> or so  </Parallel>"


def test_npr_by_hand():
    # organizer |---- 9 ----|......|-- 2 + 2 --|   words
    # step 1                |- 3 -|
    # step 2                | 2 |
    text = (
        "so <guideline> <plan>1: odd</plan> <plan>2: even</plan> </guideline> <step>1: b c</step> <step>2: d</step>"
        " <takeaway>both</takeaway>\n\\boxed{9} it is"
    )
    trace = npr.parse(text, count=by_words)
    assert shape(trace) == "organizer TF1F2J1J2TA, 1 R, 2 R"
    assert (trace.faults, latency(trace), trace.tokens) == ((), 7 + 3 + 1 + 3, 16)
    assert trace.organizer.actions[-1].text == "\\boxed{9} it is"
    assert npr.parse(text.replace("both", "\\boxed{8}").partition("\n")[0]).organizer.actions[-1].text == (
        "\\boxed{8}</takeaway>"
    )
    inside = "<guideline><plan>1: a</plan></guideline><step>1: b</step><takeaway>\nso \\boxed{8}\n</takeaway>\n"
    assert npr.parse(inside).organizer.actions[-1].text == "so \\boxed{8}\n</takeaway>\n"
    cut = npr.parse("<guideline><plan>1: a</plan></guideline><step>1: b")
    assert [fault.message for fault in cut.faults] == [
        "<step> is never closed",
        "<guideline> has no </takeaway>",
    ]
    assert shape(npr.parse("<step>1: a</step>")) == "organizer T"


def test_threadweaver_is_flat():
    trace = threadweaver.parse("<Parallel><Thread>1: a<Parallel><Thread>b</Thread></Parallel></Thread></Parallel>")
    assert shape(trace) == "organizer TF1J1T, 1 R"
    assert [str(fault) for fault in trace.faults] == [
        "stray_tag: thread 1 action 0 char 22: <Parallel> is text of the Thread that it stands in",
        "stray_tag: thread 1 action 0 char 32: <Thread> is text of the Thread that it stands in",
        "stray_tag: thread organizer action 3 char 61: </Thread> closes nothing",
        "stray_tag: thread organizer action 3 char 70: </Parallel> closes nothing",
    ]


def test_summary_of_parallel_r1_that_does_not_follow_its_block():
    block = "<Parallel><Path>x</Path>"
    assert faults(parallel_r1.parse(block + "<Summary>y</Summary>")) == [
        ("unclosed_tag", "organizer", "<Parallel> is never closed")
    ]
    assert faults(parallel_r1.parse(block + "</Parallel><Summary>y</Summary><Summary>")) == [
        ("stray_tag", "organizer", "<Summary> has no block")
    ]
    trace = parallel_r1.parse("<Parallel><Path>x<Summary>y</Summary>z\nFinal Answer: 9")
    assert shape(trace) == "organizer TF1J1TA, 1 T"
    assert [fault.thread for fault in trace.faults] == ["1", "organizer"]


ANSWERS = [
    (multiverse, "<Think>x</Think> 9", " 9"),
    (multiverse, "<Think>x</Think>\n\nAnswer:", None),
    (multiverse, "<Think>x \\boxed{9}", None),
    (multiverse, "x\nso \\boxed{9}.\n\\]", "so \\boxed{9}.\n\\]"),
    (multiverse, "x\nso \\boxed{9}.\ny", None),
    (multiverse, "x\nso \\boxed{9", None),
    (multiverse, "\\boxed{9} <Parallel><Path>y</Path></Parallel>", None),
    (multiverse, "<Parallel><Path>y</Path></Parallel> so \\boxed{9}", " so \\boxed{9}"),
    (multiverse, "</Think><Parallel><Path>y</Path></Parallel>9", "9"),
    (multiverse, "<Parallel><Path>y</Path>\\boxed{9}", None),
    (multiverse, "just words", None),
    (threadweaver, "x</think>9", "9"),
    (threadweaver, "<think>x", None),
    (parallel_r1, "x\nFinal Answer: 8\nFinal Answer: 9", "Final Answer: 9"),
    (parallel_r1, "w\nx \\boxed{9} y\n", "x \\boxed{9} y\n"),
    (parallel_r1, "**Final Answer**\n\\boxed{9}", "**Final Answer**\n\\boxed{9}"),
    (parallel_r1, "<Parallel><Path>y</Path></Parallel><Summary>Final Answer: 9", None),
    (parallel_r1, "<Parallel><Path>y</Path></Parallel><Summary>Final Answer: 9</Summary> so", None),
]


@pytest.mark.parametrize(("dialect", "text", "answer"), ANSWERS)
def test_answer(dialect, text, answer):
    last = dialect.parse(text).organizer.actions[-1]
    assert (last.text if isinstance(last, Answer) else None) == answer


# ---------------------------------------------------------------- laws

TAGS = [
    f"<{slash}{name}>"
    for name in (
        "guideline",
        "plan",
        "step",
        "takeaway",
        "Parallel",
        "Path",
        "Thread",
        "Goal",
        "Outlines",
        "Outline",
        "Conclusion",
        "Summary",
        "Think",
        "think",
    )
    for slash in ("", "/")
]
# Blocks and paths more often, so that they nest.
common = ["<Parallel>", "<Path>", "<Thread>", "</Path>", "</Thread>", "</Parallel>"]
whole = [
    "<Parallel><Goal><Outline>1: x</Outline><Outline>2: y</Outline></Goal>",
    "<Parallel><Outlines><Outline>1: x</Outline></Outlines>",
    *(
        f"<{tag}>{label}{end}"
        for tag in ("Path", "Thread")
        for label in ("1: ", "2: ", "1.1: ")
        for end in (f"</{tag}>", "")
    ),
    "<Conclusion>so",
    "<guideline><plan>1: x</plan><plan>2: y</plan></guideline>",
    *(f"<step>{label}{end}" for label in ("1: ", "2: ", "1.1: ") for end in ("</step>", "")),
    "<takeaway>so</takeaway>",
    "</Path>a",
    "</Thread>a",
]
words = ["a", " ", "\n", "1: ", "\\boxed{", "Final Answer: 9\n", "Answer:", "<", "é"]
soup = st.lists(st.sampled_from([*TAGS, *common * 3, *whole * 3, *words]), max_size=60).map("".join)
texts = soup | st.text(max_size=200)


@dialects
@given(text=texts)
def test_every_character_belongs_to_exactly_one_action(dialect, text):
    pieces = []

    def count(piece):
        pieces.append(piece)
        return len(piece)

    trace = dialect.parse(text, count=count)
    assert "".join(pieces) == text  # counted where it stands, whoever has it
    assert sum(map(len, pieces)) == trace.tokens
    assert sorted(_source(trace)) == sorted(text)
    for counter in (by_words, by_characters):
        assert _source(dialect.parse(text, count=counter)) == _source(trace)


@dialects
@given(text=texts)
def test_render_gives_the_text_back(dialect, text):
    trace = dialect.parse(text, id="t")
    if _source(trace) == text:
        assert dialect.render(trace) == text
    else:  # something stood between paths: it now stands behind them, if it means the same there
        try:
            again = dialect.render(trace)
        except FormatError:
            return
        trace = dialect.parse(again, id="t")
        assert sorted(_source(trace)) == sorted(again)
    assert dialect.parse(dialect.render(trace), id="t") == trace


@dialects
@given(text=texts)
def test_a_trace_that_is_read_is_in_order(dialect, text):
    trace = dialect.parse(text)
    subtree = {}
    for thread in reversed(trace.threads):
        indices = [action.index for action in thread.actions if isinstance(action, Fork)]
        assert indices == list(range(1, len(indices) + 1))
        joins = [action for action in thread.actions if isinstance(action, Join)]
        assert [join.index for join in joins] == indices
        assert all(join.inserted_tokens == subtree[child_id(thread.id, join.index)] for join in joins)
        subtree[thread.id] = thread.tokens + sum(join.inserted_tokens for join in joins)
        context = thread.prompt_tokens
        for action in thread.actions:
            if isinstance(action, Fork):
                child = trace.thread(child_id(thread.id, action.index))
                assert child.prompt_tokens == child.shared_tokens == context
            else:
                context += action.tokens + getattr(action, "inserted_tokens", 0)
    for fault in trace.faults:
        text_of_fault = trace.thread(fault.thread).actions[fault.action].text
        assert text[fault.offset] == "<" and text[fault.offset : fault.offset + 6] in text_of_fault


@dialects
@given(text=texts)
def test_without_text_all_else_is_the_same(dialect, text):
    full, bare = dialect.parse(text), dialect.parse(text, keep_text=False)
    assert shape(full) == shape(bare)
    assert full.faults == bare.faults
    assert [thread.tokens for thread in full.threads] == [thread.tokens for thread in bare.threads]
    assert all(action.text is None or isinstance(action, Answer) for _, _, action in bare.actions())


@dialects
def test_every_prefix_is_read(dialect):
    block = dialect.render(tree_trace([[], [], []] if dialect.DIALECT.flat else [[[], [[], []]], []]))
    for end in range(len(block) + 1):
        assert _source(dialect.parse(block[:end])) == block[:end]


# ---------------------------------------------------------------- rendering traces from elsewhere


def tree_trace(tree, tokens=40, answer=True):
    """A trace without text: one group of workers for each list in `tree`, nested."""
    threads = []

    def grow(name, groups, end):
        place = len(threads)
        threads.append(None)
        actions = [Think(tokens)]
        for _ in groups[:1]:
            actions += [Fork(index, 6) for index in range(1, len(groups) + 1)]
            for index, child in enumerate(groups, 1):
                grow(child_id(name, index), child, (Return(tokens),))
            actions += [Join(index, 3, 9) for index in range(1, len(groups) + 1)]
            actions.append(Think(tokens))
        threads[place] = Thread(name, (*actions, *end))

    grow("organizer", tree, (Answer(tokens),) if answer else ())
    return Trace("t", tuple(threads))


trees = st.recursive(st.just([]), lambda children: st.lists(children, max_size=4), max_leaves=12)


@dialects
@given(tree=trees, tokens=st.integers(0, 200), answer=st.booleans())
def test_a_trace_without_text_keeps_its_structure(dialect, tree, tokens, answer):
    trace = tree_trace(tree, tokens, answer)
    if dialect.DIALECT.flat and any(tree):
        with pytest.raises(FormatError, match=r"thread [0-9.]+ forks, and in this dialect only the organizer does"):
            dialect.render(trace)
        return
    text = dialect.render(trace)
    again = dialect.parse(text)
    assert again.faults == ()
    assert [thread.id for thread in again.threads] == [thread.id for thread in trace.threads]
    for old, new in zip(trace.threads, again.threads, strict=True):
        kinds = [type(action) for action in new.actions if not isinstance(action, Think)]
        assert kinds == [type(action) for action in old.actions if not isinstance(action, Think)]
        forks = sum(isinstance(action, Fork) for action in old.actions)
        if tokens >= 60 + 15 * forks:  # room for all tags
            assert abs(new.tokens - old.tokens) <= 1
        assert new.tokens >= old.tokens


TREE = tree_trace([[], []])


def with_organizer(*actions):
    return Trace("t", (Thread("organizer", actions), *TREE.threads[1:]))


@dialects
@pytest.mark.parametrize(
    ("trace", "why"),
    [
        (with_organizer(Fork(1), Think(5), Fork(2), Join(1), Join(2)), "thinks while worker 1 runs"),
        (with_organizer(Fork(1), Fork(2), Join(1), Think(1), Join(2)), "thinks while worker 2 runs"),
        (with_organizer(Fork(1), Fork(2), Join(2), Fork(3)), "forks sub-query 3 while worker 1 runs"),
        (with_organizer(Fork(1), Fork(2)), "never joins sub-query 1"),
        (with_organizer(Join(1)), "joins sub-query 1, which is not running"),
        (with_organizer(Fork(3)), "forks sub-query 3, which has no worker"),
        (with_organizer(Fork(1), Fork(1)), "forks sub-query 1, which has no worker or is a duplicate"),
        (with_organizer(Fork(1), Join(1)), "does not fork worker 2"),
        (with_organizer(Answer(1), Think(1)), "goes on after its end"),
        (with_organizer(Delay(1.0)), "has an action Delay where it cannot be said"),
        (with_organizer(Return(1)), "has an action Return where it cannot be said"),
    ],
)
def test_what_a_dialect_cannot_say(dialect, trace, why):
    with pytest.raises(FormatError, match=why):
        dialect.render(trace)


@pytest.mark.parametrize("words", ["so\nFinal Answer: 9", "x <Pa<Path>rallel>"])
def test_words_that_would_read_as_something_else(words):
    trace = Trace(
        "t", (Thread("organizer", (Think(9), Fork(1), Join(1), Think(9, words))), Thread("1", (Return(9, words),)))
    )
    with pytest.raises(FormatError, match="its words would read as tags or as an answer"):
        parallel_r1.render(trace)


@pytest.mark.parametrize("dialect", [multiverse, parallel_r1])
def test_a_worker_without_a_return(dialect):
    trace = Trace("t", (Thread("organizer", (Think(9), Fork(1), Join(1))), Thread("1", (Think(9),))))
    with pytest.raises(FormatError, match="thread 1 never returns, and would take the rest of the text"):
        threadweaver.render(trace)
    again = dialect.parse(dialect.render(trace))
    assert shape(again) == "organizer TF1J1T, 1 T"
    assert [fault.kind for fault in again.faults] == [ViolationKind.UNCLOSED_TAG]


actions = st.one_of(
    st.builds(Think, st.integers(0, 9), st.none() | st.text(max_size=5)),
    st.builds(Fork, st.integers(0, 3)),
    st.builds(Join, st.integers(0, 3)),
    st.builds(Return, st.integers(0, 9)),
    st.builds(Answer, st.integers(0, 9), st.none() | texts),
)


@dialects
@given(threads=st.lists(st.lists(actions, max_size=6), min_size=1, max_size=4))
def test_render_gives_text_or_one_error(dialect, threads):
    names = ["organizer", "1", "1.1", "2"]
    trace = Trace("t", tuple(Thread(name, tuple(acts)) for name, acts in zip(names, threads, strict=False)))
    try:
        text = dialect.render(trace)
    except FormatError as error:
        assert "\n" not in str(error)
    else:
        assert len(dialect.parse(text).threads) == len(trace.threads)


@pytest.mark.parametrize("source", DIALECTS.values(), ids=DIALECTS)
@dialects
def test_from_one_dialect_to_another(dialect, source):
    text = source.render(
        Trace(
            "t",
            (
                Thread(
                    "organizer", (Think(2, "plan"), Fork(1), Fork(2), Join(1), Join(2), Think(1, "so"), Answer(1, "9"))
                ),
                Thread("1", (Return(2, "odd half"),)),
                Thread("2", (Return(2, "even half"),)),
            ),
        )
    )
    moved = dialect.parse(dialect.render(source.parse(text)))
    assert shape(moved) == "organizer TF1F2J1J2TA, 1 R, 2 R"
    assert moved.faults == ()
    assert [thread.label for thread in moved.threads[1:]] == ["1", "2"]
    path = f"<{dialect.DIALECT.path}>{dialect.DIALECT.newline}"
    assert moved.threads[1].actions[-1].text.strip().startswith(f"{path}1: odd half")
    assert moved.organizer.actions[-1].text.strip().rstrip("}").endswith("9")


# ---------------------------------------------------------------- hostile text

MB10 = 10_000_000
HOSTILE = [
    "<Parallel>",
    "{path}",
    "</{inner}>",
    "<Parallel>{path}",
    "<Parallel>{path}</{inner}>",
    "<Parallel>{path}</{inner}>x{path}</{inner}></Parallel>",
    "<Parallel>{plan}<Outline>",
    "<Parallel>{path}</{inner}></Parallel><{summary}>",
    "<",
    "<Parallel",
    "\n",
    "\\boxed{{",
]


@pytest.mark.parametrize(
    ("dialect", "unit"),
    [(multiverse, unit) for unit in HOSTILE]
    + [(dialect, unit) for dialect in (threadweaver, parallel_r1) for unit in (HOSTILE[3], HOSTILE[7])],
)
def test_ten_megabytes(dialect, unit):
    tags = dialect.DIALECT
    unit = unit.format(
        path=f"<{tags.path}>", inner=tags.path, summary=tags.summary, plan=f"<{tags.plan}>" if tags.plan else ""
    )
    text = unit * (MB10 // len(unit))
    start = time.process_time()
    trace = dialect.parse(text, keep_text=False)
    # About 1 s on an idle core; a quadratic scan would take hours.
    assert time.process_time() - start < 10
    assert len(trace.faults) <= MAX_FAULTS + 4
    assert len(trace.threads) <= MAX_WORKERS + 1
    assert max(nesting(thread.id) for thread in trace.threads) <= MAX_NESTING


@dialects
def test_nesting_is_bounded_and_the_text_is_kept(dialect):
    path = f"<{dialect.DIALECT.path}>"
    block = "<Parallel>" if dialect.DIALECT.block else "<guideline>"
    text = f"{block}{path}x" * (MAX_NESTING + 5)
    trace = dialect.parse(text)
    flat = dialect.DIALECT.flat
    assert max(nesting(thread.id) for thread in trace.threads) == (1 if flat else MAX_NESTING)
    deep = ("<Parallel> is nested too deep", "<guideline> has no place here")
    assert sum(fault.message in deep for fault in trace.faults) == (0 if flat else 5)
    assert dialect.render(trace) == text


def test_faults_beyond_a_hundred_are_only_counted():
    trace = multiverse.parse("</Path>" * 1234)
    assert len(trace.faults) == 101
    assert trace.faults[-1].message == "and 1134 more faults of this text"


# ---------------------------------------------------------------- real text

CORPUS = os.environ.get("FORKSIM_CORPUS")
corpus = pytest.mark.skipif(not CORPUS, reason="FORKSIM_CORPUS does not name the folder of recorded traces")


def recorded(name):
    with (Path(CORPUS) / name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.corpus
@corpus
@pytest.mark.parametrize("dialect", [multiverse, parallel_r1])
def test_every_recorded_output_is_read_and_given_back(dialect):
    for record in recorded(f"{dialect.DIALECT.name}.jsonl"):
        trace = dialect.parse(record["output"], count=by_words)
        assert _source(trace) == dialect.render(trace)
        between = re.search(r"</Path>\s+Second, ", record["output"])  # said between two paths, and so behind them
        assert between or _source(trace) == record["output"]
        assert sorted(_source(trace)) == sorted(record["output"])


@pytest.mark.corpus
@corpus
def test_recorded_multiverse():
    traces = [
        (record["dataset"], multiverse.parse(record["output"], count=by_words))
        for record in recorded("multiverse.jsonl")
    ]
    with_kind = {
        kind: sum(any(fault.kind is kind for fault in trace.faults) for _, trace in traces) for kind in ViolationKind
    }
    assert with_kind[ViolationKind.UNCLOSED_TAG] == 20
    assert with_kind[ViolationKind.STRAY_TAG] == 3
    assert sum(not trace.faults for _, trace in traces) == 30

    def saved(dataset, least_threads):
        parts = [
            1 - latency(trace) / trace.tokens
            for name, trace in traces
            if name.startswith(dataset) and len(trace.threads) >= least_threads
        ]
        return sum(parts) / len(parts), len(parts)

    # What unlimited workers save, in white-space words: over all outputs, and over those that hold a block.
    assert saved("AIME24", 1) == (pytest.approx(0.048, abs=0.001), 15)
    assert saved("AIME24", 2) == (pytest.approx(0.089, abs=0.001), 8)
    assert saved("MATH500", 1) == saved("MATH500", 2) == (pytest.approx(0.100, abs=0.001), 35)
    assert saved("", 1) == (pytest.approx(0.084, abs=0.001), 50)
    assert saved("", 2) == (pytest.approx(0.098, abs=0.001), 43)
    clean = {name: sum(not trace.faults for other, trace in traces if other == name) for name in ("AIME24", "MATH500")}
    assert clean == {"AIME24": 8, "MATH500": 22}


@pytest.mark.corpus
@corpus
def test_recorded_parallel_r1():
    traces = [parallel_r1.parse(record["output"], count=by_words) for record in recorded("parallel_r1.jsonl")]
    assert all(not trace.faults and isinstance(trace.organizer.actions[-1], Answer) for trace in traces)
    saved = [1 - latency(trace) / trace.tokens for trace in traces]
    assert sum(saved) / len(saved) == pytest.approx(0.190, abs=0.001)
    with_block = [part for part, trace in zip(saved, traces, strict=True) if len(trace.threads) > 1]
    assert (sum(with_block) / len(with_block), len(with_block)) == (pytest.approx(0.192, abs=0.001), 99)
