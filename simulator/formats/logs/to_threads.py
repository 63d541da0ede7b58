"""From requests and what they wait for to the actions of threads.

What lies between two requests of a thread is laid out in one order: Forks, with the Joins they need before them; a
Delay; the other Joins; a Delay. So a Delay may stand elsewhere than it did, never with another effect. Tokens
that come into a context without a Join, such as what a tool said, need one: they get a worker that decodes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import msgspec

from simulator.errors import FormatError
from simulator.trace import ORGANIZER, Action, Answer, Delay, Fork, Join, Return, Think, Thread, child_id


class DependencyRow(msgspec.Struct):
    """What a request waits for, as a file says it."""

    request_id: str
    trigger: str
    delay_ms: float
    relation: str


class RequestRow(msgspec.Struct, kw_only=True):
    """A request, as a file says it. Keys that are not here are ignored."""

    request_id: str
    play_id: str
    source_play_ordinal: int | None = None
    session_id: str
    model: str
    input_length: int
    output_length: int
    hash_ids: list[int]
    not_before_ms: float
    dependencies: list[DependencyRow] = []


@dataclass(eq=False, slots=True)
class Node:
    """A request in its session."""

    row: RequestRow
    line: int
    session: ThreadDraft
    index: int = 0
    wait: float = 0.0
    """Milliseconds of the file's clock before which it does not come."""
    after: dict[Node, float] = field(default_factory=dict)
    """Requests that must be completed, and the seconds after that."""

    @property
    def inherits(self) -> bool:
        """Whether it waits for what its session's Fork waited for. Else that was the arrival."""
        return any(not self.session.child_towards(source.session) for source in self.after)


@dataclass(eq=False, slots=True)
class ThreadDraft:
    """A thread to be."""

    name: str
    nodes: list[Node] = field(default_factory=list)
    parent: ThreadDraft | None = None
    thread: str = ""
    children: list[ThreadDraft] = field(default_factory=list)
    gap: int = 0
    """Before which request of its parent it is forked."""
    needs: list[ThreadDraft] = field(default_factory=list)
    """The siblings that are joined in that gap before it is forked."""
    pause: float = 0.0
    """Seconds between its last request and its end."""
    trailing: dict[ThreadDraft, None] = field(default_factory=dict)
    """Children that are joined after its last request."""
    prompt: int = 0
    """Tokens of its first context."""
    blocks: list[int] = field(default_factory=list)
    """The ids of its last context."""

    def child_towards(self, session: ThreadDraft) -> ThreadDraft | None:
        """Return the child that is `session`, or has it among its descendants."""
        walk: ThreadDraft | None = session
        while walk is not None and walk.parent is not self:
            walk = walk.parent
        return walk


def refuse(node: Node, message: str) -> FormatError:
    """Return the error that says why `node` is in no trace."""
    row = node.row
    return FormatError(
        f"play {row.play_id!r} is no fork/join trace: request {row.request_id!r} {message}", line=node.line
    )


def to_threads(sessions: list[ThreadDraft], arrival: float, block_size: int) -> tuple[Thread, ...]:
    """Return the threads of a family of sessions, parents before children.

    Parameters
    ----------
    sessions : list of ThreadDraft
        Named, each with its parent and its gap.
    arrival : float
        Milliseconds of the file's clock at which the query arrives.
    block_size : int
        Tokens in a block of `hash_ids`.

    Raises
    ------
    FormatError
        If a context does not go on where it ended.
    """
    builder = _Builder(arrival, block_size)
    for session in sessions:
        builder.look_at(session)
    builder.join_the_rest(sessions)
    done: dict[ThreadDraft, None] = {}
    for session in sessions:
        line = [session]
        while (above := line[-1].parent) is not None and above not in done:
            line.append(above)
        done.update(dict.fromkeys(reversed(line)))
    threads: list[Thread] = []
    for session in done:
        threads += builder.threads(session)
    return tuple(threads)


class _Builder:
    def __init__(self, arrival: float, block_size: int) -> None:
        self.arrival = arrival
        self.block_size = block_size
        self.joins: dict[Node, dict[ThreadDraft, float]] = {}
        """The children that each request waits for, and the seconds after their last requests."""
        self.tools: dict[ThreadDraft, list[tuple[int, Node, float]]] = defaultdict(list)
        """Workers that decode nothing: the gap they are forked in, the request that waits for them, their seconds."""

    def look_at(self, session: ThreadDraft) -> None:
        """Find what a session reads, and what each of its requests joins."""
        if session.nodes:
            session.prompt, session.blocks = session.nodes[0].row.input_length, session.nodes[-1].row.hash_ids
        elif session.children:  # of an organizer without requests, all that is known is what its workers share
            firsts = [child.nodes[0].row for child in session.children]
            session.blocks = firsts[0].hash_ids
            for row in firsts:
                session.blocks = session.blocks[: _common(session.blocks, row.hash_ids)]
            whole = min(row.input_length for row in firsts) // self.block_size
            session.blocks = session.blocks[:whole]
            session.prompt = len(session.blocks) * self.block_size
        for node in session.nodes:
            joins: dict[ThreadDraft, float] = {}
            for source, seconds in node.after.items():
                if source.session is session:
                    if source.index != node.index - 1:
                        self.tools[session].append((source.index + 1, node, seconds))
                    continue
                child = session.child_towards(source.session)
                if child is None:
                    continue
                if child is source.session or child not in joins:
                    joins[child] = seconds
                walk = source.session
                while walk is not child and walk.parent is not None:
                    walk.parent.trailing[walk] = None
                    walk = walk.parent
            self.joins[node] = joins

    def join_the_rest(self, sessions: list[ThreadDraft]) -> None:
        """Have the organizer wait for whom nobody waits: a play is over when all its requests are."""
        joined = {child for joins in self.joins.values() for child in joins}
        joined.update(child for session in sessions for child in session.trailing)
        waiting = [session for session in sessions if session.parent is None]
        for session in waiting:
            lost = [child for child in session.children if child not in joined]
            session.trailing |= dict.fromkeys(lost)
            waiting += lost

    def threads(self, session: ThreadDraft) -> list[Thread]:
        """Return the thread of `session`, and after it those of its tools."""
        tools: list[Thread] = []
        forks: dict[int, list[ThreadDraft | int]] = defaultdict(list)
        for child in sorted(session.children, key=lambda child: len(child.needs)):
            forks[child.gap].append(child)
        index = max((_fork_index(child) for child in session.children), default=0)
        of: dict[Node, list[int]] = defaultdict(list)

        def tool(gap: int, node: Node, seconds: float) -> None:
            nonlocal index
            index += 1
            forks[gap].append(index)
            of[node].append(index)
            actions = (Delay(seconds), Return()) if seconds else (Return(),)
            tools.append(Thread(child_id(session.thread, index), actions))

        for waiting in self.tools[session]:
            tool(*waiting)
        actions: list[Action] = []
        for node in session.nodes:
            inserted = self._inserted(node)
            own = self._own(node)
            if not self.joins[node] and node not in of and (inserted or self._is_seamless(node, forks)):
                tool(node.index, node, own or 0.0)
                own = 0.0
            seconds = [*self.joins[node].values()] + ([own] if own is not None else [])
            common = 0.0 if node in of else min(seconds, default=0.0)
            before = 0.0 if own is None else own - common
            for child, delay in self.joins[node].items():
                child.pause = max(child.pause, delay - common)
            joins = [_fork_index(child) for child in self.joins[node]] + of[node]
            share, rest = divmod(inserted, len(joins)) if joins else (0, 0)
            tokens = {index: share + (i < rest) for i, index in enumerate(joins)}
            actions += self._forks(forks[node.index], tokens)
            actions += [Delay(before)] * (before > 0)
            actions += [Join(index, 0, tokens) for index, tokens in tokens.items()]
            actions += [Delay(common)] * (common > 0)
            start = node.row.not_before_ms / 1000 if node.after and node.row.not_before_ms > self.arrival else None
            actions.append(Think(node.row.output_length, start=start))
        actions += self._forks(forks[len(session.nodes)], {})
        actions += [Join(_fork_index(child)) for child in session.trailing]
        actions += [Delay(session.pause)] * (session.pause > 0)
        end = Answer if session.thread == ORGANIZER else Return
        last = actions.pop()
        actions += [end(last.tokens, start=last.start)] if isinstance(last, Think) else [last, end()]
        return [Thread(session.thread, tuple(actions), session.prompt, self._shared(session)), *tools]

    def _forks(self, forks: list[ThreadDraft | int], joins: dict[int, int]) -> list[Action]:
        """Return the Forks of a gap. Joins they need come before them, and are taken out of `joins`."""
        actions: list[Action] = []
        for child in forks:
            if isinstance(child, int):
                actions.append(Fork(child))
                continue
            for need in child.needs:
                if _fork_index(need) in joins:
                    actions.append(Join(_fork_index(need), 0, joins.pop(_fork_index(need))))
            actions.append(Fork(_fork_index(child)))
        return actions

    def _is_seamless(self, node: Node, forks: dict[int, list[ThreadDraft | int]]) -> bool:
        """Whether nothing would tell the tokens of `node` from those of the request before."""
        return node.index > 0 and not self._own(node) and not forks[node.index]

    def _own(self, node: Node) -> float | None:
        """Return the seconds from where the thread stands to `node`, Joins aside; None if the Joins say it all."""
        if node.index:
            return node.after.get(node.session.nodes[node.index - 1], 0.0)
        if node.inherits:
            return min(
                seconds for source, seconds in node.after.items() if not node.session.child_towards(source.session)
            )
        wait = (node.wait - self.arrival) / 1000
        return wait if wait > 0 or not node.after else None

    def _inserted(self, node: Node) -> int:
        """Return the tokens that came into the context since the request before."""
        if not node.index:
            return 0
        before, row = node.session.nodes[node.index - 1].row, node.row
        context = before.input_length + before.output_length
        if row.input_length < context:
            raise refuse(
                node,
                f"reads {row.input_length} tokens, but its session had {context} after {before.request_id!r};"
                " the context of a thread only grows",
            )
        whole = before.input_length // self.block_size
        if row.hash_ids[:whole] != before.hash_ids[:whole]:
            raise refuse(
                node, f"has other hash_ids than {before.request_id!r} before it; a thread's context only grows"
            )
        return row.input_length - context

    def _shared(self, session: ThreadDraft) -> int:
        """Return how many tokens the session's first context has in common with its parent's."""
        if session.parent is None:
            return 0
        common = _common(session.nodes[0].row.hash_ids, session.parent.blocks)
        return min(common * self.block_size, session.prompt)


def _common(one: list[int], other: list[int]) -> int:
    """Return with how many equal ids both begin."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _fork_index(session: ThreadDraft) -> int:
    return int(session.thread.rpartition(".")[2])
