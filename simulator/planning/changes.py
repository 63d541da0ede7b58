"""What would make a rollout step end earlier: shorter workers, another pool capacity, more GPUs, another order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from simulator.errors import ConfigError, SimulatorError
from simulator.graph import ExecutionGraph
from simulator.graph.compiler import compile_trace
from simulator.graph.critical_path import critical_path
from simulator.planning.steps import RolloutStep, rollout_step
from simulator.study import Executor, Failure, Serial, Study, simulate_one
from simulator.study.inputs import compiled, warn_of_free_prompts
from simulator.study.table import mean_and_interval
from simulator.support.checks import whole
from simulator.workload import cap_tokens


@dataclass(frozen=True, kw_only=True)
class Change:
    """Something to do differently."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Dotted names of the study's cluster and protocol, and their new values: the queries stay."""
    worker_cap: int | None = None
    """Tokens that a worker may decode; see `simulator.workload.cap_tokens`."""
    longest_first: bool = False
    """Ask the queries with the longest critical paths first: Graham's LPT rule, by an oracle that knows lengths."""

    def __post_init__(self) -> None:
        if self.worker_cap is not None:
            whole("a cap on worker tokens", self.worker_cap, "from 1 to 10^12")


class _Run(NamedTuple):
    makespan: float
    tokens: int
    cut: int


@dataclass(frozen=True, kw_only=True)
class Saving:
    """What a change is worth. Means over replications; both sides saw the same random numbers."""

    change: Change
    makespan: float
    saved: float
    """Time saved; the interval's ends are of the paired difference."""
    low: float
    high: float
    share: float
    """Of the makespan without the change."""
    tokens_cut: float
    """Tokens that are never decoded, as a share of all that traces hold."""
    gpu_time: float
    """GPUs times makespan."""
    why: str = ""
    """Why it could not be run."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StepPlan:
    """A rollout step, and what changes are worth."""

    steps: tuple[RolloutStep, ...]
    """One a replication."""
    gpus: int
    confidence: float
    """Of each interval."""
    savings: tuple[Saving, ...]

    @property
    def makespan(self) -> tuple[float, float, float]:
        """Mean makespan and its interval."""
        return mean_and_interval(np.array([step.makespan for step in self.steps]), self.confidence)

    def tail(self, share: float) -> float:
        """Return the mean straggler share after so many of the queries; see `RolloutStep.tails`."""
        return float(np.mean([step.tails[share] for step in self.steps]))

    @property
    def idle(self) -> Any:
        """Mean idle share of each replica. Shape (replicas,)."""
        return np.mean([step.idle for step in self.steps], axis=0)

    @property
    def batch(self) -> Any:
        """Mean number of sequences in all batches, over slices of the makespan. Shape (slices,)."""
        return np.mean([step.batch for step in self.steps], axis=0)


def changes_of(
    study: Study, *, caps: Sequence[int] = (), capacities: Sequence[int] = (), replicas: Sequence[int] = ()
) -> list[Change]:
    """Return the usual changes to a step: caps on worker tokens, pool capacities, replicas, and longest first.

    >>> from simulator.study import Source
    >>> study = Study(traces={"a": Source(generate="asyncthink_math")}, queries=4)
    >>> [change.name for change in changes_of(study, caps=[256], replicas=[1, 2])]
    ['workers to 256 tokens', 'replicas 2', 'longest first']
    """
    changes = [Change(name=f"workers to {cap} tokens", worker_cap=cap) for cap in caps]
    changes += [
        Change(name=f"{word} {value}", settings={name: value})
        for word, name, values, now in (
            ("capacity", "protocol.capacity", capacities, study.protocol.capacity),
            ("replicas", "cluster.replicas", replicas, study.cluster.replicas),
        )
        for value in values
        if value != now
    ]
    return [*changes, Change(name="longest first", longest_first=True)]


def plan_step(
    study: Study,
    changes: Sequence[Change] = (),
    *,
    replications: int | None = None,
    executor: Executor = Serial(),  # noqa: B008  # it is frozen
) -> StepPlan:
    """Return what a rollout step takes and wastes, and what each change alone would save.

    Parameters
    ----------
    study : Study
        Without axes; all queries arrive together: `queries` prompts, each `samples` times.
    changes : sequence of Change
        See `changes_of`. Each is simulated anew, on the same queries.
    replications : int, optional
        Default: the study's.
    executor : Executor
        Where replications are run.

    Raises
    ------
    ConfigError
        If the study is no step, a change does not fit it, or it cannot be run.

    >>> from simulator.study import Hardware, Source
    >>> study = Study(traces={"a": Source(generate="asyncthink_math")}, queries=8, cluster=Hardware(gpu="rate:100"))
    >>> planned = plan_step(study, changes_of(study, caps=[256]), replications=3)
    >>> planned.savings[0].share > 0.1, planned.savings[0].tokens_cut > 0.1, planned.savings[1].saved
    (True, True, 0.0)
    """
    if study.axes:
        raise ConfigError("the study has axes: a step is planned at one point")
    if study.arrivals.kind != "together":
        raise ConfigError(f"a rollout step asks all queries at once: arrivals kind together, not {study.arrivals.kind}")
    count = study.replications if replications is None else replications
    whole("replications", count, "from 1 to 10000")
    for change in changes:
        for name in change.settings:
            if name.partition(".")[0] not in ("cluster", "protocol"):
                raise ConfigError(f"a change to a step is one of cluster or protocol, on the same queries; got {name}")
        study.at(change.settings)  # refuses what does not fit before anything runs
    warn_of_free_prompts(study)
    found: dict[int, tuple[RolloutStep, list[_Run | str]]] = {}
    for replication, outcome in executor.imap(partial(_replication, study, tuple(changes)), range(count)):
        if isinstance(outcome, Failure):
            raise ConfigError(f"the step cannot be run: {outcome.reason}")
        found[replication] = outcome
    ordered = [found[replication] for replication in range(count)]
    steps = tuple(step for step, _ in ordered)
    gpus = study.cluster.gpus(study.base)
    savings = [
        _saving(study, change, steps, [runs[place] for _, runs in ordered]) for place, change in enumerate(changes)
    ]
    return StepPlan(steps=steps, gpus=gpus, confidence=study.confidence, savings=tuple(savings))


def _replication(study: Study, changes: Sequence[Change], replication: int) -> tuple[RolloutStep, list[_Run | str]]:
    """Simulate one replication of the step, and of every change to it."""
    seed = study.seed_of(replication)
    graphs = compiled(study, seed)
    step = rollout_step(simulate_one(study, seed, graphs))
    return step, [_changed(study, change, seed, graphs) for change in changes]


def _changed(study: Study, change: Change, seed: int, graphs: Sequence[ExecutionGraph]) -> _Run | str:
    changed = study.at(change.settings)
    if changed.protocol.charge_inserted != study.protocol.charge_inserted:  # it is compiled into the graphs
        graphs = compiled(changed, seed)
    before = sum(graph.trace.tokens for graph in graphs)
    if change.worker_cap is not None:
        graphs = _capped(graphs, change.worker_cap)
    if change.longest_first:
        graphs = _longest_first(graphs, study.samples)
    after = sum(graph.trace.tokens for graph in graphs)
    try:
        timeline = simulate_one(changed, seed, graphs)
    except SimulatorError as error:
        return str(error)
    if np.isnan(timeline.answered).any():
        return "queries wait for each other for ever"
    return _Run(timeline.makespan, before, before - after)


def _capped(graphs: Sequence[ExecutionGraph], cap: int) -> list[ExecutionGraph]:
    cut: dict[int, ExecutionGraph] = {}  # a trace may be asked many times
    for graph in graphs:
        if id(graph) not in cut:
            trace = cap_tokens(graph.trace, worker=cap)
            cut[id(graph)] = graph if trace is graph.trace else compile_trace(trace, graph.protocol)
    return [cut.get(id(graph), graph) for graph in graphs]


def _longest_first(graphs: Sequence[ExecutionGraph], samples: int) -> list[ExecutionGraph]:
    """Return the queries by length; groups stay together, and the first of each first: the others share its prompt."""
    length = {id(graph): critical_path(graph).latency for graph in graphs}
    groups = []
    for begin in range(0, len(graphs), samples):
        first, *others = graphs[begin : begin + samples]
        groups.append((first, *sorted(others, key=lambda graph: -length[id(graph)])))
    groups.sort(key=lambda group: -max(length[id(graph)] for graph in group))
    return list(chain.from_iterable(groups))


def _saving(study: Study, change: Change, steps: Sequence[RolloutStep], runs: Sequence[_Run | str]) -> Saving:
    why = next((run for run in runs if isinstance(run, str)), "")
    nan = float("nan")
    if why:
        return Saving(
            change=change, makespan=nan, saved=nan, low=nan, high=nan, share=nan, tokens_cut=nan, gpu_time=nan, why=why
        )
    done = [run for run in runs if isinstance(run, _Run)]
    before = np.array([step.makespan for step in steps])
    after = np.array([run.makespan for run in done])
    saved, low, high = mean_and_interval(before - after, study.confidence)
    tokens = sum(run.tokens for run in done)
    return Saving(
        change=change,
        makespan=float(np.mean(after)),
        saved=saved,
        low=low,
        high=high,
        share=saved / float(np.mean(before)) if np.mean(before) else 0.0,
        tokens_cut=sum(run.cut for run in done) / tokens if tokens else 0.0,
        gpu_time=float(np.mean(after)) * study.at(change.settings).cluster.gpus(study.base),
    )
