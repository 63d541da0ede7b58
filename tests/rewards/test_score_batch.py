"""Scoring in batches: the same as one at a time, the slow way and the command line, whatever comes in."""

import json
import math
import os
import pickle
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import (
    ConfigError,
    FormatError,
    Outcome,
    Protocol,
    Reader,
    Reward,
    Think,
    Thread,
    Trace,
    ViolationKind,
    compile_trace,
    make_reward,
    measure,
    parse,
    render,
    score,
    score_batch,
    simulate,
)
from simulator.cli import main
from simulator.formats import FORMATS, native
from simulator.formats.asyncthink import render_threads
from simulator.rewards import REWARDS, Rollout, process_pool
from tests.support.strategies import SECONDS, any_traces, traces

RULES = Protocol(capacity=3)
FORKED = "So <FORK-1>q</FORK-1><JOIN-1>9</JOIN-1><ANSWER>9</ANSWER>"
WORKERS = {"1": "thought at some length <RETURN>9</RETURN>"}
OUTCOMES = st.sampled_from((None, True, False, Outcome(found=1, wanted=3)))
ANYTHING = st.lists(
    st.tuples(st.one_of(traces(nested=True, delays=SECONDS, prompts=True), any_traces()), OUTCOMES), max_size=6
)


def same(one, other):
    first, second = one.columns(), other.columns()
    assert first.keys() == second.keys()
    for name, column in first.items():
        assert column.dtype == second[name].dtype
        np.testing.assert_array_equal(column, second[name])


# ---------------------------------------------------------------- the same four ways


def rewards():
    return {name: make_reward(name, **({"gpu": "rate:50"} if name == "wallclock" else {})) for name in REWARDS}


@pytest.mark.parametrize("reward", rewards().values(), ids=REWARDS)
@given(rows=ANYTHING)
def test_a_row_is_what_score_says_of_the_trace(reward, rows):
    given, verdicts = [row[0] for row in rows], [row[1] for row in rows]
    batch = score_batch(given, reward=reward, protocol=RULES, outcomes=verdicts)
    assert len(batch) == len(batch.reason) == len(rows)
    for i, (each, verdict) in enumerate(rows):
        outcome = Outcome(correct=verdict) if isinstance(verdict, bool) else verdict
        rollout = Rollout(Trace(each.id, each.threads, outcome), RULES)
        result = reward.score(rollout)
        assert batch.total[i] == result.total == sum(column[i] for column in batch.terms.values())
        assert {name: column[i] for name, column in batch.terms.items()} == result.terms
        assert math.isnan(batch.accuracy[i]) if result.accuracy is None else batch.accuracy[i] == result.accuracy
        assert (batch.latency[i], batch.eta[i], batch.eta_over_c[i]) == (result.latency, result.eta, result.eta_over_c)
        assert batch.peak_concurrency[i] == result.peak_concurrency
        assert (batch.workers[i], batch.work[i]) == (rollout.clock.workers, rollout.clock.work)
        kinds = [violation.kind.value for violation in result.violations]
        assert {kind: column[i] for kind, column in batch.violations.items()} == {
            kind.value: kinds.count(kind.value) for kind in ViolationKind
        }
        assert not batch.failed[i]
        assert (batch.reason[i] is None) == (result.terms["format_error"] == 0)


@given(each=traces(nested=True, prompts=True), correct=st.booleans())
def test_a_row_is_what_the_simulation_measures(each, correct):
    """Simulate the graph at a second a step, measure the timeline, and work the reward out from that."""
    rules = Protocol(capacity=3, when_full="allow")
    metrics = measure(simulate(compile_trace(each, rules)))
    batch = score_batch([each], protocol=rules, outcomes=[correct])
    assert (batch.latency[0], batch.peak_concurrency[0]) == (metrics.latency, metrics.peak_concurrency)
    eta = metrics.eta if metrics.latency else 0.0
    assert batch.eta[0] == pytest.approx(eta)
    closed = any(violation.kind in rules.format_errors for violation in metrics.violations)
    assert batch.total[0] == pytest.approx(-1.0 if closed else correct + 0.5 * min(eta / 3, 1.0))


@given(rows=st.lists(st.one_of(traces(nested=True), any_traces()), min_size=1, max_size=5))
def test_texts_are_scored_as_what_they_parse_to(rows):
    texts = [render_threads(each) for each in rows if not _has_delay(each)]
    rollouts = [{"text": text, "workers": workers} for text, workers in texts]
    parsed = [parse(text, workers=workers) for text, workers in texts]
    same(score_batch(rollouts, protocol=RULES), score_batch(parsed, protocol=RULES))
    files = [parse(render(each, "asyncthink"), whole_file=True) for each in rows if not _has_delay(each)]
    same(score_batch(files, protocol=RULES), score_batch(parsed, protocol=RULES))


def _has_delay(each):
    return any(not hasattr(action, "tokens") for _, _, action in each.actions())


@pytest.mark.parametrize("name", ["asyncthink", "threadweaver", "kimi_parl"])
def test_the_command_line_says_the_same(name, tmp_path, capsys):
    records = [
        {"organizer": FORKED, "workers": WORKERS, "correct": True},
        {"output": "<JOIN-3> <ANSWER>9</ANSWER>", "correct": True},
        {"output": "<think>a<Parallel><Thread>b</Thread><Thread>cdefghijkl</Thread></Parallel></think>9"},
        {"organizer": "I give up", "correct": False},
    ]
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    rules = Protocol(capacity=4)
    batch = score_batch(records, reward=name, protocol=rules, reader=Reader(format="detect"))
    with pytest.raises(SystemExit) as end:
        main(["score", str(path), "--reward", name, "--json"])
    assert end.value.code == 0
    *lines, _ = map(json.loads, capsys.readouterr().out.splitlines())
    assert [line["reward"] for line in lines] == batch.total.tolist()
    assert [line["terms"] for line in lines] == [
        {term: column[i] for term, column in batch.terms.items()} for i in range(len(batch))
    ]
    with pytest.raises(SystemExit) as end:
        main(["score", str(path), "--reward", name, "-o", str(out)])
    assert end.value.code == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    columns = batch.columns()
    assert [row.pop("trace") for row in rows] == [f"in:{i}" for i in (1, 2, 3, 4)]
    for i, row in enumerate(rows):
        assert list(row) == list(columns)
        for key, value in row.items():
            expected = columns[key][i]
            assert value == (None if isinstance(expected, float) and math.isnan(expected) else expected)


# ---------------------------------------------------------------- order and sharing


ROWS = [
    FORKED,
    {"organizer": FORKED, "workers": WORKERS, "correct": True},
    "<JOIN-3>",
    None,
    parse(FORKED, outcome=Outcome(correct=True)),
    b"<ANSWER>\xff</ANSWER>",
    "",
]


@given(st.permutations(range(len(ROWS))))
def test_permuted_rows_have_permuted_scores(order):
    batch = score_batch(ROWS, protocol=RULES)
    permuted = score_batch([ROWS[i] for i in order], protocol=RULES)
    for name, column in batch.columns().items():
        np.testing.assert_array_equal(column[list(order)], permuted.columns()[name])


def test_parts_and_wholes():
    many = ROWS * 300  # three chunks
    whole = score_batch(iter(many), protocol=RULES)
    once = score_batch(ROWS, protocol=RULES)
    np.testing.assert_array_equal(whole.total, np.tile(once.total, 300))
    assert whole.reason == once.reason * 300
    none = score_batch([], protocol=RULES)
    assert len(none) == 0
    assert none.columns().keys() == once.columns().keys()


def test_processes_and_threads_say_the_same():
    many = ROWS * 50
    alone = score_batch(many, protocol=RULES, outcomes=[None, True] * 175)
    same(alone, score_batch(many, protocol=RULES, outcomes=[None, True] * 175, workers=2))
    with ThreadPoolExecutor(4) as threads:
        same(alone, score_batch(many, protocol=RULES, outcomes=iter([None, True] * 175), workers=threads))
        for other in threads.map(lambda _: score_batch(many, protocol=RULES), range(8)):
            same(other, score_batch(many, protocol=RULES))
    same(alone, pickle.loads(pickle.dumps(alone)))


def test_a_pool_can_be_kept():
    with process_pool(1) as pool:
        for _ in range(2):
            same(score_batch(ROWS, protocol=RULES), score_batch(ROWS, protocol=RULES, workers=pool))


# ---------------------------------------------------------------- what a rollout may be


@pytest.mark.parametrize(
    "rollout",
    [
        {"organizer": FORKED, "workers": WORKERS},
        {"output": FORKED, "workers": WORKERS},
        {"organizer": FORKED, "workers": list(WORKERS.values())},
        {"completion": FORKED, "workers": WORKERS, "reference": 9, "correct": None},
        parse(FORKED, workers=WORKERS),
        parse(FORKED + "<WORKER-1>" + WORKERS["1"] + "</WORKER-1>", whole_file=True),
    ],
)
def test_one_rollout_in_many_shapes(rollout):
    same(
        score_batch([rollout], protocol=RULES), score_batch([{"organizer": FORKED, "workers": WORKERS}], protocol=RULES)
    )


@pytest.mark.parametrize(
    "correct",
    [True, 1, 1.0, np.True_, np.float32(1), np.int64(1), Outcome(correct=True)],
    ids=lambda x: type(x).__name__,
)
def test_outcomes_in_many_shapes(correct):
    expected = score_batch([FORKED], protocol=RULES, outcomes=[True])
    assert expected.accuracy.tolist() == [1.0]
    same(expected, score_batch([FORKED], protocol=RULES, outcomes=[correct]))
    same(expected, score_batch([{"output": FORKED, "correct": correct}], protocol=RULES))
    same(expected, score_batch([{"output": FORKED, "correct": False}], protocol=RULES, outcomes=[correct]))
    same(expected, score_batch([parse(FORKED, outcome=Outcome(correct=False))], protocol=RULES, outcomes=[correct]))


def test_other_columns_do_not_matter():
    """A trainer passes on whatever its data set has."""
    given = {"completion": FORKED, "id": 3.5, "index": [], "prompt": object(), "prompt_tokens": np.int64(7)}
    assert score_batch([given], protocol=RULES).reason == (None,)


def test_an_organizer_of_a_given_format():
    text = "<Parallel><Path>odd</Path><Path>even</Path></Parallel>"
    assert len(Reader(format="parallel_r1").trace({"organizer": text}).threads) == 3


def test_solutions_found():
    batch = score_batch([{"output": FORKED, "found": 3, "wanted": 4}], protocol=RULES)
    assert batch.accuracy.tolist() == [0.75]


class Words:
    """A tokenizer: each word, tag and space is a token."""

    def __init__(self):
        self.words = {}

    def encode(self, text):
        return [self.words.setdefault(word, len(self.words) + 100) for word in re.findall(r"<[^>]*>|\w+|\s|\W", text)]

    def decode(self, ids):
        return "".join({number: word for word, number in self.words.items()}[each] for each in ids)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("threadweaver", "<think>a b<Parallel><Thread>c d</Thread><Thread>e</Thread></Parallel>f</think>answer: 9"),
        ("multiverse", "<Think>a<Parallel><Goal></Goal><Path>c d</Path><Path>e</Path></Parallel>f</Think>answer"),
        ("parallel_r1", "a<Parallel><Path>c d</Path><Path>e</Path></Parallel><Summary>s</Summary>f"),
        ("asyncthink", "a<FORK-1>q q</FORK-1> b<JOIN-1>9 9</JOIN-1><ANSWER>9</ANSWER>"),
    ],
)
def test_token_ids_with_tags_need_no_tokenizer(name, text):
    """What is counted is what a tokenizer counts to whom every tag is one token."""
    tokenizer = Words()
    ids = tokenizer.encode(text)
    tags = {word: number for word, number in tokenizer.words.items() if word.startswith("<")}
    spaces = [number for word, number in tokenizer.words.items() if word.isspace()]
    expected = parse(text, format=name, count=lambda piece: len(tokenizer.encode(piece)), keep_text=False)
    silent = native.decode(native.encode(expected).replace(b',"text":"9"', b"").replace(b',"text":"answer: 9"', b""))
    silent = native.decode(native.encode(silent).replace(b',"text":"answer"', b""))
    for form in (ids, np.array(ids), tuple(ids), {"completion": ids}):
        got = Reader(format=name, tags=tags, spaces=spaces).trace(form)
        assert [(thread.id, thread.actions) for thread in got.threads] == [
            (thread.id, thread.actions) for thread in silent.threads
        ]
        for reader in (
            Reader(format=name, tags=tags, decode=tokenizer.decode),
            Reader(format=name, decode=tokenizer.decode),
        ):
            assert reader.trace(form).threads == expected.threads
    if name != "asyncthink":  # where the runtime's own tokens are nobody's
        assert got.tokens == len(ids)


def test_token_ids_with_a_decoder_count_as_many_as_there_are():
    tokenizer = Words()
    organizer, worker = tokenizer.encode(FORKED), tokenizer.encode(WORKERS["1"])
    reader = Reader(decode=tokenizer.decode)
    got = reader.trace({"organizer": organizer, "workers": {"1": worker}, "correct": True})
    assert [type(action) for action in got.organizer.actions] == [
        type(action) for action in parse(FORKED, workers=WORKERS).organizer.actions
    ]
    decoded = sum(thread.tokens for thread in got.threads) + sum(
        getattr(action, "inserted_tokens", 0) for action in got.organizer.actions
    )
    assert decoded == len(organizer) + len(worker)
    assert got.outcome == Outcome(correct=True)
    assert score_batch([organizer], protocol=RULES, reader=reader).total[0] > 0


# ---------------------------------------------------------------- what is wrong with a rollout


class Hostile(Exception):
    def __str__(self):
        raise RuntimeError("not even this")


def raising(error):
    def count(piece):
        raise error

    return count


@pytest.mark.parametrize(
    ("rollout", "reader", "reason"),
    [
        (None, Reader(), "a rollout is a Trace, a text, a mapping with a text, or token ids; got NoneType"),
        (3.5, Reader(), "got float"),
        (["a"], Reader(), "got list"),
        (np.zeros((2, 2), int), Reader(), "got ndarray"),
        ({}, Reader(), "has nothing to parse"),
        ({"output": 3}, Reader(), "Expected `str | null`, got `int`"),
        ({"output": "a", "workers": {"1": 3}}, Reader(), "Expected `str`, got `int`"),
        ({"output": "a", "workers": {1: "b"}}, Reader(), "Expected `str`"),
        ({"output": "a", "workers": {"x": "b"}}, Reader(), "a worker is called by its Fork index"),
        ({"output": "a", "workers": 5}, Reader(), "Expected `object | null`, got `int`"),
        ({"output": "a", "workers": {"1": "b"}}, Reader(format="multiverse"), "has workers beside its text"),
        ({"output": [1], "workers": {"1": "b"}}, Reader(tags={"<a>": 1}), "texts and token ids side by side"),
        ({"output": "a", "correct": 0.5}, Reader(), "an outcome is an Outcome, true, false, 1, 0 or None; got 0.5"),
        ({"output": "a", "correct": "yes"}, Reader(), "got 'yes'"),
        ({"output": "a", "found": 3}, Reader(), "an outcome counts solutions with both"),
        ({"output": "a", "tokens": -1}, Reader(), "tokens must be a number from 0"),
        ({"output": "a", "prompt_tokens": -1}, Reader(), "prompt_tokens must be"),
        (b"\xff", Reader(), "is no UTF-8 text: invalid start byte at byte 0"),
        ("{", Reader(format="native"), "not one complete JSON object"),
        ([1, 2], Reader(), "token ids need Reader(decode=...) or Reader(tags=...)"),
        ([1, 2], Reader(decode=raising(KeyError("x"))), "KeyError: 'x'"),
        ([1, 2], Reader(decode=lambda ids: None), "decode returned no text but NoneType"),
        ("abc", Reader(max_size=2), "has 3 characters; at most 2 are scored"),
        (b"abc", Reader(max_size=2), "has 3 bytes; at most 2 are scored"),
        ([1, 2, 3], Reader(max_size=2, tags={"<a>": 1}), "has 3 token ids; at most 2 are scored"),
        ({"output": "ab", "workers": {"1": "c"}}, Reader(max_size=2), "has 3 characters; at most 2 are scored"),
        (Trace("t", (Thread("organizer", (Think(1),) * 3),)), Reader(max_size=2), "has 3 actions; at most 2"),
        ("abc", Reader(count=raising(Hostile())), "Hostile"),
        ("abc", Reader(count=raising(MemoryError())), "MemoryError"),
        ("abc", Reader(count=lambda piece: -1), "tokens must be an int from 0"),
        ("abc", Reader(count=lambda piece: math.nan), "tokens must be an int from 0"),
        (FormatError("torn", path="a.jsonl", line=3), Reader(), "a.jsonl:3: torn"),
    ],
)
def test_a_bad_rollout_is_a_bad_row(rollout, reader, reason):
    good = parse(FORKED)
    batch = score_batch([good, rollout, good], protocol=RULES, reader=reader)
    assert batch.failed.tolist()[1]
    assert batch.total[1] == batch.terms["format_error"][1] == RULES.format_error_reward
    assert reason in batch.reason[1]
    assert math.isnan(batch.accuracy[1])
    rest = {name: column[1] for name, column in batch.columns().items()}
    for name in ("total", "term_format_error", "accuracy", "failed", "reason"):
        del rest[name]
    assert not any(rest.values())
    if reader.max_size > 9:
        assert batch.failed.tolist() == [False, True, False]


@given(st.lists(st.one_of(st.text(max_size=60), st.binary(max_size=60)), max_size=4))
def test_no_text_and_no_bytes_raise(rows):
    batch = score_batch(rows, protocol=RULES)
    assert len(batch) == len(rows)
    assert np.isfinite(batch.total).all()


TAGS = ["<FORK-1>", "</FORK-1>", "<JOIN-1>", "</JOIN-1>", "<RETURN>", "<ANSWER>", "<Parallel>", "</Parallel>", "<Path>"]
TAGS += [
    "</Path>",
    "<Thread>",
    "</Thread>",
    "<think>",
    "</think>",
    "<WORKER-1>",
    '{"schema":',
    "\0",
    "\ud800",
    "x",
    " ",
]


@given(st.lists(st.sampled_from(TAGS), max_size=25).map("".join), st.sampled_from((None, *FORMATS)))
def test_no_tags_raise(text, name):
    for reward in ("asyncthink", "threadweaver", "kimi_parl"):
        batch = score_batch([text], reward=reward, protocol=RULES, reader=Reader(format=name))
        assert batch.total[0] == sum(column[0] for column in batch.terms.values())


def test_hostile_text_takes_no_time_to_speak_of():
    texts = [
        "<FORK-1>" * 200_000,
        "<Parallel><Path>" * 100_000,
        "<" * 1_000_000,
        "</JOIN-1>" * 100_000,
        "\\boxed{" * 99_999,
    ]
    batch = score_batch(texts, protocol=RULES)
    assert not batch.failed.any()


def test_a_term_that_fails_fails_its_rows_only():
    def fussy(rollout):
        return 1 / (rollout.latency - 2)

    batch = score_batch(["x" * 8, "x" * 12], reward=Reward(terms={"fussy": fussy}, gate=None), protocol=RULES)
    assert batch.failed.tolist() == [True, False]
    assert batch.reason == ("ZeroDivisionError: division by zero (raised by term 'fussy')", None)
    assert batch.total.tolist() == [-1.0, 1.0]


def test_a_term_that_is_not_a_number_fails():
    def strange(rollout):
        return math.nan if rollout.latency > 2 else 0.0

    batch = score_batch(["x" * 8, "x" * 12], reward=Reward(terms={"strange": strange}, gate=None), protocol=RULES)
    assert batch.reason == (None, "ValueError: term strange is nan")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: score_batch([], protocol=Protocol()), "the reward divides eta by the pool capacity"),
        (lambda: score_batch("abc", protocol=RULES), "rollouts must be several, such as [rollout]; got one str"),
        (lambda: score_batch({"output": "a"}, protocol=RULES), "got one dict"),
        (lambda: score_batch(3, protocol=RULES), "rollouts and outcomes must be iterables"),
        (lambda: score_batch(["a"], protocol=RULES, outcomes=[]), "there are fewer outcomes than rollouts"),
        (lambda: score_batch(["a"], protocol=RULES, outcomes=[1, 1]), "there are more outcomes than rollouts"),
        (lambda: score_batch([], reward="asyncthnk"), "did you mean asyncthink?"),
        (lambda: score_batch([], protocol=RULES, workers=0), "workers must be a whole number from 1, or a pool; got 0"),
        (lambda: score_batch([], protocol=RULES, max_seconds=0), "max_seconds must be a number above 0"),
        (lambda: Reader(format="x"), "no format is called 'x'"),
        (lambda: Reader(max_size=0), "max_size must be a whole number from 1, got 0"),
        (lambda: Reader(count=3), "count and decode must be functions"),
        (lambda: Reader(tags={"<a>": 1, "<b>": 1}), "tags must be a mapping from tags to token ids"),
        (lambda: Reader(tags={"<a>": "x"}), "tags must be a mapping from tags to token ids"),
    ],
)
def test_wrong_calls(call, message):
    with pytest.raises(ConfigError) as caught:
        call()
    assert message in str(caught.value)


def test_the_protocol_of_the_reward_is_taken_where_none_is_given():
    reward = make_reward("asyncthink").with_(protocol=Protocol(capacity=2))
    assert score_batch(["<ANSWER>9</ANSWER>"], reward=reward).eta_over_c.tolist() == [0.5]
    assert score_batch(["<ANSWER>9</ANSWER>"], reward=reward, protocol=Protocol(capacity=4)).eta_over_c.tolist() == [
        0.25
    ]
    assert score(parse("<ANSWER>9</ANSWER>"), reward=reward).eta_over_c == 0.5


# ---------------------------------------------------------------- bounds of time


def stuck(rollout):
    """Hang on three tokens, and take the process down on four."""
    if rollout.latency == 3:
        threading.Event().wait()
    if rollout.latency == 4:
        os._exit(3)
    return 1.0


def test_a_rollout_that_hangs_fails_alone():
    texts = ["x" * 4 * n for n in (1, 3, 2, 4, 5)]
    reward = Reward(terms={"stuck": stuck}, gate=None)
    batch = score_batch(texts, reward=reward, protocol=RULES, max_seconds=1)
    assert batch.reason == (None, "took more than 1 s", None, "ended the process that scored it", None)
    assert batch.total.tolist() == [1, -1, 1, -1, 1]
    assert batch.latency.tolist() == [1, 0, 2, 0, 5]


def test_a_bound_that_does_not_strike_changes_nothing():
    same(score_batch(ROWS, protocol=RULES), score_batch(ROWS, protocol=RULES, max_seconds=60))
