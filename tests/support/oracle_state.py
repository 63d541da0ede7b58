"""What the oracle remembers while it runs, and what it says in the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import nan
from typing import Any, NamedTuple

from simulator.graph import ExecutionGraph

CANCELLED, INLINE, PREEMPTED, BLOCKED = 1, 2, 4, 8

Holder = tuple[int, int]
"""Query and thread: whose context it is. An inline worker has none of its own."""


class Row(NamedTuple):
    """One stay of a task in the batch, or its time off the GPU; times in seconds."""

    query: int
    thread: int
    task: int
    waited_from: float
    granted: float
    ready: float
    start: float
    decode_start: float
    finish: float
    tokens: int
    flags: int
    replica: int
    slotted: float


class ReplicaResult(NamedTuple):
    """What one GPU did."""

    steps: int
    busy: float
    batch: list[tuple[float, int]]
    """Time, and sequences in the batch from then on; only where that changes."""
    preemptions: int
    evictions: int
    prefilled: int
    """Prompt tokens processed, those processed again included."""
    pinned: list[tuple[float, float, int]]
    """Of each step: begin, end, and the blocks of KV memory that what is in the batch needs."""
    most: int
    """The most blocks of KV memory in use at once, blocks that nobody runs on included."""


@dataclass
class OracleResult:
    """All that the oracle says."""

    rows: list[Row]
    arrivals: list[float]
    """NaN if it never came."""
    first_token: list[float]
    answered: list[float]
    """NaN if never."""
    overflows: list[int]
    deadlocked: tuple[int, ...]
    replicas: list[ReplicaResult]


@dataclass(eq=False)
class Request:
    """One task on its way through a GPU."""

    query: int
    thread: int
    task: int
    holder: Holder
    wanted: int
    """Tokens to decode."""
    prefill: int
    """Tokens put into the context for it."""
    key: tuple[Any, ...]
    """What the queue is sorted by; preemption does not change it."""
    tokens: int = 0
    """Tokens out."""
    total: int = 0
    """From admission on: tokens to process before the first token of this stay comes out."""
    found: int = 0
    """Of these, those found, and then also those processed."""
    pinned: list[Any] = field(default_factory=list)
    """Blocks of KV memory that it needs."""
    follow: Request | None = None
    """What has the place in the batch after it."""

    @property
    def number(self) -> tuple[int, int, int]:
        """The order of everything that happens at one time."""
        return self.query, self.thread, self.task

    @property
    def prompt(self) -> int:
        """Prompt tokens left to process."""
        return max(self.total - self.found, 0)

    @property
    def done(self) -> bool:
        """Whether all its tokens are out."""
        return self.tokens == self.wanted


@dataclass(eq=False)
class TaskState:
    """Run state of one task."""

    waits_for: int
    tokens: int
    joined: int = 0
    waited_from: float = nan
    slotted: float = nan
    granted: float = nan
    ready: float = nan
    start: float = nan
    decode_start: float = nan
    reported: int = 0
    """Tokens in the rows that it has already."""
    ended: bool = False


@dataclass(eq=False)
class QueryState:
    """Run state of one query."""

    graph: ExecutionGraph
    tasks: list[TaskState]
    free: float
    """Free slots; below 0 where a full pool was allowed to take more."""
    queue: list[int] = field(default_factory=list)
    """Threads that wait for a slot."""
    slotted: dict[int, float] = field(default_factory=dict)
    """When each thread had its slot."""
    paused: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By worker: its parent's task, and which Fork of it comes next, once the parent may go on."""
    holds: set[int] = field(default_factory=set)
    """Threads that hold a slot."""
    dropped: set[int] = field(default_factory=set)
    inline: set[int] = field(default_factory=set)
    blocked: set[int] = field(default_factory=set)
    """Workers that held up their parent until they had a slot."""
    live: set[int] = field(default_factory=set)
    """Threads that were started, or wait for a slot or a place, and have not ended."""
    context: dict[int, int] = field(default_factory=dict)
    """By thread whose context it is: an inline worker has none of its own."""
    not_inserted: dict[int, int] = field(default_factory=dict)
    """By thread: of the prefill of its next decode, what dropped and inline workers did not return."""
    ended: set[int] = field(default_factory=set)
    reached: set[int] = field(default_factory=set)
    """Tasks whose thread has got to them."""
    above: int | None = None
    """The query with whose organizer's context this one's begins."""
    cancelled: bool = False
    arrived: float = nan
    first_token: float = nan
    """When the first token of the organizer was out."""
    answered: float = nan
    overflows: int = 0
