"""What a graph is made of: tasks, the threads they belong to, and the edges between them."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from simulator.trace import ORGANIZER


class EdgeKind(StrEnum):
    """Why one task waits for another."""

    PROGRAM = "program"
    FORK = "fork"
    JOIN = "join"


class Edge(NamedTuple):
    """`target` cannot start before `source` has finished."""

    source: int
    target: int
    kind: EdgeKind


class Task(NamedTuple):
    """One node of the graph. Either tokens or seconds, or neither; never both."""

    thread: int
    """Index into `ExecutionGraph.threads`."""
    tokens: int = 0
    """Tokens decoded."""
    prefill: int = 0
    """Tokens put into the context before the first is decoded: the prompt, or what a Join inserts."""
    seconds: float = 0.0
    """Seconds of a Delay."""
    forks: tuple[int, ...] = ()
    """Threads that start when this task ends, in order of their Forks."""
    joins: tuple[int, ...] = ()
    """Threads that must have ended before this task starts."""
    actions: tuple[int, int] = (0, 0)
    """The first action of the thread in this task, and the one after the last."""


class GraphThread(NamedTuple):
    """One thread of the graph. The first four are given; the graph works out the rest from its tasks."""

    id: str = ORGANIZER
    """As in the trace: ``"organizer"``, ``"2"``, nested ``"2.1"``."""
    shared: int = 0
    """Of its prompt, the tokens that are a prefix of its parent's context; of the organizer's, see
    `ExecutionGraph.prefix_of`."""
    prompt: int = 0
    """The rest of its prompt, part of the prefill of its first task that decodes."""
    inserted: int = 0
    """Tokens inserted when it is joined."""
    parent: int = -1
    """The thread that forks it; -1 for the organizer."""
    first: int = -1
    """Its first task."""
    last: int = -1
    """Its last task."""
    forked_by: int = -1
    """The task that forks it; -1 for the organizer."""
    joined_by: int = -1
    """The task that waits for it, or -1."""
