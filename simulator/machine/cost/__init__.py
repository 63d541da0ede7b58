"""Seconds of an engine step for a given batch.

A cost model is any object with the three members of `CostModel`. The engine asks it two things: what one step costs,
and what `k` decode-only steps in a row cost while every sequence grows by a token a step. The second lets the engine
leap; it must equal adding up the first, and a law test holds every model of this package to that.

==================  ==================================================================================
`DecodeSteps`       the decode-step clock: a step is one unit of time
`ConstantRate`      every sequence decodes so many tokens a second
`LinearBatch`       a fitted law: a + b*n + c*context + p*prefill_tokens + q*prefill_context
`Roofline`          from a model's shape and a GPU's datasheet
`MeasuredTable`     interpolated between measured steps
`SplitTable`        a table over the tokens of a step, and slopes over context; fitted to real engines
`AIConfigurator`    NVIDIA's operator database, tabulated; needs ``pip install forksim[aiconfigurator]``
==================  ==================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable

from simulator.errors import ConfigError
from simulator.machine.cost.aiconfigurator import AIConfigurator
from simulator.machine.cost.base import CostModel
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
]

COSTS: dict[str, Callable[..., CostModel]] = {"rate": ConstantRate, "linear": LinearBatch}
"""Cost models by the name that the command line gives them; each is made from its numbers."""

_ACCEPTED = "rate:TOKENS_PER_SECOND, linear:A,B,C,P,Q (seconds) or aiconfigurator:MODEL,SYSTEM[,BACKEND[,GPUS]]"


_NUMBERS = {"rate": 1, "linear": 5}  # a step's overhead is only for Python and profiles


def cost_from_text(text: str) -> CostModel:
    """Return the cost model that `text` names, as the command line takes it.

    >>> cost_from_text("rate:50")
    ConstantRate(tokens_per_second=50.0, overhead=0.0)
    >>> cost_from_text("linear:6e-3,1e-5").b
    1e-05
    """
    name, _, numbers = text.partition(":")
    if name != "aiconfigurator" and name not in COSTS:
        raise ConfigError(f"no cost model is called {name!r}; accepted: {_ACCEPTED}")
    try:
        if name == "aiconfigurator":
            model, system, *rest = numbers.split(",")
            backend, gpus = (*rest, *("vllm", "1")[len(rest) :])
            return AIConfigurator(model, system, backend, int(gpus))
        values = [float(number) for number in numbers.split(",")]
        if not all(map(math.isfinite, values)) or len(values) > _NUMBERS[name]:
            raise ValueError
        return COSTS[name](*values)
    except (ValueError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{text!r} is not {_ACCEPTED}") from None
