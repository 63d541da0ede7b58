"""Simulated seconds as a term: the only part of a reward that needs a clock to run."""

from __future__ import annotations

from functools import lru_cache

from simulator.engine.simulation import simulate
from simulator.machine.gpu import GPU
from simulator.machine.profiles import DEFAULT_GPU, gpu_from_text
from simulator.rewards.result import Rollout
from simulator.support.checks import NonNegative, whole

MAX_LOAD = 1024

_gpu = lru_cache(maxsize=64)(gpu_from_text)


def simulated_seconds(rollout: Rollout, *, gpu: GPU | str = DEFAULT_GPU, load: int = 1) -> float:
    """Return the mean seconds to the answer when `load` queries like this one arrive at once at one GPU.

    Copies, because that is the load there would be if every query were organised like this one: a rollout that keeps
    many workers busy slows down its own kind. An agent pool at its capacity makes workers wait (`Protocol.when_full`).

    Parameters
    ----------
    rollout : Rollout
    gpu : GPU or str
        As ``--gpu`` takes it: a profile's name or file, or a cost model such as ``rate:50``.
    load : int
        From 1 to 1,024.

    Raises
    ------
    ConfigError
        If there is no such GPU, or `load` is out of range.

    >>> from simulator.formats import parse
    >>> from simulator.trace.protocol import Protocol
    >>> rollout = Rollout(parse("x" * 100, count=len), Protocol())
    >>> simulated_seconds(rollout, gpu="rate:50"), round(simulated_seconds(rollout, gpu="linear:0.01,0.001"), 3)
    (2.0, 1.1)
    >>> round(simulated_seconds(rollout, gpu="linear:0.01,0.001", load=10), 3)
    2.0
    """
    whole("load", load, f"from 1 to {MAX_LOAD:,}")
    machine = _gpu(gpu) if isinstance(gpu, str) else gpu
    timeline = simulate([rollout.graph] * load, gpu=machine)
    return float(timeline.latency.mean())


def wallclock(
    rollout: Rollout,
    *,
    per_minute: NonNegative = 1.0,
    gpu: GPU | str = DEFAULT_GPU,
    load: int = 1,
    only_if_correct: bool = True,
) -> float:
    """Return ``-per_minute`` for each simulated minute to the answer, of a correct answer (see `simulated_seconds`).

    Without the condition a wrong answer would be made less bad by being brief.
    """
    if only_if_correct and rollout.accuracy != 1:
        return 0.0
    return -per_minute * simulated_seconds(rollout, gpu=gpu, load=load) / 60
