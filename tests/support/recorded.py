"""Records of runs that never ran: a simulation's times, written into its traces."""

import msgspec

from simulator import compile_trace, simulate
from simulator.trace import Fork, Join


def record(traces, gpu, arrivals, meta=None, max_workers=None, protocol=None):
    """Return `traces` with the times that a simulation gives them, as a recorder would write them."""
    graphs = [compile_trace(trace, protocol) for trace in traces]
    timeline = simulate(graphs, gpu=gpu, arrivals=arrivals, max_workers=max_workers, protocol=protocol)
    limits = {} if max_workers is None else {"max_workers": max_workers}
    return [
        _stamped(trace, timeline, query, (meta or {}) | limits | {"query": query}) for query, trace in enumerate(traces)
    ]


def _stamped(trace, timeline, query, meta):
    graph = timeline.graphs[query]
    times = {}
    ends = {}
    for row in timeline.stays(query):
        task = graph.tasks[row.task]
        thread = graph.threads[task.thread].id
        start, finish = row.start, row.finish
        ends[thread] = max(ends.get(thread, 0.0), finish)
        for place in range(*task.actions):
            times[thread, place] = (start, finish)
    threads = []
    for thread in trace.threads:
        actions, now = [], None
        for place, action in enumerate(thread.actions):
            start, finish = times[thread.id, place]
            if isinstance(action, Join):
                asked = now if now is not None else start
                start, finish = asked, max(asked, ends[str(action.index)])
            elif isinstance(action, Fork) or not action.tokens:
                start = finish = now if now is not None else start
            now = finish
            actions.append(msgspec.structs.replace(action, start=start, finish=finish))
        threads.append(msgspec.structs.replace(thread, actions=tuple(actions)))
    arrival = float(timeline.arrivals[query])
    return msgspec.structs.replace(trace, threads=tuple(threads), arrival=arrival, meta=trace.meta | meta)
