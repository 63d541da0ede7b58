"""Group-relative advantages, as GRPO computes them, and whether correctness is still to be heard in them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

EPSILON = 1e-4
"""Added to the standard deviation, as in TRL's GRPOTrainer."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class GroupFigures:
    """What the rollouts of one query teach, by comparison with each other. NaN where there is nothing to compare."""

    groups: int
    """Groups of two rollouts and more."""
    mixed: int
    """Groups in which some are more correct than others. In the rest, the reward can teach nothing but form."""
    wrong_first: float
    """Of pairs in one group of which one is more correct: the share in which the other earns as much or more."""
    slow_first: float
    """Of pairs in one group that are equally correct and not equally fast: the share in which the slower earns more."""
    explained: float
    """Share of the variance of advantages ``r - mean`` that correctness explains (squared correlation)."""
    explained_std: float
    """The same of ``(r - mean) / (std + 1e-4)``."""
    even: float
    """Mean size of the advantage ``r - mean`` in groups that are not mixed, over that in mixed ones."""
    even_std: float
    """The same of ``(r - mean) / (std + 1e-4)``. Where it is near 1, form is taught as loudly as correctness."""
    shares: dict[str, float]
    """Each term's share of the variance of ``r - mean`` within groups. They add up to 1."""
    loudest: str
    """Of the terms that do not tell right from wrong, the one with the largest share; empty if no term has any."""


def advantages(rewards: npt.ArrayLike, *, normalise: bool = True) -> Array:
    """Return the advantages of one group: ``r - mean``, by default over the standard deviation.

    GRPO (arXiv 2402.03300) divides by the standard deviation; Dr. GRPO (arXiv 2503.20783) does not. As TRL does, the
    deviation is that of a sample (n - 1) and 1e-4 is added to it.

    Parameters
    ----------
    rewards : array_like, shape (n,)
    normalise : bool

    Returns
    -------
    ndarray, shape (n,)

    >>> advantages([1.0, 0.0, 0.0, 1.0], normalise=False).tolist()
    [0.5, -0.5, -0.5, 0.5]
    >>> advantages([1.01, 1.0, 1.0, 1.01]).round(2).tolist()
    [0.85, -0.85, -0.85, 0.85]
    """
    values = np.asarray(rewards, dtype=np.float64)
    centred: Array = values - values.mean()
    if not normalise:
        return centred
    deviation = values.std(ddof=1) if len(values) > 1 else 0.0
    scaled: Array = centred / (deviation + EPSILON)
    return scaled


def weigh_groups(
    rows: Sequence[npt.NDArray[np.int64]], total: Array, correct: Array, seconds: Array, terms: Mapping[str, Array]
) -> GroupFigures:
    """Return the figures of groups, each given by its rows in the other arrays (rewards, correctness, ...)."""
    rows = [each for each in rows if len(each) > 1]
    mixed = [bool((correct[each] != correct[each[0]]).any()) for each in rows]
    plain = [advantages(total[each], normalise=False) for each in rows]
    scaled = [advantages(total[each]) for each in rows]
    told = [advantages(correct[each], normalise=False) for each in rows]
    parts = {name: [advantages(values[each], normalise=False) for each in rows] for name, values in terms.items()}
    all_plain, all_told = _joined(plain), _joined(told)
    power = float(all_plain @ all_plain)
    shares = {name: float(_joined(each) @ all_plain) / power if power else math.nan for name, each in parts.items()}
    deaf = [name for name, each in parts.items() if not _tells(_joined(each), all_told) and shares[name] > 0]
    pairs = [_pairs(total[each], correct[each], seconds[each]) for each in rows]
    wrong, unequal, slow, equal = np.array(pairs, dtype=np.int64).reshape(-1, 4).sum(axis=0).tolist()
    return GroupFigures(
        groups=len(rows),
        mixed=sum(mixed),
        wrong_first=wrong / unequal if unequal else math.nan,
        slow_first=slow / equal if equal else math.nan,
        explained=_squared(all_plain, all_told),
        explained_std=_squared(_joined(scaled), all_told),
        even=_ratio(plain, mixed),
        even_std=_ratio(scaled, mixed),
        shares=shares,
        loudest=max(deaf, key=shares.__getitem__, default=""),
    )


def _joined(parts: Sequence[Array]) -> Array:
    return np.concatenate([np.zeros(0), *parts])


def _squared(x: Array, y: Array) -> float:
    """Return the squared correlation of two arrays of mean 0."""
    power = float(x @ x) * float(y @ y)
    return float(x @ y) ** 2 / power if power > 0 else math.nan


def _tells(term: Array, told: Array) -> bool:
    """Whether a term tells right from wrong: half of its variance is correctness, and it is for it."""
    return float(term @ told) > 0 and _squared(term, told) >= 0.5


def _ratio(parts: Sequence[Array], mixed: Sequence[bool]) -> float:
    sizes = [
        np.abs(_joined([part for part, is_mixed in zip(parts, mixed, strict=True) if is_mixed is which]))
        for which in (False, True)
    ]
    if not len(sizes[0]) or not len(sizes[1]) or not sizes[1].any():
        return math.nan
    return float(sizes[0].mean() / sizes[1].mean())


def _pairs(total: Array, correct: Array, seconds: Array) -> tuple[int, int, int, int]:
    """Count pairs: the less correct earns as much, one is more correct; the slower earns more, one is slower."""
    more_correct = correct[:, None] > correct
    slower = (correct[:, None] == correct) & (seconds[:, None] > seconds)
    earns_as_much = total >= total[:, None]
    earns_more = total[:, None] > total
    counts = (more_correct & earns_as_much, more_correct, slower & earns_more, slower)
    return tuple(int(each.sum()) for each in counts)  # type: ignore[return-value]
