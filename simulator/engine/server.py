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
from typing import NamedTuple

from simulator.engine.clock import Call, EventClock
from simulator.engine.query import DECODING, GONE, PREFILLING, Request, is_first
from simulator.errors import ConfigError
from simulator.machine.gpu import GPU
from simulator.machine.policy import Entry, Queue

MAX_PROMPT_STEPS = 1_000_000
"""Engine steps that a prompt may take: none of them is leapt over, and a mistaken count would take days."""


_ENDLESS = 1e300
"""Seconds that are no time: a whole number may be larger than any float."""


class Leap(NamedTuple):
    """Engine steps that were alike but for the growing context, as an observer is told of them when they are over."""

    replica: int
    start: float
    """When the first of them began."""
    steps: int
    decodes: int
    """Sequences that decoded."""
    context: int
    """Tokens they attended to at the first step; `decodes` more at each later one."""
    prefill_tokens: int
    """Prompt tokens processed, in a leap of one step."""
    prefill_context: int
    """Tokens that those attended to."""
    stored: int
    """Tokens in the contexts of all threads that live, before the first step; shared ones count once."""


class Calls(NamedTuple):
    """What a server calls, and when."""

    done: Callable[[Request], None]
    """With each request that leaves the batch, at that time."""
    ask: Callable[[], None]
    """At each boundary, after that; asks for `plan` to be called when all else of that time has happened."""
    preempted: Callable[[Request], None]
    """With each request that memory ran out for, before it goes back into the queue."""
    stored: Callable[[int], int]
    """For the tokens in memory at a step, where the cost asks for them."""
    find: Callable[[Request], None] | None = None
    """With each request before it is admitted, to settle what it need not process where memory never runs out."""


class Settings(NamedTuple):
    """What a run asks of all its GPUs."""

    observe: Callable[[Leap], None] | None = None
    """Called with each leap when it is over."""
    choose: Callable[[Queue], object] | None = None
    """Says who is admitted next, where the policy sees the queue; see `QueuePolicy`."""
    tracked: bool = False
    """Whether it matters on one GPU too what each thread has computed: where queries share prefixes."""
    max_leap: int = 1 << 60
    """Engine steps that one event may stand for. With 1 every step is an event, and the result is the same."""


class BatchServer:
    """Plays a `GPU`: holds the batch, waits out each leap, and reports finished sequences."""

    def __init__(self, clock: EventClock, gpu: GPU, calls: Calls, settings: Settings, number: int) -> None:
        self.clock = clock
        self.gpu = gpu
        self.number = number
        self.cost = gpu.cost
        self.done, self.ask, self.preempted, self.stored, self.find = calls
        self.observe, self.choose, _, self.max_leap = settings
        self.free_prefill = gpu.cost.prefill_is_free
        self.cache_seconds: Callable[[int, int, int], float] | None = getattr(gpu.cost, "cache_seconds", None)
        self.budget = gpu.max_num_batched_tokens or 1 << 60
        self.prompt_budget = gpu.max_prefill_tokens or 1 << 60
        self.most_prompt = MAX_PROMPT_STEPS * min(self.budget, self.prompt_budget)
        self.limit = min(gpu.max_num_seqs or 1 << 60, self.budget)
        # By key, time of readiness, query and thread, task.
        self.waiting: list[tuple[float, float, tuple[int, int], int, Request]] = []
        self.prefilling: deque[Request] = deque()
        self.prompts = 0  # tokens that they have to process, in all
        # By finish step, query and thread, task. A request that has left the batch early stays in it: its own finish
        # step is another by then.
        self.running: list[tuple[int, tuple[int, int], int, Request]] = []
        self.cancelled: list[Request] = []
        self.step = 0
        self.n = 0  # decoding sequences
        self.context = 0  # what they attend to, in all, at the current step
        self.boundary: Call | None = None  # the end of the leap under way; None at a boundary
        self.leap_start = 0.0
        self.leap_steps = 0
        self.leap_stored = 0
        self.chunks: list[tuple[Request, int]] = []
        self.busy = 0.0
        self.log = array("d")  # (time, sequences in the batch) at each change
        self.kv_log = array("d")  # (time, blocks pinned), where memory is modelled
        self.fresh: list[Request] = []  # whose next token may be the first of their query

    def submit(self, request: Request) -> None:
        """Put `request` in the queue; `plan` admits it."""
        heappush(self.waiting, (request.key, request.ready, request.thread.order, request.task, request))

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
                self._cut(self.boundary)
            return
        if self._make_room() and self.waiting:
            self._admit()
        now = self.clock._now
        if self.cache_seconds:
            self.leap_stored = self.stored(self.step)
        if self.prefilling and self.budget > self.n:
            seconds = self._prefill_step()
            self.leap_steps = 1
        elif self.n:
            running = self.running
            while running[0][3].finish_step != running[0][0]:
                heappop(running)
            steps = running[0][0] - self.step
            self.leap_steps = self._longest_leap(steps if steps < self.max_leap else self.max_leap)
            seconds = self._decode_seconds(self.leap_steps)
        else:
            self.log.extend((now, 0.0))
            return
        if not now + seconds / self.leap_steps > now:
            raise ConfigError(
                f"at {now:g} s a step of {seconds / self.leap_steps:g} s does not move the clock, which has 53 bits:"
                " let arrivals begin near 0, or take a slower cost model"
            )
        self.log.extend((now, self.n + len(self.prefilling)))
        if self.fresh:
            self._note_first_tokens(now, seconds)
        self.leap_start = now
        self.boundary = self.clock.call_at(now + seconds, self._arrive)

    def _note_first_tokens(self, now: float, seconds: float) -> None:
        """Note when organizers that begin to decode have a token: with the first of the next steps."""
        first = now + (seconds if self.leap_steps == 1 else self._decode_seconds(1))
        for request in self.fresh:
            if request.state == DECODING:  # not preempted meanwhile
                request.thread.query.first_token = first
        self.fresh.clear()

    def _make_room(self) -> bool:
        """Take out what must go before the next step; return whether others may come in."""
        if self.cancelled:
            self._drop_cancelled()
        return True

    def _admit(self) -> None:
        """Let in what waits, as far as it goes."""
        if self.choose is not None:
            self._admit_chosen(self.choose)
            return
        waiting = self.waiting
        while waiting and self.n + len(self.prefilling) < self.limit:
            request = waiting[0][4]
            if request.state != GONE and not self._place(request):
                break
            heappop(waiting)

    def _admit_chosen(self, choose: Callable[[Queue], object]) -> None:
        """Let in what the policy chooses, one after the other, as far as it goes."""
        self.waiting = sorted(item for item in self.waiting if item[4].state != GONE)  # a heap as well
        while self.waiting and self.n + len(self.prefilling) < self.limit:
            waiting = tuple([self._entry(each, each.tokens - each.emitted, each.prefill) for *_, each in self.waiting])
            running = [self._entry(each, each.tokens - each.emitted, each.prefill) for each in self.prefilling]
            for finish, *_, each in self.running:
                if each.finish_step == finish:
                    running.append(self._entry(each, finish - self.step, 0))
            entry = choose(Queue(self.clock.now, self.number, waiting, tuple(sorted(running))))
            if not isinstance(entry, Entry) or entry not in waiting:
                raise ConfigError(f"a policy must choose one of those that wait; got {entry!r:.120}")
            index = waiting.index(entry)
            if not self._place(self.waiting[index][4]):
                break
            del self.waiting[index]

    def _entry(self, request: Request, tokens: int, prefill: int) -> Entry:
        return Entry(*request.thread.order, request.task, tokens, prefill, request.ready, request.key)

    def _place(self, request: Request) -> bool:
        """Put a request into the batch, if it fits."""
        if self.find is not None:
            self.find(request)
        request.start = request.decode_start = self.clock.now
        if request.prefill and not self.free_prefill:
            if request.prefill > self.most_prompt:
                raise ConfigError(
                    f"{request.thread.query.graph.name}: thread {request.thread.spec.id} has {request.prefill:,} prompt"
                    f" tokens to process, which is more than {MAX_PROMPT_STEPS:,} engine steps can"
                )
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
        heappush(self.running, (finish, request.thread.order, request.task, request))
        if not request.emitted and is_first(request.thread):
            self.fresh.append(request)

    def _prefill_step(self) -> float:
        """Fill the rest of the token budget with prompt chunks; return the step's seconds."""
        self.chunks = self._chunks()
        tokens, attended = self._prompts_of_step()
        seconds = self.cost.step_seconds(self.n, self.context, tokens, attended)
        if self.cache_seconds:
            seconds += self.cache_seconds(self.n + tokens, self.leap_stored + tokens, 1)
        try:
            if 0 < seconds < _ENDLESS:
                return seconds
        except TypeError:  # it says something else than a number
            pass
        raise self._no_time(seconds, 1)

    def _prompts_of_step(self) -> tuple[int, int]:
        """Return the prompt tokens of the step under way, and how many those attend to."""
        tokens = attended = 0
        for request, chunk in self.chunks:
            tokens += chunk
            attended += chunk * request.context + chunk * (chunk + 1) // 2
        return tokens, attended

    def _report(self, observe: Callable[[Leap], None]) -> None:
        """Tell the observer of the leap that is over; its steps are not counted yet."""
        batch = self.n, self.context, *self._prompts_of_step(), self.stored(self.step)
        observe(Leap(self.number, self.leap_start, self.leap_steps, *batch))

    def _decode_seconds(self, steps: int) -> float:
        """Return the seconds of the next steps."""
        seconds = self.cost.decode_seconds(self.n, self.context, steps)
        if self.cache_seconds:
            seconds += self.cache_seconds(self.n, self.leap_stored, steps)
        try:
            if 0 < seconds < _ENDLESS:
                return seconds
        except TypeError:
            pass
        raise self._no_time(seconds, steps)

    def _no_time(self, said: object, steps: int) -> ConfigError:
        """Return what to say of a cost model, which anybody may write, that says no time."""
        return ConfigError(f"{self.cost!r:.120} says that {steps} steps take {said!r:.40} seconds")

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

    def _cut(self, boundary: Call) -> None:
        """Bring the end of the leap under way forward to the first step boundary that has not passed."""
        if self.leap_steps == 1:
            return
        steps = self._steps_to_now()
        if steps < self.leap_steps:
            self.leap_steps = steps
            end = max(self.leap_start + self._decode_seconds(steps), self.clock.now)
            boundary.cancel()
            self.boundary = self.clock.call_at(end, self._arrive)

    def _steps_to_now(self) -> int:
        """Return how many steps of the leap under way have begun: the fewest that cover the time passed; at least 1."""
        elapsed = self.clock.now - self.leap_start
        seconds = self._decode_seconds
        # A guess from the first step brackets it tightly.
        low, high = 1, min(self.leap_steps, int(elapsed / seconds(1)) + 1)
        if seconds(high) < elapsed:
            high = self.leap_steps
        while low < high:
            middle = (low + high) // 2
            if seconds(middle) < elapsed:
                low = middle + 1
            else:
                high = middle
        return low

    def _arrive(self, _: object) -> None:
        """The leap is over: count its steps and hand back what finished."""
        self.boundary = None
        if self.observe is not None:
            self._report(self.observe)
        self.busy += self.clock._now - self.leap_start
        self.step += self.leap_steps
        self.context += self.leap_steps * self.n
        step = self.step
        running = self.running
        while running and running[0][0] == step:
            request = heappop(running)[3]
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
            if is_first(request.thread):
                request.thread.query.first_token = self.clock.now
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
