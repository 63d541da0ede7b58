"""Seconds of an engine step for a given batch.

A cost model is any object with the three members of `CostModel`. The engine asks it two things: what one step costs,
and what `k` decode-only steps in a row cost while every sequence grows by a token a step. The second lets the engine
leap; it must equal adding up the first, and a law test holds every model in `COSTS` to that.

Units: seconds; `context` is the sum over the decoding sequences of the tokens each attends to, its own included.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol

from simulator.errors import ConfigError

__all__ = ["COSTS", "ConstantRate", "CostModel", "DecodeSteps", "LinearBatch", "cost_from_text"]


class CostModel(Protocol):
    """What the engine asks of a cost model."""

    @property
    def prefill_is_free(self) -> bool:
        """Whether prompt tokens take no time. Then they take no step either: a sequence decodes from its admission."""
        ...

    def step_seconds(self, n: int, context: int, prefill_tokens: int = 0, prefill_context: int = 0) -> float:
        """Seconds of one step: `n` sequences decode, attending to `context` tokens in all, and `prefill_tokens` prompt
        tokens are processed, attending to `prefill_context` tokens in all.
        """
        ...

    def decode_seconds(self, n: int, context: int, k: int) -> float:
        """Seconds of `k` steps in which `n` sequences decode; `context` at the first, `n` more at each later one."""
        ...


def _check(model: Any) -> None:
    for item in fields(model):
        value = getattr(model, item.name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1e9:
            raise ConfigError(f"{type(model).__name__}: {item.name} must be a number from 0 to 10^9, got {value!r}")


@dataclass(frozen=True, slots=True)
class DecodeSteps:
    """The decode-step clock: a step takes one unit of time, and that unit is called a step. Prompts cost nothing.

    On this clock a Delay takes ``Protocol.delay_steps`` steps instead of its seconds.

    >>> DecodeSteps().decode_seconds(8, 1000, 100)
    100.0
    """

    @property
    def prefill_is_free(self) -> bool:
        """True."""
        return True

    def step_seconds(self, n: int, context: int, prefill_tokens: int = 0, prefill_context: int = 0) -> float:
        """One step."""
        return 1.0

    def decode_seconds(self, n: int, context: int, k: int) -> float:
        """`k` steps."""
        return float(k)


@dataclass(frozen=True, slots=True)
class ConstantRate:
    """Every sequence decodes `tokens_per_second`, however many there are; prompts cost nothing.

    >>> ConstantRate(50).decode_seconds(8, 1000, 100)
    2.0
    """

    tokens_per_second: float
    """Decode rate of one sequence."""

    def __post_init__(self) -> None:
        _check(self)
        if self.tokens_per_second < 1e-9:
            raise ConfigError(f"ConstantRate: tokens_per_second must be above 0, got {self.tokens_per_second!r}")

    @property
    def prefill_is_free(self) -> bool:
        """True."""
        return True

    def step_seconds(self, n: int, context: int, prefill_tokens: int = 0, prefill_context: int = 0) -> float:
        """One token's time."""
        return 1 / self.tokens_per_second

    def decode_seconds(self, n: int, context: int, k: int) -> float:
        """`k` tokens' time."""
        return k / self.tokens_per_second


@dataclass(frozen=True, slots=True)
class LinearBatch:
    """``a + b*n + c*context + p*prefill_tokens + q*prefill_context`` seconds a step.

    The usual first-order law of a decoder on a GPU: `a` reads the weights, `b` is the work of a sequence, `c` reads the
    KV cache, `p` and `q` are the same for prompt tokens. With `p` and `q` 0 prompts are free.

    >>> model = LinearBatch(a=6e-3, b=1e-5, c=5e-8)
    >>> model.decode_seconds(4, 2000, 2) == model.step_seconds(4, 2000) + model.step_seconds(4, 2004)
    True
    """

    a: float
    """Seconds of a step, whatever is in it."""
    b: float = 0.0
    """Seconds per decoding sequence."""
    c: float = 0.0
    """Seconds per token of context."""
    p: float = 0.0
    """Seconds per prefill token."""
    q: float = 0.0
    """Seconds per token that a prefill token attends to."""

    def __post_init__(self) -> None:
        _check(self)
        if self.a + self.b < 1e-12:
            raise ConfigError("LinearBatch: a step must take time; a + b is 0")

    @property
    def prefill_is_free(self) -> bool:
        """True if `p` and `q` are 0."""
        return not (self.p or self.q)

    def step_seconds(self, n: int, context: int, prefill_tokens: int = 0, prefill_context: int = 0) -> float:
        """The law itself."""
        return self.a + self.b * n + self.c * context + self.p * prefill_tokens + self.q * prefill_context

    def decode_seconds(self, n: int, context: int, k: int) -> float:
        """The law summed: context grows by `n` a step, so the sum has a triangle ``n * k * (k - 1) / 2``."""
        return k * (self.a + self.b * n + self.c * context) + self.c * n * (k * (k - 1) // 2)


COSTS: dict[str, Callable[..., CostModel]] = {"rate": ConstantRate, "linear": LinearBatch}
"""Cost models by the name that the command line gives them; each is made from its numbers."""


def cost_from_text(text: str) -> CostModel:
    """Return the cost model that `text` names, as the command line takes it.

    >>> cost_from_text("rate:50")
    ConstantRate(tokens_per_second=50.0)
    >>> cost_from_text("linear:6e-3,1e-5")
    LinearBatch(a=0.006, b=1e-05, c=0.0, p=0.0, q=0.0)
    """
    name, _, numbers = text.partition(":")
    accepted = "rate:TOKENS_PER_SECOND or linear:A,B,C,P,Q (seconds)"
    if name not in COSTS:
        raise ConfigError(f"no cost model is called {name!r}; accepted: {accepted}")
    try:
        values = [float(number) for number in numbers.split(",")]
        if not all(map(math.isfinite, values)):
            raise ValueError
        return COSTS[name](*values)
    except (ValueError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{text!r} is not {accepted}") from None
