"""The law that fits real engines where a step of a few tokens has steps of its own: a table, and two slopes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from simulator.errors import ConfigError
from simulator.support.checks import real, whole


@dataclass(frozen=True, slots=True)
class SplitTable:
    """``table(t) + b*n + c*context + q*prefill_context + r*t*stored + overhead`` seconds, with t = n + prefill_tokens.

    The table is over the tokens of a step, whatever they are for, and linear between its entries. On a CPU it is not a
    line: kernels work in tiles, and a step of 5 tokens can take longer than one of 8. `b` is what a decoding sequence
    takes beyond a prompt token: the output layer, which is large where the vocabulary is. `c` and `q` read the KV
    cache. `r` is for engines that let each token pass over the whole KV cache and mask what is not its own, as
    llama.cpp does with a unified cache: ``stored`` counts the tokens that all live threads have in memory, shared ones
    once.

    Outside the table nothing is known: ConfigError, unless ``extrapolate="linear"`` continues the outermost lines.

    >>> law = SplitTable((1, 2, 4, 128), (16e-3, 37e-3, 45e-3, 0.6), c=6e-6, q=4e-6)
    >>> round(law.step_seconds(2, 1000, 1, 50), 6)
    0.0472
    >>> law.decode_seconds(4, 2000, 2) == law.step_seconds(4, 2000) + law.step_seconds(4, 2004)
    True
    >>> law.step_seconds(200, 0)
    Traceback (most recent call last):
    simulator.errors.ConfigError: SplitTable: 200 tokens in a step are outside the 1 to 128 measured; ...
    """

    tokens: tuple[int, ...]
    """Tokens in a step, of each entry, increasing."""
    seconds: tuple[float, ...]
    """Seconds of such a step, if all of them are prompt tokens, without what its context adds."""
    b: float = 0.0
    """Seconds per decoding sequence, on top."""
    c: float = 0.0
    """Seconds per token that the decoding sequences attend to."""
    q: float = 0.0
    """Seconds per token that a prompt token attends to."""
    r: float = 0.0
    """Seconds per token of the step and token in memory."""
    extrapolate: Literal["linear"] | None = None
    """What to do outside the table. None: refuse."""
    overhead: float = field(default=0.0, kw_only=True)
    """Seconds of the host per step, on top."""

    _slopes: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.extrapolate not in (None, "linear"):
            raise ConfigError(f'SplitTable: extrapolate must be "linear" or None, got {self.extrapolate!r}')
        for name in ("b", "c", "q", "r", "overhead"):
            real(f"SplitTable: {name}", getattr(self, name), "from 0 to 3600 seconds")
        tokens = _entries("tokens", self.tokens, whole, "from 1 to 10^9")
        seconds = _entries("seconds", self.seconds, real, "from 1e-12 to 3600")
        if any(a >= b for a, b in pairwise(tokens)):
            raise ConfigError(f"SplitTable: tokens must increase; got {tokens!r:.80}")
        if len(tokens) != len(seconds):
            raise ConfigError(f"SplitTable: {len(tokens)} tokens need as many seconds; got {len(seconds)}")
        slopes = tuple((seconds[i + 1] - seconds[i]) / (tokens[i + 1] - tokens[i]) for i in range(len(tokens) - 1))
        if self.extrapolate and slopes[-1] < 0:
            raise ConfigError("SplitTable: seconds cannot be extrapolated: they shrink towards the largest step")
        if self.extrapolate and seconds[0] - slopes[0] * (tokens[0] - 1) < 1e-12:
            raise ConfigError("SplitTable: seconds extrapolated to a step of one token are not above 0; measure it")
        for name, value in (("tokens", tokens), ("seconds", seconds), ("_slopes", slopes)):
            object.__setattr__(self, name, value)

    @property
    def prefill_is_free(self) -> bool:
        """False."""
        return False

    def step_seconds(self, n: int, context: int, prefill_tokens: int = 0, prefill_context: int = 0) -> float:
        """The law, without what `cache_seconds` adds."""
        table = self._table(n + prefill_tokens) + self.overhead
        return table + self.b * n + self.c * context + self.q * prefill_context

    def decode_seconds(self, n: int, context: int, k: int) -> float:
        """The law summed: only the context changes from step to step, by `n`."""
        if not k:
            return 0.0
        return k * (self._table(n) + self.overhead + self.b * n + self.c * context) + self.c * n * (k * (k - 1) // 2)

    @property
    def cache_seconds(self) -> Callable[[int, int, int], float] | None:
        """What `k` steps of so many tokens take on top while so many tokens are stored at the first, and at each later
        one as many more as a step has; None where `r` is 0.

        >>> SplitTable((1, 2), (1.0, 2.0), r=0.5).cache_seconds(2, 10, 3)
        36.0
        """
        return self._cache_seconds if self.r else None

    def _cache_seconds(self, tokens: int, stored: int, k: int) -> float:
        return self.r * tokens * (k * stored + tokens * (k * (k - 1) // 2))

    def _table(self, tokens: int) -> float:
        first, last = self.tokens[0], self.tokens[-1]
        if not first <= tokens <= last and (not self.extrapolate or not tokens):
            if not tokens:  # a step of nothing
                return self.seconds[0]
            raise ConfigError(
                f"SplitTable: {tokens:,} tokens in a step are outside the {first:,} to {last:,} measured;"
                ' extrapolate="linear" continues the outermost lines'
            )
        i = bisect_right(self.tokens, tokens, 1, len(self.tokens) - 1) - 1
        return self.seconds[i] + self._slopes[i] * (tokens - self.tokens[i])


def _entries(name: str, values: Any, check: Callable[..., None], wanted: str) -> tuple[Any, ...]:
    try:
        entries = tuple(values)
    except TypeError:
        raise ConfigError(f"SplitTable: {name} must be a list of numbers, got {values!r:.80}") from None
    if len(entries) < 2:
        raise ConfigError(f"SplitTable: {name} must be two or more, got {entries!r:.80}")
    for value in entries:
        check(f"SplitTable: {name}", value, wanted, kind="numbers")
    return entries
