"""What happened when: the only output of a simulation. `simulator.timeline.export` writes it to files."""

from simulator.timeline.columns import (
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
