"""A study: what is simulated, at which points, how often, and what is measured. The same as a TOML file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Any, ClassVar, NamedTuple

import numpy as np

from simulator.errors import ConfigError
from simulator.machine.cost import unit_of
from simulator.metrics.slo import parse_targets
from simulator.study.axes import check_axes, check_baseline, indices_at, n_points, put
from simulator.study.documents import canonical, label, plain
from simulator.study.measures import check_metric, metric_columns
from simulator.study.sections import fields_of
from simulator.study.spec import Arrivals, Hardware, Source, Window
from simulator.support.checks import Share, check_fields, real, whole
from simulator.support.own import load_pieces
from simulator.support.toml import load_toml
from simulator.trace.protocol import Protocol

MAX_QUERIES = 10**7
"""Most queries of a run, samples included: a run is held in memory."""

_SAID_AS = {"imports": "import"}
"""Fields that a study file calls by a word which is not a name in Python."""


class Point(NamedTuple):
    """One combination of axis values."""

    number: int
    values: Mapping[str, Any]
    """The value of each axis."""
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
        How often each query is thought about, as in a group of RL. Generated traces of a group share their prompt.
    arrivals, cluster, protocol, window
        See `Arrivals`, `Hardware`, `Protocol`, `Window`.
    axes : mapping from str to sequence
        What is varied: a dotted name of this study's document (`document`), such as ``protocol.capacity``, and its
        values. A value that is a table is laid over the table of that name.
    replications : int
        Runs of each point. Those of equal number share all random numbers, whatever the point.
    seed : int
        The seed that all random numbers follow from.
    metrics : sequence of str
        What is measured: metrics of a query (mean and percentiles of each), and of a run. See docs/studies.md.
    percentiles : sequence of float
        Percentiles of each metric of a query, from 0 to 100.
    slo : sequence of str
        What each query must keep to, such as ``"ttft < 1 s"``: what ``goodput`` and ``slo_attainment`` count by.
    confidence : float
        Confidence of the Student-t intervals.
    baseline : mapping, optional
        Axis values of the point that the others are compared with.
    imports : sequence of str
        Python files, or modules, that list own pieces. `load_study` imports them before anything is checked; here they
        are only kept. ``import`` in a study file.
    name : str
        What tables call the study.
    base : str
        The folder from which relative paths start.

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
    metrics: tuple[str, ...] = ("latency", "ttft", "throughput", "tokens_per_second", "occupancy", "makespan")
    percentiles: tuple[float, ...] = (50.0, 95.0, 99.0)
    slo: tuple[str, ...] = ()
    confidence: Share = 0.95
    baseline: Mapping[str, Any] | None = None
    imports: tuple[str, ...] = ()
    name: str = ""
    base: str = ""

    FIXED: ClassVar[tuple[str, ...]] = (
        *("axes", "replications", "seed", "metrics", "percentiles", "slo", "confidence"),
        *("baseline", "imports", "import", "name", "base"),
    )
    """What is said once for all points."""

    def __post_init__(self) -> None:
        for name in ("metrics", "percentiles", "slo", "imports"):
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
        if self.axes:
            self._check_axes()
        else:
            parse_targets(self.slo, self.unit)
        if not self.slo and (named := [name for name in ("goodput", "slo_attainment") if name in self.metrics]):
            raise ConfigError(f'{named[0]} counts by objectives of each query: say slo, such as slo = ["ttft < 1 s"]')
        if self.baseline is not None:
            object.__setattr__(self, "baseline", {name: label(value) for name, value in self.baseline.items()})
            check_baseline(self.axes, self.baseline)

    def _check_numbers(self) -> None:
        whole("queries", self.queries, f"from 1 to {MAX_QUERIES:,}, or left out")
        whole("samples", self.samples, "from 1 to 1,000,000")
        whole("replications", self.replications, "from 1 to 1,000,000")
        whole("seed", self.seed, f"from 0 to {2**63 - 1:,}")
        if (self.queries or 0) * self.samples > MAX_QUERIES:
            raise ConfigError(f"queries x samples of a run must be at most {MAX_QUERIES:,}; more are replications")
        real("confidence", self.confidence, "above 0 and below 1", kind="")
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
        check_axes(self.axes, self.FIXED, metric_columns(self.metrics, self.percentiles))
        if len({point.study.unit for point in self.points()}) > 1:
            raise ConfigError("some points count decode steps, others seconds: that is two studies")

    def points(self) -> Iterator[Point]:
        """Yield the points, the last axis varying fastest."""
        return map(self.point, range(self.n_points))

    def point(self, index: int) -> Point:
        """Return one of the points."""
        if not 0 <= index < self.n_points:
            raise ConfigError(f"there is no point {index}; there are {self.n_points:,}")
        named = {name: self.axes[name][int(chosen)] for name, chosen in indices_at(self.axes, index).items()}
        try:
            return Point(index, named, self.at(named))
        except ConfigError as error:
            where = ", ".join(f"{name} = {label(value)}" for name, value in named.items())
            raise ConfigError(f"{error} (at {where})" if where else str(error)) from None

    @property
    def n_points(self) -> int:
        """How many points there are."""
        return n_points(self.axes)

    @property
    def unit(self) -> str:
        """Unit of time: ``steps`` on the decode-step clock, else ``seconds``."""
        first = next(self.points()).study.cluster if self.axes else self.cluster
        return unit_of(first.cluster(self.base).replicas[0].cost)

    def at(self, values: Mapping[str, Any]) -> Study:
        """Return the study of one point: no axes, and these dotted names set.

        Raises
        ------
        ConfigError
            If there is no such name, or a value does not fit.
        """
        document = json.loads(self._own)
        for name, value in values.items():
            put(document, name, value)
        return parse_study(document, base=self.base)

    @cached_property
    def _own(self) -> str:
        """The document of one point, but for the values of the axes, as JSON."""
        return canonical({key: value for key, value in self.document().items() if key not in ("axes", "baseline")})

    def document(self) -> dict[str, Any]:
        """Return the study as a study file says it: plain tables, lists, numbers and texts; what is default left out.

        >>> Study(traces={"a": Source(generate="batch")}, queries=8, protocol=Protocol(capacity=4)).document()
        {'traces': {'a': {'generate': 'batch'}}, 'queries': 8, 'protocol': {'capacity': 4}}
        """
        return {_SAID_AS.get(key, key): value for key, value in plain(self).items() if key != "base"}

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


def load_study(path: str | os.PathLike[str]) -> Study:
    """Return the study that a TOML file describes; see docs/studies.md. What it says to import is run.

    Raises
    ------
    ConfigError
        If it cannot be read, is no TOML, or a key or a value is not what is accepted.
    """
    return load_toml("study", path, partial(_parse_and_import, base=os.path.dirname(os.path.abspath(path))))


def _parse_and_import(document: Mapping[str, Any], base: str) -> Study:
    names = document.get("import", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"import must be a list of texts; got {names!r:.80}")
    for name in names:
        load_pieces(name, base)
    return parse_study(document, base=base)


def parse_study(document: Mapping[str, Any], *, base: str = "") -> Study:
    """Return the study that plain tables describe: the inverse of `Study.document`.

    Parameters
    ----------
    document : mapping
        As a study file says it.
    base : str
        The folder from which relative paths start.

    Raises
    ------
    ConfigError
        If a key or a value is not what is accepted.

    >>> study = parse_study({"traces": {"a": {"generate": "batch"}}, "queries": 8, "cluster": {"max_num_seqs": 4}})
    >>> study.cluster.max_num_seqs, study == parse_study(study.document())
    (4, True)
    >>> parse_study({"traces": {"a": {"generate": "batch"}}, "querys": 8})
    Traceback (most recent call last):
    simulator.errors.ConfigError: no key of a study is called 'querys'; did you mean queries? there are ...
    """
    names = {_SAID_AS.get(each.name, each.name): each.name for each in fields(Study) if each.name != "base"}
    return Study(**{names[key]: value for key, value in fields_of(document, names).items()}, base=base)
