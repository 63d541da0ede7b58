"""The message graph of a rollout of verifiers: what its models said, and which of it stands on one thread."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any

import msgspec

from simulator.errors import FormatError
from simulator.trace.tokens import TokenCounter

_FOLLOWS = ("continuation", "compaction")


class _Link(msgspec.Struct):  # an edge into a node
    node: int
    type: str


class _Message(msgspec.Struct):  # what was said
    content: Any = None
    reasoning_content: str | None = None
    tool_calls: list[Any] | None = None


class Node(msgspec.Struct):
    """A message, after its parent."""

    message: _Message
    parent: int | None = None
    semantic_parents: list[_Link] = []
    sampled: bool = False
    mask: list[bool] = []


class _Usage(msgspec.Struct):  # tokens of a call
    prompt_tokens: int
    completion_tokens: int
    cached_input_tokens: int | None = None


class _Time(msgspec.Struct):  # seconds since the epoch
    start: float = 0.0
    end: float = 0.0


class _Call(msgspec.Struct):  # a model call, and the node it made
    node: int | None = None
    usage: _Usage | None = None
    time: _Time = msgspec.field(default_factory=_Time)
    finish_reason: str | None = None


class _Reward(msgspec.Struct):  # a reward as it was recorded
    score: float = 0.0
    weight: float = 1.0


class GraphRollout(msgspec.Struct):
    """A trace of verifiers: only these keys are looked at."""

    nodes: list[Node]
    id: str | None = None
    calls: list[_Call] = []
    rewards: dict[str, _Reward | None] = {}
    metrics: dict[str, float | None] = {}
    info: dict[str, Any] = {}


@dataclass
class Turn:
    """A message that a model made."""

    node: int
    tokens: int
    text: str
    ends: bool
    """Whether it may be the last: it called no tool and was not cut off."""
    start: float
    end: float
    input: int | None
    """Tokens of context before it; None if not recorded."""

    @property
    def total(self) -> int:
        """Tokens of context after it."""
        return (self.input or 0) + self.tokens


@dataclass(eq=False)
class Strand:
    """Turns one after another: a thread, or a piece of one."""

    turns: list[Turn] = field(default_factory=list)
    host: Strand | None = None
    after: int = -1
    """The host's turn after which it was forked, -1 before all."""
    before: int | None = None
    """The host's turn that joins it."""
    shared: int = 0
    workers: list[Strand] = field(default_factory=list)
    begun: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    """By when a turn so far had begun, and by when all had ended; they grow even where clocks disagree."""

    def add(self, turn: Turn) -> int:
        """Add a turn, and return which it is."""
        self.turns.append(turn)
        self.begun.append(max(turn.start, self.begun[-1] if self.begun else turn.start))
        self.ended.append(max(turn.end, self.ended[-1] if self.ended else turn.end))
        return len(self.turns) - 1


def turns_of(rollout: GraphRollout, count: TokenCounter) -> list[Turn]:
    """Return what models said, in order."""
    calls = {call.node: call for call in rollout.calls if call.node is not None}
    turns = []
    for number, node in enumerate(rollout.nodes):
        if node.parent is not None and not 0 <= node.parent < number:
            raise FormatError(f"node {number} has parent {node.parent}; accepted is an earlier node")
        if not node.sampled:
            continue
        said = node.message.content
        text = (node.message.reasoning_content or "") + (said if isinstance(said, str) else "")
        call = calls.get(number, _Call())
        usage, time = call.usage, call.time
        tokens = usage.completion_tokens if usage else sum(node.mask) or count(text)
        seen = usage.prompt_tokens + (usage.cached_input_tokens or 0) if usage else None
        ends = not node.message.tool_calls and call.finish_reason not in ("length", "tool_calls")
        turns.append(Turn(number, tokens, text, ends, time.start, max(time.start, time.end), seen))
    return turns


def strands_of(nodes: Sequence[Node], turns: Iterable[Turn]) -> Strand:
    """Return the organizer's strand, with all others as its workers or theirs."""
    strands: list[Strand] = []
    called: list[tuple[Strand, int]] = []  # with the node that calls it
    loose: dict[Strand, int | None] = {}  # with the node it branches off
    where: dict[int, tuple[Strand, int]] = {}  # by node
    said: list[int | None] = []  # the sampled node that each node is or descends from
    at = iter(turns)
    returns: list[tuple[int, int]] = []
    for number, node in enumerate(nodes):
        above = None if node.parent is None else said[node.parent]
        said.append(number if node.sampled else above)
        if not node.sampled:
            continue
        turn = next(at)
        links = {link.type: link.node for link in node.semantic_parents if link.node in where}
        returns += [(link.node, number) for link in node.semantic_parents if link.type == "subagent_return"]
        caller = links.get("subagent_call")
        follows = next((links[kind] for kind in _FOLLOWS if kind in links), above)
        before = None if follows is None else where[follows]
        if caller is None and before is not None and before[1] == len(before[0].turns) - 1:
            strand = before[0]
        else:
            strand = Strand()
            if above is not None:
                branch, k = where[above]
                strand.shared = branch.turns[k].total
            if caller is not None:
                called.append((strand, caller))
            elif strands:
                loose[strand] = follows
            strands.append(strand)
        where[number] = strand, strand.add(turn)
    organizer = strands[0]
    _settle(loose, organizer, where)
    for strand, node_of_caller in called:  # which may have become a turn of another strand
        strand.host, strand.after = where[node_of_caller]
    for source, target in returns:
        if source in where:
            worker, (there, k) = where[source][0], where[target]
            if worker.host is there and k > worker.after:
                worker.before = k if worker.before is None else min(k, worker.before)
    for each in strands:
        if each.host is not None and each.turns:
            each.host.workers.append(each)
    return organizer


def _settle(loose: dict[Strand, int | None], organizer: Strand, where: dict[int, tuple[Strand, int]]) -> None:
    """Find by time what strands without edges are to what they branch off: that first, then the earliest first."""
    branches: dict[Strand, list[tuple[float, int, Strand, int | None]]] = {}
    for number, (strand, stem) in enumerate(loose.items()):
        trunk = organizer if stem is None else where[stem][0]
        branches.setdefault(trunk, []).append((strand.turns[0].start, number, strand, stem))
    ready = [branch for trunk, grown in branches.items() if trunk not in loose for branch in grown]
    heapify(ready)
    while ready:
        _, _, strand, stem = heappop(ready)
        host, least = (organizer, -1) if stem is None else where[stem]
        _attach(strand, host, least, where)
        for branch in branches.get(strand, ()):
            heappush(ready, branch)


def _attach(strand: Strand, host: Strand, least: int, where: dict[int, tuple[Strand, int]]) -> None:
    """Make a strand a worker of its host, forked after turn `least` at the earliest, or the host's next turns."""
    start, end = strand.turns[0].start, strand.turns[-1].end
    if start >= host.turns[-1].end:
        for turn in strand.turns:
            where[turn.node] = host, host.add(turn)
        strand.turns = []
        return
    strand.host = host
    strand.after = max(least, bisect_right(host.ended, start) - 1)
    joined = max(bisect_left(host.begun, end), strand.after + 1)
    strand.before = joined if joined < len(host.turns) else None
