"""The station of GPUs: the replicas of a cluster, as they run. Who goes where, and what is in memory there.

On one GPU nothing is routed, and nothing here costs more than a call.
"""

from __future__ import annotations

from array import array
from functools import partial

import numpy as np
import numpy.typing as npt

from simulator.engine.clock import EventClock
from simulator.engine.kv import Holder
from simulator.engine.paged import PagedServer
from simulator.engine.query import Request, ThreadRun
from simulator.engine.server import BatchServer, Calls, Settings
from simulator.errors import ConfigError
from simulator.machine.gpu import Cluster
from simulator.timeline import Replica


class Fleet:
    """Plays a `Cluster`: a `Station`, and what a routing sees (`simulator.machine.routing.Choice`)."""

    def __init__(self, clock: EventClock, cluster: Cluster, calls: Calls, settings: Settings) -> None:
        self.cluster = cluster
        self.replicas = len(cluster.replicas)
        self.alone = self.replicas == 1
        self.calls = calls
        self.touched: set[int] = set()  # replicas that must plan anew
        self.loads = [0] * self.replicas
        self.number = 0
        self.servers: list[BatchServer] = []
        if settings.tracked or not self.alone:
            calls = calls._replace(done=self._finished, find=self._find)
        for index, gpu in enumerate(cluster.replicas):
            own = calls if self.alone else calls._replace(ask=partial(self._ask, index))
            if gpu.num_kv_blocks is None:
                self.servers.append(BatchServer(clock, gpu, own, settings, index))
            else:
                self.servers.append(PagedServer(clock, gpu, own._replace(find=None), settings, index))
        self.query = self.thread = self.task = 0
        self._request: Request | None = None

    def _ask(self, replica: int) -> None:
        self.touched.add(replica)
        self.calls.ask()

    def submit(self, work: Request) -> None:
        """Put a request into the queue of the replica that it is for."""
        replica = 0 if self.alone else self._route(work)
        work.replica = replica
        self.loads[replica] += 1
        server = self.servers[replica]
        if isinstance(server, PagedServer):
            if not work.total:  # nothing is decoded from nothing: an engine begins with a token of its own
                work.prefill = work.total = 1
                work.thread.context += 1
            work.holder = self._settle(work.thread, replica)
        server.submit(work)

    def keep(self, work: Request) -> None:
        """Let a thread go on in the place that it has just left."""
        thread = work.thread
        work.replica = replica = 0 if self.alone else (thread.home or thread).replica
        self.loads[replica] += 1
        server = self.servers[replica]
        if isinstance(server, PagedServer):
            work.holder = self._settle(thread, replica)
        server.keep(work)
        self.touched.add(replica)

    def cancel(self, work: Request) -> None:
        """Take a request out at the next step boundary of its replica."""
        self.servers[work.replica].cancel(work)
        self.touched.add(work.replica)

    def plan(self) -> None:
        """Start the next steps, wherever something has changed; in order of the replicas."""
        if self.alone:
            self.servers[0].plan()
            return
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
            Replica(server.gpu, _pairs(server.log), _pairs(server.kv_log), server.busy, server.step)
            for server in self.servers
        )

    def _finished(self, request: Request) -> None:
        self.loads[request.replica] -= 1
        self.calls.done(request)
        thread = request.thread
        home = thread.home or thread
        home.replica = request.replica
        if not isinstance(self.servers[request.replica], PagedServer):  # where memory is modelled, its holder knows
            if home.computed:
                home.computed[request.replica] = thread.context
            else:
                home.computed = {request.replica: thread.context}

    # What a routing function sees.

    def _route(self, request: Request) -> int:
        self._request = request
        (self.query, self.thread), self.task = request.thread.order, request.task
        routing = self.cluster.routing
        assert not isinstance(routing, str)  # a name is a function since the cluster was made
        replica = routing(self)
        if isinstance(replica, bool) or not isinstance(replica, int) or not 0 <= replica < self.replicas:
            raise ConfigError(f"routing must return a replica from 0 to {self.replicas - 1}; got {replica!r}")
        self.number += 1
        self.touched.add(replica)
        return replica

    def load(self, replica: int) -> int:
        """See `Choice.load`."""
        return self.loads[replica]

    def cached(self, replica: int) -> int:
        """See `Choice.cached`."""
        request, server = self._request, self.servers[replica]
        assert request is not None
        if isinstance(server, PagedServer):
            return server.cached(self._holder(request.thread, replica), request.total)
        return min(self._known(request.thread, replica), request.context)

    # What is in memory.

    def _find(self, request: Request) -> None:
        """Settle how much of its context a request need not process, where memory never runs out."""
        home = request.thread.home or request.thread
        # One GPU alone has all but the prefix of another query, which an organizer's first request may begin with.
        if not self.alone or (home.number == 0 and home.replica < 0 and home.query.graph.prefix_of is not None):
            request.context = min(self._known(home, request.replica), request.context)
            request.prefill = request.total - request.context

    def _known(self, thread: ThreadRun, replica: int) -> int:
        """Return how many tokens of a thread's context were computed on a replica whose memory never runs out."""
        known, most = 0, 1 << 60
        at: ThreadRun | None = thread
        while at is not None and most > known:
            at = at.home or at
            known = max(known, min(most, at.computed.get(replica, 0)))
            most = min(most, at.spec.shared)
            if not at.number and at.query.graph.prefix_of is None:
                known = max(known, most)  # shared with nobody who is here: somebody has done it
            at = at.above
        return known

    def _settle(self, thread: ThreadRun, replica: int) -> Holder:
        """Return the KV of a thread on the replica that it is on."""
        home = thread.home or thread
        holder = home.holders.get(replica)
        if holder is None:
            holder = self._holder(home, replica)
            if home.holders:
                home.holders[replica] = holder
            else:
                home.holders = {replica: holder}
        return holder

    def _holder(self, thread: ThreadRun, replica: int) -> Holder:
        """Return a thread's KV on a replica, or what it would be if the thread came there now.

        Its prefix is that of the nearest of its ancestors that has come there before.
        """
        home = thread.home or thread
        if replica in home.holders:
            return home.holders[replica]
        shared, above = home.spec.shared, home.above
        while above is not None:
            above = above.home or above
            if replica in above.holders:
                return Holder(above.holders[replica], shared)
            shared, above = min(shared, above.spec.shared), above.above
        return Holder(None, 0)


def _pairs(log: array[float]) -> npt.NDArray[np.float64]:
    return np.frombuffer(log, dtype=np.float64).reshape(-1, 2)
