"""What the oracle remembers while it runs, and what it says in the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import nan
from typing import NamedTuple

from simulator.graph import ExecutionGraph


class Row(NamedTuple):
    """What happened to one task; times in seconds."""

    waited_from: float
    granted: float
    ready: float
    start: float
    decode_start: float
    finish: float
    tokens: int
    cancelled: bool
    inline: bool


@dataclass
class OracleResult:
    """All that the oracle says."""

    rows: dict[tuple[int, int, int], Row]
    """By query, thread, task."""
    answered: list[float]
    """NaN if never."""
    overflows: list[int]
    deadlocked: tuple[int, ...]
    steps: int
    busy: float
    batch: list[tuple[float, int]]
    """Time, and sequences in the batch from then on; only where that changes."""


@dataclass(eq=False)
class SequenceState:
    """One task on its way through the GPU."""

    query: int
    thread: int
    task: int
    prefill: int
    """Prompt tokens not processed yet."""
    tokens: int = 0
    """Tokens out."""


@dataclass(eq=False)
class TaskState:
    """Run state of one task."""

    waits_for: int
    tokens: int
    joined: int = 0
    waited_from: float = nan
    granted: float = nan
    ready: float = nan
    start: float = nan
    decode_start: float = nan


@dataclass(eq=False)
class QueryState:
    """Run state of one query."""

    graph: ExecutionGraph
    tasks: list[TaskState]
    free: float
    """Free slots; below 0 where a full pool was allowed to take more."""
    queue: list[int] = field(default_factory=list)
    """Threads that wait for a slot."""
    paused: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By worker: its parent's task, and which Fork of it comes next, once the parent may go on."""
    holds: set[int] = field(default_factory=set)
    """Threads that hold a slot."""
    dropped: set[int] = field(default_factory=set)
    inline: set[int] = field(default_factory=set)
    live: set[int] = field(default_factory=set)
    """Threads that were started, or wait for a slot, and have not ended."""
    context: dict[int, int] = field(default_factory=dict)
    """By thread whose context it is: an inline worker has none of its own."""
    not_inserted: dict[int, int] = field(default_factory=dict)
    """By thread: of the prefill of its next decode, what dropped and inline workers did not return."""
    ended: set[int] = field(default_factory=set)
    reached: set[int] = field(default_factory=set)
    """Tasks whose thread has got to them."""
    cancelled: bool = False
    answered: float = nan
    overflows: int = 0
