"""The guided search finds what no family names, and pairs are made small in parts and in numbers."""

import pytest

from simulator import Protocol, Reward, make_reward
from simulator.audit import EXPLOITS, Climb, Judge, as_written, reward_of_texts, search, smallest
from simulator.audit.climb import MAX_ACTIONS, MAX_THREADS
from simulator.audit.exploits import Draft
from simulator.audit.reasons import FACTS, facts
from simulator.rewards import TERMS, Rollout, Term
from simulator.trace import Answer, Delay, Fork, Join, Outcome, Return, Think, Thread, Trace, ViolationKind

GPU_NAME = "h100-qwen3-8b"


def organizer(rollout):
    return rollout.trace.organizer.actions


def joined(rollout):
    return [action.index for action in organizer(rollout) if isinstance(action, Join)]


def breaks(kind):
    return lambda rollout: 0.3 * any(violation.kind is kind for violation in rollout.violations)


def backwards(rollout, least):
    order = joined(rollout)
    return 0.5 * (len(order) >= least and order == sorted(set(order), reverse=True))


HOLES = {
    "a tenth for each Join": (lambda rollout: 0.1 * len(joined(rollout)), 5.0),
    "a tenth for each worker": (lambda rollout: 0.1 * rollout.clock.workers, 5.0),
    "eight workers or more": (lambda rollout: 0.5 * (rollout.clock.workers >= 8), 0.5),
    "three joined backwards": (lambda rollout: backwards(rollout, 3), 0.5),
    "four rounds": (lambda rollout: 0.3 * (sum(bool(phase.workers) for phase in rollout.phases) >= 4), 0.3),
    "Delays": (lambda rollout: 0.2 * sum(isinstance(action, Delay) for action in organizer(rollout)), 1.0),
    "a worker joined twice": (lambda rollout: 0.3 * (len(joined(rollout)) - len(set(joined(rollout)))), 3.0),
    "a missing Return": (breaks(ViolationKind.MISSING_RETURN), 0.3),
    "a duplicate Fork": (breaks(ViolationKind.DUPLICATE_INDEX), 0.3),
    "an unknown Join": (breaks(ViolationKind.UNKNOWN_JOIN), 0.3),
    "no Answer": (breaks(ViolationKind.MISSING_ANSWER), 0.3),
    "two levels down": (lambda rollout: 0.3 * any(each.id.count(".") == 2 for each in rollout.trace.threads), 0.3),
    "exactly five at once": (lambda rollout: 0.4 * (rollout.clock.peak_concurrency == 5), 0.4),
    "a long Answer": (
        lambda rollout: 1e-3 * sum(action.tokens for action in organizer(rollout) if isinstance(action, Answer)),
        1.0,
    ),
    "workers all alike": (
        lambda rollout: (
            0.4 * (len(rollout.trace.threads) > 4 and len({each.tokens for each in rollout.trace.threads[1:]}) == 1)
        ),
        0.4,
    ),
}


def judged(term, **options):
    reward = Reward(terms={"accuracy": Term(TERMS["accuracy"]), "hole": term}, gate=None)
    return Judge(reward=reward, protocol=Protocol(capacity=4), gpu=GPU_NAME, **options)


@pytest.mark.parametrize("name", HOLES)
def test_holes_that_no_family_names(name):
    term, gain = HOLES[name]
    judge = judged(term)
    (found,) = search(judge, ["guided"], budget=200)
    assert found.tried == 1000 and found.found > 0
    assert found.largest_gain >= gain
    pair = found.pair
    assert judge.pair(pair.a.trace, pair.b.trace) == pair
    assert not pair.b.score.violations and "hole pays" in found.reason
    assert pair.a.actions <= 12 and pair.b.actions <= 3


def test_nothing_is_found_where_nothing_can_be():
    price = Term(TERMS["wallclock"], {"only_if_correct": False, "gpu": GPU_NAME})
    for terms in ({"accuracy": Term(TERMS["accuracy"])}, {"wallclock": price}):
        judge = Judge(reward=Reward(terms=terms, gate=None), protocol=Protocol(capacity=4), gpu=GPU_NAME)
        climb = Climb(judge, 0)
        climb.run(600)
        assert (climb.tried, climb.found, climb.best) == (600, 0, None)


def test_the_same_seed_climbs_the_same_way():
    climbs = [Climb(judged(HOLES["four rounds"][0]), seed) for seed in (5, 5, 6)]
    for climb in climbs:
        climb.run(300)
    assert climbs[0].best == climbs[1].best and climbs[0].found == climbs[1].found
    assert climbs[0].samples != climbs[2].samples


def test_what_is_tried_is_bounded():
    climb = Climb(judged(HOLES["a tenth for each worker"][0]), 0)
    climb.run(800)
    for trial in (*climb.high.values(), *climb.low.values()):
        assert trial.actions <= MAX_ACTIONS and len(trial.trace.threads) <= MAX_THREADS


def test_it_begins_with_what_it_is_given():
    given = Draft().fork(7, 9).trace("mine", correct=True)
    seen = []
    judge = judged(lambda rollout: seen.append(rollout.trace) or 0.0)
    Climb(judge, 0).run(13, [given])
    assert given in seen


# ---------------------------------------------------------------- small pairs


@pytest.mark.parametrize("name", ["asyncthink", "kimi_parl", "leverage", "parallel_r1"])
def test_no_part_and_no_token_can_be_spared(name):
    judge = Judge(reward=make_reward(name), protocol=Protocol(capacity=4), gpu=GPU_NAME)
    for found in search(judge, ["free", "guided"], budget=60):
        a, b = found.pair.a.trace, found.pair.b.trace
        for trace, other in ((a, b), (b, a)):
            for thread in trace.threads:
                for place, action in enumerate(thread.actions):
                    if isinstance(action, (Join, Delay)) or action.tokens == 1:
                        continue
                    less = type(action)(**{**_fields(action), "tokens": action.tokens - 1})
                    smaller = _with(trace, thread, place, less)
                    pair = judge.pair(smaller, other) if trace is a else judge.pair(other, smaller)
                    assert pair is None, (found.exploit, thread.id, action)


def _fields(action):
    return {name: getattr(action, name) for name in action.__struct_fields__}


def _with(trace, thread, place, action):
    actions = (*thread.actions[:place], action, *thread.actions[place + 1 :])
    threads = [
        Thread(each.id, actions, each.prompt_tokens, each.shared_tokens) if each is thread else each
        for each in trace.threads
    ]
    return Trace(trace.id, tuple(threads), trace.outcome, trace.token_source)


def test_a_named_exploit_stays_what_it_is():
    """Only numbers are lowered: A breaks what it broke, and does in the same order what it did."""
    judge = Judge(reward=make_reward("kimi_parl"), protocol=Protocol(capacity=4), gpu=GPU_NAME)
    (found,) = search(judge, ["overflow"], budget=40)
    kinds = {violation.kind for violation in found.pair.a.score.violations}
    assert kinds == {ViolationKind.POOL_OVERFLOW}
    large = Draft().think(500).fork(300, 20).fork(40).join(1).trace("A", correct=True)
    pair = judge.pair(large, Draft().think(100).trace("B", correct=True))
    small = smallest(pair, judge, parts=False)
    assert [type(action) for action in small.a.trace.organizer.actions] == [Think, Fork, Fork, Join, Answer]
    assert small.a.trace.tokens < 20


def test_a_pair_that_is_out_of_tries_is_still_a_pair():
    judge = Judge(reward=make_reward("kimi_parl"), protocol=Protocol(capacity=4), gpu=GPU_NAME)
    large = Draft().think(5000).fork(300, 20).fork(40).join(1).trace("A", correct=True)
    pair = judge.pair(large, Draft().think(100).trace("B", correct=True))
    for tries in (1, 2, 5, 20):
        small = smallest(pair, judge, tries)
        assert judge.pair(small.a.trace, small.b.trace) == small


# ---------------------------------------------------------------- reasons


def test_reasons_name_the_cause():
    causes = {
        "a tenth for each Join": "the number of Joins",
        "a tenth for each worker": "the number of workers",
        "a worker joined twice": "the number of Joins of a worker joined before",
        "Delays": "the number of Delays",
        "a missing Return": "the number of workers without a Return",
        "a long Answer": "the tokens of the Answer",
    }
    for name, cause in causes.items():
        (found,) = search(judged(HOLES[name][0]), ["guided"], budget=200)
        assert f"hole goes by {cause} (" in found.reason, (name, found.reason)


def test_facts_by_hand():
    """Two rounds; worker 1 is joined twice; worker 2 has a worker of its own and no Return; 30 tokens are thought."""
    actions = (Think(30), Fork(1, 4), Join(1), Join(1), Delay(2.0), Fork(2, 5), Join(2), Answer(7))
    trace = Trace(
        "t",
        (
            Thread("organizer", actions),
            Thread("1", (Return(20),)),
            Thread("2", (Fork(1, 1), Join(1), Think(3))),
            Thread("2.1", (Return(2),)),
        ),
        Outcome(correct=True),
    )
    found = facts(Rollout(trace, Protocol()))
    assert list(found) == list(FACTS)
    expected = {
        "the number of Joins": 3,
        "the number of Joins of a worker joined before": 1,
        "the number of rounds of Forks": 2,
        "the depth of nesting": 2,
        "the organizer's tokens": 46,
        "the organizer's tokens outside Forks, Joins and its Answer": 30,
        "the tokens of Forks": 9,
        "the tokens of the Answer": 7,
        "the number of Delays": 1,
        "the number of workers without a Return": 1,
        "whether it answers": 1,
    }
    assert {name: found[name] for name in expected} == expected


# ---------------------------------------------------------------- functions of texts


def test_a_function_of_a_text_is_searched_like_any_reward():
    def joins(written):
        return (f"<ANSWER>{written.truth}</ANSWER>" in written.text) + 0.1 * written.text.count("</JOIN-")

    judge = Judge(reward=reward_of_texts(joins), protocol=Protocol(capacity=4), form=as_written)
    found = {each.exploit: each for each in search(judge, budget=40)}
    assert list(found) == list(EXPLOITS)
    assert found["guided"].largest_gain > 1 and found["copies"].found
    assert "reward goes by the number of Joins" in found["guided"].reason
    small = found["guided"].pair
    assert [each.tokens for each in as_written(small.a.trace).threads] == [
        each.tokens for each in small.a.trace.threads
    ]
    assert small.a.actions + small.b.actions <= 8


def test_what_a_text_says_is_what_is_timed():
    """A reward that prices every word of a text, on the path that is timed, has nothing to find but wrong answers."""

    def price(written):
        trace = as_written_again(written)
        return (f"<ANSWER>{written.truth}</ANSWER>" in written.text) - 1e-5 * Rollout(trace, Protocol()).latency

    def as_written_again(written):
        from simulator import parse

        return parse(written.text, workers=written.workers)

    judge = Judge(reward=reward_of_texts(price), protocol=Protocol(capacity=4), form=as_written)
    assert [each.exploit for each in search(judge, budget=30) if each.found] in ([], ["wrong_first"])


def test_what_a_function_raises_shows_nothing():
    def fragile(written):
        if "<FORK-2>" in written.text:
            raise KeyError("two")
        return 0.1 * written.text.count("<FORK-1>")

    judge = Judge(reward=reward_of_texts(fragile), protocol=Protocol(capacity=4), form=as_written)
    (found,) = search(judge, ["late_forks"], budget=40)
    assert found.found and all("2" not in each.id for each in found.pair.a.trace.threads)
