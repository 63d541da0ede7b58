"""Who goes first when the batch is full.

A policy is a function from a graph to one key a task; smaller keys are admitted first, equal ones in order of
readiness, then query, thread, task. One that wants to see the queue and the time is a `QueuePolicy`. Either decides
admission only: what runs is not preempted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from simulator.graph import ExecutionGraph
from simulator.graph.critical_path import b_levels


class Entry(NamedTuple):
    """A request that waits for the batch, or is in it."""

    query: int
    thread: int
    """Index into the threads of the query's graph; 0 is the organizer."""
    task: int
    tokens: int
    """Tokens it has still to decode."""
    prefill: int
    """While it waits, tokens put into its context for it, or all of its context if it was preempted; in the batch,
    tokens of its prompt that are still to be processed."""
    since: float
    """When it was ready."""
    key: float
    """What `QueuePolicy.keys` says of its task."""


class Queue(NamedTuple):
    """What a GPU has to do, as a policy sees it at a step boundary where there is room in the batch."""

    now: float
    replica: int
    waiting: tuple[Entry, ...]
    """At least one; by key, then time of readiness, query, thread, task."""
    running: tuple[Entry, ...]
    """By query, thread, task. Those that were admitted at this boundary are among them."""


Keys = Callable[[ExecutionGraph], Sequence[float]]
"""A function from a graph to a key for each of its tasks; the lowest key is admitted first."""


def fcfs(graph: ExecutionGraph) -> Sequence[float]:
    """First come, first served."""
    return (0.0,) * len(graph)


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """A policy that sees the queue: it is asked for each place in the batch that can be filled.

    >>> QueuePolicy(lambda queue: max(queue.waiting, key=lambda entry: entry.tokens)).keys.__name__
    'fcfs'
    """

    choose: Callable[[Queue], Entry]
    """Returns the one of `Queue.waiting` that is admitted next. If memory is too short for it, nobody is admitted."""
    keys: Keys = fcfs
    """What it knows of the graph of each query: a key a task, computed when the query arrives."""


Policy = Keys | QueuePolicy
"""The order of admission to a full batch: keys that are computed once for each query, or what looks at the queue."""


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
"""The policies by name."""
