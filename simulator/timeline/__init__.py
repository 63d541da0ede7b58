"""What happened when: the only output of a simulation. `simulator.timeline.export` writes it to files."""

from simulator.timeline.columns import (
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
