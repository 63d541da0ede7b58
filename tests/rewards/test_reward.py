"""The AsyncThink reward: worked by hand, then what can be proved of it."""

import math
from dataclasses import fields

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from simulator import (
    Answer,
    ConfigError,
    Delay,
    Fork,
    Join,
    Outcome,
    Protocol,
    Return,
    Think,
    Thread,
    Trace,
    Violation,
    ViolationKind,
    decode_clock,
    score,
    score_batch,
)
from simulator.formats import parse
from simulator.trace.protocol import FORMAT_ERRORS
from tests.support.strategies import SECONDS, any_traces, traces

RIGHT, WRONG = Outcome(correct=True), Outcome(correct=False)


def trace(*organizer, outcome=RIGHT, faults=(), **workers):
    """A trace with workers w1=(...), w2=(...)."""
    threads = [Thread("organizer", organizer), *(Thread(name[1:], actions) for name, actions in workers.items())]
    return Trace("t", tuple(threads), outcome, faults=faults)


# ---------------------------------------------------------------- by hand
#
# step       0    4         10   15   20
# organizer  |--4F-|---6T----|...|--5A--|      T = 20
# worker 1         |---11R-------|             a_t: 4 + 2 * 6 + 5 + 5 = 26;  eta = 1.3

ONE_WORKER = trace(Fork(1, 4), Think(6), Join(1), Answer(5), w1=(Return(11),))


def test_the_formula():
    result = score(ONE_WORKER, Protocol(capacity=2))
    assert (result.latency, result.peak_concurrency, result.violations) == (20, 2, ())
    assert (result.eta, result.eta_over_c) == (pytest.approx(1.3), pytest.approx(0.65))
    # R_A + lambda * min(eta/c, tau) / tau = 1 + 0.5 * 0.65
    assert result.terms == pytest.approx({"format_error": 0.0, "accuracy": 1.0, "concurrency": 0.325})
    assert result.total == pytest.approx(1.325)


@pytest.mark.parametrize(
    ("options", "concurrency"),
    [
        ({}, 0.5 * 0.65),
        ({"eta_weight": 0.0}, 0.0),
        ({"eta_weight": 1.0}, 0.65),
        ({"eta_weight": 10.0}, 6.5),
        ({"eta_weight": -1.0}, -0.65),
        ({"eta_threshold": 0.65}, 0.5),  # just at the cap
        ({"eta_threshold": 0.8}, 0.5 * 0.65 / 0.8),
        ({"eta_threshold": 0.5}, 0.5),  # beyond the cap
        ({"eta_threshold": 1e-9}, 0.5),
        ({"eta_threshold": 0.5, "eta_weight": 0.2}, 0.2),
        ({"capacity": 4}, 0.5 * 1.3 / 4),
        ({"capacity": 10**9}, 0.5 * 1.3e-9),
        ({"count_organizer": False}, 0.5 * (11 / 20) / 2),
    ],
)
def test_lambda_tau_c_and_who_counts(options, concurrency):
    result = score(ONE_WORKER, Protocol(**{"capacity": 2, **options}))
    assert result.terms["concurrency"] == pytest.approx(concurrency)
    assert result.terms["accuracy"] == 1.0
    assert result.total == pytest.approx(1 + concurrency)


@pytest.mark.parametrize(
    ("outcome", "accuracy", "earned"),
    [
        (RIGHT, 1.0, 1.0),
        (WRONG, 0.0, 0.0),
        (None, None, 0.0),
        (Outcome(), None, 0.0),
        (Outcome(found=0, wanted=4), 0.0, 0.0),
        (Outcome(found=1, wanted=4), 0.25, 0.25),
        (Outcome(found=4, wanted=4), 1.0, 1.0),
        (Outcome(found=9, wanted=4), 1.0, 1.0),
        (Outcome(correct=False, found=3, wanted=4), 0.75, 0.75),  # a count says more
    ],
)
def test_accuracy(outcome, accuracy, earned):
    result = score(trace(Answer(5), outcome=outcome), Protocol(capacity=4))
    assert result.accuracy == accuracy
    assert result.terms["accuracy"] == earned
    assert result.total == earned + 0.5 * 0.25


FORMAT_ERROR_TRACES = {
    ViolationKind.DUPLICATE_INDEX: trace(Fork(1, 2), Fork(1, 2), Join(1), Answer(1), w1=(Return(3),)),
    ViolationKind.POOL_OVERFLOW: trace(
        Fork(1, 2), Fork(2, 2), Join(1), Join(2), Answer(1), w1=(Return(9),), w2=(Return(9),)
    ),
    ViolationKind.UNKNOWN_JOIN: trace(Think(2), Join(7), Answer(1)),
    ViolationKind.MISSING_ANSWER: trace(Fork(1, 2), Join(1), w1=(Return(3),)),
}


def test_these_are_the_format_errors_of_the_paper():
    assert set(FORMAT_ERROR_TRACES) == FORMAT_ERRORS


@pytest.mark.parametrize("value", [-1.0, 0.0, 2.0, -1e9])
@pytest.mark.parametrize("kind", FORMAT_ERROR_TRACES)
def test_a_format_error_is_all_that_counts(kind, value):
    result = score(FORMAT_ERROR_TRACES[kind], Protocol(capacity=2, format_error_reward=value))
    assert [violation.kind for violation in result.violations] == [kind]
    assert result.terms == {"format_error": value, "accuracy": 0.0, "concurrency": 0.0}
    assert result.total == value
    assert result.accuracy == 1.0  # what it would have earned


OTHER_TRACES = {
    ViolationKind.REPEATED_JOIN: trace(Fork(1, 2), Join(1), Join(1), Answer(1), w1=(Return(3),)),
    ViolationKind.MISSING_RETURN: trace(Fork(1, 2), Join(1), Answer(1), w1=(Think(3),)),
    ViolationKind.FORK_WITHOUT_WORKER: trace(Fork(1, 2), Join(1), Answer(1)),
    ViolationKind.WORKER_WITHOUT_FORK: trace(Answer(1), w1=(Return(3),)),
    ViolationKind.UNJOINED_WORKER: trace(Fork(1, 2), Answer(1), w1=(Return(3),)),
    ViolationKind.NESTED_FORK: Trace(
        "t",
        (
            Thread("organizer", (Fork(1, 2), Join(1), Answer(1))),
            Thread("1", (Fork(1), Join(1), Return(3))),
            Thread("1.1", (Return(1),)),
        ),
        RIGHT,
    ),
    ViolationKind.MISPLACED_ACTION: trace(Return(1), Answer(1)),
    ViolationKind.UNCLOSED_TAG: parse("<FORK-1>q <ANSWER>9</ANSWER>", outcome=RIGHT),
    ViolationKind.STRAY_TAG: parse("</FORK-1> <ANSWER>9</ANSWER>", outcome=RIGHT),
    ViolationKind.FORGED_JOIN: parse(
        "<FORK-1>q</FORK-1><JOIN-1>x</JOIN-1><ANSWER>9</ANSWER>", workers={"1": "<RETURN>y</RETURN>"}, outcome=RIGHT
    ),
    ViolationKind.UNKNOWN_TAGS: parse("<Parallel> <ANSWER>9</ANSWER>", outcome=RIGHT),
    ViolationKind.MORE_FAULTS: trace(Answer(1), faults=(Violation(ViolationKind.MORE_FAULTS, "organizer", "more"),)),
}


def test_every_kind_of_violation_is_here():
    assert {**FORMAT_ERROR_TRACES, **OTHER_TRACES}.keys() == set(ViolationKind)


@pytest.mark.parametrize("kind", OTHER_TRACES)
def test_other_violations_are_reported_and_cost_nothing_unless_the_protocol_says_so(kind):
    rules = Protocol(capacity=3, nested_forks=False)
    result = score(OTHER_TRACES[kind], rules)
    assert [violation.kind for violation in result.violations] == [kind]
    assert result.terms["accuracy"] == 1.0
    assert result.total > 1
    strict = score(OTHER_TRACES[kind], rules.with_(format_errors=frozenset({kind})))
    assert strict.total == rules.format_error_reward


def test_a_kind_that_is_no_format_error_any_more():
    broken = FORMAT_ERROR_TRACES[ViolationKind.UNKNOWN_JOIN]
    assert score(broken, Protocol(capacity=2, format_errors=frozenset())).total == 1.25


def test_one_format_error_among_other_violations_is_enough():
    both = trace(Join(7), Fork(1, 2), Answer(1), w1=(Return(3),))
    result = score(both, Protocol(capacity=2))
    assert {violation.kind for violation in result.violations} == {
        ViolationKind.UNKNOWN_JOIN,
        ViolationKind.UNJOINED_WORKER,
    }
    assert result.total == -1


@pytest.mark.parametrize("actions", [(Answer(),), (Delay(3.0), Answer())])
def test_an_answer_of_no_tokens_earns_no_concurrency(actions):
    result = score(trace(*actions), Protocol(capacity=4))
    assert (result.latency, result.eta, result.eta_over_c) == (0, 0, 0)
    assert result.terms == {"format_error": 0.0, "accuracy": 1.0, "concurrency": 0.0}


def test_capacity_one_allows_no_worker():
    assert score(trace(Answer(9)), Protocol(capacity=1)).total == 1.5  # eta/c = 1, the most there is
    assert score(ONE_WORKER, Protocol(capacity=1)).total == -1


def test_a_reward_needs_a_capacity():
    message = r"the reward divides eta by the pool capacity: give Protocol\(capacity=...\)"
    with pytest.raises(ConfigError, match=message):
        score(ONE_WORKER, Protocol())
    with pytest.raises(ConfigError, match=message):
        score_batch([ONE_WORKER], protocol=Protocol())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eta_threshold": 0.0}, "eta_threshold must be above 0 and at most 1, got 0.0"),
        ({"eta_threshold": -0.5}, "eta_threshold must be above 0 and at most 1, got -0.5"),
        ({"eta_threshold": 1.5}, "eta_threshold must be above 0 and at most 1, got 1.5"),
        ({"eta_threshold": math.nan}, "eta_threshold must be above 0 and at most 1, got nan"),
        ({"eta_weight": math.inf}, "eta_weight must be a finite number, got inf"),
        ({"format_error_reward": math.nan}, "format_error_reward must be a finite number, got nan"),
        (
            {"format_errors": frozenset({"typo"})},
            "format_errors: 'typo' is not a valid ViolationKind; there are duplicate_index",
        ),
        ({"capacity": 0}, "capacity must be a whole number from 1 to 10^9, or None for no limit; got 0"),
        ({"capacity": 2.0}, "capacity must be a whole number from 1 to 10^9, or None for no limit; got 2.0"),
        ({"capacity": True}, "capacity must be a whole number from 1 to 10^9, or None for no limit; got True"),
    ],
)
def test_constants_out_of_range(options, message):
    with pytest.raises(ConfigError) as caught:
        Protocol(**{"capacity": 2, **options})
    assert str(caught.value).startswith(message)


# The paper's tables (arXiv 2510.26658): fork-free runs come out at eta/c = 1/c.


@given(traces(), st.integers(1, 9))
def test_without_a_fork_eta_over_c_is_one_over_c(any_trace, capacity):
    thinking = tuple(Think(action.tokens) for action in any_trace.organizer.actions if isinstance(action, Think))
    sequential = trace(*thinking, Answer(1))
    result = score(sequential, Protocol(capacity=capacity))
    assert (result.eta, result.eta_over_c) == (1, 1 / capacity)
    assert result.terms["concurrency"] == pytest.approx(0.5 / capacity)


def test_without_counting_the_organizer_it_is_zero():
    assert score(trace(Think(9), Answer(1)), Protocol(capacity=4, count_organizer=False)).eta_over_c == 0


@pytest.mark.parametrize("capacity", [2, 4, 8])
def test_the_most_concurrent_trace_comes_near_one(capacity):
    # c - 1 workers and an organizer that thinks beside them, as long as they
    workers = {f"w{i}": (Return(1000),) for i in range(1, capacity)}
    forks = [Fork(i) for i in range(1, capacity)]
    joins = [Join(i) for i in range(1, capacity)]
    result = score(trace(*forks, Think(1000), *joins, Answer(), **workers), Protocol(capacity=capacity))
    assert (result.violations, result.eta_over_c, result.total) == ((), 1, 1.5)


# ---------------------------------------------------------------- laws

numbers = st.floats(-10, 10)
protocols = st.builds(
    Protocol,
    capacity=st.integers(1, 5),
    eta_weight=numbers,
    eta_threshold=st.floats(1e-6, 1),
    format_error_reward=numbers,
    count_organizer=st.booleans(),
    release=st.sampled_from(["return", "join"]),
    after_answer=st.sampled_from(["cancel", "finish"]),
    after_end=st.sampled_from(["count", "ignore"]),
    charge_inserted=st.booleans(),
    nested_forks=st.booleans(),
    delay_steps_per_second=st.sampled_from((0.0, 1.5)),
    format_errors=st.frozensets(st.sampled_from(ViolationKind)),
)
outcomes = st.one_of(
    st.none(),
    st.builds(Outcome, st.sampled_from((None, True, False))),
    st.builds(lambda found, wanted: Outcome(None, found, wanted), st.integers(0, 9), st.integers(1, 4)),
)
LEGAL = traces(nested=True, delays=SECONDS, prompts=True)
ALL = st.one_of(LEGAL, any_traces())


def judged(each, outcome):
    return Trace(each.id, each.threads, outcome)


@given(ALL, outcomes, protocols)
def test_terms_sum_to_the_total(each, outcome, protocol):
    result = score(judged(each, outcome), protocol)
    assert result.total == sum(result.terms.values())
    assert list(result.terms) == ["format_error", "accuracy", "concurrency"]


@given(ALL, outcomes, protocols)
def test_a_reward_is_one_of_two_things(each, outcome, protocol):
    clock = decode_clock(each, protocol)
    result = score(judged(each, outcome), protocol)
    assert result.violations == clock.violations
    assert (result.latency, result.eta, result.peak_concurrency) == (clock.latency, clock.eta, clock.peak_concurrency)
    if {violation.kind for violation in clock.violations} & protocol.format_errors:
        assert result.total == protocol.format_error_reward
    else:
        tau = protocol.eta_threshold
        earned = (outcome.accuracy if outcome else None) or 0.0
        assert result.terms["accuracy"] == earned
        assert result.total == pytest.approx(
            earned + protocol.eta_weight * min(clock.eta / protocol.capacity, tau) / tau, abs=1e-9
        )


@given(ALL, outcomes, protocols)
def test_the_concurrency_term_is_bounded_by_lambda(each, outcome, protocol):
    """However a trace is made: so a wrong answer never earns more than lambda."""
    term = score(judged(each, outcome), protocol).terms["concurrency"]
    low, high = sorted((0.0, protocol.eta_weight))
    assert low - 1e-9 <= term <= high + 1e-9


@given(ALL, protocols)
def test_a_better_outcome_never_earns_less(each, protocol):
    totals = [score(judged(each, Outcome(None, found, 4)), protocol).total for found in range(6)]
    assert totals == sorted(totals)
    assert totals[4] == totals[5]


@given(ALL, outcomes, protocols, st.lists(st.floats(0, 10), min_size=2, max_size=2))
def test_more_lambda_never_earns_less(each, outcome, protocol, weights):
    less, more = (score(judged(each, outcome), protocol.with_(eta_weight=weight)).total for weight in sorted(weights))
    assert less <= more


@given(ALL, outcomes, protocols, st.lists(st.floats(1e-3, 1), min_size=2, max_size=2))
def test_a_higher_tau_never_earns_more(each, outcome, protocol, taus):
    """min(x, tau) / tau falls with tau: the cap is reached later. (For lambda >= 0.)"""
    rules = protocol.with_(eta_weight=abs(protocol.eta_weight))
    low, high = (score(judged(each, outcome), rules.with_(eta_threshold=tau)).total for tau in sorted(taus))
    assert low >= high - 1e-9


@given(LEGAL, st.integers(0, 50))
def test_a_longer_answer_earns_no_more(each, longer):
    """At the end only the organizer is active: it draws eta towards 1, and eta is at least 1."""
    rules = Protocol(capacity=9)
    organizer = each.organizer
    last = organizer.actions[-1]
    padded = Thread("organizer", (*organizer.actions[:-1], Answer(last.tokens + longer)))
    short, long = score(each, rules), score(Trace("t", (padded, *each.threads[1:])), rules)
    assume(not short.violations and short.latency)
    assert long.total <= short.total + 1e-12


@given(LEGAL, st.integers(1, 4))
def test_a_larger_pool_earns_no_more_for_the_same_trace(each, capacity):
    """Once there is room for all its workers."""
    small, large = score(each, Protocol(capacity=capacity)), score(each, Protocol(capacity=capacity + 1))
    assume(ViolationKind.POOL_OVERFLOW not in {violation.kind for violation in small.violations})
    assert large.total <= small.total


@given(ALL, outcomes, protocols)
def test_only_actions_count(each, outcome, protocol):
    """Text, prompts, recorded times and names do not."""
    plain = Trace("other", tuple(Thread(thread.id, thread.actions) for thread in each.threads), outcome)
    assert score(judged(each, outcome), protocol) == score(plain, protocol)


@given(ALL, protocols)
def test_what_a_runtime_does_with_a_full_pool_does_not_matter(each, protocol):
    assert score(each, protocol.with_(when_full="drop")) == score(each, protocol)


def test_every_field_of_protocol_that_a_reward_depends_on_is_varied_here():
    assert {field.name for field in fields(Protocol)} == {
        "capacity",
        "when_full",
        "release",
        "after_answer",
        "after_end",
        "count_organizer",
        "charge_inserted",
        "nested_forks",
        "delay_steps_per_second",
        "format_errors",
        "format_error_reward",
        "eta_weight",
        "eta_threshold",
    }
