"""Where the time of a query went: as it was recorded, and as it is simulated, in the same classes."""

from __future__ import annotations

from simulator.errors import TraceError
from simulator.graph import ExecutionGraph
from simulator.timeline import CANCELLED, Timeline
from simulator.trace import ORGANIZER, Answer, Delay, Fork, Join, Return, Trace, child_id

CLASSES = ("decode", "prefill+decode", "wait_join", "wait_batch+wait_pool")
"""What the recorded times of actions can tell apart. An action that had a prompt to process began with it, and no time
says where its decoding began. A wait for a place in the batch and one for a slot look the same from outside."""


def recorded_latency(trace: Trace) -> float:
    """Return the seconds from a query's arrival to the end of the organizer's last action.

    Raises
    ------
    TraceError
        If the times were not recorded.

    >>> from simulator import Answer, Thread, Trace
    >>> recorded_latency(Trace("t", (Thread("organizer", (Answer(4, start=1.0, finish=3.5),)),), arrival=0.5))
    3.0
    """
    ends = [action.finish for action in trace.organizer.actions if action.finish is not None]
    if not ends or not any(isinstance(action, Answer) for action in trace.organizer.actions):
        raise TraceError(f"trace {trace.id!r}: no recorded answer: its Answer needs a finish, in seconds")
    latency = ends[-1] - arrival(trace)
    if not latency > 0:
        raise TraceError(f"trace {trace.id!r}: the answer is recorded {latency:g} seconds after the arrival")
    return latency


def arrival(trace: Trace) -> float:
    """Return the recorded arrival; where there is none, the start of the first action."""
    if trace.arrival is not None:
        return trace.arrival
    starts = [action.start for action in trace.organizer.actions if action.start is not None]
    return starts[0] if starts else 0.0


def recorded_times(trace: Trace, graph: ExecutionGraph) -> dict[str, float]:
    """Return the recorded seconds of all threads, by class.

    Raises
    ------
    TraceError
        If an action has no recorded times, or they go backwards.
    """
    sums = dict.fromkeys(CLASSES, 0.0)
    threads = {thread.id: thread for thread in trace.threads}
    began = {ORGANIZER: arrival(trace)}
    reading = {
        (task.thread, place)
        for task in graph.tasks
        if task.prefill
        for place in range(task.actions[0], task.actions[1])
    }
    for number, (name, *_) in enumerate(graph.threads):
        now = began.get(name)
        for place, action in enumerate(threads[name].actions):
            start, finish = action.start, action.finish
            if start is None or finish is None or not start <= finish:
                raise TraceError(f"trace {trace.id!r}: thread {name}, action {place}: no recorded start and finish")
            if isinstance(action, Fork):
                began.setdefault(child_id(name, action.index), finish)
            if isinstance(action, Join):
                sums["wait_join"] += finish - start
            elif not isinstance(action, Delay) and action.tokens:
                sums["wait_batch+wait_pool"] += 0.0 if now is None else max(start - now, 0.0)
                sums["prefill+decode" if (number, place) in reading else "decode"] += finish - start
            now = finish
            if isinstance(action, Answer if name == ORGANIZER else Return):
                break
    return sums


def simulated_times(timeline: Timeline, query: int) -> dict[str, float]:
    """Return the simulated seconds of all threads of a query, by class.

    >>> from simulator import Answer, Fork, Join, Return, Think, Thread, Trace, compile_trace, simulate
    >>> organizer = Thread("organizer", (Think(5), Fork(1), Think(3), Join(1), Answer(2)))
    >>> timeline = simulate(compile_trace(Trace("t", (organizer, Thread("1", (Return(10),))))))
    >>> simulated_times(timeline, 0)
    {'decode': 20.0, 'prefill+decode': 0.0, 'wait_join': 7.0, 'wait_batch+wait_pool': 0.0}
    """
    sums = dict.fromkeys(CLASSES, 0.0)
    tasks = timeline.graphs[query].tasks
    for row in timeline.stays(query):
        task = tasks[row.task]
        if row.flags & CANCELLED or task.seconds:
            continue
        sums["prefill+decode" if task.prefill else "decode"] += row.finish - row.start
        sums["wait_join"] += row.ready - row.granted
        sums["wait_batch+wait_pool"] += row.granted - row.waited_from + row.start - row.ready
    return sums
