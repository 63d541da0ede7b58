"""How a reward is put together: named terms, a gate, and options that are checked when they are given."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from simulator.errors import ConfigError, SimulatorError
from simulator.formats import lookup
from simulator.rewards.grouped import Grouped, Ramp, Scaled, check_names
from simulator.rewards.result import Rollout, Score
from simulator.support.checks import check_options, choose, mismatch, whole
from simulator.trace import Answer, Outcome, Thread, Trace, Violation, ViolationKind
from simulator.trace.protocol import Protocol

FORMAT_ERROR = "format_error"
"""The term of the gate: there in every score, 0 where the rollout is in order."""

TermFunction = Callable[[Rollout], float]


@dataclass(frozen=True)
class Term:
    """A term of the library with its options fixed: a function of a rollout that can be compared and pickled.

    >>> from simulator.rewards.terms import accuracy
    >>> Term(accuracy, {"weight": 2.0})
    Term(accuracy, weight=2.0)
    """

    function: Callable[..., float]
    """Takes a `Rollout`; its keyword-only parameters are the options."""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    run: TermFunction = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ConfigError(
                f"a term's function must be a function, such as TERMS['accuracy']; got {self.function!r:.80}"
            )
        check_options(self.function, self.options, f"term {getattr(self.function, '__name__', 'of yours')}")
        object.__setattr__(self, "options", dict(self.options))
        object.__setattr__(self, "run", partial(self.function, **self.options))

    def __call__(self, rollout: Rollout) -> float:
        """Return what the term is worth."""
        return self.run(rollout)

    def __repr__(self) -> str:
        said = [self.function.__name__, *(f"{name}={value!r}" for name, value in self.options.items())]
        return f"Term({', '.join(said)})"


def _number(name: str, value: Any) -> float:
    """Return what a term gives as a float, if it is a number."""
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        raise ConfigError(f"term {name!r} returned {value!r:.40} ({type(value).__name__}); a term returns a number")
    return float(value)


@dataclass(frozen=True)
class Schedule:
    """What a reward is at a training step: a function of the library, its options, and the step.

    >>> from simulator.rewards import make_reward
    >>> make_reward("kimi_parl", anneal_steps=10).schedule(5).terms["parallel"].options["weight"]
    0.05
    """

    function: Callable[..., Reward]
    """Takes the options and a ``step``."""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __call__(self, step: int) -> Reward:
        """Return the reward at a step."""
        return self.function(**self.options, step=step)


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What stands before the terms: a rollout with one of these violations earns this, and nothing else.

    What is None is as the protocol says: `Protocol.format_errors` and `Protocol.format_error_reward`.
    """

    kinds: frozenset[ViolationKind] | None = None
    reward: float | None = None

    def __post_init__(self) -> None:
        if self.kinds is not None:
            kinds = self.kinds if not isinstance(self.kinds, str) else (self.kinds,)
            known = [choose(kind, [*ViolationKind], "kind of violation") for kind in kinds]
            object.__setattr__(self, "kinds", frozenset(map(ViolationKind, known)))
        wanted = mismatch(self.reward, float | None)
        if wanted:
            raise ConfigError(f"gate: reward must be {wanted}, got {self.reward!r}")

    def closes(self, violations: Iterable[Violation], protocol: Protocol) -> Violation | None:
        """Return the first violation that costs the reward, if there is one."""
        kinds = protocol.format_errors if self.kinds is None else self.kinds
        return next((violation for violation in violations if violation.kind in kinds), None)

    def price(self, protocol: Protocol) -> float:
        """Return what a format error earns."""
        return protocol.format_error_reward if self.reward is None else self.reward


@dataclass(frozen=True, kw_only=True)
class Reward:
    """A reward: terms that are added up, behind a gate. Frozen, comparable, picklable.

    Parameters
    ----------
    terms : mapping from str to callable
        Functions of a `Rollout`: `Term`s of the library, or any function of your own (a module's, to be picklable).
    gate : Gate, optional
        What format errors cost. None: nothing; violations are only reported.
    protocol : Protocol, optional
        The protocol the reward is meant for, taken where the caller gives none.
    format : str, optional
        The format that its rollouts are written in, taken where the caller says none.
    schedule : callable, optional
        From a training step to the reward at that step, if it changes (see `at`).
    grouped : Grouped, optional
        How some of the terms count among the rollouts of one query. `score_batch` then needs their `groups`; alone, a
        rollout is a group of its own.

    Raises
    ------
    ConfigError
        If a term is no function, or is called ``format_error``.

    Examples
    --------
    >>> from simulator.rewards import TERMS, Term
    >>> from simulator.formats import parse
    >>> def brief(rollout):
    ...     return -rollout.latency / 1000
    >>> reward = Reward(terms={"accuracy": Term(TERMS["accuracy"]), "brief": brief}, gate=Gate())
    >>> trace = parse("Nine.<ANSWER>9</ANSWER>", count=len, outcome=Outcome(correct=True))
    >>> reward.score(Rollout(trace, Protocol(capacity=2))).terms
    {'format_error': 0.0, 'accuracy': 1.0, 'brief': -0.023}
    """

    terms: Mapping[str, TermFunction] = field(hash=False)
    gate: Gate | None = field(default_factory=Gate)
    protocol: Protocol | None = None
    format: str | None = None
    schedule: Callable[[int], Reward] | None = None
    grouped: Grouped | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.terms, Mapping):
            raise ConfigError(f"terms must be a mapping from names to functions, got {self.terms!r:.80}")
        for name, term in self.terms.items():
            if not isinstance(name, str) or not name.isidentifier() or name == FORMAT_ERROR:
                raise ConfigError(f"a term is called by a name that is not {FORMAT_ERROR}; got {name!r}")
            if not callable(term):
                raise ConfigError(f"term {name} must be a function of a rollout, got {term!r:.80}")
        if self.format is not None:
            lookup(self.format)
        if not (self.gate is None or isinstance(self.gate, Gate)):
            raise ConfigError(f"gate must be a Gate or None, got {self.gate!r:.80}")
        object.__setattr__(self, "terms", dict(self.terms))
        if self.grouped is not None:
            if not isinstance(self.grouped, Grouped):
                raise ConfigError(f"grouped must be a Grouped or None, got {self.grouped!r:.80}")
            check_names("term to group", self.grouped.terms, self.terms)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all terms of a score, in order."""
        return (FORMAT_ERROR, *self.terms)

    def with_(self, **changes: Any) -> Reward:
        """Return a copy with `changes` made."""
        return replace(self, **changes)

    def at(self, step: int) -> Reward:
        """Return the reward at a training step, from 0: itself, unless it has a schedule.

        Raises
        ------
        ConfigError
            If `step` is no such number.

        >>> from simulator.rewards import make_reward
        >>> reward = make_reward("parallel_r1", variant="alternating")
        >>> [list(reward.at(step).terms) for step in (7, 8)]
        [['correct'], ['correct', 'formed']]
        """
        whole("step", step, "from 0 to 10^12")
        return self if self.schedule is None else self.schedule(step)

    def ramped(self, **ramps: Ramp) -> Reward:
        """Return the reward with terms whose weight changes over the training; without a step, all is as it was.

        Raises
        ------
        ConfigError
            If there is no such term, or the reward has a schedule already.

        >>> from simulator.rewards import Ramp, make_reward
        >>> reward = make_reward("asyncthink").ramped(concurrency=Ramp(finish=100))
        >>> [reward.at(step).terms["concurrency"].factor for step in (0, 25, 200)]
        [0.0, 0.25, 1.0]
        """
        check_names("term to ramp", list(ramps), self.terms)
        if self.schedule is not None:
            raise ConfigError("the reward changes with the step already: it cannot have ramps, too")
        return replace(self, schedule=Schedule(_at_step, {"reward": self, "ramps": ramps}))

    def score(self, rollout: Rollout, *, alone: bool = True) -> Score:
        """Return what a rollout earns; not `alone`, before its terms are weighed within its group.

        Raises
        ------
        ConfigError
            If a term needs what the protocol does not say.
        """
        clock, protocol = rollout.clock, rollout.protocol
        violations = clock.violations
        closed = violations and self.gate is not None and self.gate.closes(violations, protocol)
        if closed and self.gate is not None:
            total = self.gate.price(protocol)
            terms = dict.fromkeys(self.names, 0.0)
            terms[FORMAT_ERROR] = total
        else:
            total = 0.0
            terms = {FORMAT_ERROR: 0.0}
            grouped = self.grouped
            for name, term in self.terms.items():
                try:
                    value = term(rollout)
                except SimulatorError:
                    raise
                except Exception as error:
                    error.add_note(f"raised by term {name!r}")
                    raise
                if value.__class__ is not float:
                    value = _number(name, value)
                if not math.isfinite(value):
                    raise ValueError(f"term {name} is {value}")
                if grouped is not None and name in grouped.terms:
                    value = grouped.alone(value, rollout.correct) if alone else value
                terms[name] = value
                total += value
        eta = clock.active_steps / clock.latency if clock.latency else 0.0
        capacity = protocol.capacity
        ratio = eta / capacity if capacity is not None else math.nan
        peak = clock.peak_concurrency
        return Score(total, terms, rollout.accuracy, clock.latency, eta, ratio, peak, violations, rollout.answer)

    def price(self, protocol: Protocol) -> float:
        """Return what a rollout earns that cannot be read at all."""
        return protocol.format_error_reward if self.gate is None else self.gate.price(protocol)

    def check(self, protocol: Protocol) -> None:
        """Score a rollout that any reward can score, so that a wrong set-up shows before the first real one.

        Raises
        ------
        ConfigError
            If the protocol lacks what a term needs, or a term cannot score even this.
        """
        organizer = Thread("organizer", (Answer(1),))
        for outcome in (None, Outcome(correct=True), Outcome(correct=False)):
            try:
                self.score(Rollout(Trace("probe", (organizer,), outcome), protocol))
            except ConfigError:
                raise
            except Exception as error:
                raise ConfigError(f"the reward cannot score a plain answer: {type(error).__name__}: {error}") from error


def _at_step(*, reward: Reward, ramps: Mapping[str, Ramp], step: int) -> Reward:
    terms = {name: Scaled(term, ramps[name].at(step)) if name in ramps else term for name, term in reward.terms.items()}
    return replace(reward, terms=terms, schedule=Schedule(_at_step, {"reward": reward, "ramps": ramps}))
