"""Least squares with coefficients that cannot be negative, and steps that were interrupted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.errors import ConfigError

HUBER = 4.0
"""A residual beyond so many median absolute deviations (scaled to a standard deviation) counts only as its root."""
ROUNDS = 40
SINGULAR = 1e-7
RIDGE = 1e-10
"""Keeps the normal equations solvable where a fold leaves out what only one run has."""

Numbers = NDArray[np.float64]


class Solution(NamedTuple):
    """What `solve` found."""

    coefficients: Numbers
    weights: Numbers
    """Of each row, the robust ones included: what its squared residual was multiplied with."""
    speeds: Numbers
    """Of each run: its seconds over those of the fit. How the machine drifts, and what the law does not know."""
    outliers: float
    """Share of rows that counted less than in full."""


def nonnegative(gram: Numbers, target: Numbers) -> Numbers:
    """Return x >= 0 that minimises ``x @ gram @ x / 2 - target @ x``.

    The active set method of Lawson and Hanson (1974, chapter 23), on the normal equations.

    Parameters
    ----------
    gram : array, shape (k, k)
        Positive definite.
    target : array, shape (k,)

    >>> nonnegative(np.eye(2), np.array([3.0, -1.0])).tolist()
    [3.0, 0.0]
    """
    k = len(target)
    x = np.zeros(k)
    tolerance = 1e-12 * max(float(np.abs(target).max(initial=0)), 1e-300)
    # Begin with what is positive without the bounds: mostly that is all, or nearly.
    free = np.ones(k, dtype=bool)
    while free.any():
        trial = np.linalg.solve(gram[np.ix_(free, free)], target[free])
        if (trial > 0).all():
            x[free] = trial
            break
        free[free] = trial > 0
    for _ in range(10 * k):
        gradient = target - gram @ x
        gradient[free] = -np.inf
        best = int(gradient.argmax())
        if gradient[best] <= tolerance:
            break
        free[best] = True
        while True:
            trial = np.zeros(k)
            trial[free] = np.linalg.solve(gram[np.ix_(free, free)], target[free])
            if (trial[free] > 0).all():
                x = trial
                break
            # Go towards it as far as nothing becomes negative, and fix what became 0.
            falling = free & (trial <= 0)
            share = float((x[falling] / np.maximum(x[falling] - trial[falling], 1e-300)).min())
            x = np.where(free, x + share * (trial - x), 0.0)
            free &= x > 1e-15 * max(float(x.max()), 1e-300)
            x[~free] = 0.0
            if not free.any():
                break
    return x


def blind(design: Numbers) -> Numbers:
    """Return the directions, one per row, in which coefficients can move and no row of `design` changes.

    The columns count by their size: each is scaled to length 1.

    >>> blind(np.array([[1.0, 4.0], [1.0, 4.0]])).round(3).tolist()
    [[-0.707, 0.707]]
    """
    size = np.linalg.norm(design, axis=0)
    scaled = design / np.where(size > 0, size, 1.0)
    _, values, directions = np.linalg.svd(scaled.T @ scaled)
    directions = directions[values < SINGULAR**2 * max(values[0], 1e-300) * len(values) + SINGULAR * 1e-3]
    return np.asarray([row * (1 if row[np.abs(row).argmax()] * row.sum() >= 0 else -1) for row in directions])


def solve(design: Numbers, seconds: Numbers, run: NDArray[np.int64]) -> Solution:
    """Fit `seconds` by ``design @ coefficients``.

    - A row's squared residual is divided by its seconds: noise grows with the time that it has to happen in.
    - Interrupted steps: beyond `HUBER` deviations a residual counts as its root (Huber 1964), refitted until it stands.
    - The level is then set so that the mean relative error of the runs' sums is 0: what is predicted is a run, and a
      long one counts no more than a short one.

    Raises
    ------
    ConfigError
        If nothing is left of the design: all of its columns are 0.

    >>> rows = np.column_stack([np.ones(6), [1, 2, 3, 1, 2, 3]])
    >>> twice = np.array([3, 5, 7, 6, 10, 14.0])  # 1 + 2n seconds, and in a second run as much again
    >>> solution = solve(rows, twice, np.array([0, 0, 0, 1, 1, 1]))
    >>> round(float(solution.speeds[1] / solution.speeds[0]), 6)
    2.0
    >>> round(float((rows @ solution.coefficients)[:3].sum() * (1 / 15 + 1 / 30)), 6)  # errors of the runs: + and -
    2.0
    """
    size = np.linalg.norm(design, axis=0)
    used = size > 0
    if not used.any():
        raise ConfigError("there is nothing to fit: all columns are 0")
    columns = design[:, used] / size[used]
    weights = base = 1.0 / seconds
    fitted = np.zeros(columns.shape[1])
    for _ in range(ROUNDS):
        before = fitted
        weighted = columns * weights[:, None]
        gram = columns.T @ weighted
        gram[np.diag_indices_from(gram)] *= 1 + RIDGE
        fitted = nonnegative(gram, weighted.T @ seconds)
        predicted = columns @ fitted
        residuals = (seconds - predicted) * np.sqrt(base)
        limit = HUBER * 1.4826 * float(np.median(np.abs(residuals)))
        weights = base * np.minimum(1.0, limit / np.maximum(np.abs(residuals), 1e-300)) if limit > 0 else base
        if np.abs(fitted - before).max() <= 1e-9 * np.abs(fitted).max():
            break
    sums, expected = summed(seconds, run), summed(predicted, run)
    scale = level(sums, expected)
    coefficients = np.zeros(design.shape[1])
    coefficients[used] = fitted / size[used] * scale
    interrupted = float(np.mean(weights < base * (1 - 1e-9)))
    return Solution(coefficients, weights, sums / np.maximum(expected * scale, 1e-300), interrupted)


def summed(values: Numbers, run: NDArray[np.int64], runs: int = 0) -> Numbers:
    """Return the sum of the values of each run."""
    return np.bincount(run, values, runs).astype(np.float64)


def level(sums: Numbers, predicted: Numbers) -> float:
    """Return the factor that makes the mean of ``predicted / sums - 1`` zero, over the runs there are."""
    there = sums > 0
    return float(1.0 / np.mean(predicted[there] / sums[there]))
