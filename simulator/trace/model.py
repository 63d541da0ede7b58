"""What was thought: one query's threads and what each of them did.

Nothing here knows about time, GPUs or files. A `Trace` is frozen and its parts are `msgspec.Struct`s: as slotted and
comparable as a dataclass, several times cheaper to build, and the JSON schema of the ``native`` format comes from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import msgspec

from simulator.errors import TraceError

ORGANIZER = "organizer"
"""The id of the thread that Forks start from."""
MAX_TOKENS = 10**12
"""The most tokens that anything has. It is beyond any run, and keeps sums of steps exact in a float."""
MAX_SECONDS = 1e9
"""The longest Delay."""
MAX_INDEX = 10**9
"""The highest index of a sub-query."""
MAX_NESTING = 32
"""The most Forks between the organizer and a thread."""
_SHOWN = 12  # actions of a trace whose repr says it all


def child_id(parent: str, index: int) -> str:
    """Return the id of the worker that `parent` forks as `index`.

    >>> child_id("organizer", 3), child_id("3", 1)
    ('3', '3.1')
    """
    return str(index) if parent == ORGANIZER else f"{parent}.{index}"


def nesting(thread: str) -> int:
    """Return how many Forks lie between the organizer and `thread`.

    >>> nesting("organizer"), nesting("3"), nesting("3.1")
    (0, 1, 2)
    """
    return 0 if thread == ORGANIZER else thread.count(".") + 1


def _tokens(value: int, name: str) -> None:
    # bool is an int by inheritance, and numpy integers cannot be written to JSON: ask for the plain type.
    if value.__class__ is not int or not 0 <= value <= MAX_TOKENS:
        raise TraceError(f"{name} must be an int from 0 to 10^12, got {value!r}")


def _index(value: int) -> None:
    if value.__class__ is not int or not 0 <= value <= MAX_INDEX:
        raise TraceError(f"a sub-query index must be an int from 0 to 10^9, got {value!r}")


class _Action(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="do", tag=str.lower, gc=False
):
    pass


class Think(_Action, frozen=True):
    """Tokens decoded with no effect on other threads.

    >>> Think(120, text="Let me split this.").tokens
    120
    """

    tokens: int
    """Tokens decoded."""
    text: str | None = None
    start: float | None = None
    """Recorded seconds, as `finish`."""
    finish: float | None = None

    def __post_init__(self) -> None:
        if self.tokens.__class__ is not int or not 0 <= self.tokens <= MAX_TOKENS:
            _tokens(self.tokens, "tokens")


class Fork(_Action, frozen=True):
    """Hand sub-query `index` to a worker. It takes effect when its last token is out.

    >>> Fork(1, tokens=8, text="Sum the odd numbers below 6.").index
    1
    """

    index: int
    tokens: int = 0
    """Tokens this thread decodes for the Fork: the tags and the sub-query."""
    text: str | None = None
    start: float | None = None
    finish: float | None = None

    def __post_init__(self) -> None:
        # One test for the legal case: a million rollouts pass here.
        tokens, index = self.tokens, self.index
        if not (tokens.__class__ is index.__class__ is int and 0 <= tokens <= MAX_TOKENS and 0 <= index <= MAX_INDEX):
            _tokens(tokens, "tokens")
            _index(index)


class Join(_Action, frozen=True):
    """Wait for worker `index`; its returned text is then inserted into this thread's context.

    >>> Join(1, tokens=2, inserted_tokens=5, text="9").inserted_tokens
    5
    """

    index: int
    tokens: int = 0
    """Tokens this thread decodes to ask for the Join, before it pauses."""
    inserted_tokens: int = 0
    """Tokens the runtime inserts: the returned text and the closing tag. Prefill, not decode."""
    text: str | None = None
    """The inserted text."""
    start: float | None = None
    finish: float | None = None

    def __post_init__(self) -> None:
        tokens, inserted, index = self.tokens, self.inserted_tokens, self.index
        if not (
            tokens.__class__ is inserted.__class__ is index.__class__ is int
            and 0 <= tokens <= MAX_TOKENS
            and 0 <= inserted <= MAX_TOKENS
            and 0 <= index <= MAX_INDEX
        ):
            _tokens(tokens, "tokens")
            _tokens(inserted, "inserted_tokens")
            _index(index)


class Return(_Action, frozen=True):
    """A worker's takeaways; the worker ends.

    >>> Return(4, text="9").tokens
    4
    """

    tokens: int = 0
    text: str | None = None
    start: float | None = None
    finish: float | None = None

    def __post_init__(self) -> None:
        if self.tokens.__class__ is not int or not 0 <= self.tokens <= MAX_TOKENS:
            _tokens(self.tokens, "tokens")


class Answer(_Action, frozen=True):
    """The organizer's final answer; the query ends.

    >>> Answer(3, text="15").text
    '15'
    """

    tokens: int = 0
    text: str | None = None
    start: float | None = None
    finish: float | None = None

    def __post_init__(self) -> None:
        _tokens(self.tokens, "tokens")


class Delay(_Action, frozen=True):
    """Time this thread spends off the GPU: a tool, a human.

    >>> Delay(1.5, text="web search").seconds
    1.5
    """

    seconds: float
    text: str | None = None
    start: float | None = None
    finish: float | None = None

    def __post_init__(self) -> None:
        # `not a <= b` also refuses NaN.
        if not isinstance(self.seconds, (int, float)) or not 0 <= self.seconds <= MAX_SECONDS:
            raise TraceError(f"seconds must be a number from 0 to 10^9, got {self.seconds!r}")


Action = Think | Fork | Join | Return | Answer | Delay
"""What a thread does, one at a time."""


class Thread(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One agent's sequence of actions.

    The id is the path of Fork indices from the organizer: ``"2.1"`` is what worker 2 forked as 1.

    >>> Thread("organizer", (Think(5), Fork(1), Join(1), Answer(2)), prompt_tokens=300).tokens
    7
    """

    id: str
    actions: tuple[Action, ...]
    prompt_tokens: int = 0
    """Tokens in this thread's context before its first action (0 when not recorded)."""
    shared_tokens: int = 0
    """How many of the prompt's first tokens are a prefix of the parent's context, so that an engine can share their
    KV. The organizer has no parent but, perhaps, `Trace.prefix_of`."""
    label: str | None = None

    def __post_init__(self) -> None:
        if self.actions.__class__ is not tuple:
            raise TraceError(f"thread {self.id!r}: actions must be a tuple, got {type(self.actions).__name__}")
        prompt, shared = self.prompt_tokens, self.shared_tokens
        if prompt.__class__ is shared.__class__ is int and 0 <= shared <= prompt <= MAX_TOKENS:
            return
        _tokens(prompt, "prompt_tokens")
        _tokens(shared, "shared_tokens")
        if shared > prompt:
            raise TraceError(
                f"thread {self.id!r}: shared_tokens ({self.shared_tokens}) cannot exceed prompt_tokens"
                f" ({self.prompt_tokens})"
            )

    @property
    def tokens(self) -> int:
        """Tokens this thread decodes."""
        return sum([action.tokens for action in self.actions if action.__class__ is not Delay])  # type: ignore[union-attr,misc]


class Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """How the answer was judged: right or wrong, or `found` solutions of `wanted`.

    >>> Outcome(correct=True).accuracy, Outcome(found=3, wanted=4).accuracy
    (1.0, 0.75)
    """

    correct: bool | None = None
    found: int | None = None
    wanted: int | None = None

    def __post_init__(self) -> None:
        if self.correct not in (None, True, False) or isinstance(self.correct, float):
            raise TraceError(f"correct must be True, False or None; got {self.correct!r:.40}")
        if (self.found is None) != (self.wanted is None):
            raise TraceError("an outcome counts solutions with both `found` and `wanted`")
        if self.wanted is not None and (self.wanted < 1 or self.found is None or self.found < 0):
            raise TraceError(f"an outcome needs found >= 0 and wanted >= 1, got {self.found!r} of {self.wanted!r}")

    @property
    def accuracy(self) -> float | None:
        """1 or 0 if judged right or wrong, ``min(found, wanted) / wanted`` if counted, None if unknown.

        >>> Outcome(found=3, wanted=4).accuracy
        0.75
        """
        if self.wanted is not None and self.found is not None:
            return min(self.found, self.wanted) / self.wanted
        return None if self.correct is None else float(self.correct)


class ViolationKind(StrEnum):
    """What can be wrong with a trace. The paper's format errors are the first four.

    >>> ViolationKind("pool_overflow") is ViolationKind.POOL_OVERFLOW
    True
    """

    DUPLICATE_INDEX = "duplicate_index"
    POOL_OVERFLOW = "pool_overflow"
    UNKNOWN_JOIN = "unknown_join"
    MISSING_ANSWER = "missing_answer"
    REPEATED_JOIN = "repeated_join"
    MISSING_RETURN = "missing_return"
    UNCLOSED_TAG = "unclosed_tag"
    STRAY_TAG = "stray_tag"
    FORK_WITHOUT_WORKER = "fork_without_worker"
    WORKER_WITHOUT_FORK = "worker_without_fork"
    UNJOINED_WORKER = "unjoined_worker"
    NESTED_FORK = "nested_fork"
    MISPLACED_ACTION = "misplaced_action"
    FORGED_JOIN = "forged_join"
    UNKNOWN_TAGS = "unknown_tags"
    MORE_FAULTS = "more_faults"


class Violation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One breach of the protocol: data, because a format-error reward needs it.

    >>> print(Violation(ViolationKind.UNKNOWN_JOIN, "organizer", "Join of 2, which nobody forked", action=3))
    unknown_join: thread organizer action 3: Join of 2, which nobody forked
    """

    kind: ViolationKind
    thread: str
    message: str
    action: int | None = None
    """Which action of the thread, from 0."""
    offset: int | None = None
    """Which character, from 0, of the text it was read from."""

    def __str__(self) -> str:
        where = "" if self.action is None else f" action {self.action}"
        where += "" if self.offset is None else f" char {self.offset}"
        return f"{self.kind.value}: thread {self.thread}{where}: {self.message}"


class Trace(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="schema",
    tag="forksim.trace/1",
):
    """One query's recorded thinking: the organizer's thread first, then the workers', parents before children.

    >>> organizer = Thread("organizer", (Think(5), Fork(1), Join(1), Answer(2)))
    >>> trace = Trace("sums", (organizer, Thread("1", (Return(10),))), Outcome(correct=True))
    >>> trace.organizer is organizer, [thread.id for thread in trace.threads]
    (True, ['organizer', '1'])
    """

    id: str
    threads: tuple[Thread, ...]
    outcome: Outcome | None = None
    token_source: str = "record"
    """Where the token counts come from: ``record``, or the name of a counter (see `simulator.trace.tokens`)."""
    arrival: float | None = None
    """Recorded second at which the query arrived."""
    faults: tuple[Violation, ...] = ()
    """What the parser found wrong with the text. `simulator.check` adds what the actions themselves get wrong."""
    meta: dict[str, str | int | float | bool | None] = {}
    """Anything worth keeping: where the trace comes from, how it was measured."""
    prefix_of: str | None = None
    """The id of an earlier trace whose organizer's context begins with the same tokens as this organizer's prompt: the
    last turn of a conversation, or anyone with the same system prompt. The organizer's `shared_tokens` says how many.
    """

    def __post_init__(self) -> None:
        threads = self.threads
        if self.outcome is not None and self.outcome.__class__ is not Outcome:
            raise TraceError(f"outcome must be an Outcome, such as Outcome(correct=True); got {self.outcome!r:.40}")
        if not threads or threads[0].id != ORGANIZER:
            raise TraceError(f"trace {self.id!r}: the first thread must be {ORGANIZER!r}")
        seen = {ORGANIZER}
        for thread in threads[1:]:
            name = thread.id
            if name in seen:
                raise TraceError(f"trace {self.id!r}: two threads are called {name!r}")
            seen.add(name)
            if name.isascii() and name.isdecimal():
                continue
            if not (name.isascii() and all(part.isdecimal() for part in name.split("."))):
                raise TraceError(f"trace {self.id!r}: a worker is called by its Fork indices, like '2.1', not {name!r}")
            if name.count(".") >= MAX_NESTING:
                raise TraceError(f"trace {self.id!r}: thread {name!r} is nested deeper than {MAX_NESTING}")
            if name.rpartition(".")[0] not in seen:
                raise TraceError(f"trace {self.id!r}: thread {name!r} comes before its parent")
        if self.arrival is not None and not 0 <= self.arrival <= MAX_SECONDS:
            raise TraceError(f"trace {self.id!r}: arrival must be from 0 to 10^9 seconds, got {self.arrival!r}")

    def __repr__(self) -> str:
        count = sum(len(thread.actions) for thread in self.threads)
        if count <= _SHOWN:  # as it is made
            said = [f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__]
            return f"Trace({', '.join(said)})"
        threads = "1 thread" if len(self.threads) == 1 else f"{len(self.threads):,} threads"
        return f"Trace({self.id!r}: {count:,} actions of {threads}, {self.tokens:,} tokens)"

    @property
    def organizer(self) -> Thread:
        """The organizer's thread."""
        return self.threads[0]

    @property
    def tokens(self) -> int:
        """Tokens decoded by all threads."""
        return sum(thread.tokens for thread in self.threads)

    def thread(self, name: str) -> Thread | None:
        """Return the thread called `name`, if there is one."""
        return next((thread for thread in self.threads if thread.id == name), None)

    def actions(self) -> Iterator[tuple[Thread, int, Action]]:
        """Yield every action with its thread and its place in it."""
        for thread in self.threads:
            for place, action in enumerate(thread.actions):
                yield thread, place, action
