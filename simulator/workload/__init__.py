"""Synthetic traces and arrivals, from seeds. Randomness is always an argument."""

from simulator.workload.arrivals import ClosedLoop, gamma_arrivals, poisson_arrivals
from simulator.workload.cuts import cap_tokens
from simulator.workload.distributions import (
    DISTRIBUTIONS,
    Constant,
    Distribution,
    Empirical,
    Geometric,
    LogNormal,
    Uniform,
    distribution,
)
from simulator.workload.families import (
    FAMILIES,
    Sizes,
    batch,
    interleaved,
    nested,
    parallel,
    random_organizer,
    sequential,
)
from simulator.workload.generation import PRESETS, generate
from simulator.workload.groups import grouped

__all__ = [
    "DISTRIBUTIONS",
    "FAMILIES",
    "PRESETS",
    "ClosedLoop",
    "Constant",
    "Distribution",
    "Empirical",
    "Geometric",
    "LogNormal",
    "Sizes",
    "Uniform",
    "batch",
    "cap_tokens",
    "distribution",
    "gamma_arrivals",
    "generate",
    "grouped",
    "interleaved",
    "nested",
    "parallel",
    "poisson_arrivals",
    "random_organizer",
    "sequential",
]
