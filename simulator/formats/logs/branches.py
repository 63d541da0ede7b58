"""The message graph of a rollout of verifiers: what its models said, and which of it stands on one thread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from simulator.errors import FormatError
from simulator.trace.tokens import TokenCounter

__all__ = ["Line", "Rollout", "Turn", "lines_of", "turns_of"]

_FOLLOWS = ("continuation", "compaction")


class Link(msgspec.Struct):
    """An edge into a node."""

    node: int
    type: str


class Message(msgspec.Struct):
    """What was said."""

    content: Any = None
    reasoning_content: str | None = None
    tool_calls: list[Any] | None = None


class Node(msgspec.Struct):
    """A message, after its parent."""

    message: Message
    parent: int | None = None
    semantic_parents: list[Link] = []
    sampled: bool = False
    mask: list[bool] = []


class Usage(msgspec.Struct):
    """Tokens of a call."""

    prompt_tokens: int
    completion_tokens: int
    cached_input_tokens: int | None = None


class Time(msgspec.Struct):
    """Seconds since the epoch."""

    start: float = 0.0
    end: float = 0.0


class Call(msgspec.Struct):
    """A model call, and the node it made."""

    node: int | None = None
    usage: Usage | None = None
    time: Time = msgspec.field(default_factory=Time)
    finish_reason: str | None = None


class Reward(msgspec.Struct):
    """A reward as it was recorded."""

    score: float = 0.0
    weight: float = 1.0


class Rollout(msgspec.Struct):
    """A trace of verifiers: only these keys are looked at."""

    nodes: list[Node]
    id: str | None = None
    calls: list[Call] = []
    rewards: dict[str, Reward | None] = {}
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


@dataclass
class Line:
    """Turns one after another: a thread, or a piece of one."""

    turns: list[Turn]
    host: Line | None = None
    after: int = -1
    """The host's turn after which it was forked, -1 before all."""
    before: int | None = None
    """The host's turn that joins it."""
    shared: int = 0
    workers: list[Line] = field(default_factory=list)


def turns_of(rollout: Rollout, count: TokenCounter) -> list[Turn]:
    """Return what models said, in order."""
    calls = {call.node: call for call in rollout.calls if call.node is not None}
    turns = []
    for place, node in enumerate(rollout.nodes):
        if node.parent is not None and not 0 <= node.parent < place:
            raise FormatError(f"node {place} has parent {node.parent}; accepted is an earlier node")
        if not node.sampled:
            continue
        said = node.message.content
        text = (node.message.reasoning_content or "") + (said if isinstance(said, str) else "")
        call = calls.get(place, Call())
        usage, time = call.usage, call.time
        tokens = usage.completion_tokens if usage else sum(node.mask) or count(text)
        seen = usage.prompt_tokens + (usage.cached_input_tokens or 0) if usage else None
        ends = not node.message.tool_calls and call.finish_reason not in ("length", "tool_calls")
        turns.append(Turn(place, tokens, text, ends, time.start, max(time.start, time.end), seen))
    return turns


def lines_of(nodes: Sequence[Node], turns: Iterable[Turn]) -> Line:
    """Return the organizer's line, with all others as its workers or theirs."""
    lines: list[Line] = []
    loose: list[tuple[Line, int | None]] = []  # with the node they branch off
    place_of: dict[int, tuple[Line, int]] = {}  # by node
    said: list[int | None] = []  # the sampled node that each node is or descends from
    at = iter(turns)
    returns: list[tuple[int, int]] = []
    for place, node in enumerate(nodes):
        above = None if node.parent is None else said[node.parent]
        said.append(place if node.sampled else above)
        if not node.sampled:
            continue
        turn = next(at)
        links = {link.type: link.node for link in node.semantic_parents if link.node in place_of}
        returns += [(link.node, place) for link in node.semantic_parents if link.type == "subagent_return"]
        caller = place_of.get(links.get("subagent_call", -1))
        follows = next((links[kind] for kind in _FOLLOWS if kind in links), above)
        before = None if follows is None else place_of[follows]
        if caller is None and before is not None and before[1] == len(before[0].turns) - 1:
            line = before[0]
            line.turns.append(turn)
        else:
            line = Line([turn])
            if above is not None:
                branch, k = place_of[above]
                line.shared = branch.turns[k].total
            if caller is not None:
                line.host, line.after = caller
            elif lines:
                loose.append((line, follows))
            lines.append(line)
        place_of[place] = (line, len(line.turns) - 1)
    organizer = lines[0]
    for piece, stem in sorted(loose, key=lambda item: item[0].turns[0].start):
        host = organizer if stem is None else place_of[stem][0]
        moved = len(host.turns)
        _place(piece, host, place_of)
        if not piece.turns:
            for other in lines:  # what it forked, its host forked
                if other.host is piece:
                    other.host, other.after = host, other.after + moved
    for source, target in returns:
        if source in place_of:
            worker, (there, k) = place_of[source][0], place_of[target]
            if worker.host is there and k > worker.after:
                worker.before = k if worker.before is None else min(k, worker.before)
    for each in lines:
        if each.host is not None and each.turns:
            each.host.workers.append(each)
    return organizer


def _place(line: Line, host: Line, place_of: dict[int, tuple[Line, int]]) -> None:
    """Find by time what a line without edges is to its host: a worker, or what comes next."""
    start, end = line.turns[0].start, line.turns[-1].end
    if start >= host.turns[-1].end:
        for turn in line.turns:
            place_of[turn.node] = (host, len(host.turns))
            host.turns.append(turn)
        line.turns = []
        return
    line.host = host
    line.after = max((k for k, turn in enumerate(host.turns) if turn.end <= start), default=-1)
    line.before = next((k for k, turn in enumerate(host.turns) if k > line.after and turn.start >= end), None)
