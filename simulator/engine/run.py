"""One simulation: queries arrive, Fork, wait, decode and answer on the simulated clock.

Everything that happens at one time is settled at once, in rounds, by a stated order (query, thread, task) and not by
SimPy's event numbers. In a round: queries just answered cancel their workers; ended workers free their slots; then each
finished task's Forks take effect, its thread goes on, and whoever waited for the thread may start. What needs no time
at all finishes in the next round of the same instant. When nothing is left to settle, the stations plan.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from simulator.engine.clock import EventClock
from simulator.engine.deadlock import explain_deadlock
from simulator.engine.fleet import Fleet
from simulator.engine.pool import Pool
from simulator.engine.query import (
    BLOCKED,
    HOSTS,
    LEFT,
    NEW,
    RUNS,
    WAITS_SEAT,
    WAITS_SLOT,
    Exit,
    Pause,
    QueryRun,
    Request,
    ThreadRun,
    Work,
)
from simulator.engine.server import Calls, Leap
from simulator.engine.station import Delays, Station
from simulator.errors import ConfigError, DeadlockError
from simulator.graph import ExecutionGraph
from simulator.machine.cost import DecodeSteps
from simulator.machine.gpu import Cluster
from simulator.machine.policy import Policy
from simulator.timeline import CANCELLED, COLUMNS, INLINE, PREEMPTED, Timeline, in_order
from simulator.trace.full_pool import Admission, admit
from simulator.trace.protocol import Protocol
from simulator.workload import ClosedLoop

__all__ = ["Run"]

_SETTLE = 2  # SimPy runs lower priorities first among equal times; its own are 0 and 1


class Run:
    """One simulation. Nothing of it outlives `play` but the rows.

    Parameters
    ----------
    graphs, cluster, protocol, arrivals, policy, max_workers, observe
        As for `simulate`, and checked there.
    max_leap : int
        Engine steps that one event may stand for. With 1 every step is an event, and the result is the same.
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
        self.users = arrivals if isinstance(arrivals, ClosedLoop) else None
        self.arrivals: list[float] = [math.nan] * len(graphs) if isinstance(arrivals, ClosedLoop) else arrivals.tolist()
        self.seats: Pool[ThreadRun] | None = None if max_workers is None else Pool(max_workers)
        self.policy = policy
        self.in_steps = isinstance(cluster.replicas[0].cost, DecodeSteps)
        self.clock = EventClock()
        self.prefixes: dict[str, ThreadRun | None] = {g.prefix_of: None for g in graphs if g.prefix_of is not None}
        self.open: dict[int, QueryRun] = {}  # arrived and not finished
        calls = Calls(self.request_left, self.ask, self.request_preempted, self.stored, observe=observe)
        self.fleet = Fleet(self.clock, cluster, calls, bool(self.prefixes), max_leap)
        self.delays = Delays(self.clock, self.pause_left)
        self.order = np.argsort(self.arrivals, kind="stable").tolist()  # not arrived yet is last
        self.arrived, self.arriving = 0, False  # how many have; whether some do now
        self.due = 0  # queries of a closed loop that may arrive now
        # Tasks that have finished and are to be settled, by query and thread; and whether each has left a place in the
        # batch at this boundary.
        self.finished: list[tuple[tuple[int, int], int, ThreadRun, bool]] = []
        self.asked = False
        self.rows = array("d")
        self.answered = [math.nan] * len(graphs)
        self.overflows = np.zeros(len(graphs), dtype=np.int64)

    def play(self, on_deadlock: str) -> Timeline:
        """Run to the end."""
        self.begin()
        self.clock.run()
        return self.end(on_deadlock)

    def begin(self) -> None:
        """Let the first query arrive once the clock runs."""
        if self.users:
            self.arrivals[: self.users.users] = [0.0] * min(self.users.users, len(self.graphs))
        self.clock.call_at(self.arrivals[self.order[0]], self.arrive)

    def end(self, on_deadlock: str) -> Timeline:
        """Return what happened."""
        deadlocks = tuple(explain_deadlock(self.open[index]) for index in sorted(self.open))
        if deadlocks and on_deadlock == "raise":
            raise DeadlockError(f"{self.graphs[deadlocks[0].query].name}: deadlock: {deadlocks[0]}")
        return Timeline(
            self.graphs,
            np.array(self.arrivals),
            np.array(self.answered),
            self.overflows,
            in_order(np.frombuffer(self.rows, dtype=np.float64).reshape(-1, len(COLUMNS))),
            self.fleet.record(),
            self.protocol,
            deadlocks,
        )

    def write(self, work: Work, tokens: int, flags: int) -> None:
        """Write the row of a task that leaves now: `simulator.timeline.COLUMNS`, in their order."""
        thread = work.thread
        self.rows.extend(
            (
                *thread.order,
                work.task,
                thread.waited_from,
                thread.granted,
                thread.ready,
                work.start,
                work.decode_start,
                self.clock.now,  # finish
                tokens,
                flags | thread.flags,
                work.replica,
            )
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

    def request_left(self, request: Request) -> None:
        """Note what the GPU has finished, or taken out because its query was answered."""
        thread = request.thread
        thread.work = None
        thread.context += request.emitted
        cut = request.emitted < request.tokens
        self.write(request, request.emitted - request.reported, CANCELLED if cut else 0)
        if not cut:
            self.finished.append((thread.order, request.task, thread, True))

    def request_preempted(self, request: Request) -> None:
        """Note that a request has lost its place; it waits for the batch again."""
        thread = request.thread
        self.write(request, request.emitted - request.reported, PREEMPTED)
        thread.waited_from = thread.granted = thread.ready = self.clock.now

    def pause_left(self, pause: Pause, cut: bool) -> None:
        """Note the end of a Delay."""
        thread = pause.thread
        thread.work = None
        self.write(pause, 0, CANCELLED if cut else 0)
        if not cut:
            self.finished.append((thread.order, pause.task, thread, False))
            self.ask()

    def ask(self) -> None:
        """Settle once all events of this time are in. The last thing an event does."""
        if not self.asked:
            if self.clock.is_settled():  # they are
                self.settle(None)
            else:
                self.asked = True
                self.clock.call_at(self.clock.now, self.settle, _SETTLE)

    def stored(self, step: int) -> int:
        """Return the tokens in the contexts of all threads that live, at the step of a GPU that is alone."""
        return sum(query.stored(step) for query in self.open.values())

    # The settlement: what follows from what happened.

    def settle(self, _: object) -> None:
        """Draw every consequence of this instant, then let the stations go on."""
        if self.arriving:  # not before: where a query goes depends on what ends at this time
            self.enter_all()
        while self.finished or self.due:
            finished, self.finished = self.finished, []
            if len(finished) > 1:
                finished.sort()
            # Each of the three passes is over all tasks before the next begins: an answer cancels what else ends at
            # this time, and a slot that comes free now can be had by a Fork that takes effect now.
            for _, task, thread, _ in finished:
                if not thread.number and task == thread.last and not thread.query.last_forks:
                    self.answer(thread.query)
            for _, task, thread, _ in finished:
                if task == thread.last and not thread.query.over:
                    self.give_back(thread)
            for _, _, thread, hot in finished:
                if not thread.query.over:
                    self.proceed(thread, 0, hot)
            while self.due:
                self.due -= 1
                if self.arrived < len(self.order):
                    self.enter()
        self.asked = False
        self.fleet.plan()
        self.delays.plan()

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
        query = QueryRun(index, graph, self.protocol or graph.protocol, keys, prefix)
        organizer = query.threads[0]
        if graph.name in self.prefixes:
            self.prefixes[graph.name] = organizer
        self.open[index] = query
        self.arrived += 1
        self.arrivals[index] = organizer.waited_from = self.clock.now
        query.alive += 1
        self.start(organizer, False)

    def answer(self, query: QueryRun) -> None:
        """The organizer has ended; cancel what still runs for it, if the protocol says so."""
        self.answered[query.index] = self.clock.now
        if self.users and not self.users.think:
            self.due += 1
        elif self.users:
            self.clock.call_at(self.clock.now + self.users.think, self.return_user)
        if query.protocol.after_answer == "cancel":
            query.over = True
            query.pool.queue.clear()  # so that nobody is let in by those who leave
            threads = query.threads
            self.leave(threads[0], Exit.RETURNED)
            if query.alive:
                for thread in threads:
                    if thread.state is not NEW and thread.state is not LEFT:
                        self.leave(thread, Exit.CANCELLED)

    def proceed(self, thread: ThreadRun, fork: int, hot: bool) -> None:
        """Let a thread go on after its task, from that task's Fork number `fork` on.

        `hot`: the thread has just left a place in the batch, and keeps it if its next task decodes at once.
        """
        query = thread.query
        task = thread.task
        forks = query.graph.tasks[task].forks
        if not fork:
            thread.waited_from = thread.granted = self.clock.now
        if forks:
            if task == thread.last and not thread.number and query.last_forks:
                free = max(query.pool.free, 0)
                self.overflows[query.index] += max(len(forks) - free, 0)
                self.answer(query)
                return
            for number in range(fork, len(forks)):
                if not self.fork(thread, query.threads[forks[number]], number + 1, hot):
                    return
        following = query.graph.next[task]
        if following >= 0:
            self.reach(thread, following, hot)
        else:
            self.leave(thread, Exit.RETURNED, hot)

    def reach(self, thread: ThreadRun, task: int, hot: bool) -> None:
        """A thread has come to its next task: make its Joins, and start it if there is nothing to wait for."""
        thread.task = task
        query = thread.query
        joins = query.graph.tasks[task].joins
        if joins:
            # One more than it waits for until its Joins are made: a slot that these free may lead back to here.
            thread.awaits = 1 + sum([query.threads[child].state is not LEFT for child in joins])
            if query.protocol.release == "join":
                thread.joined = 0
                self.join(thread)
            self.satisfy(thread)
        else:
            self.run(thread, hot)

    def satisfy(self, thread: ThreadRun) -> None:
        """One thing that a thread's task waited for has come; start the task if it was the last."""
        thread.awaits -= 1
        if not thread.awaits:
            self.run(thread, False)

    def run(self, thread: ThreadRun, hot: bool) -> None:
        """Start a thread's task, which waits for nothing but its station."""
        query, task = thread.query, thread.task
        spec = query.graph.tasks[task]
        tokens, prefill = spec.tokens, spec.prefill
        thread.ready = self.clock.now
        if query.less_prefill or query.less_tokens:  # a graph made by hand may insert more than its tasks read
            tokens = max(tokens - query.less_tokens.get(task, 0), 0)
            prefill = max(prefill - query.less_prefill.get(task, 0), 0)
        if tokens:
            request = Request(thread, task, tokens, prefill, query.keys[task])
            thread.context += prefill
            thread.work = request
            if hot and not prefill:
                self.fleet.keep(request)
            else:
                self.fleet.submit(request)
            return
        pause = Pause(thread, task, query.protocol.delay_steps(spec.seconds) if self.in_steps else spec.seconds)
        if pause.seconds:
            thread.work = pause
            self.delays.submit(pause)
        else:
            self.write(pause, 0, 0)
            self.finished.append((thread.order, task, thread, False))

    def leave(self, thread: ThreadRun, how: Exit, hot: bool = False) -> None:
        """A thread leaves its query: the one door.

        It gives back what it has, work at a station is cut short, and those go on who waited for it: the thread that
        joins it, and the one that did its work. `hot`: as for `proceed`.
        """
        query = thread.query
        if thread.slot or thread.seat:  # mostly it has given them back already, see `settle`
            self.give_back(thread)
        thread.state = LEFT
        query.alive -= 1
        match how:
            case Exit.RETURNED | Exit.DROPPED:
                if thread.joined_by >= 0:
                    waiter = query.threads[query.graph.tasks[thread.joined_by].thread]
                    if waiter.task == thread.joined_by:
                        if waiter.joined >= 0:
                            self.join(waiter)
                        self.satisfy(waiter)
                if thread.home is not None and thread.parent is not None:
                    thread.parent.context = thread.context
                    self.resume(thread, hot)
            case Exit.CANCELLED:
                if thread.work is not None:
                    self.station(thread.work).cancel(thread.work)
            case _:
                assert_never(how)
        if not query.alive:
            self.open.pop(query.index, None)
            query.close()

    def station(self, work: Work) -> Station[Any]:
        """Return where work is done."""
        return self.fleet if isinstance(work, Request) else self.delays

    # Forks, slots and seats.

    def fork(self, parent: ThreadRun, child: ThreadRun, following: int, hot: bool) -> bool:
        """Let a Fork take effect; return whether the parent may go on at once with the one that is `following`."""
        query = parent.query
        pool = query.pool
        child.waited_from = self.clock.now
        query.alive += 1
        if pool.free <= 0:
            self.overflows[query.index] += 1
        match admit(query.protocol.when_full, pool.slots, pool.free, len(pool.queue)):
            case Admission.START:
                pool.free -= 1
                self.seat(child)
            case Admission.QUEUE:
                child.state = WAITS_SLOT
                pool.queue.append(child)
            case Admission.BLOCK:
                child.state = WAITS_SLOT
                pool.queue.append(child)
                parent.state = BLOCKED
                child.resumes = following
                return False
            case Admission.INLINE:
                parent.state = HOSTS
                child.resumes = following
                child.home = parent.home or parent
                child.context = parent.context
                child.flags = INLINE
                self.insert_nothing(child)
                first = query.graph.reader(child.first)
                if first >= 0:  # its prompt is in the parent's context already
                    query.less_prefill[first] = query.less_prefill.get(first, 0) + query.graph.prompts[child.number]
                self.start(child, hot)
                return False
            case Admission.DROP:
                self.insert_nothing(child)
                self.leave(child, Exit.DROPPED)
            case unknown:
                assert_never(unknown)
        return True

    def resume(self, worker: ThreadRun, hot: bool) -> None:
        """Let the parent go on that a worker has held up."""
        parent = worker.parent
        assert parent is not None
        following, worker.resumes = worker.resumes, 0
        parent.state = RUNS
        self.proceed(parent, following, hot)

    def insert_nothing(self, child: ThreadRun) -> None:
        """Note that the Join of `child`, which has no slot, inserts no text."""
        query = child.query
        reader = query.graph.reader(child.joined_by)
        if reader >= 0:
            less = query.less_tokens if query.graph.protocol.charge_inserted else query.less_prefill
            less[reader] = less.get(reader, 0) + query.graph.inserted[child.number]

    def seat(self, worker: ThreadRun) -> None:
        """A worker has its slot: start it as soon as it has a seat, too."""
        worker.slot = True
        if self.seats is not None:
            if self.seats.free <= 0:
                worker.state = WAITS_SEAT
                self.seats.queue.append(worker)
                return
            self.seats.free -= 1
            worker.seat = True
        self.start(worker, False)

    def start(self, thread: ThreadRun, hot: bool) -> None:
        """Start a thread that has all it needs."""
        query = thread.query
        thread.state = RUNS
        thread.granted = self.clock.now
        thread.task = thread.first
        joins = query.graph.tasks[thread.first].joins
        if joins:  # in a graph made by hand
            thread.awaits = sum([query.threads[child].state is not LEFT for child in joins])
        if not thread.awaits:
            self.run(thread, hot)

    def join(self, thread: ThreadRun) -> None:
        """Free the slots of the workers that a thread waits for, in the order of its Joins, as far as they have ended."""
        query = thread.query
        joins = query.graph.tasks[thread.task].joins
        while thread.joined < len(joins) and query.threads[joins[thread.joined]].state is LEFT:
            thread.joined += 1
            self.free_slot(query.threads[joins[thread.joined - 1]])

    def give_back(self, thread: ThreadRun) -> None:
        """Take from a thread that has ended what it need not keep."""
        if thread.slot and thread.query.protocol.release == "return":
            self.free_slot(thread)
        if thread.seat and self.seats is not None:
            thread.seat = False
            while (following := self.seats.give()) is not None:
                if not following.query.over:
                    following.seat = True
                    self.start(following, False)
                    break

    def free_slot(self, thread: ThreadRun) -> None:
        """Free the slot of a worker, if it has one, and hand it to the first that waits for one."""
        if thread.slot:
            thread.slot = False
            following = thread.query.pool.give()
            if following is not None:
                self.seat(following)
                if following.resumes and following.parent is not None:
                    following.parent.granted = self.clock.now
                    self.resume(following, False)
