"""The server that plays a `GPU` on the simulation clock.

Continuous batching: work joins and leaves at step boundaries, and in one step every decoding request emits one token.
The server keeps an integer step counter. Between two changes of the batch all steps are alike but for the growing
context, so it leaps over them in one event; what arrives in mid-leap cuts it at the next step boundary. A step that has
prompt tokens to process is never leapt over.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import Any

import simpy
from simpy.events import NORMAL

from simulator.errors import ConfigError
from simulator.machine.gpu import GPU

__all__ = ["BatchServer", "EventClock", "Request"]


class _Call(simpy.Event):
    """An event that has happened when it is scheduled, as a `simpy.Timeout` has; its state is that of the class."""

    _ok = True
    _value = None

    def __init__(self, clock: EventClock, callback: Callable[[Any], None]) -> None:
        self.env = clock
        self.callbacks = [callback]


class EventClock(simpy.Environment):
    """A SimPy environment that can schedule at an absolute time.

    `simpy.Environment.schedule` takes a delay, and ``now + (t - now)`` is not always ``t``: step boundaries would
    drift.
    """

    def call_at(self, time: float, callback: Callable[[Any], None], priority: int = NORMAL) -> simpy.Event:
        """Call `callback` at `time`; lower priorities first among equal times."""
        event = _Call(self, callback)
        heappush(self._queue, (time, priority, next(self._eid), event))  # type: ignore[misc]
        return event

    def is_settled(self) -> bool:
        """Whether nothing else is to happen at this time."""
        queue = self._queue
        return not queue or queue[0][0] > self._now


WAITING, PREFILLING, DECODING, GONE = range(4)


class Request:
    """One task on the GPU: its request while it waits, its place in the batch while it runs."""

    __slots__ = (
        "context",
        "decode_start",
        "emitted",
        "finish_step",
        "holder",
        "joined_step",
        "key",
        "owner",
        "prefill",
        "ready",
        "replica",
        "reported",
        "start",
        "state",
        "task",
        "thread",
        "tokens",
        "total",
    )

    def __init__(
        self, owner: Any, thread: int, task: int, tokens: int, prefill: int, context: int, ready: float
    ) -> None:
        self.owner = owner
        self.thread = thread
        self.task = task
        self.tokens = tokens
        self.prefill = prefill
        """Prompt tokens still to be processed."""
        self.context = context
        """Tokens in its context when it began to decode; before that, those already in the cache."""
        self.ready = ready
        self.start = ready
        self.decode_start = ready
        self.key = 0.0
        self.state = WAITING
        self.joined_step = 0
        """Step counter when it began to decode."""
        self.finish_step = -1
        """Step counter when its last token is out, while it decodes."""
        self.emitted = 0
        """Tokens out before it began to decode: the step that ends a prompt yields one. All of them, once it is
        gone."""
        self.reported = 0
        """Tokens of earlier stays in the batch."""
        self.total = context + prefill
        """Tokens that its next token attends to, while it does not decode."""
        self.replica = 0
        self.holder: Any = None
        """Its thread's KV, where memory is modelled."""


class BatchServer:
    """Plays a `GPU`: holds the batch, waits out each leap, and reports finished sequences.

    Parameters
    ----------
    clock : EventClock
    gpu : GPU
    done : callable
        Called with each request that leaves the batch, at that time.
    ask : callable
        Called at each boundary, after that; asks for `plan` to be called when all else of that time has happened.
    """

    def __init__(self, clock: EventClock, gpu: GPU, done: Callable[[Request], None], ask: Callable[[], None]) -> None:
        self.clock = clock
        self.gpu = gpu
        self.cost = gpu.cost
        self.done = done
        self.ask = ask
        self.free_prefill = gpu.cost.prefill_is_free
        self.cache_seconds: Callable[[int, int, int], float] | None = getattr(gpu.cost, "cache_seconds", None)
        self.stored: Callable[[], int] = int  # tokens in memory, where the cost asks for them
        self.watch: Callable[[BatchServer], None] | None = None  # told of each leap when it is over
        self.budget = gpu.max_num_batched_tokens or 1 << 60
        self.prompt_budget = gpu.max_prefill_tokens or 1 << 60
        self.limit = min(gpu.max_num_seqs or 1 << 60, self.budget)
        self.find: Callable[[Request], None] | None = None  # told of each request before it is admitted
        self.waiting: list[tuple[float, float, int, int, int, Request]] = []
        self.prefilling: deque[Request] = deque()
        self.prompts = 0  # tokens that they have to process, in all
        self.running: list[tuple[int, int, int, int, Request]] = []  # by finish step, then query, thread, task
        self.cancelled: list[Request] = []
        self.step = 0
        self.n = 0  # decoding sequences
        self.context = 0  # what they attend to, in all, at the current step
        self.boundary: simpy.Event | None = None  # the end of the leap under way; None at a boundary
        self.leap_start = 0.0
        self.leap_steps = 0
        self.leap_stored = 0
        self.chunks: list[tuple[Request, int]] = []
        self.busy = 0.0
        self.log = array("d")  # (time, sequences in the batch) at each change

    def submit(self, request: Request) -> None:
        """Put `request` in the queue; `plan` admits it."""
        owner = request.owner
        heappush(self.waiting, (request.key, request.ready, owner.index, request.thread, request.task, request))

    def keep(self, request: Request) -> None:
        """Let `request` go on in the place that its thread's last task has just left, at this boundary."""
        request.start = request.decode_start = self.clock.now
        self._decode(request)

    def cancel(self, request: Request) -> None:
        """Take `request` out at the next step boundary, which is now if none is under way."""
        self.cancelled.append(request)

    def plan(self) -> None:
        """Start the next leap, or cut the one under way if the batch is to change."""
        if self.boundary is not None:
            if self.cancelled or (self.waiting and self.n + len(self.prefilling) < self.limit):
                self._cut()
            return
        if self._make_room() and self.waiting:
            self._admit()
        now = self.clock._now
        if self.cache_seconds:
            self.leap_stored = self.stored()
        if self.prefilling and self.budget > self.n:
            seconds = self._prefill_step()
            self.leap_steps = 1
        elif self.n:
            running = self.running
            while running[0][4].finish_step != running[0][0]:
                heappop(running)
            self.leap_steps = self._longest_leap(running[0][0] - self.step)
            seconds = self._decode_seconds(self.leap_steps)
        else:
            self.log.extend((now, 0.0))
            return
        if not seconds > 0 or seconds == inf:
            raise ConfigError(f"{self.cost!r} says that {self.leap_steps} steps take {seconds} seconds")
        self.log.extend((now, self.n + len(self.prefilling)))
        self.leap_start = now
        self.boundary = self.clock.call_at(now + seconds, self._arrive)

    def _make_room(self) -> bool:
        """Take out what must go before the next step; return whether others may come in."""
        if self.cancelled:
            self._drop_cancelled()
        return True

    def _admit(self) -> None:
        """Let in what waits, as far as it goes."""
        waiting = self.waiting
        while waiting and self.n + len(self.prefilling) < self.limit:
            request = waiting[0][5]
            if request.state != GONE and not self._place(request):
                break
            heappop(waiting)

    def _place(self, request: Request) -> bool:
        """Put a request into the batch, if it fits."""
        if self.find is not None:
            self.find(request)
        request.start = request.decode_start = self.clock.now
        if request.prefill and not self.free_prefill:
            self.prefilling.append(request)
            self.prompts += request.prefill
            request.state = PREFILLING
        else:
            request.context += request.prefill
            self._decode(request)
        return True

    def _longest_leap(self, steps: int) -> int:
        """Return how many of `steps` decode steps can be taken with nothing to decide in between."""
        return steps

    def _decode(self, request: Request) -> None:
        request.state = DECODING
        request.joined_step = self.step
        self.n += 1
        self.context += request.context
        request.finish_step = finish = self.step + request.tokens - request.emitted
        heappush(self.running, (finish, request.owner.index, request.thread, request.task, request))

    def _prefill_step(self) -> float:
        """Fill the rest of the token budget with prompt chunks; return the step's seconds."""
        self.chunks = self._chunks()
        tokens = attended = 0
        for request, chunk in self.chunks:
            tokens += chunk
            attended += chunk * request.context + chunk * (chunk + 1) // 2
        seconds = self.cost.step_seconds(self.n, self.context, tokens, attended)
        if self.cache_seconds:
            seconds += self.cache_seconds(self.n + tokens, self.leap_stored + tokens, 1)
        return seconds

    def _decode_seconds(self, steps: int) -> float:
        """Return the seconds of the next steps."""
        seconds = self.cost.decode_seconds(self.n, self.context, steps)
        if self.cache_seconds:
            seconds += self.cache_seconds(self.n, self.leap_stored, steps)
        return seconds

    def _chunks(self) -> list[tuple[Request, int]]:
        """Return what the next step would do for the prompts in the batch: those admitted first, as far as it goes."""
        room = self.budget - self.n
        if room > self.prompt_budget:
            room = self.prompt_budget
        chunks: list[tuple[Request, int]] = []
        for request in self.prefilling:
            if room <= 0:
                break
            chunk = request.prefill if request.prefill < room else room
            room -= chunk
            chunks.append((request, chunk))
        return chunks

    def _cut(self) -> None:
        """Bring the end of the leap forward to the first step boundary that has not passed."""
        if self.leap_steps == 1:
            return
        steps = max(self._steps_to_now(), 1)
        if steps < self.leap_steps:
            self.leap_steps = steps
            end = max(self.leap_start + self._decode_seconds(steps), self.clock.now)
            self.boundary = self.clock.call_at(end, self._arrive)

    def _steps_to_now(self) -> int:
        """Return how many steps of the leap under way have begun by now: the fewest that cover the time passed."""
        elapsed = self.clock.now - self.leap_start
        seconds = self._decode_seconds
        # A guess from the first step brackets it tightly.
        low, high = 0, min(self.leap_steps, int(elapsed / seconds(1)) + 1)
        if seconds(high) < elapsed:
            high = self.leap_steps
        while low < high:
            middle = (low + high) // 2
            if seconds(middle) < elapsed:
                low = middle + 1
            else:
                high = middle
        return low

    def _arrive(self, event: simpy.Event) -> None:
        """The leap is over: count its steps and hand back what finished."""
        if event is not self.boundary:  # a leap that was cut
            return
        self.boundary = None
        if self.watch:
            self.watch(self)
        self.busy += self.clock._now - self.leap_start
        self.step += self.leap_steps
        self.context += self.leap_steps * self.n
        step = self.step
        running = self.running
        while running and running[0][0] == step:
            request = heappop(running)[4]
            if request.finish_step == step:
                self._leave(request)
                self.done(request)
        if self.chunks:
            self._end_prefill_step()
        self.ask()

    def _leave(self, request: Request) -> None:
        """Take a decoding request out of the batch."""
        decoded = self.step - request.joined_step
        self.n -= 1
        self.context -= request.context + decoded
        request.emitted += decoded
        request.finish_step = -1
        request.state = GONE

    def _leave_prompt(self, request: Request) -> None:
        """Take a request out of the batch whose prompt is not processed yet."""
        self.prefilling.remove(request)
        self.prompts -= request.prefill
        request.decode_start = self.clock.now

    def _end_prefill_step(self) -> None:
        for request, chunk in self.chunks:
            self.prompts -= chunk
            request.prefill -= chunk
            request.context += chunk
            if request.prefill:
                continue
            self.prefilling.popleft()
            request.decode_start = self.clock.now
            request.emitted += 1  # the step that ends the prompt yields a token
            if request.emitted == request.tokens:
                self._end_prompt(request)
            else:
                request.context += 1
                self._decode(request)
        self.chunks = []

    def _end_prompt(self, request: Request) -> None:
        """A request of one token has ended with its prompt."""
        request.state = GONE
        self.done(request)

    def _drop_cancelled(self) -> None:
        for request in self.cancelled:
            if request.state == GONE:  # it ended with the step
                continue
            if request.state == DECODING:
                self._leave(request)
            elif request.state == PREFILLING:
                self._leave_prompt(request)
            else:
                request.start = request.decode_start = self.clock.now
            request.state = GONE
            self.done(request)
        self.cancelled.clear()
