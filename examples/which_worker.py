"""Which worker would you speed up?

Covers: sensitivity, what_if, load_profile, Protocol.capacity

Three workers. With a slot for each, the longest is worth most. With two slots the third waits for the first that is
done, and now those two, which have slack, are worth more than the longest.
"""

from simulator import (
    Answer,
    Fork,
    Join,
    Protocol,
    Return,
    Think,
    Thread,
    Trace,
    compile_trace,
    load_profile,
    sensitivity,
)

organizer = Thread(
    "organizer",
    (Think(40), Fork(1, 12), Fork(2, 12), Fork(3, 12), Think(30), Join(1), Join(2), Join(3), Answer(60)),
)
workers = (Thread("1", (Return(300),)), Thread("2", (Return(420),)), Thread("3", (Return(260),)))
graph = compile_trace(Trace("search", (organizer, *workers)))

for capacity in (4, 3):
    result = sensitivity(graph, gpu=load_profile("h100-qwen3-8b-database"), protocol=Protocol(capacity=capacity))
    print(f"{capacity - 1} slots: answered after {result.latency:.2f} s")
    print("  thread     slack  half as long  saved  at 0  then it waits for")
    for row in result.threads:
        print(
            f"  {row.thread:9}  {row.slack:5.2f}  {row.latency:12.2f}  {row.saved:5.2f}  {row.saved_at_zero:4.2f}"
            f"  {row.instead or '-'}"
        )
    best = result.best
    print(f"  speed up worker {best.thread}" if best else "  no worker's speed-up helps")
