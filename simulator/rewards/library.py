"""Published rewards, each a small function that names its source and has every constant as an option.

What the sources say, and where they disagree with themselves, is in docs/reward.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from simulator.machine.gpu import GPU
from simulator.rewards import terms
from simulator.rewards.spec import Gate, Reward, Term
from simulator.rewards.wallclock import wallclock as simulated_wallclock
from simulator.support.checks import NonNegative, Positive, Share, check_options, choose


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
    right: float = 1.0,
    wrong: float = -1.0,
    right_gain: float = 0.4,
    wrong_gain: float = 0.1,
    path: Literal["max", "min", "mean"] = "max",
) -> Reward:
    """``1 + 0.4 * gain`` if correct, else ``-1 + 0.1 * gain``, with ``gain = (total - traversed) / total``.

    The efficiency reward in github.com/zhengkid/Parallel-R1 (``math_dapo_efficiency.py``; arXiv 2509.07980).

    >>> parallel_r1().names
    ('format_error', 'correct', 'efficiency')
    """
    correct = Term(terms.correctness, {"right": right, "wrong": wrong})
    gain = Term(terms.efficiency, {"right": right_gain, "wrong": wrong_gain, "path": path})
    return Reward(terms={"correct": correct, "efficiency": gain}, gate=None, format="parallel_r1")


def kimi_parl(
    *,
    parallel_weight: float = 0.1,
    finish_weight: float = 0.1,
    performance_weight: float = 1.0,
    full: Positive = 4,
    anneal: NonNegative = 1.0,
    budget: Positive | None = None,
) -> Reward:
    """``lambda_1 * r_parallel + lambda_2 * r_finish + r_perf`` (Kimi K2.5, arXiv 2602.02276).

    The report anneals lambda_1 and lambda_2 to 0 over the training (`anneal` scales both) and gives neither them nor
    formulas for r_parallel and r_finish; see those terms for what is taken. It bounds episodes in critical steps:
    beyond `budget` there is no r_perf.

    >>> kimi_parl(anneal=0.0).terms["parallel"]
    Term(parallel, weight=0.0, full=4)
    """
    performance = {"weight": performance_weight} | ({} if budget is None else {"budget": budget})
    return Reward(
        terms={
            "parallel": Term(terms.parallel, {"weight": anneal * parallel_weight, "full": full}),
            "finish": Term(terms.finish, {"weight": anneal * finish_weight}),
            "performance": Term(terms.accuracy, performance),
        },
        gate=None,
    )


def wallclock(
    *,
    per_minute: NonNegative = 1.0,
    gpu: GPU | str = "h100-qwen3-8b",
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
