"""AsyncThink text: every rule of its docstring by hand, laws on generated text, hostile text."""

import time
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simulator.errors import FormatError
from simulator.formats import asyncthink, native, scan
from simulator.formats.asyncthink import detect, parse, parse_file, render, render_threads
from simulator.formats.scan import MAX_TAGS
from simulator.formats.texts import MAX_FAULTS, MAX_WORKERS
from simulator.graph.clock import check, decode_clock
from simulator.trace import (
    MAX_INDEX,
    MAX_NESTING,
    Answer,
    Delay,
    Fork,
    Join,
    Outcome,
    Return,
    Think,
    Thread,
    Trace,
    ViolationKind,
    child_id,
)
from simulator.trace.tokens import by_characters, by_words

SIGNS = {Think: "T", Fork: "F", Join: "J", Return: "R", Answer: "A"}


def shape(thread):
    """One thread's actions in short: 'TF1J1A'."""
    return "".join(SIGNS[type(action)] + str(getattr(action, "index", "")) for action in thread.actions)


def organizer(text, **options):
    return parse(text, **options).organizer


def faults(trace):
    return [(fault.kind.value, fault.thread, fault.message, fault.offset) for fault in trace.faults]


def decoded_and_inserted(trace):
    return sum(action.tokens + getattr(action, "inserted_tokens", 0) for _, _, action in trace.actions())


# ---------------------------------------------------------------- by hand


def test_a_trace_by_hand():
    # organizer |--4--|F7|----2----|J2|......+6|1|--5--|      a quarter of the characters, rounded up
    # worker 1           |-- 2 --|R6|
    trace = parse(
        "Split the sum. <FORK-1>odd numbers?</FORK-1> 2+4=6. <JOIN-1>they are 9</JOIN-1> so<ANSWER>15</ANSWER>",
        workers={"1": "1+3+5. <RETURN>they are 9</RETURN>"},
        id="q",
        outcome=Outcome(correct=True),
    )
    assert [thread.id for thread in trace.threads] == ["organizer", "1"]
    assert shape(trace.organizer) == "TF1TJ1TA"
    think, fork, on, join, so, answer = trace.organizer.actions
    assert (think.text, think.tokens) == ("Split the sum. ", 4)  # 15 characters
    assert (fork.text, fork.tokens) == ("odd numbers?", 8)  # 8 + 12 + 9 = 29
    assert (on.text, on.tokens) == (" 2+4=6. ", 2)  # 8
    assert (join.text, join.tokens, join.inserted_tokens) == ("they are 9", 2, 5)  # 8; 10 + 9 = 19
    assert (so.text, so.tokens) == (" so", 1)
    assert (answer.text, answer.tokens) == ("15", 5)  # 8 + 2 + 9 = 19
    worker = trace.threads[1]
    assert shape(worker) == "TR"
    assert [(action.text, action.tokens) for action in worker.actions] == [("1+3+5. ", 2), ("they are 9", 7)]
    assert (worker.prompt_tokens, worker.shared_tokens) == (8, 0)  # its sub-query with the tags
    assert (trace.id, trace.outcome, trace.token_source, trace.faults) == ("q", Outcome(correct=True), "characters", ())
    assert decode_clock(trace).latency == 4 + 8 + 2 + 7 + 1 + 5  # the worker returns after the organizer asks
    assert check(trace) == ()


def test_text_is_kept_only_if_asked_for():
    text = "a<FORK-1>b</FORK-1>c<JOIN-1>d</JOIN-1><ANSWER>e</ANSWER><WORKER-1>f<RETURN>g</RETURN></WORKER-1>"
    text = text.replace("JOIN-1>d<", "JOIN-1>g<")
    with_text, without = parse_file(text), parse_file(text, keep_text=False)
    assert [action.text for _, _, action in with_text.actions()] == list("abcgefg")
    assert {action.text for _, _, action in without.actions()} == {None, "e"}  # the Answer, which is judged
    assert [action.tokens for _, _, action in without.actions()] == [
        action.tokens for _, _, action in with_text.actions()
    ]


@pytest.mark.parametrize(
    "text",
    [
        "a<FORK-1>b</FORK-1>c<JOIN-1>d</JOIN-1><ANSWER>e</ANSWER>",
        "a<FORK1>b</FORK1>c<JOIN1>d</JOIN1><ANSWER>e</ANSWER>",
        "a<FORK-1>b</FORK1>c<JOIN1>d</JOIN-1><ANSWER>e</ANSWER>",
        "a<FORK-01>b</FORK-1>c<JOIN-1>d</JOIN-001><ANSWER>e</ANSWER>",
        "a<FORK-1>b</FORK>c<JOIN-1>d</JOIN><ANSWER>e</ANSWER>",
    ],
    ids=["hyphens", "none", "mixed", "zeros", "closed without an index"],
)
def test_spellings_of_a_tag(text):
    trace = parse(text, workers={"1": "<RETURN>d</RETURN>"})
    assert shape(trace.organizer) == "TF1TJ1A"
    assert [action.text for action in trace.organizer.actions] == list("abcde")
    assert trace.faults == ()
    assert decoded_and_inserted(parse(text, workers={"1": "d"}, count=len)) == len(text) + 1


@pytest.mark.parametrize(
    "tag",
    [
        "<FORK>",
        "<FORK->",
        "</FORK->",
        "<FORK-1",
        "FORK-1>",
        "<FORK-x>",
        "<FORK--1>",
        "<JOIN>",
        "<RETURN-1>",
        "<ANSWER->",
        "</ANSWER-3>",
        "<FORK-١>",
        "<<",
        "<FORK-11111111111111111111111111111111111111111>",
    ],
)
def test_what_is_no_tag_is_text(tag):
    trace = parse(f"a {tag} b <ANSWER>c</ANSWER>")
    assert shape(trace.organizer) == "TA"
    assert trace.organizer.actions[0].text == f"a {tag} b "
    assert trace.faults == ()


def test_tags_right_after_each_other():
    assert shape(organizer("<FORK-1></FORK-1><FORK-2></FORK-2><JOIN-2></JOIN-2><JOIN-1></JOIN-1>")) == "F1F2J2J1"


def test_an_angle_bracket_before_a_tag_is_thinking():
    trace = parse("a <<FORK-1>b</FORK-1>")
    assert shape(trace.organizer) == "TF1"
    assert trace.organizer.actions[0].text == "a <"


# Joins without a closing tag


@pytest.mark.parametrize("after", ["", " then", " then<FORK-2>x</FORK-2>", "<JOIN-2></JOIN-2>", "<ANSWER>9</ANSWER>"])
def test_without_a_closing_tag_what_the_worker_returned_is_inserted(after):
    trace = parse(f"<FORK-1>q</FORK-1><JOIN-1>{after}", workers={"1": "hm <RETURN>it is nine</RETURN>"}, count=len)
    join = trace.organizer.actions[1]
    assert (join.index, join.tokens, join.inserted_tokens, join.text) == (1, 8, len("it is nine"), None)
    rest = "".join(action.text for action in trace.organizer.actions[2:] if isinstance(action, Think))
    assert rest == (" then" if "then" in after else "")
    assert trace.faults == ()


@pytest.mark.parametrize("worker", ["no return", "<RETURN>never closed", "", "</RETURN>x<RETURN>"])
def test_a_bare_join_of_a_worker_that_returned_nothing_inserts_nothing(worker):
    trace = parse("<FORK-1>q</FORK-1><JOIN-1> on", workers={"1": worker})
    assert trace.organizer.actions[1] == Join(1, 2, 0)


def test_a_bare_join_of_a_nested_worker():
    trace = parse(
        "<FORK-1>q</FORK-1><JOIN-1>",
        workers={"1": "<FORK-2>r</FORK-2><JOIN-2> so", "1.2": "<RETURN>four</RETURN>"},
        count=len,
    )
    assert shape(trace.threads[1]) == "F2J2T"
    assert trace.threads[1].actions[1].inserted_tokens == 4
    assert trace.organizer.actions[1].inserted_tokens == 0


def test_a_worker_returns_after_a_bare_join():
    worker = parse("", workers={"1": "<FORK-2>r</FORK-2><JOIN-2> so <RETURN>x</RETURN>"}).threads[1]
    assert shape(worker) == "F2J2TR"


def test_inserted_text_may_hold_the_tags_of_the_return():
    text = "<FORK-1>q</FORK-1><JOIN-1>see: <RETURN>9</RETURN></JOIN-1><ANSWER>9</ANSWER>"
    trace = parse(text, workers={"1": "see: <RETURN>9</RETURN>"})
    assert shape(trace.organizer) == "F1J1A"
    assert trace.organizer.actions[1].text == "see: <RETURN>9</RETURN>"
    assert trace.faults == ()
    trace = parse(text.replace("see: ", ""), workers={"1": "see: <RETURN> 9</RETURN>"})
    assert trace.organizer.actions[1].text == "<RETURN>9</RETURN>"
    assert trace.faults == ()


# Whose text stands in a Join


@pytest.mark.parametrize(
    ("worker", "inside"),
    [
        (None, "9"),
        ("", "9"),
        ("<RETURN>8</RETURN>", "9"),
        ("<RETURN>9</RETURN>", "9 "),  # space around it is nobody's thought
        ("<RETURN>9</RETURN>", "9, which I doubt"),
        ("<RETURN>9</RETURN>", "so 9"),
        ("so <RETURN>9</RETURN>", "so 9"),
        ("<RETURN>9", "9"),
        ("<RETURN></RETURN>", "9"),
        ("<RETURN>9</RETURN>", "<RETURN>9"),
        ("<RETURN>9</RETURN>", "<RETURN>99</RETURN>"),
        ("<RETURN>9</RETURN>", "</JOIN-2>9"),
    ],
)
def test_what_no_worker_returned_was_decoded(worker, inside):
    text = f"<FORK-1>q</FORK-1><JOIN-1>{inside}</JOIN-1><ANSWER>9</ANSWER>"
    trace = parse(text, workers={} if worker is None else {"1": worker}, count=len)
    forged = inside.strip() != "9" or worker != "<RETURN>9</RETURN>"
    assert shape(trace.organizer) == ("F1J1TA" if forged else "F1J1A")
    join = trace.organizer.actions[1]
    assert (join.tokens, join.inserted_tokens) == (8, 0 if forged else len(f"{inside}</JOIN-1>"))
    said = "what stands in <JOIN-1> is not what worker 1 returned"
    assert (("forged_join", "organizer", said, 18) in faults(trace)) == forged
    if forged:
        assert trace.organizer.actions[2].tokens == len(f"{inside}</JOIN-1>")


def test_each_return_of_a_worker_and_all_it_said_may_be_inserted():
    worker = "hm <RETURN>8</RETURN> no <RETURN>9\n</RETURN>"
    for inside in ("8", "9", " 9 ", worker, "", "\n"):
        trace = parse(f"<FORK-1>q</FORK-1><JOIN-1>{inside}</JOIN-1>", workers={"1": worker})
        assert trace.faults == ()


def test_a_worker_forges_no_join_either():
    worker = "<FORK-2>r</FORK-2><JOIN-2>long thoughts</JOIN-2><RETURN>9</RETURN>"
    trace = parse("<FORK-1>q</FORK-1>", workers={"1": worker, "1.2": "<RETURN>4</RETURN>"})
    assert shape(trace.threads[1]) == "F2J2TR"
    assert faults(trace) == [("forged_join", "1", "what stands in <JOIN-2> is not what worker 1.2 returned", 18)]


def test_forged_joins_take_linear_time():
    many = 2000
    text = "<JOIN-1>x</JOIN-1>" * many + "<JOIN-1>" * many
    worker = " y" * 100_000 + "<RETURN>z</RETURN>" * many
    assert len(parse(text, workers={"1": worker}).faults) == MAX_FAULTS + 1  # in a second, not in minutes


def test_an_empty_answer_is_none():
    trace = parse("<ANSWER> </ANSWER> hm <ANSWER>9</ANSWER>", count=len)
    assert shape(trace.organizer) == "TA"
    assert faults(trace) == [("stray_tag", "organizer", "an empty answer is none", 0)]
    assert [violation.kind for violation in check(parse("<ANSWER></ANSWER>"))] == ["stray_tag", "missing_answer"]


@pytest.mark.parametrize("tag", ["<fork-1>", "<Parallel>", "<thread>", "<promise tokens=3/>", "spawn("])
def test_tags_of_others_are_text_and_are_named(tag):
    trace = parse(f"so {tag} on")
    assert shape(trace.organizer) == "T"
    hint = "; tags are written in capitals, <FORK-1>" if tag == "<fork-1>" else ""
    message = f"{tag} is none of this format, and is read as text{hint}"
    assert faults(trace) == [("unknown_tags", "organizer", message, 3)]


# Answers


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("so \\boxed{9}", "so ", "\\boxed{9}"),
        ("so \\boxed{8}, no: \\boxed{9}, done.\n", "so \\boxed{8}, no: ", "\\boxed{9}, done.\n"),
        ("\\boxed{9}", None, "\\boxed{9}"),
        ("so \\boxed{9}.\n\\]\n", "so ", "\\boxed{9}.\n\\]\n"),
        ("so \\boxed{\\frac{1}{2}} apples", "so ", "\\boxed{\\frac{1}{2}} apples"),
    ],
)
def test_without_an_answer_tag_the_last_box_is_the_answer(text, thinking, answer):
    actions = organizer(text).actions
    assert [action.text for action in actions if isinstance(action, Think)] == ([thinking] if thinking else [])
    assert actions[-1] == Answer(by_characters(answer), answer)


@pytest.mark.parametrize("text", ["so \\boxed{9", "\\boxed{", "\\boxed{}", "\\boxed{ } 9", "\\boxed{8}\nand on"])
def test_a_stray_box_is_no_answer(text):
    assert shape(organizer(text)) == "T"


def test_an_answer_tag_goes_before_a_box():
    assert shape(organizer("\\boxed{8} <ANSWER>9</ANSWER> \\boxed{7}")) == "TAT"
    trace = parse("<ANSWER>\\boxed{9}</ANSWER>")
    assert trace.organizer.actions == (Answer(7, "\\boxed{9}"),)  # 8 + 9 + 9 = 26 characters


def test_a_worker_has_no_box():
    assert shape(parse("<FORK-1>q</FORK-1>", workers={"1": "\\boxed{9}"}).threads[1]) == "T"


def test_a_text_without_tags_is_sequential_thinking():
    assert parse("just thinking").organizer.actions == (Think(4, "just thinking"),)
    assert parse("").organizer.actions == ()
    assert parse(" ").organizer.actions == (Think(1, " "),)


@pytest.mark.parametrize("space", ["", "\n", " \t\n\n", "\u2003"])
def test_white_space_after_the_end_is_not_counted(space):
    trace = parse(
        f"<FORK-1>q</FORK-1><ANSWER>9</ANSWER>{space}", workers={"1": f"<RETURN>x</RETURN>{space}"}, count=len
    )
    assert [shape(thread) for thread in trace.threads] == ["F1A", "R"]


def test_anything_else_after_the_end_is_kept():
    trace = parse("<ANSWER>9</ANSWER> and <ANSWER>8</ANSWER>\n")
    assert shape(trace.organizer) == "ATA"
    assert [violation.kind for violation in check(trace)] == [ViolationKind.MISPLACED_ACTION]


# ---------------------------------------------------------------- recovery


@pytest.mark.parametrize(
    ("text", "shaped", "fault"),
    [
        # a tag that opens while another is open leaves the first unclosed, and its text is thinking
        ("a<FORK-1>b<FORK-2>c</FORK-2>", "TF2", ("unclosed_tag", "<FORK-1> is never closed", 1)),
        ("a<FORK-1>b<JOIN-1></JOIN-1>", "TJ1", ("unclosed_tag", "<FORK-1> is never closed", 1)),
        ("a<FORK-1>b<ANSWER>c</ANSWER>", "TA", ("unclosed_tag", "<FORK-1> is never closed", 1)),
        ("a<ANSWER>b<FORK-1>c</FORK-1>", "TF1", ("unclosed_tag", "<ANSWER> is never closed", 1)),
        ("a<FORK-1>b", "T", ("unclosed_tag", "<FORK-1> is never closed", 1)),
        ("a<ANSWER>b", "T", ("unclosed_tag", "<ANSWER> is never closed", 1)),
        # a closing tag that closes nothing is stray, and is text of what it stands in
        ("a</FORK-1>b", "T", ("stray_tag", "</FORK-1> closes nothing", 1)),
        ("a</JOIN>b", "T", ("stray_tag", "</JOIN> closes nothing", 1)),
        ("a</ANSWER>b", "T", ("stray_tag", "</ANSWER> closes nothing", 1)),
        ("a</RETURN>b", "T", ("stray_tag", "</RETURN> closes nothing", 1)),
        ("<FORK-1>a</FORK-2>b</FORK-1>", "F1", ("stray_tag", "</FORK-2> closes nothing", 9)),
        ("<FORK-1>a</ANSWER>b</FORK-1>", "F1", ("stray_tag", "</ANSWER> closes nothing", 9)),
        ("<ANSWER>a</FORK>b</ANSWER>", "A", ("stray_tag", "</FORK> closes nothing", 9)),
        # a tag of somebody else
        ("a<RETURN>b", "T", ("stray_tag", "<RETURN> has no place in the organizer", 1)),
        # an index nobody counts to
        (f"a<FORK-{MAX_INDEX + 1}>b", "T", ("stray_tag", f"sub-query index {MAX_INDEX + 1} is above 10^9", 1)),
        (f"a<JOIN-{10**30}>b", "T", ("stray_tag", f"sub-query index {10**30} is above 10^9", 1)),
    ],
)
def test_recovery(text, shaped, fault):
    trace = parse(text)
    assert shape(trace.organizer) == shaped
    kind, message, offset = fault
    assert faults(trace) == [(kind, "organizer", message, offset)]
    assert "".join(action.text for action in trace.organizer.actions) == parse_away(text, trace)
    assert decoded_and_inserted(parse(text, count=len)) == len(text)


def parse_away(text, trace):
    """Return `text` without the tags of its actions: what their texts hold, in order."""
    for action in trace.organizer.actions:
        name = {Fork: "FORK", Join: "JOIN", Answer: "ANSWER"}.get(type(action))
        if name:
            index = f"-{action.index}" if name != "ANSWER" else ""
            text = text.replace(f"<{name}{index}>", "").replace(f"</{name}{index}>", "")
    return text


def test_recovery_in_a_worker():
    trace = parse("<FORK-1>q</FORK-1>", workers={"1": "a<ANSWER>b</ANSWER><RETURN>c"})
    assert shape(trace.threads[1]) == "T"
    assert faults(trace) == [
        ("stray_tag", "1", "<ANSWER> has no place in a worker", 1),
        ("stray_tag", "1", "</ANSWER> closes nothing", 10),
        ("unclosed_tag", "1", "<RETURN> is never closed", 19),
    ]


def test_the_largest_index():
    assert organizer(f"<FORK-{MAX_INDEX}>q</FORK-{MAX_INDEX}>").actions[0].index == MAX_INDEX
    assert organizer("<FORK-0>q</FORK-0>").actions[0].index == 0


def test_closing_another_index_does_not_close():
    trace = parse("<FORK-1>a</FORK-2>b")
    assert shape(trace.organizer) == "T"
    assert [kind for kind, *_ in faults(trace)] == ["stray_tag", "unclosed_tag"]


# ---------------------------------------------------------------- workers


def test_worker_sections():
    trace = parse_file(
        "<FORK-1>q</FORK-1><FORK-2>r</FORK-2><ANSWER>9</ANSWER>\n"
        "<WORKER-2>two</WORKER-2>\n<WORKER1><FORK-3>s</FORK-3>one</WORKER>\n<WORKER-1.3>three</WORKER-1.3>\n"
    )
    assert [(thread.id, thread.actions[-1].text) for thread in trace.threads] == [
        ("organizer", "9"),
        ("1", "one"),
        ("1.3", "three"),
        ("2", "two"),
    ]
    assert trace.faults == ()
    assert [thread.prompt_tokens for thread in trace.threads] == [0, 5, 5, 5]


def test_tags_of_sections_are_nobodys():
    text = "<FORK-1>q</FORK-1><ANSWER>9</ANSWER>"
    assert decoded_and_inserted(parse_file(text + "\n<WORKER-1>five!</WORKER-1>\n", count=len)) == len(text) + 5


def test_what_stands_between_and_after_sections_is_the_organizers():
    trace = parse_file("a<WORKER-1>x</WORKER-1>b<WORKER-2>y</WORKER-2>c")
    assert trace.organizer.actions == (Think(1, "abc"),)


@pytest.mark.parametrize("workers", [None, {"1": "given"}])
def test_a_section_in_what_a_model_wrote_is_text(workers):
    text = "<FORK-1>q</FORK-1>so<WORKER-1>x</WORKER-1><WORKER-2>y</WORKER-2>"
    trace = parse(text, workers=workers, count=len)
    assert [thread.id for thread in trace.threads] == ["organizer", *(workers or {})]
    assert trace.organizer.tokens == len(text)
    message = "<WORKER-1> begins a section in whole files only; here it is text"
    assert faults(trace) == [("stray_tag", "organizer", message, 20)]


@pytest.mark.parametrize(
    ("text", "workers", "fault"),
    [
        ("a<WORKER-1>b", ["1"], ("unclosed_tag", "1", "<WORKER-1> is never closed", 1)),
        ("a<WORKER-1>b</WORKER", ["1"], ("unclosed_tag", "1", "<WORKER-1> is never closed", 1)),
        (
            "<WORKER-1>b</WORKER-1>\n<WORKER-1>c</WORKER-1>",
            ["1"],
            ("stray_tag", "organizer", "a second text for worker 1", 22),
        ),
        ("<WORKER-01>b</WORKER-01>", [], ("stray_tag", "organizer", "<WORKER-01> is no path of Fork indices", 0)),
        ("<WORKER-1.>b</WORKER-1.>", [], ("stray_tag", "organizer", "<WORKER-1.> is no path of Fork indices", 0)),
        ("<WORKER-1..2>b</WORKER-1>", [], ("stray_tag", "organizer", "<WORKER-1..2> is no path of Fork indices", 0)),
        ("<WORKER-٣>b</WORKER-٣>", [], ("stray_tag", "organizer", "<WORKER-٣> is no path of Fork indices", 0)),
        (
            "<WORKER-3.1>b</WORKER>",
            [],
            ("worker_without_fork", "organizer", "worker 3.1 is recorded but not its parent", None),
        ),
    ],
)
def test_sections_gone_wrong(text, workers, fault):
    trace = parse_file(text)
    assert [thread.id for thread in trace.threads[1:]] == workers
    assert faults(trace) == [fault]


def test_a_worker_section_ends_at_the_first_closing_tag():
    trace = parse_file("<WORKER-1>a<WORKER-2>b</WORKER-2>c</WORKER-1>")
    assert [(thread.id, thread.actions[0].text) for thread in trace.threads] == [
        ("organizer", "c</WORKER-1>"),
        ("1", "a<WORKER-2>b"),
    ]


@pytest.mark.parametrize("name", ["", "x", "01", "1.", ".1", "1..2", "-1", "1.x", "²", "organizer", "1" * 11, " 1"])
def test_a_mapping_with_an_impossible_id_is_refused(name):
    with pytest.raises(FormatError, match="a worker is called by its Fork index"):
        parse("a", workers={name: "b"})


def test_a_mapping_may_come_in_any_order():
    names = ["10", "2.1", "1", "2", "2.1.1"]
    assert [thread.id for thread in parse("a", workers=dict.fromkeys(names, "b")).threads] == [
        "organizer",
        "1",
        "2",
        "2.1",
        "2.1.1",
        "10",
    ]


def test_nesting_is_bounded():
    names = [".".join(["1"] * depth) for depth in range(1, MAX_NESTING + 3)]
    trace = parse("a", workers=dict.fromkeys(names, "b"))
    assert len(trace.threads) == 1 + MAX_NESTING
    assert [kind for kind, *_ in faults(trace)] == ["worker_without_fork"] * 2


def test_the_number_of_sections_is_bounded(monkeypatch):
    monkeypatch.setattr(asyncthink, "MAX_WORKERS", 3)
    trace = parse_file("".join(f"<WORKER-{i}>x</WORKER-{i}>" for i in range(1, 6)))
    assert len(trace.threads) == 4
    assert [kind for kind, *_ in faults(trace)] == ["stray_tag"] * 2
    assert MAX_WORKERS == 10_000


def test_the_number_of_tags_is_bounded(monkeypatch):
    monkeypatch.setattr(scan, "MAX_TAGS", 4)
    text = "<FORK-1>a</FORK-1>" * 2 + "b<ANSWER>c</ANSWER>"
    trace = parse(text)
    assert shape(trace.organizer) == "F1F1T"
    assert trace.organizer.actions[-1].text == "b<ANSWER>c</ANSWER>"
    assert faults(trace) == [("stray_tag", "organizer", "what follows the first 4 tags is read as text", None)]
    assert MAX_TAGS == 100_000


# ---------------------------------------------------------------- counting


def test_a_counter_sees_each_piece_between_tags():
    seen = []
    parse(
        "a b <FORK-1>c</FORK-1> d <JOIN-1>h</JOIN-1><ANSWER>f</ANSWER>",
        workers={"1": "g<RETURN>h</RETURN>"},
        count=lambda piece: seen.append(piece) or 1,
    )
    assert seen == [
        "a b ",
        "<FORK-1>c</FORK-1>",
        " d ",
        "<JOIN-1>",
        "h</JOIN-1>",
        "<ANSWER>f</ANSWER>",
        "g",
        "<RETURN>h</RETURN>",
    ]


def test_the_counter_is_named():
    assert parse("a").token_source == "characters"
    assert parse("a", count=by_words).token_source == "words"
    assert parse("a", count=len).token_source == "len"


def slow_characters(text):
    """The same as `by_characters`, without its short cut."""
    return by_characters(text)


# ---------------------------------------------------------------- laws on any text

TAGS = [
    f"<{slash}{name}{index}>"
    for slash in ("", "/")
    for name in ("FORK", "JOIN", "RETURN", "ANSWER", "WORKER")
    for index in ("", "-1", "2", "-12", "-123", "-1.1", "-" + "9" * 12)
]
PIECES = [*TAGS, " ", "\n", "a", "bc ", "\\boxed{9}", "<", ">", "\ud800", "\0", "٣", "FORK-1>", "<JOIN-"]
soups = st.lists(st.sampled_from(PIECES), max_size=16).map("".join)
anything = st.one_of(st.text(st.characters()), soups)


def without_sections(text):
    return "<WORKER" not in text


@given(
    anything, st.one_of(st.none(), st.dictionaries(st.sampled_from(["1", "2", "1.1", "2.1.1"]), anything, max_size=3))
)
@example("<JOIN-1>" * 3, {"1": "<RETURN>" * 3})
def test_no_text_raises_and_every_trace_has_a_clock(text, workers):
    trace = parse(text, workers=workers)
    clock = decode_clock(trace)
    assert clock.latency <= clock.work <= trace.tokens
    assert len(trace.faults) <= MAX_FAULTS + 4


@given(soups.filter(without_sections))
def test_every_character_is_counted_once(text):
    """But for white space after the end, and what a bare Join inserts, which without workers is nothing."""
    counted = decoded_and_inserted(parse(text, count=len))
    trace = parse(text)
    ended = any(isinstance(action, Answer) for action in trace.organizer.actions)
    assert counted == len(text) or (ended and counted == len(text.rstrip()))


@given(soups.filter(without_sections))
def test_actions_hold_the_whole_text_in_order(text):
    """What is not in an action's text is a tag."""
    kept = "".join(action.text or "" for action in parse(text).organizer.actions)
    at = 0
    for character in kept:  # a subsequence
        at = text.index(character, at) + 1


@given(soups)
def test_tokens_by_characters_are_at_least_a_quarter_of_them(text):
    counted, characters = parse(text), parse(text, count=len)
    for (_, _, action), (_, _, exact) in zip(counted.actions(), characters.actions(), strict=True):
        assert action.tokens == (exact.tokens + 3) // 4


@given(anything)
def test_the_short_cut_for_characters_changes_nothing(text):
    fast, slow = parse(text), parse(text, count=slow_characters)
    assert fast.threads == slow.threads
    assert fast.faults == slow.faults


@given(anything)
def test_keeping_text_changes_nothing_else(text):
    kept, bare = parse(text), parse(text, keep_text=False)
    assert [(type(a), a.tokens) for _, _, a in kept.actions()] == [(type(a), a.tokens) for _, _, a in bare.actions()]
    assert kept.faults == bare.faults
    assert decode_clock(kept) == decode_clock(bare)


@given(soups)
def test_offsets_point_at_the_tag(text):
    for fault in parse(text).faults:
        if fault.offset is not None and fault.thread == "organizer" and without_sections(text):
            assert text[fault.offset] == "<"


@given(soups)
def test_a_text_with_a_tag_is_known(text):
    trace = parse(text)
    if any(not isinstance(action, Think | Answer) for _, _, action in trace.actions()) or len(trace.threads) > 1:
        assert detect(text)


# ---------------------------------------------------------------- rendering

words = st.text("ab 9\n.", min_size=1, max_size=8)
inner = st.text("ab 9\n.", max_size=8)


@st.composite
def canonical_traces(draw):
    """Traces whose text says all of them: no two Thinks in a row, no white space after the end."""
    threads = []

    def grow(name, depth):
        place = len(threads)
        threads.append(None)
        actions = []
        thought = False
        for kind in draw(st.text("TFJ", max_size=5)):
            if kind == "T":
                text = draw(words)
                if not thought:
                    actions.append(Think(by_characters(text), text))
                thought = True
                continue
            thought = False
            index, text = draw(st.integers(0, 3)), draw(inner)
            if kind == "F":
                actions.append(Fork(index, by_characters(f"<FORK-{index}>{text}</FORK-{index}>"), text))
            elif kind == "J":
                actions.append(Join(index, by_characters(f"<JOIN-{index}>")))
        if draw(st.booleans()):
            text = draw(inner)
            if depth:
                actions.append(Return(by_characters(f"<RETURN>{text}</RETURN>"), text))
            else:
                text += "9"
                actions.append(Answer(by_characters(f"<ANSWER>{text}</ANSWER>"), text))
        # Of several Forks of one index the first counts.
        prompts = {action.index: action.tokens for action in reversed(actions) if isinstance(action, Fork)}
        for index in draw(st.lists(st.integers(0, 3), unique=True, max_size=2)) if depth < 2 else ():
            grow(child_id(name, index), depth + 1)
        threads[place] = (name, tuple(actions), prompts)

    grow("organizer", 0)
    returned = {name: actions[-1].text for name, actions, _ in threads if actions and isinstance(actions[-1], Return)}

    def filled(name, action):
        """What a Join inserts is what the worker returned."""
        if not isinstance(action, Join):
            return action
        text = returned.get(child_id(name, action.index), "")
        return Join(action.index, action.tokens, by_characters(f"{text}</JOIN-{action.index}>"), text)

    threads = [(name, tuple(filled(name, action) for action in actions), own) for name, actions, own in threads]
    prompts = {child_id(name, index): tokens for name, _, own in threads for index, tokens in own.items()}
    made = sorted(threads, key=lambda each: tuple(map(int, each[0].split("."))) if each[0] != "organizer" else ())
    return Trace(
        "trace",
        tuple(Thread(name, actions, prompts.get(name, 0)) for name, actions, _ in made),
        token_source="characters",
    )


@given(canonical_traces())
def test_what_is_rendered_is_parsed_back(trace):
    assert parse_file(render(trace)) == trace
    text, workers = render_threads(trace)
    assert parse(text, workers=workers) == trace


@given(soups)
def test_rendering_settles_at_once(text):
    once = render(parse(text, count=len))
    assert render(parse(once, count=len)) == once


@given(soups)
def test_rendering_keeps_the_shape(text):
    trace = parse(text)
    again = parse(render(trace))
    assert [thread.id for thread in again.threads] == [thread.id for thread in trace.threads]
    for old, new in zip(trace.threads, again.threads, strict=True):
        wordless = [sign for sign in shape(old) if sign != "T"]
        assert [sign for sign in shape(new) if sign != "T"] == wordless


def test_a_box_in_an_answer_tag_is_rendered_with_its_tag():
    trace = parse("so <ANSWER>\\boxed{9}</ANSWER>")
    assert parse(render(trace)) == trace


def test_without_text_the_tokens_are_filled_up():
    trace = Trace(
        "trace",
        (
            Thread("organizer", (Think(7), Fork(1, 9), Join(1, 2, 28), Answer(20))),  # 30 * 4 - 17 + 9 characters
            Thread("1", (Think(3), Return(30)), 9),
        ),
        token_source="characters",
    )
    assert native.without_text(parse_file(render(trace))).threads[1:] == trace.threads[1:]
    assert [action.tokens for action in parse_file(render(trace)).organizer.actions] == [7, 9, 2, 20]
    assert parse_file(render(trace)).organizer.actions[2].inserted_tokens == 28


def test_a_delay_cannot_be_said():
    trace = Trace("slow one", (Thread("organizer", (Delay(1.0), Answer(1))),))
    with pytest.raises(FormatError, match=r"'slow one'.*Delay; use the native format"):
        render(trace)


# ---------------------------------------------------------------- hostile text

HOSTILE = {
    "fork": "<FORK-1>",
    "join": "<JOIN-1>",
    "return": "<RETURN>",
    "answer": "<ANSWER>",
    "less": "<",
    "worker": "<WORKER-1>",
    "worker without end": "<WORKER-1",
    "worker end": "</WORKER-1>",
    "worker pair": "<WORKER-1></WORKER-1>",
    "close": "</FORK-1>",
    "digits": "<FORK-11111111111111111111111111111111111111111111111111",
    "join and return": "<JOIN-1><RETURN>",
    "pair": "<FORK-1></FORK-1>",
    "box": "\\boxed{",
    "open and text": "<FORK-1>" + "x" * 200,
    "newlines": "\n<WORKER",
}

hostile = pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE)


def repeated(unit, size):
    return unit * (size // len(unit))


@hostile
def test_hostile_megabytes(unit):
    text = repeated(unit, 2**20)
    trace = parse(text, workers={"1": text})
    assert len(trace.faults) <= MAX_FAULTS + 4
    assert decode_clock(trace).latency >= 0
    if trace.faults[MAX_FAULTS:]:
        assert trace.faults[-1].message.startswith("and ")
        assert trace.faults[-1].message.endswith(" more faults of this text")


@pytest.mark.parametrize("count", [by_characters, by_words], ids=["characters", "words"])
@hostile
def test_time_is_linear(unit, count):
    """Of four times the text less than ten times the time: squares would make it sixteen. CPU time, best of three."""

    def seconds(text):
        taken = []
        for _ in range(3):
            began = time.process_time()
            parse(text, workers={"1": text}, count=count)
            taken.append(time.process_time() - began)
        return min(taken)

    small = repeated(unit, 2**17)
    assert seconds(small * 4) < 10 * seconds(small) + 0.02


@pytest.mark.slow
@hostile
def test_ten_hostile_megabytes(unit):
    text = repeated(unit, 10 * 2**20)
    tracemalloc.start()
    trace = parse(text, workers={"1": text}, keep_text=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * len(text)
    assert len(trace.faults) <= MAX_FAULTS + 4
    assert len(check(trace)) >= 0


def test_many_sections_take_linear_time():
    text = "".join(f"<WORKER-{i}>x</WORKER-{i}>" for i in range(1, 30_000))
    trace = parse_file(text)
    assert len(trace.threads) == 1 + MAX_WORKERS
    assert len(trace.faults) == MAX_FAULTS + 1
    assert trace.faults[-1].message == f"and {29_999 - MAX_WORKERS - MAX_FAULTS} more faults of this text"


def test_faults_are_capped_and_the_rest_is_counted():
    trace = parse("</FORK-1>" * 1000)
    assert len(trace.faults) == MAX_FAULTS + 1
    assert trace.faults[-1].message == f"and {1000 - MAX_FAULTS} more faults of this text"
    assert trace.organizer.tokens == by_characters("</FORK-1>" * 1000)


def test_a_second_fork_of_an_index_starts_nobody_and_gives_no_prompt():
    trace = parse("<FORK-1>aaaa</FORK-1><FORK-1>" + "b" * 34 + "</FORK-1>", workers={"1": "<RETURN>x</RETURN>"})
    first, second = trace.organizer.actions
    assert trace.threads[1].prompt_tokens == first.tokens < second.tokens


def test_as_many_tags_as_are_read_are_no_fault():
    assert parse("<JOIN-1></JOIN-1>" * (MAX_TAGS // 2)).faults == ()
    assert len(parse("<JOIN-1></JOIN-1>" * (MAX_TAGS // 2) + "<JOIN-1>").faults) == 1
