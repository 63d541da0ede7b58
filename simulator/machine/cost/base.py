"""What the engine asks of a cost model, and the checks they share.

Units: seconds; `context` is the sum over the decoding sequences of the tokens each attends to, its own included.
"""

from __future__ import annotations

import typing
from dataclasses import fields
from typing import Any, Literal

from simulator.support.checks import real


class CostModel(typing.Protocol):
    """What the engine asks of a cost model.

    A model may say two things more about itself, as class attributes:

    ``monotone = True``
        A step never gets shorter as its batch or its context grows. Only then is there a lower bound of the latency
        (`simulator.metrics.bounds.lower_bound`); for a model that does not say so, the bound is NaN.
    ``unit = "steps"``
        What it returns counts engine steps. Otherwise it is seconds.

    Where a step's cost also depends on all that is in memory, a model has `cache_seconds` besides: see
    `simulator.machine.cost.SplitTable`.
    """

    @property
    def prefill_is_free(self) -> bool:
        """Whether prompt tokens take no time. Then they take no step either: a sequence decodes from its admission."""
        ...

    def step_seconds(self, n: int, context: int, prefill_tokens: int = 0, prefill_context: int = 0) -> float:
        """Seconds of one step: `n` sequences decode, attending to `context` tokens in all, and `prefill_tokens` prompt
        tokens are processed, attending to `prefill_context` tokens in all.
        """
        ...

    def decode_seconds(self, n: int, context: int, k: int) -> float:
        """Seconds of `k` steps in which `n` sequences decode; `context` at the first, `n` more at each later one."""
        ...


def unit_of(cost: CostModel) -> Literal["steps", "seconds"]:
    """Return the unit of time of a cost model."""
    return "steps" if getattr(cost, "unit", "seconds") == "steps" else "seconds"


def is_monotone(cost: CostModel) -> bool:
    """Return whether a cost model says that its steps never get shorter as batch and context grow."""
    return getattr(cost, "monotone", False) is True


def check_numbers(model: Any) -> None:
    """Refuse a dataclass of numbers if one is negative, NaN or absurd."""
    for item in fields(model):
        real(f"{type(model).__name__}: {item.name}", getattr(model, item.name), "from 0 to 10^9")
