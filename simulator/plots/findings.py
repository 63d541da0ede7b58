"""Which points of a study stand out: knees and the Pareto front. Pure numbers; nothing is drawn here."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulator.errors import ConfigError

WITHIN = 0.05
"""Of the best value: what counts as being as good."""
_GROWTH = 0.5  # of the growth of the load: less growth of the throughput than that is saturation


def pareto_front(costs: ArrayLike, values: ArrayLike) -> NDArray[np.int64]:
    """Return which points no other point dominates, where less is better of both.

    A point dominates another if it is at most as large in both and smaller in one. So of points that are equal in both
    all are on the front, or none. Points with a NaN are not on it.

    Parameters
    ----------
    costs, values : array of float, shape (points,)

    Returns
    -------
    array of int
        Indices, in order of cost, then of index.

    Raises
    ------
    ConfigError
        If there are not as many costs as values.

    Examples
    --------
    >>> pareto_front([1, 2, 2, 3, 9], [9, 4, 5, 4, 1]).tolist()
    [0, 1, 4]
    """
    first, second = np.asarray(costs, float).ravel(), np.asarray(values, float).ravel()
    if len(first) != len(second):
        raise ConfigError(f"a front needs as many costs as values, got {len(first)} and {len(second)}")
    exist = np.flatnonzero(~(np.isnan(first) | np.isnan(second)))
    order = exist[np.lexsort((exist, second[exist], first[exist]))]
    front: list[int] = []
    for i in order.tolist():  # cheaper ones came before: a point is on the front if it is better than all of them
        last = front[-1] if front else None
        if last is None or second[i] < second[last] or (first[i] == first[last] and second[i] == second[last]):
            front.append(i)
    return np.array(front, dtype=np.int64)


def near_best(values: ArrayLike, *, higher: bool = False, within: float = WITHIN) -> int | None:
    """Return the first of `values` that is within a share of the best, or None if none is finite.

    >>> near_best([9.0, 5.2, 5.0, 5.1]), near_best([1.0, float("nan"), 2.0], higher=True)
    (1, 2)
    """
    data = np.asarray(values, float)
    finite = np.isfinite(data)
    if not finite.any():
        return None
    loss = -data if higher else data
    best = float(loss[finite].min())
    return int(np.flatnonzero(finite & (loss <= best + within * abs(best)))[0])


def power_knee(throughputs: ArrayLike, latencies: ArrayLike) -> int | None:
    """Return the point of the greatest power, throughput over latency, or None if there is none.

    There the ray from the origin touches the curve from below: before it throughput grows by the larger share, after it
    latency does. Of M/M/1 it is at half the capacity.

    References
    ----------
    L. Kleinrock, "Power and deterministic rules of thumb for probabilistic problems in computer communications",
    ICC 1979.

    Examples
    --------
    >>> rates = [0.1, 0.3, 0.5, 0.7, 0.9]
    >>> power_knee(rates, [1 / (1 - rate) for rate in rates])
    2
    """
    gained, paid = np.asarray(throughputs, float), np.asarray(latencies, float)
    known = np.isfinite(gained) & np.isfinite(paid) & (paid > 0)
    if not known.any():
        return None
    power = np.full(len(gained), -np.inf)
    power[known] = gained[known] / paid[known]
    return int(power.argmax())


def saturated(loads: ArrayLike, throughputs: ArrayLike) -> NDArray[np.bool_]:
    """Return the points at which more load brought hardly more throughput.

    Such a point's throughput has grown, from the point before, by less than half the factor by which the load has. The
    first point is never one.

    Parameters
    ----------
    loads : array of float, shape (points,)
        Rising.
    throughputs : array of float, shape (points,)

    Examples
    --------
    >>> saturated([1, 2, 4, 8], [1.0, 1.9, 2.5, 2.5]).tolist()
    [False, False, True, True]
    """
    load, gained = np.asarray(loads, float), np.asarray(throughputs, float)
    found = np.zeros(len(load), dtype=bool)
    known = np.flatnonzero(np.isfinite(gained) & (gained > 0) & (load > 0))
    before, after = known[:-1], known[1:]
    found[after] = gained[after] / gained[before] - 1 < _GROWTH * (load[after] / load[before] - 1)
    return found
