"""The replicas of a cluster, as they run: who goes where, and what is in memory there.

On one GPU nothing is routed, and nothing here costs more than a call.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from simulator.engine.kv import Holder
from simulator.engine.paged import PagedServer
from simulator.engine.query import Query
from simulator.engine.server import BatchServer, EventClock, Request
from simulator.errors import ConfigError
from simulator.machine.gpu import Cluster
from simulator.timeline import Replica

__all__ = ["Fleet"]


class Fleet:
    """Plays a `Cluster`.

    Parameters
    ----------
    clock : EventClock
    cluster : Cluster
    done, ask, preempted : callable
        See `BatchServer` and `PagedServer`.
    open : dict
        The queries that have arrived and not ended, kept by the caller.
    tracked : bool
        Whether it matters on one GPU too what each thread has computed: where queries share prefixes.
    """

    def __init__(
        self,
        clock: EventClock,
        cluster: Cluster,
        done: Callable[[Request], None],
        ask: Callable[[], None],
        preempted: Callable[[Request], None],
        open: dict[int, Query],
        tracked: bool,
    ) -> None:
        self.cluster = cluster
        self.replicas = len(cluster.replicas)
        self.alone = self.replicas == 1
        self.tracked = tracked or not self.alone
        self.done = done
        self.ask = ask
        self.touched: set[int] = set()  # replicas that must plan anew
        self.loads = [0] * self.replicas
        self.number = 0
        self.servers: list[BatchServer] = []
        for index, gpu in enumerate(cluster.replicas):
            notify = ask if self.alone else self._asker(index)
            finished = self._finished if self.tracked else done
            if gpu.num_kv_blocks is None:
                server: BatchServer = BatchServer(clock, gpu, finished, notify)
                server.find = self._find if self.tracked else None
            else:
                server = PagedServer(clock, gpu, finished, notify, preempted)
            self.servers.append(server)
        first = self.servers[0]
        self.plan: Callable[[], None] = first.plan if self.alone else self._plan_touched
        """Start the next steps, wherever something has changed; in order of the replicas."""
        first.stored = lambda: sum(query.stored(first.step) for query in open.values())
        self.query = self.thread = self.task = 0
        self._request: Request | None = None

    def _asker(self, index: int) -> Callable[[], None]:
        def ask() -> None:
            self.touched.add(index)
            self.ask()

        return ask

    def submit(self, request: Request) -> None:
        """Put a request into the queue of the replica that it is for."""
        replica = 0 if self.alone else self._route(request)
        request.replica = replica
        self.loads[replica] += 1
        server = self.servers[replica]
        if isinstance(server, PagedServer):
            if not request.total:  # nothing is decoded from nothing: an engine begins with a token of its own
                request.prefill = request.total = 1
                request.owner.context[request.thread] += 1
            request.holder = self._settle(request, replica)
        server.submit(request)

    def keep(self, request: Request) -> None:
        """Let a thread go on in the place that it has just left."""
        query: Query = request.owner
        request.replica = replica = 0 if self.alone else query.place[query.home(request.thread)]
        self.loads[replica] += 1
        server = self.servers[replica]
        if isinstance(server, PagedServer):
            request.holder = self._settle(request, replica)
        server.keep(request)
        self.touched.add(replica)

    def cancel(self, request: Request) -> None:
        """Take a request out at the next step boundary of its replica."""
        self.servers[request.replica].cancel(request)
        self.touched.add(request.replica)

    def _plan_touched(self) -> None:
        touched = self.touched
        if len(touched) == 1:  # as mostly
            self.servers[touched.pop()].plan()
            return
        for replica in sorted(touched):
            self.servers[replica].plan()
        touched.clear()

    def record(self) -> tuple[Replica, ...]:
        """Return what each replica did."""
        return tuple(
            Replica(server.gpu, np.frombuffer(server.log, dtype=np.float64).reshape(-1, 2), server.busy, server.step)
            for server in self.servers
        )

    def _finished(self, request: Request) -> None:
        self.loads[request.replica] -= 1
        self.done(request)
        query: Query = request.owner
        home = query.home(request.thread)
        query.place[home] = request.replica
        if request.holder is None:  # where memory is modelled, its holder knows
            query.computed[home, request.replica] = query.context[request.thread]

    # What a routing function sees: see `simulator.machine.routing.Choice`.

    def _route(self, request: Request) -> int:
        self._request = request
        self.query, self.thread, self.task = request.owner.index, request.thread, request.task
        replica = self.cluster.routing(self)
        if isinstance(replica, bool) or not isinstance(replica, int) or not 0 <= replica < self.replicas:
            raise ConfigError(f"routing must return a replica from 0 to {self.replicas - 1}; got {replica!r}")
        self.number += 1
        self.touched.add(replica)
        return replica

    def load(self, replica: int) -> int:
        """See `Choice.load`."""
        return self.loads[replica]

    def held(self, replica: int) -> int:
        """See `Choice.held`."""
        request, server = self._request, self.servers[replica]
        assert request is not None
        if isinstance(server, PagedServer):
            return server.held(self._holder(request.owner, request.thread, replica), request.total)
        return min(self._known(request.owner, request.thread, replica), request.context)

    # What is in memory.

    def _find(self, request: Request) -> None:
        """Settle how much of its context a request need not process, where memory never runs out."""
        query: Query = request.owner
        if not self.alone or query.begins_with_prefix(request.thread):
            request.context = min(self._known(query, request.thread, request.replica), request.context)
            request.prefill = request.total - request.context

    def _known(self, query: Query, thread: int, replica: int) -> int:
        """Return how many tokens of a thread's context were computed on a replica whose memory never runs out."""
        known, most = 0, 1 << 60
        at: Query | None = query
        while at is not None and most > known:
            thread = at.home(thread)
            known = max(known, min(most, at.computed.get((thread, replica), 0)))
            most = min(most, at.graph.threads[thread].shared)
            if not thread and at.graph.prefix_of is None:  # shared with nobody who is here: somebody has done it
                known = max(known, most)
            at, thread = at.above(thread)
        return known

    def _settle(self, request: Request, replica: int) -> Holder:
        """Return the KV of a request's thread on the replica that it is on."""
        query: Query = request.owner
        key = (query.home(request.thread), replica)
        holder = query.holders.get(key)
        if holder is None:
            holder = query.holders[key] = self._holder(query, request.thread, replica)
        return holder

    def _holder(self, query: Query, thread: int, replica: int) -> Holder:
        """Return a thread's KV on a replica, or what it would be if the thread came there now.

        Its prefix is that of the nearest of its ancestors that has come there before.
        """
        home = query.home(thread)
        if (home, replica) in query.holders:
            return query.holders[home, replica]
        shared = query.graph.threads[home].shared
        at, above = query.above(home)
        while at is not None:
            above = at.home(above)
            if (above, replica) in at.holders:
                return Holder(at.holders[above, replica], shared)
            shared = min(shared, at.graph.threads[above].shared)
            at, above = at.above(above)
        return Holder(None, 0)
