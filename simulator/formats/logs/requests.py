"""What a query asks of a serving engine: one request for each of its tasks that decodes.

An engine knows requests and when they may come, not threads and Joins. A request here depends on those requests that
must have been completed before it, each with the seconds that must pass in between. Tasks without tokens and Delays are
no requests; what they wait for is passed on to the requests after them.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.errors import FormatError
from simulator.graph import ExecutionGraph

_ARRIVAL = -1
MAX_BLOCKS = 2**20
"""The most blocks a request may have."""
MAX_ALL_BLOCKS = 2**22
"""The most blocks that the requests of a query may name in all: each names its whole context."""


def most_dependencies(requests: int) -> int:
    """Return how many dependencies so many requests may have in all.

    Where tasks without tokens stand between many requests and many others, each waits for each: the square of what a
    trace, or a file, says of them.
    """
    return 64 * requests + 65_536


@dataclass(slots=True)
class Dependency:
    """`request` (its index in the list) is completed, and then `seconds` pass."""

    request: int
    seconds: float
    relation: str
    """``sequence``: of the same thread, the one before; ``spawn``: of the thread's parent or an ancestor; ``join``."""


@dataclass(slots=True)
class LoggedRequest:
    """One stay of a thread on the engine."""

    thread: int
    index: int
    """Which request of its thread, from 0."""
    input_length: int
    """The thread's whole context."""
    blocks: list[int]
    """Ids of the blocks of the context; equal ids are equal tokens behind equal prefixes."""
    output_length: int
    wait: float
    """Seconds after the query's arrival before which it does not come."""
    dependencies: list[Dependency]


def requests(graph: ExecutionGraph, block_size: int, first_block: int = 0) -> list[LoggedRequest]:
    """Return the requests of a query, by thread and in each thread's order.

    Parameters
    ----------
    graph : ExecutionGraph
    block_size : int
        Tokens in a block. Threads share the blocks that lie wholly within a shared prefix.
    first_block : int
        Ids of blocks count up from here.

    Raises
    ------
    FormatError
        If the query decodes nothing, ends with a Delay, or has more blocks or dependencies than may be written.

    >>> from simulator import Answer, Fork, Join, Return, Think, Thread, Trace, compile_trace
    >>> organizer = Thread("organizer", (Think(28), Fork(1), Think(5), Join(1, 0, 4), Answer(2)), 100)
    >>> worker = Thread("1", (Return(9),), 130, 128)
    >>> for request in requests(compile_trace(Trace("t", (organizer, worker))), 64):
    ...     print(request.input_length, request.output_length, request.blocks)
    100 28 [0, 1]
    128 5 [0, 1]
    137 2 [0, 1, 3]
    130 9 [0, 1, 2]
    """
    waits = _waits(graph)
    end = graph.tasks[graph.answer]
    if end.seconds or (not end.tokens and any(waits[graph.answer].values())):
        raise FormatError(f"trace {graph.name!r} ends with a Delay, and no request is left to wait for it")
    contexts = _Contexts(graph, block_size, first_block)
    decoding = [task for task in range(len(graph)) if graph.tasks[task].tokens]
    if not decoding:
        raise FormatError(f"trace {graph.name!r} decodes nothing, and so makes no request")
    # In topological order, so that ids are given out from the trunk to the branches.
    contents = {task: contexts.read(task) for task in decoding}
    decoding.sort(key=lambda task: (graph.tasks[task].thread, task))
    number = {task: i for i, task in enumerate(decoding)}
    result: list[LoggedRequest] = []
    for task in decoding:
        thread = graph.tasks[task].thread
        index = result[-1].index + 1 if result and result[-1].thread == thread else 0
        previous = len(result) - 1 if index else -1
        before = [
            Dependency(number[source], seconds, _relation(graph, source, thread, number[source] == previous))
            for source, seconds in waits[task].items()
            if source != _ARRIVAL
        ]
        before.sort(key=lambda each: (each.relation != "sequence", each.request))
        wait = waits[task].get(_ARRIVAL, 0.0)
        result.append(LoggedRequest(thread, index, *contents[task], wait, before))
    return result


def _waits(graph: ExecutionGraph) -> list[dict[int, float]]:
    """Return what each task waits for: tasks that decode, or the arrival, and the seconds after them."""
    waits: list[dict[int, float]] = [{} for _ in graph.tasks]
    waits[0][_ARRIVAL] = 0.0
    seen, known, most = -1, 0, most_dependencies(len(graph))
    for source, target, _ in graph.edges():  # by source, in topological order: what a source waits for is complete
        while seen < source:
            seen += 1
            _forget_arrival(waits[seen])
        task = graph.tasks[source]
        after = {source: 0.0} if task.tokens else waits[source]
        known += len(after)
        if known > most:
            raise FormatError(
                f"trace {graph.name!r}: its {len(graph):,} tasks wait for each other in more than {most:,} ways, as"
                " nothing is decoded in between"
            )
        for request, seconds in after.items():
            waits[target][request] = max(waits[target].get(request, 0.0), seconds + task.seconds)
    for each in waits[seen + 1 :]:
        _forget_arrival(each)
    return waits


def _forget_arrival(waits: dict[int, float]) -> None:
    """Drop the arrival where something later is waited for as long."""
    since = waits.get(_ARRIVAL)
    if since is not None and any(seconds >= since for request, seconds in waits.items() if request != _ARRIVAL):
        del waits[_ARRIVAL]


def _relation(graph: ExecutionGraph, source: int, thread: int, previous: bool) -> str:
    if previous:
        return "sequence"
    of = graph.tasks[source].thread
    above = graph.threads[thread].parent
    while above >= 0 and above != of:
        above = graph.threads[above].parent
    return "spawn" if above == of else "join"


class _Contexts:
    """The context of each thread, and the ids of its blocks."""

    def __init__(self, graph: ExecutionGraph, block_size: int, first_block: int) -> None:
        self.graph = graph
        self.block_size = block_size
        self.next = first_block
        self.named = 0
        self.length = [-1] * len(graph.threads)
        self.blocks: list[list[int]] = [[] for _ in graph.threads]

    def read(self, task: int) -> tuple[int, list[int], int]:
        """Return the length and the blocks of the context that `task` decodes behind, and what it decodes."""
        thread, tokens, prefill = self.graph.tasks[task][:3]
        if self.length[thread] < 0:
            # Nothing is decoded from nothing: an empty context is given one token.
            self.length[thread] = self.graph.threads[thread].shared or int(not prefill)
        length = self.length[thread] + prefill
        self.length[thread] = length + tokens
        n = -(-length // self.block_size)
        if n > MAX_BLOCKS:
            raise FormatError(
                f"trace {self.graph.name!r}: a context of {length} tokens is {n} blocks of {self.block_size}; at most"
                f" {MAX_BLOCKS} are written"
            )
        self.named += n
        if self.named > MAX_ALL_BLOCKS:
            raise FormatError(
                f"trace {self.graph.name!r}: its requests name more than {MAX_ALL_BLOCKS:,} blocks of {self.block_size}"
                " tokens; larger blocks are fewer"
            )
        return length, self._up_to(thread, n)[:n], tokens

    def _up_to(self, thread: int, n: int) -> list[int]:
        """Return the ids of at least `n` blocks of a thread. Blocks come into being when they are first spoken of."""
        blocks = self.blocks[thread]
        parent = self.graph.threads[thread].parent
        shared = min(n, self.graph.threads[thread].shared // self.block_size) if parent >= 0 else 0
        if len(blocks) < shared:
            blocks += self._up_to(parent, shared)[len(blocks) : shared]
        new = max(0, n - len(blocks))
        blocks += range(self.next, self.next + new)
        self.next += new
        return blocks
