"""The parts of an audit, held to answers by hand: the judge, the figures of a corpus, advantages, ranks, reasons."""

import math
from fractions import Fraction

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import (
    GPU,
    Answer,
    ConfigError,
    Fork,
    Join,
    LinearBatch,
    Outcome,
    Protocol,
    Return,
    Reward,
    Think,
    Thread,
    Trace,
    make_reward,
)
from simulator.audit import EXPLOITS, Judge, Pair, advantages, audit_corpus, rank_correlation, synthetic
from simulator.audit.exploits import Draft, Tosses
from simulator.audit.groups import weigh_groups
from simulator.audit.reasons import FACTS, Sample, explain, facts
from simulator.rewards import TERMS, Gate, Rollout, Term
from tests.support.strategies import any_traces

RIGHT, WRONG = Outcome(correct=True), Outcome(correct=False)


def alone(name, tokens, outcome=RIGHT):
    return Trace(name, (Thread("organizer", (Answer(tokens),)),), outcome)


def tokens_paid(rollout):
    return rollout.clock.work / 100


def judge(reward=None, **options):
    reward = reward or Reward(terms={"tokens": tokens_paid}, gate=None)
    return Judge(**{"reward": reward, "protocol": Protocol(capacity=3), "gpu": "rate:10", **options})


# ---------------------------------------------------------------- the judge


def test_a_pair_by_hand():
    """Ten tokens a second, a hundredth a token: 30 tokens take 3 s and earn 0.3."""
    pair = judge().pair(alone("a", 30), alone("b", 20))
    assert (pair.a.seconds, pair.b.seconds) == (3.0, 2.0)
    assert (pair.a.score.total, pair.b.score.total) == (0.3, 0.2)
    assert pair.gain == pytest.approx(0.1) and pair.slowdown == 1.5 and pair.a.actions == 1


@pytest.mark.parametrize(
    ("verdicts", "found"),
    [
        ((RIGHT, RIGHT), True),
        ((WRONG, RIGHT), True),
        ((WRONG, WRONG), True),
        ((None, WRONG), True),
        ((RIGHT, WRONG), False),
        ((RIGHT, None), False),
        ((Outcome(found=3, wanted=4), Outcome(found=2, wanted=4)), False),
    ],
)
def test_whoever_is_more_correct_may_earn_more(verdicts, found):
    a, b = alone("a", 30, verdicts[0]), alone("b", 20, verdicts[1])
    assert (judge().pair(a, b) is not None) is found


def test_margins():
    a, b = alone("a", 30), alone("b", 20)
    assert judge(slower=1.5).pair(a, b) and not judge(slower=1.51).pair(a, b)
    assert judge(gain=0.0999).pair(a, b) and not judge(gain=0.1001).pair(a, b)
    assert not judge().pair(b, a) and not judge().pair(a, a)


def test_b_breaks_no_rule_and_a_may():
    broken = Trace("x", (Thread("organizer", (Think(20),)),), RIGHT)
    assert judge().pair(alone("a", 30), broken) is None
    assert judge().pair(Trace("x", (Thread("organizer", (Think(30),)),), RIGHT), alone("b", 20))


def test_a_full_pool_counts_in_seconds_and_not_in_t():
    """Three workers in a pool of two slots: T is 10 for both, but on the machine the third waits."""
    workers = tuple(Thread(str(i), (Return(10),)) for i in (1, 2, 3))
    joins = tuple(Join(i) for i in (1, 2, 3))
    crowd = Trace("a", (Thread("organizer", (Fork(1), Fork(2), Fork(3), *joins, Answer())), *workers), RIGHT)
    assert judge(clocks="seconds").pair(crowd, alone("b", 10)).slowdown == 2.0
    assert judge(clocks="both").pair(crowd, alone("b", 10)) is None


def test_a_long_right_answer_is_worth_less_than_a_wrong_one():
    """A price of one a minute on right answers only, and 1,000 tokens at 10 a second: 1 - 100/60, against 0."""
    pair = judge(make_reward("wallclock", gpu="rate:10")).pair(alone("a", 2000, WRONG), alone("b", 1000))
    assert pair.gain == pytest.approx(100 / 60 - 1)


def test_load_slows_both():
    gpu = GPU(cost=LinearBatch(a=0.1, b=0.1))
    one, four = (judge(gpu=gpu, load=load).pair(alone("a", 30), alone("b", 20)) for load in (1, 4))
    assert one.a.seconds == pytest.approx(6.0) and four.a.seconds == pytest.approx(15.0)


def test_a_deadlock_takes_for_ever():
    """A worker that holds the one slot waits for a worker of its own."""
    inner = (Thread("1", (Fork(1), Join(1), Return(5))), Thread("1.1", (Return(5),)))
    stuck = Trace("a", (Thread("organizer", (Fork(1), Join(1), Answer(9))), *inner), RIGHT)
    trial = judge(protocol=Protocol(capacity=2)).trial(stuck)
    assert trial.seconds == math.inf
    assert judge(protocol=Protocol(capacity=2)).pair(stuck, alone("b", 1)).slowdown == math.inf


def test_what_the_reward_cannot_score_is_no_pair():
    def fails(rollout):
        if rollout.latency == 30:
            raise ZeroDivisionError
        return 0.0

    picky = judge(Reward(terms={"fails": fails}))
    assert picky.pair(alone("a", 30), alone("b", 20)) is None and picky.trial(alone("a", 30)) is None
    assert picky.trial(alone("b", 20)).score.total == 0


def test_what_the_gpu_cannot_run_is_no_pair():
    small = GPU(cost=LinearBatch(a=0.1), num_kv_blocks=4, block_size=4)
    assert judge(gpu=small).trial(alone("a", 30)) is None
    assert judge(gpu=small).pair(alone("a", 30), alone("b", 4)) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gpu": "h101"}, "h101"),
        ({"gpu": 3}, "gpu must be a GPU or the name of one, got 3"),
        ({"load": 0}, "load must be a whole number from 1"),
        ({"gain": 0}, "gain must be a number above 0, got 0"),
        ({"gain": math.nan}, "gain must be a number above 0, got nan"),
        ({"slower": 1}, "slower must be a number above 1, got 1"),
        ({"slower": math.inf}, "slower must be a number above 1, got inf"),
        ({"clocks": "T"}, "clocks must be one of both, seconds; got 'T'"),
        ({"reward": "leverage"}, "reward must be a Reward"),
        ({"reward": make_reward("asyncthink"), "protocol": Protocol()}, "capacity"),
    ],
)
def test_a_judge_that_cannot_work_is_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        judge(**options)


# ---------------------------------------------------------------- ranks and advantages

NUMBERS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=12)


@given(NUMBERS)
def test_rank_correlation_is_that_of_mean_ranks(pairs):
    """Ranks counted one by one, in exact arithmetic."""

    def ranks(values):
        return [sum(v < x for v in values) + Fraction(sum(v == x for v in values) + 1, 2) for x in values]

    x, y = ([float(v) for v in column] for column in zip(*pairs, strict=True))
    rx, ry = ranks(x), ranks(y)
    mx, my = (sum(r, Fraction(0)) / len(r) for r in (rx, ry))
    up = sum((a - mx) * (b - my) for a, b in zip(rx, ry, strict=True))
    down = sum((a - mx) ** 2 for a in rx) * sum((b - my) ** 2 for b in ry)
    found = rank_correlation(x, y)
    assert math.isnan(found) if not down else found == pytest.approx(float(up) / math.sqrt(down), abs=1e-9)


def test_ranks_leave_out_what_is_unknown_and_keep_what_never_ends():
    assert rank_correlation([1, 2, math.nan, 3], [1, 2, 9, math.inf]) == pytest.approx(1.0)
    assert math.isnan(rank_correlation([math.nan, 1], [1, 2])) and math.isnan(rank_correlation([], []))


def test_advantages_by_hand():
    assert advantages([3.0, 1.0, 1.0, 3.0], normalise=False).tolist() == [1, -1, -1, 1]
    deviation = math.sqrt(4 / 3)
    assert advantages([3.0, 1.0, 1.0, 3.0]).tolist() == pytest.approx([x / (deviation + 1e-4) for x in (1, -1, -1, 1)])
    assert advantages([5.0]).tolist() == [0] and advantages([2.0, 2.0]).tolist() == [0, 0]


def test_groups_by_hand():
    """One mixed group in which a wrong answer earns most, one in which all are right and the slower earn more."""
    total = np.array([1.0, 1.2, 0.5, 1.0, 1.1, 1.2])
    correct = np.array([1.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    seconds = np.array([1.0, 1.0, 2.0, 1.0, 2.0, 3.0])
    terms = {"accuracy": correct, "rest": total - correct}
    groups = weigh_groups([np.array([0, 1, 2]), np.array([3, 4, 5])], total, correct, seconds, terms)
    assert (groups.groups, groups.mixed) == (2, 1)
    assert groups.wrong_first == 1 / 2  # of two pairs of right and wrong
    assert groups.slow_first == 3 / 4  # of (1, 2) in the first group, and three in the second
    assert groups.even == pytest.approx((0.2 / 3) / ((0.1 + 0.3 + 0.4) / 3))
    assert sum(groups.shares.values()) == pytest.approx(1) and groups.loudest == "rest"
    centred = [0.1, 0.3, -0.4, -0.1, 0.0, 0.1]
    told = [2 / 3, -1 / 3, -1 / 3, 0, 0, 0]
    dot = sum(a * b for a, b in zip(centred, told, strict=True))
    assert groups.explained == pytest.approx(dot**2 / (sum(a * a for a in centred) * sum(b * b for b in told)))


def test_groups_with_nothing_to_compare():
    one = np.array([1.0])
    groups = weigh_groups([np.array([0])], one, one, one, {"a": one})
    assert groups.groups == 0 and groups.loudest == ""
    assert all(map(math.isnan, (groups.wrong_first, groups.slow_first, groups.explained, groups.even)))


# ---------------------------------------------------------------- corpus


def test_corpus_by_hand():
    traces = [alone("a", 10), alone("b", 20), alone("c", 30, WRONG), alone("d", 30, None)]
    corpus = audit_corpus(traces, judge(), group_size=2)
    assert (corpus.traces, corpus.judged, corpus.right, corpus.gated, corpus.unscored) == (4, 3, 2, 0, ())
    assert (corpus.follows["seconds"].all, corpus.follows["T"].right) == pytest.approx((1.0, 1.0))
    assert corpus.follows["correctness"].all == pytest.approx(-0.9428, abs=1e-4)
    assert math.isnan(corpus.follows["correctness"].right) and math.isnan(corpus.follows["eta"].all)
    term = corpus.terms["tokens"]
    assert (term.mean, term.most, term.at_most, term.share) == pytest.approx((0.225, 0.3, 0.5, 1.0))
    assert corpus.groups.slow_first == 1.0 and corpus.groups.groups == 2


def test_a_cap_shows_as_rollouts_at_the_most():
    """eta of one agent is 1, a quarter of c: at or above tau where tau is a quarter."""
    rollouts = [alone(str(n), n) for n in (10, 20, 30)] + [Draft().fork(50).think(60).trace("f", correct=True)]
    shares = []
    for tau in (0.25, 1.0):
        reward = make_reward("asyncthink", eta_threshold=tau)
        corpus = audit_corpus(rollouts, judge(reward, protocol=Protocol(capacity=4)))
        shares.append(corpus.terms["concurrency"].at_most)
    assert shares == [1.0, 0.25]


def test_groups_are_named_or_in_a_row():
    traces = [alone("a", 10), alone("b", 20), alone("c", 30)]
    assert audit_corpus(traces, judge(), group_size=2).groups.groups == 1
    named = [msgspec.structs.replace(trace, meta={"group": "q"}) for trace in traces]
    assert audit_corpus(named, judge(), group_size=1).groups.groups == 1
    assert audit_corpus(traces, judge(), group_size=1).groups.groups == 0


def test_corpus_counts_the_gate_and_what_cannot_be_scored():
    def short_only(rollout):
        if rollout.latency > 25:
            raise ValueError("too long")
        return 1.0

    traces = [alone("a", 10), alone("long", 30), Trace("broken", (Thread("organizer", (Think(5),)),), RIGHT)]
    corpus = audit_corpus(traces, judge(Reward(terms={"one": short_only})))
    assert (corpus.traces, corpus.gated, corpus.unscored) == (2, 1, ("long",))
    with pytest.raises(ConfigError, match="there is no rollout to audit: of 1 that were read, none"):
        audit_corpus(traces[1:2], judge(Reward(terms={"one": short_only})))
    with pytest.raises(ConfigError, match="group_size must be a whole number from 1, got 0"):
        audit_corpus(traces, judge(), group_size=0)


@pytest.mark.parametrize("capacity", [None, 1, 2, 4, 40])
def test_synthetic_rollouts_are_legal_and_the_same_for_a_seed(capacity):
    asks = judge(protocol=Protocol(capacity=capacity))
    traces = synthetic(asks, groups=3, size=5, seed=7)
    assert traces == synthetic(asks, groups=3, size=5, seed=7) != synthetic(asks, groups=3, size=5, seed=8)
    assert [trace.meta["group"] for trace in traces] == [0] * 5 + [1] * 5 + [2] * 5
    assert not any(Rollout(trace, asks.protocol).violations for trace in traces)
    assert all(trace.outcome == RIGHT for trace in synthetic(asks, groups=1, right=1))
    for options in ({"groups": 0}, {"size": True}, {"right": 1.5}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            synthetic(asks, **options)


@given(st.lists(any_traces(), min_size=1, max_size=4))
def test_corpus_of_anything(traces):
    """Terms' shares add up to the whole, and nothing raises, whatever the rollouts are."""
    corpus = audit_corpus(traces, judge(make_reward("parallel_r1"), gpu="steps"), group_size=2)
    shares = sum(term.share for term in corpus.terms.values())
    assert math.isnan(shares) or shares == pytest.approx(1)
    assert corpus.traces == len(traces) and msgspec.json.encode(corpus)


# ---------------------------------------------------------------- exploits


@pytest.mark.parametrize("name", EXPLOITS)
@pytest.mark.parametrize("pool", [1, 3])
@settings(max_examples=25)
@given(st.binary(min_size=400, max_size=400))
def test_what_is_tried_is_a_fair_comparison(name, pool, data):
    """B breaks no rule. A is at most as correct."""
    bits = (bool(byte >> bit & 1) for byte in data for bit in range(8))
    a, b = EXPLOITS[name].pair(Tosses(bits.__next__), pool)
    assert not Rollout(b, Protocol(capacity=pool + 1)).violations or EXPLOITS[name].free
    assert a.outcome.accuracy <= b.outcome.accuracy
    assert Rollout(a, Protocol(capacity=pool + 1)).clock.latency >= 0


@pytest.mark.parametrize("name", EXPLOITS)
def test_all_tosses_false_is_the_least(name):
    a, b = EXPLOITS[name].pair(Tosses(lambda: False), 3)
    sizes = {action.tokens for trace in (a, b) for _, _, action in trace.actions()}
    assert sizes <= {0, 10, 110} and a.tokens <= 1000


# ---------------------------------------------------------------- reasons


def reason(reward, a, b, samples):
    asks = judge(reward)
    pair = Pair(asks.trial(a), asks.trial(b))
    return explain(pair, asks, [sample for trace in samples if (sample := Sample.of(trace, asks))])


def test_a_reason_names_the_term_the_fact_and_the_part():
    def zebra(rollout):
        return rollout.eta**3

    reward = Reward(terms={"zebra": zebra, "none": lambda rollout: 0.0}, gate=None)
    a = Draft().think(10).fork(20).join(1).think(30).fork(200).think(200).join(2).trace("a", correct=True)
    b = Draft().think(10).trace("b", correct=True)
    corpus = synthetic(judge(), groups=4, right=1)
    said = reason(reward, a, b, corpus)
    assert said.startswith("A earns ") and "because zebra pays" in said and "none" not in said
    assert "zebra goes by eta (rank correlation 1.00 over 32 rollouts)" in said
    assert "without worker 2 it would earn 1 rather than" in said


def test_a_reason_does_not_name_what_does_not_differ():
    """The term is correctness, but both are right: so it is not for that."""

    def odd(rollout):
        return (rollout.accuracy or 0) + (rollout.latency == 40)

    said = reason(Reward(terms={"odd": odd}), alone("a", 40), alone("b", 20), synthetic(judge(), groups=4))
    assert "goes by correctness" not in said


def test_a_reason_names_the_gate():
    reward = Reward(terms={"slow": lambda rollout: -float(rollout.latency)}, gate=Gate(reward=-1.0))
    broken = Trace("a", (Thread("organizer", (Think(50),)),), RIGHT)
    said = reason(reward, broken, alone("b", 20), [])
    assert "slow pays 0 instead of -20; the gate closes (missing_answer), and spares A" in said


@given(any_traces())
def test_facts_of_anything_are_numbers(trace):
    found = facts(Rollout(trace, Protocol(capacity=2)))
    assert list(found) == list(FACTS) and all(map(math.isfinite, found.values()))


def test_samples_behind_the_gate_are_left_out():
    asks = judge(Reward(terms={"a": Term(TERMS["accuracy"])}))
    assert Sample.of(Trace("x", (Thread("organizer", (Think(5),)),)), asks) is None
    assert Sample.of(alone("x", 5), asks).terms["a"] == 1.0
