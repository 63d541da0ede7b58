"""What a study finds: columns of numbers, and what they amount to over replications."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from simulator.errors import ConfigError
from simulator.study.documents import label
from simulator.support.checks import choose
from simulator.support.html import html_table

Column = npt.NDArray[Any]


def half_width(values: npt.NDArray[np.float64], confidence: float) -> float:
    """Return half the width of the Student-t interval of the mean of `values`; NaN for fewer than two.

    ``t(1 - (1 - confidence) / 2; n - 1) * s / sqrt(n)``, s with n - 1 degrees of freedom: replications are independent,
    and their means close to normal.

    >>> round(half_width(np.array([9.0, 10.0, 11.0]), 0.95), 4)
    2.4841
    """
    n = len(values)
    if n < 2:
        return float("nan")
    from scipy.special import stdtrit  # takes a quarter of a second to load

    quantile = float(stdtrit(n - 1, 1 - (1 - confidence) / 2))
    return quantile * float(np.std(values, ddof=1)) / float(np.sqrt(n))


def mean_and_interval(values: npt.NDArray[np.float64], confidence: float) -> tuple[float, float, float]:
    """Return the mean of `values` and its Student-t interval, low and high.

    >>> mean_and_interval(np.array([2.0, 2.0]), 0.95)
    (2.0, 2.0, 2.0)
    """
    mean = float(np.mean(values)) if len(values) else float("nan")
    half = half_width(values, confidence)
    return mean, mean - half, mean + half


_SHOWN = 8  # columns that a repr names
_ROWS = 20  # rows that a notebook shows


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class _Columns:
    """Columns of equal length, and what they are."""

    columns: Mapping[str, Column]
    axes: tuple[str, ...]
    """Columns that were swept, in order."""
    metrics: tuple[str, ...]
    """Columns that were measured."""
    unit: str = "seconds"
    """Unit of times: ``seconds``, or ``steps`` on the decode-step clock."""
    confidence: float = 0.95
    """Of all intervals."""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __repr__(self) -> str:
        names = list(self.columns)
        shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        return f"{type(self).__name__}({len(self):,} rows of {shown or 'no columns'})"

    def _repr_html_(self) -> str:
        rows = [list(row.values()) for row in islice(self.rows(), _ROWS)]
        note = f"the first {_ROWS} of {len(self):,} rows" if len(self) > _ROWS else ""
        return html_table(list(self.columns), rows, note)

    def __getitem__(self, name: str) -> Column:
        return self.columns[choose(name, self.columns, "column")]

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def where(self, values: Mapping[str, Any]) -> Self:
        """Return the rows that have these values.

        Raises
        ------
        ConfigError
            If there is no such column.
        """
        keep = np.ones(len(self), dtype=np.bool_)
        for name, value in values.items():
            wanted = label(value)
            keep &= np.fromiter((item == wanted for item in self[name].tolist()), np.bool_, len(self))
        return self.take(np.flatnonzero(keep))

    def take(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> Self:
        """Return these rows, in this order."""
        return replace(self, columns={name: column[rows] for name, column in self.columns.items()})

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield each row as a dict of plain values."""
        for values in zip(*(column.tolist() for column in self.columns.values()), strict=True):
            yield dict(zip(self.columns, values, strict=True))

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame.

        Raises
        ------
        ConfigError
            If pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ConfigError("to_pandas() needs: pip install pandas") from None
        return pandas.DataFrame(dict(self.columns))


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Summary(_Columns):
    """One row a point. For each metric ``m`` the columns ``m``, ``m_low`` and ``m_high``: mean and interval over the
    ``n`` replications that did not fail.
    """


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Table(_Columns):
    """The rows of a study, one per point and replication, in that order.

    Columns: ``point``, ``replication``, ``seed``; the axes; the metrics (NaN: does not exist); ``error``, why a run
    failed, or None; ``spec``, JSON that says with the seed all that is needed to run it again.

    >>> table = Table(
    ...     columns={
    ...         "point": np.array([0, 0, 1, 1]),
    ...         "replication": np.array([0, 1, 0, 1]),
    ...         "c": np.array([1, 1, 2, 2]),
    ...         "latency": np.array([8.0, 10.0, 5.0, 7.0]),
    ...         "error": np.array([None] * 4, dtype=object),
    ...     },
    ...     axes=("c",),
    ...     metrics=("latency",),
    ... )
    >>> summary = table.summary()
    >>> summary["c"].tolist(), summary["latency"].tolist(), summary["n"].tolist()
    ([1, 2], [9.0, 6.0], [2, 2])
    >>> paired = table.compare({"c": 1})
    >>> paired["latency"].tolist(), paired["latency_high"].tolist()  # the same random numbers: exactly 3 less
    ([0.0, -3.0], [0.0, -3.0])
    """

    def points(self) -> list[tuple[int, npt.NDArray[np.int64]]]:
        """Return each point's number and its rows."""
        numbers = self["point"]
        order = np.argsort(numbers, kind="stable")
        points, begins = np.unique(numbers[order], return_index=True)
        return list(zip(points.tolist(), np.split(order, begins[1:]), strict=True)) if len(points) else []

    def summary(self) -> Summary:
        """Return mean and Student-t interval of each metric over the replications of each point.

        Replications that failed are left out and not counted in ``n``. A NaN among the others makes the mean NaN: what
        does not exist in one replication has no mean.
        """
        return self._summary([(rows, None) for _, rows in self.points()])

    def compare(self, baseline: Mapping[str, Any]) -> Summary:
        """Return the differences to a baseline, replication by replication.

        Each point is compared with the one that has the baseline's values and, on all other axes, its own. Both saw the
        same random numbers, so what they have in common cancels: the interval is that of the mean difference, and for
        metric ``m`` there is ``m_ratio``, the ratio of the means.

        Parameters
        ----------
        baseline : mapping
            Values of one or more axes.

        Raises
        ------
        ConfigError
            If it names no axis, or there is no such point.
        """
        if not baseline:
            raise ConfigError("a baseline says at least one value of an axis")
        for name in baseline:
            choose(name, self.axes, "axis")
        axes = [self.columns[name].tolist() for name in self.axes]
        rows_at = {tuple(axis[rows[0]] for axis in axes): rows for _, rows in self.points()}
        pairs = []
        for values, rows in rows_at.items():
            own = zip(self.axes, values, strict=True)
            wanted = tuple(label(baseline[name]) if name in baseline else value for name, value in own)
            if wanted not in rows_at:
                said = ", ".join(f"{name} = {value!r}" for name, value in zip(self.axes, wanted, strict=True))
                raise ConfigError(f"no point is at {said}: it cannot be the baseline")
            pairs.append((rows, rows_at[wanted]))
        return self._summary(pairs)

    def _summary(self, pairs: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64] | None]]) -> Summary:
        """Return means of the rows of each pair, or of their differences to the rows of its second part."""
        fine = np.fromiter((error is None for error in self["error"].tolist()), np.bool_, len(self))
        firsts = np.array([rows[0] for rows, _ in pairs], dtype=np.int64)
        columns: dict[str, Column] = {name: self[name][firsts] for name in ("point", *self.axes)}
        chosen = [self._paired(rows, base, fine) for rows, base in pairs]
        columns["n"] = np.array([len(rows) for rows, _ in chosen], dtype=np.int64)
        for metric in self.metrics:
            values = self[metric]
            means, ratios = [], []
            for rows, base in chosen:
                differences = values[rows] if base is None else values[rows] - values[base]
                means.append(mean_and_interval(differences, self.confidence))
                if base is not None:
                    ratios.append(_ratio(values[rows], values[base]))
            for name, column in zip(("", "_low", "_high"), np.array(means).reshape(-1, 3).T, strict=True):
                columns[f"{metric}{name}"] = column.copy()
            if ratios:
                columns[f"{metric}_ratio"] = np.array(ratios)
        return Summary(
            columns=columns, axes=self.axes, metrics=self.metrics, unit=self.unit, confidence=self.confidence
        )

    def _paired(
        self, rows: npt.NDArray[np.int64], base: npt.NDArray[np.int64] | None, fine: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64] | None]:
        """Return the rows that did not fail, and beside each the baseline's row of the same replication."""
        rows = rows[fine[rows]]
        if base is None:
            return rows, None
        base = base[fine[base]]
        _, mine, theirs = np.intersect1d(self["replication"][rows], self["replication"][base], return_indices=True)
        return rows[mine], base[theirs]


def _ratio(values: npt.NDArray[np.float64], base: npt.NDArray[np.float64]) -> float:
    below = float(np.mean(base)) if len(base) else 0.0
    return float(np.mean(values)) / below if below else float("nan")
