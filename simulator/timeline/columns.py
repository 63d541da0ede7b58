"""What happened when: the only output of a simulation, and the only input of everything after it.

A `Timeline` is columns, one row per task that ran; a preempted task has one per stay in the batch. Spans are a view
of a row::

    forked or     slot,      may run     in the      prompt        last
    predecessor   seat                   batch       processed     token
    waited_from   granted    ready       start       decode_start  finish
        |-- wait_pool --|-- wait_join --|-- wait_batch --|-- prefill --|-- decode --|

Times are seconds of the simulated clock; on the decode-step clock a second is a step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple, get_type_hints

import numpy as np
from numpy.typing import NDArray

from simulator.errors import ConfigError
from simulator.graph import ExecutionGraph
from simulator.machine.cost import unit_of
from simulator.machine.gpu import GPU
from simulator.support.html import PICTURES
from simulator.trace.protocol import Protocol


class Row(NamedTuple):
    """One task that ran, or one stay of it in the batch: the schema of `Timeline.rows`."""

    query: int
    thread: int
    """Index into the threads of the query's graph."""
    task: int
    """Index into its tasks."""
    waited_from: float
    """When it was forked, or the task before it ended."""
    granted: float
    """When its thread had a slot in the pool of its query and, with `max_workers`, a seat."""
    ready: float
    """When all that it joins had ended."""
    start: float
    """When it came into the batch."""
    decode_start: float
    """When its prompt was processed."""
    finish: float
    tokens: int
    """Tokens decoded in this stay."""
    flags: int
    """`CANCELLED`, `INLINE`, `PREEMPTED` and `BLOCKED`, added up."""
    replica: int
    """Which GPU it was on; -1 off the GPUs."""
    slotted: float
    """When its thread had the slot: a parent that was blocked on it went on then."""


COLUMNS = Row._fields
"""The names of the columns of a `Timeline`, in the order of `Row`."""
ROW = np.dtype([(name, np.float64) for name in COLUMNS])
"""All floats, so that the engine writes one flat buffer; whole numbers are exact up to 2^53."""
_KINDS = tuple((name, kind is int) for name, kind in get_type_hints(Row).items())

CANCELLED = 1
"""Flag of a row: the task was cut short because its query was answered."""
INLINE = 2
"""Flag of a row: a full pool made the parent do this worker's task itself."""
PREEMPTED = 4
"""Flag of a row: memory ran out, and the task had to leave the batch; a later row goes on with it."""
BLOCKED = 8
"""Flag of a row: a full pool made the parent of this worker wait until the worker had its slot."""


_READABLE = 2000
"""Tasks of a query whose chart a notebook draws without being asked."""


class SpanKind(StrEnum):
    """What a thread does, or waits for.

    >>> SpanKind("decode") is SpanKind.DECODE
    True
    """

    WAIT_POOL = "wait_pool"
    WAIT_JOIN = "wait_join"
    WAIT_BATCH = "wait_batch"
    PREFILL = "prefill"
    DECODE = "decode"
    DELAY = "delay"


class Span(NamedTuple):
    """A stretch of one thread's time. Spans of no length are left out.

    >>> from simulator import Answer, Fork, Join, Return, Think, Thread, Trace, compile_trace, simulate
    >>> organizer = Thread("organizer", (Think(5), Fork(1), Think(3), Join(1), Answer(2)))
    >>> trace = Trace("t", (organizer, Thread("1", (Return(10),))))
    >>> [str(span.kind) for span in simulate(compile_trace(trace)).spans() if span.thread == 0]
    ['decode', 'decode', 'wait_join', 'decode']
    """

    query: int
    thread: int
    task: int
    kind: SpanKind
    start: float
    finish: float
    tokens: int
    """Tokens decoded in it; the first token of a prompt counts as decode."""
    cancelled: bool


class Deadlock(NamedTuple):
    """Threads of one query that wait for each other for ever."""

    query: int
    cycle: tuple[str, ...]
    """What waits for what, in words, each for the next and the last for the first."""

    def __str__(self) -> str:
        return f"query {self.query}: " + ", ".join(self.cycle)


@dataclass(frozen=True, eq=False)
class Replica:
    """What one GPU did."""

    gpu: GPU
    batch: NDArray[np.float64]
    """Shape (changes, 2): time, and the number of sequences in the batch from then on."""
    kv: NDArray[np.float64]
    """Shape (2 * leaps, 2): time, and blocks of KV memory that the requests in the batch need; at the first and at the
    last of the steps that were taken in one go. Empty where memory is not modelled."""
    busy: float
    """Seconds in which it had a step under way."""
    steps: int
    """Engine steps taken."""


@dataclass(frozen=True, eq=False)
class Timeline:
    """What happened to every task of every query.

    >>> from simulator import Answer, Fork, Join, Return, Think, Thread, Trace, compile_trace, simulate
    >>> organizer = Thread("organizer", (Think(5), Fork(1), Think(3), Join(1), Answer(2)))
    >>> trace = Trace("t", (organizer, Thread("1", (Return(10),))))
    >>> timeline = simulate([compile_trace(trace)] * 2, arrivals=[0, 4])
    >>> timeline, timeline.latency.tolist(), timeline.column("finish").tolist()[-1]
    (Timeline(2 queries: 8 tasks in 21 decode steps), [17.0, 17.0], 21.0)
    """

    graphs: tuple[ExecutionGraph, ...]
    """One per query."""
    arrivals: NDArray[np.float64]
    """Arrival of each query; NaN if it never came (a closed loop in a deadlock)."""
    first_token: NDArray[np.float64]
    """When the organizer of each query had decoded its first token; NaN if it never did."""
    answered: NDArray[np.float64]
    """When each query was answered; NaN if it never was (a deadlock)."""
    overflows: NDArray[np.int64]
    """Forks of each query that found the pool full at run time."""
    rows: NDArray[np.void]
    """One per task that ran, fields as in `Row`: ``rows["finish"]``. In order of finish, query, thread and task."""
    replicas: tuple[Replica, ...]
    """What each GPU did; one, unless it was a cluster."""
    protocol: Protocol | None = None
    """The protocol of the run, where it was not that of each graph."""
    deadlocks: tuple[Deadlock, ...] = ()

    def __len__(self) -> int:
        return len(self.graphs)

    def __repr__(self) -> str:
        unit = "decode steps" if unit_of(self.replicas[0].gpu.cost) == "steps" else "seconds"
        of = "1 query" if len(self) == 1 else f"{len(self):,} queries"
        return f"Timeline({of}: {len(self.rows):,} tasks in {self.makespan:,.6g} {unit})"

    def _repr_png_(self) -> bytes | None:
        """Return a Gantt chart of the only query, for notebooks; None of several, or of one too large to read."""
        draw = PICTURES.get(Timeline)
        return draw(self) if draw and len(self) == 1 and 0 < len(self.rows) <= _READABLE else None

    @property
    def busy(self) -> float:
        """Seconds in which a GPU had a step under way, of all replicas."""
        return math.fsum(replica.busy for replica in self.replicas)

    @property
    def steps(self) -> int:
        """Engine steps taken, by all replicas."""
        return sum(replica.steps for replica in self.replicas)

    @property
    def max_num_seqs(self) -> int | None:
        """The batch limit, of all replicas together; None if one has none."""
        limits = [replica.gpu.max_num_seqs for replica in self.replicas]
        return None if None in limits else sum(limit for limit in limits if limit)

    @cached_property
    def batch(self) -> NDArray[np.float64]:
        """Shape (changes, 2): time, and the number of sequences in the batch from then on; of all replicas together."""
        if len(self.replicas) == 1:
            return self.replicas[0].batch
        changes = [
            np.column_stack([replica.batch[:, 0], np.diff(replica.batch[:, 1], prepend=0.0)])
            for replica in self.replicas
        ]
        joined = np.concatenate(changes)
        joined = joined[np.argsort(joined[:, 0], kind="stable")]
        return np.column_stack([joined[:, 0], np.cumsum(joined[:, 1])])

    @property
    def latency(self) -> NDArray[np.float64]:
        """Seconds from arrival to answer, one per query."""
        return self.answered - self.arrivals

    @property
    def makespan(self) -> float:
        """Seconds from the first arrival to the last finish; 0 if nothing ran."""
        return float(self.rows["finish"].max() - np.nanmin(self.arrivals)) if len(self.rows) else 0.0

    @property
    def unit(self) -> str:
        """What one unit of time is: ``steps`` on the decode-step clock, else ``seconds``."""
        return unit_of(self.replicas[0].gpu.cost)

    def protocol_of(self, query: int) -> Protocol:
        """Return the protocol that `query` ran under."""
        self._check(query)
        return self.protocol or self.graphs[query].protocol

    def column(self, name: str) -> NDArray[np.float64] | NDArray[np.int64]:
        """Return one of `COLUMNS`, whole numbers as int64."""
        if name not in COLUMNS:
            raise ConfigError(f"no column is called {name!r}; there are {', '.join(COLUMNS)}")
        values: NDArray[np.float64] = self.rows[name]
        return values.astype(np.int64) if (name, True) in _KINDS else values

    def columns(self) -> dict[str, NDArray[np.float64] | NDArray[np.int64]]:
        """Return every column by name."""
        return {name: self.column(name) for name in COLUMNS}

    @cached_property
    def _by_query(self) -> tuple[NDArray[np.void], NDArray[np.int64]]:
        """The rows sorted by query, and where each query's rows begin."""
        rows = self.rows[np.argsort(self.rows["query"], kind="stable")]
        return rows, np.searchsorted(rows["query"], np.arange(len(self.graphs) + 1))

    def of_query(self, query: int) -> NDArray[np.void]:
        """Return the rows of one query, in order of finish."""
        self._check(query)
        if len(self.graphs) == 1:
            return self.rows
        rows, begin = self._by_query
        return rows[begin[query] : begin[query + 1]]

    def stays(self, query: int | None = None) -> Iterator[Row]:
        """Yield the rows of `query`, or of all queries, in order of finish, for loops in Python.

        >>> from simulator import Answer, Thread, Trace, compile_trace, simulate
        >>> timeline = simulate(compile_trace(Trace("t", (Thread("organizer", (Answer(3),)),))))
        >>> [(row.task, row.tokens, row.finish) for row in timeline.stays(0)]
        [(0, 3, 3.0)]
        """
        rows = self.rows if query is None else self.of_query(query)
        columns = [rows[name].astype(np.int64).tolist() if whole else rows[name].tolist() for name, whole in _KINDS]
        return map(Row._make, zip(*columns, strict=True))

    def spans(self, query: int | None = None) -> Iterator[Span]:
        """Yield the spans of `query`, or of all queries, row by row in order of finish.

        >>> from simulator import Answer, Fork, Join, Return, Think, Thread, Trace, compile_trace, simulate
        >>> organizer = Thread("organizer", (Think(5), Fork(1), Think(3), Join(1), Answer(2)))
        >>> timeline = simulate(compile_trace(Trace("t", (organizer, Thread("1", (Return(10),))))))
        >>> [(s.thread, s.kind.value, s.start, s.finish) for s in timeline.spans()][-2:]
        [(0, 'wait_join', 8.0, 15.0), (0, 'decode', 15.0, 17.0)]
        """
        for row in self.stays(query):
            q, thread, i, waited_from, granted, ready, start, decode_start, finish, tokens, flags, _, _ = row
            running = SpanKind.DELAY if self.graphs[q].tasks[i].seconds > 0 else SpanKind.DECODE
            marks = (
                (SpanKind.WAIT_POOL, waited_from, granted),
                (SpanKind.WAIT_JOIN, granted, ready),
                (SpanKind.WAIT_BATCH, ready, start),
                (SpanKind.PREFILL, start, decode_start),
                (running, decode_start, finish),
            )
            for kind, begin, end in marks:
                if end > begin:
                    counted = tokens if kind is SpanKind.DECODE else 0
                    yield Span(q, thread, i, kind, begin, end, counted, bool(flags & CANCELLED))

    def _check(self, query: int) -> None:
        if not isinstance(query, int | np.integer) or not 0 <= query < len(self.graphs):
            raise ConfigError(f"there is no query {query}; the timeline holds {len(self.graphs)}")


def in_order(rows: NDArray[np.void]) -> NDArray[np.void]:
    """Return rows that are in order of finish also in order of query, thread and task where they finish at once.

    >>> rows = np.zeros(2, dtype=ROW)
    >>> rows["query"] = 1, 0
    >>> in_order(rows)["query"].tolist()
    [0.0, 1.0]
    """
    finish = rows["finish"]
    if np.all(finish[1:] > finish[:-1]):
        return rows
    return rows[np.lexsort((rows["task"], rows["thread"], rows["query"], finish))]
