"""The search for exploits: it finds what is there, nothing where nothing can be, and the same each time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

import simulator.audit.adversary as adversary
from simulator import ConfigError, Protocol, Reward, compile_trace, decode_clock, make_reward, simulate
from simulator.audit import EXPLOITS, Judge, audit, search
from simulator.machine.profiles import load_profile
from simulator.rewards import REWARDS, TERMS, Gate, Rollout, Term
from simulator.trace import ViolationKind

ROOT = Path(__file__).parents[2]
GPU_NAME = "h100-qwen3-8b"
OTHER_ERRORS = frozenset({ViolationKind.DUPLICATE_INDEX, ViolationKind.UNKNOWN_JOIN, ViolationKind.MISSING_ANSWER})


def uncapped_eta(rollout):
    return 0.5 * rollout.eta


def seconds_only(**options):
    """Correctness minus simulated time, with no gate to hide behind: whoever is worse in truth earns less."""
    price = Term(TERMS["wallclock"], {"only_if_correct": False, "gpu": GPU_NAME, **options})
    return Reward(terms={"accuracy": Term(TERMS["accuracy"]), "wallclock": price}, gate=None)


UNCAPPED = Reward(terms={"accuracy": Term(TERMS["accuracy"]), "eta": uncapped_eta})
NO_OVERFLOW = make_reward("asyncthink").with_(gate=Gate(kinds=OTHER_ERRORS))
NO_CLIP = make_reward("threadweaver", clip=None)


def asked(reward, capacity=4, **options):
    return Judge(reward=reward, protocol=Protocol(capacity=capacity), gpu=GPU_NAME, **options)


def is_worse_in_truth(pair, judge, any_time=False):
    """Work it out again, without the audit: what both earn, who is right, T, and the simulated seconds."""
    gpu = load_profile(GPU_NAME)
    a, b = pair.a.trace, pair.b.trace
    earns = [judge.reward.score(Rollout(trace, judge.protocol)).total for trace in (a, b)]
    steps = [decode_clock(trace, judge.protocol).latency for trace in (a, b)]
    seconds = [
        float(simulate(compile_trace(trace, judge.protocol), gpu=gpu, on_deadlock="record").latency[0])
        for trace in (a, b)
    ]
    assert earns[0] >= earns[1] + judge.gain and earns == [pair.a.score.total, pair.b.score.total]
    assert a.outcome.accuracy <= b.outcome.accuracy
    assert seconds == [pair.a.seconds, pair.b.seconds]
    if any_time and a.outcome.accuracy < b.outcome.accuracy:
        return True
    assert steps[0] > steps[1]
    assert seconds[0] >= judge.slower * seconds[1]
    return True


# ---------------------------------------------------------------- it finds what is there

KNOWN = {
    "uncapped eta": (UNCAPPED, 4, "free", 4, 2),
    "leverage": (make_reward("leverage"), 4, "free", 8, 2),
    "ThreadWeaver without its clip": (NO_CLIP, 4, "free", 8, 2),
    "AsyncThink, overflow not penalised": (NO_OVERFLOW, 2, "overflow", 7, 4),
}


@pytest.mark.parametrize("case", KNOWN)
def test_known_holes_are_found_and_shrunk(case):
    reward, capacity, exploit, most_of_a, most_of_b = KNOWN[case]
    judge = asked(reward, capacity)
    (found,) = search(judge, [exploit], budget=120)
    assert is_worse_in_truth(found.pair, judge)
    assert found.pair.a.actions <= most_of_a and found.pair.b.actions <= most_of_b
    assert 0 < found.found <= found.tried == 120 and found.largest_gain >= found.pair.gain
    assert found.reason.startswith(f"A earns {found.pair.gain:.3f}"[:12])


def test_overflow_pays_only_where_it_is_not_penalised():
    (free,) = search(asked(NO_OVERFLOW, 2), ["overflow"], budget=40)
    (fined,) = search(asked(make_reward("asyncthink"), 2), ["overflow"], budget=40)
    kinds = {violation.kind for violation in free.pair.a.score.violations}
    assert kinds == {ViolationKind.POOL_OVERFLOW} and free.found == free.tried
    assert fined.pair is None and fined.found == 0 and fined.reason == ""


def test_a_cap_bounds_what_padding_can_earn():
    """What tau is for: without it, more agents always earn more."""
    bounds = []
    for reward in (UNCAPPED, make_reward("asyncthink", eta_threshold=0.3)):
        bounds.append(search(asked(reward), ["full_pool"], budget=60)[0].largest_gain)
    # One agent alone has a quarter of the pool; up to a tau of 0.3 that is all but a sixth of what there is to earn.
    assert bounds[1] <= 0.5 * (1 - 0.25 / 0.3) + 1e-9 < bounds[0]


def test_clip_bounds_what_a_thread_ratio_can_earn():
    (clipped,) = search(asked(make_reward("threadweaver")), ["padding"], budget=120)
    (free,) = search(asked(NO_CLIP), ["padding"], budget=120)
    assert clipped.largest_gain <= 0.5 * 0.2 + 1e-9 < free.largest_gain


@pytest.mark.slow
def test_a_price_for_time_behind_correctness_is_gamed_by_being_wrong():
    judge = asked(make_reward("wallclock", gpu=GPU_NAME))
    (found,) = search(judge, ["giving_up"], budget=120)
    assert is_worse_in_truth(found.pair, judge)
    assert (found.pair.a.accuracy, found.pair.b.accuracy) == (0.0, 1.0)
    assert "wallclock goes by correctness" in found.reason


# ---------------------------------------------------------------- and nothing where nothing can be


def test_a_price_for_time_cannot_be_gamed():
    found = search(asked(seconds_only()), budget=25)
    assert [each.exploit for each in found] == list(EXPLOITS)
    assert [each.tried for each in found] == [125 if each.exploit == "guided" else 25 for each in found]
    assert [each.exploit for each in found if each.found or each.pair] == ["wrong_first"]


def test_a_price_without_bound_is_worth_more_than_being_right():
    """R_A - 0.001 T: a quick wrong answer earns -0.015 and a slow right one -1.005."""
    terms = {"accuracy": Term(TERMS["accuracy"]), "latency": Term(TERMS["latency"])}
    unbounded = asked(Reward(terms=terms, gate=None))
    (found,) = search(unbounded, ["wrong_first"], budget=100)
    assert found.pair.a.accuracy == 0.0 and found.pair.b.accuracy == 1.0 and found.pair.gain > 0
    assert found.pair.slowdown < 1
    assert not search(unbounded, ["giving_up"], budget=100)[0].found
    for name in ("asyncthink", "threadweaver", "parallel_r1", "kimi_parl"):
        assert not search(asked(make_reward(name)), ["wrong_first"], budget=100)[0].found


def test_a_price_for_steps_cannot_be_gamed_by_what_is_slower_in_steps_too():
    terms = {"accuracy": Term(TERMS["accuracy"]), "latency": Term(TERMS["latency"])}
    found = search(asked(Reward(terms=terms, gate=None)), budget=25)
    assert [each.exploit for each in found if each.pair] == ["wrong_first"]


@pytest.mark.slow
def test_steps_are_not_seconds():
    """The pool delays nobody on the decode-step clock: with the machine alone to judge, T can be gamed by overflow."""
    terms = {"accuracy": Term(TERMS["accuracy"]), "latency": Term(TERMS["latency"])}
    judge = asked(Reward(terms=terms, gate=None), 2, clocks="seconds")
    (crowd,) = search(judge, ["free"], budget=600)
    assert crowd.pair.a.score.latency < crowd.pair.b.score.latency
    assert crowd.pair.a.seconds > 1.1 * crowd.pair.b.seconds


def test_correctness_alone_cannot_be_gamed():
    assert not any(each.pair for each in search(asked(Reward(terms={"a": Term(TERMS["accuracy"])})), budget=25))


# ---------------------------------------------------------------- the same each time


def test_a_seed_says_it_all():
    judge = asked(make_reward("asyncthink"))
    first, again, other = (search(judge, ["late_forks", "free"], budget=60, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert [each.found for each in first] != [each.found for each in other]


def test_settings_of_the_caller_change_nothing():
    judge = asked(make_reward("asyncthink"))
    before = search(judge, ["free"], budget=60)
    loaded = "ci" if os.environ.get("CI") else "here"
    hypothesis.settings.register_profile("odd", max_examples=1, phases=(), derandomize=True)
    hypothesis.settings.load_profile("odd")
    try:
        assert search(judge, ["free"], budget=60) == before
    finally:
        hypothesis.settings.load_profile(loaded)


def test_hash_seeds_change_nothing_and_no_folder_is_left(tmp_path):
    command = [sys.executable, "-m", "simulator", "audit", "leverage", "--json", "--budget", "20"]
    command += ["--exploits", "staggered"]
    printed = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True, timeout=120)
        printed.append(result.stdout)
    assert printed[0] == printed[1] and json.loads(printed[0].splitlines()[1])["found"] > 0
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- hostile


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"exploits": ["padng"]}, "no exploit is called 'padng'; did you mean padding?"),
        ({"exploits": "free"}, "exploits must be a list of names, got 'free'"),
        ({"budget": 0}, "budget must be a whole number from 1 to 1,000,000, got 0"),
        ({"budget": True}, "budget must be a whole number"),
        ({"budget": 10**7}, "budget must be a whole number"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"seed": 0.5}, "seed must be a whole number from 0"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(options, said):
    judge = asked(make_reward("leverage"))
    for verb in (search, lambda judge, **given: audit(judge, **given)):
        with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
            verb(judge, **options)


def test_without_hypothesis_there_is_a_corpus_and_no_search(monkeypatch):
    monkeypatch.setattr(adversary.importlib.util, "find_spec", lambda name: None)
    judge = asked(make_reward("leverage"))
    with pytest.raises(ConfigError, match=r"needs hypothesis: pip install 'forksim\[audit\]'"):
        search(judge)
    assert audit(judge, exploits=[]).corpus.traces == 256


def test_a_reward_that_fails_on_some_rollouts_is_audited_all_the_same():
    def fragile(rollout):
        if rollout.clock.workers == 1:
            raise ZeroDivisionError
        return float(rollout.clock.workers)

    (found,) = search(asked(Reward(terms={"fragile": fragile})), ["padding"], budget=60)
    assert found.pair.a.score.terms["fragile"] >= 2


# ---------------------------------------------------------------- the library

OPEN = {
    "asyncthink": {"padding", "copies", "chatter", "long_workers", "late_forks", "unjoined", "full_pool", "free"},
    "threadweaver": {"padding", "copies", "late_forks", "unjoined", "full_pool", "overflow", "free", "guided"},
    "parallel_r1": {"padding", "copies", "late_forks", "unjoined", "full_pool", "overflow", "free", "guided"},
    "kimi_parl": {"padding", "copies", "late_forks", "unjoined", "full_pool", "overflow", "free", "guided"},
    "lamas": set(),
    "wallclock": {"giving_up", "wrong_first", "overflow", "guided"},
    "leverage": {"staggered", "free", "guided"},
}
"""What each reward of the library is open to, at least (docs/training.md)."""

CLOSED = {
    "asyncthink": {"wrong_first", "staggered", "overflow", "giving_up"},
    "threadweaver": {"wrong_first", "staggered", "chatter", "fork_text", "giving_up"},
    "parallel_r1": {"wrong_first", "staggered", "chatter", "fork_text", "giving_up"},
    "kimi_parl": {"wrong_first", "staggered", "chatter", "long_workers", "fork_text", "giving_up"},
    "lamas": set(EXPLOITS),
    "wallclock": set(EXPLOITS) - {"giving_up", "wrong_first", "overflow", "free", "guided"},
    "leverage": set(EXPLOITS) - {"staggered", "free", "guided"},
}
"""What it was never found open to."""


def test_every_reward_of_the_library_is_audited():
    assert OPEN.keys() == CLOSED.keys() == REWARDS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", REWARDS)
def test_holes_of_the_library(name):
    judge = asked(make_reward(name, **({"gpu": GPU_NAME} if name == "wallclock" else {})))
    found = audit(judge, budget=300)
    assert found.pairs.keys() >= OPEN[name] and not found.pairs.keys() & CLOSED[name]
    for exploit, pair in found.pairs.items():
        assert is_worse_in_truth(pair, judge, EXPLOITS[exploit].any_time)
        assert pair.a.actions + pair.b.actions <= (
            60 if EXPLOITS[exploit].guided else 30
        )  # Delays have no shorter form
    assert all(each.reason.startswith("A earns") and each.reason.endswith(".") for each in found.searches if each.pair)


@pytest.mark.slow
def test_no_hole_in_the_price_of_time_with_a_large_budget():
    assert list(audit(asked(seconds_only()), budget=1500).pairs) == ["wrong_first"]
