"""From the requests of one play (a query, in the words of agentic Mooncake) to its Trace.

A session becomes a thread, a request a task. Where the requests came from a trace, it comes out again. The requests of
others may wait for each other as no threads do. So the trace that was built is taken apart into requests again, and the
play is refused if they do not wait for what the play's do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter

from simulator.errors import TraceError
from simulator.formats.logs.requests import most_dependencies, requests
from simulator.formats.logs.to_threads import Node, RequestRow, ThreadDraft, refuse, to_threads
from simulator.formats.texts import is_path
from simulator.graph.compiler import compile_trace
from simulator.trace import MAX_NESTING, ORGANIZER, Trace, child_id


def to_trace(rows: Sequence[tuple[int, RequestRow]], block_size: int) -> Trace:
    """Return the Trace of a play.

    Parameters
    ----------
    rows : sequence of (int, RequestRow)
        All requests of one play, each with its line. No two have the same id.
    block_size : int
        Tokens in a block of `hash_ids`.

    Raises
    ------
    FormatError
        If they are no fork/join trace. The message names the request, and why; `line` is its line.

    >>> tokens = {"input_length": 100, "output_length": 9, "hash_ids": [0, 1]}
    >>> row = RequestRow(request_id="r", play_id="q7", session_id="main", model="m", not_before_ms=1500.0, **tokens)
    >>> trace = to_trace([(2, row)], 64)
    >>> trace.id, trace.arrival, trace.organizer.prompt_tokens, trace.organizer.actions
    ('q7', 1.5, 100, (Answer(tokens=9, text=None, start=None, finish=None),))
    """
    named = _nodes(rows)
    nodes = list(named.values())
    sessions = list(dict.fromkeys(node.session for node in nodes))
    organizer = _family(sessions, named)
    if not organizer.nodes:
        sessions.insert(0, organizer)
    for session in sessions:
        _find_gap(session)
    arrival = min(node.wait for node in nodes if not node.after)
    first = (organizer.nodes or nodes)[0]
    try:
        threads = to_threads(sessions, arrival, block_size)
        trace = Trace(first.row.play_id, threads, arrival=arrival / 1000, meta={"model": first.row.model})
    except TraceError as error:
        raise refuse(first, f"begins no trace: {error}") from None
    _prove(trace, nodes, arrival, block_size)
    return trace


def _nodes(rows: Sequence[tuple[int, RequestRow]]) -> dict[str, Node]:
    """Return the requests by id, with what they wait for, in the order of the file."""
    sessions: dict[str, ThreadDraft] = {}
    nodes: dict[str, Node] = {}
    for line, row in rows:
        if row.session_id not in sessions:
            sessions[row.session_id] = ThreadDraft(row.session_id)
        nodes[row.request_id] = Node(row, line, sessions[row.session_id], wait=row.not_before_ms)
    for node in nodes.values():
        for each in node.row.dependencies:
            if each.request_id not in nodes:
                raise refuse(node, f"waits for {each.request_id!r}, which is not among the rows of its play")
    sorter = TopologicalSorter(
        {name: [each.request_id for each in node.row.dependencies] for name, node in nodes.items()}
    )
    try:
        order = list(sorter.static_order())
    except CycleError as error:
        cycle = error.args[1][::-1]
        raise refuse(nodes[cycle[0]], f"waits for itself: {' -> '.join(cycle)}") from None
    known, most = 0, most_dependencies(len(nodes))
    for name in order:
        _link(nodes[name], nodes)
        known += len(nodes[name].after)
        if known > most:
            raise refuse(nodes[name], f"and others wait for more than {most:,} requests in all, by way of dispatches")
    return nodes


def _link(node: Node, nodes: dict[str, Node]) -> None:
    """Find what `node` waits for, and its index in its session. What it waits for has been linked already."""
    previous = None
    for each in node.row.dependencies:
        source, seconds = nodes[each.request_id], each.delay_ms / 1000
        if each.trigger == "dispatch":  # it waits for what the other waited for
            _merge(node.after, ((before, delay + seconds) for before, delay in source.after.items()))
            if not source.after:
                node.wait = max(node.wait, source.wait + each.delay_ms)
            continue
        _merge(node.after, [(source, seconds)])
        if source.session is node.session and (previous is None or each.relation == "sequence"):
            previous = source
    chain = node.session.nodes
    if chain and previous is not chain[-1]:
        after = "nothing in its session" if previous is None else repr(previous.row.request_id)
        raise refuse(
            node, f"follows {after}, and so does {chain[previous.index + 1 if previous else 0].row.request_id!r}"
        )
    node.index = len(chain)
    chain.append(node)


def _merge(into: dict[Node, float], more: Iterable[tuple[Node, float]]) -> None:
    for node, seconds in more:
        into[node] = max(into.get(node, 0.0), seconds)


def _family(sessions: list[ThreadDraft], nodes: dict[str, Node]) -> ThreadDraft:
    """Find the parent of each session and the names of the threads; return the organizer's.

    Names that are thread ids say it all. Else a session is spawned by another, or by the organizer. If that is none of
    the sessions, it has no requests: it forks at the start, and joins at the end.
    """
    named = {session.name: session for session in sessions}
    known = {ORGANIZER, *named}
    ours = all(name == ORGANIZER or (is_path(name) and _above(name) in known) for name in named)
    roots = [session for session in sessions if not session.nodes[0].row.dependencies]
    if ours and (ORGANIZER in named or len(roots) > 1):
        organizer = named.get(ORGANIZER) or ThreadDraft(ORGANIZER)
        for session in sessions:
            session.parent = None if session is organizer else named.get(_above(session.name), organizer)
    else:
        ours = False
        organizer = roots[0] if len(roots) == 1 else ThreadDraft(ORGANIZER)
        for session in sessions:
            session.parent = None if session is organizer else _spawner(session, nodes) or organizer
    for session in sessions:
        if session.parent is not None:
            session.parent.children.append(session)
    waiting = [(organizer, ORGANIZER, 0)]
    for session, thread, depth in waiting:
        if depth > MAX_NESTING:
            raise refuse(session.nodes[0], f"is of a session that is spawned deeper than {MAX_NESTING}")
        session.thread = thread
        for index, child in enumerate(session.children, 1):
            waiting.append((child, child.name if ours else child_id(thread, index), depth + 1))
    for session in sessions:
        if not session.thread:
            raise refuse(session.nodes[0], f"is of session {session.name!r}, whose spawns go round in a circle")
    return organizer


def _above(name: str) -> str:
    return name.rpartition(".")[0] or ORGANIZER


def _spawner(session: ThreadDraft, nodes: dict[str, Node]) -> ThreadDraft | None:
    """Return the session that `session` is spawned by: the one its first request says so of, or else waits for."""
    first = session.nodes[0]
    waits = [each for each in first.row.dependencies if each.relation == "spawn"] or first.row.dependencies
    found = list(dict.fromkeys(nodes[each.request_id].session for each in waits))
    if len(found) > 1:
        names = " and ".join(repr(other.name) for other in found[:2])
        raise refuse(first, f"begins session {session.name!r}, which is spawned by sessions {names}; accepted is one")
    return found[0] if found else None


def _find_gap(session: ThreadDraft) -> None:
    """Find where its parent forks a session."""
    parent = session.parent
    if parent is None:
        return
    needs: dict[ThreadDraft, None] = {}
    for source in session.nodes[0].after:
        if source.session is parent:
            session.gap = max(session.gap, source.index + 1)
        else:
            sibling = parent.child_towards(source.session)
            if sibling is not None and sibling is not session:
                needs[sibling] = None
    session.needs = list(needs)


def _prove(trace: Trace, nodes: list[Node], arrival: float, block_size: int) -> None:
    """Refuse the play if the requests of `trace` differ from its own."""
    graph = compile_trace(trace)
    there = requests(graph, block_size)
    at = {(graph.threads[request.thread].id, request.index): request for request in there}
    for node in nodes:
        request = at.get((node.session.thread, node.index))
        if request is None or request.input_length != node.row.input_length:
            raise refuse(node, "is at a place that no thread reaches")
        theirs = {(source.session.thread, source.index): seconds for source, seconds in node.after.items()}
        ours = {
            (graph.threads[there[each.request].thread].id, there[each.request].index): each.seconds
            for each in request.dependencies
        }
        since = (node.wait - arrival) / 1000
        if not theirs or (not node.index and not node.inherits and since > max(theirs.values())):
            theirs[ORGANIZER, -1] = since
        if request.wait or not ours:
            ours[ORGANIZER, -1] = request.wait
        if theirs.keys() != ours.keys() or any(not _close(ours[each], theirs[each]) for each in ours):
            raise refuse(node, f"waits for {_said(theirs)}; as a part of threads it would wait for {_said(ours)}")


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)


def _said(waits: dict[tuple[str, int], float]) -> str:
    parts = []
    for (thread, index), seconds in sorted(waits.items())[:4]:
        what = "the arrival" if index < 0 else f"request {index} of {thread}"
        parts.append(what + (f" and {seconds:g} s" if seconds else ""))
    return ", ".join(parts) + (", ..." if len(waits) > 4 else "")
