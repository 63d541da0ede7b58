"""What becomes of threads: Forks, Joins, slots, seats, work at stations, and the one door they leave by.

Nothing here looks at the clock for what is next; `simulator.engine.run` says what has happened, and in which order.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import assert_never

from simulator.engine.clock import EventClock
from simulator.engine.fleet import Fleet
from simulator.engine.pool import Pool
from simulator.engine.query import (
    HOSTS,
    LEFT,
    NEW,
    RUNS,
    STALLED,
    WAITS_SEAT,
    WAITS_SLOT,
    Exit,
    Pause,
    QueryRun,
    Request,
    ThreadRun,
    Work,
)
from simulator.engine.server import Calls, Settings
from simulator.engine.station import Delays, Station
from simulator.machine.cost import unit_of
from simulator.machine.gpu import Cluster
from simulator.timeline import BLOCKED, CANCELLED, INLINE, PREEMPTED
from simulator.trace.full_pool import Admission, FullPool, admit

_RETURNED = Exit.RETURNED
_CUT: dict[Exit | None, int] = {Exit.CANCELLED: CANCELLED}
"""Flags of the rows of work that was cut short, by how its thread left."""


class Threads:
    """The threads of all queries that are open, and the stations that they have work at.

    They `ask` for a settlement whenever something has happened, and say of each query when it is `answered`.
    """

    def __init__(
        self,
        clock: EventClock,
        cluster: Cluster,
        max_workers: int | None,
        ask: Callable[[], None],
        answered: Callable[[QueryRun], None],
        settings: Settings,
    ) -> None:
        self.clock = clock
        self.now = 0.0
        """The instant that is settled."""
        self.answered = answered
        self.in_steps = unit_of(cluster.replicas[0].cost) == "steps"
        self.seats: Pool[ThreadRun] | None = None if max_workers is None else Pool(max_workers)
        self.open: dict[int, QueryRun] = {}
        """Queries with a thread that has not left."""
        self.overflows: dict[int, int] = {}
        """Forks that found the pool full, by query."""
        self.finished: list[tuple[tuple[int, int], int, ThreadRun, bool]] = []
        """Tasks that have finished and are to be settled: query and thread, task; and whether each has left a place in
        the batch at this boundary."""
        self.rows = array("d")
        calls = Calls(self.request_left, ask, self.request_preempted, self.stored)
        self.fleet = Fleet(clock, cluster, calls, settings)
        self.delays = Delays(clock, self.pause_left, ask)
        self.stations: tuple[Station[Request], Station[Pause]] = (self.fleet, self.delays)

    def write(self, work: Work, tokens: int, flags: int) -> None:
        """Write the row of a task that leaves now: a `simulator.timeline.Row`, field by field."""
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
                self.clock._now,  # finish
                tokens,
                flags | thread.flags,
                work.replica,
                thread.slotted,
            )
        )

    # What stations say. What follows from it waits for the settlement.

    def request_left(self, request: Request) -> None:
        """Note what the GPU has finished, or taken out because its query was answered."""
        thread = request.thread
        thread.work = None
        thread.context += request.emitted
        cut = request.emitted < request.tokens
        self.write(request, request.emitted - request.reported, _CUT[thread.exit] if cut else 0)
        if not cut:
            self.finished.append((thread.order, request.task, thread, True))

    def request_preempted(self, request: Request) -> None:
        """Note that a request has lost its place; it waits for the batch again."""
        thread = request.thread
        self.write(request, request.emitted - request.reported, PREEMPTED)
        thread.waited_from = thread.slotted = thread.granted = thread.ready = self.clock.now

    def pause_left(self, pause: Pause, cut: bool) -> None:
        """Note the end of a Delay."""
        thread = pause.thread
        thread.work = None
        self.write(pause, 0, _CUT[thread.exit] if cut else 0)
        if not cut:
            self.finished.append((thread.order, pause.task, thread, False))

    def stored(self, step: int) -> int:
        """Return the tokens in the contexts of all threads that live, at the step of a GPU that is alone."""
        return sum(query.stored(step) for query in self.open.values())

    # What follows.

    def enter(self, query: QueryRun) -> None:
        """A query has arrived: start its organizer."""
        self.open[query.index] = query
        query.alive += 1
        organizer = query.threads[0]
        organizer.waited_from = organizer.slotted = self.now
        self.start(organizer, False)

    def answer(self, query: QueryRun) -> None:
        """The organizer has ended; cancel what still runs for it, if the protocol says so."""
        self.answered(query)
        if query.protocol.after_answer == "cancel":
            query.over = True
            query.pool.queue.clear()  # so that nobody is let in by those who leave
            threads = query.threads
            self.leave(threads[0], _RETURNED)
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
            thread.waited_from = thread.slotted = thread.granted = self.now
        if forks:
            if task == thread.last and not thread.number and query.last_forks:
                over = len(forks) - max(query.pool.free, 0)
                if over > 0:
                    self.overflows[query.index] = self.overflows.get(query.index, 0) + over
                self.answer(query)
                return
            for number in range(fork, len(forks)):
                if not self.fork(thread, query.threads[forks[number]], number + 1, hot):
                    return
        following = query.graph.next[task]
        if following >= 0:
            self.reach(thread, following, hot)
        else:
            self.leave(thread, _RETURNED, hot)

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
        thread.ready = self.now
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

        It gives back what it has, work at a station is cut short, and its parent goes on, if that waits to join it or
        did its work. `hot`: as for `proceed`.
        """
        query = thread.query
        if thread.slot or thread.seat:  # mostly it has given them back already, see `Run.settle`
            self.give_back(thread)
        thread.state = LEFT
        thread.exit = how
        query.alive -= 1
        if thread.work is not None:
            if isinstance(thread.work, Request):
                self.fleet.cancel(thread.work)
            elif isinstance(thread.work, Pause):
                self.delays.cancel(thread.work)
        parent = thread.parent
        if parent is not None and not query.over:
            if parent.task == thread.spec.joined_by:
                if parent.joined >= 0:
                    self.join(parent)
                self.satisfy(parent)
            if thread.home is not None:
                parent.context = thread.context
                self.resume(thread, hot)
        if not query.alive:
            self.open.pop(query.index, None)
            query.close()

    # Forks, slots and seats.

    def fork(self, parent: ThreadRun, child: ThreadRun, following: int, hot: bool) -> bool:
        """Let a Fork take effect; return whether the parent may go on at once with the one that is `following`."""
        query = parent.query
        pool = query.pool
        child.waited_from = self.now
        query.alive += 1
        if pool.free > 0:
            pool.free -= 1
            self.seat(child)
            return True
        self.overflows[query.index] = self.overflows.get(query.index, 0) + 1
        match admit(query.protocol.when_full, FullPool(pool.slots, pool.slots - pool.free, len(pool.queue))):
            case Admission.START:
                pool.free -= 1
                self.seat(child)
            case Admission.QUEUE:
                child.state = WAITS_SLOT
                pool.queue.append(child)
            case Admission.BLOCK:
                child.state = WAITS_SLOT
                pool.queue.append(child)
                parent.state = STALLED
                child.resumes = following
                child.flags = BLOCKED
                return False
            case Admission.INLINE:
                parent.state = HOSTS
                child.resumes = following
                child.slotted = self.now
                child.home = parent.home or parent
                child.context = parent.context
                child.flags = INLINE
                self.insert_nothing(child)
                first = query.graph.reader(child.spec.first)
                if first >= 0:  # its prompt is in the parent's context already
                    query.less_prefill[first] = query.less_prefill.get(first, 0) + child.spec.prompt
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
        reader = query.graph.reader(child.spec.joined_by)
        if reader >= 0:
            less = query.less_tokens if query.graph.protocol.charge_inserted else query.less_prefill
            less[reader] = less.get(reader, 0) + child.spec.inserted

    def seat(self, worker: ThreadRun) -> None:
        """A worker has its slot: start it as soon as it has a seat, too."""
        worker.slot = True
        worker.slotted = self.now
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
        thread.state = RUNS
        thread.granted = self.now
        thread.task = thread.spec.first
        self.run(thread, hot)

    def join(self, thread: ThreadRun) -> None:
        """Free the slots of the workers that a thread joins, in the order of its Joins, as far as they have ended."""
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
                    following.parent.slotted = following.parent.granted = self.now
                    self.resume(following, False)
