"""Recorded runs: the queries that ran together, and the limits they ran under."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from simulator.errors import SimulatorError, TraceError
from simulator.fidelity.recorded import arrival
from simulator.graph import ExecutionGraph
from simulator.graph.compiler import compile_trace
from simulator.support.checks import is_whole
from simulator.trace import Trace
from simulator.trace.protocol import Protocol


class RecordedRun(NamedTuple):
    """Queries that ran together."""

    name: str
    traces: list[Trace]
    graphs: list[ExecutionGraph]
    arrivals: list[float]
    """Seconds, the first at 0."""
    max_workers: int | None
    max_prefill_tokens: int | None


def recorded_runs(
    traces: Iterable[Trace],
    max_workers: int | None = None,
    max_prefill_tokens: int | None = None,
    protocol: Protocol | None = None,
) -> tuple[list[RecordedRun], list[SimulatorError]]:
    """Return traces by run, and an error for each run that cannot be used.

    Limits that are not given are those of the record: ``meta["max_workers"]`` or ``meta["cap"]``, and
    ``meta["max_prefill"]``. A trace without ``meta["run"]`` is a run of its own.

    >>> from simulator import Answer, Thread
    >>> threads = (Thread("organizer", (Answer(4, start=1.0, finish=2.0),)),)
    >>> runs, _ = recorded_runs([Trace(name, threads, meta={"run": "r", "cap": 2}) for name in "ab"])
    >>> [(run.name, len(run.traces), run.max_workers) for run in runs]
    [('r', 2, 2)]
    """
    together: dict[str, list[Trace]] = {}
    for number, trace in enumerate(traces):
        run = trace.meta.get("run")
        together.setdefault(f"alone {number}" if run is None else f"run {run}", []).append(trace)
    runs: list[RecordedRun] = []
    refused: list[SimulatorError] = []
    for name, some in together.items():
        try:
            workers = max_workers or _whole(some[0], "max_workers") or _whole(some[0], "cap")
            prompts = max_prefill_tokens or _whole(some[0], "max_prefill")
            first = min(arrival(trace) for trace in some)
            arrivals = [arrival(trace) - first for trace in some]
            graphs = [compile_trace(trace, protocol) for trace in some]
            runs.append(RecordedRun(name.partition(" ")[2], some, graphs, arrivals, workers, prompts))
        except SimulatorError as error:
            refused.append(error)
    return runs, refused


def _whole(trace: Trace, key: str) -> int | None:
    value = trace.meta.get(key)
    if value is None or (is_whole(value) and value >= 1):
        return value
    raise TraceError(f"trace {trace.id!r}: meta.{key} must be a whole number from 1, got {value!r}")
