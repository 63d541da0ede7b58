"""Adapters for trainers: each gives what `score_batch` gives, whatever a trainer hands over."""

from __future__ import annotations

import asyncio
import json
import math
import pickle
import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from simulator import ConfigError, FormatError, Protocol, Reader, make_reward, render, score_batch
from simulator.integrations import Scorer, exact, openrlhf, slime, trl, verifiers, verl
from simulator.integrations.scorer import ENDS, texts_of
from tests.support.strategies import any_traces, traces

pytestmark = pytest.mark.filterwarnings("ignore:some rollouts Fork")
PROTOCOL = Protocol(capacity=2)
SCORER = Scorer(protocol=PROTOCOL)
SECTION = re.compile(r"\n?<WORKER-([\d.]+)>(.*?)</WORKER-\1>", re.DOTALL)


def openrlhf_totals(organizers, workers, truths):
    function = openrlhf.make_reward_func(SCORER)
    rows = [
        function(["the prompt" + text], ["the prompt"], [truth], workers=[own])
        for text, own, truth in zip(organizers, workers, truths, strict=True)
    ]
    return [row["rewards"] for row in rows]


def slime_totals(organizers, workers, truths):
    samples = [
        SimpleNamespace(response=text, label=truth, metadata={"workers": own})
        for text, own, truth in zip(organizers, workers, truths, strict=True)
    ]
    rewards = asyncio.run(slime.make_custom_rm(SCORER)(SimpleNamespace(reward_key=None), samples))
    assert rewards == [asyncio.run(slime.custom_rm(None, sample, scorer=SCORER)) for sample in samples]
    return rewards


def verifiers_totals(organizers, workers, truths):
    function = verifiers.make_reward(SCORER)
    return [
        asyncio.run(function(completion=[{"role": "assistant", "content": text}], answer=truth, info={"workers": own}))
        for text, own, truth in zip(organizers, workers, truths, strict=True)
    ]


def verl_totals(organizers, workers, truths):
    infos = [{"workers": json.dumps(own), "index": 7} for own in workers]
    rows = verl.compute_score_batch(["d"] * len(infos), organizers, truths, infos, protocol={"capacity": 2})
    singles = [
        verl.compute_score("d", text, truth, info, scorer=SCORER, reward_router_address="x")
        for text, truth, info in zip(organizers, truths, infos, strict=True)
    ]
    assert rows == singles
    return [row["score"] for row in rows]


def trl_totals(organizers, workers, truths):
    function = trl.make_reward_func(SCORER)
    return function(["?"] * len(truths), organizers, [[1]] * len(truths), workers=workers, answer=truths)


TOTALS = {f.__name__: f for f in (trl_totals, verl_totals, openrlhf_totals, slime_totals, verifiers_totals)}
JUDGED = st.tuples(traces(nested=True, min_tokens=4) | any_traces(), st.booleans())
each_adapter = pytest.mark.parametrize("totals", TOTALS.values(), ids=TOTALS)


@each_adapter
@given(batch=st.lists(JUDGED, min_size=1, max_size=4))
def test_every_adapter_gives_what_score_batch_gives(totals, batch):
    organizers, workers, truths = [], [], []
    for trace, right in batch:
        try:
            text = render(trace, "asyncthink")
        except FormatError:
            continue
        organizers.append(SECTION.sub("", text))
        workers.append(dict(SECTION.findall(text)))
        answers = re.findall("<ANSWER>([^<]*)</ANSWER>", organizers[-1])
        truths.append(answers[-1] if right and answers else "another")
    assume(organizers)
    rollouts = [{"organizer": text, "workers": own} for text, own in zip(organizers, workers, strict=True)]
    verdicts = [exact(text, truth) for text, truth in zip(organizers, truths, strict=True)]
    expected = score_batch(rollouts, protocol=PROTOCOL, outcomes=verdicts)
    assert totals(organizers, workers, truths) == expected.total.tolist()


HOSTILE = [None, "", "x" * 50, 3.5, b"\xff", {"a": 1}, [None], "<FORK-1>" * 40, "\ud800", [{"role": "assistant"}], [[]]]
WORKERS = [None, {"1": None, 2: "y"}, "{", "[]", 7, ["a", "b"], {"x": "y"}, {"1": 3}, b"\xff", "null", "3"]


@each_adapter
@given(
    texts=st.lists(st.sampled_from(HOSTILE), min_size=1, max_size=4),
    workers=st.lists(st.sampled_from(WORKERS), min_size=4, max_size=4),
    truth=st.sampled_from([None, 9, "9", [], object()]),
)
def test_nothing_a_trainer_hands_over_raises(totals, texts, workers, truth):
    if totals is openrlhf_totals:
        texts = [text if isinstance(text, str) else "" for text in texts]
    if totals is verl_totals:
        workers = [None if isinstance(own, bytes) else own for own in workers]
    rewards = totals(texts, workers[: len(texts)], [truth] * len(texts))
    assert len(rewards) == len(texts)
    assert all(isinstance(reward, float) and math.isfinite(reward) for reward in rewards)


def test_columns_of_wrong_length_or_kind_are_as_if_they_were_not_there():
    function = trl.make_reward_func(SCORER)
    texts = ["<ANSWER>9</ANSWER>", "<ANSWER>8</ANSWER>"]
    both = function(completions=texts, answer=["9", "9"])
    assert both == [1.25, 0.25]
    assert function(completions=texts, answer=["9"], workers=7, completion_ids=[[1]], other=object()) == [1.25, 0.25]
    assert function(completions=texts, answer=None) == [0.25, 0.25]
    assert function(prompts=[], completions=[]) == []
    rows = verl.compute_score_batch(None, texts, ["9"], [{}], scorer=SCORER)
    assert [row["score"] for row in rows] == [1.25, 0.25]


# ---------------------------------------------------------------- token ids

TAGS = {tag: i for i, tag in enumerate(("<FORK-1>", "</FORK-1>", "<JOIN-1>", "</JOIN-1>", "<ANSWER>", "</ANSWER>"), 1)}
IDS = [20, 1, 21, 22, 2, 23, 3, 24, 4, 5, 9, 6, 99]
WORKER_IDS = [30, 31, 32, 99]


TAG_OF = {i: tag for tag, i in TAGS.items()}


class Tokenizer:
    """Tags are special tokens, as in a tokenizer that was trained to Fork and Join."""

    eos_token_id, pad_token_id = 99, None

    def decode(self, ids, skip_special_tokens=False):
        return "".join("" if skip_special_tokens and i in TAG_OF else TAG_OF.get(i, str(i % 10)) for i in ids)


def test_tags_that_were_skipped_in_decoding_are_read_from_the_ids():
    tokenizer = Tokenizer()
    skipped = tokenizer.decode(IDS, skip_special_tokens=True)
    assert "<" not in skipped
    blind = trl.make_reward_func(SCORER)(completions=[skipped], completion_ids=[IDS], answer=["9"])
    assert blind == [-1.0]
    scorer = Scorer(protocol=PROTOCOL, tokenizer=tokenizer)
    expected = score_batch(
        [{"text": IDS[:-1], "workers": {"1": WORKER_IDS[:-1]}}],
        protocol=PROTOCOL,
        reader=Reader(decode=tokenizer.decode),
        outcomes=[True],
    ).total.tolist()
    assert expected[0] > 1
    own = {"1": WORKER_IDS}
    seen = trl.make_reward_func(scorer)(completions=[skipped], completion_ids=[IDS], workers=[own], answer=["9"])
    score = verl.make_compute_score(scorer)
    info = {"response_ids": IDS, "workers": own}
    sample = SimpleNamespace(
        response=skipped, tokens=[7, 7, *IDS], response_length=len(IDS), label="9", metadata={"workers": own}
    )
    assert seen == expected
    assert score("d", skipped, "9", info)["score"] == expected[0]
    assert score("d", IDS, "9", {"workers": own})["score"] == expected[0]
    assert score("d", skipped, "9", {**info, "response_ids": np.array(IDS)})["score"] == expected[0]
    assert asyncio.run(slime.make_custom_rm(scorer)(None, sample)) == expected[0]


def test_ids_with_tags_need_no_tokenizer():
    scorer = Scorer(protocol=PROTOCOL, reader=Reader(tags=TAGS), judge=None, ends=(99,))
    batch = scorer.score(["gone"], [IDS], [{"1": WORKER_IDS}])
    assert not batch.failed[0] and batch.workers.tolist() == [1] and batch.work.tolist() == [len(IDS) - 1 + 3]
    assert batch.violations["forged_join"].tolist() == [1]  # the worker said 30, 31, 32, and the Join holds 24
    batch = scorer.score(["gone"], [IDS], [{"1": [24, 99]}])
    assert batch.violations["forged_join"].tolist() == [0] and batch.work.tolist() == [len(IDS) - 3 + 1]
    masks = [[1] * 7 + [0, 0] + [1] * 4]
    for mask in masks, np.array(masks):  # the last is of the end that is cut off
        batch = scorer.score(["gone"], [IDS], [{"1": WORKER_IDS}], masks=mask)
        assert batch.violations["forged_join"].tolist() == [0] and batch.work.tolist() == [len(IDS) - 3 + 3]


def test_masks_reach_the_reward_from_every_trainer_that_has_them():
    scorer = Scorer(protocol=PROTOCOL, tokenizer=Tokenizer())
    mask = [1] * 7 + [0, 0] + [1] * 4
    believed = scorer.score(["gone"], [IDS], [{"1": WORKER_IDS}], ["9"], [mask]).total.tolist()
    assert believed != scorer.score(["gone"], [IDS], [{"1": WORKER_IDS}], ["9"]).total.tolist()
    info = {"response_ids": IDS, "response_mask": mask, "workers": {"1": WORKER_IDS}}
    assert verl.make_compute_score(scorer)("d", "gone", "9", info)["score"] == believed[0]
    sample = SimpleNamespace(
        response="gone", tokens=[7, *IDS], response_length=len(IDS), label="9", metadata=info, loss_mask=mask
    )
    assert asyncio.run(slime.make_custom_rm(scorer)(None, sample)) == believed[0]
    columns = {"completions": ["gone"], "completion_ids": [IDS], "answer": ["9"], "workers": [{"1": WORKER_IDS}]}
    assert trl.make_reward_func(scorer)(**columns, env_mask=[mask]) == believed
    assert trl.make_reward_func(scorer, mask="sampled")(**columns, sampled=[mask]) == believed


def test_the_training_step_reaches_a_reward_that_changes_with_it():
    text = r"<Parallel><Path>odd</Path></Parallel><Summary>s</Summary>\boxed{9}"
    options = {"reward": make_reward("parallel_r1", variant="alternating")}
    for step, earned in (0, 1.0), (9, 1.2):
        state = SimpleNamespace(global_step=step)
        assert trl.make_reward_func(**options)(completions=[text], answer=["9"], trainer_state=state) == [earned]
        assert verl.make_compute_score(**options)("d", text, "9", {"global_steps": step})["score"] == earned


def test_a_step_and_a_tokenizer_go_together():
    """The reader has taken the tokenizer in, and keeps what it has learned of it."""
    reward = make_reward("kimi_parl", anneal_steps=10)
    scorer = Scorer(reward=reward, protocol=PROTOCOL, tokenizer=Tokenizer())
    early, late = (scorer.score(["gone"], [IDS], [{"1": [24, 99]}], ["9"], step=step) for step in (0, 10))
    assert not early.failed[0] and early.work.tolist() == late.work.tolist() == [len(IDS) - 3 + 1]
    assert early.total[0] > late.total[0] == 1.0
    assert scorer.reader.meant_for(reward) is scorer.reader


@pytest.mark.parametrize("mask", [[1] * (len(IDS) + 5), [1] * 3])
def test_a_mask_of_another_length_is_refused_also_where_an_end_is_cut_off(mask):
    scorer = Scorer(protocol=PROTOCOL, tokenizer=Tokenizer())
    batch = scorer.score(["gone"], [IDS], masks=[mask])
    assert batch.failed[0] and f"a mask of {len(mask)} for {len(IDS) - 1} token ids" in batch.reason[0]


def test_what_was_thought_in_earlier_turns_is_counted():
    """Verifiers calls its last reply the answer; a policy could think before that."""
    turns = ("so I think " * 50, "and on " * 50, "<ANSWER>9</ANSWER>")
    nodes = [{"message": {"role": "assistant", "content": text}, "sampled": True} for text in turns]
    nodes = [node | ({"parent": place - 1} if place else {}) for place, node in enumerate(nodes)]
    metrics = {}
    trace = SimpleNamespace(
        last_reply=turns[-1], info={}, to_record=lambda: {"nodes": nodes}, record_metrics=metrics.update
    )
    task = SimpleNamespace(answer="9")
    assert asyncio.run(verifiers.make_reward(SCORER)(trace=trace, task=task)) == 1.25
    assert metrics["forksim_latency"] == sum(map(len, turns)) / 4 // 1 + 1


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_what_was_thought_beside_the_content_is_counted(key):
    thought = "so I think " * 50
    metrics = {}
    messages = [{"role": "assistant", key: thought, "content": "<ANSWER>9</ANSWER>"}]
    trl.make_reward_func(SCORER)(completions=[messages], answer=["9"], log_metric=metrics.__setitem__)
    assert metrics["forksim/latency"] == (len(thought) + 3) // 4 + 5 and metrics["forksim/accuracy"] == 1


def test_a_response_that_repeats_the_end_of_its_prompt_is_not_cut():
    """Or a policy would think, write that, and answer."""
    for query in ("long thoughts. What is 4 + 5? 9", "is 4 + 5? so is 4 + 5? 9"):
        assert openrlhf.response_of(query, "the prompt: What is 4 + 5?") in (query, " so is 4 + 5? 9")
    assert openrlhf.response_of("long thoughts. What is 4 + 5? 9", "the prompt: What is 4 + 5?").startswith("long")


@pytest.mark.parametrize("end", ENDS)
def test_ends_of_turns_are_no_thinking(end):
    text = "So <ANSWER>9</ANSWER>"
    plain, ended = (SCORER.score([each]) for each in (text, f"{text}{end}\n{end}"))
    assert plain.total.tolist() == ended.total.tolist() and plain.latency.tolist() == ended.latency.tolist()


# ---------------------------------------------------------------- each framework's own ways


def test_trl_logs_means_and_columns():
    metrics, extra = {}, {}
    rewards = trl.make_reward_func(SCORER)(
        completions=["<ANSWER>9</ANSWER>", None],
        answer=["9", "9"],
        log_metric=metrics.__setitem__,
        log_extra=extra.__setitem__,
    )
    assert rewards == [1.25, -1.0]
    assert metrics["forksim/total"] == 0.125 and metrics["forksim/failed"] == 0.5
    assert metrics["forksim/term_format_error"] == -0.5
    assert all(isinstance(value, float) and math.isfinite(value) for value in metrics.values())
    assert extra["forksim/latency"] == [5, 0] and extra["forksim/reason"][0] == ""
    assert "NoneType" in extra["forksim/reason"][1]


def test_trl_rows_of_other_functions_are_none():
    function = trl.make_reward_func(SCORER)
    assert function(completions=["a", "b"], forksim=[True, False]) == [-1.0, None]
    assert function.__name__ == "forksim"


def test_trl_conversations():
    messages = [{"role": "assistant", "content": [{"type": "text", "text": "<ANSWER>"}]}, {"content": "9</ANSWER>"}]
    assert trl.make_reward_func(SCORER)(completions=[messages], answer=["9"]) == [1.25]
    assert texts_of([{"role": "assistant", "content": None}]) == ""


def test_verl_rows_have_the_same_keys_and_plain_values():
    good, bad = (verl.compute_score(solution_str=text, scorer=SCORER) for text in ("<ANSWER>9</ANSWER>", None))
    assert list(good) == list(bad) and (good["reason"], bad["score"]) == ("", -1.0)
    assert all(type(value) is float for row in (good, bad) for key, value in row.items() if key != "reason")
    assert not np.isnan([value for key, value in bad.items() if key != "reason"]).any()


def test_openrlhf_of_several_and_of_cut_prompts():
    function = openrlhf.make_reward_func(SCORER)
    found = function(["4+5? <ANSWER>9</ANSWER></s>", "what is 4+5?"], ["4+5?", "and what is 4+5?"], ["9", "9"])
    assert found["rewards"] == [1.25, -1.0] and found["scores"] == [1.0, 0.0]
    assert found["extra_logs"]["failed"] == [0.0, 0.0] and "reason" not in found["extra_logs"]
    unjudged = openrlhf.make_reward_func(protocol=PROTOCOL, judge=None)(["<ANSWER>9</ANSWER>"], [""], ["9"])
    assert unjudged["scores"] == unjudged["rewards"] == 0.25
    assert function([None], [None], None)["rewards"] == -1.0


def test_slime_dicts_and_samples_that_are_none():
    rm = slime.make_custom_rm(SCORER)
    args = SimpleNamespace(reward_key="score")
    found = asyncio.run(rm(args, [SimpleNamespace(response="<ANSWER>9</ANSWER>", label=9), None, []]))
    assert [each["score"] for each in found] == [1.25, -1.0, -1.0] and found[0]["latency"] == 5


def test_verifiers_records_metrics_and_reads_graphs():
    record = {
        "nodes": [
            {"message": {"content": "call"}, "sampled": True},
            {
                "message": {"content": "work"},
                "sampled": True,
                "semantic_parents": [{"node": 0, "type": "subagent_call"}],
            },
            {
                "message": {"content": "<ANSWER>9</ANSWER>"},
                "parent": 0,
                "sampled": True,
                "semantic_parents": [{"node": 1, "type": "subagent_return"}],
            },
        ]
    }
    metrics = {}
    trace = SimpleNamespace(
        to_record=lambda: record, last_reply="<ANSWER>9</ANSWER>", info={}, record_metrics=metrics.update
    )
    task = SimpleNamespace(answer="9")
    assert asyncio.run(verifiers.make_reward(SCORER)(trace=trace, task=task)) > 1
    assert metrics["forksim_workers"] == 1.0
    trace.to_record = lambda: {"nodes": "?"}
    assert asyncio.run(verifiers.make_reward(SCORER)(trace=trace, task=task)) == 1.25


# ---------------------------------------------------------------- the judge, the set-up


@pytest.mark.parametrize(
    ("text", "truth", "verdict"),
    [
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}", True),
        (r"\boxed{9", "9", False),
        ("\\boxed{9}\nor 8", "9", False),
        (r"<ANSWER>8</ANSWER> \boxed{9}", "9", False),
        (r"<ANSWER>\boxed{9}</ANSWER>", "9", True),
        ("<ANSWER>9</ANSWER><ANSWER> </ANSWER>", "9", True),
        ("<ANSWER>8</ANSWER><ANSWER>9</ANSWER>", 9, True),
        ("9", "9", False),
        ("<ANSWER>9</ANSWER>", None, None),
    ],
)
def test_exact(text, truth, verdict):
    assert exact(text, truth) is verdict


def test_a_judge_that_raises_has_said_wrong_and_one_that_talks_nonsense_fails_its_row():
    texts = ["<ANSWER>9</ANSWER>"]
    broken = Scorer(protocol=PROTOCOL, judge=lambda text, truth: 1 / 0).score(texts)
    assert broken.accuracy.tolist() == [0.0] and not broken.failed[0]
    odd = Scorer(protocol=PROTOCOL, judge=lambda text, truth: "yes").score(texts)
    assert odd.failed[0] and "an outcome is" in odd.reason[0]


MAKERS = (
    trl.make_reward_func,
    verl.make_compute_score,
    openrlhf.make_reward_func,
    slime.make_custom_rm,
    verifiers.make_reward,
)
each_maker = pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__module__.rpartition(".")[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "capacity"),
        ({"reward": "asyncthnk"}, "did you mean asyncthink"),
        ({"protocol": {"capcity": 2}}, "did you mean capacity"),
        ({"protocol": {"capacity": "two"}}, "capacity"),
        ({"protocol": PROTOCOL, "rewrd": 1}, "did you mean reward"),
        ({"protocol": PROTOCOL, "judge": 3}, "judge must be a function"),
        ({"protocol": PROTOCOL, "ends": "</s>"}, "ends must be"),
        ({"protocol": PROTOCOL, "tokenizer": Tokenizer(), "reader": Reader(tags=TAGS)}, "not both"),
        ({"scorer": SCORER, "reward": "asyncthink"}, "not both"),
    ],
)
@each_maker
def test_a_set_up_that_cannot_work_is_refused_before_training(make, options, message):
    with pytest.raises(ConfigError, match=message):
        make(**options)


def test_columns_must_have_names():
    with pytest.raises(ConfigError, match="workers must be the name of a column"):
        trl.make_reward_func(SCORER, workers=None)


@each_maker
def test_functions_can_be_pickled(make):
    function = make(tokenizer=Tokenizer(), protocol=PROTOCOL)
    assert pickle.loads(pickle.dumps(function)) is not None


# ---------------------------------------------------------------- a row for each thread

THREADS = {
    "organizer": "<FORK-1>q</FORK-1>so<JOIN-1>9</JOIN-1><ANSWER>9</ANSWER>",
    "1": "hm <FORK-1>r</FORK-1><JOIN-1>4</JOIN-1><RETURN>9</RETURN>",
    "1.1": "four <RETURN>4</RETURN>",
}
TOGETHER = Scorer(protocol={"capacity": 4})
WHOLE = TOGETHER.score([THREADS["organizer"]], None, [{k: v for k, v in THREADS.items() if k != "organizer"}], ["9"])


def test_verl_assembles_the_outputs_of_an_agent_loop():
    infos = [{"thread": name, "rollout": "r1"} for name in THREADS] + [{}, {"thread": "1", "rollout": "r2"}]
    texts = [*THREADS.values(), "<ANSWER>9</ANSWER>", "lost"]
    rows = verl.make_compute_score(TOGETHER, batch=True)([None] * 5, texts, ["9"] * 5, infos)
    assert [row["score"] for row in rows[:3]] == [WHOLE.total[0]] * 3 and rows[0]["workers"] == 2
    assert rows[3]["score"] == 1.125 and rows[4]["failed"] == 1
    shared = verl.make_compute_score(TOGETHER, batch=True, share="tokens")([None] * 5, texts, ["9"] * 5, infos)
    assert sum(row["score"] for row in shared[:3]) == pytest.approx(WHOLE.total[0])
    ids = {name: list(text.encode()) for name, text in THREADS.items()}
    scorer = Scorer(protocol={"capacity": 4}, reader=Reader(decode=lambda given: bytes(given).decode()))
    outputs = [
        SimpleNamespace(
            response_ids=each, response_mask=[1] * len(each), extra_fields={"thread": name}, reward_score=None
        )
        for name, each in ids.items()
    ]
    rewards = verl.reward_outputs(outputs, "9", scorer=scorer)
    assert rewards == [output.reward_score for output in outputs] and len(set(rewards)) == 1 and rewards[0] > 1.125
    parts = verl.reward_outputs(outputs, "9", scorer=scorer, share="tokens")
    assert sum(parts) == pytest.approx(rewards[0])
    assert verl.reward_outputs([SimpleNamespace()], "9", scorer=TOGETHER) == [-1.0]
    with pytest.raises(ConfigError, match="share"):
        verl.make_compute_score(TOGETHER, share="token")


def test_verifiers_assembles_an_episode():
    recorded = {}
    traces = [
        SimpleNamespace(
            info={"thread": name},
            last_reply=text,
            record_metrics=lambda metrics, name=name: recorded.setdefault(name, metrics),
        )
        for name, text in THREADS.items()
    ]
    traces.append(SimpleNamespace(info=None, last_reply="<ANSWER>9</ANSWER>"))
    task = SimpleNamespace(answer="9")
    rewards = asyncio.run(verifiers.forksim_episode(traces, task, scorer=TOGETHER))
    assert rewards == [*[WHOLE.total[0]] * 3, 1.125]
    assert recorded["1"]["forksim_workers"] == 2 and recorded["1.1"]["forksim_share"] == WHOLE.total[0]
    parts = asyncio.run(verifiers.forksim_episode(traces, task, scorer=TOGETHER, share="tokens"))
    assert sum(parts[:3]) == pytest.approx(WHOLE.total[0]) and parts[3] == 1.125
    assert asyncio.run(verifiers.forksim_episode([], task, scorer=TOGETHER)) == []
