"""A rollout step of RL: when it ends, who it waits for, and how long GPUs stand idle meanwhile."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.errors import ConfigError
from simulator.metrics import SUMMARIES
from simulator.support.checks import whole
from simulator.timeline import Timeline

TAILS = (0.9, 0.95, 0.99)
"""Shares of the queries after which what is left of a step is called its tail."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RolloutStep:
    """A step of RL: all its queries are asked, and the trainer waits for the last answer."""

    unit: str
    """Of times: ``seconds`` or ``steps``."""
    queries: int
    tokens: int
    """Decoded by all of them."""
    makespan: float
    """Time from the first arrival to the last finish."""
    tails: Mapping[float, float]
    """Straggler share: the share of the makespan that is left when so many of the queries are answered, rounded up."""
    last: str
    """Trace of the query that is answered last."""
    last_query: int
    last_latency: float
    median_latency: float
    idle: NDArray[np.float64]
    """Share of the makespan in which each replica had no step under way. Shape (replicas,)."""
    batch: NDArray[np.float64]
    """Mean number of sequences in all batches, over slices of the makespan of equal length. Shape (slices,)."""
    mean_batch: float


def rollout_step(timeline: Timeline, *, slices: int = 10) -> RolloutStep:
    """Return what a step of RL took and wasted.

    Parameters
    ----------
    timeline : Timeline
        All queries of the step.
    slices : int
        Into how many the makespan is cut for `RolloutStep.batch`.

    Raises
    ------
    ConfigError
        If a query was never answered (a deadlock), or `slices` is no whole number from 1.

    >>> from simulator import Answer, Thread, Trace, compile_trace, simulate
    >>> graphs = [compile_trace(Trace(f"q{n}", (Thread("organizer", (Answer(n),)),))) for n in (10, 20, 20, 80)]
    >>> step = rollout_step(simulate(graphs), slices=4)
    >>> step.makespan, step.last, step.batch.tolist()
    (80.0, 'q80', [3.5, 1.0, 1.0, 1.0])
    >>> rollout_step(simulate(graphs[:1] * 9 + graphs[-1:])).tails  # after nine tenths, 70 of 80 steps are left
    {0.9: 0.875, 0.95: 0.0, 0.99: 0.0}
    """
    whole("slices", slices, "from 1 to 100000")
    answered, makespan = timeline.answered, timeline.makespan
    if np.isnan(answered).any():
        raise ConfigError(f"{int(np.isnan(answered).sum())} queries were never answered: they wait for each other")
    begin = float(timeline.arrivals.min())
    order = np.sort(answered) - begin
    last = int(np.argmax(answered))
    latency = timeline.latency
    return RolloutStep(
        unit=timeline.unit,
        queries=len(timeline),
        tokens=int(timeline.column("tokens").sum()),
        makespan=makespan,
        tails={
            share: float(1 - order[math.ceil(share * len(order)) - 1] / makespan) if makespan else 0.0
            for share in TAILS
        },
        last=timeline.graphs[last].name,
        last_query=last,
        last_latency=float(latency[last]),
        median_latency=float(np.median(latency)),
        idle=np.array([1 - each.busy / makespan if makespan else 0.0 for each in timeline.replicas]),
        batch=_batch(timeline, begin, slices),
        mean_batch=SUMMARIES["mean_batch"].function(timeline),
    )


def _batch(timeline: Timeline, begin: float, slices: int) -> NDArray[np.float64]:
    """Return the mean batch over each slice of the makespan."""
    changes, makespan = timeline.batch, timeline.makespan
    if not len(changes) or not makespan:
        return np.zeros(slices)
    times, sizes = changes[:, 0] - begin, changes[:, 1]
    done = np.concatenate([[0.0], np.cumsum(sizes[:-1] * np.diff(times))])  # sequences x time, up to each change
    edges = np.linspace(0, makespan, slices + 1)
    here: NDArray[np.float64] = np.interp(edges, times, done, left=0.0)
    return np.asarray(np.diff(here) / np.diff(edges), dtype=np.float64)
