"""The decode-step clock played token by token: every agent is a generator that asks for one step after another.

Slow, and nothing in it is clever: what `simulator.graph.clock` computes in one pass over the actions must equal this.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import NamedTuple

from simulator import Answer, Delay, Fork, Join, Protocol, Return, Trace
from simulator.trace import ORGANIZER, child_id


class Counted(NamedTuple):
    """What counting gives."""

    latency: int
    active_steps: int
    peak: int
    overflows: list[tuple[str, int]]
    """Thread and action of each Fork that found the pool full."""
    intervals: dict[str, tuple[int, int]]


def count(trace: Trace, protocol: Protocol) -> Counted:
    """Let all agents of `trace` decode, one token a step, and count the active ones."""
    names = [thread.id for thread in trace.threads]
    started = {ORGANIZER: 0}
    ended: dict[str, int] = {}
    joined: dict[str, int] = {}
    forks: list[tuple[int, int, int, str]] = []  # step, place of the thread, action, worker
    now = 0

    def play(name: str) -> Iterator[bool]:
        """Yield True for each step the agent is active in, False while it waits for a worker."""
        forked: dict[int, str] = {}
        seen: set[int] = set()
        for place, action in enumerate(trace.thread(name).actions):
            tokens = protocol.delay_steps(action.seconds) if isinstance(action, Delay) else action.tokens
            for _ in range(tokens):
                yield True
            if isinstance(action, Fork) and action.index not in seen:
                seen.add(action.index)
                child = child_id(name, action.index)
                if child in names:
                    forked[action.index] = child
                    started[child] = now
                forks.append((now, names.index(name), place, child))
            elif isinstance(action, Join):
                child = forked.pop(action.index, None)
                while child is not None and child not in ended:
                    yield False
                if child is not None:
                    joined[child] = now
                for _ in range(action.inserted_tokens if protocol.charge_inserted else 0):
                    yield True
            elif protocol.after_end == "ignore" and isinstance(action, Answer if name == ORGANIZER else Return):
                break
        ended[name] = now

    agents: dict[str, Iterator[bool]] = {}
    asks: dict[str, bool] = {}
    active_steps = peak = 0
    while True:
        moved = True
        while moved:  # what one agent does at a step may free another at the same step
            moved = False
            for name in names:
                if name in started and name not in ended and not asks.get(name):
                    agents.setdefault(name, play(name))
                    before = (len(started), len(ended), len(joined))
                    asks[name] = next(agents[name], False)
                    moved = moved or asks[name] or before != (len(started), len(ended), len(joined))
        active = sum(asks[name] for name in asks if protocol.count_organizer or name != ORGANIZER)
        if ORGANIZER not in ended:
            active_steps += active
            peak = max(peak, active)
        if not any(asks.values()):
            break
        now += 1
        asks = dict.fromkeys(asks, False)
    latency = ended[ORGANIZER]
    free = joined if protocol.release == "join" else ended
    slots = inf if protocol.capacity is None else protocol.capacity - 1
    overflows = []
    taken: list[str] = []
    for step, place, action, child in sorted(forks):
        if place and step >= latency and protocol.after_answer == "cancel":
            continue
        if sum(free.get(other, inf) > step for other in taken) >= slots:
            overflows.append((names[place], action))
        if child in started:
            taken.append(child)
    return Counted(latency, active_steps, peak, overflows, {name: (started[name], ended[name]) for name in started})
