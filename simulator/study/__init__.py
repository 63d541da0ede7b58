"""Studies: points of a parameter space, replications of each, one simulation a run, one row a run.

A `Study` is frozen data, and the same thing as a TOML file (`load_study`). `Study.run` gives a `Table`.
"""

from simulator.study.table import Summary, Table

__all__ = ["Summary", "Table"]
