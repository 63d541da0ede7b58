"""Execution graphs as networkx graphs, and back: the way in for graphs of other origin."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from msgspec import structs

from simulator.errors import GraphError
from simulator.graph.compiler import compile_trace
from simulator.graph.graph import ExecutionGraph
from simulator.graph.task import EdgeKind, GraphThread, Task
from simulator.trace import Trace
from simulator.trace.protocol import Protocol

if TYPE_CHECKING:
    import networkx

_GIVEN = ("shared", "prompt", "inserted")
"""What a graph attribute may say of each thread, besides its name in ``threads``."""


def to_networkx(graph: ExecutionGraph) -> networkx.DiGraph:
    """Return `graph` as a ``networkx.DiGraph``.

    Nodes are task numbers with ``thread`` (name), ``tokens``, ``prefill``, ``seconds`` and ``steps`` (weight on the
    decode-step clock); edges have ``kind`` and ``position``, the order of a task's Forks and of its Joins. The graph
    attributes ``threads``, ``shared``, ``prompt`` and ``inserted`` hold a value a thread; ``trace`` is what the graph
    was compiled from.

    >>> from simulator import Answer, Thread, Trace, compile_trace
    >>> g = to_networkx(compile_trace(Trace("t", (Thread("organizer", (Answer(3),)),))))
    >>> g.nodes[0]["thread"], g.nodes[0]["steps"]
    ('organizer', 3)
    """
    import networkx

    result = networkx.DiGraph(
        name=graph.name,
        protocol=graph.protocol,
        prefix_of=graph.prefix_of,
        trace=graph.trace,
        threads=tuple(thread.id for thread in graph.threads),
        **{name: tuple(getattr(thread, name) for thread in graph.threads) for name in _GIVEN},
    )
    for i, task in enumerate(graph.tasks):
        result.add_node(
            i,
            thread=graph.threads[task.thread].id,
            tokens=task.tokens,
            prefill=task.prefill,
            seconds=task.seconds,
            steps=graph.weight(i),
        )
    place = {
        (kind, number, thread): position
        for number, task in enumerate(graph.tasks)
        for kind, threads in ((EdgeKind.FORK, task.forks), (EdgeKind.JOIN, task.joins))
        for position, thread in enumerate(threads)
    }
    for source, target, kind in graph.edges():
        at, other = (target, source) if kind == EdgeKind.JOIN else (source, target)
        position = place.get((kind, at, graph.tasks[other].thread), 0)
        result.add_edge(source, target, kind=kind.value, position=position)
    return result


def from_networkx(source: networkx.DiGraph, *, protocol: Protocol | None = None) -> ExecutionGraph:
    """Return the execution graph of a ``networkx.DiGraph``: the inverse of `to_networkx`, and a way in for other tools.

    Nodes need a ``thread``; ``tokens``, ``prefill`` and ``seconds`` default to 0. Edges need a ``kind``. Node names may
    be anything sortable; PROGRAM edges must chain the tasks of each thread; ``position`` orders Forks and Joins.
    Without a graph attribute ``threads`` the organizer is the thread of the first task in topological order, and
    threads are ordered as they are forked. Without ``prompt`` and ``inserted``, prefill is taken for the prompt of a
    thread's first task, and for what a task's last Join inserts.

    The graph gets a trace like any other: the one in the graph attribute ``trace`` if that still says the same as the
    tasks, else one that is made from them. In a trace, workers are called by their Fork's index (``"1"``, nested
    ``"1.2"``), so threads with other names are renamed, and keep their name as the label of the trace's thread.

    Raises
    ------
    GraphError
        If that is no execution graph; the message says where.

    >>> import networkx
    >>> g = networkx.DiGraph()
    >>> g.add_node("plan", thread="planner", tokens=5)
    >>> g.add_node("search", thread="searcher", tokens=10)
    >>> g.add_node("write", thread="planner", tokens=2)
    >>> g.add_edges_from([("plan", "search", {"kind": "fork"}), ("plan", "write", {"kind": "program"}),
    ...                   ("search", "write", {"kind": "join"})])
    >>> graph = from_networkx(g)
    >>> [thread.id for thread in graph.threads], graph.trace.threads[1].label
    (['organizer', '1'], 'searcher')
    """
    order = _order(source)
    names = _names(source, order)
    last = _check_chains(source, order)
    forks, joins = _check_edges(source, order, names, last)
    attributes = source.graph
    tasks = []
    for node in order:
        data = source.nodes[node]
        work = (data.get("tokens", 0), data.get("prefill", 0), data.get("seconds", 0.0))
        tasks.append(Task(names[data["thread"]], *work, _in_order(forks[node]), _in_order(joins[node])))
    given = zip(*(attributes.get(name, (0,) * len(names)) for name in _GIVEN), strict=False)
    threads = [GraphThread(name, *values) for name, values in zip(names, given, strict=True)]
    if not attributes.keys() & set(_GIVEN[1:]):
        threads = _explained(tasks, threads)
    rules = protocol or attributes.get("protocol") or Protocol()
    graph = ExecutionGraph(
        tuple(tasks), tuple(threads), rules, str(attributes.get("name") or "trace"), attributes.get("prefix_of")
    )
    return _with_trace(graph, attributes.get("trace"))


def _order(source: networkx.DiGraph) -> list[Hashable]:
    """Return the nodes in topological order, of those that could come next the first by name."""
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
    return order


def _names(source: networkx.DiGraph, order: list[Hashable]) -> dict[str, int]:
    """Return the threads by name, each with its number."""
    names: dict[str, int] = {}
    for node in order:
        if "thread" not in source.nodes[node]:
            raise GraphError(f"task {node}: a node needs the attribute `thread`")
        names.setdefault(source.nodes[node]["thread"], len(names))
    declared = source.graph.get("threads")
    if declared is None:
        return names
    if set(declared) != set(names):
        raise GraphError("the graph attribute `threads` does not name the threads of the nodes")
    return {name: number for number, name in enumerate(declared)}


def _check_chains(source: networkx.DiGraph, order: list[Hashable]) -> dict[str, Hashable]:
    """Check that PROGRAM edges chain the tasks of each thread; return each thread's last task."""
    last: dict[str, Hashable] = {}
    for node in order:
        thread = source.nodes[node]["thread"]
        chained = [before for before, _, kind in source.in_edges(node, data="kind") if kind == EdgeKind.PROGRAM]
        if chained != ([last[thread]] if thread in last else []):
            raise GraphError(f"task {node}: PROGRAM edges must chain the tasks of thread {thread}; got {chained}")
        last[thread] = node
    return last


_Ends = Mapping[Hashable, list[tuple[int, int]]]


def _check_edges(
    source: networkx.DiGraph, order: list[Hashable], names: Mapping[str, int], last: Mapping[str, Hashable]
) -> tuple[_Ends, _Ends]:
    """Return the threads that each node forks and joins, each with its position in the node's list."""
    first: dict[str, Hashable] = {}
    for node in order:
        first.setdefault(source.nodes[node]["thread"], node)
    forks: dict[Hashable, list[tuple[int, int]]] = defaultdict(list)
    joins: dict[Hashable, list[tuple[int, int]]] = defaultdict(list)
    for before, after, data in source.edges(data=True):
        kind, position = data.get("kind"), data.get("position", 0)
        if kind == EdgeKind.FORK:
            thread = source.nodes[after]["thread"]
            if first[thread] != after:
                raise GraphError(f"edge {before} -> {after}: a FORK leads to the first task of a thread")
            forks[before].append((position, names[thread]))
        elif kind == EdgeKind.JOIN:
            thread = source.nodes[before]["thread"]
            if last[thread] != before:
                raise GraphError(f"edge {before} -> {after}: a JOIN comes from the last task of a thread")
            joins[after].append((position, names[thread]))
        elif kind != EdgeKind.PROGRAM:
            raise GraphError(f"edge {before} -> {after}: kind must be program, fork or join; got {kind!r}")
    return forks, joins


def _in_order(ends: list[tuple[int, int]]) -> tuple[int, ...]:
    return tuple(thread for _, thread in sorted(ends))


def _explained(tasks: Sequence[Task], threads: Sequence[GraphThread]) -> list[GraphThread]:
    """Return threads with the prompts and inserted tokens that tasks read, where nobody says whose they are.

    What a thread's first task reads is its prompt; what a task with Joins reads, its last Join inserts.
    """
    explained = list(threads)
    waiting = [thread.prompt for thread in threads]
    read = [False] * len(threads)
    for task in tasks:
        at = task.thread
        waiting[at] += sum(threads[child].inserted for child in task.joins)
        if not task.tokens:
            continue
        more, waiting[at] = max(task.prefill - waiting[at], 0), 0
        if task.joins:
            last = task.joins[-1]
            explained[last] = explained[last]._replace(inserted=explained[last].inserted + more)
        elif not read[at]:
            explained[at] = explained[at]._replace(prompt=explained[at].prompt + more)
        read[at] = True
    return explained


def _with_trace(graph: ExecutionGraph, trace: Any) -> ExecutionGraph:
    """Return `graph` with this trace if that says the same as its tasks, else as it is."""
    if not isinstance(trace, Trace):
        return graph
    compiled = compile_trace(trace, graph.protocol)
    same = (graph.threads, graph.name, graph.prefix_of) == (compiled.threads, compiled.name, compiled.prefix_of)
    if same and [task[:-1] for task in graph.tasks] == [task[:-1] for task in compiled.tasks]:
        return compiled
    return replace(graph, trace=trace) if _unnamed(trace) == _unnamed(graph.trace) else graph


def _unnamed(trace: Trace) -> Trace:
    """Return `trace` without labels, which tasks know nothing of."""
    threads = tuple(structs.replace(thread, label=None) for thread in trace.threads)
    return structs.replace(trace, threads=threads)
