"""Recorded runs against their simulation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np

from simulator.engine.simulation import simulate
from simulator.errors import ConfigError, SimulatorError
from simulator.fidelity.calibration import Errors
from simulator.fidelity.recorded import CLASSES, recorded_latency, recorded_times, simulated_times
from simulator.fidelity.runs import RecordedRun, recorded_runs
from simulator.machine.cost import unit_of
from simulator.machine.gpu import GPU
from simulator.trace import Fork, Trace
from simulator.trace.protocol import Protocol


class Checked(NamedTuple):
    """One recorded query and its simulation, in seconds."""

    trace: str
    run: str
    kind: str
    """``meta.kind`` of the record, or how many queries its run has: ``single`` or ``multi``."""
    measured: float
    """Latency, from arrival to answer."""
    predicted: float
    measured_times: dict[str, float]
    """By class of `CLASSES`, summed over the threads."""
    predicted_times: dict[str, float]
    spec: tuple[str, ...]
    """What was asked: equal for repeats of one run. Empty where the record does not say."""
    rep: str
    twin: tuple[str, ...]
    """The `spec` of the query that this one is the sequential twin of, where the record says so."""
    tokens: int
    """Tokens decoded, all threads."""
    forks: bool

    @property
    def error(self) -> float:
        """Relative error of the latency."""
        return self.predicted / self.measured - 1


class ClassError(NamedTuple):
    """How far one class of times is off."""

    name: str
    measured: float
    """Seconds, all queries."""
    predicted: float
    mean: float
    """Mean over the queries of the absolute error, as a share of the query's latency."""


class Speedup(NamedTuple):
    """A query and its sequential twin."""

    trace: str
    measured: float
    """Latency of the twin over that of the query; means over repeats."""
    predicted: float

    @property
    def error(self) -> float:
        """Relative error."""
        return self.predicted / self.measured - 1


class RunSpan(NamedTuple):
    """Seconds from the first arrival to the last answer of a run with several queries."""

    spec: tuple[str, ...]
    rep: str
    measured: float
    predicted: float


@dataclass(frozen=True)
class Validation:
    """What `validate` found."""

    queries: tuple[Checked, ...]
    spans: tuple[RunSpan, ...] = ()
    """Of the runs with several queries."""
    refused: tuple[SimulatorError, ...] = ()
    """Records that could not be used."""

    @property
    def runs(self) -> Errors | None:
        """Errors of the seconds from a run's first arrival to its last answer, of runs with several queries."""
        return _errors([(span.predicted, span.measured) for span in self.spans]) if self.spans else None

    @property
    def run_repeats(self) -> Errors | None:
        """How far repeats of one such run are apart."""
        return _spread([(span.spec, span.rep, span.measured) for span in self.spans])

    def kinds(self) -> tuple[str, ...]:
        """Return the kinds there are."""
        return tuple(dict.fromkeys(query.kind for query in self.queries))

    def errors(self, kind: str | None = None) -> Errors:
        """Return the errors of the latencies, of all queries or those of a kind."""
        chosen = [query for query in self.queries if kind in (None, query.kind)]
        if not chosen:
            raise ConfigError(f"no query is of the kind {kind!r}; there are {', '.join(self.kinds())}")
        return _errors([(query.predicted, query.measured) for query in chosen])

    def errors_of_means(self, kind: str | None = None) -> Errors | None:
        """Return the errors of the predictions against the means over repeats, which are noisy by less than one run.

        Queries without a ``meta["spec"]`` are left out; None if there are no others.
        """
        specs: dict[tuple[str, ...], list[Checked]] = {}
        for query in self.queries:
            if query.spec and kind in (None, query.kind):
                specs.setdefault(query.spec, []).append(query)
        means = [
            (float(np.mean([q.predicted for q in queries])), float(np.mean([q.measured for q in queries])))
            for queries in specs.values()
        ]
        return _errors(means) if means else None

    def repeats(self, kind: str | None = None) -> Errors | None:
        """Return how far repeats of one query are apart, relative to their mean; None if nothing was repeated."""
        return _spread([(q.spec, q.rep, q.measured) for q in self.queries if kind in (None, q.kind)])

    def classes(self) -> tuple[ClassError, ...]:
        """Return how far each class of times is off."""
        found = []
        for name in CLASSES:
            measured = np.array([query.measured_times[name] for query in self.queries])
            predicted = np.array([query.predicted_times[name] for query in self.queries])
            share = np.abs(predicted - measured) / np.array([query.measured for query in self.queries])
            found.append(ClassError(name, float(measured.sum()), float(predicted.sum()), float(share.mean())))
        return tuple(found)

    def speedups(self) -> tuple[Speedup, ...]:
        """Return the speed-up over its sequential twin, of each query that has one.

        A twin says so (``meta["twin"]``), or has no Fork, the same ``meta["spec"]`` and as many tokens.
        """
        forked: dict[tuple[str, ...], list[Checked]] = {}
        twins: dict[tuple[str, ...], list[Checked]] = {}
        for query in self.queries:
            if query.forks and query.spec:
                forked.setdefault(query.spec[1:], []).append(query)
            elif not query.forks and (query.twin or query.spec):
                twins.setdefault((query.twin or query.spec)[1:], []).append(query)
        found = []
        for spec, queries in forked.items():
            alone = [twin for twin in twins.get(spec, ()) if twin.twin or twin.tokens == queries[0].tokens]
            if alone:
                measured, predicted = (
                    float(np.mean([getattr(q, name) for q in alone]) / np.mean([getattr(q, name) for q in queries]))
                    for name in ("measured", "predicted")
                )
                found.append(Speedup(queries[0].trace, measured, predicted))
        return tuple(found)


def validate(
    traces: Iterable[Trace],
    *,
    gpu: GPU,
    protocol: Protocol | None = None,
    max_workers: int | None = None,
    max_prefill_tokens: int | None = None,
) -> Validation:
    """Simulate recorded queries and compare.

    Queries with the same ``meta["run"]`` ran together and are simulated together, with their recorded arrivals. Only
    what was asked is used (tokens, Forks, Joins, arrivals), none of the recorded times.

    Parameters
    ----------
    traces : iterable of Trace
        Native traces whose actions have `start` and `finish`.
    gpu : GPU
        Such as `load_profile` returns.
    protocol : Protocol, optional
        Default: no pool capacity; the workers of a real run wait by `max_workers`.
    max_workers : int, optional
        Workers of all queries that ran at once. Default: ``meta["max_workers"]`` or ``meta["cap"]`` of each run.
    max_prefill_tokens : int, optional
        Prompt tokens in a step at most. Default: ``meta["max_prefill"]`` of each run, else the `gpu`'s.

    Returns
    -------
    Validation

    Raises
    ------
    ConfigError
        If no trace can be used, or `gpu` counts steps and not seconds.

    >>> from simulator import GPU, Answer, LinearBatch, Thread, Trace
    >>> answer = Answer(100, start=0.0, finish=2.0)
    >>> found = validate([Trace("t", (Thread("organizer", (answer,)),))], gpu=GPU(cost=LinearBatch(a=0.021)))
    >>> round(found.errors().mean, 3), found.queries[0].predicted_times["decode"]
    (0.05, 2.1)
    """
    if unit_of(gpu.cost) == "steps":
        raise ConfigError("the decode-step clock has no seconds to compare with; give a profile")
    runs, refused = recorded_runs(traces, max_workers, max_prefill_tokens, protocol)
    queries: list[Checked] = []
    spans: list[RunSpan] = []
    for run in runs:
        try:
            checked = _check_run(run, gpu, protocol)
        except SimulatorError as error:
            refused.append(error)
            continue
        queries += checked
        if len(checked) > 1:
            measured, predicted = (
                max(start + getattr(query, name) for start, query in zip(run.arrivals, checked, strict=True))
                for name in ("measured", "predicted")
            )
            spans.append(RunSpan(checked[0].spec[:-1], checked[0].rep, measured, predicted))
    if not queries:
        reason = f": {refused[0]}" if refused else ""
        raise ConfigError(f"there is no recorded query to compare with{reason}")
    return Validation(tuple(queries), tuple(spans), tuple(refused))


def _check_run(run: RecordedRun, gpu: GPU, protocol: Protocol | None) -> list[Checked]:
    """Simulate the queries of one run together."""
    traces, graphs = run.traces, run.graphs
    if run.max_prefill_tokens:
        gpu = replace(gpu, max_prefill_tokens=run.max_prefill_tokens)
    measured = [(recorded_latency(t), recorded_times(t, graph)) for t, graph in zip(traces, graphs, strict=True)]
    timeline = simulate(graphs, gpu=gpu, protocol=protocol, arrivals=run.arrivals, max_workers=run.max_workers)
    meta = traces[0].meta
    kind = str(meta.get("kind", "multi" if len(traces) > 1 else "single"))
    return [
        Checked(
            trace.id,
            str(meta.get("run", "")),
            kind,
            latency,
            float(timeline.latency[number]),
            times,
            simulated_times(timeline, number),
            _spec(trace, kind),
            str(trace.meta.get("rep", "")),
            _spec(trace, kind, "twin"),
            trace.tokens,
            any(isinstance(action, Fork) for _, _, action in trace.actions()),
        )
        for number, (trace, (latency, times)) in enumerate(zip(traces, measured, strict=True))
    ]


def _spec(trace: Trace, kind: str, key: str = "spec") -> tuple[str, ...]:
    """Return what makes two queries the same: model, engine, what was asked, and which query of it."""
    meta = trace.meta
    if meta.get(key) is None:
        return ()
    return tuple(map(str, (kind, meta.get("model"), meta.get("engine"), meta[key], meta.get("query", 0))))


def _errors(pairs: list[tuple[float, float]]) -> Errors:
    predicted, measured = np.array(pairs).T
    return Errors.of(predicted, measured)


def _spread(values: list[tuple[tuple[str, ...], str, float]]) -> Errors | None:
    """Return the relative differences of values with equal specs and other reps."""
    found: dict[tuple[str, ...], list[tuple[str, float]]] = {}
    for spec, rep, value in values:
        if spec:
            found.setdefault(spec, []).append((rep, value))
    pairs = [
        (1 + (b - a) / ((a + b) / 2), 1.0)
        for group in found.values()
        for (rep, a), (other, b) in combinations(group, 2)
        if rep != other
    ]
    return _errors(pairs) if pairs else None
