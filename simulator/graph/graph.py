"""The execution graph: tasks, and what must end before what may begin.

A task is an uninterrupted run of one thread's work; see `simulator.graph.compiler` for where threads are cut. Edges are
PROGRAM (the thread's next task), FORK (from the task that ends in the Fork to the worker's first) and JOIN (from the
worker's last task to the one that waited for it).

A graph is immutable tuples and nothing else: no state of a run lives in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import starmap

from simulator.errors import GraphError
from simulator.graph.spelling import spell
from simulator.graph.task import Edge, EdgeKind, GraphThread, Task
from simulator.trace import MAX_SECONDS, Trace
from simulator.trace.protocol import Protocol

_EXACT = 2**53
"""Tokens of a task at most: a float says every number up to it. A task may be many actions of a trace."""


@dataclass(frozen=True, slots=True)
class ExecutionGraph:
    """What one query asks of the machine.

    Tasks are in topological order: no edge goes backwards. A thread's tasks are in its program's order; thread 0 is the
    organizer, parents come before children, and ties in time are broken by thread, then task.

    >>> from simulator import Answer, Fork, Join, Return, Think, Thread, Trace, compile_trace
    >>> organizer = Thread("organizer", (Think(5), Fork(1), Think(3), Join(1), Answer(2)))
    >>> graph = compile_trace(Trace("t", (organizer, Thread("1", (Return(10),)))))
    >>> graph, [(task.thread, task.tokens) for task in graph.tasks]
    (ExecutionGraph('t': 4 tasks, 2 threads), [(0, 5), (1, 10), (0, 3), (0, 2)])
    """

    tasks: tuple[Task, ...]
    threads: tuple[GraphThread, ...] = (GraphThread(),)
    protocol: Protocol = field(default_factory=Protocol)
    name: str = "trace"
    prefix_of: str | None = None
    """The name of an earlier graph with whose organizer's context this one's prompt begins; see `Trace.prefix_of`."""
    trace: Trace = field(default=None, compare=False, repr=False)  # type: ignore[assignment]  # until __post_init__
    """What it was compiled from. A graph made by hand gets the trace that says what its tasks do."""
    next: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """Each task's successor in its thread, or -1."""

    def __repr__(self) -> str:
        return f"ExecutionGraph({self.name!r}: {len(self.tasks):,} tasks, {len(self.threads):,} threads)"

    def __post_init__(self) -> None:
        following, threads = _index(self.tasks, self.threads)
        object.__setattr__(self, "next", following)
        object.__setattr__(self, "threads", threads)
        if self.trace is None:
            charge = self.protocol.charge_inserted
            made = spell(self.tasks, threads, self.name, self.prefix_of, charge)
            for name, value in zip(("tasks", "threads", "trace"), made, strict=True):
                object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def answer(self) -> int:
        """The organizer's last task: when it ends, the query is answered."""
        return self.threads[0].last

    @property
    def tokens(self) -> int:
        """Tokens decoded by all tasks."""
        return sum(task.tokens for task in self.tasks)

    def weight(self, task: int) -> int:
        """Decode steps of `task` on the decode-step clock."""
        return self.tasks[task].tokens or self.protocol.delay_steps(self.tasks[task].seconds)

    @property
    def prompt_tokens(self) -> int:
        """Tokens put into contexts without being decoded: prompts, those of workers too, and inserted text."""
        return sum([task.prefill for task in self.tasks])

    def reader(self, task: int) -> int:
        """The first task from `task` on, in its thread, that decodes: it processes the context waiting there. Or -1."""
        while task >= 0 and not self.tasks[task].tokens:
            task = self.next[task]
        return task

    def edges(self) -> Iterator[Edge]:
        """Yield every edge, by source, then kind (PROGRAM, FORK, JOIN)."""
        for i, task in enumerate(self.tasks):
            if self.next[i] >= 0:
                yield Edge(i, self.next[i], EdgeKind.PROGRAM)
            for thread in task.forks:
                yield Edge(i, self.threads[thread].first, EdgeKind.FORK)
            if self.next[i] < 0 and self.threads[task.thread].joined_by >= 0:
                yield Edge(i, self.threads[task.thread].joined_by, EdgeKind.JOIN)

    def predecessors(self) -> list[list[int]]:
        """Return, for each task, the tasks that must finish before it starts, in order."""
        before: list[list[int]] = [[] for _ in self.tasks]
        for source, target, _ in self.edges():
            before[target].append(source)
        return before


def _index(tasks: Sequence[Task], given: Sequence[GraphThread]) -> tuple[tuple[int, ...], tuple[GraphThread, ...]]:
    """Validate tasks and threads; return each task's successor, and the threads with all that is known of them."""
    n_threads = len(given)
    if set(map(type, given)) != {GraphThread}:
        raise GraphError("the threads of a graph are GraphThreads, and the first is its organizer")
    following = [-1] * len(tasks)
    first, last, forked_by, joined_by = ([-1] * n_threads for _ in range(4))
    parent = [-1] * n_threads
    for i, (thread, tokens, prefill, seconds, forks, joins, _) in enumerate(tasks):
        if not 0 <= thread < n_threads:
            raise GraphError(f"task {i}: there is no thread {thread}")
        if not (0 <= tokens <= _EXACT and 0 <= prefill <= _EXACT and 0 <= seconds <= MAX_SECONDS):
            raise GraphError(f"task {i}: tokens and prefill are from 0 to 2^53, and seconds from 0 to 10^9")
        if tokens and seconds:
            raise GraphError(f"task {i}: a task decodes tokens or passes seconds, not both")
        if first[thread] < 0:
            first[thread] = i
            if thread and forked_by[thread] < 0:
                raise GraphError(f"task {i}: thread {given[thread].id} starts before any Fork of it")
        else:
            following[last[thread]] = i
        last[thread] = i
        for child in forks:
            if not 0 < child < n_threads or forked_by[child] >= 0 or child <= thread:
                raise GraphError(
                    f"task {i} forks thread {child}, which does not exist, precedes it or is forked already"
                )
            forked_by[child], parent[child] = i, thread
        for child in joins:
            if not 0 < child < n_threads or first[child] < 0 or joined_by[child] >= 0:
                raise GraphError(f"task {i} joins thread {child}, which does not run before it or is joined already")
            if parent[child] != thread:
                raise GraphError(f"task {i} joins thread {given[child].id}, which another thread has forked")
            joined_by[child] = i
    for thread in range(n_threads):
        if first[thread] < 0:
            raise GraphError(f"thread {given[thread].id} has no task")
        waiting = joined_by[thread]
        if 0 <= waiting < last[thread]:
            raise GraphError(f"task {waiting} joins thread {given[thread].id}, but comes before its end")
    ids, shared, prompt, inserted, *_ = zip(*given, strict=True)
    columns = zip(ids, shared, prompt, inserted, parent, first, last, forked_by, joined_by, strict=True)
    return tuple(following), tuple(starmap(GraphThread, columns))
