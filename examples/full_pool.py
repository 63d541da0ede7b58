"""A full pool: what a runtime can do with a Fork that finds no slot.

Covers: Protocol.when_full, simulate, spans

Three workers are forked, but the pool holds the organizer and one worker. A column is a decode step: # decodes,
- waits for a worker, : waits for a slot. What an organizer does inline is drawn in the worker's lane.
"""

from simulator import Answer, Fork, Join, Protocol, Return, SpanKind, Think, Thread, Trace, compile_trace, simulate
from simulator.trace.protocol import WHEN_FULL

MARKS = {SpanKind.DECODE: "#", SpanKind.WAIT_JOIN: "-", SpanKind.WAIT_POOL: ":"}

organizer = Thread(
    "organizer",
    (Fork(1, 2), Fork(2, 2), Fork(3, 2), Think(6), Join(1, 1), Join(2, 1), Join(3, 1), Answer(3)),
)
workers = tuple(Thread(str(i), (Return(8),)) for i in (1, 2, 3))
trace = Trace("three workers", (organizer, *workers))


def lanes(timeline):
    """Return one line of text a thread."""
    graph = timeline.graphs[0]
    rows = [[" "] * int(timeline.makespan) for _ in graph.threads]
    for span in timeline.spans():
        start, finish = int(span.start), int(span.finish)
        rows[span.thread][start:finish] = MARKS[span.kind] * (finish - start)
    return [f"  {name:9} {''.join(row).rstrip()}".rstrip() for (name, *_), row in zip(graph.threads, rows, strict=True)]


for when_full in WHEN_FULL:
    timeline = simulate(compile_trace(trace, Protocol(capacity=2, when_full=when_full)))
    tokens = timeline.column("tokens").sum()
    print(f"{when_full}: {timeline.latency[0]:.0f} steps, {tokens} tokens, {timeline.overflows[0]} overflows")
    print("\n".join(lanes(timeline)), end="\n\n")
