"""Who does the runs of a study: this process, several of them, or a Ray cluster. The results are the same."""

from simulator.study.executors.choice import Executor, Failure, Processes, Ray, Serial, executor_from

__all__ = ["Executor", "Failure", "Processes", "Ray", "Serial", "executor_from"]
