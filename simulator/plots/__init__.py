"""Pictures of a timeline (`gantt`, `concurrency`, `batch`), of how true a clock is (`calibration`, `validation`), and
of a study's table (`latency_capacity`, `knee`, `heatmap`, `pareto`).

`side_by_side` compares several timelines, and `save` writes any of them.

Each picture is ``f(timeline, *, ax=None)``, or ``f(table, *, ax=None)``. It draws into `ax` if given, else into a
figure of its own, and returns the axes (``.figure`` is the figure). Figures are plain objects: pyplot, its backends and
its list of open figures are never touched, so nothing has to be closed and any thread or headless machine may draw.
matplotlib is imported by the first picture, not by this package.
"""

from simulator.plots.capacity import latency_capacity
from simulator.plots.curves import batch, concurrency
from simulator.plots.fidelity import calibration, validation
from simulator.plots.findings import pareto_front
from simulator.plots.gantt import gantt
from simulator.plots.heatmap import heatmap
from simulator.plots.knee import knee
from simulator.plots.pareto import pareto
from simulator.plots.saving import save
from simulator.plots.side_by_side import side_by_side

__all__ = [
    "batch",
    "calibration",
    "concurrency",
    "gantt",
    "heatmap",
    "knee",
    "latency_capacity",
    "pareto",
    "pareto_front",
    "save",
    "side_by_side",
    "validation",
]
