"""Seconds of an engine step for a given batch.

A cost model is any object with the three members of `CostModel`. The engine asks it two things: what one step costs,
and what `k` decode-only steps in a row cost while every sequence grows by a token a step. The second lets the engine
leap; it must equal adding up the first, and a law test holds every model of this package to that.

| cost model       | seconds of a step |
|------------------|---|
| `DecodeSteps`    | the decode-step clock: a step is one unit of time |
| `ConstantRate`   | every sequence decodes so many tokens a second |
| `LinearBatch`    | a fitted law: a + b*n + c*context + p*prefill_tokens + q*prefill_context |
| `Roofline`       | from a model's shape and a GPU's datasheet |
| `MeasuredTable`  | interpolated between measured steps |
| `SplitTable`     | a table over the tokens of a step, and slopes over context; fitted to real engines |
| `AIConfigurator` | NVIDIA's operator database, tabulated; needs ``pip install forksim[aiconfigurator]`` |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_type_hints

from simulator.errors import ConfigError
from simulator.machine.cost.aiconfigurator import AIConfigurator
from simulator.machine.cost.base import CostModel, is_monotone, unit_of
from simulator.machine.cost.laws import ConstantRate, DecodeSteps, LinearBatch
from simulator.machine.cost.roofline import Roofline
from simulator.machine.cost.shapes import Datasheet, ModelShape
from simulator.machine.cost.split import SplitTable
from simulator.machine.cost.table import MeasuredTable

__all__ = [
    "COSTS",
    "AIConfigurator",
    "ConstantRate",
    "CostModel",
    "Datasheet",
    "DecodeSteps",
    "LinearBatch",
    "MeasuredTable",
    "ModelShape",
    "Roofline",
    "SplitTable",
    "cost_from_text",
    "is_monotone",
    "unit_of",
    "usage",
    "usages",
]

COSTS: dict[str, Callable[..., CostModel]] = {
    "rate": ConstantRate,
    "linear": LinearBatch,
    "table": MeasuredTable,
    "split": SplitTable,
    "roofline": Roofline,
    "aiconfigurator": AIConfigurator,
}
"""Cost models by name, as profile files say it (``[cost] type = "linear"``) and, where a line has room for all that a
model is made of, the command line (``linear:6e-3,1e-5``). What a model takes is said by its dataclass alone."""


def usage(name: str) -> str:
    """Return how the command line says a cost model, or nothing where it cannot: a table has no room there.

    On the command line go the fields that are not keyword-only, all of them numbers or texts.

    >>> usage("rate"), usage("linear"), usage("table")
    ('rate:TOKENS_PER_SECOND', 'linear:A[,B,C,P,Q]', '')
    """
    needed: list[str] = []
    optional: list[str] = []
    for item, kind in _spoken(COSTS[name]):
        if kind not in (int, float, str):
            return ""
        (needed if item.default is MISSING and item.default_factory is MISSING else optional).append(item.name.upper())
    return f"{name}:{','.join(needed)}" + (f"[,{','.join(optional)}]" if optional else "")


def usages() -> str:
    """Return how the command line says each cost model that it can say."""
    *most, last = filter(None, map(usage, COSTS))
    return f"{', '.join(most)} or {last}" if most else last


def cost_from_text(text: str) -> CostModel:
    """Return the cost model that `text` names, as the command line takes it.

    Raises
    ------
    ConfigError
        If there is none of that name, or the numbers do not make one.

    >>> cost_from_text("rate:50")
    ConstantRate(tokens_per_second=50.0, overhead=0.0)
    >>> cost_from_text("linear:6e-3,1e-5").b
    1e-05
    """
    name, _, said = text.partition(":")
    if name not in COSTS:
        raise ConfigError(f"no cost model is called {name!r}; accepted: {usages()}")
    if not usage(name):
        raise ConfigError(f"{name} is made of more than a line can say: write a profile; accepted here: {usages()}")
    values, spoken = said.split(","), _spoken(COSTS[name])
    try:
        if len(values) > len(spoken):
            raise ValueError
        given = [kind(value) for value, (_, kind) in zip(values, spoken, strict=False)]
        if not all(math.isfinite(value) for value in given if isinstance(value, float)):
            raise ValueError
        return COSTS[name](*given)
    except (ValueError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{text!r} is not {usages()}") from None


def _spoken(model: Callable[..., CostModel]) -> list[tuple[Field[Any], Any]]:
    """Return the fields of a model that may be said without their names, each with its type."""
    if not is_dataclass(model):
        raise ConfigError(
            f"a cost model that is listed must be a dataclass: its fields say what it takes; got {model!r}"
        )
    kinds = get_type_hints(model)
    return [(item, kinds[item.name]) for item in fields(model) if item.init and not item.kw_only]
