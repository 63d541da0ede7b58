"""The terms: plain functions of a `Rollout`, whose keyword-only parameters are their constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from simulator.rewards.result import Rollout
from simulator.rewards.wallclock import wallclock
from simulator.support.checks import Positive, Share
from simulator.trace import Fork, Join, ViolationKind


def accuracy(rollout: Rollout, *, weight: float = 1.0, budget: Positive | None = None) -> float:
    """Return ``weight * R_A``; nothing beyond a `budget` of critical steps (see `critical_steps`).

    R_A is 1 or 0, or ``min(found, wanted) / wanted`` (AsyncThink, arXiv 2510.26658). An answer nobody judged earns 0.
    """
    if budget is not None and _critical_steps(rollout) > budget:
        return 0.0
    return weight * (rollout.accuracy or 0.0)


def correctness(rollout: Rollout, *, right: float = 1.0, wrong: float = -1.0) -> float:
    """Return `right` for an answer that is wholly right, else `wrong`; not judged is wrong."""
    return right if rollout.accuracy == 1 else wrong


def concurrency(rollout: Rollout, *, weight: float | None = None, threshold: Share | None = None) -> float:
    """Return ``lambda * min(eta/c, tau) / tau`` (AsyncThink, arXiv 2510.26658).

    `weight` is lambda and `threshold` tau; by default `Protocol.eta_weight` and `Protocol.eta_threshold`.
    """
    protocol = rollout.protocol
    ratio = rollout.eta / rollout.capacity
    tau = protocol.eta_threshold if threshold is None else threshold
    return (protocol.eta_weight if weight is None else weight) * (min(ratio, tau) / tau)


def latency(rollout: Rollout, *, weight: float = -1e-3) -> float:
    """Return ``weight * T``: by default a thousandth of a decode step's cost each."""
    return weight * rollout.clock.latency


def acceleration(
    rollout: Rollout,
    *,
    weight: float = 0.5,
    clip: float | None = 0.2,
    ratio: Literal["share", "speedup"] = "share",
    wrappers: Literal["sequential", "thread"] = "sequential",
    wrapper_tokens: int = 2,
    only_if_correct: bool = True,
) -> float:
    """Return ``weight * min(ratio, clip)``, ThreadWeaver's acceleration ratio (arXiv 2512.07843).

    ``longest`` is what the organizer decodes and, of each `Phase`, the longest worker. ``share`` is
    ``1 - longest / total``, as the code of github.com/facebookresearch/threadweaver computes it; ``speedup`` is
    ``total / longest - 1``, as its README has it. With `wrappers` ``sequential`` (the reward's code) the
    `wrapper_tokens` of every worker, ``<Thread>`` and ``</Thread>``, count one after the other (of one that never
    returned, half: it has no ``</Thread>``); with ``thread`` (its data-generation script) they are part of the worker.
    Nested workers are literal text of the one around them.
    """
    if only_if_correct and rollout.accuracy != 1:
        return 0.0
    longest = total = 0
    sequential = wrappers == "sequential"
    unended: set[str] = set()
    if sequential and rollout.clock.violations:
        unended = {each.thread for each in rollout.clock.violations if each.kind is ViolationKind.MISSING_RETURN}
    for (main, lengths), phase in zip(rollout.blocks, rollout.phases, strict=True):
        total += main + sum(lengths)
        longest += main
        if len(lengths) > 1 and sequential:
            own = 0
            for name, length in zip(phase.workers, lengths, strict=True):
                tags = min((wrapper_tokens + 1) // 2 if name in unended else wrapper_tokens, length)
                longest += tags
                own = max(own, length - tags)
            longest += own
        elif lengths:
            longest += max(lengths)
    if not longest:
        return 0.0
    value = 1 - longest / total if ratio == "share" else total / longest - 1
    return weight * (value if clip is None else min(value, clip))


def efficiency(
    rollout: Rollout, *, right: float = 0.4, wrong: float = 0.1, path: Literal["max", "min", "mean"] = "max"
) -> float:
    """Return `right` or `wrong` times ``(total - traversed) / total``, Parallel-R1's efficiency gain.

    ``traversed`` is what the organizer decodes and, of each `Phase`, its longest worker (or shortest, or the mean,
    rounded down). From ``math_dapo_efficiency.py`` in github.com/zhengkid/Parallel-R1 (arXiv 2509.07980), which counts
    words without tags where this counts tokens.
    """
    total = traversed = 0
    for main, lengths in rollout.blocks:
        total += main + sum(lengths)
        traversed += main
        if lengths:
            traversed += (
                max(lengths) if path == "max" else min(lengths) if path == "min" else sum(lengths) // len(lengths)
            )
    gain = (total - traversed) / total if total else 0.0
    return (right if rollout.accuracy == 1 else wrong) * gain


def formed(rollout: Rollout, *, weight: float = 0.2) -> float:
    """Return `weight` for a correct answer that forked, in tags that are in order (Parallel-R1, arXiv 2509.07980)."""
    bad = (ViolationKind.UNCLOSED_TAG, ViolationKind.STRAY_TAG, ViolationKind.MORE_FAULTS)
    if rollout.accuracy != 1 or not rollout.clock.workers:
        return 0.0
    return 0.0 if any(violation.kind in bad for violation in rollout.violations) else weight


def parallel(rollout: Rollout, *, weight: float = 0.1, full: Positive = 4) -> float:
    """Return ``weight * min(forked / full, 1)``: Kimi K2.5's reward for starting sub-agents (arXiv 2602.02276).

    The report says what r_parallel is for, against falling back to one agent, and gives no formula: this saturates
    at `full` workers.
    """
    return weight * min(rollout.clock.workers / full, 1.0)


def finish(rollout: Rollout, *, weight: float = 0.1) -> float:
    """Return ``weight`` times the share of sub-queries that were finished: Kimi K2.5's r_finish (arXiv 2602.02276).

    A sub-query is finished if its worker returned, and in time to matter (see `Protocol.after_answer`). Without
    sub-queries it is 0.
    """
    clock = rollout.clock
    lost = unended = 0
    failed: set[str] = set()
    for violation in clock.violations:
        if violation.kind is ViolationKind.FORK_WITHOUT_WORKER:
            lost += 1
        elif violation.kind is ViolationKind.MISSING_RETURN:
            failed.add(violation.thread)
    cancelled = rollout.protocol.after_answer == "cancel"
    for name, (_, end) in clock.intervals.items():
        unended += name != "organizer" and (name in failed or (cancelled and end > clock.latency))
    asked = clock.workers + lost
    return weight * ((clock.workers - unended) / asked) if asked else 0.0


def sum_of_phases(main: Sequence[int], workers: Sequence[Sequence[int]]) -> int:
    """Return Kimi K2.5's critical steps: the sum over stages of ``S_main + max_i S_sub,i`` (arXiv 2602.02276).

    >>> sum_of_phases([1, 1, 1], [[3, 2], [0], [4, 1, 2]])
    10
    """
    return sum(own + max(subs, default=0) for own, subs in zip(main, workers, strict=True))


def _critical_steps(rollout: Rollout) -> int:
    phases = rollout.phases
    return sum_of_phases(
        [phase.main for phase in phases], [[rollout.steps(name) for name in phase.workers] for phase in phases]
    )


def critical_tokens(rollout: Rollout, *, weight: float = -2e-7) -> float:
    """Return ``weight`` times the tokens of the longest way: the organizer's, and of each `Phase` its longest worker.

    LAMaS's latency penalty (arXiv 2601.10560; ``_compute_critical_path_loss_tokens`` in github.com/xishi404/LAMaS): of
    each layer of its operators the one with the most tokens, summed, times ``token_weight / 50``.
    """
    return weight * sum([main + max(lengths, default=0) for main, lengths in rollout.blocks])


def cost(rollout: Rollout, *, weight: float = -1.0, price: float = 0.0) -> float:
    """Return ``weight`` times what all tokens decoded cost, in dollars at `price` a million."""
    return weight * price * rollout.work / 1e6


def critical_steps(rollout: Rollout, *, weight: float = -1e-3) -> float:
    """Return ``weight`` times the critical steps (see `sum_of_phases`), a `Phase` a stage and a token a step."""
    return weight * _critical_steps(rollout)


def leverage(rollout: Rollout, *, weight: float = 0.5) -> float:
    """Return ``weight`` times the share of the organizer's Forks that come after one of its Joins.

    A specimen of a bad reward: it pays for an order of tags, whatever the order is good for. A reward of this kind was
    tried for AsyncThink and dropped; no formula is published, and this one is ours.
    """
    forks = late = 0
    joined = False
    for action in rollout.trace.organizer.actions:
        if type(action) is Join:
            joined = True
        elif type(action) is Fork:
            forks += 1
            late += joined
    return weight * (late / forks) if forks else 0.0


TERMS: dict[str, Callable[..., float]] = {
    "accuracy": accuracy,
    "correctness": correctness,
    "concurrency": concurrency,
    "latency": latency,
    "acceleration": acceleration,
    "efficiency": efficiency,
    "formed": formed,
    "parallel": parallel,
    "finish": finish,
    "critical_steps": critical_steps,
    "critical_tokens": critical_tokens,
    "cost": cost,
    "wallclock": wallclock,
    "leverage": leverage,
}
"""The terms by name, as reward files call them."""
