"""How many tokens: small frozen distributions, each with its formula, that can be written on a command line.

Every sample is a whole number of tokens. A distribution holds no state: the randomness is the caller's
`numpy.random.Generator`.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, fields
from typing import Annotated, TypeAlias

import numpy as np
from numpy.typing import NDArray

from simulator.errors import ConfigError
from simulator.support.checks import check_fields, whole
from simulator.trace import MAX_TOKENS

Samples: TypeAlias = NDArray[np.int64]
Tokens: TypeAlias = Annotated[int, f"from 0 to {MAX_TOKENS:,}"]


class _Numbers:
    """What distributions have in common: numbers that are checked by their annotations, and a text that says them."""

    __slots__ = ()

    def __post_init__(self) -> None:
        check_fields(self, f"{self._name}:")
        *_, low, high = (0, *(getattr(self, each.name) for each in fields(self)))  # type: ignore[arg-type]
        if len(fields(self)) > 1 and low > high:  # type: ignore[arg-type]  # the last two are limits
            raise ConfigError(f"{self._name}: the least must be at most the largest, got {low} and {high}")

    @property
    def _name(self) -> str:
        return type(self).__name__.lower()

    def __str__(self) -> str:
        """Return the shortest text that `distribution` reads back as this."""
        parts = [self._name]
        for each in fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            if not each.kw_only:
                parts.append(str(value))
            elif value != each.default:
                parts.append(f"{each.name[:3]}={value}")
        return ":".join(parts)


@dataclass(frozen=True, slots=True)
class Constant(_Numbers):
    """Always `tokens`.

    >>> Constant(3).sample(np.random.default_rng(0), 2)
    array([3, 3])
    """

    tokens: Tokens

    def sample(self, rng: np.random.Generator, size: int) -> Samples:
        """Draw `size` token counts; takes nothing from `rng`."""
        return np.full(size, self.tokens, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Uniform(_Numbers):
    """Each whole number from `low` to `high`, both included, equally likely. Mean: ``(low + high) / 2``.

    >>> Uniform(1, 6).sample(np.random.default_rng(0), 4)
    array([6, 4, 4, 2])
    """

    low: Tokens
    high: Tokens

    def sample(self, rng: np.random.Generator, size: int) -> Samples:
        """Draw `size` token counts."""
        return rng.integers(self.low, self.high, size=size, endpoint=True)


@dataclass(frozen=True, slots=True)
class LogNormal(_Numbers):
    """``median * exp(sigma * Z)``, Z standard normal, rounded, then kept within `minimum` and `maximum`.

    Mean before rounding and limits: ``median * exp(sigma**2 / 2)``. A `maximum` is how a length limit acts on
    real outputs: everything longer is cut there.

    >>> LogNormal(256, 0.6, maximum=512).sample(np.random.default_rng(0), 4)
    array([276, 236, 376, 273])
    """

    median: Annotated[float, f"from 0 to {MAX_TOKENS:,}"]
    sigma: Annotated[float, "from 0 to 10"]
    _: KW_ONLY
    minimum: Tokens = 1
    maximum: Tokens = MAX_TOKENS

    def sample(self, rng: np.random.Generator, size: int) -> Samples:
        """Draw `size` token counts."""
        drawn = self.median * np.exp(self.sigma * rng.standard_normal(size))
        return np.rint(np.clip(drawn, self.minimum, self.maximum)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Geometric(_Numbers):
    """``P(k) = p * (1 - p)**(k - 1)`` for k = 1, 2, ... with ``p = 1 / mean``, kept within `minimum` and `maximum`.

    The memoryless length: each token is the last with the same probability. Mean before limits: `mean`.

    >>> Geometric(100).sample(np.random.default_rng(0), 4)
    array([ 68, 102,   2,   1])
    """

    mean: Annotated[float, f"from 1 to {MAX_TOKENS:,}"]
    _: KW_ONLY
    minimum: Tokens = 1
    maximum: Tokens = MAX_TOKENS

    def sample(self, rng: np.random.Generator, size: int) -> Samples:
        """Draw `size` token counts."""
        return np.clip(rng.geometric(1 / self.mean, size), self.minimum, self.maximum)


@dataclass(frozen=True, slots=True, init=False)
class Empirical:
    """One of `values`, each as likely as it is frequent among them. Mean: the mean of `values`.

    >>> Empirical(5, 5, 80).sample(np.random.default_rng(0), 4)
    array([80,  5,  5,  5])
    """

    values: tuple[int, ...]

    def __init__(self, *values: int) -> None:
        if not values:
            raise ConfigError("an empirical distribution needs at least one value")
        for value in values:
            whole("a value", value, f"from 0 to {MAX_TOKENS:,}")
        object.__setattr__(self, "values", values)

    def sample(self, rng: np.random.Generator, size: int) -> Samples:
        """Draw `size` token counts."""
        return np.asarray(self.values, dtype=np.int64)[rng.integers(len(self.values), size=size)]

    def __str__(self) -> str:
        return ":".join(["empirical", *map(str, self.values)])


Distribution: TypeAlias = Constant | Uniform | LogNormal | Geometric | Empirical
"""A distribution of token counts."""
DISTRIBUTIONS: dict[str, type[Distribution]] = {
    "constant": Constant,
    "uniform": Uniform,
    "lognormal": LogNormal,
    "geometric": Geometric,
    "empirical": Empirical,
}
"""The distributions by name."""
_LIMITS = {"min": "minimum", "max": "maximum"}
_ACCEPTED = (
    "a number, constant:N, uniform:LOW:HIGH, lognormal:MEDIAN:SIGMA, geometric:MEAN or empirical:N:N:...;"
    " the lognormal and geometric ones also take :min=N and :max=N"
)


def distribution(text: str) -> Distribution:
    """Return the distribution that `text` names; ``str()`` of a distribution is such a text.

    Raises
    ------
    ConfigError
        If `text` names none, or a number in it is refused.

    >>> distribution("lognormal:256:0.6:max=512")
    LogNormal(median=256, sigma=0.6, minimum=1, maximum=512)
    >>> distribution("128")
    Constant(tokens=128)
    >>> str(distribution("uniform:64:512"))
    'uniform:64:512'
    """
    kind, *rest = text.strip().split(":")
    if not rest and kind[:1].isdigit():
        kind, rest = "constant", [kind]
    made = DISTRIBUTIONS.get(kind.lower())
    if made is None:
        raise ConfigError(f"{text!r} names no distribution; accepted: {_ACCEPTED}")
    numbers = [_number(part, text) for part in rest if "=" not in part]
    limits: dict[str, float] = {}
    for part in rest:
        name, equals, value = part.partition("=")
        if equals:
            if name not in _LIMITS or made not in (LogNormal, Geometric) or _LIMITS[name] in limits:
                raise ConfigError(f"{text!r}: {part!r} has no place there; accepted: {_ACCEPTED}")
            limits[_LIMITS[name]] = _number(value, text)
    wanted = sum(field.name not in _LIMITS.values() for field in fields(made))
    if made is not Empirical and len(numbers) != wanted:
        raise ConfigError(f"{text!r}: {kind} takes {wanted} number(s), got {len(numbers)}; accepted: {_ACCEPTED}")
    return made(*numbers, **limits)  # type: ignore[arg-type]  # each class checks its own numbers


def _number(text: str, whole: str) -> float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{whole!r}: {text!r} is not a number; accepted: {_ACCEPTED}") from None
