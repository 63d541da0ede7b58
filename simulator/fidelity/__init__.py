"""How true a clock is: `calibrate` fits a cost model to timed steps, `validate` compares simulations with recordings."""

from simulator.fidelity.calibration import Calibration, Errors, Parameter, calibrate
from simulator.fidelity.designs import LAWS
from simulator.fidelity.steps import Steps, read_steps

__all__ = ["LAWS", "Calibration", "Errors", "Parameter", "Steps", "calibrate", "read_steps"]
