"""The decode-step clock: when everything happens if each live agent decodes one token a step.

This is the paper's unit of latency and the only clock a reward is scored on. The pool never delays anyone here: every
recorded Fork starts its worker at once, and one that finds the pool full is counted as an overflow. One pass over the
actions gives, exactly, what the recurrence of the paper gives:

    ``l_i = max(l_{i-1} + f_i,  l_{j-1} + f_j^{before fork k} + f^{worker k})``

Tests hold it equal to that recurrence, to the longest path of the `ExecutionGraph`, to networkx, and to the simulation
at one step a token.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from typing import NamedTuple

from simulator.errors import TraceError, mistaken
from simulator.trace import ORGANIZER, Answer, Delay, Fork, Join, Think, Trace, Violation, ViolationKind
from simulator.trace.protocol import Protocol

_DEFAULT = Protocol()
_V = ViolationKind


class DecodeClock(NamedTuple):
    """What the decode-step clock says of one trace.

    >>> from simulator import Answer, Fork, Join, Return, Think, Thread, Trace
    >>> organizer = Thread("organizer", (Think(5), Fork(1), Think(3), Join(1), Answer(2)))
    >>> clock = decode_clock(Trace("t", (organizer, Thread("1", (Return(10),)))), Protocol(capacity=2))
    >>> clock.latency, clock.active_steps, clock.eta
    (17, 20, 1.1764705882352942)
    """

    latency: int
    """Critical-path latency T in decode steps: when the organizer ends."""
    active_steps: int
    """The sum over the T steps of the number of active agents a_t."""
    total_steps: int
    """The same with the organizer counted whatever the protocol says: steps one agent would take for all this."""
    work: int
    """Tokens decoded by all threads that ran, were none of them cancelled."""
    peak_concurrency: int
    """The largest a_t."""
    workers: int
    """Workers that ran."""
    overflows: int
    """Forks that found the pool full."""
    violations: tuple[Violation, ...]
    """The parser's faults, then what the actions get wrong, in order of thread and action."""
    intervals: dict[str, tuple[int, int]]
    """Start and finish step of every thread that ran, not cut at T."""

    @property
    def eta(self) -> float:
        """Concurrency ratio: the mean number of active agents, ``active_steps / latency``. 0 for an empty trace."""
        return self.active_steps / self.latency if self.latency else 0.0


def decode_clock(trace: Trace, protocol: Protocol = _DEFAULT) -> DecodeClock:
    """Run `trace` on the decode-step clock.

    Parameters
    ----------
    trace : Trace
        Any trace, legal or not. What cannot take effect (a Join of nobody) costs its tokens and is reported, as is what
        follows the end of a thread (see `Protocol.after_end`).
    protocol : Protocol
        Capacity and the choices the paper leaves open.

    Returns
    -------
    DecodeClock

    Examples
    --------
    Organizer ``5 fork 3 join 2``, worker ``10``: the worker runs from 5 to 15, the organizer waits from 8.

    >>> from simulator.trace import Return, Thread
    >>> organizer = Thread("organizer", (Think(5), Fork(1), Think(3), Join(1), Answer(2)))
    >>> clock = decode_clock(Trace("t", (organizer, Thread("1", (Return(10),)))), Protocol(capacity=2))
    >>> clock.latency, clock.active_steps, clock.peak_concurrency, clock.overflows
    (17, 20, 2, 0)
    """
    if trace.__class__ is not Trace:
        raise TraceError(mistaken("decode_clock", "Trace", trace))
    walk = _Walk(trace, protocol)
    walk.run(ORGANIZER, 0)
    return walk.result()


def check(trace: Trace, protocol: Protocol = _DEFAULT) -> tuple[Violation, ...]:
    """Return every violation of `protocol` in `trace`.

    >>> from simulator.trace import Return, Thread
    >>> [str(v) for v in check(Trace("t", (Thread("organizer", (Think(5), Join(1))),)))]
    ['unknown_join: thread organizer action 1: Join of sub-query 1, which was not forked', \
'missing_answer: thread organizer: the organizer never answers']
    """
    return decode_clock(trace, protocol).violations


class _Walk:
    """One traversal; threads are visited depth first, each worker at the Fork that starts it."""

    __slots__ = (
        "charge",
        "forks",
        "found",
        "joined_at",
        "missing",
        "pauses",
        "protocol",
        "spans",
        "threads",
        "trace",
        "work",
    )

    def __init__(self, trace: Trace, protocol: Protocol) -> None:
        self.trace = trace
        self.protocol = protocol
        self.charge = protocol.charge_inserted
        self.threads = {thread.id: thread for thread in trace.threads}
        self.spans: dict[str, tuple[int, int]] = {}
        self.pauses: list[tuple[str, int, int]] = []  # thread, from, to: waiting for a Join
        self.forks: list[tuple[int, str, str, int]] = []  # step, worker, parent, action
        self.missing: list[tuple[int, str, str, int]] = []  # the same of Forks whose worker is not recorded
        self.joined_at: dict[str, int] = {}
        self.found: list[Violation] = []
        self.work = 0

    def run(self, name: str, now: int) -> int:
        """Run one thread from step `now`; return the step at which it ends."""
        started = now
        is_organizer = name == ORGANIZER
        children: dict[int, str | None] = {}
        found = self.found
        ended = told = False
        for place, action in enumerate(self.threads[name].actions):
            if ended and not told:
                told = True
                if self.protocol.after_end == "ignore":
                    found.append(Violation(_V.MISPLACED_ACTION, name, "what follows the end is ignored", place))
                    break
                found.append(Violation(_V.MISPLACED_ACTION, name, "what follows the end is counted", place))
            if type(action) is Think:
                self.work += action.tokens
                now += action.tokens
            elif type(action) is Fork:
                self.work += action.tokens
                now += action.tokens
                index = action.index
                child = str(index) if is_organizer else f"{name}.{index}"
                if index in children:
                    found.append(Violation(_V.DUPLICATE_INDEX, name, f"sub-query {index} was already forked", place))
                    continue
                if not is_organizer and not self.protocol.nested_forks:
                    found.append(Violation(_V.NESTED_FORK, name, "a worker may not Fork in this protocol", place))
                if child in self.threads:
                    children[index] = child
                    self.forks.append((now, child, name, place))
                    self.run(child, now)
                else:
                    children[index] = None
                    self.missing.append((now, child, name, place))
                    message = f"no worker is recorded for sub-query {index}"
                    found.append(Violation(_V.FORK_WITHOUT_WORKER, name, message, place))
            elif type(action) is Join:
                self.work += action.tokens
                now += action.tokens
                index = action.index
                if index not in children:
                    message = f"Join of sub-query {index}, which was not forked"
                    found.append(Violation(_V.UNKNOWN_JOIN, name, message, place))
                elif (child_or_none := children[index]) is not None:
                    if child_or_none in self.joined_at:
                        found.append(Violation(_V.REPEATED_JOIN, name, f"sub-query {index} was already joined", place))
                    else:
                        done = self.spans[child_or_none][1]
                        if done > now:
                            self.pauses.append((name, now, done))
                            now = done
                        self.joined_at[child_or_none] = now
                if self.charge:
                    self.work += action.inserted_tokens
                    now += action.inserted_tokens
            elif isinstance(action, Delay):
                now += self.protocol.delay_steps(action.seconds)
            else:
                self.work += action.tokens
                now += action.tokens
                if (type(action) is Answer) is is_organizer:
                    ended = True
                else:
                    message = "a worker cannot Answer" if type(action) is Answer else "the organizer cannot Return"
                    found.append(Violation(_V.MISPLACED_ACTION, name, message, place))
        if not ended:
            if is_organizer:
                found.append(Violation(_V.MISSING_ANSWER, name, "the organizer never answers"))
            else:
                found.append(Violation(_V.MISSING_RETURN, name, "the worker never returns"))
        self.spans[name] = (started, now)
        return now

    def result(self) -> DecodeClock:
        """Return what the walk adds up to."""
        latency = self.spans[ORGANIZER][1]
        spans = self.spans
        counted = self.protocol.count_organizer
        # Active agents change by +1 and -1; at one step the -1 sorts first, so a thread of no steps is never counted.
        changes: list[tuple[int, int]] = []
        for name, (start, finish) in spans.items():
            if counted or name != ORGANIZER:
                changes += ((start, 1), (finish, -1))
        for name, start, finish in self.pauses:
            if counted or name != ORGANIZER:
                changes += ((start, -1), (finish, 1))
        changes.sort()
        active = now = peak = 0
        for step, change in changes:
            if step >= latency:
                break
            active += change * (latency - step)
            now += change
            if now > peak:
                peak = now
        total = active if counted else active + latency - self._waited()
        workers = len(spans) - 1
        found = self.found
        if workers < len(self.threads) - 1:
            found += (
                Violation(_V.WORKER_WITHOUT_FORK, name, "this worker is recorded but never forked")
                for name in self.threads
                if name not in spans
            )
        if len(self.joined_at) < workers:
            found += (
                Violation(_V.UNJOINED_WORKER, parent, f"worker {name} is never joined", place)
                for _, name, parent, place in self.forks
                if name not in self.joined_at
            )
        capacity = self.protocol.capacity
        asked = workers + len(self.missing)
        overflows = self._overflows(capacity, latency) if capacity is not None and asked >= capacity else []
        found += overflows
        if len(found) > 1:
            order = {thread.id: i for i, thread in enumerate(self.trace.threads)}
            found.sort(key=lambda v: (order[v.thread], inf if v.action is None else v.action))
        return DecodeClock(
            latency, active, total, self.work, peak, workers, len(overflows), (*self.trace.faults, *found), spans
        )

    def _waited(self) -> int:
        """Steps for which the organizer waited at Joins."""
        return sum(finish - start for name, start, finish in self.pauses if name == ORGANIZER)

    def _overflows(self, capacity: int, latency: int) -> list[Violation]:
        """Return a violation for each Fork that finds `capacity` - 1 workers alive.

        One whose worker is not recorded is one that a runtime may have refused. It takes no slot from others.
        """
        order = {name: i for i, name in enumerate(self.threads)}
        cancelled = self.protocol.after_answer == "cancel"
        by_join = self.protocol.release == "join"
        alive: list[float] = []  # steps at which the slots in use become free
        overflows: list[Violation] = []
        forks = self.forks + self.missing if self.missing else self.forks
        for step, name, parent, place in sorted(forks, key=lambda fork: (fork[0], order[fork[2]], fork[3])):
            if cancelled and step >= latency and parent != ORGANIZER:
                continue
            while alive and alive[0] <= step:
                heappop(alive)
            if len(alive) >= capacity - 1:
                running = f"{len(alive)} {'worker runs' if len(alive) == 1 else 'workers run'}"
                message = f"worker {name} is forked while {running}; a pool of {capacity} has room for {capacity - 1}"
                overflows.append(Violation(_V.POOL_OVERFLOW, parent, message, place))
            if name in self.spans:
                heappush(alive, self.joined_at.get(name, inf) if by_join else self.spans[name][1])
        return overflows
