"""The verb `simulate`: checks what it is given, and runs it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from simulator.errors import ConfigError, GraphError
from simulator.gpu import GPU, STEP_CLOCK
from simulator.graph import ExecutionGraph
from simulator.policy import Policy, fcfs
from simulator.protocol import Protocol
from simulator.run import Run
from simulator.timeline import Timeline

__all__ = ["simulate"]


def simulate(
    graphs: ExecutionGraph | Iterable[ExecutionGraph],
    *,
    gpu: GPU = STEP_CLOCK,
    protocol: Protocol | None = None,
    arrivals: Sequence[float] | npt.NDArray[Any] | None = None,
    policy: Policy = fcfs,
    on_deadlock: Literal["raise", "record"] = "raise",
) -> Timeline:
    """Run queries on one GPU, each with an agent pool of its own.

    Parameters
    ----------
    graphs : ExecutionGraph or iterable of them
        One a query.
    gpu : GPU
        Default: the decode-step clock.
    protocol : Protocol, optional
        Capacity and full-pool behaviour. Default: the one each graph was compiled with.
    arrivals : sequence of float, optional
        Seconds at which the queries arrive, one a graph. Default: all at 0.
    policy : callable
        Order of admission to a full batch; see `simulator.policy`.
    on_deadlock : {"raise", "record"}
        Nested Forks on a full pool can wait for each other for ever. Raise, or list them in `Timeline.deadlocks`.

    Returns
    -------
    Timeline

    Raises
    ------
    ConfigError
        If `arrivals` do not fit.
    GraphError
        If there is no graph, or `protocol` would have compiled it otherwise.
    DeadlockError
        See `on_deadlock`.

    Examples
    --------
    Two workers and a pool of 2: the second waits for the first.

    >>> from simulator import Answer, Fork, Join, Protocol, Return, Thread, Trace, compile_trace
    >>> organizer = Thread("organizer", (Fork(1, 4), Fork(2, 4), Join(1), Join(2), Answer(1)))
    >>> trace = Trace("t", (organizer, Thread("1", (Return(10),)), Thread("2", (Return(10),))))
    >>> simulate(compile_trace(trace)).makespan
    19.0
    >>> simulate(compile_trace(trace), protocol=Protocol(capacity=2)).makespan
    25.0
    """
    queries = (graphs,) if isinstance(graphs, ExecutionGraph) else tuple(graphs)
    if not queries:
        raise GraphError("there is nothing to simulate: no graph was given")
    for graph in queries:
        if not isinstance(graph, ExecutionGraph):
            raise GraphError(f"simulate() takes execution graphs (see compile_trace), got {type(graph).__name__}")
        if protocol is not None and protocol.charge_inserted != graph.protocol.charge_inserted:
            raise GraphError(f"{graph.name}: charge_inserted shapes the graph; compile it with this protocol")
    if not isinstance(gpu, GPU):
        raise ConfigError(f"gpu must be a GPU, such as GPU(cost=LinearBatch(a=6e-3)); got {gpu!r}")
    try:
        times = np.zeros(len(queries)) if arrivals is None else np.asarray(arrivals, dtype=np.float64)
    except (TypeError, ValueError):
        raise ConfigError(f"arrivals must be numbers, one a query; got {arrivals!r:.80}") from None
    if times.shape != (len(queries),):
        raise ConfigError(f"{len(queries)} queries need as many arrivals; got shape {times.shape}")
    if not bool(np.all((times >= 0) & (times <= 1e12))):
        raise ConfigError("arrivals must be numbers from 0 to 10^12 seconds")
    if on_deadlock not in ("raise", "record"):
        raise ConfigError(f"on_deadlock must be raise or record, got {on_deadlock!r}")
    return Run(queries, gpu, protocol, times, policy).play(on_deadlock)
