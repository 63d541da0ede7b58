"""Queueing truths: what theory says of a queue, the simulation gives, path by path and in the mean.

Means are held to theory by 99 % Student-t intervals over independent replications of fixed seeds. An interval is narrow
enough to refuse the theory of a load 10 % heavier, or 5 % in the slow tests. docs/validation.md says which queue a GPU
is, and why.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.queues import (
    CASES,
    PAIR,
    SHARING,
    SINGLE,
    STEP,
    alone,
    exponential,
    forked,
    interval,
    measured,
    shares,
    two_point,
)
from simulator import ClosedLoop, Cluster, Protocol, simulate
from simulator.machine.routing import round_robin
from simulator.workload import poisson_arrivals
from tests.support.strategies import TICK, arrivals, gpus, graphs

NAMES = [f"{case.name}: {case.setting}" for case in CASES]


def case(name, sizes=""):
    return next(case for case in CASES if case.name == name and sizes in case.setting)


# In the mean.


@pytest.mark.parametrize(
    ("name", "sizes", "scale", "queries"),
    [
        ("M/M/1", "", 0.6, 2500),
        ("M/D/1", "", 1.0, 2500),
        ("M/G/1-PS", "constant", 0.6, 1500),
        ("batching", "exponential", 1.0, 1000),
        ("E2/M/1", "", 0.6, 1000),
        ("fork-join, 2 queues", "", 0.6, 800),
        ("M/M/1, 5 users", "", 1.0, 500),
        ("batching, 8 users", "", 1.0, 500),
    ],
)
def test_the_mean_sojourn_is_that_of_theory(name, sizes, scale, queries):
    """And not that of a load 10 % heavier."""
    queue = case(name, sizes)
    mean, half = measured(queue, queries, 25, scale=scale)
    assert half < 0.03 * mean
    assert abs(mean - queue.theory(scale)) <= half
    assert abs(mean - queue.theory(1.1 * scale)) > half


@pytest.mark.slow
@pytest.mark.parametrize("queue", CASES, ids=NAMES)
def test_the_mean_sojourn_is_that_of_theory_at_full_load(queue):
    mean, half = measured(queue, 5000, 40)  # the rows of docs/validation.md
    assert half < 0.03 * mean
    assert abs(mean - queue.theory(1.0)) <= half
    if queue.name != "fork-join, no queue":  # which no load slows
        assert abs(mean - queue.theory(1.05)) > half


def test_an_interval_by_hand():
    """Of 1, 2, 3: mean 2, variance 1, 4.303 for two degrees of freedom at 95 %."""
    assert interval([(1, []), (2, []), (3, [])], 0.95) == pytest.approx((2, 4.30265273 / math.sqrt(3)))


def test_controls_correct_a_mean():
    """Where sojourns follow their control exactly, the value at a control of 0 is left, and no doubt."""
    mean, half = interval([(5 + 2 * off, [off]) for off in (0.1, 0.2, 0.4)])
    assert mean == pytest.approx(5)
    assert half == pytest.approx(0, abs=1e-9)


# Path by path: each query's sojourn by a recursion on what was drawn.


def drawn(sizes, rate, n, k=1):
    rng = np.random.default_rng(7)
    return poisson_arrivals(n, rate, rng), sizes(rng, n * k)


def lindley(arrivals, services):
    """Sojourns in a single server, first come first served: one begins when it has come and the one before has left."""
    free, sojourns = 0.0, []
    for arrival, service in zip(arrivals.tolist(), services.tolist(), strict=True):
        free = max(free, arrival) + service
        sojourns.append(free - arrival)
    return np.array(sojourns)


def kiefer_wolfowitz(arrivals, services, servers):
    """Sojourns in `servers` servers with one queue: one begins on the server that is free first."""
    free, sojourns = [0.0] * servers, []
    for arrival, service in zip(arrivals.tolist(), services.tolist(), strict=True):
        first = free.index(min(free))
        free[first] = max(free[first], arrival) + service
        sojourns.append(free[first] - arrival)
    return np.array(sojourns)


def processor_sharing(arrivals, services):
    """Sojourns where n share one server: each is served at a rate of 1/n."""
    left, sojourns, now, coming = {}, np.zeros(len(arrivals)), 0.0, 0
    while left or coming < len(arrivals):
        arrival = arrivals[coming] if coming < len(arrivals) else math.inf
        last = min(left, key=left.get, default=None)
        end = now + left[last] * len(left) if left else math.inf
        then = min(end, arrival)
        for query in left:
            left[query] -= (then - now) / len(left)
        now = then
        if end <= arrival:
            del left[last]
            sojourns[last] = now - arrivals[last]
        else:
            left[coming] = services[coming]
            coming += 1
    return sojourns


@pytest.mark.parametrize("sizes", [exponential, two_point])
def test_one_server_follows_lindleys_recursion(sizes):
    times, tokens = drawn(sizes, 0.8, 2000)
    latency = simulate(alone(tokens), gpu=SINGLE, arrivals=times).latency
    np.testing.assert_allclose(latency, lindley(times, tokens * STEP), atol=1e-7)


@pytest.mark.parametrize("servers", [2, 5])
def test_a_batch_limit_at_a_constant_step_is_that_many_servers(servers):
    """But for steps: who comes in mid-step begins with the next, so each busy period may run late by steps."""
    times, tokens = drawn(exponential, 0.8 * servers, 2000)
    latency = simulate(alone(tokens), gpu=shares(1, 0, max_num_seqs=servers), arrivals=times).latency
    np.testing.assert_allclose(latency, kiefer_wolfowitz(times, tokens * STEP, servers), atol=100 * STEP)


def test_without_limit_and_at_a_constant_step_nobody_waits():
    """M/G/infinity: a sojourn is the service, after the step under way."""
    times, tokens = drawn(two_point, 5.0, 2000)
    latency = simulate(alone(tokens), gpu=shares(1, 0), arrivals=times).latency
    late = latency - tokens * STEP
    assert late.min() > -1e-7
    assert late.max() < STEP + 1e-7


@pytest.mark.parametrize("sizes", [exponential, two_point])
def test_a_step_that_grows_with_the_batch_is_processor_sharing(sizes):
    times, tokens = drawn(sizes, 0.7, 500)
    latency = simulate(alone(tokens), gpu=SHARING, arrivals=times).latency
    np.testing.assert_allclose(latency, processor_sharing(times, tokens * STEP), atol=100 * STEP)


def test_a_fork_join_queue_is_the_longer_of_two_queues():
    times, tokens = drawn(exponential, 0.7, 2000, k=2)
    latency = simulate(forked(tokens, 2), gpu=PAIR, arrivals=times).latency
    each = [lindley(times, tokens[side::2] * STEP) for side in (0, 1)]
    np.testing.assert_allclose(latency, np.maximum(*each), atol=1e-7)


# Identities: exact, on any load. All times are multiples of 2^-12, so sums of floats are exact.

small_loads = st.lists(graphs(), min_size=1, max_size=4)


def area(changes, until):
    """Return the integral of a step function: rows of a time and the value from then on."""
    lengths = np.diff(changes[:, 0], append=until)
    return float(changes[:, 1] @ lengths)


@given(st.data(), small_loads, gpus(), st.sampled_from((1, 2, 3)))
def test_littles_law_of_the_batch(data, queries, gpu, replicas):
    """The mean number in the batch, from its log, is the rate of stays times their mean length, from the rows."""
    times = data.draw(arrivals(gpu, len(queries)))
    cluster = Cluster(replicas=[gpu] * replicas, routing=round_robin)
    timeline = simulate(queries, gpu=cluster, arrivals=times)
    for place, replica in enumerate(timeline.replicas):
        stays = timeline.rows[timeline.column("replica") == place]
        inside = float((stays["finish"] - stays["start"]).sum())
        assert len(replica.batch) or inside == 0
        if len(replica.batch):
            assert area(replica.batch, float(replica.batch[-1, 0])) == inside


@given(st.data(), small_loads, gpus())
def test_littles_law_of_the_system(data, queries, gpu):
    """The mean number of open queries, counted at each event, is the rate of queries times the mean of their latency.

    Latency is taken from what organizers did: their spans have no gap.
    """
    times = data.draw(arrivals(gpu, len(queries)))
    timeline = simulate(queries, gpu=gpu, arrivals=times)
    events = sorted([(at, 1) for at in times] + [(float(at), -1) for at in timeline.answered])
    changes, number = [], 0
    for at, change in events:
        number += change
        changes.append((at, float(number)))
    inside = sum(span.finish - span.start for span in timeline.spans() if span.thread == 0)
    assert area(np.array(changes), events[-1][0]) == inside == float(timeline.latency.sum())


@given(st.data(), small_loads)
def test_the_law_of_utilization(data, queries):
    """A GPU that does one thing at a time is busy for the tokens it emits."""
    gpu = shares(1, 0, max_num_seqs=1)
    times = data.draw(st.lists(st.integers(0, 60).map(float), min_size=len(queries), max_size=len(queries)))
    timeline = simulate(queries, gpu=gpu, arrivals=times)
    assert timeline.busy == pytest.approx(int(timeline.column("tokens").sum()) * STEP)


@settings(max_examples=200)
@given(st.lists(graphs(), min_size=1, max_size=5), gpus(), st.sampled_from((0.0, 1.0, 37 * TICK)))
def test_one_user_has_the_latency_of_a_query_alone(queries, gpu, think):
    timeline = simulate(queries, gpu=gpu, arrivals=ClosedLoop(1, think))
    assert timeline.latency.tolist() == [float(simulate(query, gpu=gpu).latency[0]) for query in queries]


@given(
    st.lists(graphs(), min_size=2, max_size=6), gpus(), st.sampled_from((1, 2, 3)), st.sampled_from((0.5, 37 * TICK))
)
def test_the_interactive_response_time_law(queries, gpu, users, think):
    """R = N/X - Z: up to the last arrival each of N users waits for an answer, or thinks."""
    timeline = simulate(queries, gpu=gpu, arrivals=ClosedLoop(users, think))
    came, answered = timeline.arrivals, timeline.answered
    end = came.max()
    waiting = Fraction(float(np.maximum(np.minimum(answered, end) - came, 0).sum()))
    thinking = Fraction(float(np.maximum(np.minimum(answered + think, end) - answered, 0).sum()))
    active = min(users, len(queries))
    assert waiting + thinking == active * Fraction(float(end))


def test_a_pool_of_one_worker_is_a_single_server_of_its_own():
    """Workers of one query and one slot: work that arrives together and is served in turn."""
    (query,) = forked(np.array([5, 7, 9]), 3)
    timeline = simulate(query, protocol=Protocol(capacity=2))
    assert timeline.column("finish")[timeline.column("thread") > 0].tolist() == [5, 12, 21]
