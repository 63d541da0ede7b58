"""Bounds of the latency of a query that no schedule and no load can break: Brent's from below, Graham's from above."""

from __future__ import annotations

import math

import numpy as np

from simulator.graph import ExecutionGraph
from simulator.graph.critical_path import critical_path
from simulator.machine.cost import is_monotone
from simulator.metrics.view import QueryView
from simulator.trace.full_pool import WHEN_FULL, Admission


def lower_bound(view: QueryView) -> float:
    """Critical path, or what the answer needs over c, whichever is longer; each task as if alone on the GPU.

    No more than c agents are active at once, and none goes faster than alone. (R. P. Brent, J. ACM 21:2, 1974.) NaN for
    a full pool that changes the work: ``drop``, and ``inline`` where prompts cost time; and for a cost model that does
    not say that it is ``monotone``, as a table of measured steps, in which a larger batch may be faster than a smaller
    one. ``allow`` has no limit.
    """
    protocol = view.timeline.protocol_of(view.query)
    gpus = [replica.gpu for replica in view.timeline.replicas]
    free = all(gpu.cost.prefill_is_free and gpu.num_kv_blocks is None for gpu in gpus)
    if not all(is_monotone(gpu.cost) for gpu in gpus):
        return math.nan
    may = WHEN_FULL[protocol.when_full].may
    if Admission.DROP in may or (Admission.INLINE in may and not free):
        return math.nan
    path = critical_path(view.graph, view.alone).latency
    if protocol.capacity is None or Admission.START in may:
        return path
    needed = _needed(view.graph)
    work = math.fsum(seconds for seconds, is_needed in zip(view.alone, needed, strict=True) if is_needed)
    return max(path, work / protocol.capacity)


def _needed(graph: ExecutionGraph) -> list[bool]:
    """Return which tasks the answer waits for; the others may be cancelled."""
    needed = [False] * len(graph)
    needed[graph.answer] = True
    before = graph.predecessors()
    open_tasks = [graph.answer]
    while open_tasks:
        for task in before[open_tasks.pop()]:
            if not needed[task]:
                needed[task] = True
                open_tasks.append(task)
    return needed


def upper_bound(view: QueryView) -> float:
    """``(W - S) / (c - 1) + S``: W all that might run, S the critical path; NaN where it does not hold.

    R. L. Graham (SIAM J. Appl. Math. 17:2, 1969), for c - 1 workers: at any step c - 1 of them are active, and then the
    work left shrinks by as much; or no worker waits for a place, and then the path left shrinks by one. It needs agents
    that do not slow each other down and steps that all begin together: the decode-step clock without a batch limit,
    whole arrivals, no Delays; a pool that queues and frees its places at Return, c from 2; and no Forks of workers, as
    one that waits for its own holds a place.
    """
    protocol, graph = view.timeline.protocol_of(view.query), view.graph
    holds = (
        protocol.capacity is not None
        and protocol.capacity >= 2
        and WHEN_FULL[protocol.when_full].may == {Admission.QUEUE}
        and protocol.release == "return"
        and view.timeline.unit == "steps"
        and all(replica.gpu.max_num_seqs is None for replica in view.timeline.replicas)
        and not np.any(view.timeline.arrivals % 1)
        and not any(task.seconds or (task.forks and task.thread) for task in graph.tasks)
    )
    if not holds or protocol.capacity is None:
        return math.nan
    path = critical_path(graph, view.alone).latency
    return float((math.fsum(view.alone) - path) / (protocol.capacity - 1) + path)
