"""What is known of a metric beside its value: its unit, which way is better, and what it is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from simulator.errors import ConfigError

TIME = "time"
"""The unit of a metric that is a time. A timeline counts time in steps or in seconds, and so does its metric."""

Of = TypeVar("Of")


@dataclass(frozen=True, slots=True)
class Metric(Generic[Of]):
    """A metric: an entry of `simulator.metrics.METRICS`, `simulator.metrics.SUMMARIES` and their like.

    Raises
    ------
    ConfigError
        If it has no function or no title, its unit is no text, or `better` is something else.

    Examples
    --------
    >>> metric = Metric(lambda timeline: len(timeline) / timeline.makespan, "queries per time", "higher", "answer rate")
    >>> metric.unit_on("steps"), metric.unit_on("seconds")
    ('queries per step', 'queries per second')
    """

    function: Callable[[Of], float]
    """Computes it from a `QueryView` or a `Timeline`, as the registry says; NaN where it does not exist."""
    unit: str
    """What it is counted in, in the plural: ``tokens``, ``dollars``, or `TIME`, which may also be part of a unit:
    ``queries per time``. Empty for a plain number or a share."""
    better: Literal["lower", "higher"] | None
    """Which values are better; None if neither."""
    title: str
    """What people call it, in tables and pictures. ``per time`` in it becomes ``per step`` or ``per second``."""
    heading: str = ""
    """A shorter title, for the column of a table. Default: the title."""
    milli: bool = False
    """Whether tables for people show its seconds in milliseconds."""

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ConfigError(f"a metric's function must be a function, got {self.function!r:.80}")
        if not isinstance(self.title, str) or not self.title.strip():
            raise ConfigError(f"a metric's title must be a text, got {self.title!r:.80}")
        if not isinstance(self.unit, str):
            raise ConfigError(
                f"the unit of {self.title} must be a text, empty for a plain number; got {self.unit!r:.80}"
            )
        if self.better not in ("lower", "higher", None):
            raise ConfigError(f"better of {self.title} must be 'lower', 'higher' or None; got {self.better!r:.80}")
        object.__setattr__(self, "heading", self.heading or self.title)

    def unit_on(self, clock: str) -> str:
        """Return its unit where time is counted in `clock`: ``steps`` or ``seconds``, see `Timeline.unit`."""
        return clock if self.unit == TIME else _on(clock, self.unit)

    def title_on(self, clock: str) -> str:
        """Return its title where time is counted in `clock`."""
        return _on(clock, self.title)

    def heading_on(self, clock: str) -> str:
        """Return the heading of its column; it says ``s`` of seconds, or ``ms``.

        >>> Metric(len, TIME, "lower", "latency").heading_on("seconds")
        'latency s'
        """
        unit = "" if self.unit_on(clock) != "seconds" else " ms" if self.milli else " s"
        return _on(clock, self.heading) + unit

    def shown_on(self, clock: str, value: float) -> float:
        """Return a value as it stands under that heading.

        >>> pace = Metric(len, TIME, "lower", "time per token", milli=True)
        >>> pace.heading_on("seconds"), pace.shown_on("seconds", 0.0075), pace.shown_on("steps", 1.5)
        ('time per token ms', 7.5, 1.5)
        """
        return 1000 * value if self.milli and self.unit_on(clock) == "seconds" else value


def _on(clock: str, text: str) -> str:
    return text.replace("per time", f"per {clock.removesuffix('s')}")


def record_of(registry: Mapping[str, Metric[Of]], name: str) -> Metric[Of]:
    """Return an entry of a registry.

    Raises
    ------
    ConfigError
        If it is no `Metric` but, say, a bare function.
    """
    metric: Any = registry[name]
    if not isinstance(metric, Metric):
        raise ConfigError(
            f"the metric {name!r} must be a simulator.metrics.Metric, such as"
            f" Metric(function, unit='', better=None, title={name!r}); got {metric!r:.80}"
        )
    return metric


def values_of(registry: Mapping[str, Metric[Of]], of: Of) -> dict[str, float]:
    """Return the value of every metric of a registry, by name."""
    try:
        return {name: metric.function(of) for name, metric in registry.items()}
    except AttributeError:  # looked for only now, as this is a hot path
        for name in registry:
            record_of(registry, name)
        raise
