"""Which replica of a cluster a request goes to.

A routing function gets a `Choice` and returns a replica, counted from 0. It is asked once a request: for each task that
decodes, unless its thread goes on in the place that it has. It has no state of its own; what it may know is in the
`Choice`.
"""

from __future__ import annotations

import typing
from collections.abc import Callable


class Choice(typing.Protocol):
    """One request, and the replicas it may go to."""

    replicas: int
    """How many there are."""
    number: int
    """Requests that were routed before this one."""
    query: int
    thread: int
    """Index into the threads of the query's graph."""
    task: int

    def load(self, replica: int) -> int:
        """Return how many requests wait there or are in the batch."""
        ...

    def cached(self, replica: int) -> int:
        """Return how many tokens of the request's context it need not process, if admitted there now."""
        ...


Routing = Callable[[Choice], int]
"""A function that says which replica takes a task."""


def round_robin(choice: Choice) -> int:
    """One after the other."""
    return choice.number % choice.replicas


def least_loaded(choice: Choice) -> int:
    """Where the fewest requests wait or run; the first of several."""
    return min(range(choice.replicas), key=choice.load)


def prefix_affinity(choice: Choice) -> int:
    """Where most of the context is in KV memory: a query's threads stay together. Of several, the least loaded."""
    return min(range(choice.replicas), key=lambda replica: (-choice.cached(replica), choice.load(replica)))


ROUTINGS: dict[str, Routing] = {
    "round-robin": round_robin,
    "least-loaded": least_loaded,
    "prefix-affinity": prefix_affinity,
}
"""The routings by name."""
