"""Published rewards, each a small function that names its source and has every constant as an option.

What the sources say, and where they disagree with themselves, is in docs/rewards.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from simulator.machine.gpu import GPU
from simulator.machine.profiles import DEFAULT_GPU
from simulator.rewards import terms
from simulator.rewards.spec import Gate, Reward, Schedule, Term
from simulator.rewards.wallclock import wallclock as simulated_wallclock
from simulator.support.checks import NonNegative, Positive, Share, check_options, choose

_WINDOW, _PARALLEL_STEPS = 10, 2  # of Parallel-R1's alternating reward


def asyncthink(
    *,
    eta_weight: float | None = None,
    eta_threshold: Share | None = None,
    format_error_reward: float | None = None,
) -> Reward:
    """``R_FE`` if there is a format error, else ``R_A + lambda * min(eta/c, tau) / tau`` (arXiv 2510.26658).

    Lambda, tau and R_FE are by default those of the protocol, which also says what a format error is.

    >>> asyncthink(eta_weight=0.3).names
    ('format_error', 'accuracy', 'concurrency')
    """
    options = {"weight": eta_weight, "threshold": eta_threshold}
    given = {name: value for name, value in options.items() if value is not None}
    return Reward(
        terms={"accuracy": Term(terms.accuracy), "concurrency": Term(terms.concurrency, given)},
        gate=Gate(reward=format_error_reward),
    )


_READINGS: dict[str, dict[str, Any]] = {
    "code": {"wrong": -1.0, "ratio": "share", "wrappers": "sequential", "only_if_correct": True},
    "readme": {"wrong": 0.0, "ratio": "speedup", "wrappers": "sequential", "only_if_correct": False},
    "script": {"wrong": -1.0, "ratio": "share", "wrappers": "thread", "only_if_correct": True},
}


def threadweaver(
    *,
    reading: Literal["code", "readme", "script"] = "code",
    factor: float = 0.5,
    clip: float | None = 0.2,
    right: float = 1.0,
    wrong: float | None = None,
    ratio: Literal["share", "speedup"] | None = None,
    wrappers: Literal["sequential", "thread"] | None = None,
    wrapper_tokens: int = 2,
    only_if_correct: bool | None = None,
) -> Reward:
    """``correct + factor * min(1 - longest/total, clip)``, the second only if correct (ThreadWeaver, arXiv 2512.07843).

    github.com/facebookresearch/threadweaver says it three ways, and `reading` chooses: the ``code`` of its reward
    (wrong is -1; ``<Thread>`` and ``</Thread>`` count one after the other), its ``readme`` (wrong is 0; the ratio is
    ``total/longest - 1``; added whether correct or not), or its data-generation ``script`` (as the code, but the
    wrappers are part of their thread). What is given besides overrides the reading. There is no gate: version 2 of
    the reward has no format errors.

    >>> threadweaver(reading="readme").terms["correct"]
    Term(correctness, right=1.0, wrong=0.0)
    """
    chosen = _READINGS[choose(reading, _READINGS, "reading")]
    given = {"wrong": wrong, "ratio": ratio, "wrappers": wrappers, "only_if_correct": only_if_correct}
    chosen = chosen | {name: value for name, value in given.items() if value is not None}
    correct = {"right": right, "wrong": chosen.pop("wrong")}
    options = {"weight": factor, "clip": clip, "wrapper_tokens": wrapper_tokens, **chosen}
    return Reward(
        terms={"correct": Term(terms.correctness, correct), "acceleration": Term(terms.acceleration, options)},
        gate=None,
        format="threadweaver",
    )


def parallel_r1(
    *,
    variant: Literal["efficiency", "alternating"] = "efficiency",
    right: float = 1.0,
    wrong: float = -1.0,
    right_gain: float = 0.4,
    wrong_gain: float = 0.1,
    path: Literal["max", "min", "mean"] = "max",
    bonus: float = 0.2,
    step: int | None = None,
) -> Reward:
    """Parallel-R1's rewards (arXiv 2509.07980, github.com/zhengkid/Parallel-R1), of which `variant` chooses one.

    ``efficiency``, there ``accuracy_add_efficiency_reward`` (``math_dapo_efficiency.py``): ``1 + 0.4 * gain`` if
    correct, else ``-1 + 0.1 * gain``, with ``gain = (total - traversed) / total``. ``alternating``, there
    ``accuracy_parallel_interv_reward``: in 8 of 10 training steps 1 or -1, in the 2 others 1.2 for a correct answer
    with well-formed blocks. Which two is not said; here they are the last. Without a `step` it is as in those.

    >>> parallel_r1().names, parallel_r1(variant="alternating", step=0).names
    (('format_error', 'correct', 'efficiency'), ('format_error', 'correct'))
    """
    correct = Term(terms.correctness, {"right": right, "wrong": wrong})
    if choose(variant, ("efficiency", "alternating"), "variant") == "alternating":
        options = {"variant": variant, "right": right, "wrong": wrong, "bonus": bonus}
        parallel = step is None or step % _WINDOW >= _WINDOW - _PARALLEL_STEPS
        formed = {"formed": Term(terms.formed, {"weight": bonus})} if parallel else {}
        schedule = Schedule(parallel_r1, options)
        return Reward(terms={"correct": correct, **formed}, gate=None, format="parallel_r1", schedule=schedule)
    gain = Term(terms.efficiency, {"right": right_gain, "wrong": wrong_gain, "path": path})
    return Reward(terms={"correct": correct, "efficiency": gain}, gate=None, format="parallel_r1")


def kimi_parl(
    *,
    parallel_weight: float = 0.1,
    finish_weight: float = 0.1,
    performance_weight: float = 1.0,
    full: Positive = 4,
    anneal: NonNegative = 1.0,
    anneal_steps: Positive | None = None,
    budget: Positive | None = None,
    step: int | None = None,
) -> Reward:
    """``lambda_1 * r_parallel + lambda_2 * r_finish + r_perf`` (Kimi K2.5, arXiv 2602.02276).

    The report anneals lambda_1 and lambda_2 to 0 over the training and gives neither them nor formulas for r_parallel
    and r_finish; see those terms for what is taken. `anneal` scales both; with `anneal_steps` it falls to 0 in a
    straight line over so many training steps (see `Reward.at`). The report bounds episodes in critical steps:
    beyond `budget` there is no r_perf.

    >>> kimi_parl(anneal=0.0).terms["parallel"]
    Term(parallel, weight=0.0, full=4)
    """
    schedule = None
    if anneal_steps is not None:
        fixed = {"parallel_weight": parallel_weight, "finish_weight": finish_weight, "full": full, "budget": budget}
        fixed |= {"performance_weight": performance_weight, "anneal": anneal, "anneal_steps": anneal_steps}
        schedule = Schedule(kimi_parl, fixed)
        anneal *= max(0.0, 1 - (step or 0) / anneal_steps)
    performance = {"weight": performance_weight} | ({} if budget is None else {"budget": budget})
    return Reward(
        terms={
            "parallel": Term(terms.parallel, {"weight": anneal * parallel_weight, "full": full}),
            "finish": Term(terms.finish, {"weight": anneal * finish_weight}),
            "performance": Term(terms.accuracy, performance),
        },
        gate=None,
        schedule=schedule,
    )


def lamas(*, token_weight: float = 1e-5, cost_weight: float = 3.0, price: NonNegative = 0.0) -> Reward:
    """``R_A - cost_weight * cost - token_weight / 50 * critical tokens`` (LAMaS, arXiv 2601.10560).

    This is the utility of an operator on the critical path in github.com/xishi404/LAMaS (``benchmark.py``); operators
    beside it do not pay for latency: see `simulator.rewards.utilities`. Cost is in dollars, there as the API bills it;
    here it is `price`, dollars a million tokens decoded, which is 0 unless you say. There is no gate.

    >>> lamas(price=0.6).names
    ('format_error', 'accuracy', 'cost', 'critical_tokens')
    """
    return Reward(
        terms={
            "accuracy": Term(terms.accuracy),
            "cost": Term(terms.cost, {"weight": -cost_weight, "price": price}),
            "critical_tokens": Term(terms.critical_tokens, {"weight": -token_weight / 50}),
        },
        gate=None,
    )


def wallclock(
    *,
    per_minute: NonNegative = 1.0,
    gpu: GPU | str = DEFAULT_GPU,
    load: int = 1,
    only_if_correct: bool = True,
    format_error_reward: float | None = None,
) -> Reward:
    """``R_A - per_minute * minutes`` of *simulated* time on a given GPU under a given load; ours.

    A correct answer pays for its time; see `simulator.rewards.wallclock.simulated_seconds`.

    >>> wallclock(gpu="rate:50").names
    ('format_error', 'accuracy', 'wallclock')
    """
    options = {"per_minute": per_minute, "gpu": gpu, "load": load, "only_if_correct": only_if_correct}
    return Reward(
        terms={"accuracy": Term(terms.accuracy), "wallclock": Term(simulated_wallclock, options)},
        gate=Gate(reward=format_error_reward),
    )


def leverage(*, weight: float = 0.5, format_error_reward: float | None = None) -> Reward:
    """``R_A`` and a bonus for Forks that follow a Join: a known-bad specimen, for audits (see `terms.leverage`).

    >>> leverage().names
    ('format_error', 'accuracy', 'leverage')
    """
    return Reward(
        terms={"accuracy": Term(terms.accuracy), "leverage": Term(terms.leverage, {"weight": weight})},
        gate=Gate(reward=format_error_reward),
    )


REWARDS: dict[str, Callable[..., Reward]] = {
    "asyncthink": asyncthink,
    "threadweaver": threadweaver,
    "parallel_r1": parallel_r1,
    "kimi_parl": kimi_parl,
    "lamas": lamas,
    "wallclock": wallclock,
    "leverage": leverage,
}
"""The rewards by name, as reward files and ``--reward`` call them."""


def make_reward(name: str, /, **options: Any) -> Reward:
    """Return a reward of the library.

    Raises
    ------
    ConfigError
        If there is no such reward, or an option is unknown or out of range.

    >>> make_reward("threadweaver", factr=0.5)
    Traceback (most recent call last):
    simulator.errors.ConfigError: no option of reward threadweaver is called 'factr'; did you mean factor? there are ...
    """
    function = REWARDS[choose(name, REWARDS, "reward")]
    check_options(function, options, f"reward {name}")
    return function(**options)
