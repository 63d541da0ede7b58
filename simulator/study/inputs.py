"""The queries of one run, from the sources of a study: read, generated, drawn. Randomness is the run's seed."""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from simulator.errors import ConfigError, FormatError, FreePromptWarning, SimulatorError
from simulator.formats.reading import read
from simulator.graph import ExecutionGraph
from simulator.graph.compiler import compile_trace
from simulator.machine.gpu import LONG_PROMPT, free_prompts
from simulator.study.documents import canonical
from simulator.study.spec import Source
from simulator.study.study import Study
from simulator.support.files import file_digest, require_plain
from simulator.trace import Trace
from simulator.trace.protocol import Protocol
from simulator.trace.tokens import COUNTERS, load_tokenizer
from simulator.workload import ClosedLoop, gamma_arrivals, generate, grouped, poisson_arrivals

_MIX, _DRAW, _ARRIVE, _MAKE = range(4)
"""Streams of random numbers of a run: each is asked for one thing only, so that a change of one leaves the others."""


class Files(NamedTuple):
    """What is in the files of a source."""

    traces: tuple[Trace, ...]
    faults: tuple[FormatError, ...]
    """What could not be read, with file and line."""


def paths_of(source: Source, base: str) -> list[str]:
    """Return the files of a source, each once, in order of its patterns and then of name; each must match something."""
    paths: dict[str, None] = {}
    for pattern in source.files:
        whole = os.path.join(base, pattern)
        matching = [whole] if os.path.exists(whole) else sorted(glob.glob(_within(base, pattern), recursive=True))
        if not matching:
            raise ConfigError(f"files: nothing is called {pattern!r} in {base or os.getcwd()}")
        for path in map(os.path.normpath, matching):
            if not os.path.isdir(path):
                require_plain(path, "traces")
                paths[path] = None
    return list(paths)


def _within(base: str, pattern: str) -> str:
    return os.path.join(glob.escape(base), pattern)


def _stamped(source: Source, base: str) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    """Return the files of a source, and of each when it was last written and its size."""
    paths = tuple(paths_of(source, base))
    return paths, tuple((stat.st_mtime_ns, stat.st_size) for stat in map(os.stat, paths))


def files_of(source: Source, base: str) -> Files:
    """Return what is in the files of a source, which are read once a process and have at least one trace."""
    tokens = source.tokens if source.tokens in COUNTERS else os.path.join(base, source.tokens)
    files = _read(*_stamped(source, base), source.format, tokens, source.block_size)
    if not files.traces:
        said = f"; {files.faults[0]}" if files.faults else ""
        raise ConfigError(f"no trace could be read from {', '.join(source.files)}{said}")
    return files


@lru_cache(maxsize=16)
def _read(paths: tuple[str, ...], stamps: object, format: str | None, tokens: str, block_size: int | None) -> Files:
    count = COUNTERS[tokens] if tokens in COUNTERS else load_tokenizer(tokens)
    items = [
        item
        for path in paths
        for item in read(path, format=format, count=count, keep_text=False, block_size=block_size)
    ]
    faults = tuple(item for item in items if isinstance(item, FormatError))
    return Files(tuple(item for item in items if not isinstance(item, FormatError)), faults)


def unreadable(study: Study) -> list[FormatError]:
    """Return what cannot be read in the files of a study, of all its points."""
    faults: dict[str, FormatError] = {}
    for source in _file_sources(study):
        faults |= {str(fault): fault for fault in files_of(source, study.base).faults}
    return list(faults.values())


def input_digests(study: Study) -> dict[str, str]:
    """Return a digest of each file that the runs of a study read, under its path from the study's folder."""
    paths: dict[str, None] = {}
    for source in _file_sources(study):
        paths |= dict.fromkeys(paths_of(source, study.base))
        if source.tokens not in COUNTERS:
            paths[os.path.join(study.base, source.tokens)] = None
    paths |= {os.path.join(study.base, name): None for name in study.imports if name.endswith(".py")}
    for each in _variants(study, "cluster"):
        paths |= {os.path.join(study.base, name): None for name in each.cluster.names if name.endswith(".toml")}
    return dict(
        sorted((os.path.relpath(path, study.base) if study.base else path, file_digest(path)) for path in paths)
    )


def _variants(study: Study, section: str) -> Iterator[Study]:
    """Yield a study, and its points if they differ in a section."""
    yield study
    if any(name.startswith(section) for name in study.axes):
        yield from (point.study for point in study.points())


def _file_sources(study: Study) -> list[Source]:
    """Return the sources of a study that are files, of all its points."""
    sources = (source for each in _variants(study, "traces") for source in each.traces.values() if source.files)
    return list({canonical(source): source for source in sources}.values())


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
    sources = [_series(study, name, number, seed, counts[number]) for number, name in enumerate(names)]
    return [trace for number in chosen.tolist() for trace in islice(sources[number], study.samples)]


def _series(study: Study, name: str, number: int, seed: int, prompts: int) -> Iterator[Trace]:
    """Yield the traces that one source, which is number so many, gives to a run."""
    source = study.traces[name]
    count = prompts * study.samples
    if source.generate is not None:
        own = int(np.random.SeedSequence([seed, _MAKE, number]).generate_state(1, np.uint64)[0] >> np.uint64(1))
        made = generate(source.generate, count, seed=own, **source.options)
        yield from grouped(made, study.samples) if study.samples > 1 else made
    else:
        traces = files_of(source, study.base).traces
        for index in _rng(seed, _DRAW, number).integers(len(traces), size=count).tolist():
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
        traces = draw(study, seed)
        graphs = {number: compile_trace(trace, rules) for number, trace in {id(each): each for each in traces}.items()}
        _kept[key] = tuple(graphs[id(trace)] for trace in traces), sum(map(len, graphs.values()))
    _kept[key] = _kept.pop(key)  # the last used is last
    tasks = sum(count for _, count in _kept.values())
    while tasks > KEPT_TASKS and len(_kept) > 1:
        tasks -= _kept.pop(next(iter(_kept)))[1]
    return _kept[key][0]


def warn_of_free_prompts(study: Study) -> None:
    """Warn if some point of a study takes no time for prompts, and its queries have long ones."""
    machines = any(name.partition(".")[0] == "cluster" for name in study.axes)
    for point in study.points() if machines else [study.point(0)]:
        note = free_prompts(point.study.cluster.cluster(study.base).replicas)
        if note is None:
            continue
        try:
            graphs = compiled(point.study, study.seed_of(0))
        except SimulatorError:  # its row will say so
            return
        if any(graph.prompt_tokens > LONG_PROMPT for graph in graphs):
            warnings.warn(note, FreePromptWarning, stacklevel=4)
        return  # one point is enough: to look at all of them would take as long as to run them


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
