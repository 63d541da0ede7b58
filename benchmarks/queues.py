"""Queues with a known answer, as loads on a modelled GPU; `queueing.py` runs them, and `tests/engine/test_queueing.py`
holds them.

What a GPU is in queueing theory depends on what a step costs; see docs/validation.md. A mean request has `TOKENS`
tokens and takes one second alone, so a step is `STEP` seconds: times are rounded up to it, which is far below any
interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial

import numpy as np

from simulator import GPU, ClosedLoop, Cluster, ExecutionGraph, LinearBatch, simulate
from simulator.graph import GraphThread, Task
from simulator.machine.routing import least_loaded, round_robin
from simulator.workload import poisson_arrivals

TOKENS = 10_000
STEP = 1 / TOKENS

# Sizes of requests: tokens, TOKENS in the mean. Each function returns n of them.


def exponential(rng, n):
    return rng.geometric(1 / TOKENS, n)  # memoryless in steps, as the exponential is in seconds


def constant(rng, n):
    return np.full(n, TOKENS)


def two_point(rng, n):
    """Nine of ten take a tenth, the tenth 9.1 times the mean: squared coefficient of variation 7.29."""
    return np.where(rng.random(n) < 0.1, 91 * TOKENS // 10, TOKENS // 10)


SECOND_MOMENT = {exponential: 2.0, constant: 1.0, two_point: 8.29}

# Queries: one request, one worker, or k workers of an organizer that decodes nothing itself.


def alone(tokens):
    return [ExecutionGraph((Task(0, size),)) for size in tokens.tolist()]


def forked(tokens, k):
    """Return queries of k workers each, answered when the last has returned."""
    threads = tuple(map(GraphThread, ("organizer", *map(str, range(1, k + 1)))))
    workers = tuple(range(1, k + 1))
    first, last = Task(0, forks=workers), Task(0, joins=workers)
    return [
        ExecutionGraph((first, *(Task(i, size) for i, size in enumerate(sizes, 1)), last), threads)
        for sizes in tokens.reshape(-1, k).tolist()
    ]


# GPUs.


def shares(a, b, **limits):
    """Return a GPU whose step takes `a` + `b` n, in units of `STEP`."""
    return GPU(cost=LinearBatch(a=a * STEP, b=b * STEP), **limits)


SINGLE = shares(1, 0, max_num_seqs=1)
SHARING = shares(0, 1)

# What is measured. Ends are cut: the first queries find an empty system, the last ones have nobody behind them.
# A run gives the mean sojourn, and how far what was drawn is off its known mean: those are the control variates.


def kept(values):
    cut = len(values) // 10
    return values[cut:-cut]


def outcome(timeline, sizes, tokens, gaps=None):
    """Return the mean sojourn, and the deviations of the mean size, of its square and of the mean gap (if drawn)."""
    drawn = kept(tokens.reshape(len(timeline), -1)) / TOKENS
    off = [drawn.mean() - 1, (drawn**2).mean() / SECOND_MOMENT[sizes] - 1] if sizes is not constant else []
    if gaps is not None:
        off.append(kept(gaps).mean() - 1)
    return float(kept(timeline.latency).mean()), off


def open_load(rate, gpu, *, sizes=exponential, k=None, **options):
    """Return a function that runs n Poisson queries, of one request or of `k` workers, at `scale` times the rate."""

    def run(rng, n, scale):
        arrivals = poisson_arrivals(n, rate * scale, rng)
        tokens = sizes(rng, n * (k or 1))
        graphs = alone(tokens) if k is None else forked(tokens, k)
        timeline = simulate(graphs, gpu=gpu, arrivals=arrivals, **options)
        return outcome(timeline, sizes, tokens, np.diff(arrivals, prepend=0.0) * rate * scale)

    return run


def closed_load(users, think, gpu, *, sizes=exponential):
    """Return a function that runs n queries of `users`, who ask again `think` / `scale` seconds after each answer."""

    def run(rng, n, scale):
        tokens = sizes(rng, n)
        return outcome(simulate(alone(tokens), gpu=gpu, arrivals=ClosedLoop(users, think / scale)), sizes, tokens)

    return run


# Theory: mean sojourns in units of the mean service.


def mm1(rate):
    return 1 / (1 - rate)


def pollaczek_khinchine(rate, second_moment):
    return 1 + rate * second_moment / (2 * (1 - rate))


def erlang_c(rate, servers):
    """M/M/c: the probability of waiting (Erlang C) over the rate at which a full system drains, and the service."""
    full = rate**servers / factorial(servers) * servers / (servers - rate)
    waits = full / (sum(rate**n / factorial(n) for n in range(servers)) + full)
    return 1 + waits / (servers - rate)


def renewal(rate, servers):
    """E_c/M/1: every c-th of Poisson arrivals; sigma solves sigma = A*(1 - sigma) (Kleinrock 1975, chapter 6)."""
    sigma = 0.5
    for _ in range(10_000):
        sigma = (rate / (rate + 1 - sigma)) ** servers
    return 1 / (1 - sigma)


def fork_join_2(rate):
    """Two queues, each query a task in each: exact (Nelson and Tantawi 1988, after Flatto and Hahn 1984)."""
    return (12 - rate) / 8 * mm1(rate)


def harmonic(k):
    """The mean of the longest of k exponentials."""
    return sum(1 / i for i in range(1, k + 1))


def batching(rate, a, b, limit=None, most=2000):
    """M/M/1 with a rate that depends on the number n in service: n sequences end n / (a + b n) requests a second.

    Without a limit it is Cohen's generalised processor sharing (1979): the same for sizes of any distribution.
    """
    weights, weight = [1.0], 1.0
    for n in range(1, most):
        served = min(n, limit or n)
        weight *= rate * (a + b * served) / served
        weights.append(weight)
        if weight < 1e-30 * max(weights):
            break
    total = sum(weights)
    return sum(n * w for n, w in enumerate(weights)) / total / rate


def shortest_queue(rate, most=60):
    """Two servers, each arrival to the shorter queue: the balance equations of a truncated chain, solved."""
    from scipy.sparse import coo_array, identity
    from scipy.sparse.linalg import spsolve

    here, there, flow = [], [], []
    for i in range(most):
        for j in range(most):
            moves = []
            if i <= j and i + 1 < most:
                moves.append((i + 1, j, rate))
            elif i > j and j + 1 < most:
                moves.append((i, j + 1, rate))
            moves += [(i - 1, j, 1.0)] * (i > 0) + [(i, j - 1, 1.0)] * (j > 0)
            for to_i, to_j, speed in moves:
                here.append(i * most + j)
                there.append(to_i * most + to_j)
                flow.append(speed)
    size = most * most
    out = np.bincount(here, flow, size)
    balance = coo_array((flow, (there, here)), (size, size)).tolil() - identity(size, format="lil").multiply(out)
    balance = balance.tolil()
    balance[0] = 1.0  # probabilities add up to 1
    right = np.zeros(size)
    right[0] = 1.0
    p = spsolve(balance.tocsc(), right).reshape(most, most)
    number = np.arange(most)
    return float((p.sum(1) @ number + p.sum(0) @ number) / rate)


def mean_value_analysis(users, think):
    """Reiser and Lavenberg 1980: one queue of rate 1, and a think time of any distribution."""
    queue = 0.0
    for n in range(1, users + 1):
        sojourn = 1 + queue
        queue = n * sojourn / (think + sojourn)
    return sojourn


def repair(users, think, a, b):
    """The machine-repairman model with the rate of `batching`: by its stationary distribution, and Little's law."""
    weights = [1.0]
    for n in range(1, users + 1):
        weights.append(weights[-1] * (users - n + 1) / think * (a + b * n) / n)
    p = np.array(weights) / sum(weights)
    number = np.arange(users + 1)
    return float(p @ number / (p @ (users - number) / think))


@dataclass(frozen=True)
class Case:
    """A queue, its mean sojourn in theory, and a run of n queries that measures it."""

    name: str
    setting: str
    theory: Callable[[float], float]
    """The mean sojourn, at `scale` times the case's load."""
    run: Callable[[np.random.Generator, int, float], tuple[float, list[float]]]
    work: float = 1.0
    """How many more queries it takes than M/M/1 at 0.6 for an interval as tight."""


def _open(name, setting, rate, theory, gpu, work=1.0, **options):
    return Case(name, setting, lambda scale: theory(rate * scale), open_load(rate, gpu, **options), work)


def _closed(name, setting, users, think, theory, gpu, **options):
    return Case(name, setting, lambda scale: theory(users, think / scale), closed_load(users, think, gpu, **options))


PAIR = Cluster(replicas=(SINGLE, SINGLE), routing=round_robin)
SHORTEST = Cluster(replicas=(SINGLE, SINGLE), routing=least_loaded)
_BATCH = (0.8, 0.2)  # a step of one sequence takes STEP, of five 1.8 STEP: five times the work in 1.8 times the time

CASES = (
    _open("M/M/1", "max_num_seqs=1, load 0.6", 0.6, mm1, SINGLE),
    _open("M/D/1", "max_num_seqs=1, load 0.6", 0.6, lambda r: pollaczek_khinchine(r, 1), SINGLE, 0.5, sizes=constant),
    _open(
        "M/G/1",
        "max_num_seqs=1, load 0.4, two-point sizes",
        0.4,
        lambda r: pollaczek_khinchine(r, SECOND_MOMENT[two_point]),
        SINGLE,
        2.0,
        sizes=two_point,
    ),
    *(
        _open("M/G/1-PS", f"a=0, no limit, load 0.6, {name} sizes", 0.6, mm1, SHARING, work, sizes=sizes)
        for name, sizes, work in (
            ("exponential", exponential, 1.0),
            ("constant", constant, 1.0),
            ("two-point", two_point, 3.0),
        )
    ),
    *(
        _open(
            "batching",
            f"a=0.8, b=0.2, no limit, load 0.5, {name} sizes",
            2.5,
            lambda r: batching(r, *_BATCH),
            shares(*_BATCH),
            work,
            sizes=sizes,
        )
        for name, sizes, work in (("exponential", exponential, 1.0), ("two-point", two_point, 3.0))
    ),
    _open(
        "batching, limited",
        "a=0.8, b=0.2, max_num_seqs=4",
        1.8,
        lambda r: batching(r, *_BATCH, limit=4),
        shares(*_BATCH, max_num_seqs=4),
    ),
    _open("M/M/4", "b=0, max_num_seqs=4, load 0.75", 3.0, lambda r: erlang_c(r, 4), shares(1, 0, max_num_seqs=4)),
    _open(
        "M/M/3",
        "b=0, max_workers=3, load 0.7, a worker a query",
        2.1,
        lambda r: erlang_c(r, 3),
        shares(1, 0),
        k=1,
        max_workers=3,
    ),
    _open("E2/M/1", "2 replicas, round-robin, load 0.6", 1.2, lambda r: renewal(r, 2), PAIR),
    _open("shortest queue", "2 replicas, least-loaded, load 0.7", 1.4, shortest_queue, SHORTEST),
    _open("fork-join, 2 queues", "2 replicas, 2 workers a query, load 0.6", 0.6, fork_join_2, PAIR, 1.5, k=2),
    _open("fork-join, no queue", "b=0, no limit, 5 workers a query", 1.0, lambda r: harmonic(5), shares(1, 0), k=5),
    _closed("M/M/1, 5 users", "max_num_seqs=1, think 4 s", 5, 4.0, mean_value_analysis, SINGLE),
    _closed("PS, 5 users", "a=0, two-point sizes, think 4 s", 5, 4.0, mean_value_analysis, SHARING, sizes=two_point),
    _closed(
        "batching, 8 users",
        "a=0.8, b=0.2, two-point sizes, think 2 s",
        8,
        2.0,
        lambda users, think: repair(users, think, *_BATCH),
        shares(*_BATCH),
        sizes=two_point,
    ),
)


def interval(outcomes, confidence=0.99):
    """Return the mean of independent outcomes, corrected by their controls, and half of its Student-t interval.

    The intercept of a least-squares fit of the outcomes to their controls, whose true means are 0 (Law, Simulation
    Modeling and Analysis, 11.4). Without controls it is the plain mean and its interval.
    """
    from scipy.special import stdtrit

    values = np.array([value for value, _ in outcomes])
    design = np.array([[1.0, *off] for _, off in outcomes])
    fitted, *_ = np.linalg.lstsq(design, values, rcond=None)
    free = len(values) - design.shape[1]
    residual = float(((values - design @ fitted) ** 2).sum()) / free
    spread = float(residual * np.linalg.inv(design.T @ design)[0, 0]) ** 0.5
    return float(fitted[0]), float(stdtrit(free, (1 + confidence) / 2) * spread)


def measured(case, queries, replications, *, seed=0, scale=1.0):
    """Return the mean sojourn in `replications` independent runs, and half the width of its 99 % interval."""
    children = np.random.SeedSequence(seed).spawn(replications)
    each = int(queries * case.work)
    return interval([case.run(np.random.default_rng(child), each, scale) for child in children])
