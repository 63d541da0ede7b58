"""The GPU of the oracle with paged KV memory: every block is an object, had, pinned and evicted one by one.

Written from the section 'KV memory' of ``docs/semantics.md`` on top of `tests.support.oracle_engine`. Where the page
leaves a choice, the reading taken here is marked ``Reading:``.
"""

from __future__ import annotations

from math import nan
from typing import Any

from simulator import GPU
from simulator.errors import ConfigError
from tests.support.oracle_engine import Engine
from tests.support.oracle_state import PREEMPTED, Holder, ReplicaResult, Request
from tests.support.paged_memory import Block, Memory


class PagedEngine(Engine):
    """One replica with `num_kv_blocks`."""

    def __init__(self, world: Any, number: int, gpu: GPU) -> None:
        super().__init__(world, number, gpu)
        assert gpu.num_kv_blocks is not None
        self.parents: dict[Holder, Holder | None] = {}
        """Of each that has had a request here: whose context its own begins with."""
        self.shared: dict[Holder, int] = {}
        """How many tokens of that."""
        self.memory = Memory(gpu.num_kv_blocks, gpu.block_size, gpu.prefix_caching, self.parents.__getitem__)
        self.preemptions = 0
        self.pinned: list[tuple[float, float, int]] = []

    def result(self) -> ReplicaResult:
        assert not any(block.pins for block in self.memory.blocks.values()), "nothing runs, but blocks are pinned"
        memory = self.memory
        seen = {"preemptions": self.preemptions, "pinned": self.pinned}
        return super().result()._replace(evictions=memory.evictions, most=memory.most, **seen)

    def kin(self, holder: Holder) -> tuple[Holder | None, int]:
        """The nearest ancestor that has had a request here, and what is shared with it."""
        if holder in self.parents:
            return self.parents[holder], self.shared[holder]
        above: Holder | None = holder
        shared = []
        while above is not None and above not in self.parents:
            shared.append(self.world.queries[above[0]].graph.threads[above[1]].shared)
            above = self.world.above(above)
        return above, min(shared)

    def holds(self, request: Request) -> int:
        blocks = self.memory.found(request.holder, *self.kin(request.holder))[1]
        # Its last request may end at this boundary; the block that it worked in is then of no use.
        return self.known(request, [block for block in blocks if block.full])

    def known(self, request: Request, blocks: list[Block]) -> int:
        """Tokens that need no processing if `blocks` are found: never the last one."""
        return min(len(blocks), (self.total(request) - 1) // self.memory.block_size) * self.memory.block_size

    def take(self, request: Request) -> None:
        super().take(request)
        self.parents[request.holder], self.shared[request.holder] = self.kin(request.holder)
        self.check(request)

    def total(self, request: Request) -> int:
        """Tokens that the next token attends to; of an empty context, the one that it is given."""
        return max(self.context(request) + request.prefill, 1)

    def check(self, request: Request) -> None:
        """Refuse what would not fit into the empty memory."""
        last = self.total(request) + request.wanted - request.tokens - 1
        if -(-last // self.memory.block_size) > self.memory.size:
            raise ConfigError(f"query {request.query}: task {request.task} never fits")

    def to_prefill(self, request: Request) -> int:
        """Of one that was preempted, all; of an empty context, the token that it is given."""
        if request.total:
            return self.context(request)
        return max(request.prefill, 1 - self.context(request))

    def keep(self, request: Request, follow: Request) -> None:
        super().keep(request, follow)
        request.pinned = []
        self.check(follow)

    def forget(self, request: Request) -> None:
        self.memory.end(request)

    def make_room(self) -> bool:
        preemptions = self.preemptions
        while not self.reserve():
            request = self.batch.pop()
            self.preemptions += 1
            self.memory.end(request)
            self.stop(request, PREEMPTED)
            state = self.world.state(request)
            state.waited_from = state.slotted = state.granted = state.ready = self.world.now
            state.start = state.decode_start = nan
            self.waiting.append(request)
        return self.preemptions == preemptions

    def reserve(self) -> bool:
        """Have blocks for the next step of the whole batch; or have none, and say so."""
        after = self.shares()
        wanted = [
            (request, index)
            for request in self.batch
            for index in self.memory.missing(request, after.get(request, self.context(request)))
        ]
        if not self.memory.can_have(len(wanted)):
            return False
        for request, index in wanted:
            self.memory.have(request, index)
        return True

    def admit(self, request: Request) -> bool:
        memory, holder = self.memory, request.holder
        total = self.total(request)
        base, blocks, useless = memory.found(holder, self.parents[holder], self.shared[holder])
        before = memory.base.get(holder, 0), request.total, request.found, request.prefill, self.context(request)
        memory.base[holder] = base
        for block in useless:
            memory.free(block)
        for block in blocks:
            block.pins += 1
        request.total, request.pinned = total, blocks
        request.found = self.known(request, blocks)
        self.enter(request)
        if self.reserve():
            return True
        # Reading: what is found is settled at admission; who is not admitted changes nothing.
        self.batch.pop()
        for block in blocks:
            block.pins -= 1
        for block in useless:
            memory.blocks[block.owner, block.index] = block
        memory.base[holder], request.total, request.found, request.prefill, context = before
        self.world.queries[request.query].context[holder[1]] = context
        request.pinned = []
        return False

    def start_step(self) -> None:
        self.begun = self.world.now
        super().start_step()

    def end_step(self) -> list[Request]:
        self.pinned.append((self.begun, self.world.now, sum(block.pins > 0 for block in self.memory.blocks.values())))
        decoding = [(r, self.context(r)) for r in self.batch if not r.prompt]
        finished = super().end_step()
        for request, context in decoding:
            request.found = context
        for request in self.batch:
            self.memory.fill(request)
        return finished
