"""What a reward is computed from, and what comes out: `Rollout` and `Score`."""

from __future__ import annotations

from typing import NamedTuple

from simulator.errors import ConfigError
from simulator.graph import ExecutionGraph
from simulator.graph.clock import DecodeClock, decode_clock
from simulator.graph.compiler import compile_trace
from simulator.trace import Answer, Delay, Fork, Join, Outcome, Trace, Violation
from simulator.trace.answers import answer_of
from simulator.trace.protocol import Protocol


class Score(NamedTuple):
    """A reward, its terms, and what they were computed from.

    >>> from simulator import Protocol, parse, score
    >>> result = score(parse("2 + 2 <ANSWER>4</ANSWER>"), Protocol(capacity=2))
    >>> round(result.total, 2), result.terms["concurrency"] > 0
    (0.25, True)
    """

    total: float
    """The sum of the terms."""
    terms: dict[str, float]
    """Every term by name, ``format_error`` first."""
    accuracy: float | None
    """R_A before any format error; None where the trace has no outcome, which then counts as wrong."""
    latency: int
    """Critical-path latency in decode steps."""
    eta: float
    """Concurrency ratio."""
    eta_over_c: float
    """eta over the pool capacity; NaN without one."""
    peak_concurrency: int
    """Most agents active at once."""
    violations: tuple[Violation, ...]
    """Every violation, format error or not."""
    answer: str | None = None
    """What is to be judged: the text of the Answer at which the clock stops, without its tags. None without one, or
    where it was not recorded."""


class Phase(NamedTuple):
    """A stretch of the organizer's thread that ends when every worker forked in it has been joined."""

    main: int
    """Tokens the organizer decodes in it."""
    workers: tuple[str, ...]
    """Ids of the workers it forks, in order."""


class Rollout:
    """The closed-form facts of one rollout: what a term is a function of.

    Parameters
    ----------
    trace : Trace
    protocol : Protocol
    clock : DecodeClock, optional
        If it has run already.

    Examples
    --------
    >>> from simulator.formats import parse
    >>> text = "<Parallel><Thread>odd half</Thread><Thread>even</Thread></Parallel> so <Parallel><Thread>x</Thread>"
    >>> rollout = Rollout(parse(text, count=len), Protocol(capacity=4))
    >>> rollout.phases
    (Phase(main=10, workers=('1', '2')), Phase(main=25, workers=('3',)))
    >>> rollout.clock.latency, rollout.work, rollout.tokens("1")
    (78, 99, 25)
    """

    __slots__ = ("_graph", "_phases", "_tokens", "clock", "protocol", "trace")

    def __init__(self, trace: Trace, protocol: Protocol, clock: DecodeClock | None = None) -> None:
        self.trace = trace
        self.protocol = protocol
        self.clock = decode_clock(trace, protocol) if clock is None else clock
        self._phases: tuple[Phase, ...] | None = None
        self._graph: ExecutionGraph | None = None
        self._tokens: dict[str, int] | None = None

    @property
    def outcome(self) -> Outcome | None:
        """How the answer was judged."""
        return self.trace.outcome

    @property
    def accuracy(self) -> float | None:
        """1 or 0, a share of solutions found, or None where nobody has judged."""
        outcome = self.trace.outcome
        return outcome.accuracy if outcome is not None else None

    @property
    def correct(self) -> bool:
        """Whether the answer is wholly right. Not judged is not right."""
        return self.accuracy == 1

    @property
    def answer(self) -> str | None:
        """The text of the Answer that counts (see `answer_of`)."""
        return answer_of(self.trace, self.protocol)

    @property
    def capacity(self) -> int:
        """The pool capacity c.

        Raises
        ------
        ConfigError
            Without one.
        """
        capacity = self.protocol.capacity
        if capacity is None:
            raise ConfigError("the reward divides eta by the pool capacity: give Protocol(capacity=...)")
        return capacity

    @property
    def latency(self) -> int:
        """T, the critical-path latency in decode steps."""
        return self.clock.latency

    @property
    def eta(self) -> float:
        """Mean number of active agents over the T steps."""
        clock = self.clock
        return clock.active_steps / clock.latency if clock.latency else 0.0

    @property
    def violations(self) -> tuple[Violation, ...]:
        """Everything that is wrong with it."""
        return self.clock.violations

    @property
    def graph(self) -> ExecutionGraph:
        """The execution graph, compiled when it is first asked for."""
        if self._graph is None:
            self._graph = compile_trace(self.trace, self.protocol)
        return self._graph

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The organizer's thread, cut where it has joined all it has forked. A last phase may have no workers."""
        if self._phases is None:
            self._phases = _phases(self)
        return self._phases

    @property
    def blocks(self) -> list[tuple[int, list[int]]]:
        """The phases in tokens: the organizer's, and those of each worker with everything nested in it."""
        if self._tokens is None:
            self._tokens = _tokens(self)
        tokens = self._tokens
        return [(main, [tokens[name] for name in workers]) for main, workers in self.phases]

    @property
    def work(self) -> int:
        """Tokens of the organizer and of all workers it forked, with everything nested in them."""
        return sum(main + sum(lengths) for main, lengths in self.blocks)

    def tokens(self, worker: str) -> int:
        """Return the tokens that a worker and everything nested in it decode."""
        if self._tokens is None:
            self._tokens = _tokens(self)
        return self._tokens[worker]

    def steps(self, worker: str) -> int:
        """Return the decode steps from a worker's Fork to its end, with what it waited for."""
        start, finish = self.clock.intervals[worker]
        return finish - start


def _phases(rollout: Rollout) -> tuple[Phase, ...]:
    ran = rollout.clock.intervals
    found: list[Phase] = []
    main = 0
    workers: list[str] = []
    running: set[int] = set()
    forked: set[int] = set()
    for action in rollout.trace.threads[0].actions:
        if type(action) is Delay:
            continue
        main += action.tokens  # type: ignore[union-attr]  # mypy does not narrow by type()
        if type(action) is Fork:
            index = action.index
            name = str(index)
            if index not in forked and name in ran:
                workers.append(name)
                running.add(index)
            forked.add(index)
        elif type(action) is Join:
            running.discard(action.index)
            if workers and not running:
                found.append(Phase(main, tuple(workers)))
                main = 0
                workers = []
        elif type(action) is Answer and rollout.protocol.after_end == "ignore":
            break
    if main or workers:
        found.append(Phase(main, tuple(workers)))
    return tuple(found)


def _tokens(rollout: Rollout) -> dict[str, int]:
    """Return the tokens of each worker that ran, with all below it. Parents come before their children."""
    ran = rollout.clock.intervals
    total: dict[str, int] = {}
    nested = False
    for thread in rollout.trace.threads[1:]:
        if thread.id in ran:
            total[thread.id] = thread.tokens
            nested = nested or "." in thread.id
    if nested:
        for name in reversed(total):
            parent = name.rpartition(".")[0]
            if parent:
                total[parent] += total[name]
    return total
