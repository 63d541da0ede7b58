"""What happened when: the only output of a simulation. `simulator.timeline.export` writes it to files."""

from simulator.timeline.columns import (
    BLOCKED,
    CANCELLED,
    COLUMNS,
    INLINE,
    PREEMPTED,
    Deadlock,
    Replica,
    Span,
    SpanKind,
    Timeline,
    in_order,
)

__all__ = [
    "BLOCKED",
    "CANCELLED",
    "COLUMNS",
    "INLINE",
    "PREEMPTED",
    "Deadlock",
    "Replica",
    "Span",
    "SpanKind",
    "Timeline",
    "in_order",
]
