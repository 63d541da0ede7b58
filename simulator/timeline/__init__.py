"""What happened when: the only output of a simulation. `simulator.timeline.export` writes it to files."""

from simulator.timeline.columns import (
    BLOCKED,
    CANCELLED,
    COLUMNS,
    INLINE,
    PREEMPTED,
    ROW,
    Deadlock,
    Replica,
    Row,
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
    "ROW",
    "Deadlock",
    "Replica",
    "Row",
    "Span",
    "SpanKind",
    "Timeline",
    "in_order",
]
