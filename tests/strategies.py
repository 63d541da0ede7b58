"""What hypothesis draws from: traces, graphs, protocols, cost models.

Token counts are small, so that ties and full pools are common and examples shrink to something one can draw on paper.
All times are multiples of 2^-12, so that float arithmetic on them is exact and two simulators must agree to the bit.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from simulator import (
    GPU,
    Answer,
    ConstantRate,
    Delay,
    ExecutionGraph,
    Fork,
    Join,
    LinearBatch,
    Protocol,
    Return,
    Think,
    Thread,
    Trace,
    compile_trace,
)
from simulator.graph import Task
from simulator.protocol import WHEN_FULL
from simulator.trace import ORGANIZER, Action, child_id

TICK = 2.0**-12
SECONDS = (1.0, 2.0, 0.5, 2.5, 2.0**-10, 3 * 2.0**-10, 5 * TICK)

_tokens = st.integers(0, 5)
_recipe = st.lists(st.tuples(st.sampled_from("TFJD"), _tokens, st.integers(0, 3)), max_size=6)
_prompts = st.tuples(st.integers(0, 5), st.integers(0, 5))
"""Of the organizer or a worker: unshared and shared tokens of its prompt."""


@st.composite
def traces(
    draw: st.DrawFn,
    *,
    nested: bool = False,
    delays: bool = False,
    unjoined: bool = False,
    prompts: bool = False,
    min_tokens: int = 0,
    inserts: bool = True,
) -> Trace:
    """Legal traces: every Fork has a worker, every Join a Fork, every thread its end."""
    threads: list[Thread] = []

    def grow(name: str, depth: int) -> None:
        place = len(threads)
        threads.append(Thread(name, ()))  # keeps the parent's place before its children
        actions: list[Action] = []
        waiting: list[int] = []
        index = 0
        for kind, tokens, extra in draw(_recipe):
            if kind == "F" and (depth == 0 or (nested and depth < 3)):
                index += 1
                waiting.append(index)
                actions.append(Fork(index, tokens))
                grow(child_id(name, index), depth + 1)
            elif kind == "J" and waiting:
                actions.append(Join(waiting.pop(extra % len(waiting)), tokens, extra * inserts))
            elif kind == "D" and delays:
                actions.append(Delay(SECONDS[(tokens + extra) % len(SECONDS)]))
            else:
                actions.append(Think(tokens))
        if not unjoined:
            actions += [Join(each) for each in waiting]
        last = max(draw(_tokens), min_tokens)
        actions.append(Return(last) if depth else Answer(last))
        own, shared = draw(_prompts) if prompts else (0, 0)
        threads[place] = Thread(name, tuple(actions), own + shared, shared)

    grow(ORGANIZER, 0)
    return Trace("t", tuple(threads))


_index = st.integers(1, 3)
_action = st.one_of(
    st.builds(Think, _tokens),
    st.builds(Fork, _index, _tokens),
    st.builds(Join, _index, _tokens, st.integers(0, 3)),
    st.builds(Return, _tokens),
    st.builds(Answer, _tokens),
    st.builds(Delay, st.sampled_from((0.0, *SECONDS))),
)
_actions = st.lists(_action, max_size=6).map(tuple)
_families = st.lists(
    st.sampled_from(("1", "2", "3", "1.1", "1.2", "2.1", "3.3", "1.1.1", "1.1.2")), unique=True, max_size=6
)


@st.composite
def any_traces(draw: st.DrawFn) -> Trace:
    """Traces of any kind, most of them illegal: lost workers, missing answers, Forks and Joins of anything twice."""
    names = [ORGANIZER]
    for name in sorted(draw(_families)):
        parent = name.rpartition(".")[0]
        if not parent or parent in names:
            names.append(name)
    threads = []
    for name in names:
        own, shared = draw(_prompts)
        threads.append(Thread(name, draw(_actions), own + shared, shared))
    return Trace("t", tuple(threads))


@st.composite
def free_graphs(draw: st.DrawFn, protocol: Protocol | None = None) -> ExecutionGraph:
    """Graphs no trace compiles to: anybody may join anybody, tasks of different threads come in any order."""
    protocol = protocol or Protocol()
    tasks: list[Task] = []
    open_threads, ended, n = [0], [], 1
    inserted = draw(st.lists(st.integers(0, 3), min_size=8, max_size=8))
    unread = [0] * 8
    while open_threads:
        thread = open_threads[draw(st.integers(0, len(open_threads) - 1))]
        started = any(task.thread == thread for task in tasks)
        forks = tuple(range(n, n + draw(st.integers(0, 2 if n < 6 else 0))))
        n += len(forks)
        joins: tuple[int, ...] = ()
        if started and ended and draw(st.booleans()):
            joins = tuple(ended.pop() for _ in range(draw(st.integers(1, len(ended)))))
        unread[thread] += sum(inserted[child] for child in joins)
        tokens = draw(_tokens)
        seconds = 0.0 if tokens or draw(st.booleans()) else draw(st.sampled_from(SECONDS))
        prefill = 0
        if protocol.charge_inserted:
            tokens, seconds = (tokens + unread[thread], seconds if not unread[thread] else 0.0)
            unread[thread] = 0
        if tokens:
            prefill, unread[thread] = unread[thread], 0
        tasks.append(Task(thread, tokens, prefill, seconds, forks, joins))
        open_threads += forks
        if len(tasks) > 12 or draw(st.booleans()):
            open_threads.remove(thread)
            if thread:
                ended.append(thread)
    return ExecutionGraph(tuple(tasks), tuple(map(str, range(n))), (0,) * n, tuple(inserted[:n]), protocol)


def protocols(**fixed: Any) -> st.SearchStrategy[Protocol]:
    """Protocols of all kinds that a simulation takes notice of, with what is `fixed`."""
    options: dict[str, st.SearchStrategy[Any]] = {
        "capacity": st.sampled_from((None, 1, 2, 3, 4, 5)),
        "when_full": st.sampled_from(WHEN_FULL),
        "release": st.sampled_from(("return", "join")),
        "after_answer": st.sampled_from(("cancel", "finish")),
        "charge_inserted": st.booleans(),
    }
    return st.builds(Protocol, **options | {name: st.just(value) for name, value in fixed.items()})


def graphs(protocol: Protocol | None = None, **options: bool) -> st.SearchStrategy[ExecutionGraph]:
    """Graphs of legal traces, or of any with ``legal=False``."""
    source = traces(**options) if options.pop("legal", True) else any_traces()
    return source.map(lambda trace: compile_trace(trace, protocol))


_milli = st.integers(0, 4).map(lambda k: k * 2.0**-10)
_some = st.integers(1, 4).map(lambda k: k * 2.0**-10)
costs = st.one_of(
    st.sampled_from((1.0, 2.0, 0.5)).map(ConstantRate),
    st.builds(LinearBatch, _some, _milli, _milli),
    st.builds(LinearBatch, _some, _milli, _milli, _some, _milli),
    st.builds(LinearBatch, _milli, _some, _milli, _milli, _some),
)


@st.composite
def gpus(draw: st.DrawFn) -> GPU:
    """GPUs with exact arithmetic."""
    seqs = draw(st.sampled_from((None, 1, 2, 3, 4, 8)))
    extra = draw(st.sampled_from((None, 0, 1, 3, 8)))
    return GPU(
        cost=draw(costs), max_num_seqs=seqs, max_num_batched_tokens=None if extra is None else extra + (seqs or 1)
    )


def arrivals(gpu: GPU, n: int) -> st.SearchStrategy[list[float]]:
    """`n` arrivals, often at a step boundary and often in mid-step."""
    unit = 0.25 / gpu.cost.tokens_per_second if isinstance(gpu.cost, ConstantRate) else TICK
    return st.lists(st.integers(0, 60).map(lambda k: k * unit), min_size=n, max_size=n)
