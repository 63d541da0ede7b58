"""The GPU with paged KV memory: what can be in the batch is what fits."""

from __future__ import annotations

from simulator.engine.clock import EventClock
from simulator.engine.kv import Cache, Holder
from simulator.engine.query import DECODING, PREFILLING, WAITING, Request
from simulator.engine.server import BatchServer, Calls, Settings
from simulator.errors import ConfigError
from simulator.machine.gpu import GPU


class PagedServer(BatchServer):
    """A `BatchServer` with KV memory.

    Blocks for the first step of a leap and for prompt chunks are taken before the step; those that a leap's later steps
    begin are taken when it is over, which is the same, because nobody else takes any in between.
    """

    def __init__(self, clock: EventClock, gpu: GPU, calls: Calls, settings: Settings, number: int) -> None:
        super().__init__(clock, gpu, calls, settings, number)
        assert gpu.num_kv_blocks is not None
        self.cache = Cache(gpu.num_kv_blocks, gpu.block_size, gpu.prefix_caching)
        self.size = gpu.block_size
        self.free_prefill = False
        self.batch: dict[Holder, Request] = {}  # in order of admission; a kept place keeps its turn
        # Ended at this boundary: query and thread, task, and the tokens in memory.
        self.leaving: dict[Holder, tuple[tuple[int, int], int, int]] = {}
        self.short = False  # whether others might come in after the next step
        self.taken = 1  # steps of the leap under way whose blocks have been taken
        self.passed = 0  # steps of it that are over, as of the last `_catch_up`
        self.phases = [0] * self.size  # decoding sequences by when they begin a new block, see `_begun`

    def submit(self, request: Request) -> None:
        """Put `request` in the queue, unless it can never fit."""
        self._check(request)
        BatchServer.submit(self, request)

    def keep(self, request: Request) -> None:
        """Let a thread go on in its place, and in its blocks, unless that can never fit."""
        self._check(request)
        del self.leaving[request.holder]
        self.batch[request.holder] = request  # the key is there already: the turn stays
        super().keep(request)

    def _check(self, request: Request) -> None:
        most = request.total + request.tokens - request.emitted - 1
        blocks, thread = self.cache.blocks, request.thread
        if -(-most // self.size) > blocks:
            raise ConfigError(
                f"{thread.query.graph.name}: thread {thread.spec.id} needs {most} tokens in KV memory, and"
                f" {blocks} blocks of {self.size} hold {blocks * self.size}"
            )

    def _make_room(self) -> bool:
        if self.leaving:
            self._release()
        if self.cancelled:
            self._drop_cancelled()
            self._release()
        self.short = False
        cache = self.cache
        while (need := self._next_step()) > cache.free + cache.evictable:
            self._preempt()
            self.short = True
        cache.take(need)
        return not self.short

    def _release(self) -> None:
        """Unpin the memory of what has left the batch."""
        leaving = [(*left, holder) for holder, left in self.leaving.items()]
        if len(leaving) > 1:
            leaving.sort()
        for _, _, computed, holder in leaving:
            del self.batch[holder]
            self.cache.release(holder, computed)
        self.leaving.clear()

    def _next_step(self) -> int:
        """Return the blocks that the next step begins."""
        need = self.phases[-self.step % self.size]
        if not self.prefilling:
            return need
        for request, chunk in self._chunks():
            holder = request.holder
            have = max(-(-request.context // self.size), holder.base + holder.own)
            need += max(-(-(request.context + chunk) // self.size) - have, 0)
        return need

    def _begun(self, first: int, last: int) -> int:
        """Return the blocks that decoding sequences begin in steps `first` to `last` - 1 from now.

        A sequence begins one when the tokens in its memory are a multiple of the block size: every `size` steps, in the
        phase it is counted under.
        """
        whole, rest = divmod(last - first, self.size)
        if not rest:
            return whole * self.n
        # The phases that come up in the rest go downwards, and around.
        high = -(self.step + first) % self.size + 1
        low = high - rest
        some = sum(self.phases[low:high]) if low >= 0 else sum(self.phases[:high]) + sum(self.phases[low:])
        return whole * self.n + some

    def _longest_leap(self, steps: int) -> int:
        if self.short:
            return 1
        available = self.cache.free + self.cache.evictable
        if self.n * ((steps - 1) // self.size + 1) <= available:
            return steps
        low, high = 1, steps
        while low < high:  # the largest k with room for its blocks
            middle = (low + high + 1) // 2
            if self._begun(1, middle) <= available:
                low = middle
            else:
                high = middle - 1
        return low

    def _place(self, request: Request) -> bool:
        room = min(self.budget - self.n, self.prompt_budget) - self.prompts
        holder = request.holder
        parent = holder.parent
        found = self.cache.prefix(parent, self._in_memory) if parent is not None else 0
        known = self.cache.acquire(holder, request.total, found, max(room, 0))
        if known < 0:
            # A running ancestor may fill a shared block with its next step, and less memory would do. And a policy that
            # sees the queue may choose another then.
            if found < holder.shared // self.size:
                self.short = self.short or any(above.busy for above in holder.ancestors())
            self.short = self.short or self.choose is not None
            return False
        request.context = known
        request.prefill = request.total - known
        self.batch[holder] = request
        return BatchServer._place(self, request)

    def cached(self, holder: Holder, total: int) -> int:
        """Return how many of a context's `total` tokens need no processing, if it were admitted now."""
        self._catch_up()
        if holder.busy:  # its last request ends at this boundary
            have = self._in_memory(holder) // self.size if self.cache.caching else 0
        else:
            found = self.cache.prefix(holder.parent, self._in_memory) if holder.parent is not None else 0
            have = sum(self.cache.found(holder, found))
        return self.cache.known(have, max(total, 1))

    def _catch_up(self) -> None:
        """Take the blocks that the leap under way has begun by now, and note how many of its steps are over."""
        if self.boundary is None or self.leap_steps == 1:
            return
        begun = self._steps_to_now()
        over = self.leap_start + self._decode_seconds(begun) <= self.clock.now
        self.passed = begun if over else begun - 1
        self._take_until(begun)

    def _take_until(self, steps: int) -> None:
        """Take the blocks that the first `steps` steps of a leap begin; the first step's have been taken before it."""
        if steps > self.taken:
            self.cache.take(self._begun(self.taken, steps))
            self.taken = steps

    def _in_memory(self, holder: Holder) -> int:
        """Return the tokens in memory of a thread with a request in the batch, or one that ends at this boundary."""
        left = self.leaving.get(holder)
        return left[2] if left else self._computed(self.batch[holder])

    def _computed(self, request: Request) -> int:
        """Return the tokens that a request in the batch has in memory."""
        if request.state == DECODING:
            return request.context + self.step + self.passed - request.joined_step - 1
        return request.context

    def _decode(self, request: Request) -> None:
        BatchServer._decode(self, request)
        self.phases[(request.context - 1 - self.step) % self.size] += 1

    def _leave(self, request: Request) -> None:
        behind = request.context - 1 - request.joined_step
        self.phases[behind % self.size] -= 1
        BatchServer._leave(self, request)
        self._note_end(request, behind + self.step)

    def plan(self) -> None:
        """Start the next leap, and note the memory that it begins with."""
        boundary = self.boundary
        super().plan()
        if boundary is None and self.boundary is not None:
            self._note_memory()

    def _note_memory(self) -> None:
        cache = self.cache
        self.kv_log.extend((self.clock.now, cache.blocks - cache.free - cache.evictable))

    def _arrive(self, event: object) -> None:
        self._take_until(self.leap_steps)
        self._note_memory()
        self.taken, self.passed = 1, 0
        BatchServer._arrive(self, event)

    def _end_prompt(self, request: Request) -> None:
        self._note_end(request, request.context)
        super()._end_prompt(request)

    def _note_end(self, request: Request, computed: int) -> None:
        self.leaving[request.holder] = (request.thread.order, request.task, computed)

    def _drop_cancelled(self) -> None:
        for request in self.cancelled:
            if request.state == PREFILLING:
                self._note_end(request, request.context)
        super()._drop_cancelled()

    def _preempt(self) -> None:
        """Send the request admitted last back into the queue."""
        holder, request = self.batch.popitem()
        computed = self._computed(request)
        if request.state == DECODING:
            request.total = computed + 1
            self._leave(request)
            del self.leaving[holder]
        else:
            self._leave_prompt(request)
        self.cache.release(holder, computed)
        request.state = WAITING
        request.prefill = request.total
        self.preempted(request)
        request.reported = request.emitted
        self.submit(request)
