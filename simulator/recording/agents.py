"""The threads of a query while it is recorded, and what their programs may wish for.

A program is a generator that plays one thread: it yields a wish and is resumed when the wish has come true. `Generate`
resumes with the `Generation`; `Awaiting` when a worker has ended; `Placed` when a
worker that was forked has its slot, waits for one or has none; `Granted` when it has its slot; `Sleeping` after so
many seconds. A program that is closed in the middle records what there is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from simulator.recording.engine import Generate, Key
from simulator.recording.generation import Generation
from simulator.trace import Action, Thread, Trace, Violation


@dataclass(frozen=True, slots=True)
class Awaiting:
    """Until `agent` has ended."""

    agent: Agent


@dataclass(frozen=True, slots=True)
class Placed:
    """Until it is decided what becomes of the new worker `agent`."""

    agent: Agent


@dataclass(frozen=True, slots=True)
class Granted:
    """Until `agent` has a slot of its query's pool."""

    agent: Agent


@dataclass(frozen=True, slots=True)
class Sleeping:
    """For so many seconds."""

    seconds: float


Wish = Generate | Placed | Awaiting | Granted | Sleeping
Program = Generator[Wish, Any, None]


@dataclass(eq=False)
class Agent:
    """A thread as it is being recorded."""

    name: str
    key: Key
    query: Query
    parent: Agent | None = None
    prompt_tokens: int = 0
    shared_tokens: int = 0
    label: str | None = None
    actions: list[Action] = field(default_factory=list)
    children: dict[int, Agent | None] = field(default_factory=dict)
    joined: set[int] = field(default_factory=set)
    program: Program | None = None
    make: Callable[[Agent, Agent], Program] | None = None
    """Begins its program; the second argument is the thread whose context and place it works in."""
    watch: Callable[[str], int | None] | None = None
    """Is told the text as it comes; says where to cut the generation."""
    generation: Generation | None = None
    wakes: float | None = None
    waiters: list[Agent] = field(default_factory=list)
    """Who waits for its end."""
    blocked: list[Agent] = field(default_factory=list)
    """Who waits for its slot."""
    granted: bool = False
    blocks: bool = False
    """Whether its parent waits for its slot."""
    begun: bool = False
    """Whether its program has run at all, and so has a context."""
    ended: bool = False
    holds_slot: bool = False
    runs: bool = False
    """Whether it counts against the limit of all queries."""
    returned: str = ""
    """The text that its Return holds."""
    decoded: bool = False
    """Whether it has had a generation."""
    ending: str = "answer"
    """What `Trace.meta` says of how it ended, of an organizer whose program is over."""

    def saw_prompt(self, generation: Generation, host: Agent, *, sure: bool) -> None:
        """Take over what the engine says of the context of a generation in `host`.

        `sure`: the engine knew before.
        """
        meta = self.query.meta
        if generation.drift:
            meta["prompt_drift"] = max(abs(generation.drift), int(meta.get("prompt_drift") or 0))
        if generation.prompt_tokens is None:
            if not sure:
                meta["prompt_counts"] = "estimated"
        elif not host.decoded and host is self:
            self.prompt_tokens = generation.prompt_tokens
        host.decoded = True

    def thread(self) -> Thread:
        """Return what was recorded of it."""
        prompt = self.prompt_tokens
        return Thread(self.name, tuple(self.actions), prompt, min(self.shared_tokens, prompt), self.label)


@dataclass(eq=False)
class Query:
    """One query while it is recorded."""

    number: int
    id: str
    arrival: float
    slots: int
    """Slots of its pool."""
    free: int
    """Those left; below 0 where workers run beyond the capacity."""
    deadline: float
    meta: dict[str, str | int | float | bool | None]
    agents: list[Agent] = field(default_factory=list)
    waiting: deque[Agent] = field(default_factory=deque)
    faults: list[Violation] = field(default_factory=list)
    forked: int = 0
    overflows: int = 0
    exact: bool = True
    """Whether the engine gave all counts of tokens."""
    answered: float | None = None

    def trace(self, ended: str, error: str | None, now: float) -> Trace:
        """Return what was recorded."""
        meta = dict(self.meta) | {"ended": ended}
        if error is not None:
            meta["error"] = error
        if self.overflows:
            meta["overflows"] = self.overflows
        meta["latency"] = round((now if self.answered is None else self.answered) - self.arrival, 6)
        return Trace(
            self.id,
            tuple(agent.thread() for agent in self.agents),
            None,
            "record" if self.exact else "chunks",
            round(self.arrival, 6),
            tuple(self.faults),
            meta,
        )
