"""What would lose data in silence is told: by a warning where training goes on, by an error where it cannot."""

import re

import pytest

from simulator import (
    ConfigError,
    Outcome,
    Protocol,
    Reward,
    TraceError,
    check,
    compile_trace,
    parse,
    read,
    score,
)
from simulator.integrations import verl
from simulator.integrations.scorer import Scorer, scorer_of
from simulator.integrations.trl import make_reward_func
from simulator.rewards import Term, load_reward

TEXT = "so <ANSWER>15</ANSWER>"
RULES = Protocol(capacity=4)


def nothing(rollout):
    return None


def fails(rollout):
    raise ValueError("oh")


def test_a_judge_that_raises_is_told():
    scorer = Scorer(protocol=RULES, judge=lambda answer, truth: float(answer) == float(truth))
    with pytest.warns(UserWarning, match="the judge raised ValueError: such answers count as wrong"):
        batch = scorer.score([TEXT], truths=["15"])
    assert batch.accuracy.tolist() == [0.0] and not batch.failed.any()


@pytest.mark.parametrize(
    ("term", "reason"),
    [
        (nothing, "term 'mine' returned None (NoneType); a term returns a number"),
        (fails, "ValueError: oh (raised by term 'mine')"),
    ],
)
def test_a_term_that_fails_later_is_told_with_its_name(term, reason):
    seen = []

    def mine(rollout):  # as the check of a reward does not meet it
        seen.append(rollout)
        return 1.0 if rollout.trace.id == "probe" else term(rollout)

    scorer = Scorer(reward=Reward(terms={"mine": mine}), protocol=RULES)
    with pytest.warns(UserWarning, match="some rollouts could not be scored, and earn what a format error does: "):
        batch = scorer.score([TEXT], truths=["15"])
    assert batch.reason == (reason,) and batch.failed.tolist() == [True]


def test_a_column_that_is_not_there_is_told():
    reward = make_reward_func(protocol=RULES)
    with pytest.warns(UserWarning, match=r"no column 'answer' \(it has solution\).* truth=\.\.\. names another"):
        assert reward(prompts=["?"], completions=[TEXT], solution=["15"]) == [0.125]


def test_a_key_of_verl_that_is_misspelt_is_refused():
    with pytest.raises(ConfigError, match=r"no key of reward_kwargs is called 'rewrd'; did you mean reward\?"):
        verl.compute_score("d", TEXT, "15", {}, rewrd="wallclock", protocol={"capacity": 4})
    assert verl.compute_score("d", TEXT, "15", {}, protocol={"capacity": 4}, sandbox_fusion_url="x")["score"] > 1


def test_a_reward_in_the_place_of_a_scorer():
    with pytest.raises(ConfigError, match=r"this takes a Scorer, or its options: write reward=\.\.\."):
        scorer_of(load_reward("asyncthink"), {})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load_reward(nothing), "a function is a term: Reward(terms={'mine': function})"),
        (lambda: load_reward(7), "reward must be a Reward, a name or a file; got 7"),
        (lambda: load_reward("my.py:reward"), "my.py"),
        (lambda: score(parse(TEXT), 4), "protocol must be a Protocol, such as Protocol(capacity=4); got 4"),
        (lambda: score(parse(TEXT), RULES, reward=Reward(terms={"mine": nothing})), "term 'mine' returned None"),
        (lambda: score(parse(TEXT), RULES, reward=Reward(terms={"m": lambda r: "15"})), "returned '15' (str)"),
        (lambda: Term("accuracy"), "a term's function must be a function, such as TERMS['accuracy']"),
        (lambda: Outcome(correct="no"), "correct must be True, False or None; got 'no'"),
        (lambda: Outcome(correct=0.5), "correct must be True, False or None; got 0.5"),
        (lambda: parse(TEXT, outcome=True), "outcome must be an Outcome, such as Outcome(correct=True); got True"),
        (lambda: compile_trace(next(iter(read("nowhere.txt")))), "nowhere.txt: cannot be read (No such file"),
    ],
)
def test_slips_of_a_first_hour_with_rewards(call, message):
    with pytest.raises((ConfigError, TraceError), match=re.escape(message)):
        call()


def test_a_reward_of_a_file_is_named_as_in_the_audit(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from simulator import Reward\nfrom simulator.rewards import TERMS\n"
        "reward = Reward(terms={'a': TERMS['accuracy']})\n"
    )
    reward = load_reward(f"{tmp_path}/mine.py:reward")
    assert reward.names == ("format_error", "a") and load_reward(reward) is reward
    assert Scorer(reward=f"{tmp_path}/mine.py:reward").score([TEXT], truths=["15"]).total.tolist() == [1.0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<JION-1>", "<JION-1> is no tag, and is read as text; did you mean <JOIN-1>?"),
        ("<ANWSER>15</ANWSER>", "<ANWSER> is no tag, and is read as text; did you mean <ANSWER>?"),
        ("<FORK 2>q", "<FORK 2> is no tag, and is read as text; did you mean <FORK-2>?"),
        ("<FORK-1.2>q", "<FORK-1.2> is no tag, and is read as text; did you mean <FORK-2>?"),
        ("<html> <HTML> a < b <B> <FOO-1>", None),
        ("x" * 10 + "<" * 1000, None),
    ],
)
def test_tags_that_are_misspelt_are_named(text, said):
    found = [each.message for each in check(parse(text)) if each.kind.value == "unknown_tags"]
    assert found == ([said] if said else [])


def test_terms_may_be_whole_numbers_and_numpys():
    import numpy as np

    for value in (1, True, np.float32(1), np.int64(1)):
        assert score(parse(TEXT), RULES, reward=Reward(terms={"m": lambda r, value=value: value})).total == 1.0
