"""The state of a run: a query, its threads, and the work that each of them has at a station."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from typing import Final

from simulator.engine.clock import Call
from simulator.engine.kv import Holder
from simulator.engine.pool import Pool
from simulator.graph import ExecutionGraph
from simulator.trace.protocol import Protocol

WAITING: Final = 0
PREFILLING: Final = 1
DECODING: Final = 2
GONE: Final = 3
"""The states of a request on the GPU. Whole numbers, as they are compared at every step."""


class State(Enum):
    """Where a thread is between its Fork and its end."""

    NEW = "not forked yet"
    WAITS_SLOT = "waits for a slot of its query's pool"
    WAITS_SEAT = "has its slot, and waits for one of the `max_workers` seats"
    RUNS = "has a task that runs, or waits for its Joins"
    STALLED = "waits until the worker that it has forked gets a slot"
    HOSTS = "does the work of a worker that it has forked"
    LEFT = "has ended, was cancelled or will never run"


NEW, WAITS_SLOT, WAITS_SEAT, RUNS, STALLED, HOSTS, LEFT = State  # by attribute of an Enum they cost ten times as much
_NO_CONTEXT = (NEW, WAITS_SLOT, WAITS_SEAT, LEFT)


class Exit(Enum):
    """How a thread leaves."""

    RETURNED = "it has done all its tasks"
    DROPPED = "it found the pool full and never runs"
    CANCELLED = "its query was answered without it"


_NOWHERE = Holder(None, 0)
_NO_HOLDERS: dict[int, Holder] = {}
_NONE_COMPUTED: dict[int, int] = {}
"""Never written to: most threads need none of their own, and there are many threads."""


class Work:
    """What a thread has at a station: one task, from when it is ready until it has left."""

    __slots__ = ("decode_start", "replica", "start", "task", "thread")

    thread: ThreadRun
    task: int
    start: float
    decode_start: float
    replica: int
    """Which GPU; -1 off the GPUs."""


class Pause(Work):
    """A task that passes seconds, or no time at all."""

    __slots__ = ("end", "seconds")

    def __init__(self, thread: ThreadRun, task: int, seconds: float) -> None:
        self.thread = thread
        self.task = task
        self.start = self.decode_start = thread.ready
        self.replica = -1
        self.seconds = seconds
        self.end: Call | None = None
        """The handle of its end, once it has begun."""


class Request(Work):
    """One task on the GPU: its request while it waits, its place in the batch while it runs."""

    __slots__ = (
        "context", "emitted", "finish_step", "holder", "joined_step", "key", "prefill", "ready", "reported", "state",
        "tokens", "total",
    )  # fmt: skip

    def __init__(self, thread: ThreadRun, task: int, tokens: int, prefill: int, key: float) -> None:
        self.thread = thread
        self.task = task
        self.tokens = tokens
        self.prefill = prefill
        """Prompt tokens still to be processed."""
        self.context = context = thread.context
        """Tokens in its context when it began to decode; before that, those already in the cache."""
        self.ready = self.start = self.decode_start = thread.ready
        self.key = key
        self.state = WAITING
        self.joined_step = 0
        """Step counter when it began to decode."""
        self.finish_step = -1
        """Step counter when its last token is out, while it decodes."""
        self.emitted = 0
        """Tokens out before it began to decode: the step that ends a prompt yields one. All of them, once it is
        gone."""
        self.reported = 0
        """Tokens of earlier stays in the batch."""
        self.total = context + prefill
        """Tokens that its next token attends to, while it does not decode."""
        self.replica = 0
        self.holder = _NOWHERE
        """Its thread's KV, where memory is modelled."""


class ThreadRun:
    """The state of one thread."""

    __slots__ = (
        "above", "awaits", "computed", "context", "exit", "flags", "granted", "holders", "home", "joined", "last",
        "number", "order", "parent", "query", "ready", "replica", "resumes", "seat", "slot", "slotted", "spec", "state",
        "task", "waited_from", "work",
    )  # fmt: skip

    def __init__(self, query: QueryRun, number: int, parent: ThreadRun | None, above: ThreadRun | None) -> None:
        self.query = query
        self.number = number
        self.order = (query.index, number)
        """The order of all that happens at one time."""
        self.spec = spec = query.graph.threads[number]
        """What the graph says of it."""
        self.last = spec.last
        self.parent = parent
        """Who forks it, and joins it, if anybody does."""
        self.above = above
        """Whose context its prompt begins with: its parent, or another query's organizer."""
        # Where it is.
        self.state = NEW
        self.task = -1
        """The task that it is at: the one that runs, or waits to run, or whose Forks are taking effect."""
        self.awaits = 0
        """What that task still waits for."""
        self.joined = -1
        """Where slots are held until the Join: how many Joins of its task it has made; -1 if that frees no slots."""
        self.slot = False
        """Whether it has a slot of its query's pool."""
        self.seat = False
        """Whether it has one of the `max_workers` seats."""
        self.resumes = 0
        """The Fork with which its parent goes on after this worker held it up; 0 if it does not hold it up."""
        self.home: ThreadRun | None = None
        """The thread in whose context it works, if a full pool made its parent do its work."""
        self.flags = 0
        """Flags of all its rows."""
        self.exit: Exit | None = None
        """How it left, once it has."""
        self.waited_from = self.slotted = self.granted = self.ready = math.nan
        self.work: Work | None = None
        # What is in memory of it.
        self.context = spec.shared
        """Tokens in its context."""
        self.replica = -1
        """The GPU that it was on last."""
        self.holders = _NO_HOLDERS
        """Its KV on each replica, where memory is modelled."""
        self.computed = _NONE_COMPUTED
        """Tokens of its context when it last left each replica, where memory is not modelled."""

    def stored(self, step: int) -> int:
        """Return the tokens in memory that nobody else has, at an engine's `step`, if it lives."""
        if self.state in _NO_CONTEXT:
            return 0
        inside = self.parent.context if self.home and self.parent else self.spec.shared
        total = self.context - inside
        if isinstance(self.work, Request):
            # The thread's context has the whole prompt from the start, and what is decoded only at the end.
            decoded = step - self.work.joined_step if self.work.state == DECODING else 0
            total += self.work.emitted + decoded - self.work.prefill
        return total


class QueryRun:
    """The state of one query."""

    __slots__ = (
        "alive", "first_token", "graph", "index", "keys", "last_forks", "less_prefill", "less_tokens", "over", "pool",
        "protocol", "threads",
    )  # fmt: skip

    def __init__(
        self,
        index: int,
        graph: ExecutionGraph,
        protocol: Protocol,
        keys: Sequence[float],
        prefix: ThreadRun | None,
    ) -> None:
        self.index = index
        self.graph = graph
        self.protocol = protocol
        self.keys = keys
        capacity = protocol.capacity
        self.pool: Pool[ThreadRun] = Pool(None if capacity is None else capacity - 1)
        self.first_token = math.nan
        """When its organizer had decoded a token."""
        self.alive = 0
        """Threads that were forked and have not left."""
        self.over = False
        """Whether it was answered, and with that all its threads have left."""
        self.less_prefill: dict[int, int] = {}
        """By task: what it need not prefill because workers were dropped or done inline."""
        self.less_tokens: dict[int, int] = {}
        """The same where inserted tokens are decoded."""
        organizer = ThreadRun(self, 0, None, prefix)
        self.threads = threads = [organizer]
        for number in range(1, len(graph.threads)):
            parent = threads[graph.threads[number].parent]
            threads.append(ThreadRun(self, number, parent, parent))
        self.last_forks = graph.tasks[organizer.last].forks if protocol.after_answer == "cancel" else ()
        """Forks of the organizer's last task, if the answer cancels their workers before they begin."""

    def stored(self, step: int) -> int:
        """Return the tokens in memory of the threads that live, at an engine's `step`; shared ones count once."""
        return sum(thread.stored(step) for thread in self.threads)

    def close(self) -> None:
        """Let go of the threads: they know the query, and Python frees what goes round in circles late."""
        self.threads = []
        self.pool.queue.clear()


def is_first(thread: ThreadRun) -> bool:
    """Whether the next token of `thread` is the first that its query decodes for its user."""
    return not thread.number and math.isnan(thread.query.first_token)
