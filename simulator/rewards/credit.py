"""Which thread a rollout's time, or its reward, is owed to: weights that a trainer can give to their tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from msgspec.structs import replace

from simulator.errors import ConfigError
from simulator.graph.compiler import compile_trace
from simulator.graph.critical_path import critical_path, t_levels
from simulator.rewards.batch import resolve
from simulator.rewards.result import Rollout
from simulator.rewards.spec import Reward
from simulator.support.checks import choose
from simulator.trace import ORGANIZER, Fork, Join, Trace, child_id
from simulator.trace.protocol import Protocol

How = Literal["path", "drag", "without"]

MAX_THREADS = 1000
"""The most threads of a rollout whose credit is asked for thread by thread: that takes time in their square."""


def credit(
    trace: Trace,
    protocol: Protocol | None = None,
    *,
    how: How = "path",
    reward: Reward | str = "asyncthink",
) -> dict[str, float]:
    """Return what each thread that ran is credited with.

    Parameters
    ----------
    trace : Trace
    protocol : Protocol, optional
        As of `score`.
    how : {"path", "drag", "without"}
        ``path``: its share of the decode steps on the critical path; they add up to 1 (all are 0 where there are none).
        ``drag``: by how many decode steps the answer would come sooner if the thread took none, each thread alone; they
        add up to at most T where only one path binds, and to less where others are as long.
        ``without``: for a worker, the reward less the reward without it, what is nested in it, its Fork and its Joins
        (and less what its own workers are credited with); for the organizer, what is left. They add up to the reward.
    reward : Reward or str
        For ``without``.

    Raises
    ------
    ConfigError
        If there is no such `how`, the reward cannot score the trace, or it has more than `MAX_THREADS` threads and is
        not credited by ``path``.

    Examples
    --------
    >>> from simulator.trace import Answer, Outcome, Return, Think, Thread
    >>> organizer = Thread("organizer", (Think(5), Fork(1), Think(3), Join(1), Answer(2)))
    >>> trace = Trace("t", (organizer, Thread("1", (Return(10),))), Outcome(correct=True))
    >>> {name: round(share, 3) for name, share in credit(trace).items()}
    {'organizer': 0.412, '1': 0.588}
    >>> credit(trace, how="drag")
    {'organizer': 7, '1': 7}
    >>> {name: round(share, 3) for name, share in credit(trace, Protocol(capacity=2), how="without").items()}
    {'organizer': 1.25, '1': 0.044}
    """
    choose(how, get_args(How), "how")
    if how == "without":
        return _without(trace, protocol, reward)
    graph = compile_trace(trace, protocol or Protocol())
    names = [thread.id for thread in graph.threads]
    weights = [graph.weight(task) for task in range(len(graph))]
    found = critical_path(graph, weights)
    steps = dict.fromkeys(names, 0.0)
    for task in found.path:
        steps[names[graph.tasks[task].thread]] += weights[task]
    if how == "path":
        return {name: value / found.latency if found.latency else 0.0 for name, value in steps.items()}
    _bound(names)
    drag = dict.fromkeys(names, 0.0)
    for place, name in enumerate(names):
        if steps[name]:  # a thread beside the path has none
            alone = [0 if graph.tasks[task].thread == place else weight for task, weight in enumerate(weights)]
            drag[name] = found.latency - (t_levels(graph, alone)[graph.answer] + alone[graph.answer])
    return drag


def utilities(
    trace: Trace,
    protocol: Protocol | None = None,
    *,
    reward: Reward | str = "lamas",
    term: str = "critical_tokens",
) -> dict[str, float]:
    """Return what each thread earns if only those on the critical path pay for latency: LAMaS (arXiv 2601.10560).

    A thread that the critical path goes through earns the reward. One beside it earns the reward without the term that
    prices latency: it could not have made the answer come sooner. LAMaS takes of each layer of operators the one with
    the most tokens; where a thread waits for all it has forked, as there, that is the critical path.

    Parameters
    ----------
    trace : Trace
    protocol : Protocol, optional
        As of `score`.
    reward : Reward or str
    term : str
        The term that prices latency.

    Raises
    ------
    ConfigError
        If the reward has no such term, or cannot score the trace.

    Examples
    --------
    >>> from simulator.trace import Answer, Outcome, Return, Think, Thread
    >>> organizer = Thread("organizer", (Think(100), Fork(1), Fork(2), Join(1), Join(2), Answer(10)))
    >>> workers = (Thread("1", (Return(500),)), Thread("2", (Return(300),)))
    >>> utilities(Trace("t", (organizer, *workers), Outcome(correct=True)))
    {'organizer': 0.999878, '1': 0.999878, '2': 1.0}
    """
    spec, rules = resolve(reward, protocol)
    choose(term, list(spec.terms), "term of the reward")
    found = spec.score(Rollout(trace, rules))
    shares = credit(trace, rules)
    free = found.total - found.terms[term]
    return {name: found.total if share > 0 else free for name, share in shares.items()}


def _without(trace: Trace, protocol: Protocol | None, reward: Reward | str) -> dict[str, float]:
    spec, rules = resolve(reward, protocol)
    rollout = Rollout(trace, rules)
    whole = spec.score(rollout).total
    names = [thread.id for thread in trace.threads if thread.id in rollout.clock.intervals]
    _bound(names)
    owed = dict.fromkeys(names, 0.0)
    for name in names[1:]:
        owed[name] = whole - spec.score(Rollout(without_worker(trace, name), rules)).total
    shares = dict(owed)
    for name in names[1:]:
        parent = name.rpartition(".")[0]
        if parent:
            shares[parent] -= owed[name]
    shares[ORGANIZER] = whole - sum(shares[name] for name in names[1:])
    return shares


def without_worker(trace: Trace, worker: str) -> Trace:
    """Return a trace without a worker, all nested in it, and the Forks and Joins of it.

    >>> from simulator.trace import Answer, Return, Thread
    >>> organizer = Thread("organizer", (Fork(1, 2), Join(1), Answer(3)))
    >>> trace = without_worker(Trace("t", (organizer, Thread("1", (Return(5),)))), "1")
    >>> trace.tokens, len(trace.threads)
    (3, 1)
    """
    parent = worker.rpartition(".")[0] or ORGANIZER
    threads = []
    for thread in trace.threads:
        if thread.id == worker or thread.id.startswith(f"{worker}."):
            continue
        if thread.id == parent:
            kept = [
                action
                for action in thread.actions
                if not (isinstance(action, (Fork, Join)) and child_id(parent, action.index) == worker)
            ]
            thread = replace(thread, actions=tuple(kept))
        threads.append(thread)
    return replace(trace, threads=tuple(threads))


def token_weights(trace: Trace, credited: Mapping[str, float]) -> dict[str, float]:
    """Return a weight for the tokens of each thread, which a trainer can multiply their advantage or loss by.

    A thread's tokens share its credit evenly. The mean weight over all tokens is what the credit adds up to.

    >>> from simulator.trace import Answer, Return, Think, Thread
    >>> organizer = Thread("organizer", (Think(5), Fork(1), Think(3), Join(1), Answer(2)))
    >>> trace = Trace("t", (organizer, Thread("1", (Return(10),))))
    >>> token_weights(trace, {"organizer": 0.25, "1": 0.75})
    {'organizer': 0.5, '1': 1.5}
    """
    tokens = {thread.id: thread.tokens for thread in trace.threads if thread.id in credited}
    total = sum(tokens.values())
    return {name: credited[name] * total / count if count else 0.0 for name, count in tokens.items()}


def _bound(names: list[str]) -> None:
    if len(names) > MAX_THREADS:
        raise ConfigError(f"credit by drag or without takes at most {MAX_THREADS} threads, got {len(names):,}")
