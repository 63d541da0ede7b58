"""Functions of a timeline: metrics of a query and of a run, what bound a query, what it would have taken alone."""

from simulator.metrics.measures import METRICS, SUMMARIES, Metrics, measure, summarize
from simulator.metrics.metric import TIME, Metric
from simulator.metrics.realised import BOUNDS, Piece, breakdown, realised_path
from simulator.metrics.view import QueryView

__all__ = [
    "BOUNDS",
    "METRICS",
    "SUMMARIES",
    "TIME",
    "Metric",
    "Metrics",
    "Piece",
    "QueryView",
    "breakdown",
    "measure",
    "realised_path",
    "summarize",
]
