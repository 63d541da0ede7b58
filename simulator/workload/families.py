"""Six families of thinking. A family is a function from a `numpy.random.Generator` to a `Trace`.

Token counts come from `Sizes`. What a runtime would do is done here too: a worker's prompt is the query, which it
shares with its parent, and its sub-query; a Join inserts what the worker returned and a closing tag. Every trace is
legal in a pool of ``meta["capacity"]`` agents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np

from simulator.errors import ConfigError
from simulator.support.checks import real, whole
from simulator.trace import (
    MAX_NESTING,
    ORGANIZER,
    Action,
    Answer,
    Delay,
    Fork,
    Join,
    Return,
    Think,
    Thread,
    Trace,
    child_id,
)
from simulator.workload.distributions import Constant, Distribution, LogNormal, Uniform

MAX_THREADS = 100_000
_MANY = f"from 1 to {MAX_THREADS}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Tokens of every part of a trace. The defaults are of the order of short mathematics; they are nobody's data."""

    query: Distribution = LogNormal(128, 0.5)
    """Prompt of the organizer, and the part of every worker's prompt that is shared with it."""
    think: Distribution = LogNormal(64, 0.5)
    """What a thread that forks thinks between two other actions."""
    sub_query: Distribution = Uniform(16, 48)
    work: Distribution = LogNormal(256, 0.6)
    """What a worker thinks before it returns, and all that a sequential organizer thinks."""
    takeaways: Distribution = Uniform(16, 64)
    answer: Distribution = Uniform(16, 64)
    tag: Distribution = Constant(5)
    """One tag, such as ``<FORK-1>``: about five tokens of a usual tokenizer."""

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not isinstance(getattr(self, name), Distribution):
                raise ConfigError(f"{name} must be a distribution, got {getattr(self, name)!r}")


_SIZES = Sizes()


class _Hired(NamedTuple):
    fork: Fork
    thread: Thread
    join: Join


class _Draw:
    """One trace's random numbers. Each size is drawn by its name, so that a family reads like the trace it makes."""

    def __init__(self, rng: np.random.Generator, sizes: Sizes) -> None:
        self.rng = rng
        self.sizes = sizes
        self.query = self("query")

    def __call__(self, name: str) -> int:
        return int(getattr(self.sizes, name).sample(self.rng, 1)[0])

    def think(self) -> Think:
        return Think(self("think"))

    def answer(self) -> Answer:
        return Answer(self("answer") + 2 * self("tag"))

    def hire(self, index: int, *, parent: str = ORGANIZER, inner: list[Action] | None = None) -> _Hired:
        """Return the three parts of one worker; `inner` stands in for what it thinks."""
        sub_query, takeaways, tag = self("sub_query"), self("takeaways"), self("tag")
        work: list[Action] = [Think(self("work"))] if inner is None else inner
        thread = Thread(
            child_id(parent, index),
            (*work, Return(takeaways + 2 * tag)),
            prompt_tokens=self.query + sub_query,
            shared_tokens=self.query,
        )
        return _Hired(Fork(index, sub_query + 2 * tag), thread, Join(index, tag, takeaways + tag))

    def trace(self, family: str, actions: list[Action], workers: list[Thread], *, capacity: int) -> Trace:
        organizer = Thread(ORGANIZER, tuple(actions), prompt_tokens=self.query)
        meta: dict[str, str | int | float | bool | None] = {"family": family, "capacity": capacity}
        return Trace(family, (organizer, *workers), token_source="synthetic", meta=meta)


def sequential(rng: np.random.Generator, *, sizes: Sizes = _SIZES) -> Trace:
    """Return one thread that thinks and answers.

    >>> trace = sequential(np.random.default_rng(0), sizes=Sizes(work=Constant(300), answer=Constant(20)))
    >>> trace.organizer.actions
    (Think(tokens=300, text=None, start=None, finish=None), Answer(tokens=30, text=None, start=None, finish=None))
    """
    draw = _Draw(rng, sizes)
    return draw.trace("sequential", [Think(draw("work")), draw.answer()], [], capacity=1)


def parallel(rng: np.random.Generator, *, workers: int = 3, sizes: Sizes = _SIZES) -> Trace:
    """Return `workers` threads that each get the whole query, joined at the end.

    A harness starts them and counts their votes, so the organizer decodes nothing and the critical path is the longest
    worker.

    >>> trace = parallel(np.random.default_rng(0), workers=5)
    >>> len(trace.threads), trace.organizer.tokens, trace.threads[1].prompt_tokens == trace.organizer.prompt_tokens
    (6, 0, True)
    """
    whole("workers", workers, _MANY)
    draw = _Draw(rng, sizes)
    forks: list[Action] = []
    joins: list[Action] = []
    threads = []
    for index in range(1, workers + 1):
        hired = draw.hire(index)
        forks.append(Fork(index))
        threads.append(msgspec.structs.replace(hired.thread, prompt_tokens=draw.query))
        joins.append(Join(index, 0, hired.join.inserted_tokens))
    return draw.trace("parallel", [*forks, *joins, Answer()], threads, capacity=workers + 1)


def batch(rng: np.random.Generator, *, workers: int = 3, rounds: int = 2, sizes: Sizes = _SIZES) -> Trace:
    """Return `rounds` of: fork all `workers`, think on, join all.

    >>> trace = batch(np.random.default_rng(0), workers=2, rounds=1)
    >>> [type(action).__name__ for action in trace.organizer.actions]
    ['Think', 'Fork', 'Fork', 'Think', 'Join', 'Join', 'Think', 'Answer']
    """
    whole("workers", workers, _MANY)
    whole("rounds", rounds, f"from 1 to {MAX_THREADS // workers}")
    draw = _Draw(rng, sizes)
    actions: list[Action] = [draw.think()]
    threads = []
    for first in range(1, rounds * workers + 1, workers):
        hired = [draw.hire(index) for index in range(first, first + workers)]
        threads += [one.thread for one in hired]
        actions += [*(one.fork for one in hired), draw.think(), *(one.join for one in hired), draw.think()]
    return draw.trace("batch", [*actions, draw.answer()], threads, capacity=workers + 1)


def interleaved(rng: np.random.Generator, *, workers: int = 3, forks: int = 6, sizes: Sizes = _SIZES) -> Trace:
    """Return `forks` staggered sub-queries: fork, think on, and once `workers` run, join the oldest to fork the next.

    >>> trace = interleaved(np.random.default_rng(0), workers=2, forks=3)
    >>> [f"{type(a).__name__} {a.index}" for a in trace.organizer.actions if isinstance(a, (Fork, Join))]
    ['Fork 1', 'Fork 2', 'Join 1', 'Fork 3', 'Join 2', 'Join 3']
    """
    whole("workers", workers, _MANY)
    whole("forks", forks, _MANY)
    draw = _Draw(rng, sizes)
    actions: list[Action] = [draw.think()]
    hired = [draw.hire(index) for index in range(1, forks + 1)]
    for index, one in enumerate(hired):
        if index >= workers:
            actions += [hired[index - workers].join, draw.think()]
        actions += [one.fork, draw.think()]
    actions += [action for one in hired[-workers:] for action in (one.join, draw.think())]
    threads = [one.thread for one in hired]
    return draw.trace("interleaved", [*actions, draw.answer()], threads, capacity=workers + 1)


def random_organizer(
    rng: np.random.Generator,
    *,
    workers: int = 3,
    actions: int = 24,
    unjoined: float = 0.0,
    delay: float = 0.0,
    delay_seconds: float = 1.0,
    sizes: Sizes = _SIZES,
) -> Trace:
    """Return a random legal sequence of `actions`, each equally likely among those that are legal there.

    Legal: at most `workers` forked and not joined; only those are joined, in any order. What is left at the end is
    joined, or each left with probability `unjoined`; then comes the Answer. Each action is, with probability `delay`,
    a Delay instead: exponential with mean `delay_seconds`.

    >>> trace = random_organizer(np.random.default_rng(2), actions=6, delay=0.2)
    >>> [type(action).__name__ for action in trace.organizer.actions]
    ['Think', 'Fork', 'Delay', 'Think', 'Fork', 'Join', 'Join', 'Answer']
    """
    whole("workers", workers, _MANY)
    whole("actions", actions, f"from 0 to {MAX_THREADS}")
    real("unjoined", unjoined, "from 0 to 1")
    real("delay", delay, "from 0 to 1")
    real("delay_seconds", delay_seconds, "from 0 to 1e+06")
    draw = _Draw(rng, sizes)
    chosen: list[Action] = []
    threads: list[Thread] = []
    live: list[Join] = []
    for _ in range(actions):
        if rng.random() < delay:
            chosen.append(Delay(round(rng.exponential(delay_seconds), 3)))
            continue
        legal = ["think", *(["fork"] if len(live) < workers else []), *(["join"] if live else [])]
        kind = legal[rng.integers(len(legal))]
        if kind == "think":
            chosen.append(draw.think())
        elif kind == "join":
            chosen.append(live.pop(rng.integers(len(live))))
        else:
            hired = draw.hire(len(threads) + 1)
            chosen.append(hired.fork)
            threads.append(hired.thread)
            live.append(hired.join)
    chosen += [join for join in live if rng.random() >= unjoined]
    return draw.trace("random_organizer", [*chosen, draw.answer()], threads, capacity=workers + 1)


def nested(rng: np.random.Generator, *, workers: int = 2, depth: int = 2, sizes: Sizes = _SIZES) -> Trace:
    """Return a tree: every thread above `depth` forks `workers`, thinks on and joins them.

    >>> [thread.id for thread in nested(np.random.default_rng(0)).threads]
    ['organizer', '1', '1.1', '1.2', '2', '2.1', '2.2']
    """
    whole("workers", workers, _MANY)
    whole("depth", depth, f"from 1 to {MAX_NESTING}")
    total = sum(workers**level for level in range(depth + 1))
    if total > MAX_THREADS:
        raise ConfigError(f"{workers} workers to depth {depth} are {total} threads; at most {MAX_THREADS} are made")
    draw = _Draw(rng, sizes)
    threads: list[Thread] = []

    def grow(parent: str, levels: int) -> list[Action]:
        hired = []
        for index in range(1, workers + 1):
            position = len(threads)
            inner = grow(child_id(parent, index), levels - 1) if levels > 1 else None
            hired.append(draw.hire(index, parent=parent, inner=inner))
            threads.insert(position, hired[-1].thread)  # a parent comes before its children
        return [
            draw.think(),
            *(one.fork for one in hired),
            draw.think(),
            *(one.join for one in hired),
            draw.think(),
        ]

    actions = grow(ORGANIZER, depth)
    return draw.trace("nested", [*actions, draw.answer()], threads, capacity=total)


FAMILIES: dict[str, Callable[..., Trace]] = {
    "sequential": sequential,
    "parallel": parallel,
    "batch": batch,
    "interleaved": interleaved,
    "random_organizer": random_organizer,
    "nested": nested,
}
"""The families of synthetic traces by name. Each function returns one trace."""
