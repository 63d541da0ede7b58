"""Free programs: the model writes the tags itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from simulator.errors import ConfigError
from simulator.recording.agents import Agent, Program
from simulator.recording.engine import Generate
from simulator.recording.generation import Generation, stamped
from simulator.recording.session import Session
from simulator.recording.tags import Effect, Scanner
from simulator.trace import (
    MAX_NESTING,
    ORGANIZER,
    Action,
    Answer,
    Fork,
    Join,
    Return,
    Think,
    Violation,
    ViolationKind,
    nesting,
)
from simulator.trace.answers import boxed_answer
from simulator.trace.full_pool import WHEN_FULL, Admission

ORGANIZER_PROMPT = """\
You are an organizer. You think about a question, and you may hand parts of it to workers that think beside you.
Write <FORK-i>sub-query</FORK-i> to start worker i. Go on thinking. Write <JOIN-i> when you need its result; it is put
in after that. A worker knows only its sub-query. End with <ANSWER>the answer</ANSWER>.

Question: What is the sum of the numbers from 1 to 6?
Thinking: Split it into odd and even. <FORK-1>What is 1 + 3 + 5?</FORK-1> The even ones: 2 + 4 + 6 = 12. \
<JOIN-1>9</JOIN-1> So 9 + 12 = 21. <ANSWER>21</ANSWER>

Question: {question}
Thinking:"""

WORKER_PROMPT = """\
You are a worker. Think about the sub-query and end with <RETURN>what you found, in short</RETURN>.

Sub-query: What is 1 + 3 + 5?
Thinking: 1 + 3 = 4, and 4 + 5 = 9. <RETURN>9</RETURN>

Sub-query: {question}
Thinking:"""


MAX_WORKERS = 10_000  # of one query


class Question(msgspec.Struct, frozen=True):
    """A query in words."""

    id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """How a question is put to the model, and how much it may say.

    >>> Prompts(worker="{question}!").worker.format(question="Why")
    'Why!'
    """

    organizer: str = ORGANIZER_PROMPT
    """With ``{question}`` where the question goes."""
    worker: str = WORKER_PROMPT
    """With ``{question}`` where the sub-query goes."""
    organizer_tokens: int = 2048
    """Tokens that an organizer decodes at most."""
    worker_tokens: int = 512
    stops: int = 8
    """Up to which index ``</FORK-i>`` is sent as a stop string. Higher ones are found all the same."""

    def __post_init__(self) -> None:
        for name in ("organizer", "worker"):
            if "{question}" not in getattr(self, name):
                raise ConfigError(f"the {name}'s prompt must hold {{question}} where the question goes")
        for name in ("organizer_tokens", "worker_tokens"):
            if not 1 <= getattr(self, name) <= 10**9:
                raise ConfigError(f"{name} must be from 1 to 10^9, got {getattr(self, name)!r}")
        if not 0 <= self.stops <= 1000:
            raise ConfigError(f"stops must be from 0 to 1000, got {self.stops!r}")


def free(session: Session, question: str, prompts: Prompts) -> Callable[[Agent, Agent], Program]:
    """Return what begins the program of an organizer that is asked `question`.

    Raises
    ------
    ConfigError
        If the protocol may want sub-queries done inline: the model's own text cannot be two threads at once.
    """
    if Admission.INLINE in WHEN_FULL[session.protocol.when_full].may:
        accepted = ", ".join(name for name, each in WHEN_FULL.items() if Admission.INLINE not in each.may)
        raise ConfigError(f"a full pool cannot be inline in free mode; accepted are {accepted}")
    return lambda me, _: _Thinker(session, me, prompts).program(prompts.organizer.replace("{question}", question))


class _Thinker:
    """One thread that a model writes."""

    def __init__(self, session: Session, me: Agent, prompts: Prompts) -> None:
        self.session = session
        self.engine = session.engine
        self.me = me
        self.prompts = prompts
        self.is_organizer = me.name == ORGANIZER
        self.scanner = Scanner(organizer=self.is_organizer)
        self.left = prompts.organizer_tokens if self.is_organizer else prompts.worker_tokens
        self.carried = 0  # characters of the segment that came with the generation before
        self.inserted = False

    def program(self, prompt: str) -> Program:
        me = self.me
        self.engine.open(me.key, None, 0)
        me.prompt_tokens = self.engine.give(me.key, 0, prompt)
        me.watch = self._watch
        rest = ""
        while True:
            self.carried = len(rest)
            end = self.scanner.next(rest)
            if end is None and self.left > 0:
                yield from self._generate()
            elif end is not None:
                self._record(Generation(Generate(0, False)), whole=True)
            effect = self.scanner.effect
            if effect is None:
                self._run_out()
                return
            rest = self.scanner.text[self.scanner.end :]
            if effect.kind == "fork":
                yield from self._fork(effect)
            elif effect.kind == "join":
                yield from self._join(effect)
                rest = ""  # what it wrote behind <JOIN-i> before it was stopped is not what it would have written
            else:
                me.returned = effect.inside
                return

    def _watch(self, piece: str) -> int | None:
        end = self.scanner.feed(piece)
        return None if end is None else end - self.carried

    def _generate(self) -> Program:
        try:
            generation = yield Generate(self.left, False, self._stops(), self._missing)
        except GeneratorExit:
            if self.me.generation is not None:
                self._record(self.me.generation, whole=False)
            raise
        # Only what the engine kept counts: the rest of a burst is cut off, or begins the next segment.
        self.scanner.text = self.scanner.text[: self.carried] + generation.text
        self.left -= sum(generation.per_burst())
        first = not self.me.decoded
        self.me.saw_prompt(generation, self.me, sure=self.engine.counts_prompts)
        if not first and self.inserted and generation.drift:
            self._correct_join(generation.drift)
        self.inserted = False
        self._record(generation, whole=True)

    def _stops(self) -> tuple[str, ...]:
        """Return the strings that a generation would end at, those first that are the likeliest."""
        me = self.me
        joins = [f"<JOIN-{i}>" for i in me.children if i not in me.joined]
        forks = [f"</FORK-{i}>" for i in range(1, self.prompts.stops + 1) if i not in me.children]
        return ("</ANSWER>" if self.is_organizer else "</RETURN>", *joins, *forks)

    def _missing(self, text: str) -> str:
        """Return the stop string that an engine has kept to itself: what is open is closed, or else a Join begins."""
        scanner = Scanner(organizer=self.is_organizer)
        scanner.feed(self.scanner.text[: self.carried] + text)
        if scanner.opened is not None:
            name, index, _, _ = scanner.opened
            return f"</{name}-{index}>" if index >= 0 else f"</{name}>"
        joins = [i for i in self.me.children if i not in self.me.joined]
        if not joins:
            return ""
        meta = self.me.query.meta
        meta["assumed_stops"] = int(meta.get("assumed_stops") or 0) + 1
        return f"<JOIN-{joins[0]}>" if len(joins) == 1 else "<JOIN-"

    def _record(self, generation: Generation, *, whole: bool) -> None:
        """Record the segment that a generation ended."""
        text, effect = self.scanner.text, self.scanner.effect
        actions: list[Action] = []
        places: list[int] = []
        if effect is None:
            boxed = boxed_answer(text) if self.is_organizer and whole else -1
            if boxed >= 0:
                actions, places = [Think(0, text[:boxed]), Answer(0, text[boxed:])], [boxed, len(text)]
            elif text:
                actions, places = [Think(0, text)], [len(text)]
        else:
            if effect.before:
                actions, places = [Think(0, text[: effect.before])], [effect.before]
            places.append(self.scanner.end)
            match effect.kind:
                case "fork":
                    actions.append(Fork(effect.number, 0, effect.inside))
                case "join":
                    actions.append(Join(effect.number))
                case "answer":
                    actions.append(Answer(0, effect.inside))
                case _:
                    actions.append(Return(0, effect.inside))
        if not actions:
            return
        ends = generation.upto([max(place - self.carried, 0) for place in places])
        if generation.began is None and not generation.times:
            generation.began = self.session.now
        self.me.actions += stamped(actions, ends, generation, whole=True)

    def _fork(self, effect: Effect) -> Program:
        me = self.me
        if effect.number in me.children:
            return
        if not self.is_organizer and not self.session.protocol.nested_forks:
            return
        if me.query.forked >= MAX_WORKERS or nesting(me.name) >= MAX_NESTING:
            return  # a model that does not stop; `check` tells of the Fork that started nobody
        prompt = self.prompts.worker.replace("{question}", effect.inside.strip())
        make = lambda child, _: _Thinker(self.session, child, self.prompts).program(prompt)  # noqa: E731
        yield from self.session.fork(me, me, effect.number, make)

    def _join(self, effect: Effect) -> Program:
        me = self.me
        asked = me.actions[-1]
        assert isinstance(asked, Join)
        me.actions[-1] = msgspec.structs.replace(asked, finish=None)
        child = yield from self.session.join(me, effect.number)
        text = child.returned if child is not None else ""
        inserted = self.engine.give(me.key, 0, f"{text}</JOIN-{effect.number}>")
        self.inserted = True
        me.actions[-1] = msgspec.structs.replace(asked, text=text, inserted_tokens=inserted, finish=self.session.now)

    def _correct_join(self, drift: int) -> None:
        """Put right what the last Join inserted, now that the engine has said how long the context was."""
        for place in range(len(self.me.actions) - 1, -1, -1):
            action = self.me.actions[place]
            if isinstance(action, Join):
                inserted = max(action.inserted_tokens + drift, 0)
                self.me.actions[place] = msgspec.structs.replace(action, inserted_tokens=inserted)
                return

    def _run_out(self) -> None:
        """End without the tag that ends a thread: the tokens are used up, or the model has stopped by itself."""
        if not any(isinstance(action, Answer) for action in self.me.actions):
            self.me.ending = "max_tokens" if self.left <= 0 else "no_answer"
        opened = self.scanner.opened
        if opened is not None:
            tag = f"<{opened[0]}>" if opened[1] < 0 else f"<{opened[0]}-{opened[1]}>"
            self.me.query.faults.append(Violation(ViolationKind.UNCLOSED_TAG, self.me.name, f"{tag} is never closed"))
