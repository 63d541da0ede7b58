"""Traces cut short: what is left of one when workers may decode so many tokens, and no more."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import msgspec

from simulator.support.checks import whole
from simulator.trace import ORGANIZER, Action, Delay, Fork, Join, Return, Think, Thread, Trace, child_id

Mark = tuple[int, int]
"""A position in a context, counted in tokens: where it was, and where it is."""


def cap_tokens(trace: Trace, *, worker: int) -> Trace:
    """Return `trace` with no worker that decodes more than `worker` tokens.

    A worker at its cap is told to return: what it did is kept in order as far as the cap leaves room for its Return.
    The rest is lost, with the Forks and Joins in it and the workers that these Forks would have started. A Return that
    is longer than the cap is itself cut, and the Join inserts as many tokens less. Organizers are not cut.

    What a cut worker would have returned is not known. So a trace that loses anything loses its outcome, its recorded
    times and the texts that no longer hold. ``meta["tokens_cut"]`` says how many tokens it lost. A trace within the cap
    comes back as it is.

    A prompt of which a prefix is shared with the parent follows the parent's context: where a Join inserts less, a
    worker that is forked later shares less, and its prompt is as much shorter. What a later trace shares with the
    organizer of this one (`Trace.prefix_of`) is in that trace, and stays.

    Parameters
    ----------
    trace : Trace
    worker : int
        Tokens, from 1.

    Raises
    ------
    ConfigError
        If `worker` is no such number.

    >>> from simulator.trace import Answer
    >>> organizer = Thread("organizer", (Fork(1), Join(1, 2, 40), Answer(5)))
    >>> trace = Trace("t", (organizer, Thread("1", (Think(900), Return(40)))))
    >>> cut = cap_tokens(trace, worker=512)
    >>> [action.tokens for action in cut.threads[1].actions], trace.tokens - cut.tokens
    ([472, 40], 428)
    """
    whole("worker", worker, "from 1 to 10^12")
    if all(thread.tokens <= worker for thread in trace.threads[1:]):
        return trace
    cut = {thread.id: thread if thread.id == ORGANIZER else _cut(thread, worker) for thread in trace.threads}
    alive = _alive(trace, cut)
    uncut = {thread.id: thread for thread in trace.threads}
    lost = {name: _returned(uncut[name]) - _returned(cut[name]) for name in alive if name != ORGANIZER}
    threads = tuple(_bare(cut[thread.id], lost) for thread in trace.threads if thread.id in alive)
    after = msgspec.structs.replace(trace, threads=_shared(uncut, threads), outcome=None)
    return msgspec.structs.replace(after, meta={**trace.meta, "tokens_cut": trace.tokens - after.tokens})


def _cut(thread: Thread, cap: int) -> Thread:
    """Return a worker within its cap."""
    if thread.tokens <= cap:
        return thread
    returns = next((action for action in thread.actions if isinstance(action, Return)), None)
    last = Return(min(returns.tokens, cap)) if returns is not None else None
    room = cap - (last.tokens if last is not None else 0)
    kept: list[Action] = []
    for action in thread.actions:
        if isinstance(action, Return):
            break
        tokens = 0 if isinstance(action, Delay) else action.tokens
        if tokens > room:
            if isinstance(action, Think) and room:
                kept.append(Think(room))
            break
        kept.append(action)
        room -= tokens
    return msgspec.structs.replace(thread, actions=(*kept, *(() if last is None else (last,))))


def _alive(trace: Trace, cut: dict[str, Thread]) -> set[str]:
    """Return the threads that are still forked, and those that nobody ever forked."""
    forked = {name: _forks(thread) for name, thread in cut.items()}
    before = {thread.id: _forks(thread) for thread in trace.threads}
    alive = {ORGANIZER}
    for thread in trace.threads[1:]:
        head, _, index = thread.id.rpartition(".")
        parent = head or ORGANIZER
        if parent in alive and (int(index) in forked[parent] or int(index) not in before[parent]):
            alive.add(thread.id)
    return alive


def _forks(thread: Thread) -> set[int]:
    return {action.index for action in thread.actions if isinstance(action, Fork)}


def _returned(thread: Thread) -> int:
    return sum(action.tokens for action in thread.actions if isinstance(action, Return))


def _bare(thread: Thread, lost: dict[str, int]) -> Thread:
    """Return a thread without recorded times, whose Joins insert what is left of each Return."""
    actions: list[Action] = []
    for action in thread.actions:
        bare = msgspec.structs.replace(action, start=None, finish=None)
        if isinstance(bare, Join) and lost.get(child_id(thread.id, bare.index), 0):
            less = lost[child_id(thread.id, bare.index)]
            bare = msgspec.structs.replace(bare, inserted_tokens=max(bare.inserted_tokens - less, 0), text=None)
        actions.append(bare)
    return msgspec.structs.replace(thread, actions=tuple(actions))


def _shared(uncut: dict[str, Thread], threads: Sequence[Thread]) -> tuple[Thread, ...]:
    """Return `threads`, cut from those in `uncut`, with prompts that share what is left of their parents' contexts."""
    contexts = Contexts()
    result = []
    for thread in threads:
        own = thread.prompt_tokens - thread.shared_tokens
        # Nothing is forked after what was cut off: zip ends with what is left.
        kept = zip(uncut[thread.id].actions, thread.actions, strict=False)
        runs = [(own, own), *((_adds(before), _adds(after)) for before, after in kept)]
        shared = contexts.add(thread.id, thread.shared_tokens, runs)
        result.append(msgspec.structs.replace(thread, prompt_tokens=shared + own, shared_tokens=shared))
    return tuple(result)


def _adds(action: Action) -> int:
    """Return by how many tokens an action makes its thread's context longer."""
    if isinstance(action, Delay):
        return 0
    return action.tokens + (action.inserted_tokens if isinstance(action, Join) else 0)


class Contexts:
    """Where positions of the contexts of a trace's threads have gone. Parents come before those they fork.

    >>> contexts = Contexts()
    >>> contexts.add("organizer", 0, [(10, 5), (4, 4)]), contexts.add("1", 12, []), contexts.add("1.1", 13, [])
    (0, 7, 8)
    """

    def __init__(self) -> None:
        self._added: dict[str, tuple[int, Sequence[Mark]]] = {}
        self._marks: dict[str, list[Mark]] = {}

    def add(self, name: str, shared: int, runs: Sequence[Mark]) -> int:
        """Take in a thread: of its context, `shared` tokens are its parent's, then come runs of tokens, each as it was
        and as it is. Return how many tokens it shares now.
        """
        self._added[name] = shared, runs
        return moved(self._of(_parent(name)), shared)

    def _of(self, name: str) -> list[Mark]:
        """Return the marks of a thread, which are worked out only if it forks others."""
        if name not in self._added:
            return [(0, 0)]
        if name not in self._marks:
            shared, runs = self._added[name]
            parent = self._of(_parent(name))
            marks = parent[: bisect_left(parent, shared, key=lambda mark: mark[0])]
            before, after = shared, moved(parent, shared)
            marks.append((before, after))
            for old, new in runs:
                before, after = before + old, after + new
                if before > marks[-1][0]:
                    marks.append((before, after))
            self._marks[name] = marks
        return self._marks[name]


def _parent(name: str) -> str:
    return "" if name == ORGANIZER else name.rpartition(".")[0] or ORGANIZER


def moved(marks: Sequence[Mark], position: int) -> int:
    """Return where a position of a context has gone.

    >>> [moved([(0, 0), (10, 10), (30, 20)], position) for position in (5, 10, 20, 30, 31)]
    [5, 10, 15, 20, 21]
    """
    i = bisect_right(marks, position, key=lambda mark: mark[0]) - 1
    before, after = marks[i]
    if i + 1 == len(marks):
        return after + position - before
    end, new_end = marks[i + 1]
    return after + (position - before) * (new_end - after) // (end - before)
