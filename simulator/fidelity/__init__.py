"""How true a clock is: `calibrate` fits a cost model to timed steps, `validate` compares simulations with records."""

from simulator.fidelity.calibration import Calibration, Errors, Parameter, calibrate
from simulator.fidelity.designs import LAWS
from simulator.fidelity.recorded import CLASSES
from simulator.fidelity.steps import Steps, read_steps
from simulator.fidelity.tasks import calibrate_traces
from simulator.fidelity.validation import Checked, ClassError, Speedup, Validation, validate

__all__ = [
    "CLASSES",
    "LAWS",
    "Calibration",
    "Checked",
    "ClassError",
    "Errors",
    "Parameter",
    "Speedup",
    "Steps",
    "Validation",
    "calibrate",
    "calibrate_traces",
    "read_steps",
    "validate",
]
