"""The axes of a study: what is varied, the points that this makes, and the dotted names that are set at each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.errors import ConfigError
from simulator.study.documents import label
from simulator.support.checks import choose

Axes = Mapping[str, Sequence[Any]]

MAX_POINTS = 1_000_000


def check_axes(axes: Axes, fixed: Iterable[str], measured: Iterable[str]) -> None:
    """Raise `ConfigError` where axes make no sense, alone or together.

    They cannot vary the names in `fixed`, which are said once for all points, nor be called as columns in `measured`.
    """
    for name, values in axes.items():
        if not isinstance(values, (list, tuple)) or not values:
            raise ConfigError(f"axis {name} must be a list of values, at least one; got {values!r:.80}")
        if len({str(label(value)) for value in values}) < len(values):
            raise ConfigError(f"axis {name} says one value twice, or two of one name")
        if name.partition(".")[0] in fixed:
            raise ConfigError(f"{name} is the same for all points: it cannot be an axis")
    if n_points(axes) > MAX_POINTS:
        raise ConfigError(f"{n_points(axes):,} points are too many; at most {MAX_POINTS:,}")
    for name in measured:
        if name in axes:
            raise ConfigError(f"{name} is an axis already: it cannot be measured as well")
    for name, inner in itertools.permutations(axes, 2):
        if inner.startswith(f"{name}."):
            first = inner[len(name) + 1 :].partition(".")[0]
            if any(not isinstance(value, Mapping) or first in value for value in axes[name]):
                raise ConfigError(f"the axes {name} and {inner} both set {name}.{first}")


def check_baseline(axes: Axes, baseline: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where a baseline, of labels, is no point of the axes."""
    if baseline and not axes:
        raise ConfigError("a baseline is a point of the axes, and there are none")
    for name, value in baseline.items():
        known = [label(each) for each in axes[choose(name, axes, "axis")]]
        if value not in known:
            raise ConfigError(f"baseline: {name} is never {value!r}; it is {', '.join(map(str, known))}")


def n_points(axes: Axes) -> int:
    """Return how many combinations of values there are.

    >>> n_points({"a": [1, 2, 3], "b": [1, 2]}), n_points({})
    (6, 1)
    """
    return math.prod(map(len, axes.values()))


def indices_at(axes: Axes, points: npt.ArrayLike) -> dict[str, npt.NDArray[np.int64]]:
    """Return, for each axis, the index of its value at each of some points; the last axis varies fastest.

    >>> [(name, indices.tolist()) for name, indices in indices_at({"a": "xyz", "b": "xy"}, [0, 1, 2]).items()]
    [('a', [0, 0, 1]), ('b', [0, 1, 0])]
    """
    if not axes:
        return {}
    return dict(zip(axes, np.unravel_index(points, [*map(len, axes.values())]), strict=True))  # type: ignore[arg-type]


def put(document: dict[str, Any], dotted: str, value: Any) -> None:
    """Set a dotted name of a document; a table is laid over what is there.

    >>> document = {"cluster": {"gpu": "steps", "replicas": 2}}
    >>> put(document, "cluster", {"gpu": "rate:50"}), put(document, "protocol.capacity", 4), document
    (None, None, {'cluster': {'gpu': 'rate:50', 'replicas': 2}, 'protocol': {'capacity': 4}})
    """
    *path, last = dotted.split(".")
    table = document
    for part in path:
        inside = table.setdefault(part, {})
        if not isinstance(inside, dict):
            raise ConfigError(f"{dotted}: {part} is no table")
        table = inside
    there = table.get(last)
    table[last] = {**there, **value} if isinstance(value, Mapping) and isinstance(there, dict) else value
