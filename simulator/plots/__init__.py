"""Pictures of a timeline (`gantt`, `concurrency`, `batch`) and of how true a clock is (`calibration`, `validation`).

`side_by_side` compares several timelines, and `save` writes any of them.

Each picture is ``f(timeline, *, ax=None)``. It draws into `ax` if given, else into a figure of its own, and returns the
axes (``.figure`` is the figure). Figures are plain objects: pyplot, its backends and its list of open figures are never
touched, so nothing has to be closed and any thread or headless machine may draw. matplotlib is imported by the first
picture, not by this package.
"""

from simulator.plots.beside import side_by_side
from simulator.plots.curves import batch, concurrency
from simulator.plots.fidelity import calibration, validation
from simulator.plots.gantt import gantt
from simulator.plots.saving import save

__all__ = ["batch", "calibration", "concurrency", "gantt", "save", "side_by_side", "validation"]
