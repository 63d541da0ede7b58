"""Run the studies of studies/ and draw their pictures in this folder: ``python docs/images/draw_studies.py [FOLDER]``.

That takes about a minute and a half.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes

from simulator.plots import heatmap, knee, latency_capacity, pareto, save
from simulator.study import Table, load_study, run_study

STUDIES = Path(__file__).parent.parent.parent / "studies"

PICTURES: dict[str, tuple[str, Callable[[Table], Axes]]] = {
    "study_capacity": ("capacity_knee", latency_capacity),
    "study_knee": ("poisson_load", knee),
    "study_pareto": ("poisson_load", pareto),
    "study_step": (
        "rl_step",
        lambda table: heatmap(table, x="cluster.replicas", y="protocol.capacity", metric="makespan"),
    ),
}
"""Of each picture, the study and what draws it."""


def main(folder: Path) -> None:
    """Draw them all."""
    tables = {
        name: run_study(load_study(STUDIES / f"{name}.toml")) for name in {name: 0 for name, _ in PICTURES.values()}
    }
    for picture, (name, draw) in PICTURES.items():
        save(draw(tables[name]), folder / f"{picture}.png", dpi=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
