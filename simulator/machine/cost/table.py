"""Measured steps, and what lies between them."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from simulator.errors import ConfigError
from simulator.support.checks import is_real, real, whole

Axis = tuple[int, ...]
Grid = tuple[tuple[float, ...], ...]


class _Row(NamedTuple):
    """Seconds over total context for one number of sequences: a line from each bound to the next."""

    bounds: list[int]
    values: list[float]
    slopes: list[float]


@dataclass(frozen=True, slots=True)
class MeasuredTable:
    """Seconds of a step interpolated between measured ones, linearly in both directions.

    The decode grid has a row for each of `sequences` and a column for each of `contexts`, the tokens that each sequence
    attends to. A batch of unequal contexts counts as one of their mean. The prefill grid has a row for each of
    `prefill_tokens` and a column for each of `prefill_cached`, the tokens already in the cache; a step with several
    prompts counts as one prompt that attends to as much. Where that is less than a lone prompt attends to, as two
    short ones do, the line between the first two columns goes on below nothing cached: what it says a token of context
    costs is taken off. Without a prefill grid prompts are free.

    In a step with both, every token goes through the same matrix products: it takes what a prompt of all its tokens
    would (attending to what its prompts attend to), and the attention of the decoding sequences besides: what their
    step takes beyond one without context. That is an assumption, not a measurement; docs/machine.md says how far
    it is off.

    Outside the grid nothing is known: ConfigError, unless ``extrapolate="linear"`` continues the outermost lines.

    >>> table = MeasuredTable((1, 8), (512, 2048), ((6.35e-3, 6.42e-3), (6.72e-3, 7.60e-3)))
    >>> round(1000 * table.step_seconds(4, 4 * 1024), 4)
    6.6476
    >>> table.step_seconds(16, 16 * 1024)
    Traceback (most recent call last):
    simulator.errors.ConfigError: MeasuredTable: 16 sequences are outside the 1 to 8 measured; extrapolate="linear" ...
    """

    sequences: Axis
    """Decoding sequences of each row, increasing."""
    contexts: Axis
    """Tokens that each of them attends to, of each column, increasing."""
    seconds: Grid
    """One row for each of `sequences`."""
    prefill_tokens: Axis = ()
    """Prompt tokens of each row of the prefill grid, increasing; none: prompts are free."""
    prefill_cached: Axis = ()
    """Tokens in the cache before them, of each column, increasing."""
    prefill_seconds: Grid = ()
    """One row for each of `prefill_tokens`: seconds of a step without decoding sequences."""
    extrapolate: Literal["linear"] | None = None
    """What to do outside the grid. None: refuse."""
    overhead: float = field(default=0.0, kw_only=True)
    """Seconds of the host per step, if what was measured leaves them out."""

    _rows: dict[int, _Row] = field(init=False, repr=False, compare=False)
    _idle: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.extrapolate not in (None, "linear"):
            raise ConfigError(f'MeasuredTable: extrapolate must be "linear" or None, got {self.extrapolate!r}')
        real("MeasuredTable: overhead", self.overhead, "from 0 to 3600 seconds")
        self._take("sequences", "contexts", "seconds")
        if self.prefill_tokens or self.prefill_cached or self.prefill_seconds:
            self._take("prefill_tokens", "prefill_cached", "prefill_seconds")
        object.__setattr__(self, "_rows", {})
        object.__setattr__(self, "_idle", self.seconds[0][0])

    def _take(self, rows: str, columns: str, cells: str) -> None:
        """Check one grid, and keep it as tuples."""
        across = _axis(rows, getattr(self, rows), 1)
        down = _axis(columns, getattr(self, columns), 0)
        grid = _grid(cells, getattr(self, cells), across, down)
        if self.extrapolate:
            grid = _extend(across, down, grid, cells)
            across, down = (1, *across[1:]), (0, *down[1:])
        for name, value in ((rows, across), (columns, down), (cells, grid)):
            object.__setattr__(self, name, value)

    @classmethod
    def from_rows(
        cls,
        decode: Iterable[tuple[int, int, float]],
        prefill: Iterable[tuple[int, int, float]] = (),
        *,
        extrapolate: Literal["linear"] | None = None,
        overhead: float = 0.0,
    ) -> MeasuredTable:
        """Return the table of measurements in any order: (sequences, context of each, seconds) and (prompt tokens,
        cached, seconds).

        Raises
        ------
        ConfigError
            If a cell is missing or there twice.

        >>> MeasuredTable.from_rows([(1, 512, 6e-3), (8, 512, 7e-3), (1, 2048, 6.5e-3)])
        Traceback (most recent call last):
        simulator.errors.ConfigError: MeasuredTable: a hole: no seconds for sequences=8, contexts=2048
        """
        first = _collect(decode, "sequences", "contexts")
        second = _collect(prefill, "prefill_tokens", "prefill_cached")
        return cls(*first, *second, extrapolate=extrapolate, overhead=overhead)

    @property
    def prefill_is_free(self) -> bool:
        """True if there is no prefill grid."""
        return not self.prefill_tokens

    def step_seconds(self, n: int, context: int, prefill_tokens: int = 0, prefill_context: int = 0) -> float:
        """Interpolate."""
        if not prefill_tokens or not self.prefill_tokens:
            return self.decode_seconds(n, context, 1) if n else self._idle + self.overhead
        _place(self.prefill_tokens, prefill_tokens, "prompt tokens", self.extrapolate)
        prompt = self._prompt(prefill_tokens, prefill_context / prefill_tokens - (prefill_tokens + 1) / 2)
        if not n:
            return prompt + self.overhead
        decode = self.decode_seconds(n, context, 1)
        # As many tokens more in the matrix products, while what the prompt attends to stays what it is alone.
        tokens = prefill_tokens + n
        alone = prefill_tokens * (prefill_tokens + 1) / 2
        more = self._prompt(tokens, alone / tokens - (tokens + 1) / 2) - self._prompt(prefill_tokens, 0.0)
        row = self._row(n)
        bare = row.values[0] - max(0.0, row.slopes[0]) * row.bounds[0]  # a decode step that attends to nothing
        return decode + max(0.0, prompt + max(0.0, more) + self.overhead - max(bare, 0.0))

    def decode_seconds(self, n: int, context: int, k: int) -> float:
        """Sum over the lines that the context crosses as it grows by `n` a step, each in closed form."""
        bounds, values, slopes = self._rows.get(n) or self._row(n)
        last = context + (k - 1) * n
        if (context < bounds[0] or last > bounds[-1]) and not self.extrapolate and k:
            raise _outside(context / n if context < bounds[0] else last / n, "tokens of context each", self.contexts)
        end = len(slopes) - 1
        i = bisect_right(bounds, context, 1, end + 1) - 1
        if i == end or last <= bounds[i + 1]:
            slope = slopes[i]
            return k * (values[i] + slope * (context - bounds[i])) + slope * n * (k * (k - 1) // 2)
        total = 0.0
        while k:
            # Steps up to and including the one that reaches the next bound, where both lines are equal.
            steps = k if i == end else min(k, (bounds[i + 1] - context) // n + 1)
            slope = slopes[i]
            total += steps * (values[i] + slope * (context - bounds[i])) + slope * n * (steps * (steps - 1) // 2)
            context += steps * n
            k -= steps
            i += 1
        return total

    def _row(self, n: int) -> _Row:
        """Interpolate between two rows of the decode grid, once for each `n`."""
        if n in self._rows:
            return self._rows[n]
        if not n:
            return _Row([0, 1], [self._idle + self.overhead] * 2, [0.0])
        low, share = _place(self.sequences, n, "sequences", self.extrapolate)
        values = [
            a + (b - a) * share + self.overhead for a, b in zip(self.seconds[low], self.seconds[low + 1], strict=True)
        ]
        bounds = [n * each for each in self.contexts]
        slopes = [(values[i + 1] - values[i]) / (bounds[i + 1] - bounds[i]) for i in range(len(bounds) - 1)]
        row = self._rows[n] = _Row(bounds, values, slopes)
        return row

    def _prompt(self, tokens: int, cached: float) -> float:
        """Interpolate the prefill grid.

        `cached` below 0 is several prompts that attend to less than one would. `tokens` may be beyond the grid by the
        decoding sequences beside the prompts: the last line goes on for them.
        """
        i, down = _place(self.prefill_tokens, tokens, "prompt tokens", "linear")
        j, across = _place(self.prefill_cached, max(0.0, cached), "tokens in the cache", self.extrapolate)
        (a, b), (c, d) = self.prefill_seconds[i][j : j + 2], self.prefill_seconds[i + 1][j : j + 2]
        top, bottom = a + (b - a) * across, c + (d - c) * across
        alone = top + (bottom - top) * down
        if cached >= 0:
            return alone
        slope = ((b - a) + (d - c - b + a) * down) / (self.prefill_cached[1] - self.prefill_cached[0])
        # Reading the weights is not attention: no step goes below that. Nor is there a gain where the grid is noise.
        return max(min(alone, self._idle), alone + max(0.0, slope) * cached)


def _axis(name: str, values: Any, first: int) -> Axis:
    try:
        axis = tuple(values)
    except TypeError:
        raise ConfigError(f"MeasuredTable: {name} must be whole numbers, got {values!r:.80}") from None
    for value in axis:
        whole(f"MeasuredTable: {name}", value, f"from {first} to 10^9", kind="whole numbers")
    if len(axis) < 2 or any(a >= b for a, b in pairwise(axis)):
        raise ConfigError(f"MeasuredTable: {name} must be two or more, increasing; got {axis!r:.80}")
    return axis


def _grid(name: str, values: Any, across: Axis, down: Axis) -> Grid:
    try:
        grid = tuple(tuple(row) for row in values)
    except TypeError:
        raise ConfigError(f"MeasuredTable: {name} must be rows of numbers, got {values!r:.80}") from None
    lengths = [len(row) for row in grid]
    if lengths != [len(down)] * len(across):
        raise ConfigError(
            f"MeasuredTable: a hole: {name} must be {len(across)} rows of {len(down)}, got rows of {lengths!r:.60}"
        )
    for i, row in zip(across, grid, strict=True):
        for j, value in zip(down, row, strict=True):
            if not (is_real(value) and 1e-12 <= value <= 3600):
                raise ConfigError(
                    f"MeasuredTable: {name} at ({i}, {j}) must be above 0 and at most 3600, got {value!r}"
                )
    return grid


def _extend(across: Axis, down: Axis, grid: Grid, name: str) -> Grid:
    """Return `grid` with its first row moved to 1 and its first column to 0, if every line outwards stays above 0.

    Inside the old grid nothing changes: the cells that are moved lie on the lines that they moved along.
    """
    rows = [list(row) for row in grid]
    for row in rows:
        row[0] -= (row[1] - row[0]) / (down[1] - down[0]) * down[0]
    share = (across[0] - 1) / (across[1] - across[0])
    rows[0] = [a - (b - a) * share for a, b in zip(rows[0], rows[1], strict=True)]
    low = min(map(min, rows))
    if low < 1e-12:
        raise ConfigError(f"MeasuredTable: {name} extrapolated to the smallest step come to {low:g}; measure it")
    above, last = rows[-2], rows[-1]
    shrinks = any(b < a for a, b in zip(above, last, strict=True)) or any(row[-1] < row[-2] for row in rows)
    if shrinks or last[-1] - last[-2] < above[-1] - above[-2]:
        raise ConfigError(f"MeasuredTable: {name} cannot be extrapolated: they shrink towards the largest step")
    return tuple(map(tuple, rows))


def _place(axis: Axis, value: float, name: str, extrapolate: str | None) -> tuple[int, float]:
    """Return the cell that `value` is in, and how far into it."""
    if not extrapolate and not axis[0] <= value <= axis[-1]:
        raise _outside(value, name, axis)
    i = bisect_right(axis, value, 1, len(axis) - 1) - 1
    return i, (value - axis[i]) / (axis[i + 1] - axis[i])


def _outside(value: float, name: str, axis: Sequence[int]) -> ConfigError:
    return ConfigError(
        f"MeasuredTable: {value:,.10g} {name} are outside the {axis[0]:,} to {axis[-1]:,} measured;"
        ' extrapolate="linear" continues the outermost lines'
    )


def _collect(cells: Iterable[tuple[int, int, float]], rows: str, columns: str) -> tuple[Axis, Axis, Grid]:
    found: dict[tuple[int, int], float] = {}
    for i, j, seconds in cells:
        if (i, j) in found:
            raise ConfigError(f"MeasuredTable: {rows}={i}, {columns}={j} is there twice; give one number a cell")
        found[i, j] = seconds
    across, down = tuple(sorted({i for i, _ in found})), tuple(sorted({j for _, j in found}))
    for i in across:
        for j in down:
            if (i, j) not in found:
                raise ConfigError(f"MeasuredTable: a hole: no seconds for {rows}={i}, {columns}={j}")
    grid = tuple(tuple(found.get((i, j), math.nan) for j in down) for i in across)
    return across, down, grid
