"""The execution graph: tasks, and what must end before what may begin.

A task is an uninterrupted run of one thread's work; see `simulator.graph.compiler` for where threads are cut. Edges are
PROGRAM (the thread's next task), FORK (from the task that ends in the Fork to the worker's first) and JOIN (from the
worker's last task to the one that waited for it).

A graph is immutable tuples and nothing else: no state of a run lives in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from simulator.errors import GraphError
from simulator.trace import MAX_SECONDS, MAX_TOKENS, ORGANIZER, Trace
from simulator.trace.protocol import Protocol

if TYPE_CHECKING:
    import networkx

__all__ = ["Edge", "EdgeKind", "ExecutionGraph", "Task", "from_networkx", "to_networkx"]


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


@dataclass(frozen=True, slots=True)
class ExecutionGraph:
    """What one query asks of the machine.

    Tasks are in topological order: no edge goes backwards. A thread's tasks are in its program's order; thread 0 is the
    organizer, parents come before children, and ties in time are broken by thread, then task.
    """

    tasks: tuple[Task, ...]
    threads: tuple[str, ...] = (ORGANIZER,)
    shared: tuple[int, ...] = (0,)
    """Of each thread's prompt, the tokens that are a prefix of its parent's context; of the organizer's, see
    `prefix_of`.
    """
    inserted: tuple[int, ...] = (0,)
    """Tokens inserted when each thread is joined."""
    protocol: Protocol = field(default_factory=Protocol)
    name: str = "trace"
    prompts: tuple[int, ...] = ()
    """The rest of each thread's prompt, part of the prefill of its first task that decodes. Empty: all 0."""
    trace: Trace | None = field(default=None, compare=False, repr=False)
    prefix_of: str | None = None
    """The name of an earlier graph with whose organizer's context this one's prompt begins; see `Trace.prefix_of`."""
    next: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """Each task's successor in its thread, or -1."""
    first: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """Each thread's first task."""
    last: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """Each thread's last task."""
    forked_by: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """The task that forks each thread; -1 for the organizer."""
    joined_by: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """The task that waits for each thread, or -1."""

    def __post_init__(self) -> None:
        if not self.prompts:
            object.__setattr__(self, "prompts", (0,) * len(self.threads))
        index = _index(self)
        for name, value in zip(("next", "first", "last", "forked_by", "joined_by"), index, strict=True):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def answer(self) -> int:
        """The organizer's last task: when it ends, the query is answered."""
        return self.last[0]

    @property
    def tokens(self) -> int:
        """Tokens decoded by all tasks."""
        return sum(task.tokens for task in self.tasks)

    def weight(self, task: int) -> int:
        """Decode steps of `task` on the decode-step clock."""
        return self.tasks[task].tokens or self.protocol.delay_steps(self.tasks[task].seconds)

    def parent(self, thread: int) -> int:
        """The thread that forks `thread`; -1 for the organizer."""
        return self.tasks[self.forked_by[thread]].thread if self.forked_by[thread] >= 0 else -1

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
                yield Edge(i, self.first[thread], EdgeKind.FORK)
            if self.next[i] < 0 and self.joined_by[task.thread] >= 0:
                yield Edge(i, self.joined_by[task.thread], EdgeKind.JOIN)

    def predecessors(self) -> list[list[int]]:
        """Return, for each task, the tasks that must finish before it starts, in order."""
        before: list[list[int]] = [[] for _ in self.tasks]
        for source, target, _ in self.edges():
            before[target].append(source)
        return before


def _index(graph: ExecutionGraph) -> tuple[tuple[int, ...], ...]:
    """Validate `graph` and return what is derived from its tasks."""
    n_threads, n_tasks = len(graph.threads), len(graph.tasks)
    if n_threads == 0 or not len(graph.shared) == len(graph.prompts) == len(graph.inserted) == n_threads:
        raise GraphError(f"a graph needs an organizer; shared, prompts and inserted for each of {n_threads} threads")
    following = [-1] * n_tasks
    first, last, forked_by, joined_by = ([-1] * n_threads for _ in range(4))
    for i, (thread, tokens, prefill, seconds, forks, joins, _) in enumerate(graph.tasks):
        if not 0 <= thread < n_threads:
            raise GraphError(f"task {i}: there is no thread {thread}")
        if not (0 <= tokens <= MAX_TOKENS and 0 <= prefill <= MAX_TOKENS and 0 <= seconds <= MAX_SECONDS):
            raise GraphError(f"task {i}: tokens, prefill and seconds must be 0 or more and finite")
        if tokens and seconds:
            raise GraphError(f"task {i}: a task decodes tokens or passes seconds, not both")
        if first[thread] < 0:
            first[thread] = i
            if thread and forked_by[thread] < 0:
                raise GraphError(f"task {i}: thread {graph.threads[thread]} starts before any Fork of it")
        else:
            following[last[thread]] = i
        last[thread] = i
        for child in forks:
            if not 0 < child < n_threads or forked_by[child] >= 0 or child <= thread:
                raise GraphError(
                    f"task {i} forks thread {child}, which does not exist, precedes it or is forked already"
                )
            forked_by[child] = i
        for child in joins:
            if not 0 < child < n_threads or first[child] < 0 or joined_by[child] >= 0:
                raise GraphError(f"task {i} joins thread {child}, which does not run before it or is joined already")
            joined_by[child] = i
    for thread in range(n_threads):
        if first[thread] < 0:
            raise GraphError(f"thread {graph.threads[thread]} has no task")
        waiting = joined_by[thread]
        if 0 <= waiting < last[thread]:
            raise GraphError(f"task {waiting} joins thread {graph.threads[thread]}, but comes before its end")
    return tuple(following), tuple(first), tuple(last), tuple(forked_by), tuple(joined_by)


def to_networkx(graph: ExecutionGraph) -> networkx.DiGraph:
    """Return `graph` as a ``networkx.DiGraph``.

    Nodes are task numbers with ``thread`` (name), ``tokens``, ``prefill``, ``seconds`` and ``steps`` (weight on the
    decode-step clock); edges have ``kind`` and ``place``, the order of a task's Forks and of its Joins.

    >>> from simulator import Answer, Thread, Trace, compile_trace
    >>> g = to_networkx(compile_trace(Trace("t", (Thread("organizer", (Answer(3),)),))))
    >>> g.nodes[0]["thread"], g.nodes[0]["steps"]
    ('organizer', 3)
    """
    import networkx

    result = networkx.DiGraph(name=graph.name, threads=graph.threads, protocol=graph.protocol)
    result.graph.update(shared=graph.shared, prompts=graph.prompts, inserted=graph.inserted, prefix_of=graph.prefix_of)
    for i, task in enumerate(graph.tasks):
        result.add_node(
            i,
            thread=graph.threads[task.thread],
            tokens=task.tokens,
            prefill=task.prefill,
            seconds=task.seconds,
            steps=graph.weight(i),
            actions=task.actions,
        )
    for source, target, kind in graph.edges():
        thread = graph.tasks[target if kind == EdgeKind.FORK else source].thread
        lists = {EdgeKind.FORK: graph.tasks[source].forks, EdgeKind.JOIN: graph.tasks[target].joins}
        if result.has_edge(source, target):
            raise GraphError(f"tasks {source} and {target} have two edges, which a DiGraph cannot hold")
        result.add_edge(source, target, kind=kind.value, place=lists.get(kind, (thread,)).index(thread))
    return result


def from_networkx(source: networkx.DiGraph, *, protocol: Protocol | None = None) -> ExecutionGraph:
    """Return the execution graph of a ``networkx.DiGraph``: the inverse of `to_networkx`, and a way in for other tools.

    Nodes need a ``thread``; ``tokens``, ``prefill`` and ``seconds`` default to 0. Edges need a ``kind``. Node names may
    be anything sortable; PROGRAM edges must chain the tasks of each thread; ``place`` orders Forks and Joins. Without a
    graph attribute ``threads`` the organizer is the thread of the first task in topological order, and threads are
    ordered as they are forked.

    Raises
    ------
    GraphError
        If that is no execution graph; the message says where.
    """
    import networkx

    try:
        order = list(networkx.lexicographical_topological_sort(source))
    except networkx.NetworkXUnfeasible:
        cycle = [edge[0] for edge in networkx.find_cycle(source)]
        raise GraphError(f"tasks wait for each other: {' -> '.join(map(str, [*cycle, cycle[0]]))}") from None
    except (networkx.NetworkXError, TypeError) as error:
        raise GraphError(f"no directed graph of tasks: {error}") from None
    if not order:
        raise GraphError("a graph needs at least one task")
    names: dict[str, int] = {}
    for node in order:
        if "thread" not in source.nodes[node]:
            raise GraphError(f"task {node}: a node needs the attribute `thread`")
        names.setdefault(source.nodes[node]["thread"], len(names))
    declared = source.graph.get("threads")
    if declared is not None:
        if set(declared) != set(names):
            raise GraphError("the graph attribute `threads` does not name the threads of the nodes")
        names = {name: i for i, name in enumerate(declared)}
    ends: dict[str, dict[int, list[tuple[int, int]]]] = {"fork": {}, "join": {}}
    number = {node: i for i, node in enumerate(order)}
    previous: dict[str, object] = {}
    for node in order:
        thread = source.nodes[node]["thread"]
        chained = [u for u, _, kind in source.in_edges(node, data="kind") if kind == EdgeKind.PROGRAM]
        if chained != ([previous[thread]] if thread in previous else []):
            raise GraphError(f"task {node}: PROGRAM edges must chain the tasks of thread {thread}; got {chained}")
        previous[thread] = node
    for u, v, data in source.edges(data=True):
        kind, place = data.get("kind"), data.get("place", 0)
        if kind == EdgeKind.FORK:
            ends["fork"].setdefault(number[u], []).append((place, names[source.nodes[v]["thread"]]))
        elif kind == EdgeKind.JOIN:
            ends["join"].setdefault(number[v], []).append((place, names[source.nodes[u]["thread"]]))
        elif kind != EdgeKind.PROGRAM:
            raise GraphError(f"edge {u} -> {v}: kind must be program, fork or join; got {kind!r}")
    opening: dict[str, object] = {}
    for node in order:
        opening.setdefault(source.nodes[node]["thread"], node)
    for u, v, kind in source.edges(data="kind"):
        if kind == EdgeKind.FORK and opening[source.nodes[v]["thread"]] != v:
            raise GraphError(f"edge {u} -> {v}: a FORK leads to the first task of a thread")
        if kind == EdgeKind.JOIN and previous[source.nodes[u]["thread"]] != u:
            raise GraphError(f"edge {u} -> {v}: a JOIN comes from the last task of a thread")
    tasks = []
    for i, node in enumerate(order):
        data = source.nodes[node]
        forks, joins = (tuple(thread for _, thread in sorted(ends[kind].get(i, ()))) for kind in ("fork", "join"))
        tasks.append(
            Task(
                names[data["thread"]],
                data.get("tokens", 0),
                data.get("prefill", 0),
                data.get("seconds", 0.0),
                forks,
                joins,
                data.get("actions", (0, 0)),
            )
        )
    return ExecutionGraph(
        tuple(tasks),
        tuple(names),
        source.graph.get("shared", (0,) * len(names)),
        source.graph.get("inserted", (0,) * len(names)),
        protocol or source.graph.get("protocol") or Protocol(),
        str(source.graph.get("name") or "trace"),
        source.graph.get("prompts", ()),
        prefix_of=source.graph.get("prefix_of"),
    )
