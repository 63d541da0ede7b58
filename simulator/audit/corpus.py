"""What a reward follows over many rollouts, and what a trainer would make of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from simulator.audit.groups import GroupFigures, weigh_groups
from simulator.audit.ranks import rank_correlation
from simulator.audit.truth import Judge, Scored
from simulator.errors import ConfigError
from simulator.support.checks import real, whole
from simulator.trace import Outcome, Trace
from simulator.workload import generate

_FAMILIES = ("sequential", "parallel", "batch", "interleaved", "random_organizer")
_MOST_WORKERS = 8


@dataclass(frozen=True, kw_only=True)
class Follows:
    """How a reward ranks rollouts, against one quantity: Spearman's rho. NaN where one of the two never differs."""

    all: float
    """Over all rollouts."""
    right: float
    """Over those that are wholly right. There a reward has nothing left to tell apart but how it was done."""


@dataclass(frozen=True, kw_only=True)
class TermFigures:
    """One term over the corpus."""

    mean: float
    std: float
    share: float
    """Share of the reward's variance that is this term's: ``cov(term, total) / var(total)``. Shares add up to 1."""
    most: float
    """Its greatest value."""
    at_most: float
    """Share of the rollouts that share its greatest value: those at a cap, who earn nothing more by more of it."""
    follows_correctness: float
    """Rank correlation with correctness."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What a reward does over a corpus."""

    traces: int
    """Rollouts that were scored."""
    unscored: tuple[str, ...]
    """Ids of those that could not be."""
    judged: int
    """How many of the scored have an outcome; the others count as wrong."""
    right: int
    gated: int
    """How many the gate was closed to."""
    follows: dict[str, Follows]
    """By quantity: ``correctness``, ``seconds``, ``T``, ``eta``, ``tokens``."""
    terms: dict[str, TermFigures]
    groups: GroupFigures


def synthetic(
    judge: Judge, *, groups: int = 32, size: int = 8, seed: int = 0, right: float | None = None
) -> list[Trace]:
    """Return groups of synthetic rollouts, each group of all ways of organizing, right or wrong by the toss of a coin.

    Whether an answer is right has nothing to do with how it was come by: so whatever a reward pays for organization
    shows. The families are `simulator.workload`'s, with as many workers as fit into the pool, at most 8.

    Parameters
    ----------
    judge : Judge
        Whose protocol says how many workers fit.
    groups, size : int
        How many groups, of how many rollouts.
    seed : int
    right : float, optional
        Probability of a right answer. Default: each group has its own, as questions are easy or hard: uniform from 0
        to 1.

    Returns
    -------
    list of Trace
        Group after group; ``meta["group"]`` says which.

    Raises
    ------
    ConfigError
        If a number is out of range.

    >>> from simulator.trace.protocol import Protocol
    >>> from simulator.rewards import make_reward
    >>> judge = Judge(reward=make_reward("parallel_r1"), protocol=Protocol(), gpu="steps")
    >>> [(trace.id, trace.meta["group"]) for trace in synthetic(judge, groups=2, size=2)]
    [('sequential-0-0', 0), ('parallel-0-1', 0), ('batch-0-2', 1), ('interleaved-0-3', 1)]
    """
    whole("groups", groups, "from 1 to 100,000")
    whole("size", size, "from 1 to 100,000")
    real("right", right, "from 0 to 1, or None", kind="a probability")
    capacity = judge.protocol.capacity
    workers = 3 if capacity is None else min(capacity - 1, _MOST_WORKERS)
    families = _FAMILIES if workers else _FAMILIES[:1]
    traces = []
    for i in range(groups * size):
        family = families[i % len(families)]
        options = {} if family == "sequential" else {"workers": workers}
        (trace,) = generate(family, 1, seed=seed, start=i, **options)
        chance = float(np.random.default_rng([seed, i // size, 2]).random()) if right is None else right
        verdict = Outcome(correct=bool(np.random.default_rng([seed, i, 1]).random() < chance))
        traces.append(msgspec.structs.replace(trace, outcome=verdict, meta={**trace.meta, "group": i // size}))
    return traces


def audit_corpus(traces: Iterable[Trace], judge: Judge, *, group_size: int = 8) -> Corpus:
    """Hold a reward against correctness and time, over given rollouts.

    Parameters
    ----------
    traces : iterable of Trace
    judge : Judge
    group_size : int
        Rollouts of one query, for advantages: so many in a row, unless ``meta["group"]`` says which belong together.

    Returns
    -------
    Corpus

    Raises
    ------
    ConfigError
        If there is no rollout that can be scored, or `group_size` is out of range.

    Examples
    --------
    >>> from simulator.trace.protocol import Protocol
    >>> from simulator.rewards import make_reward
    >>> judge = Judge(reward=make_reward("asyncthink"), protocol=Protocol(capacity=4), gpu="steps")
    >>> corpus = audit_corpus(synthetic(judge), judge)
    >>> corpus.traces, corpus.right, round(corpus.terms["concurrency"].share, 2)
    (256, 135, 0.01)
    """
    whole("group_size", group_size)
    trials: list[Scored] = []
    names: list[object] = []
    unscored = []
    for place, trace in enumerate(traces):
        trial = judge.trial(judge.formed(trace))
        if trial is None:
            unscored.append(trace.id)
            continue
        trials.append(trial)
        names.append(("meta", trace.meta["group"]) if "group" in trace.meta else ("row", place // group_size))
    if not trials:
        raise ConfigError(f"there is no rollout to audit: of {len(unscored):,} that were read, none can be scored")
    total = np.array([trial.score.total for trial in trials])
    correct = np.array([trial.accuracy for trial in trials])
    seconds = np.array([trial.seconds for trial in trials])
    quantities = {
        "correctness": correct,
        "seconds": seconds,
        "T": np.array([trial.score.latency for trial in trials], dtype=np.float64),
        "eta": np.array([trial.score.eta for trial in trials]),
        "tokens": np.array([trial.trace.tokens for trial in trials], dtype=np.float64),
    }
    right = correct == 1
    terms = {name: np.array([trial.score.terms[name] for trial in trials]) for name in judge.reward.names}
    return Corpus(
        traces=len(trials),
        unscored=tuple(unscored),
        judged=sum(trial.score.accuracy is not None for trial in trials),
        right=int(right.sum()),
        gated=sum(judge.closes(trial.score) for trial in trials),
        follows={
            name: Follows(all=rank_correlation(total, values), right=rank_correlation(total[right], values[right]))
            for name, values in quantities.items()
        },
        terms={name: _figures(values, total, correct) for name, values in terms.items()},
        groups=weigh_groups(_places(names), total, correct, seconds, terms),
    )


def _places(names: Sequence[object]) -> list[npt.NDArray[np.int64]]:
    """Return the rows of each group, groups in order of their first row."""
    rows: dict[object, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    return [np.array(each) for each in rows.values()]


def _figures(
    values: npt.NDArray[np.float64], total: npt.NDArray[np.float64], correct: npt.NDArray[np.float64]
) -> TermFigures:
    most = float(values.max())
    variance = float(total.var())
    return TermFigures(
        mean=float(values.mean()),
        std=float(values.std()),
        share=float(((values - values.mean()) * (total - total.mean())).mean()) / variance if variance else math.nan,
        most=most,
        at_most=float(np.isclose(values, most, rtol=1e-12, atol=0).mean()),
        follows_correctness=rank_correlation(values, correct),
    )
