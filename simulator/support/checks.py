"""What the options of a workload must be."""

from __future__ import annotations

from simulator.errors import ConfigError


def whole(name: str, value: int, low: int, high: int) -> None:
    """Raise ConfigError unless `value` is an int from `low` to `high`."""
    if value.__class__ is not int or not low <= value <= high:
        raise ConfigError(f"{name} must be a whole number from {low} to {high}, got {value!r}")


def real(name: str, value: float, low: float, high: float) -> None:
    """Raise ConfigError unless `value` is a number from `low` to `high`."""
    # `not a <= b` also refuses NaN.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ConfigError(f"{name} must be a number from {low:g} to {high:g}, got {value!r}")
