"""The verb `simulate`: checks what it is given, and runs it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from simulator.engine.run import Run
from simulator.engine.server import Leap
from simulator.errors import ConfigError, FreePromptWarning, GraphError, mistaken
from simulator.graph import ExecutionGraph
from simulator.machine.gpu import GPU, LONG_PROMPT, STEP_CLOCK, Cluster, free_prompts
from simulator.machine.policy import POLICIES, Policy, QueuePolicy, fcfs
from simulator.machine.profiles import DEFAULT_GPU, gpu_from_text
from simulator.support.checks import choose, whole
from simulator.timeline import Timeline
from simulator.trace.protocol import Protocol
from simulator.workload import ClosedLoop


def simulate(
    graphs: ExecutionGraph | Iterable[ExecutionGraph],
    *,
    gpu: GPU | Cluster | str = STEP_CLOCK,
    protocol: Protocol | None = None,
    arrivals: Sequence[float] | npt.NDArray[Any] | ClosedLoop | None = None,
    policy: Policy | str = fcfs,
    max_workers: int | None = None,
    on_deadlock: Literal["raise", "record"] = "raise",
    observe: Callable[[Leap], None] | None = None,
) -> Timeline:
    """Run queries on a GPU or a cluster of them, each with an agent pool of its own.

    Parameters
    ----------
    graphs : ExecutionGraph or iterable of them
        One per query.
    gpu : GPU, Cluster or str
        A text names a GPU as ``--gpu`` does: a profile, its file, or a cost model such as ``rate:50``. Default: the
        decode-step clock.
    protocol : Protocol, optional
        Capacity and full-pool behaviour. Default: the one each graph was compiled with.
    arrivals : sequence of float or ClosedLoop, optional
        Seconds at which the queries arrive, one per graph; or how many users ask them one after another. Default: all
        at 0.
    policy : callable, QueuePolicy or str
        Order of admission to a full batch; see `simulator.machine.policy`. A text is a name in `POLICIES`.
    max_workers : int, optional
        Workers of all queries that run at once, at most; more wait, first come first served. Default: no limit.
    on_deadlock : {"raise", "record"}
        Nested Forks on a full pool can wait for each other for ever. Raise, or list them in `Timeline.deadlocks`.
    observe : callable, optional
        Is told of each `Leap`, engine steps that were alike, when it is over. It learns what the steps held, and can
        change nothing.

    Returns
    -------
    Timeline

    Raises
    ------
    ConfigError
        If `arrivals` do not fit.
    FreePromptWarning
        As a warning: if a query has long prompts, and the machine takes no time for them.
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
    if isinstance(graphs, str):
        raise GraphError(mistaken("simulate", "ExecutionGraph", graphs))
    if not isinstance(graphs, Iterable):
        graphs = (graphs,)
    queries = tuple(graphs)
    if not queries:
        raise GraphError("there is nothing to simulate: no graph was given")
    for graph in queries:
        if not isinstance(graph, ExecutionGraph):
            raise GraphError(mistaken("simulate", "ExecutionGraph", graph))
        if protocol is not None and protocol.charge_inserted != graph.protocol.charge_inserted:
            raise GraphError(f"{graph.name}: charge_inserted shapes the graph; compile it with this protocol")
    if isinstance(gpu, str):
        gpu = gpu_from_text(gpu)
    cluster = Cluster(replicas=(gpu,)) if isinstance(gpu, GPU) else gpu
    if not isinstance(cluster, Cluster):
        way = (
            "GPU(cost=...) makes a GPU of a cost model"
            if hasattr(gpu, "decode_seconds")
            else f"such as {DEFAULT_GPU!r}"
        )
        raise ConfigError(f"gpu must be a GPU, the name of one, or a Cluster, got {gpu!r:.80}; {way}")
    times = arrivals if isinstance(arrivals, ClosedLoop) else _times(arrivals, len(queries))
    whole("max_workers", max_workers, "from 1, or None for no limit")
    if isinstance(policy, str):
        policy = POLICIES[choose(policy, POLICIES, "policy")]
    if not callable(policy) and not isinstance(policy, QueuePolicy):
        raise ConfigError(f"policy must be a function from a graph to keys, or a QueuePolicy; got {policy!r:.80}")
    if on_deadlock not in ("raise", "record"):
        raise ConfigError(f"on_deadlock must be raise or record, got {on_deadlock!r}")
    note = free_prompts(cluster.replicas)
    if note is not None and any(query.prompt_tokens > LONG_PROMPT for query in queries):
        warnings.warn(note, FreePromptWarning, stacklevel=2)
    return Run(queries, cluster, protocol, times, policy, max_workers, observe).play(on_deadlock)


def _times(arrivals: Sequence[float] | npt.NDArray[Any] | None, n: int) -> npt.NDArray[np.float64]:
    try:
        times = np.zeros(n) if arrivals is None else np.array(arrivals, dtype=np.float64)
    except (TypeError, ValueError):
        raise ConfigError(f"arrivals must be numbers, one per query; got {arrivals!r:.80}") from None
    if times.shape != (n,):
        raise ConfigError(f"{n} queries need as many arrivals; got shape {times.shape}")
    if not bool(np.all((times >= 0) & (times <= 1e12))):
        raise ConfigError("arrivals must be numbers from 0 to 10^12 seconds")
    return times
