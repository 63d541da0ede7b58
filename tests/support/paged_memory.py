"""KV memory of single blocks, for `tests.support.paged_oracle`: each is an object, had, pinned, evicted by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.support.oracle_state import Holder, Request


@dataclass(eq=False)
class Block:
    """Room for `block_size` tokens."""

    owner: Holder
    index: int
    """Its place in the owner's context."""
    full: bool = False
    pins: int = 1
    """Running requests that need it."""


@dataclass
class Memory:
    """`size` blocks, and who has them."""

    size: int
    block_size: int
    caching: bool
    parent: Callable[[Holder], Holder | None]
    blocks: dict[tuple[Holder, int], Block] = field(default_factory=dict)
    """Every block in use, by owner and place."""
    base: dict[Holder, int] = field(default_factory=dict)
    unpinned: dict[Holder, int] = field(default_factory=dict)
    """When blocks of a thread were last unpinned: a count of such events, so that no two are at once."""
    events: int = 0
    evictions: int = 0
    most: int = 0

    def at(self, thread: Holder | None, index: int) -> Block | None:
        """The full block that holds the tokens from ``index * block_size`` on of `thread`'s context."""
        if thread is None:
            return None
        if index < self.base.get(thread, 0):
            return self.at(self.parent(thread), index)
        block = self.blocks.get((thread, index))
        return block if block and block.full else None

    def run(self, thread: Holder | None) -> int:
        """How many blocks of `thread` are in memory from the first on without a gap."""
        n = 0
        while self.at(thread, n):
            n += 1
        return n

    def own(self, thread: Holder) -> list[Block]:
        """The own blocks of `thread`, in order."""
        return sorted((b for b in self.blocks.values() if b.owner == thread), key=lambda b: b.index)

    def can_have(self, n: int) -> bool:
        """Whether `n` blocks can be had."""
        return n <= self.size - len(self.blocks) + sum(not b.pins for b in self.blocks.values())

    def have(self, request: Request, index: int) -> None:
        """Give `request` a block to work in at place `index`."""
        if len(self.blocks) == self.size:
            self.evict()
        block = Block(request.holder, index)
        assert (block.owner, index) not in self.blocks
        self.blocks[block.owner, index] = block
        request.pinned.append(block)
        self.most = max(self.most, len(self.blocks))
        assert self.most <= self.size

    def evict(self) -> None:
        """Take away the last own block of the thread that nobody has needed for longest."""
        owners = {b.owner for b in self.blocks.values() if not b.pins}
        block = self.own(min(owners, key=lambda thread: self.unpinned[thread]))[-1]
        assert not block.pins and block.full
        self.free(block)
        self.evictions += 1

    def free(self, block: Block) -> None:
        del self.blocks[block.owner, block.index]

    def missing(self, request: Request, tokens: int) -> list[int]:
        """Places that need a block so that `request` can have `tokens` tokens in memory."""
        last = -(-tokens // self.block_size)
        return [
            i
            for i in range(last)
            if i >= self.base[request.holder] and (request.holder, i) not in self.blocks  # base and own are pinned
        ]

    def found(self, thread: Holder, parent: Holder | None, shared: int) -> tuple[int, list[Block], list[Block]]:
        """What `thread` finds: its base from now on, its blocks of use, and its own that are of no use any more."""
        if not self.caching:
            return 0, [], []
        own, useless = self.own(thread), list[Block]()
        base = self.base.get(thread, 0)
        if own and self.run(parent) < base:
            own, useless = [], own
        if not own:
            base = min(self.run(parent), shared // self.block_size)
        return base, [b for i in range(base) if (b := self.at(parent, i))] + own, useless

    def fill(self, request: Request) -> None:
        """Note which blocks of `request` are full by now."""
        for block in request.pinned:
            block.full = block.full or (block.index + 1) * self.block_size <= request.found

    def end(self, request: Request) -> None:
        """`request` leaves the batch: nobody needs its blocks any more but those who run."""
        owners = {request.holder} | {block.owner for block in request.pinned}
        for block in request.pinned:
            block.pins -= 1
            if not block.full or not self.caching:
                self.free(block)
        # Reading: blocks that others still pin count as unpinned by this request.
        for thread in self.lineage(request.holder):
            if thread in owners:
                self.events += 1
                self.unpinned[thread] = self.events
        request.pinned = []

    def lineage(self, thread: Holder) -> Iterator[Holder]:
        """`thread` and its ancestors, the root last."""
        at: Holder | None = thread
        while at is not None:
            yield at
            at = self.parent(at)
