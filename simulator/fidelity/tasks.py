"""Laws from records that time tasks and not steps: what a task's steps held is known from a simulation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from simulator.engine.server import Leap
from simulator.engine.simulation import simulate
from simulator.errors import ConfigError, TraceError
from simulator.fidelity.calibration import Calibration, calibrate
from simulator.fidelity.designs import LAWS
from simulator.fidelity.runs import RecordedRun, recorded_runs
from simulator.fidelity.solve import solve
from simulator.fidelity.steps import Steps
from simulator.machine.cost import CostModel, LinearBatch
from simulator.machine.gpu import GPU
from simulator.timeline import CANCELLED, Timeline
from simulator.trace import Delay, Join, Trace

ROUNDS = 5

Row = dict[str, float]


def calibrate_traces(
    traces: Iterable[Trace],
    *,
    law: str = "linear",
    max_workers: int | None = None,
    max_prefill_tokens: int | None = None,
    folds: int = 5,
    seed: int = 0,
) -> Calibration:
    """Fit a cost model to recorded traces, whose actions have a start and a finish.

    Each run is simulated under a first guess of the law. That says which steps each task took part in, and what else
    was in them. The law is then fitted to the recorded times of the tasks, as the sum over these steps, and simulated
    again, five times over. How the batch was made up is thus assumed, where timed steps would say it: prefer those if
    there are any. The table of a ``split`` law does not fall here.
    Runs without recorded times are left out, and listed in `Calibration.refused`.

    Parameters
    ----------
    traces : iterable of Trace
    law : str
        ``linear`` or ``split``.
    max_workers, max_prefill_tokens : int, optional
        As for `simulator.fidelity.validate`.
    folds, seed : int
        As for `calibrate`.

    Raises
    ------
    ConfigError
        If there is no such law, no recorded task, or the tasks cannot tell its coefficients.

    >>> from simulator import Answer, Thread
    >>> def recorded(number, prompt, tokens):
    ...     seconds = 0.010 * tokens + 0.001 * prompt
    ...     return Trace(f"{number}", (Thread("organizer", (Answer(tokens, start=0.0, finish=seconds),), prompt),))
    >>> asked = [(10, 5), (90, 9), (40, 20), (7, 50)]
    >>> traces = [recorded(i, prompt, tokens) for i, (prompt, tokens) in enumerate(asked)]
    >>> calibrate_traces(traces)
    Traceback (most recent call last):
    simulator.errors.ConfigError: ... cannot be told apart ...
    """
    if law not in ("linear", "split"):
        raise ConfigError(f"a law fitted to traces is linear or split; got {law!r}. A table needs timed steps")
    read, refused = recorded_runs(traces, max_workers, max_prefill_tokens)
    runs, recorded = [], []
    for run in read:
        try:
            recorded.append(_recorded(run))
            runs.append(run)
        except TraceError as error:
            refused.append(error)
    if not any(recorded):
        raise ConfigError(f"there is no recorded task to fit to{f': {refused[0]}' if refused else ''}")
    pace = _pace(runs, recorded)
    cost: CostModel = LinearBatch(a=pace, p=pace / 10)
    for turn in range(ROUNDS):
        data = _tasks(runs, recorded, cost)
        if turn < ROUNDS - 1:
            design = LAWS[law if turn else "linear"](data.basis)
            cost = design.model(solve(design.rows(data), data.seconds, data.run).coefficients)
    return replace(calibrate(data, law=law, folds=folds, seed=seed), refused=tuple(refused))


def _pace(runs: list[RecordedRun], recorded: list[dict[tuple[int, int], float]]) -> float:
    """Return the mean seconds of a decoded token."""
    seconds, tokens = 0.0, 0
    for run, times in zip(runs, recorded, strict=True):
        for (query, task), taken in times.items():
            seconds += taken
            tokens += run.graphs[query].tasks[task].tokens
    return seconds / tokens


def _recorded(run: RecordedRun) -> dict[tuple[int, int], float]:
    """Return the recorded seconds of each task that decodes, from its first action to the end of its last."""
    found = {}
    for query, (trace, graph) in enumerate(zip(run.traces, run.graphs, strict=True)):
        threads = {thread.id: thread for thread in trace.threads}
        for number, task in enumerate(graph.tasks):
            actions = threads[graph.threads[task.thread].id].actions[task.actions[0] : task.actions[1]]
            work = [a for a in actions if not isinstance(a, (Join, Delay)) and a.tokens]
            if not work or any(isinstance(action, Join) and action.tokens for action in actions):
                continue
            start, finish = work[0].start, work[-1].finish
            if start is None or finish is None or not start < finish:
                thread = graph.threads[task.thread].id
                raise TraceError(
                    f"trace {trace.id!r}: thread {thread}: no recorded start and finish of all its actions"
                )
            found[query, number] = finish - start
    return found


def _tasks(runs: list[RecordedRun], recorded: list[dict[tuple[int, int], float]], cost: CostModel) -> Steps:
    """Simulate the runs, and return their tasks with the steps they took part in."""
    steps: list[Row] = []
    rows: list[dict[str, Any]] = []
    ranges: list[tuple[int, int]] = []
    for run, times in zip(runs, recorded, strict=True):
        log = _Log(len(steps))
        timeline = _simulate(run, cost, log)
        steps += log.steps
        at = np.array([*log.starts, np.inf])
        numbers = np.array([*log.numbers, len(steps)])
        for row in timeline.stays():
            key = row.query, row.task
            if key not in times or row.flags & CANCELLED:
                continue
            ends = np.searchsorted(at, [row.start, row.finish])
            ranges.append((int(numbers[ends[0]]), int(numbers[ends[1]])))
            task = timeline.graphs[key[0]].tasks[key[1]]
            size = {"decodes": task.tokens, "decode_context": task.tokens}
            prompt = {"prefill_tokens": task.prefill, "prefill_context": task.prefill}
            rows.append({"seconds": times[key], "run": run.name, **size, **prompt})
    inside = replace(Steps.from_rows(steps), simulated=True)
    first, last = np.array(ranges, dtype=np.int64).T
    return replace(Steps.from_rows(rows), inside=inside, first=first, last=last)


class _Log:
    """The steps of a simulation. Those of a leap are written as their mean: all laws are linear in what grows."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.steps: list[Row] = []
        self.starts: list[float] = []
        self.numbers: list[int] = []

    def __call__(self, leap: Leap) -> None:
        """Note the leap that has just ended."""
        grown = leap.decodes * (leap.steps - 1) / 2
        row = {
            "decodes": leap.decodes,
            "decode_context": round(leap.context + grown),
            "prefill_tokens": leap.prefill_tokens,
            "prefill_context": leap.prefill_context,
            "kv_tokens": leap.stored + leap.prefill_tokens + grown,
            "seconds": 1.0,
        }
        self.starts.append(leap.start)
        self.numbers.append(self.number)
        self.steps += [row] * leap.steps
        self.number += leap.steps


def _simulate(run: RecordedRun, cost: CostModel, log: _Log) -> Timeline:
    gpu = GPU(cost=cost, max_prefill_tokens=run.max_prefill_tokens)
    return simulate(run.graphs, gpu=gpu, arrivals=run.arrivals, max_workers=run.max_workers, observe=log)
