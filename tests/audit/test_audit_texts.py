"""The search among texts: every forgery is found in a reward that it was made for, and none where there is none."""

import json
import math
import re
import sys
from pathlib import Path
from random import Random

import pytest

from simulator import ConfigError, Protocol, make_reward
from simulator.audit import FORGERIES, Written, load_own, search_texts, text_reward
from simulator.audit.exploits import Tosses
from simulator.cli.forging import of_texts
from simulator.formats import parse
from simulator.integrations import Scorer
from simulator.integrations import openrlhf as in_openrlhf
from simulator.integrations import trl as in_trl
from simulator.integrations import verl as in_verl
from simulator.rewards import REWARDS

SOUND = [name for name in REWARDS if make_reward(name).format in (None, "asyncthink")]


def words(text):
    return len(text.split())


def priced(count, right=lambda text: "9</ANSWER>" in text):
    """A reward for right answers, less a price for what `count` counts."""
    return lambda each: right(each.text) - count(each.text) / 20_000


def without(pattern, count=words):
    return lambda text: count(re.sub(pattern, "", text, flags=re.DOTALL))


BROKEN = {  # each is blind to one thing
    "join_text": priced(without(r"<JOIN-(\d+)>.*?</JOIN-\1>")),
    "join_more": priced(without(r"<JOIN-(\d+)>part.*?</JOIN-\1>")),
    "join_return": priced(without(r"<JOIN-(\d+)>[^<]*<RETURN>.*?</JOIN-\1>")),
    "join_again": priced(without(r"(?<=</JOIN-1>)<JOIN-1>.*?</JOIN-1>")),
    "join_stranger": priced(without(r"<JOIN-77>.*?</JOIN-77>")),
    "join_often": lambda each: 0.1 * each.text.count("<JOIN-"),
    "section": priced(without(r"<WORKER-77>.*?</WORKER-77>")),
    "worker_section": priced(without(r"<WORKER-1>.*?</WORKER-1>")),
    "own_workers": lambda each: 0.1 * (bool(each.workers) or "<WORKER-1>" in each.text),
    "empty_answer": priced(lambda text: words(text.split("<ANSWER></ANSWER>")[0])),
    "early_answer": priced(lambda text: words(text.split("</ANSWER>")[0])),
    "late_thought": priced(lambda text: words(text.split("</ANSWER>")[0])),
    "end_of_turn": priced(lambda text: words(text.split("<|im_end|>")[0])),
    "hedge": priced(lambda text: words(text.split("<ANSWER>7")[0].split("</ANSWER>")[0])),
    "open_box": lambda each: 1.0 if "\\boxed{" in each.text else -1.0,
    "early_box": priced(words, right=lambda text: "\\boxed{9}" in text),
    "record": lambda each: 1.0 if each.text.startswith("{") else -1.0,
    "paths": lambda each: parse(each.text, format="parallel_r1").organizer.tokens / -1000,
    "threads": lambda each: parse(each.text, format="threadweaver").organizer.tokens / -1000,
}


def test_there_is_a_broken_reward_for_each_forgery():
    assert list(BROKEN) == list(FORGERIES)


@pytest.mark.parametrize("name", FORGERIES)
def test_each_forgery_is_found(name):
    [found] = search_texts(BROKEN[name], [name], budget=60)
    assert found.found and found.pair is not None and found.tried == 60
    a, b = found.earns
    assert (a, b) == tuple(map(BROKEN[name], found.pair)) and a - b >= 0.01
    assert found.largest_gain >= a - b


@pytest.mark.parametrize("name", SOUND)
def test_none_is_found_in_the_rewards_of_the_library(name):
    found = search_texts(of_texts(make_reward(name), Protocol(capacity=4)), budget=20)
    assert [each.forgery for each in found if each.found or each.raised] == []
    assert all(each.pair is None and math.isnan(each.earns[0]) for each in found)


def test_what_is_priced_in_full_cannot_be_forged():
    """All words of the text and of the workers, and a right answer only if it is the last and not alone in its box."""
    right = re.compile(r".*<ANSWER>9</ANSWER>[^<]*", re.DOTALL)
    sound = priced(words, right=lambda text: bool(right.fullmatch(text)))
    assert not any(each.found for each in search_texts(sound, budget=40))


@pytest.mark.parametrize("name", FORGERIES)
def test_a_and_b_hold_the_same_thoughts(name):
    """Or a difference in their price would say nothing."""
    for seed in range(20):
        chance = Random(seed)
        a, b = FORGERIES[name].draw(Tosses(lambda: chance.random() < 0.5))  # noqa: B023
        thoughts = [
            each.text.count("and so on") + sum(w.count("and so on") for w in each.workers.values()) for each in (a, b)
        ]
        if name != "record":  # the twin of a record is as long
            assert thoughts[0] == thoughts[1]
        assert len(a.text) >= 0.9 * len(b.text)


def test_a_seed_says_it_all():
    first, again, other = (search_texts(BROKEN["join_text"], ["join_text"], budget=20, seed=s) for s in (1, 1, 2))
    assert first == again != other


def test_what_raises_shows_nothing_and_is_told():
    def fragile(each):
        if "<WORKER" in each.text:
            raise ValueError("a section\nwhere none was\x00")
        return math.nan if "\\boxed" in each.text else 0.0

    found = {each.forgery: each for each in search_texts(fragile, budget=5)}
    assert (found["section"].tried, found["section"].found) == (0, 0)
    assert found["section"].raised.startswith("ValueError: a section where none was")
    assert found["early_box"].tried == 0 and not found["early_box"].raised
    assert found["join_text"].tried == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forgeries": ["x"]}, "no forgery is called 'x'"),
        ({"budget": 0}, "budget must be a whole number from 1 to 1,000,000"),
        ({"gain": 0}, "gain must be a number above 0"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        search_texts(len, **options)


# ---------------------------------------------------------------- functions in Python

GIVEN = Written("so <FORK-1>q</FORK-1><JOIN-1>9</JOIN-1><ANSWER>9</ANSWER>", {"1": "hm <RETURN>9</RETURN>"})
OPTIONS = {"protocol": {"capacity": 2}}
EARNED = Scorer(**OPTIONS).score([GIVEN.text], None, [GIVEN.workers], ["9"]).total[0]


@pytest.mark.parametrize(
    "function",
    [
        in_trl.make_reward_func(**OPTIONS),
        in_verl.make_compute_score(**OPTIONS),
        in_openrlhf.make_reward_func(**OPTIONS),
        lambda text, workers, truth: Scorer(**OPTIONS).score([text], None, [workers], [truth]).total[0],
        lambda *given: Scorer(**OPTIONS).score([given[0]], None, [given[1]], [given[2]]).total,
        lambda text: {"score": EARNED, "other": 1},
    ],
    ids=["trl", "verl", "openrlhf", "three", "any", "one"],
)
def test_a_function_is_called_as_its_trainer_calls_it(function):
    assert text_reward(function)(GIVEN) == EARNED


def test_what_is_no_number_is_refused():
    for value in (None, "x", [], [1, 2], {"other": 1}):
        with pytest.raises(ConfigError, match="the reward returned no number"):
            text_reward(lambda text: value)(GIVEN)  # noqa: B023
    with pytest.raises(ConfigError, match="a reward must be a function"):
        text_reward(7)


OWN = """
from dataclasses import dataclass
from simulator import make_reward
from simulator.integrations import Scorer
@dataclass
class Options:
    price: float = 1e-4
def naive(text, workers, truth):
    return (truth + "</ANSWER>" in text) - Options().price * len(text.split("</ANSWER>")[0])
spec = make_reward("kimi_parl")
scorer = Scorer(protocol={"capacity": 4})
number = 7
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("own_rewards.py").write_text(OWN)
    Path("broken_rewards.py").write_text("1 / 0")
    yield tmp_path
    for name in ("own_rewards", "broken_rewards"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["own_rewards:naive", "own_rewards.py:naive", "./own_rewards.py:naive"])
def test_what_is_ones_own_is_imported(here, name):
    assert load_own(name)("so <ANSWER>9</ANSWER>", {}, "9") == 1 - 1e-4 * 12


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_rewards:x", "'own_rewards' has no 'x'"),
        ("nowhere:x", "'nowhere' cannot be imported"),
        ("nowhere.py:x", "'nowhere.py' cannot be imported"),
        ("broken_rewards:x", "ZeroDivisionError"),
        ("broken_rewards.py:x", "ZeroDivisionError"),
    ],
)
def test_what_cannot_be_imported_is_told_in_one_line(here, name, message):
    with pytest.raises(ConfigError, match=message) as raised:
        load_own(name)
    assert "\n" not in str(raised.value)


def test_the_command(here, capsys):
    from simulator.cli import _run

    assert _run(["audit", "own_rewards.py:naive", "--budget", "30"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"late_thought: thinks after its answer +\d+ of 30 ", out)
    assert "late_thought: <FORK-1>part 1?</FORK-1>" in out and re.search(r"open to \d+ of 19 forgeries", out)
    assert _run(["audit", "own_rewards:naive", "--budget", "30", "--fail"]) == 1
    capsys.readouterr()
    assert _run(["audit", "own_rewards:scorer", "--budget", "3"]) == 0
    assert "no forgery found in 57 pairs of texts, 19 kinds" in capsys.readouterr().out
    assert _run(["audit", "own_rewards:scorer", "--budget", "3", "--exploits", "staggered,record", "--fail"]) == 0
    assert "none found in 3 pairs of rollouts, 1 kind" in capsys.readouterr().out
    assert _run(["audit", "own_rewards:spec", "--budget", "3", "--exploits", "late_forks,record", "--fail"]) == 1
    out = capsys.readouterr().out
    assert "open to 1 of 1 exploits" in out and "no forgery found in 3 pairs of texts, 1 kind" in out
    assert _run(["audit", "own_rewards:naive", "--json", "--exploits", "late_thought,record", "--budget", "9"]) == 0
    corpus, first, second, summary = capsys.readouterr().out.splitlines()
    assert corpus.startswith('{"corpus":{"traces":256,')
    assert '"forgery":"late_thought","tried":9,"found":' in first and '"gain"' in first
    assert second == '{"forgery":"record","tried":9,"found":0}'
    assert '"searched":2,"open":1' in summary
    for arguments, message in (
        (["own_rewards:number"], "a reward is a function of a text"),
        (["own_rewards:Options"], "a reward is a function of a text"),
        (["own_rewards:naive", "x.jsonl"], "is a function of texts, and a TRACE is none"),
        (["own_rewards:naive", "--exploits", "nothing"], "--exploits takes all, none"),
    ):
        assert _run(["audit", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_a_function_of_a_text_is_held_against_rollouts_too(here, capsys, monkeypatch):
    from simulator.cli import _run

    arguments = ["own_rewards:naive", "--exploits", "copies,guided", "--budget", "30", "--json", "-o", "found"]
    assert _run(["audit", *arguments]) == 0
    _, copies, guided, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert copies["found"] > 0 and guided["tried"] == 150 and guided["largest_gain"] > 0.1
    assert guided["reason"].startswith("A earns ") and summary["summary"]["open"] == 2
    assert sorted(path.name for path in Path("found").iterdir()) == [
        "audit.jsonl",
        "copies.png",
        "guided.png",
        "pairs.jsonl",
    ]
