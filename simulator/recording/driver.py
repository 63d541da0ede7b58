"""The loop that drives a session: arrivals, time, events, and a valid end whatever happens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from simulator.errors import ConfigError
from simulator.recording.engine import Engine
from simulator.recording.free import Prompts, Question, free
from simulator.recording.script import scripted
from simulator.recording.session import Session, Watcher
from simulator.support.checks import whole
from simulator.trace import Trace
from simulator.trace.protocol import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How a run is played.

    >>> Setup(users=4).protocol.when_full
    'queue'
    """

    protocol: Protocol = field(default_factory=Protocol)
    """Pool capacity of a query, and what becomes of a Fork on a full pool."""
    users: int = 1
    """Queries open at once at most, where no arrivals are given."""
    max_workers: int | None = None
    """Workers that may run at once over all queries of the run; more wait, first come first served."""
    timeout: float = 600.0
    """Seconds from its arrival after which a query is ended as it stands."""
    prompts: Prompts = field(default_factory=Prompts)
    """For questions; a trace needs none."""
    run: str = "run"
    """Name of the run: `meta["run"]` of its traces."""
    meta: dict[str, str | int | float | bool | None] = field(default_factory=dict)
    """What else `Trace.meta` is to say."""
    on_generation: Watcher | None = None

    def __post_init__(self) -> None:
        whole("users", self.users)
        if self.max_workers is not None:
            whole("max_workers", self.max_workers)
        if not 0 < self.timeout <= 1e9:
            raise ConfigError(f"timeout must be above 0 and at most 10^9 seconds, got {self.timeout!r}")


def record(
    queries: Sequence[Trace | Question],
    engine: Engine,
    emit: Callable[[Trace], None],
    setup: Setup | None = None,
    *,
    arrivals: Sequence[float] | None = None,
) -> None:
    """Play queries on an engine, at once as far as they are open at once, and emit a trace of each.

    Parameters
    ----------
    queries : sequence of Trace or Question
        A trace is played as it is (scripted): its structure and token counts, with tokens that mean nothing. A question
        is put to the model, which writes the tags itself (free).
    engine : Engine
        A `simulator.recording.server.ServerEngine` or a `simulator.recording.llamacpp.LlamaEngine`.
    emit : callable
        Is handed each trace as soon as its query is over, however it ended: `Trace.meta` says how (``ended``).
    setup : Setup, optional
    arrivals : sequence of float, optional
        When each query arrives, in seconds from the start, in order. Without, a query arrives when another is over.

    Raises
    ------
    ConfigError
        If the arrivals make no sense.
    BaseException
        What interrupts the run is raised again, after all open queries have been emitted as they stood.
    """
    setup = setup or Setup()
    if arrivals is not None:
        if len(arrivals) != len(queries):
            raise ConfigError(f"{len(queries)} queries need as many arrivals, got {len(arrivals)}")
        if not all(math.isfinite(time) and 0 <= time <= 1e9 for time in arrivals) or any(
            arrivals[i] > arrivals[i + 1] for i in range(len(arrivals) - 1)
        ):
            raise ConfigError("arrivals must be seconds from 0 to 10^9 in order")
    if len({isinstance(query, Question) for query in queries}) > 1:
        raise ConfigError("a run is of questions or of traces, not of both")
    engine.reset(bool(queries) and isinstance(queries[0], Question))
    session = Session(
        engine,
        setup.protocol,
        emit,
        max_workers=setup.max_workers,
        timeout=setup.timeout,
        on_generation=setup.on_generation,
    )
    coming = _Coming(queries, setup, arrivals, {**engine.description, **setup.meta})
    try:
        _drive(session, engine, coming)
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        session.abort("interrupted" if interrupted else "error", None if interrupted else f"{error}")
        raise


def _drive(session: Session, engine: Engine, coming: _Coming) -> None:
    while coming.left or session.open:
        now = engine.now()
        session.advance(now)
        for begin in coming.due(now, len(session.open)):
            begin(session)
        if session.stuck and coming.next_time is None:
            session.abort("deadlock", "its threads wait for each other")
            continue
        times = [time for time in (session.next_time(), coming.next_time) if time is not None]
        if not session.open and not times:
            continue
        session.handle(engine.poll(min(times, default=None)))


class _Coming:
    """The queries that have not arrived yet."""

    def __init__(
        self,
        queries: Sequence[Trace | Question],
        setup: Setup,
        arrivals: Sequence[float] | None,
        meta: dict[str, Any],
    ) -> None:
        self.queries = queries
        self.setup = setup
        self.arrivals = arrivals
        self.meta = meta
        self.at = 0

    @property
    def left(self) -> int:
        return len(self.queries) - self.at

    @property
    def next_time(self) -> float | None:
        """When the next one arrives, if that is a matter of time."""
        return self.arrivals[self.at] if self.arrivals is not None and self.left else None

    def due(self, now: float, open: int) -> Iterator[Callable[[Session], None]]:
        """Yield what begins each query that arrives now."""
        while self.left:
            if self.arrivals is None:
                if open >= self.setup.users:
                    return
                arrival = now
            else:
                arrival = self.arrivals[self.at]
                if arrival > now:
                    return
            number, self.at = self.at, self.at + 1
            open += 1
            yield lambda session, n=number, t=arrival: self._begin(session, n, t)  # type: ignore[misc]

    def _begin(self, session: Session, number: int, arrival: float) -> None:
        query = self.queries[number]
        own = dict(query.meta) if isinstance(query, Trace) else {}
        meta = own | self.meta
        meta |= {"run": self.setup.run, "query": number, "queries": len(self.queries)}
        meta["mode"] = "free" if isinstance(query, Question) else "scripted"
        if self.setup.max_workers is not None:
            meta["max_workers"] = self.setup.max_workers
        if isinstance(query, Question):
            make = free(session, query.text, self.setup.prompts)
        else:
            make = scripted(session, query)
        session.begin(query.id, make, arrival, meta)
