"""Deadlock: nested Forks on a full pool can wait for each other for ever.

Covers: DeadlockError, on_deadlock="record", Protocol.when_full

Two workers hold the only two slots. Each forks a worker of its own and waits to join it, but a slot comes free only
when one of the two returns.
"""

from simulator import Answer, DeadlockError, Fork, Join, Protocol, Return, Think, Thread, Trace, compile_trace, simulate

organizer = Thread("organizer", (Fork(1, 1), Fork(2, 1), Join(1, 1), Join(2, 1), Answer(1)))
outer = [Thread(name, (Think(4), Fork(1, 1), Join(1, 1), Return(2))) for name in ("1", "2")]
inner = [Thread(name, (Return(5),)) for name in ("1.1", "2.1")]
graph = compile_trace(Trace("nested", (organizer, *outer, *inner)))

print("A pool of 3:")
try:
    simulate(graph, protocol=Protocol(capacity=3))
except DeadlockError as error:
    print(f"  {error}")

print("The same, recorded instead of raised:")
timeline = simulate(graph, protocol=Protocol(capacity=3), on_deadlock="record")
for link in timeline.deadlocks[0].cycle:
    print(f"  {link}")
print(f"  answered at {timeline.answered[0]}; until then {len(timeline.rows)} tasks ran")

print("Ways out:")
for protocol in (
    Protocol(capacity=4),
    Protocol(capacity=3, when_full="inline"),
    Protocol(capacity=3, when_full="allow"),
):
    print(f"  {protocol}: answered at {simulate(graph, protocol=protocol).answered[0]:.0f}")
