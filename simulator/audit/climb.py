"""A guided search: rollouts are changed at random, and the most telling ones are changed again.

No family names what is looked for. An archive keeps, for every kind of rollout that was come by (how long, how many
Forks and Joins, nested or not, legal or not, right or wrong), the one that earns most and the legal one that earns
least; parents are drawn from it, more often those of the best pair so far. This is the coverage of a fuzzer, with what
a reward pays in place of branches (MAP-Elites, arXiv 1504.04909). Any rollout may be A to any legal rollout's B.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

from msgspec.structs import replace

from simulator.audit.reasons import Sample
from simulator.audit.truth import Judge, Pair, Scored
from simulator.errors import TraceError
from simulator.trace import (
    ORGANIZER,
    Action,
    Answer,
    Delay,
    Fork,
    Join,
    Outcome,
    Return,
    Think,
    Thread,
    Trace,
    child_id,
    nesting,
)

MAX_ACTIONS = 600
"""The most actions of a rollout that is tried."""
MAX_THREADS = 200
"""The most threads of one."""
_MOST_TOKENS = 50_000
_DEEPEST = 3
_REPEATS = (1, 1, 3, 9, 31)
_SIZES = (1, 10, 30, 100, 300, 1000, 3000)
_GREEDY = 0.5  # how often a parent is of the best pair
_PROMPT = 100


class Climb:
    """What a guided search has come to.

    Parameters
    ----------
    judge : Judge
    seed : int
        The same seed gives the same result.

    Examples
    --------
    >>> from simulator.rewards import Reward
    >>> from simulator.trace.protocol import Protocol
    >>> def joins(rollout):
    ...     return 0.1 * sum(isinstance(action, Join) for action in rollout.trace.organizer.actions)
    >>> climb = Climb(Judge(reward=Reward(terms={"joins": joins}, gate=None), protocol=Protocol(), gpu="steps"), 0)
    >>> climb.run(400)
    >>> climb.best.gain > 3
    True
    """

    def __init__(self, judge: Judge, seed: int) -> None:
        self.judge = judge
        self.chance = Random(f"{seed} climb")
        self.high: dict[object, Scored] = {}  # by kind, what earns most
        self.low: dict[object, Scored] = {}  # by kind, what is legal and earns least
        self.best: Pair | None = None
        self.tried = 0
        self.found = 0
        self.samples: list[Sample] = []

    def run(self, budget: int, seeds: Iterable[Trace] = ()) -> None:
        """Try `budget` rollouts: the simplest ones, `seeds`, and then what becomes of these."""
        first = [*_simplest(), *seeds][:budget]
        for trace in first:
            self._try(trace)
        for _ in range(budget - len(first)):
            self._try(self._child())

    def _child(self) -> Trace:
        chance = self.chance
        parent = self._parent()
        for _ in range(1 + (chance.random() < 0.5) + (chance.random() < 0.25)):
            try:
                changed = _Change(chance, parent).made(self._parent())
            except TraceError:
                continue
            if (
                len(changed.threads) <= MAX_THREADS
                and sum(len(each.actions) for each in changed.threads) <= MAX_ACTIONS
            ):
                parent = changed
        return parent

    def _parent(self) -> Trace:
        chance = self.chance
        if self.best is not None and chance.random() < _GREEDY:
            return self.best[chance.random() < 0.25].trace
        elites = [*self.high.values(), *self.low.values()]
        return elites[int(chance.random() * len(elites))].trace if elites else _simplest()[0]

    def _try(self, trace: Trace) -> None:
        """Judge a rollout, hold it against all others, and keep it if it is the most telling of its kind."""
        self.tried += 1
        trace = self.judge.formed(trace)
        trial = self.judge.trial(trace)
        if trial is None:
            return
        if (sample := Sample.of(trace, self.judge)) is not None:
            self.samples.append(sample)
        legal = not trial.score.violations
        kind = _kind(trial)
        wins = False
        for other in self.low.values():
            wins |= self._weigh(trial, other)
        self.found += wins
        if legal:
            for other in self.high.values():
                self._weigh(other, trial)
            if kind not in self.low or trial.score.total < self.low[kind].score.total:
                self.low[kind] = trial
        if kind not in self.high or trial.score.total > self.high[kind].score.total:
            self.high[kind] = trial

    def _weigh(self, a: Scored, b: Scored) -> bool:
        """Hold two rollouts against each other, and keep the pair if it gains more than the best."""
        if not self.judge.in_wrong_order(a, b):
            return False
        gain, size = a.score.total - b.score.total, a.actions + b.actions
        best = self.best
        if best is None or (gain, -size) > (best.gain, -best.a.actions - best.b.actions):
            self.best = Pair(_named(a, "A"), _named(b, "B"))
        return True


def _named(trial: Scored, name: str) -> Scored:
    return trial._replace(trace=replace(trial.trace, id=name))


def _kind(trial: Scored) -> object:
    """Return what kind of rollout this is, for the archive."""
    organizer = trial.trace.threads[0].actions
    forks = sum(isinstance(action, Fork) for action in organizer)
    joins = sum(isinstance(action, Join) for action in organizer)
    return (
        trial.accuracy,
        bool(trial.score.violations),
        forks.bit_length(),
        joins.bit_length(),
        trial.score.latency.bit_length() // 2,
        trial.score.peak_concurrency.bit_length(),
        max([nesting(thread.id) for thread in trial.trace.threads]),
        sum([isinstance(action, Delay) for _, _, action in trial.trace.actions()]).bit_length(),
    )


def _simplest() -> list[Trace]:
    """Return rollouts to begin with: thinking alone, and with a worker, right and wrong."""
    made = []
    for correct in (True, False):
        for size in (10, 100, 1000):
            alone = (Think(size), Answer(10))
            asked = (Fork(1, 10), Think(size), Join(1, 0, 10), Answer(10))
            made.append(_trace({ORGANIZER: list(alone)}, correct))
            made.append(_trace({ORGANIZER: list(asked), "1": [Return(size)]}, correct))
    return made


def _trace(threads: dict[str, list[Action]], correct: bool) -> Trace:
    made = tuple(
        Thread(name, tuple(actions), prompt_tokens=_PROMPT, shared_tokens=0 if name == ORGANIZER else _PROMPT)
        for name, actions in threads.items()
    )
    return Trace("climb", made, Outcome(correct=correct), token_source="synthetic")


class _Change:
    """One change of a rollout."""

    def __init__(self, chance: Random, trace: Trace) -> None:
        self.chance = chance
        self.threads: dict[str, list[Action]] = {thread.id: list(thread.actions) for thread in trace.threads}
        self.correct = trace.outcome is not None and trace.outcome.accuracy == 1

    def made(self, other: Trace) -> Trace:
        """Return the rollout with a change drawn at random; `other` may lend a part."""
        changes = (
            self._resize,
            self._resize,
            self._insert,
            self._insert,
            self._delete,
            self._repeat,
            self._repeat,
            self._move,
            self._reverse,
            self._break,
            self._end,
            self._flip,
        )
        at = self._below(len(changes) + 1)
        if at == len(changes):
            self._borrow(other)
        else:
            changes[at]()
        return _trace(self._reachable(), self.correct)

    def _below(self, number: int) -> int:
        return int(self.chance.random() * number)

    def _one(self, choices: list[str] | tuple[int, ...]) -> str | int:
        return choices[self._below(len(choices))]

    def _size(self) -> int:
        return int(self._one(_SIZES))

    def _thread(self) -> str:
        """Return a thread: the organizer more often than any other."""
        return ORGANIZER if self.chance.random() < 0.6 else str(self._one(list(self.threads)))

    def _reachable(self) -> dict[str, list[Action]]:
        """Return the threads that something forks, parents before children."""
        found: dict[str, list[Action]] = {}
        todo = [ORGANIZER]
        while todo:
            name = todo.pop(0)
            if name in found or name not in self.threads:
                continue
            found[name] = self.threads[name]
            todo += [child_id(name, action.index) for action in self.threads[name] if isinstance(action, Fork)]
        return found

    def _resize(self) -> None:
        actions = self.threads[self._thread()]
        if not actions:
            return
        at = self._below(len(actions))
        action = actions[at]
        if isinstance(action, Delay):
            actions[at] = replace(action, seconds=float(self._size()) / 10)
            return
        tokens = action.tokens
        sizes = (1, 2, tokens // 2, tokens * 2, tokens // 10, tokens * 10, self._size())
        actions[at] = replace(action, tokens=min(max(int(self._one(sizes)), 1), _MOST_TOKENS))

    def _insert(self) -> None:
        name = self._thread()
        actions = self.threads[name]
        at = self._below(len(actions) + 1)
        kind = int(self._one((0, 1, 2, 3) if name == ORGANIZER else (0, 1, 1, 3)))
        if kind == 0:
            actions.insert(at, Think(self._size()))
        elif kind == 1 and nesting(name) < _DEEPEST:
            index = 1 + max((action.index for action in actions if isinstance(action, Fork)), default=0)
            actions.insert(at, Fork(index, self._size()))
            self.threads[child_id(name, index)] = [Return(self._size())]
            if self.chance.random() < 0.7:
                actions.insert(at + 1 + self._below(len(actions) - at), Join(index, 0, 10))
        elif kind == 2:
            forks = [action.index for action in actions if isinstance(action, Fork)]
            if forks:
                actions.insert(at, Join(forks[self._below(len(forks))], 0, 10))
        else:
            actions.insert(at, Delay(float(self._size()) / 10))

    def _delete(self) -> None:
        actions = self.threads[self._thread()]
        if actions:
            del actions[self._below(len(actions))]

    def _repeat(self) -> None:
        """Do a run of actions again and again; what it forks is forked anew each time, or not."""
        name = self._thread()
        actions = self.threads[name]
        if not actions:
            return
        start = self._below(len(actions))
        run = actions[start : start + 1 + self._below(min(4, len(actions) - start))]
        run = [action for action in run if not isinstance(action, (Return, Answer))]
        anew = self.chance.random() < 0.8
        more: list[Action] = []
        for _ in range(int(self._one(_REPEATS))):
            more += self._copied(self.threads, name, name, run, [*actions, *more]) if anew else run
        actions[start + len(run) : start + len(run)] = more

    def _copied(
        self, source: dict[str, list[Action]], old: str, name: str, run: Sequence[Action], taken: list[Action]
    ) -> list[Action]:
        """Return a run of actions of thread `old` of `source` for thread `name`, with indices that are not taken."""
        index = 1 + max((action.index for action in taken if isinstance(action, (Fork, Join))), default=0)
        new: dict[int, int] = {}
        made: list[Action] = []
        for action in run:
            if isinstance(action, Fork):
                new[action.index] = index
                made.append(replace(action, index=index))
                worker = source.get(child_id(old, action.index), [])
                self.threads[child_id(name, index)] = [each for each in worker if not isinstance(each, (Fork, Join))]
                index += 1
            elif isinstance(action, Join):
                made.append(replace(action, index=new.get(action.index, action.index)))
            else:
                made.append(action)
        return made

    def _borrow(self, other: Trace) -> None:
        """Take a run of actions from another rollout's organizer, with the workers it forks."""
        theirs = {thread.id: list(thread.actions) for thread in other.threads}
        run = [action for action in theirs[ORGANIZER] if not isinstance(action, Answer)]
        mine = self.threads[ORGANIZER]
        at = self._below(len(mine) + 1)
        mine[at:at] = self._copied(theirs, ORGANIZER, ORGANIZER, run, mine)

    def _move(self) -> None:
        actions = self.threads[self._thread()]
        if len(actions) > 1:
            action = actions.pop(self._below(len(actions)))
            actions.insert(self._below(len(actions) + 1), action)

    def _reverse(self) -> None:
        """Join in the other order."""
        actions = self.threads[ORGANIZER]
        places = [at for at, action in enumerate(actions) if isinstance(action, Join)]
        for at, action in zip(places, [actions[at] for at in reversed(places)], strict=True):
            actions[at] = action

    def _break(self) -> None:
        """Fork an index twice, join a stranger, join twice, or leave a Return out."""
        name = self._thread()
        actions = self.threads[name]
        forks = [action for action in actions if isinstance(action, Fork)]
        at = self._below(len(actions) + 1)
        kind = self._below(4)
        if kind == 0 and forks:
            actions.insert(at, forks[self._below(len(forks))])
        elif kind == 1:
            actions.insert(at, Join(1 + max((fork.index for fork in forks), default=0), 0, 10))
        elif kind == 2 and forks:
            actions.append(Join(forks[self._below(len(forks))].index, 0, 10))
        elif name != ORGANIZER:
            self.threads[name] = [Think(each.tokens) if isinstance(each, Return) else each for each in actions]

    def _end(self) -> None:
        """Answer elsewhere, again, or not at all."""
        actions = self.threads[ORGANIZER]
        kind = self._below(3)
        if kind < 2:
            actions[:] = [action for action in actions if not isinstance(action, Answer)]
        if kind > 0:
            actions.insert(self._below(len(actions) + 1) if kind == 2 else len(actions), Answer(self._size()))

    def _flip(self) -> None:
        self.correct = not self.correct
