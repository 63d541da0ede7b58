"""A study: what is simulated, at which points, how often, and what is measured."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np

from simulator.errors import ConfigError
from simulator.machine.cost import DecodeSteps
from simulator.study.documents import canonical, label, plain
from simulator.study.measures import check_metric, metric_columns
from simulator.study.sections import fields_of
from simulator.study.spec import Arrivals, Hardware, Source, Window
from simulator.support.options import Share, check_fields, choose
from simulator.trace.protocol import Protocol

__all__ = ["Point", "Study"]

MAX_POINTS = 1_000_000
MAX_QUERIES = 10**7
"""Of a run, samples included: it is held in memory."""


class Point(NamedTuple):
    """One combination of axis values."""

    number: int
    values: Mapping[str, Any]
    """One value an axis."""
    study: Study
    """What is simulated there: a study without axes."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Points x replications of one simulation. The same nouns as a study file; see docs/studies.md.

    Parameters
    ----------
    traces : mapping from str to Source
        Where the queries come from.
    queries : int, optional
        Queries of a run, drawn from the sources by weight. Default: every trace of every file once, in order.
    samples : int
        How often each is thought about: a group of RL. Generated traces of a group share their prompt.
    arrivals, cluster, protocol, window
        See `Arrivals`, `Hardware`, `Protocol`, `Window`.
    axes : mapping from str to sequence
        What is varied: a dotted name of this study's document (`document`), such as ``protocol.capacity``, and its
        values. A value that is a table is laid over the table of that name.
    replications : int
        Runs of each point. Those of equal number share all random numbers, whatever the point.
    seed : int
        Of all random numbers.
    metrics : sequence of str
        What is measured: metrics of a query (mean and percentiles of each), and of a run. See docs/studies.md.
    percentiles : sequence of float
    confidence : float
        Of Student-t intervals.
    baseline : mapping, optional
        Axis values of the point that others are compared with.
    name : str
    base : str
        Folder where relative paths start.

    Raises
    ------
    ConfigError
        If anything is unknown, out of range, or does not go together: at once, for all points.

    Examples
    --------
    >>> study = Study(
    ...     traces={"math": Source(generate="asyncthink_math")},
    ...     queries=64,
    ...     axes={"protocol.capacity": [2, 3, 4]},
    ...     replications=3,
    ... )
    >>> [point.values for point in study.points()]
    [{'protocol.capacity': 2}, {'protocol.capacity': 3}, {'protocol.capacity': 4}]
    >>> study.at({"protocol.capcity": 2})
    Traceback (most recent call last):
    simulator.errors.ConfigError: no key of [protocol] is called 'capcity'; did you mean capacity? there are ...
    """

    traces: Mapping[str, Source]
    queries: int | None = None
    samples: int = 1
    arrivals: Arrivals = field(default_factory=Arrivals)
    cluster: Hardware = field(default_factory=Hardware)
    protocol: Protocol = field(default_factory=Protocol)
    window: Window = field(default_factory=Window)
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    replications: int = 5
    seed: int = 0
    metrics: tuple[str, ...] = ("latency", "throughput", "tokens_per_second", "utilization", "mean_batch", "makespan")
    percentiles: tuple[float, ...] = (50.0, 95.0, 99.0)
    confidence: Share = 0.95
    baseline: Mapping[str, Any] | None = None
    name: str = ""
    base: str = ""

    FIXED: ClassVar[tuple[str, ...]] = (
        *("axes", "replications", "seed", "metrics", "percentiles", "confidence", "baseline", "name", "base"),
    )
    """What is said once for all points."""

    def __post_init__(self) -> None:
        for name in ("metrics", "percentiles"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        check_fields(self, "study")
        if not self.traces:
            raise ConfigError("a study says at least one source of traces: [traces.NAME]")
        for name, source in self.traces.items():
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise ConfigError(f"sources are called by letters, digits, _ and -; got {name!r}")
            if not isinstance(source, Source):
                raise ConfigError(f"traces.{name} must be a Source; got {source!r:.80}")
        self._check_numbers()
        self._check_queries()
        for name in self.metrics:
            check_metric(name)
        self.cluster.cluster(self.base)
        if self.baseline is not None:
            object.__setattr__(self, "baseline", {name: label(value) for name, value in self.baseline.items()})
        if self.axes:
            self._check_axes()
        elif self.baseline:
            raise ConfigError("a baseline is a point of the axes, and there are none")

    def _check_numbers(self) -> None:
        most = {"queries": MAX_QUERIES, "samples": 10**6, "replications": 10**6, "seed": 2**63 - 1}
        for name, high in most.items():
            value, low = getattr(self, name), int(name != "seed")
            if value is not None and not low <= value <= high:
                raise ConfigError(f"{name} must be a whole number from {low} to {high:,}; got {value!r}")
        if (self.queries or 0) * self.samples > MAX_QUERIES:
            raise ConfigError(f"queries x samples of a run must be at most {MAX_QUERIES:,}; more are replications")
        if self.confidence >= 1:
            raise ConfigError(f"confidence must be above 0 and below 1; got {self.confidence!r}")
        for value in self.percentiles:
            if not 0 <= value <= 100:
                raise ConfigError(f"percentiles must be from 0 to 100; got {value!r}")
        if len({f"{value:.12g}" for value in self.percentiles}) < len(self.percentiles):
            raise ConfigError("percentiles says one of them twice")

    def _check_queries(self) -> None:
        if self.arrivals.kind == "recorded":
            if any(source.generate for source in self.traces.values()):
                raise ConfigError("recorded arrivals are those of files; generated traces have none")
            if len(self.traces) > 1 or self.samples > 1:
                raise ConfigError("recorded arrivals are those of one source, each trace once")
        elif self.queries is None:
            if any(source.generate for source in self.traces.values()):
                raise ConfigError("a study that generates traces must say queries")
            if self.samples > 1:
                raise ConfigError("samples needs queries: how many prompts are sampled so often")
        if self.arrivals.kind == "closed" and self.samples > 1:
            raise ConfigError("samples of a prompt arrive together; in a closed loop each waits for an answer")
        if not self.arrivals.is_open and (self.window.warmup or self.window.cooldown):
            raise ConfigError(f"a window is for open arrivals, not for {self.arrivals.kind}: all queries are measured")

    def _check_axes(self) -> None:
        count = 1
        for name, values in self.axes.items():
            if not isinstance(values, (list, tuple)) or not values:
                raise ConfigError(f"axis {name} must be a list of values, at least one; got {values!r:.80}")
            if len({str(label(value)) for value in values}) < len(values):
                raise ConfigError(f"axis {name} says one value twice, or two of one name")
            count *= len(values)
        if count > MAX_POINTS:
            raise ConfigError(f"{count:,} points are too many; at most {MAX_POINTS:,}")
        for name in self.axes:
            if name.partition(".")[0] in self.FIXED:
                raise ConfigError(f"{name} is the same for all points: it cannot be an axis")
        for name in metric_columns(self.metrics, self.percentiles):
            if name in self.axes:
                raise ConfigError(f"{name} is an axis already: it cannot be measured as well")
        for name, inner in itertools.permutations(self.axes, 2):
            if inner.startswith(f"{name}."):
                first = inner[len(name) + 1 :].partition(".")[0]
                if any(not isinstance(value, Mapping) or first in value for value in self.axes[name]):
                    raise ConfigError(f"the axes {name} and {inner} both set {name}.{first}")
        units = {point.study.unit for point in self.points()}
        if len(units) > 1:
            raise ConfigError("some points count decode steps, others seconds: that is two studies")
        for name, value in (self.baseline or {}).items():
            choose(name, self.axes, "axis")
            if value not in [label(each) for each in self.axes[name]]:
                known = ", ".join(str(label(each)) for each in self.axes[name])
                raise ConfigError(f"baseline: {name} is never {value!r}; it is {known}")

    def points(self) -> Iterator[Point]:
        """Yield the points, the last axis varying fastest."""
        for index, values in enumerate(itertools.product(*self.axes.values())):
            named = dict(zip(self.axes, values, strict=True))
            yield Point(index, named, self._study_at(named))

    def point(self, index: int) -> Point:
        """Return one of the points."""
        if not 0 <= index < self.n_points:
            raise ConfigError(f"there is no point {index}; there are {self.n_points:,}")
        sizes = tuple(len(values) for values in self.axes.values())
        places = np.unravel_index(index, sizes) if sizes else ()
        named = {name: self.axes[name][int(place)] for name, place in zip(self.axes, places, strict=True)}
        return Point(index, named, self._study_at(named))

    def _study_at(self, named: Mapping[str, Any]) -> Study:
        try:
            return self.at(named)
        except ConfigError as error:
            where = ", ".join(f"{name} = {label(value)}" for name, value in named.items())
            raise ConfigError(f"{error} (at {where})" if where else str(error)) from None

    @property
    def n_points(self) -> int:
        """How many points there are."""
        return int(np.prod([len(values) for values in self.axes.values()], dtype=np.int64))

    @property
    def unit(self) -> str:
        """Unit of time: ``steps`` on the decode-step clock, else ``seconds``."""
        first = next(self.points()).study.cluster if self.axes else self.cluster
        return "steps" if isinstance(first.cluster(self.base).replicas[0].cost, DecodeSteps) else "seconds"

    def at(self, values: Mapping[str, Any]) -> Study:
        """Return the study of one point: no axes, and these dotted names set.

        Raises
        ------
        ConfigError
            If there is no such name, or a value does not fit.
        """
        document = json.loads(self._own)
        for name, value in values.items():
            _put(document, name, value)
        return Study.of(document, self.base)

    @staticmethod
    def of(document: Mapping[str, Any], base: str = "") -> Study:
        """Return the study that a document describes; see `simulator.study.parse_study`."""
        known = [each.name for each in fields(Study) if each.name != "base"]
        return Study(**fields_of(document, known), base=base)

    @cached_property
    def _own(self) -> str:
        """The document of one point, but for the values of the axes, as JSON."""
        return canonical({key: value for key, value in self.document().items() if key not in ("axes", "baseline")})

    def document(self) -> dict[str, Any]:
        """Return the study as a study file says it: plain tables, lists, numbers and texts; what is default left out.

        >>> Study(traces={"a": Source(generate="batch")}, queries=8, protocol=Protocol(capacity=4)).document()
        {'traces': {'a': {'generate': 'batch'}}, 'queries': 8, 'protocol': {'capacity': 4}}
        """
        return {key: value for key, value in plain(self).items() if key != "base"}

    def spec(self) -> str:
        """Return, as JSON, all that one run of this study depends on, but for its seed and the files it reads."""
        document = json.loads(self._own)
        for name in ("replications", "seed", "name", "confidence"):
            document.pop(name, None)
        return canonical(document)

    def seed_of(self, replication: int) -> int:
        """Return the seed of a replication, from 0 to 2^63 - 1. It does not depend on the point."""
        state = np.random.SeedSequence([self.seed, replication]).generate_state(1, np.uint64)
        return int(state[0] >> np.uint64(1))

    def with_(self, **changes: Any) -> Study:
        """Return a copy with `changes` made."""
        return replace(self, **changes)


def _put(document: dict[str, Any], dotted: str, value: Any) -> None:
    """Set a dotted name; a table is laid over what is there."""
    *path, last = dotted.split(".")
    table = document
    for part in path:
        inside = table.setdefault(part, {})
        if not isinstance(inside, dict):
            raise ConfigError(f"{dotted}: {part} is no table")
        table = inside
    there = table.get(last)
    table[last] = {**there, **value} if isinstance(value, Mapping) and isinstance(there, dict) else value
