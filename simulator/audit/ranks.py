"""Rank correlation."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def rank_correlation(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Return Spearman's rho: the correlation of ranks, where equal values share their mean rank.

    Parameters
    ----------
    x, y : array_like, shape (n,)
        Where one of the two is NaN, neither counts. Infinite values rank as the largest.

    Returns
    -------
    float
        From -1 to 1; NaN where fewer than two are left, or one of the two is constant.

    >>> round(rank_correlation([1, 2, 3, 4], [10, 20, 40, 30]), 3)
    0.8
    >>> rank_correlation([1, 2], [3, 3])
    nan
    """
    one, other = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    known = ~(np.isnan(one) | np.isnan(other))
    one, other = one[known], other[known]
    if len(one) < 2 or (one == one[0]).all() or (other == other[0]).all():
        return math.nan
    return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1])


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[which.ravel()]
