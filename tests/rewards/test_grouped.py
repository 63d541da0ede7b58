"""Terms within the group of a query, weights over the training, and the same through files and trainers."""

import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import ConfigError, Protocol, Reward, make_reward, score, score_batch
from simulator.integrations import Scorer, openrlhf, slime, trl, verifiers, verl
from simulator.rewards import TERMS, Grouped, Ramp, Term, parse_reward
from simulator.trace import Answer, Fork, Join, Outcome, Return, Think, Thread, Trace

RULES = Protocol(capacity=2)
HOWS = ("correct", "rate", "centred", "standardised")


def rollout(thought, correct, work=10):
    """The organizer thinks beside a worker, and answers: T is the longer of the two, and 1."""
    organizer = Thread("organizer", (Fork(1), Think(thought), Join(1), Answer(1)))
    return Trace("t", (organizer, Thread("1", (Return(work),))), None if correct is None else Outcome(correct=correct))


BROKEN = Trace("b", (Thread("organizer", (Join(7), Answer(1))),), Outcome(correct=True))


def grouped(how, terms=("concurrency",), **changes):
    return make_reward("asyncthink", eta_weight=1.0).with_(grouped=Grouped(terms, how), **changes)


def bonus(batch):
    return batch.terms["concurrency"].round(6).tolist()


# eta/c: thoughts of 10 beside work of 10: (10 + 10 + 1) / 11 / 2; of 4: (4 + 10 + 1) / 11 / 2
FULL, HALF = 21 / 22, 15 / 22


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("correct", [FULL, HALF, 0, FULL, 0, 0]),
        ("rate", [FULL * 2 / 3, HALF * 2 / 3, HALF * 2 / 3, FULL / 2, 0, 0]),
        ("centred", [(FULL - HALF) / 2, (HALF - FULL) / 2, 0, 0, 0, 0]),
        ("standardised", [1, -1, 0, 0, 0, 0]),
    ],
)
def test_by_hand(how, expected):
    """Two queries: of three, two right; of three, one right, one with a format error, and one that cannot be read."""
    rollouts = [rollout(10, True), rollout(4, True), rollout(4, False), rollout(10, True), BROKEN, None]
    if how == "rate":  # a third, as the two others are not right
        expected = [*expected[:3], FULL / 3, 0, 0]
    batch = score_batch(rollouts, reward=grouped(how), protocol=RULES, groups=["a", "a", "a", "b", "b", "b"])
    assert bonus(batch) == pytest.approx(expected, abs=1e-6)
    accuracy = [1, 1, 0, 1, 0, 0]
    error = [0, 0, 0, 0, -1, -1]
    assert batch.total.tolist() == pytest.approx(np.add(np.add(expected, accuracy), error).tolist())
    assert batch.terms["accuracy"].tolist() == accuracy and batch.terms["format_error"].tolist() == error


@pytest.mark.parametrize("how", HOWS)
def test_alone_a_rollout_is_a_group_of_its_own(how):
    for correct in (True, False, None):
        each = rollout(10, correct)
        alone = score(each, RULES, reward=grouped(how))
        batch = score_batch([each], reward=grouped(how), protocol=RULES, groups=[0])
        assert alone.total == batch.total[0] and alone.terms["concurrency"] == batch.terms["concurrency"][0]
    assert score(BROKEN, RULES, reward=grouped(how)).total == -1


@given(
    rows=st.lists(st.tuples(st.floats(-5, 5), st.booleans(), st.integers(0, 3)), min_size=1, max_size=20),
    how=st.sampled_from(HOWS),
    seed=st.randoms(use_true_random=False),
)
def test_laws(rows, how, seed):
    values, right, groups = zip(*rows, strict=True)
    rule = Grouped(("x",), how)
    found = rule.weighed(values, right, groups)
    order = list(range(len(rows)))
    seed.shuffle(order)
    mixed = rule.weighed([values[i] for i in order], [right[i] for i in order], [groups[i] for i in order])
    assert mixed.tolist() == pytest.approx(found[order].tolist(), abs=1e-9)  # the order of rows does not matter
    for name in set(groups):
        mine = [i for i, group in enumerate(groups) if group == name]
        alone = rule.weighed([values[i] for i in mine], [right[i] for i in mine], [0] * len(mine))
        assert alone.tolist() == pytest.approx(found[mine].tolist(), abs=1e-9)  # nor do other groups
        if how in ("centred", "standardised"):
            assert sum(found[mine]) == pytest.approx(0, abs=1e-6)
    if how != "rate":
        assert all(value == 0 for value, is_right in zip(found, right, strict=True) if not is_right)
    assert np.isfinite(found).all()


def test_the_same_with_processes_and_pickled():
    rollouts = [rollout(n % 9, n % 3 > 0) for n in range(90)]
    groups = [n // 10 for n in range(90)]
    reward = pickle.loads(pickle.dumps(grouped("centred")))
    assert reward == grouped("centred")
    one, two = (
        score_batch(rollouts, reward=reward, protocol=RULES, groups=groups, workers=workers) for workers in (1, 2)
    )
    assert one.total.tolist() == two.total.tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: score_batch([], reward=grouped("rate"), protocol=RULES),
            "compares the rollouts of one query: give groups=",
        ),
        (
            lambda: score_batch(["x"], reward=grouped("rate"), protocol=RULES, groups=[]),
            "there are 0 groups for 1 rollouts",
        ),
        (lambda: Grouped("concurrency"), "terms must be a list of names"),
        (lambda: Grouped([]), "terms must be a list of names"),
        (lambda: Grouped(["x"], "rates"), "no way to group .how. is called 'rates'; did you mean rate"),
        (lambda: grouped("rate", ("concurency",)), "no term to group is called 'concurency'; did you mean concurrency"),
        (lambda: make_reward("asyncthink").with_(grouped="rate"), "grouped must be a Grouped or None"),
        (lambda: Ramp(finish=-1), "finish must be a whole number from 0"),
        (lambda: Ramp(begin=9, finish=3), "must not finish before it begins"),
        (lambda: Ramp(start=math.inf, finish=3), "start must be a finite number"),
        (lambda: make_reward("asyncthink").ramped(x=Ramp(finish=3)), "no term to ramp is called 'x'"),
        (
            lambda: make_reward("kimi_parl", anneal_steps=3).ramped(finish=Ramp(finish=3)),
            "changes with the step already",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


# ---------------------------------------------------------------- over the training


def test_ramps():
    reward = make_reward("asyncthink", eta_weight=1.0).ramped(concurrency=Ramp(start=0.5, end=0.0, begin=10, finish=20))
    each = rollout(10, True)
    plain = score(each, RULES, reward=reward).terms["concurrency"]
    assert plain == pytest.approx(FULL)  # without a step, as it was
    for step, weight in ((0, 0.5), (10, 0.5), (15, 0.25), (20, 0), (10**6, 0)):
        now = pickle.loads(pickle.dumps(reward.at(step)))
        assert score(each, RULES, reward=now).terms["concurrency"] == pytest.approx(weight * FULL)
        assert score(each, RULES, reward=now.at(15)).terms["concurrency"] == pytest.approx(0.25 * FULL)
    assert [Ramp(finish=0).at(step) for step in (0, 1)] == [1.0, 1.0]


FILE = """
reward = "asyncthink"
protocol = {capacity = 2}
[group]
terms = ["concurrency"]
how = "rate"
[ramps.concurrency]
finish = 100
"""


def test_files_say_both():
    reward = parse_reward(FILE)
    assert reward.grouped == Grouped(("concurrency",), "rate")
    batch = score_batch([rollout(10, True), rollout(10, False)], reward=reward.at(50), groups=["q", "q"])
    assert bonus(batch) == pytest.approx([0.5 * 0.5 * 0.5 * FULL] * 2, abs=1e-6)
    for text, message in (
        ("[group]\nhow = 'rate'", r"\[group\] says which terms count within a group"),
        ("[group]\nterms = 'x'", r"\[group\] says which terms"),
        ("[group]\nterms = ['x']", "no term to group is called 'x'"),
        ("[group]\nterm = ['x']", r"no key of \[group\] is called 'term'; did you mean terms"),
        ("[ramps.concurrency]\nstart = 1", "says at which step it is over"),
        ("[ramps.concurrency]\nfinish = 'x'", "finish must be a whole number"),
        ("[ramps.x]\nfinish = 1", "no term to ramp is called 'x'"),
        ("ramps = 3", "ramps must be a table"),
        ("[ramps]\nconcurrency = 3", "concurrency must be a table"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_reward(f'reward = "asyncthink"\n{text}')


# ---------------------------------------------------------------- in trainers

SAID = "<FORK-1>q</FORK-1>hm and hm<JOIN-1>9</JOIN-1><ANSWER>{}</ANSWER>"
WORKERS = {"1": "so and so <RETURN>9</RETURN>"}
TEXTS = [SAID.format(9), SAID.format(8), SAID.format(9), SAID.format(9)]
PROMPTS = ["a", "a", "b", "b"]
SCORER = Scorer(reward=grouped("rate"), protocol=RULES)
TOTALS = SCORER.score(TEXTS, None, [WORKERS] * 4, ["9"] * 4, groups=PROMPTS).total.tolist()


def test_every_trainer_that_has_groups_hands_them_over():
    assert TOTALS[0] == pytest.approx(1 + (TOTALS[2] - 1) / 2) and TOTALS[1] == pytest.approx((TOTALS[2] - 1) / 2)
    messages = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    for prompts in (PROMPTS, messages):
        given = {"completions": TEXTS, "workers": [WORKERS] * 4, "answer": ["9"] * 4}
        assert trl.make_reward_func(SCORER)(prompts=prompts, **given) == TOTALS
    infos = [{"workers": WORKERS, "uid": prompt} for prompt in PROMPTS]
    rows = verl.make_compute_score(SCORER, batch=True)([None] * 4, TEXTS, ["9"] * 4, infos)
    assert [row["score"] for row in rows] == TOTALS
    for info in infos:
        info["index"] = info.pop("uid")
    rows = verl.make_compute_score(SCORER, batch=True)([None] * 4, TEXTS, ["9"] * 4, infos)
    assert [row["score"] for row in rows] == TOTALS
    found = openrlhf.reward_func(TEXTS, PROMPTS, ["9"] * 4, workers=[WORKERS] * 4, scorer=SCORER)
    assert found["rewards"] == TOTALS
    samples = [
        SimpleNamespace(response=text, label="9", metadata={"workers": WORKERS}, group_index=PROMPTS[i])
        for i, text in enumerate(TEXTS)
    ]
    import asyncio

    assert asyncio.run(slime.make_custom_rm(SCORER)(None, samples)) == TOTALS


def test_a_trainer_that_hands_over_one_at_a_time_is_told():
    import asyncio

    with pytest.raises(ConfigError, match="batch=True, and verl's batch manager"):
        verl.make_compute_score(SCORER)
    with pytest.raises(ConfigError, match="verl's manager must be the one for batches"):
        verl.compute_score(solution_str="x", scorer=SCORER)
    with pytest.raises(ConfigError, match="give groups="):
        verl.make_compute_score(SCORER, batch=True)([None], ["x"], ["9"], [{}])
    with pytest.raises(ConfigError, match="run slime with --group-rm"):
        asyncio.run(slime.make_custom_rm(SCORER)(None, SimpleNamespace(response="x", label="9", metadata={})))
    with pytest.raises(ConfigError, match="OpenRLHF passes one at a time"):
        openrlhf.make_reward_func(SCORER)
    with pytest.raises(ConfigError, match="a task scores one trace at a time"):
        verifiers.make_reward(SCORER)
    with pytest.raises(ConfigError, match="an episode is one of them"):
        asyncio.run(verifiers.forksim_episode([], scorer=SCORER))
    with pytest.raises(ConfigError, match="an agent loop sees one of them"):
        verl.reward_outputs([], "9", scorer=SCORER)


def test_a_grouped_reward_is_audited_as_if_each_rollout_were_alone():
    from simulator.audit import Judge, search

    judge = Judge(reward=grouped("correct"), protocol=Protocol(capacity=4), gpu="h100-qwen3-8b")
    (found,) = search(judge, ["late_forks"], budget=40)
    assert found.found and found.pair.a.accuracy == 1.0  # a wrong answer has no bonus to earn


def test_terms_of_ones_own_can_be_grouped_and_ramped():
    reward = Reward(
        terms={"accuracy": Term(TERMS["accuracy"]), "own": lambda each: 2.0},
        gate=None,
        grouped=Grouped(("own",), "correct"),
    ).ramped(own=Ramp(finish=10))
    batch = score_batch([rollout(1, True), rollout(1, False)], reward=reward.at(5), groups=[1, 1])
    assert batch.total.tolist() == [2.0, 0.0]


def test_the_command_that_scores_traces_alone_says_so(tmp_path, capsys):
    from simulator.cli import _run

    file = tmp_path / "grouped.toml"
    file.write_text(FILE, encoding="utf-8")
    assert _run(["score", "-", "--reward", str(file)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "compares the rollouts of one query" in told
