"""A second simulator, to compare the first with: a heap of events, and engine steps taken one by one.

Written from ``docs/semantics.md`` alone; it shares nothing with `simulator.simulation` but the graphs and the cost
model. It is slow and plain on purpose. Where the page leaves a choice, the reading taken here is marked ``Reading:``.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from math import inf, isnan
from typing import Any

from simulator.cost import DecodeSteps
from simulator.graph import ExecutionGraph
from simulator.protocol import Protocol
from tests.oracle_state import OracleResult, QueryState, Row, SequenceState, TaskState

PolicyKey = Callable[[ExecutionGraph], Sequence[float]]
"""Of a graph, one key a task: what waiting work is sorted by, smallest first."""


def oracle(
    graphs: Sequence[ExecutionGraph],
    *,
    cost: Any,
    max_num_seqs: int | None = None,
    max_num_batched_tokens: int | None = None,
    protocol: Protocol,
    arrivals: Sequence[float],
    policy_key: PolicyKey | None = None,
) -> OracleResult:
    """Simulate `graphs`, one a query, arriving at `arrivals`."""
    return _Oracle(graphs, cost, max_num_seqs, max_num_batched_tokens, protocol, arrivals, policy_key).run()


class _Oracle:
    def __init__(
        self,
        graphs: Sequence[ExecutionGraph],
        cost: Any,
        max_num_seqs: int | None,
        max_num_batched_tokens: int | None,
        protocol: Protocol,
        arrivals: Sequence[float],
        policy_key: PolicyKey | None,
    ) -> None:
        self.cost = cost
        self.room = min(max_num_seqs or inf, max_num_batched_tokens or inf)
        self.budget = max_num_batched_tokens or inf
        self.protocol = protocol
        self.cancels = protocol.after_answer == "cancel"
        self.keys = [policy_key(graph) if policy_key else [0] * len(graph) for graph in graphs]
        capacity = inf if protocol.capacity is None else protocol.capacity
        self.queries = [
            QueryState(graph, [TaskState(1 + len(task.joins), task.tokens) for task in graph.tasks], capacity - 1)
            for graph in graphs
        ]
        self.now = 0.0
        self.heap: list[tuple[float, str, int, int]] = []
        for number, arrival in enumerate(arrivals):
            heapq.heappush(self.heap, (arrival, "arrival", number, 0))
        self.batch: list[SequenceState] = []
        self.chunks: dict[SequenceState, int] = {}
        self.stepping = False
        self.waiting: list[SequenceState] = []
        self.delays: set[tuple[int, int]] = set()
        self.next_round: list[tuple[int, int, int]] = []
        self.rows: dict[tuple[int, int, int], Row] = {}
        self.steps = 0
        self.busy = 0.0
        self.changes: list[tuple[float, int]] = []

    # Instants

    def run(self) -> OracleResult:
        while self.heap:
            self.now = self.heap[0][0]
            finished: list[tuple[int, int, int]] = []
            places: dict[tuple[int, int, int], int] = {}
            arrived: list[int] = []
            while self.heap and self.heap[0][0] == self.now:
                _, kind, number, task = heapq.heappop(self.heap)
                if kind == "arrival":
                    arrived.append(number)
                elif kind == "step":
                    places = self.end_step()
                    finished += places
                elif (number, task) in self.delays:
                    self.delays.remove((number, task))
                    finished.append((number, self.queries[number].graph.tasks[task].thread, task))
                    self.write(*finished[-1], tokens=0)
            self.kept: dict[int, SequenceState] = {}
            for number in sorted(arrived):
                self.start_thread(number, 0)
            self.settle(finished + self.take_round(), places)
            while self.next_round:
                self.settle(self.take_round(), {})
            if not self.stepping:
                self.plan()
        stuck = tuple(number for number, query in enumerate(self.queries) if query.live and not query.cancelled)
        return OracleResult(
            self.rows,
            [query.answered for query in self.queries],
            [query.overflows for query in self.queries],
            stuck,
            self.steps,
            self.busy,
            self.changes,
        )

    def take_round(self) -> list[tuple[int, int, int]]:
        """Finish the tasks that take no time and were ready."""
        taken, self.next_round = self.next_round, []
        for number, thread, task in taken:
            state = self.queries[number].tasks[task]
            state.start = state.decode_start = self.now
            self.write(number, thread, task, tokens=0)
        return taken

    def settle(self, finished: list[tuple[int, int, int]], places: dict[tuple[int, int, int], int]) -> None:
        """Do one round. `places` says which of `finished` have a place in the batch that they may keep."""
        finished = sorted(finished)
        for number, _, task in finished:
            query = self.queries[number]
            if task == query.graph.answer and not (self.cancels and query.graph.tasks[task].forks):
                self.answer(number)
        finished = [item for item in finished if not self.queries[item[0]].cancelled]
        for number, thread, task in finished:
            if self.protocol.release == "return" and task == self.queries[number].graph.last[thread]:
                self.release(number, thread)
        for item in finished:
            if not self.queries[item[0]].cancelled:
                self.go_on(item[0], item[2], 0, places.get(item))

    def answer(self, number: int) -> None:
        self.queries[number].answered = self.now
        if self.cancels:
            self.cancel(number)

    def start_thread(self, number: int, thread: int, place: int | None = None) -> None:
        query = self.queries[number]
        query.live.add(thread)
        task = query.graph.first[thread]
        state = query.tasks[task]
        state.waited_from = state.granted = self.now
        if thread not in query.inline:
            query.context[thread] = query.graph.shared[thread]
        self.less(number, task, place)

    def go_on(self, number: int, task: int, fork: int, place: int | None) -> None:
        """Let the thread of `task`, which has finished, go on with its Fork number `fork`."""
        query = self.queries[number]
        graph = query.graph
        thread = graph.tasks[task].thread
        following = graph.next[task]
        if fork == 0 and following >= 0:
            query.tasks[following].waited_from = query.tasks[following].granted = self.now
        forks = graph.tasks[task].forks
        if task == graph.answer and forks and self.cancels:
            query.overflows += int(max(len(forks) - max(query.free, 0), 0))
            self.answer(number)
            return
        while fork < len(forks):
            child = forks[fork]
            fork += 1
            if query.free > 0 or self.protocol.when_full == "allow":
                query.overflows += query.free <= 0
                query.free -= 1
                query.holds.add(child)
                self.start_thread(number, child)
                continue
            query.overflows += 1
            if self.protocol.when_full == "drop":
                query.dropped.add(child)
                if graph.joined_by[child] >= 0:
                    self.less(number, graph.joined_by[child], None)
            elif self.protocol.when_full == "inline":
                query.inline.add(child)
                query.paused[child] = (task, fork)
                self.start_thread(number, child, place)
                return
            else:
                query.live.add(child)
                query.queue.append(child)
                query.tasks[graph.first[child]].waited_from = self.now
                if self.protocol.when_full == "block":
                    query.paused[child] = (task, fork)
                    return
        if following >= 0:
            query.reached.add(following)
            self.less(number, following, place)
            return
        query.live.discard(thread)
        query.ended.add(thread)
        if graph.joined_by[thread] >= 0:
            self.less(number, graph.joined_by[thread], None)
        if thread in query.inline:
            self.go_on(number, *query.paused.pop(thread), place)

    def release(self, number: int, thread: int) -> None:
        """Free the slot of `thread`, if it has one. It goes at once to the first that waits."""
        query = self.queries[number]
        if thread not in query.holds:
            return
        query.holds.remove(thread)
        query.free += 1
        if query.queue and query.free > 0:
            child = query.queue.pop(0)
            query.free -= 1
            query.holds.add(child)
            forked = query.tasks[query.graph.first[child]].waited_from
            self.start_thread(number, child)
            query.tasks[query.graph.first[child]].waited_from = forked
            if child in query.paused:
                task, fork = query.paused.pop(child)
                if query.graph.next[task] >= 0:
                    query.tasks[query.graph.next[task]].granted = self.now
                # Reading: a parent that had to wait for a slot does not keep its place, even if it got it at once.
                self.go_on(number, task, fork, None)

    def less(self, number: int, task: int, place: int | None) -> None:
        """`task` has one thing less to wait for."""
        query = self.queries[number]
        state = query.tasks[task]
        state.waits_for -= 1
        spec = query.graph.tasks[task]
        if self.protocol.release == "join" and task in query.reached:
            while state.joined < len(spec.joins) and spec.joins[state.joined] in query.ended | query.dropped:
                state.joined += 1
                self.release(number, spec.joins[state.joined - 1])
        if state.waits_for:
            return
        state.ready = self.now
        missing = query.not_inserted
        for child in spec.joins:
            if child in query.dropped | query.inline:
                # Reading: what it would have inserted is prefill not done or, if that is charged, tokens not decoded.
                if query.graph.protocol.charge_inserted:
                    state.tokens -= query.graph.inserted[child]
                else:
                    missing[spec.thread] = missing.get(spec.thread, 0) + query.graph.inserted[child]
        if state.tokens:
            prefill = spec.prefill - missing.pop(spec.thread, 0)
            if spec.thread in query.inline and task == query.graph.reader(query.graph.first[spec.thread]):
                prefill -= _own_prompt(query.graph, spec.thread)
            sequence = SequenceState(number, spec.thread, task, prefill)
            # Reading: prompts that are free are something to prefill all the same.
            if place is not None and not spec.joins and not prefill:
                self.kept[place] = sequence
            else:
                self.waiting.append(sequence)
            return
        pause = self.protocol.delay_steps(spec.seconds) if isinstance(self.cost, DecodeSteps) else spec.seconds
        if pause:
            state.start = state.decode_start = self.now
            self.delays.add((number, task))
            heapq.heappush(self.heap, (self.now + pause, "delay", number, task))
        else:
            self.next_round.append((number, spec.thread, task))

    def cancel(self, number: int) -> None:
        """End all threads of an answered query."""
        query = self.queries[number]
        query.cancelled = True
        for delay in sorted(d for d in self.delays if d[0] == number):
            self.delays.remove(delay)
            self.write(number, query.graph.tasks[delay[1]].thread, delay[1], tokens=0, cancelled=True)

    def write(self, number: int, thread: int, task: int, *, tokens: int, cancelled: bool = False) -> None:
        query = self.queries[number]
        s = query.tasks[task]
        key = (number, thread, task)
        assert key not in self.rows, f"task {key} ran twice"
        times = (s.waited_from, s.granted, s.ready, s.start, s.decode_start, self.now)
        self.rows[key] = Row(*times, tokens, cancelled, thread in query.inline)

    # The GPU

    def host(self, number: int, thread: int) -> int:
        """The thread whose context `thread` reads and writes."""
        query = self.queries[number]
        while thread in query.inline:
            thread = query.graph.parent(thread)
        return thread

    def plan(self) -> None:
        """At a boundary, or while idle: who leaves, stays and enters; then the next step starts."""
        batch: list[SequenceState] = []
        for place, sequence in enumerate(self.batch):
            query = self.queries[sequence.query]
            if sequence.tokens < query.tasks[sequence.task].tokens:
                if query.cancelled:
                    self.leave_cancelled(sequence)
                else:
                    batch.append(sequence)
            elif place in self.kept:
                kept = self.kept[place]
                if query.cancelled:
                    self.leave_cancelled(kept)
                else:
                    state = query.tasks[kept.task]
                    state.start = state.decode_start = self.now
                    batch.append(kept)
        # Reading: work that waits for admission leaves at the end of the step, too, if it is cancelled in mid-step.
        for sequence in [s for s in self.waiting if self.queries[s.query].cancelled]:
            self.waiting.remove(sequence)
            self.leave_cancelled(sequence)
        self.waiting.sort(
            key=lambda s: (
                self.keys[s.query][s.task],
                self.queries[s.query].tasks[s.task].ready,
                (s.query, s.thread, s.task),
            )
        )
        while self.waiting and len(batch) < self.room:
            sequence = self.waiting.pop(0)
            query = self.queries[sequence.query]
            state = query.tasks[sequence.task]
            state.start = self.now
            if self.cost.prefill_is_free:
                query.context[self.host(sequence.query, sequence.thread)] += sequence.prefill
                sequence.prefill = 0
            if not sequence.prefill:
                state.decode_start = self.now
            batch.append(sequence)
        if len(batch) != (self.changes[-1][1] if self.changes else 0):
            self.changes.append((self.now, len(batch)))
        self.batch = batch
        if batch:
            self.start_step()

    def leave_cancelled(self, sequence: SequenceState) -> None:
        state = self.queries[sequence.query].tasks[sequence.task]
        if isnan(state.start):  # not admitted
            state.start = self.now
        if isnan(state.decode_start):  # its prompt is not processed yet
            state.decode_start = self.now
        self.write(sequence.query, sequence.thread, sequence.task, tokens=sequence.tokens, cancelled=True)

    def start_step(self) -> None:
        decoding = [s for s in self.batch if not s.prefill]
        context = sum(self.queries[s.query].context[self.host(s.query, s.thread)] for s in decoding)
        left = self.budget - len(decoding)
        prefill_tokens = prefill_context = 0
        self.chunks = {}
        for sequence in self.batch:
            m = min(sequence.prefill, left)
            if m:
                before = self.queries[sequence.query].context[self.host(sequence.query, sequence.thread)]
                self.chunks[sequence] = int(m)
                left -= m
                prefill_tokens += int(m)
                prefill_context += int(m * before + m * (m + 1) // 2)
        seconds = self.cost.step_seconds(len(decoding), context, prefill_tokens, prefill_context)
        self.stepping = True
        self.steps += 1
        self.busy += seconds
        heapq.heappush(self.heap, (self.now + seconds, "step", 0, 0))

    def end_step(self) -> dict[tuple[int, int, int], int]:
        """Give out the step's tokens. Return the tasks that have finished, with their places in the batch."""
        self.stepping = False
        finished: dict[tuple[int, int, int], int] = {}
        for place, sequence in enumerate(self.batch):
            query = self.queries[sequence.query]
            host = self.host(sequence.query, sequence.thread)
            if sequence.prefill:
                chunk = self.chunks.get(sequence, 0)
                sequence.prefill -= chunk
                query.context[host] += chunk
                if sequence.prefill:
                    continue
                query.tasks[sequence.task].decode_start = self.now
            sequence.tokens += 1
            query.context[host] += 1
            if sequence.tokens == query.tasks[sequence.task].tokens:
                # Reading: work cancelled in mid-step that gets its last token in that step was not cut short.
                key = (sequence.query, sequence.thread, sequence.task)
                self.write(*key, tokens=sequence.tokens)
                if not query.cancelled:
                    finished[key] = place
        return finished


def _own_prompt(graph: ExecutionGraph, thread: int) -> int:
    """Tokens of the thread's own prompt that its first decode processes."""
    recorded = graph.trace.thread(graph.threads[thread]) if graph.trace else None
    return recorded.prompt_tokens - recorded.shared_tokens if recorded else graph.prompts[thread]
