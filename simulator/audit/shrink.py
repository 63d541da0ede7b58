"""Making a pair smaller: fewer threads, fewer actions, and each number as small as the pair allows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeVar

from msgspec.structs import replace

from simulator.audit.truth import Judge, Pair
from simulator.graph.clock import decode_clock
from simulator.rewards import Score, without_worker
from simulator.trace import ORGANIZER, Action, Answer, Delay, Fork, Join, Think, Thread, Trace, ViolationKind, child_id

TRIES = 4_000
"""The most pairs that are judged while one is made smaller."""

_A = TypeVar("_A", bound=Action)


class _Spent(Exception):
    """No more tries are left."""


def smallest(pair: Pair, judge: Judge, tries: int = TRIES, *, parts: bool = True) -> Pair:
    """Return a smaller pair that is still in the wrong order.

    Parts are left out, large ones first; then every number of tokens is lowered, to 1 at least, for as long as the
    order stays wrong. What is left cannot lose any one part, nor a token of any one number, unless `tries` ran out.

    Parameters
    ----------
    pair : Pair
    judge : Judge
        Whose pair it is.
    tries : int
        The most pairs that are judged on the way.
    parts : bool
        Whether parts may be left out. If not, only numbers are lowered, and A goes on breaking the rules it breaks.

    Returns
    -------
    Pair

    >>> from simulator.audit.exploits import Draft
    >>> from simulator.rewards import make_reward
    >>> from simulator.trace.protocol import Protocol
    >>> judge = Judge(reward=make_reward("kimi_parl"), protocol=Protocol(capacity=4), gpu="steps")
    >>> a = Draft().think(500).fork(300, 20).fork(40).join(1).trace("A", correct=True)
    >>> small = smallest(judge.pair(a, Draft().think(100).trace("B", correct=True)), judge)
    >>> [(type(action).__name__, action.tokens) for action in small.a.trace.organizer.actions]
    [('Fork', 1), ('Answer', 1)]
    """
    left, kinds = tries, _broken(pair.a.score)

    def judged(a: Trace, b: Trace) -> Pair | None:
        nonlocal left
        if not left:
            raise _Spent
        left -= 1
        found = judge.pair(judge.formed(a), judge.formed(b))
        return found if found is None or parts or _broken(found.a.score) == kinds else None

    before = None
    try:
        while before != pair:
            before = pair
            for smaller in (_parts, _values) if parts else (_values,):
                for is_a in (True, False):
                    pair = _lowered(pair, is_a, smaller, judged)
            pair = _lowered_together(pair, judged)
    except _Spent as spent:
        (pair,) = spent.args or (pair,)
    return pair


def _broken(score: Score) -> set[ViolationKind]:
    return {violation.kind for violation in score.violations}


def _lowered(
    pair: Pair,
    is_a: bool,
    candidates: Callable[[Trace], Iterator[Trace]],
    judged: Callable[[Trace, Trace], Pair | None],
) -> Pair:
    """Take smaller candidates of A (or B) that leave the order wrong, one after another."""
    at, again = 0, True
    try:
        while again:
            again = False
            for trace in islice(candidates((pair.a if is_a else pair.b).trace), at, None):
                found = judged(trace, pair.b.trace) if is_a else judged(pair.a.trace, trace)
                if found is not None and _size(found) < _size(
                    pair
                ):  # what came before would hardly do now, and the next round looks again
                    pair, again = found, True
                    break
                at += 1
    except _Spent:
        raise _Spent(pair) from None
    return pair


def _lowered_together(pair: Pair, judged: Callable[[Trace, Trace], Pair | None]) -> Pair:
    """Lower what stands in both: all numbers by the same share, or all of one value."""
    again = True
    try:
        while again:
            again = False
            values = [_count(trial.trace) for trial in pair]
            changes: list[Callable[[int], int]] = [lambda value: value // 10, lambda value: value // 2]
            changes.append(lambda value: value * 9 // 10)
            for common in sorted(values[0].keys() & values[1].keys()):
                changes += [
                    lambda value, common=common, less=less: less if value == common else value  # type: ignore[misc]
                    for less in _below(common, 1)
                ]
            for change in changes:
                a, b = (_changed(trial.trace, change) for trial in pair)
                found = judged(a, b) if (a, b) != (pair.a.trace, pair.b.trace) else None
                if found is not None and _size(found) < _size(pair):
                    pair, again = found, True
                    break
    except _Spent:
        raise _Spent(pair) from None
    return pair


def _size(pair: Pair) -> tuple[int, float]:
    """Return how large a pair is: its actions, then its numbers."""
    size = 0.0
    for trial in pair:
        for _, _, action in trial.trace.actions():
            size += action.seconds if isinstance(action, Delay) else action.tokens
            size += action.inserted_tokens if isinstance(action, Join) else 0
    return pair.a.actions + pair.b.actions, size


def _count(trace: Trace) -> Counter[int]:
    return Counter(action.tokens for _, _, action in trace.actions() if not isinstance(action, (Delay, Join)))


def _parts(trace: Trace) -> Iterator[Trace]:
    """Yield a trace without a part of it: a run of the organizer's actions, a worker, an action of a worker.

    The last Answer stays: a rollout without one is rarely what is meant. First comes one that does nothing but think.
    """
    organizer = trace.organizer
    answer = next((action for action in organizer.actions if isinstance(action, Answer)), Answer(1))
    if len(trace.threads) > 1 or len(organizer.actions) > 2:
        thought = decode_clock(trace).latency - answer.tokens
        alone = replace(organizer, actions=(Think(max(1, thought)), answer))
        yield replace(trace, threads=(alone,))
    size = len(organizer.actions)
    while size:
        for start in range(0, len(organizer.actions), size):
            run = organizer.actions[start : start + size]
            rest = (*organizer.actions[:start], *organizer.actions[start + size :])
            if sum(isinstance(action, Answer) for action in rest) or not any(isinstance(each, Answer) for each in run):
                kept = {action.index for action in rest if isinstance(action, Fork)}
                gone = {child_id(ORGANIZER, action.index) for action in run if isinstance(action, Fork)} - {
                    child_id(ORGANIZER, index) for index in kept
                }
                yield _with(trace, organizer, rest, gone)
        size //= 2
    for action in organizer.actions:
        if isinstance(action, Fork):
            yield without_worker(trace, child_id(ORGANIZER, action.index))
    for worker in trace.threads[1:]:
        for place, action in enumerate(worker.actions):
            gone = {child_id(worker.id, action.index)} if isinstance(action, Fork) else set()
            yield _with(trace, worker, (*worker.actions[:place], *worker.actions[place + 1 :]), gone)


def _with(trace: Trace, thread: Thread, actions: tuple[Action, ...], gone: set[str]) -> Trace:
    """Return a trace in which a thread does something else, and some workers are not there, nor what they forked."""
    threads = tuple(
        replace(each, actions=actions) if each.id == thread.id else each
        for each in trace.threads
        if not any(each.id == name or each.id.startswith(f"{name}.") for name in gone)
    )
    return replace(trace, threads=threads)


def _values(trace: Trace) -> Iterator[Trace]:
    """Yield a trace with one of its numbers lowered, to the least, by half, by one, or all that are equal at once."""
    for value in sorted(value for value, times in _count(trace).items() if times > 1):
        for tokens in _below(value, 1):
            yield _changed(trace, lambda each, value=value, tokens=tokens: tokens if each == value else each)  # type: ignore[misc]
    for thread in trace.threads:
        for place, action in enumerate(thread.actions):
            for less in _less(action):
                actions = (*thread.actions[:place], less, *thread.actions[place + 1 :])
                yield _with(trace, thread, actions, set())


def _changed(trace: Trace, change: Callable[[int], int]) -> Trace:
    """Return a trace in which every action has other tokens, at least 1."""
    threads = []
    for thread in trace.threads:
        actions = tuple(
            action if isinstance(action, (Delay, Join)) else replace(action, tokens=max(1, change(action.tokens)))
            for action in thread.actions
        )
        threads.append(replace(thread, actions=actions))
    return replace(trace, threads=tuple(threads))


def _less(action: Action) -> Iterator[Action]:
    if isinstance(action, Delay):
        if action.seconds > 1:
            yield from (replace(action, seconds=1.0), replace(action, seconds=float(int(action.seconds / 2))))
        return
    for tokens in _below(action.tokens, 0 if isinstance(action, Join) else 1):
        yield replace(action, tokens=tokens)
    if isinstance(action, Join):
        for tokens in _below(action.inserted_tokens, 0):
            yield replace(action, inserted_tokens=tokens)


def _below(value: int, least: int) -> list[int]:
    """Return smaller numbers, the least first.

    >>> _below(100, 1), _below(2, 1), _below(1, 1)
    ([1, 50, 75, 99], [1], [])
    """
    return sorted(
        {max(each, least) for each in (least, value // 2, value * 3 // 4, value - 1) if least <= each < value}
    )
