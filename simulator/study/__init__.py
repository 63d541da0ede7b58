"""Studies: points of a parameter space, replications of each, one simulation per run, and one row for it.

A `Study` is frozen data, and the same thing as a TOML file (`load_study`). `run_study` gives a `Table`, and
`run_in_folder` keeps it in a folder, where a run that was interrupted goes on.
"""

from simulator.study.executors import Executor, Processes, Ray, Serial, executor_from
from simulator.study.measures import QUERY_METRICS, RUN_METRICS
from simulator.study.running import Result, RunKey, run_one, run_study, simulate_one
from simulator.study.spec import Arrivals, Hardware, Source, Window
from simulator.study.stored import Stored, load_results, rerun, run_in_folder
from simulator.study.study import Point, Study, load_study, parse_study
from simulator.study.table import Summary, Table
from simulator.support.crew.failure import Failure

__all__ = [
    "QUERY_METRICS",
    "RUN_METRICS",
    "Arrivals",
    "Executor",
    "Failure",
    "Hardware",
    "Point",
    "Processes",
    "Ray",
    "Result",
    "RunKey",
    "Serial",
    "Source",
    "Stored",
    "Study",
    "Summary",
    "Table",
    "Window",
    "executor_from",
    "load_results",
    "load_study",
    "parse_study",
    "rerun",
    "run_in_folder",
    "run_one",
    "run_study",
    "simulate_one",
]
