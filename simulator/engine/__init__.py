"""The one loop: queries on a simulated clock. All state of a run lives here, and none of it outlives `simulate`."""

from simulator.engine.server import Leap
from simulator.engine.simulation import simulate

__all__ = ["Leap", "simulate"]
