"""The queries of one run, from the sources of a study: read, generated, drawn. Randomness is the run's seed."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from simulator.errors import ConfigError, FormatError
from simulator.formats.reading import read
from simulator.graph import ExecutionGraph
from simulator.graph.compiler import compile_trace
from simulator.study.documents import canonical
from simulator.study.spec import Source
from simulator.study.study import Study
from simulator.trace import Trace
from simulator.trace.protocol import Protocol
from simulator.trace.tokens import COUNTERS, load_tokenizer
from simulator.workload import ClosedLoop, gamma_arrivals, generate, grouped, poisson_arrivals

__all__ = ["Files", "arrival_times", "compiled", "files_of", "input_digests", "unreadable"]

_MIX, _DRAW, _ARRIVE, _MAKE = range(4)
"""Streams of random numbers of a run: each is asked for one thing only, so that a change of one leaves the others."""


class Files(NamedTuple):
    """What is in the files of a source."""

    traces: tuple[Trace, ...]
    faults: tuple[FormatError, ...]
    """What could not be read, with file and line."""


def paths_of(source: Source, base: str) -> list[str]:
    """Return the files of a source, each once, in order of its patterns and then of name.

    Raises
    ------
    ConfigError
        If a pattern matches nothing.
    """
    found: dict[str, None] = {}
    for pattern in source.files:
        whole = os.path.join(base, pattern)
        found_here = glob.glob(os.path.join(glob.escape(base), pattern), recursive=True)
        there = [whole] if os.path.exists(whole) else sorted(found_here)
        if not there:
            raise ConfigError(f"files: nothing is called {pattern!r} in {base or os.getcwd()}")
        found |= dict.fromkeys(os.path.normpath(path) for path in there if not os.path.isdir(path))
    return list(found)


def _stamped(source: Source, base: str) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    """Return the files of a source, and of each when it was last written and its size."""
    paths = tuple(paths_of(source, base))
    return paths, tuple((stat.st_mtime_ns, stat.st_size) for stat in map(os.stat, paths))


def files_of(source: Source, base: str) -> Files:
    """Return what is in the files of a source; read once a process.

    Raises
    ------
    ConfigError
        If a file cannot be opened, or no trace is in any.
    """
    paths, stamps = _stamped(source, base)
    tokens = source.tokens if source.tokens in COUNTERS else os.path.join(base, source.tokens)
    found = _read(paths, stamps, source.format, tokens, source.block_size)
    if not found.traces:
        said = f"; {found.faults[0]}" if found.faults else ""
        raise ConfigError(f"no trace could be read from {', '.join(source.files)}{said}")
    return found


@lru_cache(maxsize=16)
def _read(
    paths: tuple[str, ...],
    stamps: tuple[tuple[int, int], ...],
    format: str | None,
    tokens: str,
    block_size: int | None,
) -> Files:
    traces: list[Trace] = []
    faults: list[FormatError] = []
    count = COUNTERS[tokens] if tokens in COUNTERS else load_tokenizer(tokens)
    for path in paths:
        for item in read(path, format=format, count=count, keep_text=False, block_size=block_size):
            if isinstance(item, FormatError):
                faults.append(item)
            else:
                traces.append(item)
    return Files(tuple(traces), tuple(faults))


def unreadable(study: Study) -> list[FormatError]:
    """Return what cannot be read in the files of a study, of all its points.

    Raises
    ------
    ConfigError
        If a source has no trace at all.
    """
    faults: dict[str, FormatError] = {}
    for source in _file_sources(study):
        faults |= {str(fault): fault for fault in files_of(source, study.base).faults}
    return list(faults.values())


def input_digests(study: Study) -> dict[str, str]:
    """Return a digest of each file that the runs of a study read, under its path from the study's folder."""
    digests: dict[str, str] = {}
    for source in _file_sources(study):
        for path in paths_of(source, study.base):
            _digest(path, study.base, digests)
        if source.tokens not in COUNTERS:
            _digest(os.path.join(study.base, source.tokens), study.base, digests)
    for each in (study, *(_points(study) if any(name.startswith("cluster") for name in study.axes) else ())):
        for name in each.cluster.names:
            if name.endswith(".toml"):
                _digest(os.path.join(study.base, name), study.base, digests)
    return dict(sorted(digests.items()))


def _digest(path: str, base: str, digests: dict[str, str]) -> None:
    name = os.path.relpath(path, base) if base else path
    if name not in digests:
        try:
            with open(path, "rb") as file:
                digests[name] = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from None


def _points(study: Study) -> Iterator[Study]:
    return (point.study for point in study.points())


def _file_sources(study: Study) -> Iterator[Source]:
    seen = set()
    for each in (study, *(_points(study) if any(name.startswith("traces") for name in study.axes) else ())):
        for source in each.traces.values():
            key = canonical(source)
            if source.files and key not in seen:
                seen.add(key)
                yield source


def _rng(seed: int, stream: int, source: int = 0) -> np.random.Generator:
    return np.random.default_rng([seed, stream, source])


def draw(study: Study, seed: int) -> list[Trace]:
    """Return the traces of a run, in order; those of a group one after another."""
    names = sorted(study.traces)
    if study.arrivals.kind == "recorded":
        traces = list(files_of(study.traces[names[0]], study.base).traces)
        for trace in traces:
            if trace.arrival is None:
                raise ConfigError(f"trace {trace.id!r} has no recorded arrival; arrivals can be together or poisson")
        traces.sort(key=lambda trace: trace.arrival or 0.0)
        return traces[: study.queries]
    if study.queries is None:
        return [trace for name in names for trace in files_of(study.traces[name], study.base).traces]
    heaviest = max(study.traces[name].weight for name in names)
    weights = np.cumsum([study.traces[name].weight / heaviest for name in names])
    # By inversion, so that a change of the weights moves only the queries that it must.
    chosen = np.searchsorted(weights / weights[-1], _rng(seed, _MIX).random(study.queries), side="right")
    counts = np.bincount(chosen, minlength=len(names)).tolist()
    sources = [_series(study, name, place, seed, counts[place]) for place, name in enumerate(names)]
    return [trace for place in chosen.tolist() for trace in islice(sources[place], study.samples)]


def _series(study: Study, name: str, place: int, seed: int, prompts: int) -> Iterator[Trace]:
    """Yield the traces that one source gives to a run."""
    source = study.traces[name]
    count = prompts * study.samples
    if source.generate is not None:
        own = int(np.random.SeedSequence([seed, _MAKE, place]).generate_state(1, np.uint64)[0] >> np.uint64(1))
        made = generate(source.generate, count, seed=own, **source.options)
        yield from grouped(made, study.samples) if study.samples > 1 else made
    else:
        traces = files_of(source, study.base).traces
        for index in _rng(seed, _DRAW, place).integers(len(traces), size=count).tolist():
            yield traces[index]


def compiled(study: Study, seed: int) -> tuple[ExecutionGraph, ...]:
    """Return the graphs of a run. The last few are kept: points that differ in hardware or capacity share them."""
    keys = ("traces", "queries", "samples")
    part = {key: value for key, value in study.document().items() if key in keys}
    recorded = study.arrivals.kind == "recorded"
    stamps = [_stamped(source, study.base)[1] for source in study.traces.values() if source.files]
    key = canonical([part, study.base, stamps, recorded, study.protocol.charge_inserted, seed])
    if key not in _kept:
        rules = Protocol(charge_inserted=study.protocol.charge_inserted)
        graphs: dict[int, ExecutionGraph] = {}
        traces = draw(study, seed)
        for trace in traces:
            if id(trace) not in graphs:
                graphs[id(trace)] = compile_trace(trace, rules)
        drawn = tuple(graphs[id(trace)] for trace in traces)
        _kept[key] = drawn, sum(map(len, graphs.values()))
    _kept[key] = found = _kept.pop(key)  # the last used is last
    tasks = sum(count for _, count in _kept.values())
    while tasks > KEPT_TASKS and len(_kept) > 1:
        tasks -= _kept.pop(next(iter(_kept)))[1]
    return found[0]


KEPT_TASKS = 100_000
"""Tasks in the graphs that a process keeps, of about half a kilobyte each. Those of one run are kept in any case."""
_kept: dict[str, tuple[tuple[ExecutionGraph, ...], int]] = {}


def arrival_times(
    study: Study, graphs: tuple[ExecutionGraph, ...], seed: int
) -> npt.NDArray[np.float64] | ClosedLoop | None:
    """Return when the queries of a run arrive. All samples of a prompt arrive together."""
    arrivals = study.arrivals
    if arrivals.kind == "closed":
        return ClosedLoop(arrivals.users or 1, arrivals.think or 0.0)
    if arrivals.kind == "recorded":
        times = np.array([graph.trace.arrival for graph in graphs], dtype=np.float64)
        return times / (arrivals.speed or 1.0)
    if arrivals.rate is None:
        return None
    rng, prompts = _rng(seed, _ARRIVE), len(graphs) // study.samples
    if arrivals.kind == "poisson":
        times = poisson_arrivals(prompts, arrivals.rate, rng)
    else:
        times = gamma_arrivals(prompts, arrivals.rate, rng, variation=arrivals.variation or 0.0)
    return np.repeat(times, study.samples)
