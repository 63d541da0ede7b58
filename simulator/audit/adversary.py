"""The search for pairs that a reward has in the wrong order, and their shrinking."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, replace
from random import Random
from typing import cast

from simulator.audit.climb import Climb
from simulator.audit.exploits import EXPLOITS, Exploit, Tosses
from simulator.audit.reasons import Sample, explain
from simulator.audit.shrink import smallest
from simulator.audit.truth import Judge, Pair
from simulator.errors import ConfigError
from simulator.support.checks import choose, whole
from simulator.trace import Trace

MAX_BUDGET = 1_000_000
_DEFAULT_POOL = 3  # workers that are taken to fit where there is no pool capacity
_MOST_POOL = 8
_RANGE = 5  # rollouts that the guided search tries for each pair of the budget
_SEEDS = 20  # pairs it begins with


@dataclass(frozen=True, kw_only=True)
class Search:
    """What became of the search for one exploit."""

    exploit: str
    """A key of `EXPLOITS`."""
    tried: int
    """Pairs that were drawn; of the guided search, rollouts that were tried."""
    found: int
    """How many of them the reward has in the wrong order; of the guided search, that earn more than one they should
    not."""
    pair: Pair | None
    """The smallest such pair that shrinking came to."""
    largest_gain: float
    """The most that A earned more than B in any pair that was drawn, or shrunk to; 0 where none was found."""
    reason: str
    """Why A earns more, in a sentence; empty where none was found."""


def search(judge: Judge, exploits: Iterable[str] | None = None, *, budget: int = 300, seed: int = 0) -> list[Search]:
    """Search for exploits of a reward, and shrink what is found.

    For each exploit, `budget` pairs are drawn from the seed and judged (see `Judge.pair`). If one is in the wrong
    order, hypothesis is asked for one too, and shrinks it; then every number in it is lowered as far as it goes. The
    guided search changes rollouts in place of drawing pairs, 5 for each pair of the budget (see `Climb`).

    Parameters
    ----------
    judge : Judge
    exploits : iterable of str, optional
        Keys of `EXPLOITS`. Default: all.
    budget : int
        Pairs to draw for each, from 1 to 1,000,000. Shrinking comes on top, up to 500 or so for each that
        is found.
    seed : int
        The same seed gives the same result; another release of hypothesis may shrink to another pair.

    Returns
    -------
    list of Search
        In the order of `exploits`.

    Raises
    ------
    ConfigError
        If an exploit is unknown, a number out of range, or hypothesis not installed.

    Examples
    --------
    >>> from simulator.trace.protocol import Protocol
    >>> from simulator.rewards import make_reward
    >>> judge = Judge(reward=make_reward("leverage"), protocol=Protocol(capacity=4))
    >>> found = search(judge, ["staggered"], budget=50)[0].pair
    >>> [type(action).__name__ for action in found.a.trace.organizer.actions]
    ['Fork', 'Join', 'Fork', 'Join', 'Answer']
    >>> [type(action).__name__ for action in found.b.trace.organizer.actions]
    ['Fork', 'Fork', 'Join', 'Join', 'Answer']
    """
    names = ready(exploits, budget, seed)
    judges = [replace(judge, any_time=True) if EXPLOITS[name].any_time else judge for name in names]
    explored = [_explore(each, name, budget, seed) for each, name in zip(judges, names, strict=True)]
    samples = [sample for _, _, found in explored for sample in found]
    rows = zip(judges, names, explored, strict=True)
    return [_search(each, name, budget, seed, outcome, samples) for each, name, outcome in rows]


def ready(exploits: Iterable[str] | None, budget: int, seed: int) -> list[str]:
    """Return the exploits that `search` would search.

    Raises
    ------
    ConfigError
        If it could not begin.
    """
    if isinstance(exploits, str):
        raise ConfigError(f"exploits must be a list of names, got {exploits!r}")
    names = list(EXPLOITS) if exploits is None else [choose(name, EXPLOITS, "exploit") for name in exploits]
    whole("budget", budget, f"from 1 to {MAX_BUDGET:,}")
    whole("seed", seed, f"from 0 to {2**63 - 1:,}")
    if names and importlib.util.find_spec("hypothesis") is None:
        raise ConfigError("the search for exploits needs hypothesis: pip install 'forksim[audit]'")
    return names


def _pool(judge: Judge) -> int:
    capacity = judge.protocol.capacity
    return _DEFAULT_POOL if capacity is None else max(1, min(capacity - 1, _MOST_POOL))


def _explore(judge: Judge, name: str, budget: int, seed: int) -> tuple[int, Pair | None, list[Sample]]:
    """Draw `budget` pairs; return how many are in the wrong order, the one with the largest gain, and all scores.

    These are plain tosses, so that no release of hypothesis changes them.
    """
    if EXPLOITS[name].guided:
        climb = Climb(judge, seed)
        climb.run(_RANGE * budget, _begun_with(judge, name, min(budget, _SEEDS), seed))
        return climb.found, climb.best, climb.samples
    found = 0
    best: Pair | None = None
    samples: list[Sample] = []
    for i in range(budget):
        traces = _drawn(judge, name, seed, i)
        samples.extend(sample for trace in traces if (sample := Sample.of(trace, judge)) is not None)
        pair = judge.pair(*traces)
        if pair is not None:
            found += 1
            best = pair if best is None or pair.gain > best.gain else best
    return found, best, samples


def _drawn(judge: Judge, name: str, seed: int, number: int) -> tuple[Trace, Trace]:
    bits = Random(f"{seed} {name} {number}")
    a, b = EXPLOITS[name].pair(Tosses(lambda: bits.random() < 0.5), _pool(judge))
    return judge.formed(a), judge.formed(b)


def _begun_with(judge: Judge, name: str, pairs: int, seed: int) -> Iterable[Trace]:
    for i in range(pairs):
        yield from _drawn(judge, name, seed, i)


def _search(
    judge: Judge,
    name: str,
    budget: int,
    seed: int,
    explored: tuple[int, Pair | None, list[Sample]],
    samples: list[Sample],
) -> Search:
    found, best, _ = explored
    tried = _RANGE * budget if EXPLOITS[name].guided else budget
    if best is None:
        return Search(exploit=name, tried=tried, found=0, pair=None, largest_gain=0.0, reason="")
    exploit = EXPLOITS[name]
    small = None if exploit.guided else _find(exploit, judge, budget, seed, name)
    pair = (judge.pair(*map(judge.formed, small)) if small is not None else None) or best
    pair = smallest(pair, judge, parts=exploit.free)
    reason = explain(pair, judge, samples)
    most = max(best.gain, pair.gain)
    return Search(exploit=name, tried=tried, found=found, pair=pair, largest_gain=most, reason=reason)


def _find(exploit: Exploit, judge: Judge, budget: int, seed: int, name: str) -> tuple[Trace, Trace] | None:
    """Return the smallest pair in the wrong order that hypothesis comes to; None if it does not even find one."""
    from hypothesis import HealthCheck, Phase, Verbosity, find, settings
    from hypothesis.errors import NoSuchExample, Unsatisfiable

    # Everything is said here: profiles that the caller's own tests have loaded must not change a result.
    fixed = settings(
        max_examples=budget,
        derandomize=False,
        database=None,
        verbosity=Verbosity.quiet,
        phases=(Phase.generate, Phase.shrink),
        stateful_step_count=50,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        deadline=None,
        print_blob=False,
    )
    try:
        return cast(
            tuple[Trace, Trace],
            find(
                exploit.strategy(_pool(judge)),
                lambda pair: judge.pair(*map(judge.formed, pair)) is not None,
                settings=fixed,
                random=Random(f"{seed} {name}"),
            ),
        )
    except (NoSuchExample, Unsatisfiable):
        return None
