"""Playing the organizer-worker protocol: Fork starts a worker, Join waits for it, the Answer ends the query.

The session holds all queries of a run. It is a state machine without a clock or sockets of its own: it is handed the
events of an engine, and asks the engine for generations in return.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, assert_never

from simulator.recording.agents import Agent, Awaiting, Granted, Placed, Program, Query, Sleeping, Wish
from simulator.recording.engine import Began, Burst, Ended, Engine, Event, Failed, Generate
from simulator.recording.generation import Generation
from simulator.trace import ORGANIZER, Trace, child_id
from simulator.trace.full_pool import Admission, FullPool, admit
from simulator.trace.protocol import Protocol

Watcher = Callable[[Agent, Generation], None]


class Session:
    """All queries of one run.

    Parameters
    ----------
    engine : Engine
    protocol : Protocol
        Pool capacity, and what a Fork on a full pool does.
    max_workers : int, optional
        Workers that may run at once over all queries; more wait, first come first served.
    timeout : float
        Seconds that a query may take.
    emit : callable
        Is handed each trace when its query has ended.
    on_generation : callable, optional
        Is handed each thread and its generation when that is over.
    """

    def __init__(
        self,
        engine: Engine,
        protocol: Protocol,
        emit: Callable[[Trace], None],
        *,
        max_workers: int | None = None,
        timeout: float = 600.0,
        on_generation: Watcher | None = None,
    ) -> None:
        self.engine = engine
        self.protocol = protocol
        self.emit = emit
        self.max_workers = max_workers
        self.timeout = timeout
        self.on_generation = on_generation
        self.now = 0.0
        self.open: dict[int, Query] = {}
        self.running = 0
        self.line: deque[Agent] = deque()  # workers with a slot of their query that wait for one of the run
        self.live: dict[tuple[int, int], Agent] = {}  # threads with a generation
        self.asleep: list[Agent] = []
        self.ready: deque[tuple[Agent, Any]] = deque()
        self.begun = 0

    # ------------------------------------------------------------------ queries

    def begin(self, id: str, make: Callable[[Agent, Agent], Program], arrival: float, meta: dict[str, Any]) -> None:
        """Begin a query that arrives at `arrival`; `make` begins its organizer's program."""
        capacity = self.protocol.capacity
        arrival = round(arrival, 6)
        slots = 1 << 60 if capacity is None else capacity - 1
        query = Query(self.begun, id, arrival, slots, slots, arrival + self.timeout, meta)
        organizer = Agent(ORGANIZER, (self.begun, 0), query)
        query.agents.append(organizer)
        self.begun += 1
        self.open[query.number] = query
        self.now = max(self.now, arrival)
        organizer.make = make
        self._start(organizer)
        self._settle()

    def end(self, query: Query, ended: str, error: str | None = None) -> None:
        """End a query as it stands, and emit its trace."""
        if query.number not in self.open:
            return
        for agent in query.agents:
            self._cancel(agent)
        query.waiting.clear()
        self._admit()
        for agent in query.agents:
            if agent.label != "inline":
                self.engine.close(agent.key)
        self.emit(query.trace(ended, error, self.now))
        del self.open[query.number]  # not before: what cannot be emitted is not lost

    def abort(self, ended: str, error: str | None = None) -> None:
        """End all queries as they stand. One that cannot be emitted does not keep the others from it."""
        self.ready.clear()
        failed: Exception | None = None
        for query in list(self.open.values()):
            try:
                self.end(query, ended, error)
            except Exception as problem:
                failed = failed or problem
                self.open.pop(query.number, None)
        if failed is not None:
            raise failed

    # ------------------------------------------------------------------ time

    def next_time(self) -> float | None:
        """Return when something happens even without the engine."""
        times = [query.deadline for query in self.open.values()]
        times += [agent.wakes for agent in self.asleep if agent.wakes is not None]
        return min(times, default=None)

    @property
    def stuck(self) -> bool:
        """Whether all that is open waits for each other."""
        return bool(self.open) and not (self.engine.busy or self.asleep or self.ready)

    def advance(self, now: float) -> None:
        """Do what is due at `now`: wake who slept, end who took too long."""
        self.now = max(self.now, now)
        for agent in [agent for agent in self.asleep if agent.wakes is not None and agent.wakes <= now]:
            self.asleep.remove(agent)
            self.ready.append((agent, None))
        self._settle()
        for query in list(self.open.values()):
            if query.deadline <= now:
                self.end(query, "timeout", f"not over within {self.timeout:g} seconds")
        self._settle()

    def handle(self, events: Sequence[Event]) -> None:
        """Take in events of the engine. All tokens of one time are in before any of them has an effect."""
        seen: list[tuple[Agent, Generation, Event]] = []
        for event in events:
            agent = self.live.get(event.key)
            if agent is None or agent.generation is None:
                continue  # of a generation that was stopped
            self.now = max(self.now, event.at)
            if isinstance(event, Began):
                agent.generation.began = event.at
            else:
                if isinstance(event, Burst):
                    agent.generation.add(event.at, event.text, event.tokens)
                seen.append((agent, agent.generation, event))
        for agent, generation, event in seen:
            if self.live.get(agent.key) is agent and agent.generation is generation:
                self._effect(agent, generation, event)
        self._settle()

    def _effect(self, agent: Agent, generation: Generation, event: Event) -> None:
        if isinstance(event, Burst):
            if generation.kept is None and agent.watch:
                generation.kept = agent.watch(event.text)
                if generation.kept is not None and self.engine.ends_at_stops and generation.complete:
                    return  # it will say itself that it has ended, and how many tokens there were
            if generation.kept is not None:
                generation.reason = "tag"
                generation.kept += len(self.engine.stop(agent.key, generation.kept))
                self._over(agent, generation)
        elif isinstance(event, Failed):
            self.end(agent.query, "error", f"thread {agent.name}: {event.why}")
        elif isinstance(event, Ended):
            generation.reason, generation.tokens = event.reason, event.tokens
            generation.prompt_tokens, generation.drift = event.prompt_tokens, event.drift
            self._over(agent, generation)

    def _over(self, agent: Agent, generation: Generation) -> None:
        del self.live[agent.key]
        agent.query.exact &= generation.exact
        if self.on_generation:
            self.on_generation(agent, generation)
        self.ready.append((agent, generation))

    # ------------------------------------------------------------------ what programs ask for

    def fork(
        self, parent: Agent, host: Agent, index: int, make: Callable[[Agent, Agent], Program], number: int | None = None
    ) -> Program:
        """Start a worker, the `number`-th thread of its query, or do what the protocol says where the pool is full."""
        query = parent.query
        query.forked += 1
        number = query.forked if number is None else number
        child = Agent(child_id(parent.name, index), (query.number, number), query, parent)
        child.make = make
        parent.children[index] = child
        query.agents.append(child)
        yield Placed(child)
        if child.label == "inline":
            child.key, child.begun, child.granted = host.key, True, True
            child.prompt_tokens = child.shared_tokens = self.engine.context(host.key)
            yield from make(child, host)
            child.ended = True
        elif child.blocks:
            yield Granted(child)

    def _place(self, child: Agent) -> None:
        """Give a worker a slot, or do what the protocol says where there is none."""
        query, parent = child.query, child.parent
        assert parent is not None
        if query.free > 0:
            self._take(child)
            return
        query.overflows += 1
        found = FullPool(query.slots, query.slots - query.free, len(query.waiting))
        match admit(self.protocol.when_full, found):
            case Admission.START:
                self._take(child)
            case Admission.QUEUE:
                query.waiting.append(child)
            case Admission.BLOCK:
                child.blocks = True
                query.waiting.append(child)
            case Admission.INLINE:
                child.label = "inline"
            case Admission.DROP:
                query.agents.remove(child)
                parent.children = {i: None if each is child else each for i, each in parent.children.items()}
            case unknown:
                assert_never(unknown)

    def join(self, parent: Agent, index: int) -> Generator[Wish, Any, Agent | None]:
        """Wait for a worker; return it if there is one to be joined."""
        child = parent.children.get(index)
        if child is None or index in parent.joined:
            return None
        parent.joined.add(index)
        if not child.ended:
            yield Awaiting(child)
        if self.protocol.release == "join":
            self._release(child)
        return child

    # ------------------------------------------------------------------ slots

    def _take(self, child: Agent) -> None:
        child.query.free -= 1
        self._grant(child)

    def _grant(self, child: Agent) -> None:
        child.granted = child.holds_slot = True
        self.ready.extend((agent, None) for agent in child.blocked)
        child.blocked.clear()
        self.line.append(child)
        self._admit()

    def _release(self, agent: Agent) -> None:
        """Free a worker's slot; it goes at once to the first that waits for one."""
        if not agent.holds_slot:
            return
        agent.holds_slot = False
        if agent.query.waiting:
            self._grant(agent.query.waiting.popleft())
        else:
            agent.query.free += 1

    def _admit(self) -> None:
        while self.line and (self.max_workers is None or self.running < self.max_workers):
            child = self.line.popleft()
            if not child.ended:
                self.running += 1
                child.runs = True
                self._start(child)

    # ------------------------------------------------------------------ programs

    def _start(self, agent: Agent) -> None:
        assert agent.make is not None
        agent.program = agent.make(agent, agent)
        self.ready.append((agent, None))

    def _settle(self) -> None:
        """Let programs go on until each waits for the engine, another thread, or time.

        What happens at one time happens in rounds, as in a simulation. In each, ends come before Forks, so that a slot
        that is given back can be had at once; what either sets free is of the next round.
        """
        while self.ready:
            now, self.ready = sorted(self.ready, key=lambda item: item[0].key), deque()
            forks = [fork for agent, value in now if (fork := self._run(agent, value)) is not None]
            for agent, wish in forks:
                placed: Placed | None = wish
                while placed is not None and not agent.ended:
                    self._place(placed.agent)
                    more = self._run(agent, None)
                    placed = None if more is None else more[1]

    def _run(self, agent: Agent, value: Any) -> tuple[Agent, Placed] | None:
        """Let one program go on; return it if it has forked a worker that is to be placed."""
        while not agent.ended and agent.program is not None:
            agent.begun = True
            try:
                wish = agent.program.send(value)
            except StopIteration:
                self._ended(agent)
                break
            if isinstance(wish, Placed):
                return agent, wish
            if not self._come_true(agent, wish):
                break
            value = None
        return None

    def _come_true(self, agent: Agent, wish: Wish) -> bool:
        """Do what a program wishes for; return whether it is true already."""
        if isinstance(wish, Generate):
            agent.generation = Generation(wish)
            self.live[agent.key] = agent
            self.engine.generate(agent.key, wish)
        elif isinstance(wish, Sleeping):
            agent.wakes = self.now + wish.seconds
            self.asleep.append(agent)
        elif isinstance(wish, Granted):
            if wish.agent.granted:
                return True
            wish.agent.blocked.append(agent)
        elif isinstance(wish, Awaiting):
            if wish.agent.ended:
                return True
            wish.agent.waiters.append(agent)
        return False

    def _ended(self, agent: Agent) -> None:
        query = agent.query
        agent.ended = True
        if agent.parent is None:
            query.answered = self.now
            if self.protocol.after_answer == "cancel":
                self.end(query, query.agents[0].ending)
                return
        else:
            joined = bool(agent.waiters)
            self.ready.extend((waiter, None) for waiter in agent.waiters)
            agent.waiters.clear()
            if agent.runs:
                self.running -= 1
                agent.runs = False
            if joined or self.protocol.release == "return":
                self._release(agent)  # its Join is made in this moment, if it is waited for
            self._admit()
        if all(child is None or child.begun for child in agent.children.values()):
            self.engine.close(agent.key)  # else a child still needs its context
        if query.answered is not None and all(agent.ended for agent in query.agents):
            self.end(query, query.agents[0].ending)

    def _cancel(self, agent: Agent) -> None:
        """End a thread as it stands."""
        if agent.ended:
            return
        agent.ended = True
        if agent.key in self.live and self.live[agent.key] is agent:
            del self.live[agent.key]
            self.engine.stop(agent.key)
            assert agent.generation is not None
            agent.query.exact &= agent.generation.exact
            if self.on_generation:
                self.on_generation(agent, agent.generation)
        if agent in self.asleep:
            self.asleep.remove(agent)
        if agent.program is not None:
            agent.program.close()  # it records what there is
        if agent.runs:
            self.running -= 1
            agent.runs = False
        if agent.parent is not None and agent.label is None:
            agent.label = "cancelled"
