"""What a reward is held against: who is right, and how long it takes on a machine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from simulator.errors import ConfigError, DeadlockError, SimulatorError
from simulator.graph.clock import decode_clock
from simulator.machine.gpu import GPU
from simulator.machine.profiles import DEFAULT_GPU, gpu_from_text
from simulator.rewards import Reward, Rollout, Score, simulated_seconds
from simulator.support.checks import one_of, real
from simulator.trace import Answer, Thread, Trace
from simulator.trace.protocol import Protocol

Clocks = Literal["both", "seconds"]


class Scored(NamedTuple):
    """A rollout, what it earns, and how long it takes."""

    trace: Trace
    score: Score
    seconds: float
    """Simulated seconds to the answer; infinite where threads wait for each other for ever."""

    @property
    def accuracy(self) -> float:
        """How right it is, from 0 to 1. Not judged is not right."""
        return self.score.accuracy or 0.0

    @property
    def actions(self) -> int:
        """Actions of all its threads."""
        return sum(len(thread.actions) for thread in self.trace.threads)


class Pair(NamedTuple):
    """Two rollouts in the wrong order: `a` earns more than `b`, is no more correct, and takes longer.

    Where the judge says `Judge.any_time`, it may be less correct in place of slower.
    """

    a: Scored
    b: Scored

    @property
    def gain(self) -> float:
        """How much more `a` earns."""
        return self.a.score.total - self.b.score.total

    @property
    def slowdown(self) -> float:
        """How many times as long `a` takes."""
        return self.a.seconds / self.b.seconds if self.b.seconds else math.inf


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A reward, and the machine and the margins it is judged by.

    Raises
    ------
    ConfigError
        If there is no such GPU, a margin is out of range, or the reward cannot score under this protocol.

    Examples
    --------
    >>> from simulator.rewards import make_reward
    >>> from simulator.trace import Answer, Fork, Join, Outcome, Return, Thread
    >>> judge = Judge(reward=make_reward("asyncthink"), protocol=Protocol(capacity=4), gpu="rate:50")
    >>> right = Outcome(correct=True)
    >>> fast = Trace("fast", (Thread("organizer", (Answer(50),)),), right)
    >>> padded = Thread("organizer", (Fork(1, 50), Join(1), Answer(50)))
    >>> slow = Trace("slow", (padded, Thread("1", (Return(50),))), right)
    >>> judge.pair(slow, fast) is None   # slower, and earns no more
    True
    >>> busy = Thread("organizer", (Fork(1, 50), Answer(500)))
    >>> pair = judge.pair(Trace("busy", (busy, Thread("1", (Return(500),))), right), fast)
    >>> round(pair.gain, 3), round(pair.slowdown, 1)
    (0.114, 11.0)
    """

    reward: Reward
    protocol: Protocol
    gpu: GPU | str = DEFAULT_GPU
    """As ``--gpu`` takes it."""
    load: int = 1
    """Queries like this one that arrive at the machine at once (see `simulator.rewards.simulated_seconds`)."""
    gain: float = 0.01
    """How much more A must earn at least, in units of the reward."""
    slower: float = 1.1
    """How many times as long A must take at least."""
    clocks: Clocks = "both"
    """``both``: A must also have the larger T, so that it is worse by the paper's clock and by the machine's.
    ``seconds``: the machine alone decides."""
    any_time: bool = False
    """Whether a less correct A is worse however quick it is."""
    form: Callable[[Trace], Trace] | None = None
    """What is made of a drawn rollout before it is judged, such as `as_written`."""

    def __post_init__(self) -> None:
        if isinstance(self.gpu, str):
            object.__setattr__(self, "gpu", gpu_from_text(self.gpu))
        elif not isinstance(self.gpu, GPU):
            raise ConfigError(f"gpu must be a GPU or the name of one, got {self.gpu!r:.80}")
        real("gain", self.gain, "above 0")
        real("slower", self.slower, "above 1")
        one_of("clocks", self.clocks, get_args(Clocks))
        if not isinstance(self.reward, Reward):
            raise ConfigError(f"reward must be a Reward (see load_reward), got {self.reward!r:.80}")
        self.reward.check(self.protocol)
        # A load out of range is told here, not at the first pair.
        simulated_seconds(_PROBE, gpu=self.gpu, load=self.load)

    def formed(self, trace: Trace) -> Trace:
        """Return what is judged of a drawn rollout (see `form`)."""
        return trace if self.form is None else self.form(trace)

    def score(self, trace: Trace) -> Score | None:
        """Return what `trace` earns; None where the reward cannot score it."""
        return self._score(Rollout(trace, self.protocol))

    def _score(self, rollout: Rollout) -> Score | None:
        try:
            return self.reward.score(rollout)
        except (SimulatorError, ArithmeticError, ValueError):
            return None

    def closes(self, score: Score) -> bool:
        """Whether the gate was closed to a rollout with this score."""
        gate = self.reward.gate
        return gate is not None and gate.closes(score.violations, self.protocol) is not None

    def trial(self, trace: Trace) -> Scored | None:
        """Return what `trace` earns and takes; None where the reward cannot score it, or the GPU not run it."""
        rollout = Rollout(trace, self.protocol)
        score = self._score(rollout)
        seconds = math.nan if score is None else self.seconds(rollout)
        return None if score is None or math.isnan(seconds) else Scored(trace, score, seconds)

    def seconds(self, rollout: Rollout) -> float:
        """Return the simulated seconds to the answer: infinite in a deadlock, NaN on a GPU that it does not fit."""
        try:
            return simulated_seconds(rollout, gpu=self.gpu, load=self.load)
        except DeadlockError:
            return math.inf
        except SimulatorError:
            return math.nan

    def pair(self, a: Trace, b: Trace) -> Pair | None:
        """Return the two as a pair if the reward has them in the wrong order.

        `a` earns at least `gain` more, is no more correct, and takes at least `slower` times as long. `b` must be
        without any violation: that a reward prefers a legal rollout to a quick broken one is no hole.
        """
        low, high = Rollout(b, self.protocol), Rollout(a, self.protocol)
        if not self._may_be_worse(high, low):
            return None
        worse, better = self._score(high), self._score(low)
        if worse is None or better is None or not worse.total - better.total >= self.gain:
            return None
        pair = Pair(Scored(a, worse, self.seconds(high)), Scored(b, better, self.seconds(low)))
        return pair if self.in_wrong_order(*pair) else None

    def in_wrong_order(self, a: Scored, b: Scored) -> bool:
        """Return whether two rollouts whose scores and times are known are a pair in the wrong order (see `pair`)."""
        if not a.score.total - b.score.total >= self.gain or not self._may_be_worse(a.score, b.score):
            return False
        if math.isnan(a.seconds) or math.isnan(b.seconds):
            return False
        return self._excused(a.score, b.score) or (a.seconds > b.seconds and a.seconds >= self.slower * b.seconds)

    def _may_be_worse(self, a: Rollout | Score, b: Rollout | Score) -> bool:
        """Whether A is worse than B as far as that can be known without a machine."""
        if b.violations or (a.accuracy or 0.0) > (b.accuracy or 0.0):
            return False
        return self.clocks == "seconds" or a.latency > b.latency or self._excused(a, b)

    def _excused(self, a: Rollout | Score, b: Rollout | Score) -> bool:
        """Whether A is worse however quick it is."""
        return self.any_time and (a.accuracy or 0.0) < (b.accuracy or 0.0)


def _probe() -> Rollout:
    trace = Trace("probe", (Thread("organizer", (Answer(1),)),))
    return Rollout(trace, Protocol(), decode_clock(trace))


_PROBE = _probe()
