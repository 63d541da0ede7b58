"""What depends on more than one rollout, or on when it is: terms within a group, and weights over the training."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from simulator.errors import ConfigError
from simulator.support.checks import choose, real, whole

How = Literal["correct", "rate", "centred", "standardised"]
_FLAT = 1e-8

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Grouped:
    """How terms count within the group of rollouts of one query, by who of them is right.

    Right is wholly right, with the gate open. Where correctness gates a bonus, a policy cannot earn it by being quick
    and wrong; where it is compared with the others that are right, it cannot drown correctness however large it gets.

    Parameters
    ----------
    terms : sequence of str
        Which terms. The others are left alone.
    how : {"correct", "rate", "centred", "standardised"}
        ``correct``: the term counts in a right rollout, and is 0 in others. ``rate``: it is scaled by the share of the
        group that is right. ``centred``: in a right rollout its mean over the right ones is taken off; others get 0.
        ``standardised``: and it is divided by their standard deviation, as by the parallel bonus of some followers of
        ThreadWeaver; 0 where they are all alike.

    Raises
    ------
    ConfigError
        If `terms` are no names, or there is no such `how`.
    """

    terms: tuple[str, ...]
    how: How = "correct"

    def __post_init__(self) -> None:
        if isinstance(self.terms, str) or not all(isinstance(name, str) for name in self.terms) or not self.terms:
            raise ConfigError(f"group: terms must be a list of names of terms, got {self.terms!r:.80}")
        object.__setattr__(self, "terms", tuple(self.terms))
        choose(self.how, get_args(How), "way to group (how)")

    def weighed(self, values: npt.ArrayLike, right: npt.ArrayLike, groups: Sequence[Hashable]) -> Array:
        """Return a term's values as they count within groups.

        Parameters
        ----------
        values : array_like, shape (n,)
        right : array_like of bool, shape (n,)
        groups : sequence, length n
            What the rollouts of one query have in common.

        Returns
        -------
        ndarray, shape (n,)

        >>> values, right, groups = [0.5, 0.3, 0.1, 0.4], [True, True, False, False], ["a", "a", "a", "b"]
        >>> for how in ("correct", "rate", "centred", "standardised"):
        ...     print(how, Grouped(["bonus"], how).weighed(values, right, groups).round(3).tolist())
        correct [0.5, 0.3, 0.0, 0.0]
        rate [0.333, 0.2, 0.067, 0.0]
        centred [0.1, -0.1, 0.0, 0.0]
        standardised [1.0, -1.0, 0.0, 0.0]
        """
        given, counts = np.asarray(values, dtype=np.float64), np.asarray(right, dtype=np.bool_)
        if self.how == "correct":
            return np.where(counts, given, 0.0)
        out = np.zeros(len(given))
        for rows in rows_of(groups):
            mine = counts[rows]
            if self.how == "rate":
                out[rows] = given[rows] * mine.mean()
                continue
            chosen = rows[mine]
            if len(chosen):
                centred = given[chosen] - given[chosen].mean()
                if self.how == "standardised":
                    deviation = given[chosen].std()
                    centred = centred / deviation if deviation > _FLAT else 0.0 * centred
                out[chosen] = centred
        return out

    def alone(self, value: float, right: bool) -> float:
        """Return what a term counts in a rollout that is a group of its own.

        >>> [Grouped(["bonus"], how).alone(0.5, True) for how in ("correct", "rate", "centred", "standardised")]
        [0.5, 0.5, 0.0, 0.0]
        """
        return value if right and self.how in ("correct", "rate") else 0.0


def rows_of(groups: Sequence[Hashable]) -> list[npt.NDArray[np.int64]]:
    """Return the rows of each group, groups in order of their first row.

    >>> [rows.tolist() for rows in rows_of(["a", "b", "a"])]
    [[0, 2], [1]]
    """
    found: dict[Hashable, list[int]] = {}
    for row, name in enumerate(groups):
        found.setdefault(name, []).append(row)
    return [np.array(rows, dtype=np.int64) for rows in found.values()]


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A weight over the training: a straight line between two steps, and level before and after.

    Raises
    ------
    ConfigError
        If a number is out of range, or the ramp ends before it begins.

    >>> ramp = Ramp(start=0.0, end=1.0, begin=100, finish=300)
    >>> [ramp.at(step) for step in (0, 100, 150, 300, 1000)]
    [0.0, 0.0, 0.25, 1.0, 1.0]
    """

    start: float = 0.0
    """Before `begin`."""
    end: float = 1.0
    """From `finish` on."""
    begin: int = 0
    finish: int

    def __post_init__(self) -> None:
        real("start", self.start)
        real("end", self.end)
        whole("begin", self.begin, "from 0 to 10^12")
        whole("finish", self.finish, "from 0 to 10^12")
        if self.finish < self.begin:
            raise ConfigError(f"a ramp must not finish before it begins: {self.finish} is before {self.begin}")

    def at(self, step: int) -> float:
        """Return the weight at a training step."""
        if step <= self.begin:
            return self.start if step < self.begin or self.finish > self.begin else self.end
        if step >= self.finish:
            return self.end
        return self.start + (self.end - self.start) * (step - self.begin) / (self.finish - self.begin)


@dataclass(frozen=True)
class Scaled:
    """A term times a number. Picklable if the term is.

    >>> Scaled(len, 0.5)("four")
    2.0
    """

    term: Any
    factor: float = field(default=1.0)

    def __call__(self, rollout: Any) -> float:
        """Return what the term is worth."""
        return self.factor * float(self.term(rollout))


def check_names(what: str, names: Sequence[str], terms: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where a name is none of the `terms`."""
    for name in names:
        choose(name, list(terms), what)
