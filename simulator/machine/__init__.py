"""The machine that a graph runs on: frozen specifications and plain functions, without any state of a run.

What a step costs is in `simulator.machine.cost`, machines by name are in `simulator.machine.profiles`.
"""

from simulator.machine.gpu import GPU, STEP_CLOCK, Cluster
from simulator.machine.policy import POLICIES, Policy
from simulator.machine.routing import ROUTINGS, Routing

__all__ = ["GPU", "POLICIES", "ROUTINGS", "STEP_CLOCK", "Cluster", "Policy", "Routing"]
