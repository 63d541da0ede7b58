"""The oracle with paged KV memory: every block is an object, every block is had, pinned and evicted one by one.

Written from the section 'KV memory' of ``docs/semantics.md`` on top of `tests.oracle`; it shares nothing with the code
that it is compared with. Where the page leaves a choice, the reading taken here is marked ``Reading:``.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any, NamedTuple

from simulator.errors import ConfigError
from simulator.graph import ExecutionGraph
from simulator.protocol import Protocol
from simulator.timeline import CANCELLED, INLINE
from tests.oracle import PolicyKey, _Oracle
from tests.oracle_state import SequenceState as _Sequence
from tests.paged_memory import Memory, Request, Thread

PREEMPTED = 4


class Stay(NamedTuple):
    """One stay of a task in the batch, or its time off the GPU; times in seconds."""

    waited_from: float
    granted: float
    ready: float
    start: float
    decode_start: float
    finish: float
    tokens: int
    flags: int


@dataclass
class PagedResult:
    """All that the oracle says."""

    rows: dict[tuple[int, int, int], list[Stay]]
    """By query, thread, task: its stays in order."""
    answered: list[float]
    """NaN if never."""
    overflows: list[int]
    deadlocked: tuple[int, ...]
    steps: int
    busy: float
    batch: list[tuple[float, int]]
    """Time, and sequences in the batch from then on; only where that changes."""
    preemptions: int
    evictions: int
    prefilled: int
    """Prompt tokens processed, those processed again included."""
    most: int
    """The most blocks in use at once, blocks that nobody runs on included."""


def paged_oracle(
    graphs: Sequence[ExecutionGraph],
    *,
    cost: Any,
    num_kv_blocks: int,
    block_size: int = 16,
    prefix_caching: bool = True,
    max_num_seqs: int | None = None,
    max_num_batched_tokens: int | None = None,
    protocol: Protocol,
    arrivals: Sequence[float],
    policy_key: PolicyKey | None = None,
) -> PagedResult:
    """Simulate `graphs`, one a query, arriving at `arrivals`."""
    paged = _Paged(graphs, cost, max_num_seqs, max_num_batched_tokens, protocol, arrivals, policy_key)
    memory = paged.memory = Memory(num_kv_blocks, block_size, prefix_caching, paged.parent)
    result = paged.run()
    assert not any(block.pins for block in memory.blocks.values()), "nothing runs, but blocks are pinned"
    return PagedResult(
        paged.stays,
        result.answered,
        result.overflows,
        result.deadlocked,
        result.steps,
        result.busy,
        result.batch,
        paged.preemptions,
        memory.evictions,
        paged.prefilled,
        memory.most,
    )


class _Paged(_Oracle):
    memory: Memory

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.stays: dict[tuple[int, int, int], list[Stay]] = {}
        self.after: dict[_Sequence, int] = {}
        self.requests: dict[_Sequence, Request] = {}
        """Of what is in the batch."""
        self.since: dict[_Sequence, float] = {}
        """Time of readiness, by which the queue is sorted; preemption does not change it."""
        self.shared: dict[Thread, int] = {}
        """Of each such thread: how many tokens of that."""
        self.parents: dict[Thread, Thread | None] = {}
        """Of each thread that has had a request: whose context its prompt begins with."""
        self.preemptions = 0
        self.prefilled = 0

    def parent(self, thread: Thread) -> Thread | None:
        return self.parents[thread]

    def less(self, number: int, task: int, place: int | None) -> None:
        super().less(number, task, place)
        for sequence in self.waiting:
            thread = (sequence.query, self.host(sequence.query, sequence.thread))
            if thread not in self.parents:
                above: Thread | None = thread
                shared = []
                while above is not None and above not in self.parents:
                    graph = self.queries[above[0]].graph
                    shared.append(graph.shared[above[1]])
                    name = graph.parent(above[1])
                    above = (above[0], self.host(above[0], name)) if name >= 0 else None
                self.parents[thread] = above
                self.shared[thread] = min(shared)

    def write(
        self,
        number: int,
        thread: int,
        task: int,
        *,
        tokens: int,
        cancelled: bool = False,
        preempted: bool = False,
    ) -> None:
        query = self.queries[number]
        s = query.tasks[task]
        rows = self.stays.setdefault((number, thread, task), [])
        assert not rows or rows[-1].flags & PREEMPTED, "a task that is done goes on"
        earlier = sum(row.tokens for row in rows)
        flags = CANCELLED * cancelled + INLINE * (thread in query.inline) + PREEMPTED * preempted
        times = (s.waited_from, s.granted, s.ready, s.start, s.decode_start, self.now)
        rows.append(Stay(*times, tokens - earlier, flags))

    def plan(self) -> None:
        batch: list[_Sequence] = []
        ended: list[_Sequence] = []
        cancelled: list[_Sequence] = []
        for place, sequence in enumerate(self.batch):
            query = self.queries[sequence.query]
            if sequence.tokens < query.tasks[sequence.task].tokens:
                if query.cancelled:
                    cancelled.append(sequence)
                    self.leave_cancelled(sequence)
                else:
                    batch.append(sequence)
            elif place in self.kept and not query.cancelled:
                kept = self.kept[place]
                self.requests[kept] = self.requests.pop(sequence)
                self.check(kept)
                state = query.tasks[kept.task]
                state.start = state.decode_start = self.now
                batch.append(kept)
            else:
                ended.append(sequence)
                if place in self.kept:
                    self.leave_cancelled(self.kept[place])
        for group in (ended, cancelled):
            for sequence in sorted(group, key=lambda s: (s.query, s.thread, s.task)):
                self.memory.end(self.requests.pop(sequence))
        for sequence in [s for s in self.waiting if self.queries[s.query].cancelled]:
            self.waiting.remove(sequence)
            self.leave_cancelled(sequence)
        for sequence in self.waiting:
            self.check(sequence)
            self.since.setdefault(sequence, self.queries[sequence.query].tasks[sequence.task].ready)
        self.batch = batch
        preemptions = self.preemptions
        while not self.reserve():
            self.preempt(self.batch.pop())
        if self.preemptions == preemptions:
            self.admit()
        if len(self.batch) != (self.changes[-1][1] if self.changes else 0):
            self.changes.append((self.now, len(self.batch)))
        if self.batch:
            self.start_step()

    def check(self, sequence: _Sequence) -> None:
        """Refuse what would not fit into the empty memory."""
        query = self.queries[sequence.query]
        last = self.total(sequence) + query.tasks[sequence.task].tokens - sequence.tokens - 1
        if -(-last // self.memory.block_size) > self.memory.size:
            raise ConfigError(f"query {sequence.query}: task {sequence.task} never fits")

    def shares(self) -> dict[_Sequence, int]:
        """Of each sequence in the batch: how many tokens it will have in memory after the next step."""
        left = self.budget - sum(not self.requests[s].prompt for s in self.batch)
        result = {}
        for sequence in self.batch:
            request = self.requests[sequence]
            if request.prompt:
                m = min(request.prompt, left)
                left -= m
                result[sequence] = int(request.found + m)
            else:
                result[sequence] = self.context(sequence)
        return result

    def context(self, sequence: _Sequence) -> int:
        return self.queries[sequence.query].context[self.host(sequence.query, sequence.thread)]

    def total(self, sequence: _Sequence) -> int:
        """Tokens that the next token attends to; of an empty context, the one that it is given."""
        return max(self.context(sequence) + sequence.prefill, 1)

    def reserve(self) -> bool:
        """Have blocks for the next step of the whole batch; or have none, and say so."""
        wanted = [
            (self.requests[sequence], index)
            for sequence, tokens in self.shares().items()
            for index in self.memory.missing(self.requests[sequence], tokens)
        ]
        if not self.memory.can_have(len(wanted)):
            return False
        for request, index in wanted:
            self.memory.have(request, index)
        return True

    def preempt(self, sequence: _Sequence) -> None:
        self.preemptions += 1
        self.memory.end(self.requests.pop(sequence))
        state = self.queries[sequence.query].tasks[sequence.task]
        if isnan(state.decode_start):  # its prompt is not processed yet
            state.decode_start = self.now
        self.write(sequence.query, sequence.thread, sequence.task, tokens=sequence.tokens, preempted=True)
        self.since.setdefault(sequence, state.ready)  # it may have kept a place, and never been in the queue
        state.waited_from = state.granted = state.ready = self.now
        state.start = state.decode_start = nan
        self.waiting.append(sequence)

    def admit(self) -> None:
        self.waiting.sort(
            key=lambda s: (self.keys[s.query][s.task], self.since[s], (s.query, s.thread, s.task)),
        )
        while self.waiting and len(self.batch) < self.room:
            sequence = self.waiting[0]
            query = self.queries[sequence.query]
            thread = (sequence.query, self.host(sequence.query, sequence.thread))
            total = self.total(sequence)
            base, blocks, useless = self.memory.found(thread, self.shared[thread])
            known = min(len(blocks), (total - 1) // self.memory.block_size) * self.memory.block_size
            request = Request(thread, total, known, blocks)
            old = self.memory.base.get(thread, 0)
            self.memory.base[thread] = base
            for block in useless:
                self.memory.free(block)
            for block in blocks:
                block.pins += 1
            self.requests[sequence] = request
            self.batch.append(sequence)
            if not self.reserve():
                # Reading: what is found is settled at admission; who is not admitted changes nothing.
                self.batch.pop()
                del self.requests[sequence]
                for block in blocks:
                    block.pins -= 1
                for block in useless:
                    self.memory.blocks[block.owner, block.index] = block
                self.memory.base[thread] = old
                return
            self.waiting.pop(0)
            query.context[thread[1]] = total
            sequence.prefill = 0
            query.tasks[sequence.task].start = self.now

    def start_step(self) -> None:
        decoding = [s for s in self.batch if not self.requests[s].prompt]
        prefill_tokens = prefill_context = 0
        self.after = self.shares()
        for sequence in self.batch:
            request = self.requests[sequence]
            if request.prompt:
                m = self.after[sequence] - request.found
                prefill_tokens += m
                prefill_context += m * request.found + m * (m + 1) // 2
        self.prefilled += prefill_tokens
        context = sum(self.context(s) for s in decoding)
        seconds = self.cost.step_seconds(len(decoding), context, prefill_tokens, prefill_context)
        self.stepping = True
        self.steps += 1
        self.busy += seconds
        heapq.heappush(self.heap, (self.now + seconds, "step", 0, 0))

    def end_step(self) -> dict[tuple[int, int, int], int]:
        self.stepping = False
        finished: dict[tuple[int, int, int], int] = {}
        for place, sequence in enumerate(self.batch):
            query = self.queries[sequence.query]
            request = self.requests[sequence]
            prompt = request.prompt
            request.found = max(request.found, self.after[sequence])
            self.memory.fill(request)
            if request.prompt:
                continue
            if prompt:
                query.tasks[sequence.task].decode_start = self.now
            sequence.tokens += 1
            query.context[request.thread[1]] += 1
            if sequence.tokens == query.tasks[sequence.task].tokens:
                key = (sequence.query, sequence.thread, sequence.task)
                self.write(*key, tokens=sequence.tokens)
                if not query.cancelled:
                    finished[key] = place
        return finished
