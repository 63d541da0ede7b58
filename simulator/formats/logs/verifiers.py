"""Rollouts of verifiers (Prime Intellect, ``verifiers.v1``, schema version 1): lines of its ``traces.jsonl``.

A line is an episode with ``traces``, or one such trace. A trace is a graph of messages (``nodes`` with ``parent``), and
the model calls that made some of them (``calls`` with ``usage`` and ``time``). What is read, and how:

- A sampled message is a turn, its tokens are the call's completion tokens. A turn goes on the thread of the sampled
  message it descends from, or of the one that a ``continuation`` or ``compaction`` edge names.
- ``subagent_call`` starts a worker after the turn it comes from, ``subagent_return`` is a Join before the turn it leads
  to. Branches without such edges are placed by time: one that ends before its thread's next turn begins is a worker
  that this turn joined, one that begins after its thread has ended continues it, another was never joined.
- Time between turns that no Join explains is a Delay: tools, the harness. Tokens that came into the context at a Join
  are inserted tokens; those that tools added are only in the prompt of later calls, and are not read.
- The organizer's last turn is its Answer, a worker's its Return, unless it called a tool or was cut off.
- A rollout of a single thread whose text has the tags of a text format is read as that, with the workers in
  ``info.workers``, if any.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from simulator.errors import FormatError, TraceError
from simulator.formats import asyncthink
from simulator.formats.groups import GROUPS
from simulator.formats.logs.base import Line, Reading, is_object
from simulator.formats.logs.branches import GraphRollout, Strand, strands_of, turns_of
from simulator.trace import (
    ORGANIZER,
    Action,
    Answer,
    Delay,
    Fork,
    Join,
    Outcome,
    Return,
    Think,
    Thread,
    Trace,
    child_id,
)
from simulator.trace.tokens import TokenCounter, by_characters, counter_name, spread


class _Episode(msgspec.Struct):
    traces: list[GraphRollout] | None = None


_decode_episode = msgspec.json.Decoder(_Episode).decode
_decode_rollout = msgspec.json.Decoder(GraphRollout).decode


def detect(text: str) -> bool:
    """Return whether `text` is a rollout, or an episode of them.

    >>> detect('{"task": {}, "nodes": [{"message": {}, "sampled": true}]}'), detect('{"output": "nodes"}')
    (True, False)
    """
    return is_object(text) and sniff(text.encode(errors="replace"))


def parse(
    text: str,
    *,
    id: str = "trace",
    count: TokenCounter = by_characters,
    keep_text: bool = True,
    outcome: Outcome | None = None,
) -> Trace:
    """Return the Trace of a rollout, or of an episode of one.

    The parameters are those of `simulator.parse`. Tokens are counted where neither usage nor masks are recorded. The
    outcome is by default a reward or metric ``correct`` of 0 or 1.

    Raises
    ------
    FormatError
        If it is no rollout, or an episode of several.

    >>> call = '{"node": 0, "usage": {"prompt_tokens": 4, "completion_tokens": 7}}'
    >>> parse('{"task": {}, "nodes": [{"message": {}, "sampled": true}], "calls": [' + call + "]}").organizer.actions
    (Answer(tokens=7, text='', start=None, finish=None),)
    """
    traces = _traces(text, id, count=count, keep_text=keep_text, outcome=outcome)
    if len(traces) > 1:
        raise FormatError(f"is an episode of {len(traces)} traces, which simulator.read reads; here accepted is one")
    return traces[0]


def sniff(line: bytes) -> bool:
    """Return whether a line has the keys of a rollout.

    >>> sniff(b'{"task": {}, "nodes": [{"message": {}, "sampled": true}]}'), sniff(b'{"output": "nodes"}')
    (True, False)
    """
    # Inside a JSON string the quotes would be escaped, so these are keys.
    return b'"task"' in line and b'"nodes"' in line and b'"sampled"' in line and line.lstrip()[:1] == b"{"


def read(lines: Iterable[Line], reading: Reading) -> Iterator[Trace]:
    """Yield the traces of each line.

    >>> rollout = '{"task": {}, "nodes": [{"message": {"content": "9"}, "sampled": true}]}'
    >>> line = '{"task": {}, "traces": [' + rollout + "," + rollout + "]}"
    >>> [trace.id for trace in read([(7, line.encode())], Reading("x"))]
    ['x:7.1', 'x:7.2']
    """
    for number, line in lines:
        yield from _traces(line, reading.id(number), count=reading.count, keep_text=reading.keep_text)


def _traces(text: str | bytes, name: str, **options: Any) -> list[Trace]:
    try:
        episode = _decode_episode(text)
        rollouts = [_decode_rollout(text)] if episode.traces is None else episode.traces
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise FormatError(f"is no rollout of verifiers: {error}") from None
    if not rollouts:
        raise FormatError("is an episode of verifiers without traces")
    many = len(rollouts) > 1
    return [_trace(each, f"{name}.{i}" if many else name, **options) for i, each in enumerate(rollouts, 1)]


def trace_of(record: Any, **options: Any) -> Trace:
    """Return the Trace of a rollout given as plain data, as ``Trace.to_record()`` of verifiers returns it.

    Parameters
    ----------
    record : mapping
    **options
        As of `parse`.

    Raises
    ------
    FormatError
        If it is none.

    >>> trace_of({"nodes": [{"message": {"content": "So <FORK-1>q</FORK-1>"}, "sampled": True}]}).faults
    ()
    """
    return _trace(_converted(record), **options)


def said(record: Any) -> str:
    """Return all that models said in a rollout given as plain data, over all turns.

    Raises
    ------
    FormatError
        If it is none.

    >>> nodes = [{"message": {"content": text}, "sampled": text != "?"} for text in ("so ", "?", "9")]
    >>> said({"nodes": nodes})
    'so 9'
    """
    return "".join([turn.text for turn in turns_of(_converted(record), by_characters)])


def _converted(record: Any) -> GraphRollout:
    try:
        return msgspec.convert(record, GraphRollout)
    except msgspec.ValidationError as error:
        raise FormatError(f"is no rollout of verifiers: {error}") from None


def _trace(
    rollout: GraphRollout,
    name: str = "rollout",
    *,
    count: TokenCounter = by_characters,
    keep_text: bool = True,
    outcome: Outcome | None = None,
) -> Trace:
    turns = turns_of(rollout, count)
    if not turns:
        raise FormatError("is a rollout of verifiers in which no model said anything")
    id = rollout.id or name
    outcome = outcome or _outcome(rollout)
    organizer = strands_of(rollout.nodes, turns)
    known = all(turn.input is not None or any(rollout.nodes[turn.node].mask) for turn in turns)
    try:
        text = "".join(turn.text for turn in turns)
        if not organizer.workers:
            for module in (asyncthink, *GROUPS):
                if module.detect(text):
                    return _text(module, text, rollout, id=id, outcome=outcome, keep_text=keep_text, count=count)
        threads = tuple(_threads(organizer, turns[0].start, keep_text))
        rewards = [reward.score * reward.weight for reward in rollout.rewards.values() if reward]
        meta: dict[str, Any] = {"source": "verifiers"} | ({"reward": sum(rewards)} if rewards else {})
        return Trace(id, threads, outcome, "record" if known else counter_name(count), meta=meta)
    except TraceError as error:
        raise FormatError(f"is no trace: {error}") from None


def _text(module: Any, text: str, rollout: GraphRollout, **options: Any) -> Trace:
    """Return the trace in the tags of a rollout's text."""
    usage = [call.usage for call in rollout.calls if call.node is not None]
    workers = rollout.info.get("workers")
    given = isinstance(workers, dict) and all(isinstance(each, str) for each in workers.values())
    if module is asyncthink and given:
        return asyncthink.parse(text, workers=workers, **options)
    if usage and all(usage):
        options["count"] = spread(sum(each.completion_tokens for each in usage if each), len(text))
    trace: Trace = module.parse(text, **options)
    return trace


def _outcome(rollout: GraphRollout) -> Outcome | None:
    reward = rollout.rewards.get("correct")
    value = reward.score if reward else rollout.metrics.get("correct")
    return Outcome(correct=bool(value)) if value in (0, 1) else None


def _threads(organizer: Strand, zero: float, keep: bool) -> Iterable[Thread]:
    """Yield the threads, parents before children; recorded seconds count from `zero`."""
    todo = [(organizer, ORGANIZER)]
    while todo:
        strand, name = todo.pop()
        strand.workers.sort(key=lambda worker: (worker.after, worker.turns[0].start, worker.turns[0].node))
        prompt = strand.turns[0].input or 0
        yield Thread(name, tuple(_actions(strand, name, zero, keep)), prompt, min(prompt, strand.shared))
        todo += [(worker, child_id(name, i)) for i, worker in enumerate(strand.workers, 1)][::-1]


def _actions(strand: Strand, name: str, zero: float, keep: bool) -> Iterable[Action]:
    host, free = strand.host, strand.turns[0].start
    if host is not None and strand.after >= 0:
        free = host.turns[strand.after].end
    seen = strand.turns[0].input or 0
    forks: dict[int, list[int]] = {}
    joins: dict[int, list[tuple[int, float]]] = {}
    for i, worker in enumerate(strand.workers, 1):
        forks.setdefault(worker.after, []).append(i)
        if worker.before is not None:
            joins.setdefault(worker.before, []).append((i, worker.turns[-1].end))
    yield from (Fork(i) for i in forks.get(-1, ()))
    for k, turn in enumerate(strand.turns):
        inserted = max(0, (turn.input or 0) - seen) if turn.input is not None else 0
        for i, end in joins.get(k, ()):
            yield Join(i, 0, inserted)
            inserted, free = 0, max(free, end)
        if turn.start > free:
            yield Delay(turn.start - free)
        times = (turn.start - zero, turn.end - zero) if turn.end and turn.start >= zero else (None, None)
        last = k == len(strand.turns) - 1 and turn.ends and k not in forks
        kind = Think if not last else Answer if name == ORGANIZER else Return
        yield kind(turn.tokens, turn.text if keep or kind is Answer else None, *times)
        yield from (Fork(i) for i in forks.get(k, ()))
        free, seen = turn.end, turn.total
