"""Groups: several traces of one prompt, as a rollout step of RL has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from simulator.support.checks import whole
from simulator.trace import Thread, Trace


def grouped(traces: Iterable[Trace], samples: int) -> Iterator[Trace]:
    """Yield traces in groups of `samples` that share the prompt of the group's first.

    For generated traces, whose threads all begin with the query. Every later trace of a group gets the first one's
    query in place of its own, and says with `Trace.prefix_of` that its KV may be there already.

    >>> from simulator.workload import generate
    >>> first, second = grouped(generate("batch", 2, seed=1), 2)
    >>> first.organizer.prompt_tokens == second.organizer.prompt_tokens == second.organizer.shared_tokens
    True
    >>> second.prefix_of == first.id
    True
    """
    whole("samples", samples, "from 1 to 1,000,000")
    first: Trace | None = None
    for index, trace in enumerate(traces):
        if index % samples == 0:
            first = trace
            yield trace
        elif first is not None:
            yield _with_query(trace, first)


def _with_query(trace: Trace, first: Trace) -> Trace:
    query = first.organizer.prompt_tokens
    change = query - trace.organizer.prompt_tokens
    threads = [
        msgspec.structs.replace(
            thread,
            prompt_tokens=thread.prompt_tokens + change,
            shared_tokens=thread.shared_tokens + change if index else query,
        )
        for index, thread in enumerate(trace.threads)
    ]
    return msgspec.structs.replace(trace, threads=tuple[Thread, ...](threads), prefix_of=first.id)
