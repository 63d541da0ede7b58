"""The smallest value that meets objectives, or the highest load that keeps them: bracket, halve, check.

Doubling from the lowest value finds where the verdict turns, halving finds the place. Both suppose that it turns once.
So the neighbours of the answer and a few values spread over both sides are tried as well, and if one of them says
otherwise, every value is tried and the answer is read off the scan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from simulator.errors import ConfigError
from simulator.planning.objectives import Objective
from simulator.planning.verdicts import Batch, Rules, Trial, Verdict, settle

Question = Literal["smallest", "highest"]
MOST_SCANNED = 64
"""Values that a scan tries at most; of more, it takes so many at even distances."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search found, and every value it tried."""

    question: Question
    objectives: tuple[Objective, ...]
    rules: Rules
    values: tuple[Any, ...]
    """What was asked about, in order."""
    value: Any | None
    """The answer; None if no value is shown to meet the objectives."""
    beyond: Any | None
    """The nearest value past the answer that is shown not to meet them; None if none was. The true boundary lies
    between the two."""
    undecided: tuple[Any, ...]
    """Values between these two that were not settled."""
    trials: tuple[Trial, ...]
    """In order of value."""
    monotone: bool
    """Whether every value that was tried and settled agrees with a verdict that turns once."""
    exceptions: tuple[Any, ...] = ()
    """Values that do not: past the answer but met, or on its good side but failed."""

    def trial(self, value: Any) -> Trial:
        """Return what is known of `value`."""
        for trial in self.trials:
            if trial.value == value:
                return trial
        raise ConfigError(f"{value!r} was not tried; these were: {', '.join(str(each.value) for each in self.trials)}")

    @property
    def runs(self) -> int:
        """Simulations it took."""
        return sum(trial.replications for trial in self.trials)


def ladder(low: float, high: float, step: float = 0.02) -> tuple[float, ...]:
    """Return values from `low` to `high`, each about `step` (a share) above the last, to four digits.

    >>> ladder(1, 2, 0.25)
    (1.0, 1.25, 1.562, 1.953, 2.0)
    """
    for name, value in (("low", low), ("high", high)):
        if not 1e-9 <= value <= 1e9:
            raise ConfigError(f"a range of numbers lies within 10^-9 to 10^9; {name} is {value:g}")
    if not 0.001 <= step <= 1:
        raise ConfigError(f"a step is a share from 0.001 to 1, got {step!r}")
    if low > high:
        raise ConfigError(f"a range goes up; got {low:g} to {high:g}")
    count = math.ceil(math.log(high / low) / math.log1p(step))
    between = [float(f"{low * (1 + step) ** k:.4g}") for k in range(1, count)]
    return tuple(sorted({float(low), float(high), *(value for value in between if low < value < high)}))


_CHECKS = 8


class _Search:
    """One search under way: what was tried, and where the verdict turns."""

    def __init__(
        self,
        question: Question,
        values: Sequence[Any],
        trial: Callable[[Any, float], Trial],
        rules: Rules,
        watch: Callable[[Trial], None] | None,
    ) -> None:
        self.values = values
        self.rising = question == "smallest"
        self.run = trial
        self.watch = watch
        self.trials: dict[int, Trial] = {}
        n = len(values)
        rungs = len(self._rungs())
        bound = rungs + 2 * max(n - 1, 1).bit_length() + _CHECKS
        scanned = min(n, MOST_SCANNED)
        self.whole = n <= max(bound, scanned)
        self.share = rules.error / n if self.whole else rules.error / 2 / bound
        self.scan_share = self.share if self.whole else rules.error / 2 / scanned

    def _rungs(self) -> list[int]:
        """Return places to try while doubling: values twice as large where they are numbers, else places."""
        n = len(self.values)
        places = [0]
        while places[-1] < n - 1:
            here = places[-1]
            value = self.values[here]
            step = here + 1
            if not isinstance(value, (int, float)) or value <= 0:
                step = 2 * here + 1
            else:
                while step + 1 < n and self.values[step + 1] <= 2 * value:
                    step += 1
            places.append(min(step, n - 1))
        return places

    def _checks(self, turn: int) -> list[int]:
        """Return places to try besides: neighbours of the turn, and some spread over both sides of it."""
        n = len(self.values)
        wanted = [turn - 2, turn - 1, turn, turn + 1, 0, turn // 2, (turn + n - 1) // 2, n - 1]
        return [place for place in dict.fromkeys(wanted) if 0 <= place < n]

    def at(self, place: int, share: float | None = None) -> Trial:
        """Return the trial at a place, run when first asked for."""
        if place not in self.trials:
            self.trials[place] = self.run(self.values[place], self.share if share is None else share)
            if self.watch is not None:
                self.watch(self.trials[place])
        return self.trials[place]

    def turned(self, place: int) -> bool:
        """Whether `place` is past the turn from low to high, as a search takes it: undecided is not met."""
        return (self.at(place).verdict is Verdict.MEETS) is self.rising

    def find(self) -> int:
        """Return the first place past the turn; as many as there are values if there is none."""
        before, after = -1, len(self.values)
        for place in self._rungs():
            if self.turned(place):
                after = place
                break
            before = place
        return self._halve(before, after, self.turned)

    def _halve(self, before: int, after: int, passed: Callable[[int], bool]) -> int:
        """Return the first place after `before` that is passed, if places are up to it in order."""
        while after - before > 1:
            middle = (before + after) // 2
            if passed(middle):
                after = middle
            else:
                before = middle
        return after

    def narrow(self, turn: int) -> None:
        """Look for the value nearest to the answer that is shown not to do, where what is next to it is undecided."""
        against = [place for place, trial in self.trials.items() if trial.verdict.settled_against]
        if self.rising:
            nearest = max((place for place in against if place < turn), default=-1)
            self._halve(nearest, turn, lambda place: not self.at(place).verdict.settled_against)
        else:
            nearest = min((place for place in against if place >= turn), default=len(self.values))
            self._halve(turn - 1, nearest, lambda place: self.at(place).verdict.settled_against)

    def exceptions(self, turn: int) -> list[int]:
        """Return the places tried that are not on their side of the turn."""
        wrong = []
        for place, trial in sorted(self.trials.items()):
            good_side = (place >= turn) is self.rising
            against = trial.verdict.settled_against if good_side else trial.verdict is Verdict.MEETS
            if against:
                wrong.append(place)
        return wrong

    def contradictions(self, turn: int) -> list[int]:
        """Return those of them that a lower place contradicts; what is undecided contradicts nothing."""
        met = {place: trial.verdict is Verdict.MEETS for place, trial in self.trials.items()}
        settled = [place for place, trial in self.trials.items() if trial.verdict is not Verdict.UNDECIDED]
        return [
            place
            for place in self.exceptions(turn)
            if any(other < place and met[other] is not met[place] for other in settled)
        ]

    def scan(self) -> None:
        """Try every value, or as many as there may be at even distances."""
        n = len(self.values)
        scanned = min(n, MOST_SCANNED)
        for k in range(scanned):
            self.at(round(k * (n - 1) / max(scanned - 1, 1)), self.scan_share)

    def read(self) -> int:
        """Return the turn that a scan shows: the lowest value that meets, or the lowest that is not shown to."""
        for place in sorted(self.trials):
            if self.turned(place):
                return place
        return len(self.values)


def search(
    question: Question,
    values: Sequence[Any],
    batch: Batch,
    objectives: Sequence[Objective],
    *,
    rules: Rules | None = None,
    backlog: float | None = None,
    watch: Callable[[Trial], None] | None = None,
) -> Found:
    """Return the smallest of `values` that meets all objectives, or the highest up to which all do.

    Parameters
    ----------
    question : {"smallest", "highest"}
        ``smallest``: of a resource, more of which helps. ``highest``: of a load, more of which hurts.
    values : sequence
        Candidates, in increasing order.
    batch : callable
        Runs replications of one value; see `in_turn`.
    objectives : sequence of Objective
        All must hold.
    rules : Rules, optional
        Confidence and replications.
    backlog : float, optional
        See `settle`.
    watch : callable, optional
        Called with each `Trial` when it is settled.

    Raises
    ------
    ConfigError
        If there are no values, they do not increase, or no value at all could be run.

    >>> from simulator.planning.verdicts import in_turn
    >>> latency = in_turn(lambda servers, replication: {"latency_mean": 60 / servers + replication % 2})
    >>> found = search("smallest", range(1, 65), latency, [Objective("latency_mean", "<", 10)])
    >>> found.value, found.beyond, [trial.value for trial in found.trials]
    (7, 6, [1, 2, 4, 5, 6, 7, 8, 35, 64])
    """
    rules = rules or Rules()
    candidates = tuple(values)
    if question not in ("smallest", "highest"):
        raise ConfigError(f"a search is for the smallest or the highest value, got {question!r}")
    if not candidates:
        raise ConfigError("there is no value to try")
    if not objectives:
        raise ConfigError("there is no objective to meet")
    if all(isinstance(value, (int, float)) for value in candidates) and any(
        after <= before for before, after in pairwise(candidates)
    ):
        raise ConfigError(f"values must increase, got {', '.join(f'{value}' for value in candidates):.80}")
    state = _Search(
        question,
        candidates,
        lambda value, share: settle(value, batch, objectives, rules, share, backlog),
        rules,
        watch,
    )
    turn = state.find()
    for place in state._checks(turn):
        state.at(place)
    state.narrow(turn)
    if state.exceptions(turn):  # if only beside what is undecided, the answer still needs the scan
        state.scan()
        turn = state.read()
    return _found(question, state, turn, tuple(objectives), rules)


def _found(question: Question, state: _Search, turn: int, objectives: tuple[Objective, ...], rules: Rules) -> Found:
    trials = state.trials
    if all(trial.verdict is Verdict.CANNOT_RUN for trial in trials.values()):
        raise ConfigError(f"no value could be run: {next(iter(trials.values())).why}")
    tried = sorted(trials)
    if state.rising:
        answer = turn if turn < len(state.values) else None
        past = [place for place in reversed(tried) if place < turn]
    else:
        met = [place for place in tried if place < turn]
        answer = met[-1] if met else None
        past = [place for place in tried if place >= turn]
    beyond = next((place for place in past if trials[place].verdict.settled_against), None)
    near = past if beyond is None else past[: past.index(beyond)]
    undecided = [place for place in near if trials[place].verdict is Verdict.UNDECIDED]
    exceptions = state.contradictions(turn)
    return Found(
        question=question,
        objectives=objectives,
        rules=rules,
        values=tuple(state.values),
        value=None if answer is None else state.values[answer],
        beyond=None if beyond is None else state.values[beyond],
        undecided=tuple(state.values[place] for place in sorted(undecided)),
        trials=tuple(trials[place] for place in tried),
        monotone=not exceptions,
        exceptions=tuple(state.values[place] for place in exceptions),
    )
