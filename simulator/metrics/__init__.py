"""Functions of a timeline: metrics of a query and of a run, what bound a query, what it would have taken alone."""

from simulator.metrics.measures import METRICS, SUMMARIES, Metrics, Run, measure, summarize
from simulator.metrics.realised import BOUNDS, Piece, breakdown, realised_path

__all__ = [
    "BOUNDS",
    "METRICS",
    "SUMMARIES",
    "Metrics",
    "Piece",
    "Run",
    "breakdown",
    "measure",
    "realised_path",
    "summarize",
]
