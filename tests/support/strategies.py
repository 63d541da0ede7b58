"""What hypothesis draws from: traces, graphs, protocols, cost models.

Token counts are small, so that ties and full pools are common and examples shrink to something one can draw on paper.
All times are multiples of 2^-12, so that float arithmetic on them is exact and two simulators must agree to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from simulator.graph import GraphThread, Task
from simulator.machine.cost import DecodeSteps
from simulator.trace import ORGANIZER, Action, child_id
from simulator.trace.protocol import WHEN_FULL

TICK = 2.0**-12
SECONDS = (1.0, 2.0, 0.5, 2.5, 2.0**-10, 3 * 2.0**-10, 5 * TICK)

_TOKENS = (0, 1, 2, 3, 4, 5, 1, 17)
_ACTIONS = 8


def _recipes(kinds: str) -> st.SearchStrategy[list[tuple[str, int, int]]]:
    """Lists of a kind of action, tokens and a number below 16. One draw of bytes each, as draws take most of the time.

    Zeros end the list, which is what hypothesis shrinks to.
    """

    def cook(data: bytes) -> list[tuple[str, int, int]]:
        recipe = []
        for i in range(0, 3 * _ACTIONS, 3):
            kind = kinds[data[i] % len(kinds)]
            if kind == ".":
                break
            recipe.append((kind, _TOKENS[data[i + 1] % 8], data[i + 2] % 16))
        return recipe

    return st.binary(min_size=3 * _ACTIONS, max_size=3 * _ACTIONS).map(cook)


_legal, _any = _recipes(".TFFFJJD"), _recipes(".TTFFFfJJjRAD")
_numbers = st.integers(0, 255)


@st.composite
def traces(
    draw: st.DrawFn,
    *,
    nested: bool = False,
    delays: Sequence[float] = (),
    unjoined: bool = False,
    prompts: bool = False,
    min_tokens: int = 0,
) -> Trace:
    """Legal traces: every Fork has a worker, every Join a Fork, every thread its end of at least `min_tokens`.

    `delays` are the seconds a Delay may take.
    """
    threads: list[Thread] = []

    def grow(name: str, depth: int) -> None:
        place = len(threads)
        threads.append(Thread(name, ()))  # keeps the parent's place before its children
        actions: list[Action] = []
        waiting: list[int] = []
        index = 0
        for kind, tokens, extra in draw(_legal):
            if kind == "F" and (depth == 0 or (nested and depth < 3)) and len(threads) < 9:
                index += 1
                waiting.append(index)
                actions.append(Fork(index, tokens))
                grow(child_id(name, index), depth + 1)
            elif kind == "J" and waiting:
                actions.append(Join(waiting.pop(extra % len(waiting)), tokens, extra // 4 if prompts else 0))
            elif kind == "D" and delays:
                actions.append(Delay(delays[extra % len(delays)]))
            else:
                actions.append(Think(tokens))
        if not unjoined:
            actions += [Join(each) for each in waiting]
        number = draw(_numbers)
        last = max(number % 6, min_tokens)
        actions.append(Return(last) if depth else Answer(last))
        own, shared = (number // 6 % 7, number // 42) if prompts else (0, 0)
        threads[place] = Thread(name, tuple(actions), own + shared, shared)

    grow(ORGANIZER, 0)
    return Trace("t", tuple(threads))


_names = ("1", "2", "1.1", "3", "1.2", "2.1", "1.1.1", "3.3", "1.1.2")


@st.composite
def any_traces(draw: st.DrawFn) -> Trace:
    """Traces of any kind, most of them illegal: lost workers, missing answers, Forks and Joins of anything twice."""
    names = [ORGANIZER]
    chosen = draw(st.integers(0, 2 ** len(_names) - 1))
    for bit, name in sorted(enumerate(_names), key=lambda item: item[1]):
        if chosen >> bit & 1 and name.rpartition(".")[0] in ("", *names):
            names.append(name)
    threads = []
    for name in names:
        actions: list[Action] = []
        for kind, tokens, extra in draw(_any):
            index = 1 + extra % 3
            match kind:
                case "T":
                    actions.append(Think(tokens))
                case "F":
                    actions.append(Fork(index, tokens))
                case "f":
                    actions.append(Fork(index))
                case "J" | "j":
                    actions.append(Join(index, tokens if kind == "J" else 0, extra // 4))
                case "R":
                    actions.append(Return(tokens))
                case "A":
                    actions.append(Answer(tokens))
                case "D":
                    actions.append(Delay((0.0, *SECONDS)[extra % (1 + len(SECONDS))]))
        number = draw(_numbers)
        own, shared = number % 6, number // 6 % 6
        threads.append(Thread(name, tuple(actions), own + shared, shared))
    return Trace("t", tuple(threads))


@st.composite
def free_graphs(draw: st.DrawFn, protocol: Protocol | None = None) -> ExecutionGraph:
    """Graphs no trace compiles to: tasks of different threads come in any order, and some have nothing to do."""
    protocol = protocol or Protocol()
    data = iter(draw(st.binary(min_size=200, max_size=200)))
    inserted = [next(data) % 4 for _ in range(8)]
    unread = [0] * 8
    tasks: list[Task] = []
    open_threads, started, n = [0], set[int](), 1
    parents, ended = [-1] * 8, [list[int]() for _ in range(8)]
    while open_threads:
        thread = open_threads[next(data) % len(open_threads)]
        forks = tuple(range(n, n + (next(data) % 3 if n < 6 else 0)))
        n += len(forks)
        for child in forks:
            parents[child] = thread
        joins: tuple[int, ...] = ()
        if thread in started and ended[thread] and next(data) % 2:
            joins = tuple(ended[thread].pop() for _ in range(1 + next(data) % len(ended[thread])))
        started.add(thread)
        unread[thread] += sum(inserted[child] for child in joins)
        tokens, prefill, seconds = _TOKENS[next(data) % 8], 0, 0.0
        if protocol.charge_inserted:
            tokens += unread[thread]
            unread[thread] = 0
        if tokens:
            prefill, unread[thread] = unread[thread], 0
        else:
            seconds = (0.0, *SECONDS)[next(data) % (1 + len(SECONDS))]
        tasks.append(Task(thread, tokens, prefill, seconds, forks, joins))
        open_threads += forks
        if len(tasks) > 12 or not next(data) % 2:
            open_threads.remove(thread)
            if thread:
                ended[parents[thread]].append(thread)
    threads = tuple(GraphThread(str(i), inserted=inserted[i]) for i in range(n))
    return ExecutionGraph(tuple(tasks), threads, protocol)


def protocols(**fixed: Any) -> st.SearchStrategy[Protocol]:
    """Protocols of all kinds that a simulation takes notice of, with what is `fixed`."""
    options: dict[str, st.SearchStrategy[Any]] = {
        "capacity": st.sampled_from((None, 2, 1, 2, 3, 3, 4, 5)),
        "when_full": st.sampled_from(list(WHEN_FULL)),
        "release": st.sampled_from(("return", "join")),
        "after_answer": st.sampled_from(("cancel", "finish")),
        "after_end": st.sampled_from(("count", "ignore")),
        "charge_inserted": st.booleans(),
        "delay_steps_per_second": st.sampled_from((0.0, 1.0, 1.5)),
    }
    return st.builds(Protocol, **options | {name: st.just(value) for name, value in fixed.items()})


def graphs(protocol: Protocol | None = None, **options: Any) -> st.SearchStrategy[ExecutionGraph]:
    """Graphs of legal traces; for the `options` see `traces`."""
    return traces(**options).map(lambda trace: compile_trace(trace, protocol))


_milli = st.integers(0, 4).map(lambda k: k * 2.0**-10)
_some = st.integers(1, 4).map(lambda k: k * 2.0**-10)
costs = st.one_of(
    st.just(DecodeSteps()),
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
    unit = TICK if isinstance(gpu.cost, LinearBatch) else 0.25 * gpu.cost.step_seconds(1, 0)
    ticks = st.builds(lambda k, scale: k * scale * unit, st.integers(0, 60), st.sampled_from((1, 4, 23)))
    return st.lists(ticks, min_size=n, max_size=n)
