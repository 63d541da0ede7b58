"""forksim: a discrete-event simulator for organizer-worker thinking.

The path of data, one verb a step::

    text --parse--> Trace --compile_trace--> ExecutionGraph --simulate--> Timeline --measure--> Metrics
                      `--score--> Score
"""

import simulator.support.interrupts  # noqa: F401  # first: it answers Ctrl-C while the rest is loaded
from simulator.engine.simulation import simulate
from simulator.errors import (
    ConfigError,
    DeadlockError,
    FormatError,
    FreePromptWarning,
    GraphError,
    SimulatorError,
    TraceError,
)
from simulator.fidelity import calibrate, validate
from simulator.formats import FORMATS, parse, render
from simulator.formats.reading import dump, read
from simulator.graph import ExecutionGraph, from_networkx, to_networkx
from simulator.graph.clock import DecodeClock, check, decode_clock
from simulator.graph.compiler import compile_trace
from simulator.graph.critical_path import CriticalPath, critical_path
from simulator.machine.cost import ConstantRate, LinearBatch, MeasuredTable, Roofline, SplitTable
from simulator.machine.gpu import GPU, STEP_CLOCK, Cluster
from simulator.machine.profiles import load_profile
from simulator.metrics import Metrics, measure, summarize
from simulator.metrics.realised import breakdown, realised_path
from simulator.rewards import Reader, Reward, Score, ScoreBatch, load_reward, make_reward, score, score_batch
from simulator.sensitivity import sensitivity, slack_table, what_if
from simulator.support.html import PICTURES
from simulator.support.version import VERSION
from simulator.timeline import Span, SpanKind, Timeline
from simulator.trace import (
    Action,
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
from simulator.trace.protocol import Protocol
from simulator.workload import ClosedLoop

__version__ = VERSION


def _gantt(timeline: Timeline) -> bytes:
    from simulator import plots  # it takes a while to load, and most programs draw nothing
    from simulator.plots.saving import rendered

    return rendered(plots.gantt(timeline), ".png")


PICTURES[Timeline] = _gantt
__all__ = [
    "FORMATS",
    "GPU",
    "STEP_CLOCK",
    "Action",
    "Answer",
    "ClosedLoop",
    "Cluster",
    "ConfigError",
    "ConstantRate",
    "CriticalPath",
    "DeadlockError",
    "DecodeClock",
    "Delay",
    "ExecutionGraph",
    "Fork",
    "FormatError",
    "FreePromptWarning",
    "GraphError",
    "Join",
    "LinearBatch",
    "MeasuredTable",
    "Metrics",
    "Outcome",
    "Protocol",
    "Reader",
    "Return",
    "Reward",
    "Roofline",
    "Score",
    "ScoreBatch",
    "SimulatorError",
    "Span",
    "SpanKind",
    "SplitTable",
    "Think",
    "Thread",
    "Timeline",
    "Trace",
    "TraceError",
    "Violation",
    "ViolationKind",
    "breakdown",
    "calibrate",
    "check",
    "compile_trace",
    "critical_path",
    "decode_clock",
    "dump",
    "from_networkx",
    "load_profile",
    "load_reward",
    "make_reward",
    "measure",
    "parse",
    "read",
    "realised_path",
    "render",
    "score",
    "score_batch",
    "sensitivity",
    "simulate",
    "slack_table",
    "summarize",
    "to_networkx",
    "validate",
    "what_if",
]
