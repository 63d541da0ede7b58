"""Laws as designs: which columns a step contributes, and which cost model their coefficients make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.errors import ConfigError
from simulator.fidelity.solve import blind
from simulator.fidelity.steps import COLUMNS, Steps
from simulator.machine.cost import CostModel, LinearBatch, MeasuredTable, SplitTable

Numbers = NDArray[np.float64]

ENOUGH = 8
"""Steps of one size that make it an entry of the table."""
SHARE = 0.02
"""The same as a share of all steps, where their times are not known one by one."""
GAP = 1.5
"""Entries of the table are at most so many times apart, where there are steps in between."""
CELLS = 8
"""Entries of each axis of a two-way table at most, if the steps are not on a grid."""


@dataclass(frozen=True)
class Design:
    """A law, ready to be fitted."""

    names: tuple[str, ...]
    """Of its coefficients."""
    columns: Callable[[Steps], Numbers]
    """One row per step, one column per coefficient; linear beyond the ends of a table."""
    model: Callable[[Numbers], CostModel]
    """The cost model of the coefficients."""
    notes: tuple[str, ...] = ()
    """What was left out, and why."""

    def rows(self, data: Steps) -> Numbers:
        """Return one row of columns for each row of the data: of a task, the sum over its steps."""
        if data.inside is None or data.first is None or data.last is None:
            return self.columns(data)
        each = self.columns(data.inside)
        sums = np.vstack([np.zeros(each.shape[1]), np.cumsum(each, axis=0)])
        return np.asarray(sums[data.last] - sums[data.first])


def hats(values: Numbers, entries: tuple[int, ...]) -> Numbers:
    """Return for each value its weights on the entries of a table, linear between them and beyond.

    >>> hats(np.array([1.0, 3.0, 8.0]), (1, 2, 4)).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.0, -2.0, 3.0]]
    """
    at = np.asarray(entries, dtype=np.float64)
    low = np.clip(np.searchsorted(at, values, side="right") - 1, 0, len(at) - 2)
    share = (values - at[low]) / (at[low + 1] - at[low])
    weights = np.zeros((len(values), len(at)))
    rows = np.arange(len(values))
    weights[rows, low] = 1 - share
    weights[rows, low + 1] = share
    return weights


def knots(sizes: Numbers, what: str, enough: float = ENOUGH) -> tuple[int, ...]:
    """Return the entries of a table over the sizes of steps: the ends, each size with `enough` steps, and between those
    as many as keep them within `GAP` of each other.

    Raises
    ------
    ConfigError
        If all steps are of one size.

    >>> knots(np.array([1.0] * 9 + [2.0] * 9 + [3, 4, 6, 9, 10]), "tokens")
    (1, 2, 3, 4, 6, 9, 10)
    """
    values, counts = np.unique(sizes.astype(np.int64), return_counts=True)
    if len(values) < 2:
        raise ConfigError(f"every step has {values[0]:,} {what}: measure steps of other sizes too")
    often = {int(value) for value, count in zip(values, counts, strict=True) if count >= enough}
    ends = {int(values[0]), int(values[-1])}
    if enough > ENOUGH and len(often) > 1:  # an end that hardly occurs is no support
        ends = {int(values[0])}
    chosen = sorted(ends | often)
    entries = chosen[:1]
    for value in chosen[1:]:
        while value > GAP * entries[-1]:
            between = [int(each) for each in values if entries[-1] < each < value]
            if not between:
                break
            near = [each for each in between if each <= GAP * entries[-1]]
            entries.append(near[-1] if near else between[0])
        entries.append(value)
    return tuple(entries)


def linear(steps: Steps) -> Design:
    """`LinearBatch`; without prompt tokens in the steps, prompts are free."""
    prompts = bool(steps.prefill_tokens.any())
    if not steps.decodes.any():
        raise ConfigError("no step decodes: b and c cannot be fitted; measure decode steps")

    def columns(some: Steps) -> Numbers:
        parts = [np.ones(len(some)), some.decodes, some.decode_context]
        return np.column_stack(parts + [some.prefill_tokens, some.prefill_context] * prompts)

    notes = () if prompts else ("no step has prompt tokens: prompts are free",)
    names = ("a", "b", "c", "p", "q") if prompts else ("a", "b", "c")
    return Design(names, columns, lambda x: LinearBatch(*(float(value) for value in x)), notes)


def split(steps: Steps) -> Design:
    """`SplitTable`, with what the steps can tell: `b` and `q` if there are prompts, `r` if memory was recorded."""
    if not steps.decodes.any():
        raise ConfigError("no step decodes: c cannot be fitted; measure decode steps")
    prompts = bool(steps.prefill_tokens.any())
    entries = knots(steps.tokens, "tokens", max(ENOUGH, SHARE * len(steps)) if steps.simulated else ENOUGH)
    notes = [] if prompts else ["no step has prompt tokens: they are taken to cost what decoded ones do"]
    # Sums over tasks cannot tell neighbours well: there the table is made of what each entry is over the one before.
    build = np.tri(len(entries)) if steps.simulated else np.eye(len(entries))

    def columns(some: Steps, cache: bool = True) -> Numbers:
        parts = [hats(some.tokens, entries) @ build, some.decode_context[:, None]]
        if prompts:
            parts += [some.decodes[:, None], some.prefill_context[:, None]]
        if cache and some.kv_tokens is not None:
            parts.append((some.tokens * some.kv_tokens)[:, None])
        return np.hstack(parts)

    cache = steps.kv_tokens is not None
    if cache and len(blind(columns(steps))) > len(blind(columns(steps, False))):
        cache = False
        notes.append("r is left out: what is in memory and what is attended to always go together")
    over = (f"seconds of {b} over {a}" if steps.simulated else f"seconds of {b}" for a, b in pairwise(entries))
    names = (f"seconds of {entries[0]}", *over, "c", *("b", "q") * prompts, *("r",) * cache)

    def model(x: Numbers) -> CostModel:
        rest: dict[str, Any] = {name: float(value) for name, value in zip(names, x, strict=True) if len(name) == 1}
        heights = (build @ x[: len(entries)]).tolist()
        empty = [entry for entry, height in zip(entries, heights, strict=True) if height < 1e-12]
        if empty:
            raise ConfigError(f"a step of {empty[0]:,} tokens comes out at no time at all; measure more of them")
        return SplitTable(entries, tuple(heights), **rest, extrapolate="linear" if steps.simulated else None)

    return Design(names, lambda some: columns(some, cache), model, tuple(notes))


def table(steps: Steps) -> Design:
    """`MeasuredTable`: a grid of decode steps and, if there are prompts, one of lone prompts; no steps with both."""
    decoding = steps.take(steps.decodes > 0)
    if not len(decoding):
        raise ConfigError("no step only decodes: a table needs decode steps")
    prompts = steps.take(steps.prefill_tokens > 0)
    across, down = _axis(decoding.decodes, "decodes"), _axis(_each(decoding), "tokens of context")
    wide, deep = (
        ((), ())
        if not len(prompts)
        else (
            _axis(prompts.prefill_tokens, "prefill_tokens"),
            _axis(_cached(prompts), "tokens in the cache"),
        )
    )
    names = [f"seconds of {i} x {j}" for i in across for j in down]
    names += [f"seconds of prompt {i} on {j}" for i in wide for j in deep]

    def columns(some: Steps) -> Numbers:
        busy = some.decodes > 0
        n, each = np.where(busy, some.decodes, across[0]), np.where(busy, _each(some), down[0])
        decode = _cells(hats(n, across), hats(each, down)) * busy[:, None]
        if not wide:
            return decode
        asked = some.prefill_tokens > 0
        m, cached = np.where(asked, some.prefill_tokens, wide[0]), np.where(asked, _cached(some), deep[0])
        prompt = _cells(hats(m, wide), hats(cached, deep)) * asked[:, None]
        return np.hstack([decode, prompt])

    def model(x: Numbers) -> CostModel:
        empty = [name for name, value in zip(names, x, strict=True) if value < 1e-12]
        if empty:
            raise ConfigError(f"{empty[0]} comes out at no time at all; measure more steps there")
        cells = [float(value) for value in x]
        first, second = cells[: len(across) * len(down)], cells[len(across) * len(down) :]
        return MeasuredTable(
            across,
            down,
            tuple(tuple(first[i * len(down) : (i + 1) * len(down)]) for i in range(len(across))),
            wide,
            deep,
            tuple(tuple(second[i * len(deep) : (i + 1) * len(deep)]) for i in range(len(wide))),
        )

    notes = () if wide else ("no step has prompt tokens: prompts are free",)
    return Design(tuple(names), columns, model, notes)


def _each(steps: Steps) -> Numbers:
    return steps.decode_context / np.maximum(steps.decodes, 1)


def _cached(steps: Steps) -> Numbers:
    m = np.maximum(steps.prefill_tokens, 1)
    return np.maximum(steps.prefill_context / m - (m + 1) / 2, 0.0)


def _cells(rows: Numbers, columns: Numbers) -> Numbers:
    return np.asarray((rows[:, :, None] * columns[:, None, :]).reshape(len(rows), -1))


def _axis(values: Numbers, what: str) -> tuple[int, ...]:
    """Return the values themselves if they are few, as in a sweep; else some, spread by how often they occur."""
    whole = np.unique(np.round(values).astype(np.int64))
    if len(whole) > CELLS:
        shares = np.quantile(values, np.linspace(0, 1, CELLS), method="inverted_cdf")
        whole = np.unique(np.concatenate([[np.floor(values.min())], shares, [np.ceil(values.max())]]).astype(np.int64))
    if len(whole) < 2:
        raise ConfigError(f"every step has {whole[0]:,} {what}: a table needs two or more")
    return tuple(whole.tolist())


LAWS: dict[str, Callable[[Steps], Design]] = {"linear": linear, "split": split, "table": table}
"""Laws by the name that the command line gives them."""


def refuse_blind(design: Design, columns: Numbers, steps: Steps) -> None:
    """Refuse steps that cannot tell some coefficients.

    Raises
    ------
    ConfigError
        Which ones, and which column of the data is why.
    """
    directions = blind(columns)
    if not len(directions):
        return
    moved = [name for i, name in enumerate(design.names) if np.abs(directions[:, i]).max() > 0.1]
    constant = [
        f"{name} is {getattr(steps, name)[0]:,.0f} in every step"
        for name in COLUMNS
        if getattr(steps, name).any() and np.ptp(getattr(steps, name)) == 0
    ]
    why = "; ".join(constant) or "their columns always change together"
    shown = ", ".join(moved[:6]) + (f" and {len(moved) - 6} more" if len(moved) > 6 else "")
    verb = "cannot be told" if len(moved) == 1 else "cannot be told apart"
    raise ConfigError(f"{shown} {verb} by these steps: {why}. Measure steps in which they differ")
