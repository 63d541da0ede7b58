"""Scripted programs: structure and token counts come from a trace, the tokens from the engine."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

from msgspec.structs import replace

from simulator.recording.agents import Agent, Program, Sleeping
from simulator.recording.engine import Generate
from simulator.recording.generation import stamped
from simulator.recording.session import Session
from simulator.trace import ORGANIZER, Action, Answer, Delay, Fork, Join, Return, Thread, Trace, child_id


def scripted(session: Session, trace: Trace) -> Callable[[Agent, Agent], Program]:
    """Return what begins the program of a trace's organizer.

    Workers are those that the trace holds. What cannot take effect (a second Fork of an index, a Join of nobody) costs
    its tokens all the same.
    """
    return _Script(session, {thread.id: thread for thread in trace.threads}).organizer


class _Script:
    def __init__(self, session: Session, threads: dict[str, Thread]) -> None:
        self.session = session
        self.engine = session.engine
        self.threads = threads
        self.places = {name: place for place, name in enumerate(threads)}
        self.stops = session.protocol.after_end == "ignore"

    def organizer(self, me: Agent, host: Agent) -> Program:
        return self.program(me, host, self.threads[ORGANIZER], 0)

    def program(self, me: Agent, host: Agent, thread: Thread, shared: int) -> Program:
        if me is host:
            parent = me.parent.key if me.parent is not None and shared else None
            me.shared_tokens = self.engine.open(me.key, parent, shared)
            own = thread.prompt_tokens - me.shared_tokens
            # Nothing is decoded from nothing.
            own = own if me.shared_tokens else max(own, 1)
            me.prompt_tokens = me.shared_tokens + (self.engine.give(me.key, own, None) if own else 0)
        held: list[Action] = []
        for action in thread.actions:
            if isinstance(action, Delay):
                yield from self.decode(me, host, held)
                start = self.session.now
                if action.seconds:
                    yield Sleeping(action.seconds)
                me.actions.append(replace(action, text=None, start=start, finish=self.session.now))
                continue
            held.append(replace(action, text=None, inserted_tokens=0) if isinstance(action, Join) else _bare(action))
            if isinstance(action, Fork):
                yield from self.decode(me, host, held)
                yield from self.fork(me, host, action.index)
            elif isinstance(action, Join):
                yield from self.decode(me, host, held)
                yield from self.join(me, host, action)
            elif isinstance(action, Answer if me.name == ORGANIZER else Return) and self.stops:
                break
        yield from self.decode(me, host, held)

    def fork(self, me: Agent, host: Agent, index: int) -> Program:
        thread = self.threads.get(child_id(me.name, index))
        if thread is None or index in me.children:
            return
        shared = min(thread.shared_tokens, self.engine.context(host.key))
        number = self.places[thread.id]
        yield from self.session.fork(me, host, index, lambda child, at: self.program(child, at, thread, shared), number)

    def join(self, me: Agent, host: Agent, action: Join) -> Program:
        asked = me.actions[-1]
        assert isinstance(asked, Join)
        me.actions[-1] = replace(asked, finish=None)  # should it end before the worker does
        child = yield from self.session.join(me, action.index)
        inserted = 0
        if action.inserted_tokens and child is not None and child.label != "inline":
            inserted = self.engine.give(host.key, action.inserted_tokens, None)
        me.actions[-1] = replace(asked, inserted_tokens=inserted, finish=self.session.now)

    def decode(self, me: Agent, host: Agent, held: list[Action]) -> Program:
        """Decode what is held, and record it."""
        if not held:
            return
        counts = [_tokens(action) for action in held]
        ends = list(accumulate(counts))
        total = ends[-1]
        if not total:
            now = self.session.now
            me.actions += [replace(action, start=now, finish=now) for action in held]
            held.clear()
            return
        try:
            generation = yield Generate(total, exact=True)
        except GeneratorExit:
            if host.generation is not None:
                me.actions += stamped(held, ends, host.generation, whole=False)
            raise
        me.actions += stamped(held, ends, generation, whole=True)
        held.clear()
        meta = me.query.meta
        there = sum(generation.per_burst())
        if there != total:
            key = "short_tokens" if there < total else "extra_tokens"
            meta[key] = int(meta.get(key) or 0) + abs(there - total)
        me.saw_prompt(generation, host, sure=self.engine.counts_prompts)


def _bare(action: Action) -> Action:
    return replace(action, text=None, start=None, finish=None)


def _tokens(action: Action) -> int:
    assert not isinstance(action, Delay)
    return action.tokens
