"""Paged KV memory with a prefix cache.

Memory is `blocks` blocks of `size` tokens. A thread's KV is a run of its own full blocks behind a prefix of `base` full
blocks that it shares with its parent. While a request of the thread runs, all of that is pinned. Afterwards the full
blocks stay until memory is short: then the thread whose blocks were unpinned longest ago gives up its last ones first.
A block that is not full is freed with its request.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator


class Holder:
    """The KV of one thread."""

    __slots__ = ("base", "busy", "own", "parent", "pinned", "pins", "shared")

    def __init__(self, parent: Holder | None, shared: int) -> None:
        self.parent = parent
        self.shared = shared
        """Tokens of its prompt that are a prefix of its parent's context."""
        self.base = 0
        """Blocks shared with the parent, as of its last admission."""
        self.own = 0
        """Full blocks of its own that are in memory, right behind the shared ones."""
        self.busy = False
        """Whether a request of the thread is in the batch: then `own` is what it found on admission."""
        self.pins: list[int] = []
        """How many of its own blocks each running descendant needs."""
        self.pinned = 0
        """The largest of those."""

    def ancestors(self) -> Iterator[Holder]:
        """Yield the parent, its parent, and so on."""
        above = self.parent
        while above is not None:
            yield above
            above = above.parent

    def evictable(self) -> int:
        """Own blocks that nobody needs now."""
        return 0 if self.busy else self.own - self.pinned


class Cache:
    """The KV blocks of one GPU."""

    def __init__(self, blocks: int, size: int, caching: bool) -> None:
        self.blocks = blocks
        self.size = size
        self.caching = caching
        self.free = blocks
        self.evictable = 0
        self.idle: OrderedDict[Holder, None] = OrderedDict()  # that may have evictable blocks, longest unpinned first

    def take(self, count: int) -> None:
        """Use up `count` blocks, free ones first."""
        self.free -= count
        if self.free < 0:
            self._evict()

    def _evict(self) -> None:
        """Take what was used up and not free from the threads that have not run for longest: `free` is below 0."""
        free, idle = self.free, self.idle
        while free < 0:
            holder = next(iter(idle))
            spare = 0 if holder.busy else holder.own - holder.pinned
            if spare > -free:
                holder.own += free
                self.evictable += free
                free = 0
                break
            holder.own -= spare
            self.evictable -= spare
            free += spare
            del idle[holder]
        self.free = free

    def acquire(self, holder: Holder, total: int, found: int, room: int) -> int:
        """Pin what is in memory of a context of `total` tokens; take blocks for the first `room` tokens that are not.

        Parameters
        ----------
        holder : Holder
        total : int
            Tokens the thread's next token attends to; at least 1.
        found : int
            Full blocks of the parent's context in memory (see `prefix`), 0 without a parent.
        room : int
            Tokens that the first step could process.

        Returns
        -------
        int
            Tokens that need no processing, or -1 if there are too few blocks; then nothing has changed.
        """
        base, own = self.found(holder, found)
        have = base + own
        known = self.known(have, total)
        # A block is had for what the first step works on, not for the whole context: the rest is had step by step.
        missing = -(-min(total, known + room) // self.size) - have
        # What can be had is what is free or evictable, and the thread's own blocks that are of no use any more; but not
        # what this admission itself pins. That is at most what was found, so the exact sum mostly need not be done.
        if missing + have > self.free + self.evictable and missing > self.free + self.evictable + (
            holder.own - own
        ) - self._pinning(holder, own, base):
            return -1
        if holder.own:  # from here on they are pinned, or free: the thread is busy, and none of them is evictable
            self.evictable -= holder.own - holder.pinned
            self.free += holder.own - own
        holder.own, holder.base, holder.busy = own, base, True
        if base:
            self._pin(holder.parent, base)
        if missing > 0:  # not before: taking may evict, and what was found must not be what goes
            self.take(missing)
        return known

    def found(self, holder: Holder, found: int) -> tuple[int, int]:
        """Return the shared and own blocks that an admission would find, `found` of the parent's being in memory."""
        base = min(holder.shared // self.size, found) if self.caching else 0
        if not holder.own:
            return base, 0
        if holder.base > base:  # cut off from its beginning: of no use
            return base, 0
        return holder.base, holder.own

    def known(self, have: int, total: int) -> int:
        """Return how many of `total` tokens need no processing if their first `have` blocks are in memory.

        The last token is processed again even if all is there: that step yields the next token.
        """
        return min(have, (total - 1) // self.size) * self.size

    def _pinning(self, holder: Holder, own: int, base: int) -> int:
        """Return how many blocks stop being evictable when `holder` is pinned with `own` and `base` blocks."""
        count = holder.evictable()
        above = holder.parent
        while above is not None and base:
            if base > above.base and not above.busy:
                needed = max(base - above.base, above.pinned)
                count += above.evictable() - (above.own - needed)
            base = min(base, above.base)
            above = above.parent
        return count

    def release(self, holder: Holder, computed: int) -> None:
        """End a request whose thread has `computed` tokens in memory."""
        base, own = holder.base, holder.own
        # A request that was preempted in its prompt may have less than it found: what was found is there all the same.
        held = max(-(-computed // self.size) - base, own)
        full = max(computed // self.size - base, own) if self.caching else 0
        holder.busy = False
        holder.own = full
        self.free += held - full
        self.evictable += full - holder.pinned
        self._touch(holder)  # before its ancestors, whose blocks are then the last to go
        if base:
            self._unpin(holder.parent, base)

    def prefix(self, holder: Holder, computed: Callable[[Holder], int]) -> int:
        """Return how many full blocks of a thread's context are in memory without a gap, from its beginning.

        `computed` tells the tokens in memory of a thread with a running request.
        """
        have = need = 1 << 60
        above: Holder | None = holder
        while above is not None and need:
            there = above.base + above.own
            if above.busy:
                there = max(there, computed(above) // self.size)
            if there < need:  # what is behind a gap is of no use
                have = there
            if above.busy:  # all in front of it is pinned
                break
            need = min(need, above.base)
            above = above.parent
        return have

    def _pin(self, holder: Holder | None, blocks: int) -> None:
        while holder is not None and blocks:
            if blocks > holder.base:
                before = holder.evictable()
                holder.pins.append(blocks - holder.base)
                holder.pinned = max(holder.pinned, blocks - holder.base)
                self.evictable -= before - holder.evictable()
            blocks = min(blocks, holder.base)
            holder = holder.parent

    def _unpin(self, holder: Holder | None, blocks: int) -> None:
        while holder is not None and blocks:
            if blocks > holder.base:
                before = holder.evictable()
                holder.pins.remove(blocks - holder.base)
                holder.pinned = max(holder.pins, default=0)
                self.evictable += holder.evictable() - before
                self._touch(holder)
            blocks = min(blocks, holder.base)
            holder = holder.parent

    def _touch(self, holder: Holder) -> None:
        if holder.busy or holder.own == holder.pinned:
            self.idle.pop(holder, None)
        else:
            self.idle[holder] = None
            self.idle.move_to_end(holder)
