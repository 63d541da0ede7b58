"""Audit of rewards: what a reward follows, and how it can be gamed.

What a reward is held against is `Judge`: who is right, and how long it takes on a simulated machine. `audit_corpus`
looks at given rollouts; `search` makes its own, and shrinks what the reward has in the wrong order; `search_texts`
writes texts that lie about time. See docs/training.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from simulator.audit.adversary import Search, ready, search
from simulator.audit.climb import Climb
from simulator.audit.corpus import Corpus, Follows, TermFigures, audit_corpus, synthetic
from simulator.audit.exploits import EXPLOITS
from simulator.audit.forgeries import FORGERIES, Written
from simulator.audit.groups import GroupFigures, advantages
from simulator.audit.ranks import rank_correlation
from simulator.audit.shrink import smallest
from simulator.audit.texts import TextSearch, search_texts, text_reward
from simulator.audit.truth import Judge, Pair, Scored
from simulator.audit.written import as_written, reward_of_texts
from simulator.support.own import load_own
from simulator.trace import Trace

__all__ = [
    "EXPLOITS",
    "FORGERIES",
    "Audit",
    "Climb",
    "Corpus",
    "Follows",
    "GroupFigures",
    "Judge",
    "Pair",
    "Scored",
    "Search",
    "TermFigures",
    "TextSearch",
    "Written",
    "advantages",
    "as_written",
    "audit",
    "audit_corpus",
    "load_own",
    "rank_correlation",
    "reward_of_texts",
    "search",
    "search_texts",
    "smallest",
    "synthetic",
    "text_reward",
]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What an audit found."""

    judge: Judge
    corpus: Corpus
    searches: tuple[Search, ...]
    """One an exploit."""

    @property
    def pairs(self) -> dict[str, Pair]:
        """The pairs in the wrong order, by exploit."""
        return {each.exploit: each.pair for each in self.searches if each.pair is not None}


def audit(
    judge: Judge,
    traces: Iterable[Trace] | None = None,
    *,
    exploits: Iterable[str] | None = None,
    budget: int = 300,
    seed: int = 0,
    group_size: int = 8,
) -> Audit:
    """Audit a reward: over a corpus, and against an adversary.

    Parameters
    ----------
    judge : Judge
        The reward, and what it is held against.
    traces : iterable of Trace, optional
        The corpus. Default: `synthetic` groups.
    exploits, budget, seed
        See `search`. No exploits: no search.
    group_size : int
        See `audit_corpus`.

    Returns
    -------
    Audit

    Raises
    ------
    ConfigError
        See `search` and `audit_corpus`.

    >>> from simulator import Protocol, make_reward
    >>> found = audit(Judge(reward=make_reward("kimi_parl"), protocol=Protocol(capacity=4)), exploits=["late_forks"])
    >>> list(found.pairs), round(found.pairs["late_forks"].gain, 3)
    (['late_forks'], 0.125)
    """
    names = ready(exploits, budget, seed)  # before anything takes time
    given = synthetic(judge, size=group_size, seed=seed) if traces is None else traces
    corpus = audit_corpus(given, judge, group_size=group_size)
    searches = search(judge, names, budget=budget, seed=seed)
    return Audit(judge=judge, corpus=corpus, searches=tuple(searches))
