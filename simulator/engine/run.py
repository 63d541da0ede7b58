"""One simulation: queries arrive, Fork, wait, decode and answer on the simulated clock.

Everything that happens at one time is settled at once, in rounds, by a stated order (query, thread, task) and not by
SimPy's event numbers. In a round: queries just answered cancel their workers; ended workers free their slots; then each
finished task's Forks take effect, its thread goes on, and whoever waited for the thread may start. What needs no time
at all finishes in the next round of the same instant. When nothing is left to settle, the GPU plans its next steps.
"""

from __future__ import annotations

import math
from array import array
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from simulator.engine.fleet import Fleet
from simulator.engine.pool import Pool, Waiting
from simulator.engine.query import Query, explain_deadlock
from simulator.engine.server import EventClock, Request
from simulator.errors import ConfigError, DeadlockError
from simulator.graph import ExecutionGraph
from simulator.machine.cost import unit_of
from simulator.machine.gpu import Cluster
from simulator.machine.policy import Policy
from simulator.timeline import CANCELLED, INLINE, PREEMPTED, ROW, Timeline, in_order
from simulator.trace.protocol import Protocol
from simulator.workload import ClosedLoop

__all__ = ["Run"]

_ORDER = itemgetter(0, 1, 2)
_SETTLE = 2  # SimPy runs lower priorities first among equal times; its own are 0 and 1


class Run:
    """One simulation. Nothing of it outlives `play` but the rows."""

    def __init__(
        self,
        graphs: tuple[ExecutionGraph, ...],
        cluster: Cluster,
        protocol: Protocol | None,
        arrivals: npt.NDArray[np.float64] | ClosedLoop,
        policy: Policy,
        max_workers: int | None,
    ) -> None:
        self.graphs = graphs
        self.protocol = protocol
        self.users = arrivals if isinstance(arrivals, ClosedLoop) else None
        self.arrivals: list[float] = [math.nan] * len(graphs) if isinstance(arrivals, ClosedLoop) else arrivals.tolist()
        self.places: Pool[tuple[Query, int]] | None = None if max_workers is None else Pool(max_workers)
        self.policy = policy
        self.in_steps = unit_of(cluster.replicas[0].cost) == "steps"
        self.clock = EventClock()
        self.prefixes: dict[str, Query | None] = {g.prefix_of: None for g in graphs if g.prefix_of is not None}
        self.open: dict[int, Query] = {}  # arrived and not finished
        self.fleet = Fleet(
            self.clock, cluster, self.request_done, self.ask, self.request_preempted, self.open, bool(self.prefixes)
        )
        self.order = np.argsort(self.arrivals, kind="stable").tolist()  # not arrived yet is last
        self.arrived, self.arriving = 0, False  # how many have; whether some do now
        self.due = 0  # queries of a closed loop that may arrive now
        # To be settled: query, thread, task, and whether the task has just left the batch.
        self.finished: list[tuple[int, int, int, Query, bool]] = []
        self.asked = False
        self.rows = array("d")
        self.answered = [math.nan] * len(graphs)
        self.overflows = np.zeros(len(graphs), dtype=np.int64)

    def play(self, on_deadlock: str) -> Timeline:
        """Run to the end."""
        if self.users:
            self.arrivals[: self.users.users] = [0.0] * min(self.users.users, len(self.graphs))
        self.clock.call_at(self.arrivals[self.order[0]], self.arrive)
        self.clock.run()
        deadlocks = tuple(explain_deadlock(self.open[index]) for index in sorted(self.open))
        if deadlocks and on_deadlock == "raise":
            raise DeadlockError(f"{self.graphs[deadlocks[0].query].name}: deadlock: {deadlocks[0]}")
        return Timeline(
            self.graphs,
            np.array(self.arrivals),
            np.array(self.answered),
            self.overflows,
            in_order(np.frombuffer(self.rows, dtype=ROW)),
            self.fleet.record(),
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

    def enter_all(self) -> None:
        """Start every query that arrives now, and wait for the next."""
        self.arriving = False
        while self.arrived < len(self.order) and self.arrivals[self.order[self.arrived]] <= self.clock.now:
            self.enter()
        if self.arrived < len(self.order) and not self.users:
            self.clock.call_at(self.arrivals[self.order[self.arrived]], self.arrive)

    def enter(self) -> None:
        """Start the next query."""
        index = self.order[self.arrived]
        graph = self.graphs[index]
        keys = self.policy(graph)
        if len(keys) != len(graph):
            raise ConfigError(f"the policy gave {len(keys)} keys for the {len(graph)} tasks of {graph.name}")
        prefix = self.prefixes[graph.prefix_of] if graph.prefix_of is not None else None
        query = Query(index, graph, self.protocol or graph.protocol, keys, prefix)
        if graph.name in self.prefixes:
            self.prefixes[graph.name] = query
        self.open[index] = query
        self.arrived += 1
        self.arrivals[index] = query.waited_from[0] = self.clock.now
        self.begin(query, 0)

    def request_done(self, request: Request) -> None:
        """Note what the GPU has finished, or taken out because its query was answered."""
        query: Query = request.owner
        thread = request.thread
        cut = request.emitted < request.tokens
        del query.live[thread]
        query.context[thread] += request.emitted
        tokens = request.emitted - request.reported
        flags = CANCELLED if cut else 0
        self.record(request, tokens, flags)
        if not cut:
            self.finished.append((query.index, thread, request.task, query, True))

    def request_preempted(self, request: Request) -> None:
        """Note that a request has lost its place; it waits for the batch again."""
        query: Query = request.owner
        thread = request.thread
        tokens = request.emitted - request.reported
        self.record(request, tokens, PREEMPTED)
        query.waited_from[thread] = query.granted[thread] = query.ready[thread] = self.clock.now

    def delay_done(self, query: Query, task: int) -> None:
        """Note the end of a Delay."""
        if not query.over:
            thread = query.graph.tasks[task].thread
            del query.live[thread]
            self.record_pause(query, thread, task, 0)
            self.finished.append((query.index, thread, task, query, False))
            self.ask()

    def ask(self) -> None:
        """Settle once all events of this time are in. The last thing an event does."""
        if not self.asked:
            if self.clock.is_settled():  # they are
                self.settle(None)
            else:
                self.asked = True
                self.clock.call_at(self.clock.now, self.settle, _SETTLE)

    def record(self, request: Request, tokens: int, flags: int) -> None:
        """Write the row of a task that leaves the GPU now."""
        query, thread = request.owner, request.thread
        if thread in query.slotless:
            flags |= INLINE
        waited_from, granted, ready = query.waited_from[thread], query.granted[thread], query.ready[thread]
        start, decode_start, now = request.start, request.decode_start, self.clock.now
        places = (query.index, thread, request.task, waited_from, granted, ready, start, decode_start, now)
        self.rows.extend((*places, tokens, flags, request.replica))

    def record_pause(self, query: Query, thread: int, task: int, flags: int) -> None:
        """Write the row of a task that ends now and was not on the GPU."""
        if thread in query.slotless:
            flags |= INLINE
        waited_from, granted, ready = query.waited_from[thread], query.granted[thread], query.ready[thread]
        times = (waited_from, granted, ready, ready, ready, self.clock.now)
        self.rows.extend((query.index, thread, task, *times, 0, flags, -1))

    # The settlement: what follows from what happened.

    def settle(self, _: object) -> None:
        """Draw every consequence of this instant, then let the GPU go on."""
        if self.arriving:  # not before: where a query goes depends on what ends at this time
            self.enter_all()
        while self.finished or self.due:
            finished, self.finished = self.finished, []
            if len(finished) > 1:
                finished.sort(key=_ORDER)
            ended = [item for item in finished if item[3].graph.next[item[2]] < 0]
            for _, thread, _, query, _ in ended:
                if not thread and not query.last_forks():
                    self.answer(query)
            for _, thread, _, query, _ in ended:
                if thread and not query.over:
                    if query.protocol.release == "return":
                        self.release(query, thread)
                    if self.places and thread not in query.slotless:
                        query.placed -= 1
                        self.free_places(1)
            for _, _, task, query, hot in finished:
                if not query.over:
                    self.proceed(query, task, 0, hot)
            while self.due:
                self.due -= 1
                if self.arrived < len(self.order):
                    self.enter()
        self.asked = False
        self.fleet.plan()

    def answer(self, query: Query) -> None:
        """The organizer has ended; cancel what still runs for it, if the protocol says so."""
        self.answered[query.index] = self.clock.now
        if self.users and not self.users.think:
            self.due += 1
        elif self.users:
            self.clock.call_at(self.clock.now + self.users.think, self.return_user)
        if query.protocol.after_answer == "cancel":
            query.over = True
            for thread, live in query.live.items():
                if isinstance(live, int):
                    self.record_pause(query, thread, live, CANCELLED)
                else:
                    self.fleet.cancel(live)
            del self.open[query.index]
            if self.places:
                self.free_places(query.placed)

    def proceed(self, query: Query, task: int, fork: int, hot: bool) -> None:
        """Let a thread go on after `task`, from its Fork number `fork` on.

        `hot`: the thread has just left a place in the batch, and keeps it if its next task decodes at once.
        """
        graph = query.graph
        thread, *_, forks, _, _ = graph.tasks[task]
        following = graph.next[task]
        if not fork:
            query.waited_from[thread] = query.granted[thread] = self.clock.now
        if forks:
            if following < 0 and not thread and query.last_forks():
                self.overflows[query.index] += sum(not query.pool.take() for _ in forks)
                self.answer(query)
                return
            for place in range(fork, len(forks)):
                if not self.fork(query, thread, task, place, hot):
                    return
        if following >= 0:
            if query.protocol.release == "join" and graph.tasks[following].joins:
                query.joining[following] = 0
                self.join(query, following)
            self.satisfy(query, following, hot and not graph.tasks[following].joins)
        else:
            self.end(query, thread, hot)

    def satisfy(self, query: Query, task: int, hot: bool = False) -> None:
        """One thing that `task` waited for has come; start the task if it was the last."""
        query.missing[task] -= 1
        if not query.missing[task]:
            self.run(query, task, hot)

    def run(self, query: Query, task: int, hot: bool) -> None:
        """Start a task that waits for nothing but the machine."""
        now = self.clock.now
        thread, tokens, prefill, seconds, *_ = query.graph.tasks[task]
        query.ready[thread] = now
        if query.slotless:
            tokens -= query.less_tokens.get(task, 0)
            # A graph made by hand may insert more than its tasks read.
            tokens = max(tokens, 0)
            prefill = max(prefill - query.less_prefill.get(task, 0), 0)
        if tokens:
            request = Request(query, thread, task, tokens, prefill, query.context[thread], now)
            query.context[thread] += prefill
            request.key = query.keys[task]
            query.live[thread] = request
            if hot and not prefill:
                self.fleet.keep(request)
            else:
                self.fleet.submit(request)
        elif pause := query.protocol.delay_steps(seconds) if self.in_steps else seconds:
            query.live[thread] = task
            self.clock.call_at(now + pause, lambda _: self.delay_done(query, task))
        else:
            self.record_pause(query, thread, task, 0)
            self.finished.append((query.index, thread, task, query, False))

    def begin(self, query: Query, thread: int, hot: bool = False) -> None:
        """Start a thread that has a slot, or needs none, as soon as it has a place."""
        query.alive += 1
        if self.places and thread and thread not in query.slotless:
            if not self.places.take():
                query.placeless.add(thread)
                self.places.queue.append((query, thread))
                return
            query.placed += 1
        self.start(query, thread, hot)

    def free_places(self, count: int) -> None:
        """Give places back, and to those that wait for them."""
        assert self.places
        self.places.free += count
        while self.places.queue and self.places.free:
            query, thread = self.places.queue.popleft()
            if not query.over:
                self.places.free -= 1
                query.placed += 1
                query.placeless.remove(thread)
                self.start(query, thread, False)

    def start(self, query: Query, thread: int, hot: bool) -> None:
        """Start a thread."""
        query.granted[thread] = self.clock.now
        self.satisfy(query, query.graph.threads[thread].first, hot)

    def end(self, query: Query, thread: int, hot: bool) -> None:
        """A thread has ended: go on with whoever waits for it."""
        query.alive -= 1
        self.answer_join(query, thread)
        if thread in query.host:
            resumed = query.host.pop(thread)
            assert resumed.parent is not None
            query.context[resumed.parent] = query.context[thread]
            self.proceed(query, resumed.task, resumed.place + 1, hot)
        if not query.alive and not query.pool.queue:
            self.open.pop(query.index, None)

    def answer_join(self, query: Query, thread: int) -> None:
        """Let go on who waits for a thread that has ended, or will never run."""
        query.ended[thread] = True
        joiner = query.graph.threads[thread].joined_by
        if joiner >= 0:
            if joiner in query.joining:
                self.join(query, joiner)
            self.satisfy(query, joiner)

    # Forks and slots.

    def fork(self, query: Query, parent: int, task: int, place: int, hot: bool) -> bool:
        """Let one Fork take effect; return whether its parent may go on at once."""
        child = query.graph.tasks[task].forks[place]
        query.waited_from[child] = self.clock.now
        pool = query.pool
        if pool.take():
            self.begin(query, child)
            return True
        self.overflows[query.index] += 1
        match query.protocol.when_full:
            case "allow":
                pool.free -= 1
                self.begin(query, child)
            case "queue":
                pool.queue.append(Waiting(child, None, task, place))
            case "block":
                pool.queue.append(Waiting(child, parent, task, place))
                return False
            case "inline":
                query.host[child] = Waiting(child, parent, task, place)
                query.context[child] = query.context[parent]
                query.homes[child] = query.home(parent)
                self.insert_nothing(query, child)
                first = query.graph.reader(query.graph.threads[child].first)
                if first >= 0:  # its prompt is in the parent's context already
                    query.less_prefill[first] = query.less_prefill.get(first, 0) + query.graph.threads[child].prompt
                self.begin(query, child, hot)
                return False
            case "drop":
                self.insert_nothing(query, child)
                self.answer_join(query, child)
        return True

    def insert_nothing(self, query: Query, child: int) -> None:
        """Note that the Join of `child`, which has no slot, inserts no text."""
        query.slotless.add(child)
        reader = query.graph.reader(query.graph.threads[child].joined_by)
        if reader >= 0:
            less = query.less_tokens if query.graph.protocol.charge_inserted else query.less_prefill
            less[reader] = less.get(reader, 0) + query.graph.threads[child].inserted

    def join(self, query: Query, task: int) -> None:
        """Free the slots of the workers that `task` waits for, in the order of its Joins, as far as they have ended."""
        joins = query.graph.tasks[task].joins
        while query.joining[task] < len(joins) and query.ended[joins[query.joining[task]]]:
            query.joining[task] += 1
            self.release(query, joins[query.joining[task] - 1])

    def release(self, query: Query, thread: int) -> None:
        """Free the slot of a worker and hand it to the first that waits for one."""
        if thread in query.slotless:
            return
        next_in_line = query.pool.give()
        if next_in_line is not None:
            self.begin(query, next_in_line.worker)
            if next_in_line.parent is not None:
                query.granted[next_in_line.parent] = self.clock.now
                self.proceed(query, next_in_line.task, next_in_line.place + 1, False)
