"""From timed steps to a cost model that says how far it can be trusted."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.errors import ConfigError, SimulatorError
from simulator.fidelity.designs import LAWS, Design, refuse_blind
from simulator.fidelity.solve import Solution, level, nonnegative, solve, summed
from simulator.fidelity.steps import Steps
from simulator.machine.cost import CostModel, LinearBatch
from simulator.support.checks import whole

Numbers = NDArray[np.float64]

SAMPLES = 200
"""Bootstrap samples."""


class Parameter(NamedTuple):
    """A fitted coefficient, and the interval that holds 95 % of what resampled runs give."""

    name: str
    value: float
    low: float
    high: float


class Errors(NamedTuple):
    """Relative errors, ``predicted / measured - 1``."""

    mean: float
    """Mean of their absolute values."""
    bias: float
    """Mean of themselves."""
    p50: float
    """50 % of the absolute values are smaller."""
    p90: float
    p95: float
    max: float
    number: int
    """Of values."""

    @classmethod
    def of(cls, predicted: Numbers, measured: Numbers) -> Errors:
        """Return the errors of predictions.

        >>> round(Errors.of(np.array([1.1, 1.8]), np.array([1.0, 2.0])).mean, 3)
        0.1
        """
        error = predicted / measured - 1
        size = np.abs(error)
        half, most, nearly = (float(share) for share in np.quantile(size, (0.5, 0.9, 0.95)))
        return cls(float(size.mean()), float(error.mean()), half, most, nearly, float(size.max()), len(error))


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A fitted law."""

    law: str
    cost: CostModel
    parameters: tuple[Parameter, ...]
    held_out_steps: Errors
    """Each step, predicted by a fit to the other folds."""
    held_out_runs: Errors | None
    """Each run's summed seconds, likewise; None if there is one run."""
    fitted_steps: Errors
    """Each step, predicted by the fit to all."""
    outliers: float
    """Share of the steps that counted less, because something interrupted them."""
    drift: float
    """Standard deviation of the runs' seconds over the law's; 0 if there is one run."""
    folds: int
    notes: tuple[str, ...]
    steps: Steps = field(repr=False)
    predicted: Numbers = field(repr=False)
    """Seconds of each step by the fit to all."""
    held_out: Numbers = field(repr=False)
    """Seconds of each step by a fit to the other folds."""
    refused: tuple[SimulatorError, ...] = ()
    """Recorded runs that could not be used."""

    @property
    def errors(self) -> Errors:
        """The held-out errors that a profile states: of runs where there are enough of them, else of steps."""
        return self.held_out_runs or self.held_out_steps

    @property
    def what(self) -> str:
        """What a row of the data is."""
        return "task" if self.steps.inside else "engine step"

    def describe(self) -> str:
        """Say in one line what was measured and how far the law is off."""
        runs = f" of {len(self.steps.names)} runs" if len(self.steps.names) > 1 else ""
        size = self.steps.basis.tokens
        text = f"{len(self.steps):,} {self.what}s{runs}, {size.min():.0f} to {size.max():.0f} tokens a step"
        whole = "" if self.held_out_runs is None else f" and {100 * self.held_out_runs.mean:.1f} % of a run"
        error = f"{100 * self.held_out_steps.mean:.1f} % of {'a task' if self.steps.inside else 'a step'}"
        return f"{text}; held-out error {error}{whole} ({self.folds} folds)"

    def profile(
        self,
        *,
        source: str,
        date: datetime.date | None = None,
        kind: str = "measured",
        engine: Mapping[str, int] | None = None,
    ) -> str:
        """Return the text of a profile file (see docs/machine.md).

        Parameters
        ----------
        source : str
            What was measured, and where.
        date : date, optional
            When. Default: today.
        kind : str
            ``measured`` for steps of a real engine, ``fitted`` for a law fitted to another source of numbers.
        engine : mapping, optional
            Keys of its ``[engine]``, such as ``{"max_prefill_tokens": 128}``. Laws that refuse what was not measured
            are given the largest measured step as `max_num_seqs` and `max_num_batched_tokens`.

        >>> from itertools import product
        >>> sizes = [dict(decodes=n, decode_context=c) for n, c in product((1, 2, 4, 8), (100, 500, 900))]
        >>> times = [dict(seconds=0.01 + 0.001 * s["decodes"] + 1e-6 * s["decode_context"]) for s in sizes]
        >>> rows = [dict(prefill_tokens=0, prefill_context=0) | s | t for s, t in zip(sizes, times)]
        >>> text = calibrate(rows, law="linear").profile(source="my desk")
        >>> from simulator.machine.profiles import parse_profile
        >>> round(parse_profile(text, "desk").gpu.cost.b, 9)
        0.001
        """
        lines = ["[provenance]", f"kind = {_text(kind)}", f"source = {_text(source)}"]
        lines += [f"date = {(date or datetime.date.today()).isoformat()}", f"measured = {_text(self.describe())}"]
        lines += [f"mean_error = {self.errors.mean:.4f}", f"max_error = {self.errors.max:.4f}", "", "[cost]"]
        lines += [f"type = {_text(self.law)}"]
        for item in fields(self.cost):  # type: ignore[arg-type]  # all of LAWS make dataclasses
            value = getattr(self.cost, item.name)
            if item.init and (item.default is MISSING or value not in (0, (), None)):
                lines.append(f"{item.name} = {_toml(value)}")
        limits = dict(engine or {})
        if not isinstance(self.cost, LinearBatch):
            basis = self.steps.basis
            most = {"max_num_seqs": basis.decodes, "max_num_batched_tokens": basis.tokens}
            limits = {name: int(values.max()) for name, values in most.items()} | limits
        if limits:
            lines += ["", "[engine]", *(f"{name} = {value}" for name, value in limits.items())]
        return "\n".join(lines) + "\n"


def calibrate(
    steps: Steps | Iterable[Mapping[str, Any]], *, law: str = "split", folds: int = 5, seed: int = 0
) -> Calibration:
    """Fit a cost model to timed engine steps.

    Coefficients are not negative. How the fit deals with noise is said in `simulator.fidelity.solve.solve`.

    Parameters
    ----------
    steps : Steps or iterable of mappings
        See `simulator.fidelity.steps`.
    law : str
        A key of `LAWS`: ``linear``, ``split`` or ``table``.
    folds : int
        Parts that the runs are dealt into, for the held-out error: each is predicted by a fit to the others.
    seed : int
        Of the bootstrap that gives the intervals.

    Raises
    ------
    ConfigError
        If there is no such law, or the steps cannot tell its coefficients.

    >>> from itertools import product
    >>> sizes = [dict(decodes=n, decode_context=c) for n, c in product((1, 2, 4, 8), (100, 500, 900))]
    >>> times = [dict(seconds=0.01 + 0.001 * s["decodes"] + 1e-6 * s["decode_context"]) for s in sizes]
    >>> rows = [dict(prefill_tokens=0, prefill_context=0) | s | t for s, t in zip(sizes, times)]
    >>> found = calibrate(rows, law="linear")
    >>> [(p.name, round(p.value, 9)) for p in found.parameters], round(found.held_out_steps.mean, 6)
    ([('a', 0.01), ('b', 0.001), ('c', 1e-06)], 0.0)
    >>> calibrate([row for row in rows if row["decodes"] == 4], law="linear")
    Traceback (most recent call last):
    simulator.errors.ConfigError: a, b cannot be told apart by these steps: decodes is 4 in every step. ...
    """
    data = steps if isinstance(steps, Steps) else Steps.from_rows(steps)
    if law not in LAWS:
        raise ConfigError(f"no law is called {law!r}; accepted: {', '.join(LAWS)}")
    whole("folds", folds, "from 2 to 1,000")
    mixed = (data.decodes > 0) & (data.prefill_tokens > 0)
    if law == "table" and mixed.any():  # what a MeasuredTable says of those follows from the others
        data = data.take(~mixed)
    design = LAWS[law](data.basis)
    columns = design.rows(data)
    refuse_blind(design, columns, data.basis)
    solution = solve(columns, data.seconds, data.run)
    cost = design.model(solution.coefficients)
    predicted = columns @ solution.coefficients
    held_out, used = _hold_out(data, law, folds)
    many = len(data.names) > 1
    sums = summed(data.seconds, data.run)
    return Calibration(
        law=law,
        cost=cost,
        parameters=_intervals(design, columns, data, solution, np.random.default_rng(seed)),
        held_out_steps=Errors.of(held_out, data.seconds),
        held_out_runs=Errors.of(summed(held_out, data.run), sums) if many else None,
        fitted_steps=Errors.of(predicted, data.seconds),
        outliers=solution.outliers,
        drift=float(solution.speeds.std(ddof=1) / solution.speeds.mean()) if many else 0.0,
        folds=used,
        notes=design.notes,
        steps=data,
        predicted=predicted,
        held_out=held_out,
    )


def _hold_out(data: Steps, law: str, folds: int) -> tuple[Numbers, int]:
    """Return each step's seconds as predicted by a fit that has seen nothing of its group, and the folds there were."""
    groups = data.groups
    count = int(groups.max()) + 1
    folds = min(folds, count)
    if folds < 2:
        raise ConfigError("all steps are alike: nothing can be held out")
    predicted = np.zeros(len(data))
    for fold in range(folds):
        out = groups % folds == fold
        rest = data.take(~out)
        try:
            design = LAWS[law](rest.basis)
            columns = design.rows(rest)
        except ConfigError as error:
            raise ConfigError(f"without fold {fold + 1} of {folds}: {error}") from None
        solution = solve(columns, rest.seconds, rest.run)
        predicted[out] = design.rows(data.take(out)) @ solution.coefficients
    return np.maximum(predicted, 0.0), folds


def _intervals(
    design: Design, columns: Numbers, data: Steps, solution: Solution, rng: np.random.Generator
) -> tuple[Parameter, ...]:
    """Resample groups with replacement, and solve again with the weights found (Efron's percentiles)."""
    groups = data.groups
    size = np.linalg.norm(columns, axis=0)
    size[size == 0] = 1.0
    scaled = columns / size
    target = data.seconds
    count = int(groups.max()) + 1
    grams, targets, sums, parts = [], [], [], []
    for group in range(count):
        which = groups == group
        rows, weights = scaled[which], solution.weights[which]
        grams.append(rows.T @ (rows * weights[:, None]))
        targets.append(rows.T @ (weights * target[which]))
        sums.append(float(data.seconds[which].sum()))
        parts.append(rows.sum(axis=0))
    all_sums, all_parts = np.array(sums), np.array(parts)
    ridge = 1e-12 * np.trace(sum(grams)) * np.eye(len(size))  # a sample may leave out what only one run has
    found = []
    for _ in range(SAMPLES):
        chosen = rng.integers(0, count, count)
        x = nonnegative(sum(grams[i] for i in chosen) + ridge, sum(targets[i] for i in chosen))
        if len(data.names) > 1:
            x = x * level(all_sums[chosen], all_parts[chosen] @ x)
        found.append(x / size)
    low, high = np.quantile(np.array(found), (0.025, 0.975), axis=0)
    return tuple(
        Parameter(name, float(value), float(a), float(b))
        for name, value, a, b in zip(design.names, solution.coefficients, low, high, strict=True)
    )


def _text(text: str) -> str:
    """Return a TOML string."""
    escaped = "".join(c if c.isprintable() and c not in '"\\' else f"\\u{ord(c):04x}" for c in text if ord(c) < 0xD800)
    return f'"{escaped}"'


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return _text(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
