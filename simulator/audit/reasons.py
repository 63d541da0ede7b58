"""Why A earns more than B: found out from scores, and said in a sentence.

Nothing here knows any reward. Which term pays is read off the scores. What the term goes by is the fact whose rank
follows it most closely over all rollouts that were tried. And what in A it pays for is found by leaving out parts of A,
one at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from simulator.audit.ranks import rank_correlation
from simulator.audit.truth import Judge, Pair
from simulator.rewards import Rollout, without_worker
from simulator.trace import (
    ORGANIZER,
    Action,
    Answer,
    Delay,
    Fork,
    Join,
    Think,
    Trace,
    ViolationKind,
    child_id,
    nesting,
)

_SAMPLES = 4000
_WORTH_SAYING = 0.1  # share of the gain below which a part of it is not mentioned
_FOLLOWS = 0.5  # rank correlation from which a term is said to go by a fact


class Sample(NamedTuple):
    """Terms and facts of a rollout that was tried."""

    terms: Mapping[str, float]
    facts: Mapping[str, float]

    @classmethod
    def of(cls, trace: Trace, judge: Judge) -> Sample | None:
        """Return the sample of a rollout; None if the gate closed, so that its terms were not asked."""
        score = judge.score(trace)
        if score is None or judge.closes(score):
            return None
        return cls(score.terms, facts(Rollout(trace, judge.protocol)))


def _late_forks(rollout: Rollout) -> float:
    forks = late = 0
    joined = False
    for action in rollout.trace.organizer.actions:
        joined |= type(action) is Join
        forks += type(action) is Fork
        late += joined and type(action) is Fork
    return late / forks if forks else 0.0


def _beside(rollout: Rollout) -> float:
    longest = sum(phase.main + max(map(rollout.tokens, phase.workers), default=0) for phase in rollout.phases)
    return 1 - longest / rollout.work if rollout.work else 0.0


def _broken(*kinds: ViolationKind) -> Callable[[Rollout], float]:
    return lambda rollout: float(sum(violation.kind in kinds for violation in rollout.violations))


def _tokens(*kinds: type[Action]) -> Callable[[Rollout], float]:
    def tokens(rollout: Rollout) -> float:
        return float(
            sum([getattr(each, "tokens", 0) for each in rollout.trace.organizer.actions if type(each) in kinds])
        )

    return tokens


def _number_of(kind: type[Action]) -> Callable[[Rollout], float]:
    return lambda rollout: float(sum(type(action) is kind for action in rollout.trace.organizer.actions))


def _again(rollout: Rollout) -> float:
    joined = [action.index for action in rollout.trace.organizer.actions if type(action) is Join]
    return float(len(joined) - len(set(joined)))


_NAMED = (ViolationKind.UNJOINED_WORKER, ViolationKind.POOL_OVERFLOW, ViolationKind.MISSING_RETURN)
_OTHERS = tuple(kind for kind in ViolationKind if kind not in _NAMED)

FACTS: dict[str, Callable[[Rollout], float]] = {
    "correctness": lambda rollout: rollout.accuracy or 0.0,
    "eta": lambda rollout: rollout.eta,
    "whether there are workers": lambda rollout: float(rollout.clock.workers > 0),
    "the number of workers": lambda rollout: float(rollout.clock.workers),
    "the number of Joins": _number_of(Join),
    "the number of Joins of a worker joined before": _again,
    "the number of rounds of Forks": lambda rollout: float(sum(bool(phase.workers) for phase in rollout.phases)),
    "the share of Forks after a Join": _late_forks,
    "the depth of nesting": lambda rollout: float(max(nesting(thread.id) for thread in rollout.trace.threads)),
    "the share of tokens beside the longest path": _beside,
    "T": lambda rollout: float(rollout.latency),
    "the number of tokens": lambda rollout: float(rollout.clock.work),
    "the organizer's tokens": lambda rollout: float(rollout.trace.organizer.tokens),
    "the organizer's tokens outside Forks, Joins and its Answer": _tokens(Think),
    "the tokens of Forks": _tokens(Fork),
    "the tokens of the Answer": _tokens(Answer),
    "the peak of active agents": lambda rollout: float(rollout.clock.peak_concurrency),
    "the number of Delays": _number_of(Delay),
    "the number of unjoined workers": _broken(ViolationKind.UNJOINED_WORKER),
    "the number of pool overflows": _broken(ViolationKind.POOL_OVERFLOW),
    "the number of workers without a Return": _broken(ViolationKind.MISSING_RETURN),
    "whether it answers": lambda rollout: float(any(type(each) is Answer for each in rollout.trace.organizer.actions)),
    "the number of other violations": _broken(*_OTHERS),
}
"""What is known of a rollout in closed form, by the words it is called by. Of facts that explain a term equally well,
the first is named."""


def facts(rollout: Rollout) -> dict[str, float]:
    """Return every one of `FACTS` of a rollout.

    >>> from simulator.trace.protocol import Protocol
    >>> from simulator.trace import Join, Return, Thread
    >>> organizer = Thread(ORGANIZER, (Fork(1, 10), Join(1), Answer(10)))
    >>> found = facts(Rollout(Trace("t", (organizer, Thread("1", (Return(20),)))), Protocol()))
    >>> found["T"], found["the number of workers"], found["the share of tokens beside the longest path"]
    (40.0, 1.0, 0.0)
    """
    return {name: fact(rollout) for name, fact in FACTS.items()}


def explain(pair: Pair, judge: Judge, samples: Sequence[Sample]) -> str:
    """Return one sentence on why A earns more.

    Parameters
    ----------
    pair : Pair
    judge : Judge
        Whose pair it is.
    samples : sequence of Sample
        Rollouts over which terms and facts are compared.

    Returns
    -------
    str
    """
    a, b = pair.a.score.terms, pair.b.score.terms
    gains = sorted((name for name in a if a[name] > b[name]), key=lambda name: b[name] - a[name])
    told = [name for name in gains if a[name] - b[name] >= _WORTH_SAYING * pair.gain]
    pays = " and ".join(f"{name} pays {_number(a[name])} instead of {_number(b[name])}" for name in told)
    parts = [f"A earns {_number(pair.gain)} more because {pays}"]
    if judge.closes(pair.a.score):
        gate = judge.reward.gate
        closed = gate.closes(pair.a.score.violations, judge.protocol) if gate is not None else None
        kind = closed.kind.value if closed is not None else ""
        parts.append(f"the gate closes ({kind}), and spares A what these terms would cost it")
    else:
        parts += [clause for term in told for clause in _followed(term, pair, judge, samples)]
    parts += _spared(pair, judge)
    return "; ".join(parts) + "."


def _followed(term: str, pair: Pair, judge: Judge, samples: Sequence[Sample]) -> Iterator[str]:
    """Say by which fact `term` goes, of those in which A and B differ in the right direction."""
    of_a, of_b = (facts(Rollout(trial.trace, judge.protocol)) for trial in (pair.a, pair.b))
    if pair.a.accuracy == pair.b.accuracy:  # then it is no answer that the term also goes by correctness
        samples = [sample for sample in samples if sample.facts["correctness"] == pair.a.accuracy]
    taken = samples[:: max(1, math.ceil(len(samples) / _SAMPLES))]
    values = np.array([sample.terms[term] for sample in taken])
    best, name = 0.0, ""
    for fact in FACTS:
        rho = rank_correlation(values, [sample.facts[fact] for sample in taken])
        if rho * (of_a[fact] - of_b[fact]) > 0 and abs(rho) > abs(best) + 1e-9:
            best, name = rho, fact
    if abs(best) >= _FOLLOWS:
        yield (
            f"{term} goes by {name} (rank correlation {best:.2f} over {len(taken):,} rollouts), which is"
            f" {_number(of_a[name])} in A and {_number(of_b[name])} in B"
        )


def _spared(pair: Pair, judge: Judge) -> Iterator[str]:
    """Say which part of A is paid for: the one without which it earns least, and whether that is only a cost."""
    total, least = pair.a.score.total, None
    for what, trace in without(pair.a.trace):
        score = judge.score(trace)
        if score is not None and (least is None or score.total < least[1].total):
            least = (what, score, trace)
    if least is None or total - least[1].total < _WORTH_SAYING * pair.gain:
        return
    what, score, trace = least
    seconds = judge.seconds(Rollout(trace, judge.protocol))
    faster = pair.a.seconds / seconds if seconds else 1.0
    sooner = f"be {faster:.2f} times as fast" if faster >= 1.005 else "be no faster"
    yield f"without {what} it would earn {_number(score.total)} rather than {_number(total)}, and {sooner}"


def without(trace: Trace) -> Iterator[tuple[str, Trace]]:
    """Yield what is left out, and `trace` without it: one worker, or without one of the organizer's other actions."""
    organizer = trace.organizer
    seen: set[int] = set()
    for place, action in enumerate(organizer.actions):
        if isinstance(action, Fork) and action.index not in seen:
            seen.add(action.index)
            name = child_id(ORGANIZER, action.index)
            yield f"worker {name}", without_worker(trace, name)
        elif not isinstance(action, (Fork, Join, Answer)):
            what = type(action).__name__
            rest = (*organizer.actions[:place], *organizer.actions[place + 1 :])
            shorter = msgspec.structs.replace(organizer, actions=rest)
            smaller = msgspec.structs.replace(trace, threads=(shorter, *trace.threads[1:]))
            yield f"its {what} of {getattr(action, 'tokens', 0):,} tokens", smaller


def _number(value: float) -> str:
    """Return a number to three decimals, or whole if it is, with thousands separated.

    >>> _number(0.125), _number(2.0), _number(12345.678)
    ('0.125', '2', '12,346')
    """
    if value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}".rstrip("0").rstrip(".")
