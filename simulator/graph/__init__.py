"""The task graph of a trace, and what follows from it in closed form: steps, violations, the critical path."""

from simulator.graph.clock import DecodeClock, check, decode_clock
from simulator.graph.compiler import compile_trace
from simulator.graph.critical_path import CriticalPath, critical_path
from simulator.graph.graph import ExecutionGraph
from simulator.graph.interchange import from_networkx, to_networkx
from simulator.graph.task import Edge, EdgeKind, GraphThread, Task

__all__ = [
    "CriticalPath",
    "DecodeClock",
    "Edge",
    "EdgeKind",
    "ExecutionGraph",
    "GraphThread",
    "Task",
    "check",
    "compile_trace",
    "critical_path",
    "decode_clock",
    "from_networkx",
    "to_networkx",
]
