"""Who goes first when the batch is full.

A policy is a function from a graph to one key a task; smaller keys are admitted first, equal ones in order of
readiness, then query, thread, task. It decides admission only: what runs is not preempted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from simulator.graph import ExecutionGraph
from simulator.graph.critical_path import b_levels

__all__ = ["POLICIES", "Policy", "critical_path_first", "fcfs", "organizer_first", "shortest_first"]

Policy = Callable[[ExecutionGraph], Sequence[float]]


def fcfs(graph: ExecutionGraph) -> Sequence[float]:
    """First come, first served."""
    return (0.0,) * len(graph)


def critical_path_first(graph: ExecutionGraph) -> Sequence[float]:
    """Longest path to the end of the graph first (highest b-level)."""
    return [-level for level in b_levels(graph)]


def organizer_first(graph: ExecutionGraph) -> Sequence[float]:
    """Organizers before workers, workers before their own workers."""
    depth = [0] * len(graph.threads)
    for thread in range(1, len(depth)):
        depth[thread] = depth[graph.threads[thread].parent] + 1
    return [depth[task.thread] for task in graph.tasks]


def shortest_first(graph: ExecutionGraph) -> Sequence[float]:
    """Fewest tokens of the task first."""
    return [task.tokens for task in graph.tasks]


POLICIES: dict[str, Policy] = {
    "fcfs": fcfs,
    "critical-path-first": critical_path_first,
    "organizer-first": organizer_first,
    "shortest-first": shortest_first,
}
