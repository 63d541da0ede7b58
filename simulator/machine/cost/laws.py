"""Cost models that are one line: the decode-step clock, a constant rate, and the linear law."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from simulator.errors import ConfigError
from simulator.machine.cost.base import check_numbers


@dataclass(frozen=True, slots=True)
class DecodeSteps:
    """The decode-step clock: a step takes one unit of time, and that unit is called a step. Prompts cost nothing.

    On this clock a Delay takes ``Protocol.delay_steps`` steps instead of its seconds.

    >>> DecodeSteps().decode_seconds(8, 1000, 100)
    100.0
    """

    monotone: ClassVar[bool] = True
    unit: ClassVar[str] = "steps"

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

    monotone: ClassVar[bool] = True

    tokens_per_second: float
    """Decode rate of one sequence."""
    overhead: float = field(default=0.0, kw_only=True)
    """Seconds of the host per step, on top."""

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.tokens_per_second < 1e-9:
            raise ConfigError(f"ConstantRate: tokens_per_second must be above 0, got {self.tokens_per_second!r}")

    @property
    def prefill_is_free(self) -> bool:
        """True."""
        return True

    def step_seconds(self, n: int, context: int, prefill_tokens: int = 0, prefill_context: int = 0) -> float:
        """One token's time."""
        return 1 / self.tokens_per_second + self.overhead

    def decode_seconds(self, n: int, context: int, k: int) -> float:
        """`k` tokens' time."""
        return k / self.tokens_per_second + k * self.overhead


@dataclass(frozen=True, slots=True)
class LinearBatch:
    """``a + b*n + c*context + p*prefill_tokens + q*prefill_context + overhead`` seconds a step.

    The usual first-order law of a decoder on a GPU: `a` reads the weights, `b` is the work of a sequence, `c` reads the
    KV cache, `p` and `q` are the same for prompt tokens. With `p` and `q` 0 prompts are free.

    >>> model = LinearBatch(a=6e-3, b=1e-5, c=5e-8)
    >>> model.decode_seconds(4, 2000, 2) == model.step_seconds(4, 2000) + model.step_seconds(4, 2004)
    True
    """

    monotone: ClassVar[bool] = True

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
    overhead: float = field(default=0.0, kw_only=True)
    """Seconds of the host per step, where `a` is the GPU's alone."""

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.a + self.b < 1e-12:
            raise ConfigError("LinearBatch: a step must take time; a + b is 0")

    @property
    def prefill_is_free(self) -> bool:
        """True if `p` and `q` are 0."""
        return not (self.p or self.q)

    def step_seconds(self, n: int, context: int, prefill_tokens: int = 0, prefill_context: int = 0) -> float:
        """The law itself."""
        fixed = self.a + self.overhead
        return fixed + self.b * n + self.c * context + self.p * prefill_tokens + self.q * prefill_context

    def decode_seconds(self, n: int, context: int, k: int) -> float:
        """The law summed: context grows by `n` a step, so the sum has a triangle ``n * k * (k - 1) / 2``."""
        return k * (self.a + self.overhead + self.b * n + self.c * context) + self.c * n * (k * (k - 1) // 2)
