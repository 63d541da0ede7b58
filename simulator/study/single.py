"""One run of a study: one simulation, measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy.typing as npt

from simulator.engine.simulation import simulate
from simulator.graph import ExecutionGraph
from simulator.machine.policy import POLICIES
from simulator.study.inputs import arrival_times, compiled
from simulator.study.measures import Observed, columns_of
from simulator.study.study import Study
from simulator.timeline import Timeline

__all__ = ["Result", "run_one", "simulate_one"]


class Result(NamedTuple):
    """What came out of a run."""

    metrics: Mapping[str, float]
    """One a column, see `simulator.study.measures.metric_columns`."""
    queries: Mapping[str, npt.NDArray[Any]]
    """Columns with one row a query."""


def simulate_one(study: Study, seed: int, graphs: Sequence[ExecutionGraph] | None = None) -> Timeline:
    """Return the timeline of one run of a study without axes.

    Parameters
    ----------
    study : Study
    seed : int
        See `Study.seed_of`.
    graphs : sequence of ExecutionGraph, optional
        The queries. Default: those that the study draws.

    Raises
    ------
    SimulatorError
        If it cannot be run: a trace that fits into no memory, a file without traces.
    """
    queries = compiled(study, seed) if graphs is None else tuple(graphs)
    return simulate(
        queries,
        gpu=study.cluster.cluster(study.base),
        protocol=study.protocol,
        arrivals=arrival_times(study, queries, seed),
        policy=POLICIES[study.cluster.policy],
        max_workers=study.cluster.max_workers,
        on_deadlock="record",
    )


def run_one(study: Study, seed: int) -> Result:
    """Simulate and measure one run of a study without axes.

    The same study and seed give the same result, alone or among others, in any process.

    >>> from simulator.study import Source, Study
    >>> study = Study(traces={"a": Source(generate="asyncthink_math")}, queries=4, metrics=["latency", "eta"])
    >>> result = run_one(study, study.seed_of(0))
    >>> sorted(result.metrics)[:3], len(result.queries["latency"])
    (['eta_mean', 'eta_p50', 'eta_p95'], 4)
    """
    seen = Observed(
        simulate_one(study, seed),
        study.window,
        study.cluster.gpus(study.base),
        study.cluster.max_workers,
        study.cluster.dollars_per_gpu_hour,
    )
    return Result(*columns_of(seen, study.metrics, study.percentiles))
