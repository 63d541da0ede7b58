"""forksim: a discrete-event simulator for organizer-worker thinking."""

from simulator.clock import DecodeClock, check, decode_clock
from simulator.cost import ConstantRate, LinearBatch
from simulator.critical_path import CriticalPath, critical_path
from simulator.errors import (
    ConfigError,
    DeadlockError,
    FormatError,
    GraphError,
    SimulatorError,
    TraceError,
)
from simulator.gpu import GPU, STEP_CLOCK
from simulator.graph import ExecutionGraph, compile_trace, from_networkx, to_networkx
from simulator.protocol import Protocol
from simulator.simulation import simulate
from simulator.timeline import Span, SpanKind, Timeline
from simulator.trace import (
    Answer,
    Delay,
    Fork,
    Join,
    Outcome,
    Return,
    Think,
    Thread,
    Trace,
    Violation,
    ViolationKind,
)
