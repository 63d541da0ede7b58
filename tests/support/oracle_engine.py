"""The GPU of the oracle: a batch, a queue, and engine steps taken one by one. Here memory never runs out."""

from __future__ import annotations

from math import inf, isnan
from typing import Any

from simulator import GPU
from simulator.machine.policy import Entry, Queue
from tests.support.oracle_state import CANCELLED, Holder, ReplicaResult, Request

LIVELOCK = 200_000
"""Steps that no scenario takes."""


class Engine:
    """One replica without KV memory. `world` is the `tests.support.oracle.Oracle` that it belongs to."""

    def __init__(self, world: Any, number: int, gpu: GPU) -> None:
        self.world = world
        self.number = number
        self.cost: Any = gpu.cost
        self.room = min(gpu.max_num_seqs or inf, gpu.max_num_batched_tokens or inf)
        self.budget = gpu.max_num_batched_tokens or inf
        self.prompt_budget = gpu.max_prefill_tokens or inf
        self.batch: list[Request] = []
        self.waiting: list[Request] = []
        self.after: dict[Request, int] = {}
        """Of each that processes its prompt in this step: tokens found or processed when it ends."""
        self.held: dict[Holder, int] = {}
        """Of each context, how many tokens it had when it was last decoded here."""
        self.stepping = False
        self.steps = 0
        self.busy = 0.0
        self.prefilled = 0
        self.changes: list[tuple[float, int]] = []

    def result(self) -> ReplicaResult:
        return ReplicaResult(self.steps, self.busy, self.changes, 0, 0, self.prefilled, [], 0)

    # Routing

    def load(self) -> int:
        """Requests here; one that has finished at this boundary is not, unless its place is kept already."""
        return len(self.waiting) + sum(not r.done or r.follow is not None for r in self.batch)

    def holds(self, request: Request) -> int:
        """How many tokens of the request's context are here."""
        return self.has(request.holder)

    def take(self, request: Request) -> None:
        self.waiting.append(request)

    def has(self, holder: Holder) -> int:
        """Tokens of the context of `holder` that are here."""
        if holder in self.held:
            return self.held[holder]
        graph = self.world.queries[holder[0]].graph
        above = self.world.above(holder)
        # One GPU alone has what a worker shares with its parent, come what may.
        if holder[1] and len(self.world.engines) == 1:
            return graph.threads[holder[1]].shared
        if above is None:
            return 0 if graph.prefix_of is not None else graph.threads[0].shared
        return min(graph.threads[holder[1]].shared, self.has(above))

    # A boundary

    def plan(self) -> None:
        """At a boundary, or while idle: who leaves, stays and enters; then the next step starts."""
        batch: list[Request] = []
        ended: list[Request] = []
        cancelled: list[Request] = []
        for request in self.batch:
            gone = self.world.queries[request.query].cancelled
            if not request.done:
                (cancelled if gone else batch).append(request)
            elif request.follow and not gone:
                self.keep(request, request.follow)
                batch.append(request.follow)
            else:
                ended.append(request)
                if request.follow:
                    self.cut(request.follow)
        for request in cancelled:
            self.cut(request)
        for group in (ended, cancelled):
            for request in sorted(group, key=lambda r: r.number):
                self.forget(request)
        # Reading: work that waits for admission leaves at the end of the step, too, if it is cancelled in mid-step.
        for request in [r for r in self.waiting if self.world.queries[r.query].cancelled]:
            self.waiting.remove(request)
            self.cut(request)
        self.batch = batch
        if self.make_room():
            self.waiting.sort(key=lambda r: r.key)
            while self.waiting and len(self.batch) < self.room:
                chosen = self.chosen()
                if not self.admit(chosen):
                    break
                self.waiting.remove(chosen)
                state = self.world.state(chosen)
                state.start = self.world.now
                if not self.batch[-1].prompt:
                    state.decode_start = self.world.now
        if len(self.batch) != (self.changes[-1][1] if self.changes else 0):
            self.changes.append((self.world.now, len(self.batch)))
        if self.batch:
            self.start_step()

    def chosen(self) -> Request:
        """Who is admitted next."""
        if self.world.choose is None:
            return self.waiting[0]
        waiting = [self.entry(request, self.to_prefill(request)) for request in self.waiting]
        running = sorted(self.entry(request, request.prompt) for request in self.batch)
        entry = self.world.choose(Queue(self.world.now, self.number, tuple(waiting), tuple(running)))
        return self.waiting[waiting.index(entry)]

    def entry(self, request: Request, prefill: int) -> Entry:
        key, since, _ = request.key
        return Entry(*request.number, request.wanted - request.tokens, prefill, since, key)

    def to_prefill(self, request: Request) -> int:
        """Tokens put into the context of a request that waits."""
        return request.prefill

    def keep(self, request: Request, follow: Request) -> None:
        """`follow` goes on in the place of `request`."""
        follow.total, follow.found, follow.pinned = request.total, request.found, request.pinned
        state = self.world.state(follow)
        state.start = state.decode_start = self.world.now

    def cut(self, request: Request) -> None:
        """`request` is cancelled and leaves."""
        self.stop(request, CANCELLED)

    def stop(self, request: Request, flag: int) -> None:
        state = self.world.state(request)
        if isnan(state.start):  # not admitted
            state.start = self.world.now
        if isnan(state.decode_start):  # its prompt is not processed yet
            state.decode_start = self.world.now
        self.world.write(*request.number, tokens=request.tokens, flags=flag, replica=self.number)

    def forget(self, request: Request) -> None:
        """`request` has left the batch."""

    def make_room(self) -> bool:
        """See to it that the batch can take its next step. Return whether others may be admitted."""
        return True

    def admit(self, request: Request) -> bool:
        """Put `request` into the batch, if it fits."""
        request.total = self.context(request) + request.prefill
        request.found = request.total if self.cost.prefill_is_free else min(self.has(request.holder), request.total)
        self.enter(request)
        return True

    def enter(self, request: Request) -> None:
        request.prefill = 0
        self.world.queries[request.query].context[request.holder[1]] = request.total
        self.batch.append(request)

    def context(self, request: Request) -> int:
        return int(self.world.queries[request.query].context[request.holder[1]])

    # A step

    def shares(self) -> dict[Request, int]:
        """Of each prompt in the batch: how many of its tokens will be processed after the next step."""
        left = min(self.budget - sum(not r.prompt for r in self.batch), self.prompt_budget)
        result = {}
        for request in self.batch:
            if request.prompt:
                m = min(request.prompt, left)
                left -= m
                result[request] = int(request.found + m)
        return result

    def start_step(self) -> None:
        decoding = [r for r in self.batch if not r.prompt]
        self.after = self.shares()
        prefill_tokens = prefill_context = 0
        for request, after in self.after.items():
            m = after - request.found
            prefill_tokens += m
            prefill_context += m * request.found + m * (m + 1) // 2
        context = sum(self.context(r) for r in decoding)
        seconds = self.cost.step_seconds(len(decoding), context, prefill_tokens, prefill_context)
        self.stepping = True
        self.steps += 1
        assert self.steps < LIVELOCK, "the engine never comes to an end"
        self.busy += seconds
        self.prefilled += prefill_tokens
        self.world.wake(seconds, "step", self.number)

    def end_step(self) -> list[Request]:
        """Give out the step's tokens. Return what has finished."""
        self.stepping = False
        finished = []
        for request in self.batch:
            if request.prompt:
                request.found = self.after[request]
                if request.prompt:
                    continue
                self.world.state(request).decode_start = self.world.now
            request.tokens += 1
            query = self.world.queries[request.query]
            if request.thread == 0 and isnan(query.first_token):
                query.first_token = self.world.now
            query.context[request.holder[1]] += 1
            if request.done:
                # Reading: work cancelled in mid-step that gets its last token in that step was not cut short.
                self.held[request.holder] = self.context(request)
                self.world.write(*request.number, tokens=request.tokens, replica=self.number)
                if not query.cancelled:
                    finished.append(request)
        return finished
