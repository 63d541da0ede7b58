"""One simulation: queries arrive, and whatever happens at one time is settled together.

Everything that happens at one time is settled at once, in rounds, by a stated order (query, thread, task) and not by
SimPy's event numbers. In a round: queries just answered cancel their workers; ended workers free their slots; then each
finished task's Forks take effect, its thread goes on, and whoever waited for the thread may start. What needs no time
at all finishes in the next round of the same instant. When nothing is left to settle, the stations plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from simulator.engine.clock import EventClock
from simulator.engine.deadlock import explain_deadlock
from simulator.engine.query import QueryRun, ThreadRun
from simulator.engine.server import Leap, Settings
from simulator.engine.threads import Threads
from simulator.errors import ConfigError, DeadlockError, SimulatorError
from simulator.graph import ExecutionGraph
from simulator.machine.gpu import Cluster
from simulator.machine.policy import Keys, Policy, QueuePolicy, fcfs
from simulator.timeline import ROW, Timeline, in_order
from simulator.trace.protocol import Protocol
from simulator.workload import ClosedLoop

_SETTLE = 2  # SimPy runs lower priorities first among equal times; its own are 0 and 1


class Run:
    """One simulation. Nothing of it outlives `play` but the rows.

    All but `max_leap` (see `Settings`) is as for `simulate`, and checked there.
    """

    def __init__(
        self,
        graphs: tuple[ExecutionGraph, ...],
        cluster: Cluster,
        protocol: Protocol | None,
        arrivals: npt.NDArray[np.float64] | ClosedLoop,
        policy: Policy,
        max_workers: int | None = None,
        observe: Callable[[Leap], None] | None = None,
        max_leap: int = 1 << 60,
    ) -> None:
        self.graphs = graphs
        self.protocol = protocol
        self.keys: Keys = policy.keys if isinstance(policy, QueuePolicy) else policy
        self.known = getattr(self.keys, "__module__", None) == fcfs.__module__  # a shipped one says what it should
        self.users = arrivals if isinstance(arrivals, ClosedLoop) else None
        self.arrivals: list[float] = [math.nan] * len(graphs) if isinstance(arrivals, ClosedLoop) else arrivals.tolist()
        self.order: list[int] = np.argsort(self.arrivals, kind="stable").tolist()  # not arrived yet is last
        self.arrived, self.arriving = 0, False  # how many have; whether some do now
        self.due = 0  # queries of a closed loop that may arrive now
        self.first_token = [math.nan] * len(graphs)
        self.answered = [math.nan] * len(graphs)
        self.prefixes: dict[str, ThreadRun | None] = {g.prefix_of: None for g in graphs if g.prefix_of is not None}
        self.clock = EventClock()
        self.asked = False
        choose = policy.choose if isinstance(policy, QueuePolicy) else None
        settings = Settings(observe, choose, bool(self.prefixes), max_leap)
        self.threads = Threads(self.clock, cluster, max_workers, self.ask, self.answer, settings)

    def play(self, on_deadlock: str) -> Timeline:
        """Run to the end."""
        self.begin()
        try:
            self.clock.run()
        except SimulatorError:
            raise
        except Exception as error:  # of a cost model, a routing or an observer of somebody's own
            steps = sum(server.step for server in self.threads.fleet.servers)
            names = ", ".join(repr(query.graph.name) for query in self.threads.open.values())
            error.add_note(f"at {self.clock.now:g} of simulated time, after {steps:,} engine steps, in {names:.200}")
            raise
        return self.end(on_deadlock)

    def begin(self) -> None:
        """Let the first query arrive once the clock runs."""
        if self.users:
            self.arrivals[: self.users.users] = [0.0] * min(self.users.users, len(self.graphs))
        self.clock.call_at(self.arrivals[self.order[0]], self.arrive)

    def end(self, on_deadlock: str) -> Timeline:
        """Return what happened."""
        for index, query in self.threads.open.items():
            self.first_token[index] = query.first_token
        deadlocks = tuple(explain_deadlock(query) for _, query in sorted(self.threads.open.items()))
        if deadlocks and on_deadlock == "raise":
            raise DeadlockError(f"{self.graphs[deadlocks[0].query].name}: deadlock: {deadlocks[0]}")
        return Timeline(
            self.graphs,
            np.array(self.arrivals),
            np.array(self.first_token),
            np.array(self.answered),
            np.array([self.threads.overflows.get(index, 0) for index in range(len(self.graphs))]),
            in_order(np.frombuffer(self.threads.rows, dtype=ROW)),
            tuple(replica for station in self.threads.stations for replica in station.record()),
            self.protocol,
            deadlocks,
        )

    # Events: each notes what happened and asks for a settlement at the end of the instant.

    def arrive(self, _: object) -> None:
        """Note that queries arrive now."""
        self.arriving = True
        self.ask()

    def return_user(self, _: object) -> None:
        """Let the user whose query was answered ask the next one, after a pause."""
        self.due += 1
        self.ask()

    def ask(self) -> None:
        """Settle once all events of this time are in. The last thing an event does."""
        if not self.asked:
            if self.clock.is_settled():  # they are
                self.settle(None)
            else:
                self.asked = True
                self.clock.call_at(self.clock.now, self.settle, _SETTLE)

    def answer(self, query: QueryRun) -> None:
        """Note that a query is answered now; in a closed loop, its user has the next one after a pause."""
        now = self.clock.now
        self.first_token[query.index] = query.first_token
        self.answered[query.index] = now
        if self.users and not self.users.think:
            self.due += 1
        elif self.users:
            self.clock.call_at(now + self.users.think, self.return_user)

    # The settlement: what follows from what happened.

    def settle(self, _: object) -> None:
        """Draw every consequence of this instant, then let the stations go on."""
        threads = self.threads
        threads.now = self.clock.now
        if self.arriving:  # not before: where a query goes depends on what ends at this time
            self.enter_all()
        while threads.finished or self.due:
            finished, threads.finished = threads.finished, []
            if len(finished) > 1:
                finished.sort()
            # Each of the three passes is over all tasks before the next begins: an answer cancels what else ends at
            # this time, and a slot that comes free now can be had by a Fork that takes effect now.
            ended = [thread for _, task, thread, _ in finished if task == thread.last]
            for thread in ended:
                if not thread.number and not thread.query.last_forks:
                    threads.answer(thread.query)
            for thread in ended:
                if not thread.query.over:
                    threads.give_back(thread)
            for _, _, thread, hot in finished:
                if not thread.query.over:
                    threads.proceed(thread, 0, hot)
            while self.due:
                self.due -= 1
                if self.arrived < len(self.order):
                    self.enter()
        self.asked = False
        for station in threads.stations:
            station.plan()

    def enter_all(self) -> None:
        """Start every query that arrives now, and wait for the next."""
        self.arriving = False
        while self.arrived < len(self.order) and self.arrivals[self.order[self.arrived]] <= self.clock.now:
            self.enter()
        if self.arrived < len(self.order) and not self.users:
            self.clock.call_at(self.arrivals[self.order[self.arrived]], self.arrive)

    def asked_keys(self, graph: ExecutionGraph) -> Sequence[float]:
        """Return what a policy of somebody's own says of a query, if that is a number a task."""
        try:
            said: object = self.keys(graph)
        except Exception as error:
            error.add_note(f"raised by the policy for {graph.name!r:.200}")
            raise
        try:
            keys = np.asarray(said, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            keys = np.full(1, math.nan)
        if keys.shape != (len(graph),) or np.isnan(keys).any():
            raise ConfigError(
                f"a policy gives a key for each task, a number, {len(graph)} for {graph.name!r:.80}; got {said!r:.80}"
            )
        numbers: list[float] = keys.tolist()
        return numbers

    def enter(self) -> None:
        """Start the next query."""
        index = self.order[self.arrived]
        graph = self.graphs[index]
        keys = self.keys(graph) if self.known else self.asked_keys(graph)
        prefix = self.prefixes[graph.prefix_of] if graph.prefix_of is not None else None
        query = QueryRun(index, graph, self.protocol or graph.protocol, keys, prefix)
        if graph.name in self.prefixes:
            self.prefixes[graph.name] = query.threads[0]
        self.arrived += 1
        self.arrivals[index] = self.clock.now
        self.threads.enter(query)
