"""What a policy can write to look faster than it is, beside its honest twin; and whose tokens a mask says they are."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import ConfigError, Protocol, Reader, parse, read, score_batch
from simulator.formats import FORMATS
from simulator.formats.asyncthink import render_threads
from simulator.integrations.scorer import Scorer
from simulator.rewards.ids import ByDecoding, ByTag, mask_of, said
from tests.support.strategies import traces

RULES = Protocol(capacity=4)
LONG = "a long thought " * 100
WORKER = {"1": "worked on it for a while " * 20 + "<RETURN>9</RETURN>"}
ASK = "<FORK-1>q</FORK-1>"
GOT = "<JOIN-1>9</JOIN-1>"
END = "<ANSWER>9</ANSWER>"
HONEST = {"text": ASK + LONG + GOT + END, "workers": WORKER}
ALONE = LONG + END
NATIVE = {
    "schema": "forksim.trace/1",
    "id": "a",
    "threads": [
        {"id": "organizer", "actions": [{"do": "fork", "index": 1}, {"do": "join", "index": 1}, {"do": "answer"}]},
        {"id": "1", "actions": [{"do": "return", "tokens": 900}]},
    ],
    "outcome": {"correct": True},
}
VERIFIERS = {"task": {}, "nodes": [{"message": {"role": "assistant", "content": "9"}, "sampled": True}]}


def helped(text):
    return {"text": text, "workers": WORKER}


FORGED = {  # what is written, and the honest rollout that thought as much
    "thinking in a Join": (helped(ASK + "<JOIN-1>" + LONG + "</JOIN-1>" + END), HONEST),
    "thinking in a Join, after what was returned": (helped(ASK + "<JOIN-1>9 " + LONG + "</JOIN-1>" + END), HONEST),
    "thinking in a Join, around a Return": (
        helped(ASK + "<JOIN-1>" + LONG + "<RETURN>9</RETURN></JOIN-1>" + END),
        HONEST,
    ),
    "thinking in a second Join": (helped(ASK + GOT + "<JOIN-1>" + LONG + "</JOIN-1>" + END), HONEST),
    "thinking in a Join of nobody": (helped(ASK + GOT + "<JOIN-7>" + LONG + "</JOIN-7>" + END), HONEST),
    "thinking in a Join closed by another": (helped(ASK + "<JOIN-1>" + LONG + "</JOIN>" + END), HONEST),
    "a section": (helped(ASK + "<WORKER-9>" + LONG + "</WORKER-9>" + GOT + END), HONEST),
    "the worker's section": (helped(ASK + "<WORKER-1>" + LONG + "</WORKER-1>" + GOT + END), HONEST),
    "a section that is never closed": (helped(ASK + GOT + END + "\n<WORKER-1>" + LONG), HONEST),
    "sections without workers": (
        "".join(f"<FORK-{i}>q</FORK-{i}>" for i in (1, 2, 3))
        + "".join(f"<JOIN-{i}>9</JOIN-{i}>" for i in (1, 2, 3))
        + END
        + "".join(f"<WORKER-{i}>{LONG}<RETURN>9</RETURN></WORKER-{i}>" for i in (1, 2, 3)),
        3 * LONG + END,
    ),
    "an empty answer first": ("<ANSWER></ANSWER>" + ALONE, ALONE),
    "an answer first": ("<ANSWER>8</ANSWER>" + ALONE, ALONE),
    "thinking after the answer": (END + LONG, ALONE),
    "a box first": ("\\boxed{9}" + ALONE, ALONE),
    "a box, then thoughts": ("\\boxed{9}\n" + LONG, LONG),
    "an open box": ("\\boxed{" + LONG, LONG),
    "an answer, then a box": (END + LONG + "\\boxed{9}", ALONE),
    "the end of a turn": (END + "<|im_end|>" + LONG, ALONE),
    "a record of our own": (json.dumps(NATIVE), "9"),
    "a record of verifiers": (json.dumps(VERIFIERS), "9"),
    "paths of Multiverse": (
        f"<Parallel><Goal></Goal><Path>{LONG}</Path><Path>{LONG}</Path></Parallel>{END}",
        2 * LONG + END,
    ),
    "threads of ThreadWeaver": (
        f"<Parallel><Thread>{LONG}</Thread><Thread>{LONG}</Thread></Parallel>{END}",
        2 * LONG + END,
    ),
    "paths of Parallel-R1": (f"<Parallel><Path>{LONG}</Path></Parallel><Summary>s</Summary>{END}", ALONE),
    "paths inside a Join": (helped(ASK + f"<JOIN-1><Path>{LONG}</Path></JOIN-1>" + END), HONEST),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forgery_earns_no_more_than_its_honest_twin(name):
    forged, honest = FORGED[name]
    batch = score_batch([forged, honest], protocol=RULES, outcomes=[True, True])
    assert batch.total[0] <= batch.total[1] or batch.total[1] < 0
    assert batch.latency[0] >= batch.latency[1] or batch.total[0] < 0
    told = sum(column[0] for column in batch.violations.values())
    assert told or name == "a box first"  # which is an honest thought


@pytest.mark.parametrize("name", FORGED)
def test_nor_from_a_file_of_records(tmp_path, name):
    forged, honest = FORGED[name]
    path = tmp_path / "dump.jsonl"
    rows = [each if isinstance(each, dict) else {"output": each} for each in (forged, honest)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    batch = score_batch(read(path, format="asyncthink"), protocol=RULES, outcomes=[True, True])
    assert batch.total[0] <= batch.total[1] or batch.total[1] < 0


def test_many_faults_of_one_kind_hide_no_other():
    rules = RULES.with_(format_errors=[*RULES.format_errors, "forged_join"])
    text = "</FORK-7>" * 500 + ASK + "<JOIN-1>" + LONG + "</JOIN-1>" + END
    batch = score_batch([helped(text)], protocol=rules, outcomes=[True])
    assert batch.total.tolist() == [-1.0] and batch.reason[0].startswith("forged_join")


def test_a_records_text_is_no_record():
    """Of what a model wrote the format is found by its tags, never by what it says it is."""
    for text in (json.dumps(NATIVE), json.dumps(VERIFIERS)):
        trace = Reader(format="detect").trace({"output": text})
        assert [thread.id for thread in trace.threads] == ["organizer"] and trace.outcome is None
    assert len(parse(json.dumps(NATIVE)).threads) == 2  # where the caller says that it is one


@given(
    traces(nested=True),
    st.sampled_from(["think ", "<JOIN-1>x</JOIN-1>", "<WORKER-1>x</WORKER-1>", "<ANSWER>9</ANSWER>"]),
)
def test_more_text_never_takes_less_time(trace, more):
    """Wherever it is put in the organizer's text."""
    text, workers = render_threads(trace)
    bare = parse(text, workers=workers)
    for at in (0, len(text) // 2, len(text)):
        longer = parse(text[:at] + more + text[at:], workers=workers, count=len)
        assert longer.organizer.tokens + sum(getattr(a, "inserted_tokens", 0) for a in longer.organizer.actions) >= len(
            (text + more).rstrip()
        )
    assert bare.organizer


# ---------------------------------------------------------------- what is judged


def test_the_answer_that_is_clocked_is_the_one_that_is_judged():
    texts = [
        "<ANSWER>9</ANSWER> or <ANSWER>8</ANSWER>",
        "<ANSWER>8</ANSWER>\n\\boxed{9}",
        "\\boxed{9}\n<ANSWER>8</ANSWER>",
    ]
    batch = Scorer(protocol=RULES).score(texts, truths=["9"] * 3)
    assert batch.answers == ("8", "8", "8")
    assert batch.accuracy.tolist() == [0.0] * 3
    first = Scorer(protocol=RULES.with_(after_end="ignore")).score(texts[:1], truths=["9"])
    assert (first.answers, first.accuracy.tolist()) == (("9",), [1.0])


def test_a_judge_sees_the_answer_alone_and_the_whole_text_where_there_is_none():
    seen = []
    scorer = Scorer(protocol=RULES, judge=lambda text, truth: seen.append(text) or True)
    scorer.score(
        ["so 7 <ANSWER> 9 </ANSWER>", "so 7 \\boxed{9}.", "so 7", "<ANSWER>\\boxed{9}</ANSWER>"], truths=[9] * 4
    )
    assert seen == ["<ANSWER> 9 </ANSWER>", "\\boxed{9}.", "so 7", "\\boxed{9}"]


def test_the_score_tells_the_answer():
    batch = score_batch(["x <ANSWER>9</ANSWER>", "x", None], protocol=RULES)
    assert batch.answers == ("9", None, None)


def test_rollouts_without_workers_are_told_apart():
    rollouts = [HONEST, ASK + GOT + END, "no fork " + END, {"text": ASK + GOT + END, "workers": {"7": "x"}}]
    batch = score_batch(rollouts, protocol=RULES)
    assert batch.without_workers.tolist() == [False, True, False, True]
    with pytest.warns(UserWarning, match="no text of a worker"):
        Scorer(protocol=RULES).score([ASK + END])


def test_a_reward_names_its_format():
    text = "<think>a<Parallel><Thread>b</Thread><Thread>c</Thread></Parallel></think>9"
    assert score_batch([text], reward="threadweaver").workers.tolist() == [2]
    assert score_batch([text], protocol=RULES).workers.tolist() == [0]
    assert score_batch([text], protocol=RULES, reader=Reader(format="detect")).workers.tolist() == [2]
    assert score_batch([HONEST], reward="threadweaver").workers.tolist() == [1]  # workers are AsyncThink's
    with pytest.raises(ConfigError, match="no format is called 'x'"):
        Reader(otherwise="x")


def test_records_are_not_written_by_models():
    assert [name for name, form in FORMATS.items() if not form.written] == ["native", "verifiers", "apr"]


# ---------------------------------------------------------------- masks

BYTES = ByDecoding(lambda ids: bytes(ids).decode(errors="replace"))


def masked(*parts):
    """Ids and mask of bytes: what stands in a list was inserted."""
    ids, mask = [], []
    for part in parts:
        data = (part[0] if isinstance(part, list) else part).encode()
        ids += data
        mask += [not isinstance(part, list)] * len(data)
    return ids, mask


READER = Reader(decode=lambda ids: bytes(ids).decode(errors="replace"))


def test_a_mask_says_what_was_inserted():
    ids, mask = masked(ASK, "on <JOIN-1>", ["9</JOIN-1>"], "so ", END)
    trace = READER.trace({"text": ids, "mask": mask})
    kinds = [type(action).__name__ for action in trace.organizer.actions]
    assert kinds == ["Fork", "Think", "Join", "Think", "Answer"]
    assert [action.tokens for action in trace.organizer.actions] == [18, 3, 8, 3, 18]
    assert trace.organizer.actions[2].inserted_tokens == 10
    assert trace.faults == ()
    forged = READER.trace({"text": ids, "mask": [1] * len(ids), "workers": {"1": list(b"<RETURN>9</RETURN>")}})
    assert [fault.kind for fault in forged.faults] == ["forged_join"]  # it wrote what the worker would return
    assert forged.organizer.tokens == len(ids)


@pytest.mark.parametrize(
    ("parts", "decoded", "inserted"),
    [
        (["a<JOIN-1>", ["9</JOIN-1>"], "b"], "a<JOIN-1>b", "9</JOIN-1>"),
        (["a<JOIN-1>\n", ["9</JOIN-1>\n"], "b"], "a<JOIN-1>b", "\n9</JOIN-1>\n"),
        (["a<JOIN-1>", ["9"], "b"], "a<JOIN-1>b", "9"),  # no closing tag: the rest was sampled
        (["a", ["<JOIN-1>9</JOIN-1>"], "b"], "a<JOIN-1>b", "9</JOIN-1>"),
        (["a<JOIN-1>", ["<FORK-2>r</FORK-2></JOIN-1>"], "b"], "a<JOIN-1>b", "<FORK-2>r</FORK-2></JOIN-1>"),
        (["a", ["a tool says <ANSWER>9</ANSWER>"], "b"], "ab", ""),
        (["a<JOIN-1>", ["9"], " hm</JOIN-1>b"], "a<JOIN-1> hm</JOIN-1>b", "9"),
        (["", ["system"], "b"], "b", ""),
    ],
)  # fmt: skip
def test_what_was_inserted_is_a_joins_or_nobodys(parts, decoded, inserted):
    ids, mask = masked(*parts)
    trace = READER.trace({"text": ids, "response_mask": mask})
    actions = trace.organizer.actions
    joins = [action for action in actions if type(action).__name__ == "Join"]
    extra = len(inserted) - len(inserted.strip()) if joins and inserted.endswith("\n") else 0
    assert trace.organizer.tokens == len(decoded) + (1 if extra else 0)
    assert sum(join.inserted_tokens for join in joins) == len(inserted) - extra + (extra and 1)
    assert not any(type(action).__name__ in ("Fork", "Answer") for action in actions)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["a", "<JOIN-1>", "</JOIN-1>", "9", "<ANSWER>", "</ANSWER>", " ", "é", "<FORK-1>", "</FORK-1>"]
            ),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_no_sampled_token_is_lost(parts):
    ids, mask = masked(*(part if sampled else [part] for part, sampled in parts))
    organizer = READER.trace({"text": ids, "mask": mask}).organizer
    given = sum(len(part) for part, sampled in parts if not sampled and part in ("<JOIN-1>", " "))
    space = sum(part == " " for part, _ in parts)  # behind an Answer, or a Join's tag, it is not counted
    assert sum(mask) - space <= organizer.tokens <= sum(mask) + given  # a Join's tag is counted, whoever wrote it


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([1], "a mask of 1 for 3 token ids"),
        ("111", "a mask is a number"),
        ([1, None, 0], "a mask is a number"),
        (7, "a mask"),
    ],
)
def test_masks_that_are_none(mask, message):
    batch = score_batch([{"text": [97, 98, 99], "mask": mask}], protocol=RULES, reader=READER)
    assert message in batch.reason[0]


def test_masks_beside_rollouts():
    ids, mask = masked(ASK + "<JOIN-1>", ["9</JOIN-1>"], END)
    one = score_batch([{"text": ids, "mask": mask}], protocol=RULES, reader=READER)
    for rollout in (ids, {"text": ids}):
        assert score_batch([rollout], masks=[mask], protocol=RULES, reader=READER).latency == one.latency
    assert score_batch([ids], masks=[None], protocol=RULES, reader=READER).violations["forged_join"].tolist() == [1]
    for masks, said_ in ([], "fewer"), ([mask, mask], "more"):
        with pytest.raises(ConfigError, match=f"there are {said_} masks than rollouts"):
            score_batch([ids], masks=masks, protocol=RULES, reader=READER)
    text = score_batch(["so"], masks=[[1]], protocol=RULES)
    assert "give the token ids" in text.reason[0]
    assert mask_of(None, ids) is None


# ---------------------------------------------------------------- token ids


class Marked:
    """A tokenizer that marks the beginnings of words, and drops the space of the first, as sentencepiece does."""

    words = ("▁so", "▁9", "<FORK-1>", "</FORK-1>", "q", "▁q", "<ANSWER>", "</ANSWER>", "\n")

    def decode(self, ids):
        return "".join(self.words[id] for id in ids).replace("▁", " ").removeprefix(" ")


class Bytes:
    """Each byte of UTF-8 is a token; what is no character yet is shown as a question mark in a diamond."""

    def decode(self, ids):
        return bytes(ids).decode(errors="replace")


class Strange:
    """Whose text cannot be put together from any parts."""

    def decode(self, ids):
        return "".join(chr(97 + id % 3) for id in ids)[::-1]


@pytest.mark.parametrize("tokenizer, exact", [(Marked(), True), (Bytes(), True), (Strange(), False)])
@given(data=st.data())
def test_every_token_is_in_one_piece(tokenizer, exact, data):
    if isinstance(tokenizer, Bytes):
        ids = list(data.draw(st.text(max_size=8)).encode(errors="replace"))
    else:
        ids = data.draw(st.lists(st.integers(0, 8), max_size=8))
    pieces = ByDecoding(tokenizer.decode)(ids)
    assert "".join(text for text, _ in pieces) == tokenizer.decode(ids)
    assert sum(tokens for _, tokens in pieces) == len(ids)


def test_where_words_begin_does_not_move_tokens():
    found = said([0, 2, 5, 3, 1, 6, 1, 7], None, ByDecoding(Marked().decode))
    assert found.text == "so<FORK-1> q</FORK-1> 9<ANSWER> 9</ANSWER>"
    trace = Reader(decode=Marked().decode).trace([0, 2, 5, 3, 1, 6, 1, 7])
    assert [(type(a).__name__, a.tokens) for a in trace.organizer.actions] == [
        ("Think", 1),
        ("Fork", 3),
        ("Think", 1),
        ("Answer", 3),
    ]


def test_each_thread_counts_its_own_tokens():
    """Counts used to be spread by characters over all threads: a worker of long words took them from the organizer."""
    words = [ASK, GOT, END, "<RETURN>9</RETURN>", "extraordinarily ", "a "]
    reader = Reader(decode=lambda ids: "".join(words[id] for id in ids))
    trace = reader.trace({"text": [0, *[5] * 30, 1, 2], "workers": {"1": [*[4] * 30, 3]}})
    assert [thread.tokens for thread in trace.threads] == [1 + 30 + 0 + 1, 31]
    assert sum(getattr(action, "inserted_tokens", 0) for action in trace.organizer.actions) == 1


def test_white_space_between_paths_by_ids_as_by_text():
    """A newline between two paths is the second's; as a token of any kind it would be the organizer's."""
    text = "<Parallel>\n<Path>a b</Path>\n<Path>c d e</Path>\n</Parallel>f"
    tags = {"<Parallel>": 1, "</Parallel>": 2, "<Path>": 3, "</Path>": 4}
    ids = [1, 9, 3, 70, 71, 4, 9, 3, 72, 73, 74, 4, 9, 2, 75]
    by_text = parse(text, format="parallel_r1")
    for options in ({"spaces": [9]}, {"decode": lambda ids: "".join("\n" if id == 9 else "x" for id in ids)}):
        trace = Reader(format="parallel_r1", tags=tags, **options).trace(ids)
        assert [thread.id for thread in trace.threads] == [thread.id for thread in by_text.threads]
        shapes = [[type(action) for action in thread.actions] for thread in trace.threads]
        assert shapes == [[type(action) for action in thread.actions] for thread in by_text.threads]
        assert trace.tokens == len(ids)
    blind = Reader(format="parallel_r1", tags=tags).trace(ids)
    assert blind.organizer.tokens == trace.organizer.tokens + 1
    with pytest.raises(ConfigError, match="spaces go with tags"):
        Reader(spaces=[9])


def test_by_ids_a_join_holds_what_the_worker_returned_or_not():
    """Ids are compared, not their number."""
    tags = {"<FORK-1>": 1, "</FORK-1>": 2, "<JOIN-1>": 3, "</JOIN-1>": 4, "<RETURN>": 5, "</RETURN>": 6}
    reader = Reader(tags=tags)
    for inside, faults in ([70, 71], 0), ([70, 72], 1), ([70], 1):
        trace = reader.trace({"text": [1, 60, 2, 3, *inside, 4], "workers": {"1": [50, 5, 70, 71, 6]}})
        assert len(trace.faults) == faults
    assert ByTag({1: "<x>"})([1, 10**9, -5])[0] == ("<x>", 1)
