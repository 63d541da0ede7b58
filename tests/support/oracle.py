"""A second simulator, to compare the first with: a heap of events, and engine steps taken one by one.

Written from ``docs/semantics.md`` alone; it shares nothing with `simulator.engine` but the graphs and the cost model.
It is slow and plain on purpose. Where the page leaves a choice, the reading taken here is marked ``Reading:``.

Here are the queries: instants and rounds, pools, places, arrivals, routing. The GPUs are in
`tests.support.oracle_engine` and, with KV memory, `tests.support.paged_oracle`.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from math import inf, isnan

from simulator import GPU, ClosedLoop, Cluster
from simulator.graph import ExecutionGraph
from simulator.machine.cost import DecodeSteps
from simulator.machine.policy import Policy, QueuePolicy
from simulator.trace.full_pool import WHEN_FULL, Admission, FullPool
from simulator.trace.protocol import Protocol
from tests.support.oracle_engine import Engine
from tests.support.oracle_state import (
    BLOCKED,
    CANCELLED,
    INLINE,
    Holder,
    OracleResult,
    QueryState,
    Request,
    Row,
    TaskState,
)
from tests.support.paged_oracle import PagedEngine

Item = tuple[int, int, int]
"""Query, thread, task."""


def oracle(
    graphs: Sequence[ExecutionGraph],
    *,
    gpu: GPU | Cluster,
    routing: str = "least-loaded",
    protocol: Protocol,
    arrivals: Sequence[float] | ClosedLoop,
    policy: Policy,
    max_workers: int | None = None,
) -> OracleResult:
    """Simulate `graphs`, one a query. `routing` is that of the cluster, by name."""
    replicas = gpu.replicas if isinstance(gpu, Cluster) else (gpu,)
    return Oracle(graphs, replicas, routing, protocol, policy, max_workers).run(arrivals)


class Oracle:
    def __init__(
        self,
        graphs: Sequence[ExecutionGraph],
        replicas: Sequence[GPU],
        routing: str,
        protocol: Protocol,
        policy: Policy,
        max_workers: int | None,
    ) -> None:
        self.engines = [(PagedEngine if gpu.num_kv_blocks else Engine)(self, i, gpu) for i, gpu in enumerate(replicas)]
        self.in_steps = isinstance(replicas[0].cost, DecodeSteps)
        self.routing = routing
        self.routed = 0
        self.protocol = protocol
        self.cancels = protocol.after_answer == "cancel"
        self.choose = policy.choose if isinstance(policy, QueuePolicy) else None
        self.keys = [(policy.keys if isinstance(policy, QueuePolicy) else policy)(graph) for graph in graphs]
        capacity = inf if protocol.capacity is None else protocol.capacity
        self.queries = [
            QueryState(graph, [TaskState(1 + len(task.joins), task.tokens) for task in graph.tasks], capacity - 1)
            for graph in graphs
        ]
        self.named: dict[str, int] = {}
        """By name: the query that has arrived last."""
        self.places = inf if max_workers is None else max_workers
        """Free places for workers of all queries."""
        self.placed: set[Holder] = set()
        """Workers that have one."""
        self.place_queue: list[Holder] = []
        self.unasked: list[int] = []
        """Queries that a closed loop has still to ask."""
        self.think = 0.0
        self.due = 0
        """Queries that a closed loop asks at the end of this round."""
        self.now = 0.0
        self.heap: list[tuple[float, str, int, int]] = []
        self.delays: set[tuple[int, int]] = set()
        self.next_round: list[Item] = []
        self.rows: list[Row] = []

    # Instants

    def run(self, arrivals: Sequence[float] | ClosedLoop) -> OracleResult:
        if isinstance(arrivals, ClosedLoop):
            self.unasked = list(range(arrivals.users, len(self.queries)))
            self.think = arrivals.think
            arrivals = [0.0] * min(arrivals.users, len(self.queries))
        for number, arrival in enumerate(arrivals):
            self.wake(arrival, "arrival", number)
        while self.heap:
            self.now = self.heap[0][0]
            finished: dict[Item, Request | None] = {}
            arrived: list[int] = []
            while self.heap and self.heap[0][0] == self.now:
                _, kind, number, task = heapq.heappop(self.heap)
                if kind == "arrival":
                    arrived.append(number)
                elif kind == "user":
                    self.due += 1
                elif kind == "step":
                    finished.update((request.number, request) for request in self.engines[number].end_step())
                elif (number, task) in self.delays:
                    self.delays.remove((number, task))
                    item = (number, self.queries[number].graph.tasks[task].thread, task)
                    finished[item] = None
                    self.write(*item)
            # In their order: the earlier ones are there already for the later ones.
            for number in sorted(arrived):
                self.arrive(number)
            self.settle(finished | self.take_round())
            while self.next_round:
                self.settle(self.take_round())
            for engine in self.engines:
                if not engine.stepping:
                    engine.plan()
        stuck = tuple(number for number, query in enumerate(self.queries) if query.live and not query.cancelled)
        return OracleResult(
            sorted(self.rows, key=lambda row: (row.finish, row[:3])),
            [query.arrived for query in self.queries],
            [query.first_token for query in self.queries],
            [query.answered for query in self.queries],
            [query.overflows for query in self.queries],
            stuck,
            [engine.result() for engine in self.engines],
        )

    def wake(self, seconds: float, kind: str, number: int, task: int = 0) -> None:
        """Something happens `seconds` from now."""
        heapq.heappush(self.heap, (self.now + seconds, kind, number, task))

    def take_round(self) -> dict[Item, Request | None]:
        """Finish the tasks that take no time and were ready."""
        taken, self.next_round = self.next_round, []
        for number, thread, task in taken:
            state = self.queries[number].tasks[task]
            state.start = state.decode_start = self.now
            self.write(number, thread, task)
        return dict.fromkeys(taken)

    def settle(self, finished: dict[Item, Request | None]) -> None:
        """Do one round. What has finished on a GPU in the first round has a place there that it may keep."""
        for number, _, task in sorted(finished):
            query = self.queries[number]
            if task == query.graph.answer and not (self.cancels and query.graph.tasks[task].forks):
                self.answer(number)
        items = [item for item in sorted(finished) if not self.queries[item[0]].cancelled]
        for number, thread, task in items:
            if task == self.queries[number].graph.threads[thread].last:
                if self.protocol.release == "return":
                    self.release(number, thread)
                self.leave_place(number, thread)
        for item in items:
            if not self.queries[item[0]].cancelled:
                self.go_on(item[0], item[2], 0, finished[item])
        for _ in range(self.due):
            if self.unasked:
                self.arrive(self.unasked.pop(0))
        self.due = 0

    def arrive(self, number: int) -> None:
        query = self.queries[number]
        query.arrived = self.now
        query.above = self.named.get(query.graph.prefix_of) if query.graph.prefix_of is not None else None
        self.named[query.graph.name] = number
        self.start_thread(number, 0)

    def answer(self, number: int) -> None:
        query = self.queries[number]
        query.answered = self.now
        if self.think:
            self.wake(self.think, "user", 0)
        else:
            self.due += 1
        if not self.cancels:
            return
        query.cancelled = True
        for delay in sorted(d for d in self.delays if d[0] == number):
            self.delays.remove(delay)
            self.write(number, query.graph.tasks[delay[1]].thread, delay[1], flags=CANCELLED)
        for thread in sorted(thread for other, thread in self.placed if other == number):
            self.leave_place(number, thread)

    # Threads and pools

    def start_thread(self, number: int, thread: int, place: Request | None = None) -> None:
        query = self.queries[number]
        query.live.add(thread)
        task = query.graph.threads[thread].first
        state = query.tasks[task]
        state.waited_from = state.slotted = state.granted = self.now
        if thread not in query.inline:
            query.context[thread] = query.graph.threads[thread].shared
        self.less(number, task, place)

    def go_on(self, number: int, task: int, fork: int, place: Request | None) -> None:
        """Let the thread of `task`, which has finished, go on with its Fork number `fork`."""
        query = self.queries[number]
        graph = query.graph
        thread = graph.tasks[task].thread
        following = graph.next[task]
        if fork == 0 and following >= 0:
            state = query.tasks[following]
            state.waited_from = state.slotted = state.granted = self.now
        forks = graph.tasks[task].forks
        if task == graph.answer and forks and self.cancels:
            query.overflows += int(max(len(forks) - max(query.free, 0), 0))
            self.answer(number)
            return
        while fork < len(forks):
            child = forks[fork]
            fork += 1
            query.tasks[graph.threads[child].first].waited_from = self.now
            query.overflows += query.free <= 0
            admission = self.admission(query)
            if admission == Admission.START:
                self.take_slot(number, child)
            elif admission == Admission.DROP:
                query.dropped.add(child)
                if graph.threads[child].joined_by >= 0:
                    self.less(number, graph.threads[child].joined_by, None)
            elif admission == Admission.INLINE:
                query.inline.add(child)
                query.paused[child] = (task, fork)
                self.start_thread(number, child, place)
                return
            else:
                query.live.add(child)
                query.queue.append(child)
                if admission == Admission.BLOCK:
                    query.blocked.add(child)
                    query.paused[child] = (task, fork)
                    return
        if following >= 0:
            query.reached.add(following)
            self.less(number, following, place)
            return
        query.live.discard(thread)
        query.ended.add(thread)
        if graph.threads[thread].joined_by >= 0:
            self.less(number, graph.threads[thread].joined_by, None)
        if thread in query.inline:
            self.go_on(number, *query.paused.pop(thread), place)

    def admission(self, query: QueryState) -> Admission:
        """What becomes of a worker that is forked now."""
        if query.free > 0:
            return Admission.START
        slots = (self.protocol.capacity or 1) - 1
        found = FullPool(slots, int(slots - query.free), len(query.queue))
        return WHEN_FULL[self.protocol.when_full].decide(found)

    def take_slot(self, number: int, child: int) -> None:
        """`child` takes a slot, or needs none; it runs as soon as it has a place, too."""
        query = self.queries[number]
        query.free -= 1
        query.holds.add(child)
        query.slotted[child] = self.now
        if self.places > 0:
            self.take_place(number, child)
        else:
            query.live.add(child)
            self.place_queue.append((number, child))

    def take_place(self, number: int, child: int) -> None:
        query = self.queries[number]
        self.places -= 1
        self.placed.add((number, child))
        state = query.tasks[query.graph.threads[child].first]
        forked = state.waited_from
        self.start_thread(number, child)
        state.waited_from, state.slotted = forked, query.slotted[child]

    def release(self, number: int, thread: int) -> None:
        """Free the slot of `thread`, if it has one. It goes at once to the first that waits."""
        query = self.queries[number]
        if thread not in query.holds:
            return
        query.holds.remove(thread)
        query.free += 1
        if query.queue and query.free > 0:
            child = query.queue.pop(0)
            self.take_slot(number, child)
            if child in query.paused:
                task, fork = query.paused.pop(child)
                if query.graph.next[task] >= 0:
                    state = query.tasks[query.graph.next[task]]
                    state.slotted = state.granted = self.now
                # Reading: a parent that had to wait for a slot does not keep its place, even if it got it at once.
                self.go_on(number, task, fork, None)

    def leave_place(self, number: int, thread: int) -> None:
        """Free the place of `thread`, if it has one. It goes at once to the first that waits."""
        if (number, thread) not in self.placed:
            return
        self.placed.remove((number, thread))
        self.places += 1
        self.place_queue = [holder for holder in self.place_queue if not self.queries[holder[0]].cancelled]
        if self.place_queue:
            self.take_place(*self.place_queue.pop(0))

    def less(self, number: int, task: int, place: Request | None) -> None:
        """`task` has one thing less to wait for."""
        query = self.queries[number]
        state = query.tasks[task]
        state.waits_for -= 1
        spec = query.graph.tasks[task]
        if self.protocol.release == "join" and task in query.reached:
            while state.joined < len(spec.joins) and spec.joins[state.joined] in query.ended | query.dropped:
                state.joined += 1
                self.release(number, spec.joins[state.joined - 1])
        if state.waits_for == 0 and isnan(state.ready):  # a slot freed here may have led back to this task
            self.ready(number, task, place)

    def ready(self, number: int, task: int, place: Request | None) -> None:
        query = self.queries[number]
        state = query.tasks[task]
        spec = query.graph.tasks[task]
        state.ready = self.now
        missing = query.not_inserted
        for child in spec.joins:
            if child in query.dropped | query.inline:
                # Reading: what it would have inserted is prefill not done or, if that is charged, tokens not decoded.
                if query.graph.protocol.charge_inserted:
                    state.tokens -= query.graph.threads[child].inserted
                else:
                    missing[spec.thread] = missing.get(spec.thread, 0) + query.graph.threads[child].inserted
        if state.tokens:
            prefill = spec.prefill - missing.pop(spec.thread, 0)
            if spec.thread in query.inline and task == query.graph.reader(query.graph.threads[spec.thread].first):
                prefill -= _own_prompt(query.graph, spec.thread)
            key = (self.keys[number][task], self.now, (number, spec.thread, task))
            request = Request(number, spec.thread, task, self.holder(number, spec.thread), state.tokens, prefill, key)
            # Reading: prompts that are free are something to prefill all the same.
            if place is not None and not spec.joins and not prefill:
                place.follow = request
            else:
                self.engines[self.route(request)].take(request)
                self.routed += 1
            return
        pause = self.protocol.delay_steps(spec.seconds) if self.in_steps else spec.seconds
        if pause:
            state.start = state.decode_start = self.now
            self.delays.add((number, task))
            self.wake(pause, "delay", number, task)
        else:
            self.next_round.append((number, spec.thread, task))

    # What the GPUs ask

    def route(self, request: Request) -> int:
        """The replica that `request` goes to."""
        loads = [engine.load() for engine in self.engines]
        if self.routing == "round-robin":
            return self.routed % len(loads)
        if self.routing == "least-loaded":
            return loads.index(min(loads))
        held = [engine.holds(request) for engine in self.engines]
        best = [i for i in range(len(held)) if held[i] == max(held)]
        return min(best, key=lambda i: (loads[i], i))

    def holder(self, number: int, thread: int) -> Holder:
        """Whose context `thread` reads and writes."""
        query = self.queries[number]
        while thread in query.inline:
            thread = query.graph.threads[thread].parent
        return number, thread

    def above(self, holder: Holder) -> Holder | None:
        """With whose context that of `holder` begins."""
        query = self.queries[holder[0]]
        if holder[1]:
            return self.holder(holder[0], query.graph.threads[holder[1]].parent)
        return None if query.above is None else (query.above, 0)

    def state(self, request: Request) -> TaskState:
        return self.queries[request.query].tasks[request.task]

    def write(self, number: int, thread: int, task: int, *, tokens: int = 0, flags: int = 0, replica: int = -1) -> None:
        query = self.queries[number]
        s = query.tasks[task]
        assert not s.ended, "a task that is done goes on"
        s.ended = flags in (0, CANCELLED)
        flags |= INLINE * (thread in query.inline) | BLOCKED * (thread in query.blocked)
        times = (s.waited_from, s.granted, s.ready, s.start, s.decode_start, self.now)
        self.rows.append(Row(number, thread, task, *times, tokens - s.reported, flags, replica, s.slotted))
        s.reported = tokens


def _own_prompt(graph: ExecutionGraph, thread: int) -> int:
    """Tokens of the thread's own prompt that its first decode processes."""
    recorded = graph.trace.thread(graph.threads[thread].id)
    return recorded.prompt_tokens - recorded.shared_tokens
