"""All threads of a query, ranked by what their speed-up saves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from simulator.engine.simulation import simulate
from simulator.errors import ConfigError, GraphError
from simulator.graph import ExecutionGraph
from simulator.machine.gpu import GPU, Cluster
from simulator.machine.policy import Policy
from simulator.metrics.uncontended import seconds_alone
from simulator.sensitivity.changes import check_scale, what_if
from simulator.sensitivity.paths import Realised, compare
from simulator.sensitivity.slack import slack_table
from simulator.support.checks import choose, is_whole, whole
from simulator.timeline import Timeline
from simulator.trace import ORGANIZER
from simulator.trace.protocol import Protocol
from simulator.workload import ClosedLoop


class _Run(TypedDict, total=False):
    """What is passed on to `simulate`."""

    gpu: GPU | Cluster
    protocol: Protocol | None
    arrivals: Sequence[float] | NDArray[Any] | ClosedLoop | None
    policy: Policy
    max_workers: int | None


class SpeedUp(NamedTuple):
    """What happens if one thread alone takes another time; times in the run's unit."""

    thread: str
    tokens: int
    """Tokens it decodes."""
    slack: float
    """The least total slack of its tasks in closed form, each task alone on the GPU; 0 on the critical path. Infinite
    where the answer does not depend on the thread.
    """
    share: float
    """Share of the latency that the realised critical path spends on its work: prompts, decoding, delays."""
    latency: float
    """Latency with the thread scaled; NaN if the query then runs into a deadlock."""
    saved: float
    """How much earlier the answer comes. Below 0, it comes later: see `docs/planning.md`."""
    saved_at_zero: float
    """Saved if the thread took no time at all. Where nothing ever queues, no speed-up of it saves more."""
    bound: str | None
    """What most of the latency is spent on with the thread scaled: a thread, ``wait_batch`` or ``wait_pool``."""
    moved: float
    """Share of the realised critical path that then lies on tasks or waits that were not on it before."""
    others: float
    """How much earlier, in the mean, the other queries of the run are then answered; 0 if there are none."""
    instead: str | None
    """Why not more is saved: what the path goes through instead if the thread takes no time. None if nothing does."""


@dataclass(frozen=True)
class Sensitivity:
    """The threads of a query, ranked."""

    name: str
    """Of the query."""
    unit: str
    """``steps`` or ``seconds``."""
    scale: float
    """What each thread was scaled by, one at a time."""
    latency: float
    """As it is."""
    bound: str | None
    """What most of it is spent on: a thread, ``wait_batch`` or ``wait_pool``."""
    threads: tuple[SpeedUp, ...]
    """What saves most first (with a scale above 1: what costs most, and before that what then never ends); of equals,
    what would save most at 0, then what is more of the path, then in order."""
    left_out: int = 0
    """Threads that were not looked at; see `most` of `sensitivity`."""

    @property
    def best(self) -> SpeedUp | None:
        """The worker to speed up; None if no worker's speed-up saves anything."""
        return next((each for each in self.threads if each.thread != ORGANIZER and each.saved > 0), None)

    @property
    def worst(self) -> SpeedUp | None:
        """The worker that costs most if it takes as long as `scale` says; None if none then costs anything."""
        slower = [each for each in self.threads if each.thread != ORGANIZER and not each.saved >= 0]
        return min(slower, key=lambda each: -math.inf if math.isnan(each.saved) else each.saved, default=None)

    def columns(self) -> dict[str, list[Any]]:
        """Return the table by columns, one entry a thread.

        >>> from simulator import Answer, Thread, Trace, compile_trace
        >>> sensitivity(compile_trace(Trace("t", (Thread("organizer", (Answer(4),)),)))).columns()["saved"]
        [2.0]
        """
        return {name: [getattr(each, name) for each in self.threads] for name in SpeedUp._fields}


def sensitivity(
    graphs: ExecutionGraph | Iterable[ExecutionGraph],
    *,
    query: int = 0,
    threads: str | Sequence[str] | None = None,
    scale: float = 0.5,
    most: int | None = None,
    **run: Unpack[_Run],
) -> Sensitivity:
    """Change each thread of a query in turn, simulate again, and rank them by what that saves.

    The simulations are exact, not derivatives: the same machine, protocol and arrivals, and of several queries only
    one changes. It takes two simulations a thread: the square of a query's size, unless `most` says how many threads.

    Parameters
    ----------
    graphs : ExecutionGraph or iterable of them
        One per query, as for `simulate`.
    query : int
        The query of which threads are changed, and whose latency it is about.
    threads : str or sequence of str, optional
        Names of the threads to look at. Default: all of the query's.
    scale : float
        What each thread's tokens and seconds are multiplied by; see `what_if`.
    most : int, optional
        Of all threads, look at this many only: those on which the realised critical path spends most time, then those
        with the least slack. Default: all.
    **run
        How to simulate: ``gpu``, ``protocol``, ``arrivals``, ``policy``, ``max_workers``, as for `simulate`.

    Returns
    -------
    Sensitivity

    Raises
    ------
    ConfigError
        If an option is wrong, or the query is never answered.

    Examples
    --------
    Worker 1 is the longer one, but only by 3 steps: more than that its speed-up cannot save, for then worker 2 binds.

    >>> from simulator import Answer, Fork, Join, Return, Thread, Trace, compile_trace
    >>> organizer = Thread("organizer", (Fork(1, 1), Fork(2), Join(1), Join(2), Answer(2)))
    >>> graph = compile_trace(Trace("t", (organizer, Thread("1", (Return(10),)), Thread("2", (Return(7),)))))
    >>> result = sensitivity(graph)
    >>> for each in result.threads:
    ...     print(each.thread, each.slack, each.latency, each.saved, each.saved_at_zero, each.instead)
    1 0 10.0 3.0 3.0 2
    organizer 0 12.0 1.0 3.0 None
    2 3.0 13.0 0.0 0.0 None
    >>> result.best.thread, result.bound, result.best.bound
    ('1', '1', '2')
    """
    for name in run:
        choose(name, _Run.__annotations__, "option of sensitivity()")
    check_scale(scale)
    whole("most", most, "from 1, or None for all")
    queries = (graphs,) if isinstance(graphs, ExecutionGraph) else tuple(graphs)
    if not queries or not all(isinstance(graph, ExecutionGraph) for graph in queries):
        raise GraphError("sensitivity() takes execution graphs (see compile_trace), at least one")
    if not (is_whole(query) and 0 <= query < len(queries)):
        raise ConfigError(f"there is no query {query!r}; there are {len(queries)}, counted from 0")
    graph = queries[query]
    known = [thread.id for thread in graph.threads]
    names = [threads] if isinstance(threads, str) else list(dict.fromkeys(threads or known))
    for name in names:
        choose(name, known, "thread")

    def simulated(other: ExecutionGraph) -> Timeline:
        return simulate([*queries[:query], other, *queries[query + 1 :]], on_deadlock="record", **run)

    before = simulated(graph)
    latency = float(before.latency[query])
    if math.isnan(latency):
        raise ConfigError(f"query {query} is never answered: there is nothing to speed up")
    was = Realised(before, query)
    slack: dict[str, float] = {}
    for row in slack_table(graph, seconds_alone(before, query)):
        slack[row.thread] = min(row.slack, slack.get(row.thread, math.inf))
    left_out = 0
    if most is not None and not threads and most < len(names):
        left_out = len(names) - most
        names = sorted(names, key=lambda name: (-was.times.get(name, 0.0), slack[name]))[:most]
    tokens = dict.fromkeys(known, 0)
    for task in graph.tasks:
        tokens[graph.threads[task.thread].id] += task.tokens
    rows = []
    for name in names:
        after, none = (simulated(what_if(graph, thread=name, scale=each)) for each in (scale, 0.0))
        scaled, removed = (float(timeline.latency[query]) for timeline in (after, none))
        path, last = (
            None if math.isnan(timeline.latency[query]) else Realised(timeline, query) for timeline in (after, none)
        )
        rows.append(
            SpeedUp(
                name,
                tokens[name],
                slack[name],
                was.times.get(name, 0.0) / latency if latency else 0.0,
                scaled,
                latency - scaled,
                latency - removed,
                path.bound if path else None,
                compare(was, path).moved if path else math.nan,
                _mean(np.delete(before.latency - after.latency, query)),
                compare(was, last).instead if last else None,
            )
        )
    rows.sort(key=lambda row: _rank(row, slower=scale > 1))
    return Sensitivity(graph.name, before.unit, scale, latency, was.bound, tuple(rows), left_out)


def _mean(times: NDArray[np.float64]) -> float:
    """Return the mean of those that exist."""
    known = times[~np.isnan(times)]
    return float(known.mean()) if len(known) else 0.0


def _rank(row: SpeedUp, slower: bool) -> tuple[float, float, float]:
    first, *rest = (math.inf if math.isnan(each) else -each for each in (row.saved, row.saved_at_zero, row.share))
    return (-first if slower else first, *rest)  # type: ignore[return-value]
