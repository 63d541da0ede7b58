"""Every reader, analysis and writer takes time and memory in proportion to what it is given, whatever its shape."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from simulator import (
    GPU,
    Answer,
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
    critical_path,
    decode_clock,
    dump,
    from_networkx,
    measure,
    read,
    render,
    score,
    sensitivity,
    simulate,
    slack_table,
    summarize,
    to_networkx,
    what_if,
)
from simulator.errors import SimulatorError
from simulator.formats import FORMATS, parse
from simulator.planning.steps import rollout_step
from simulator.rewards import Reader, score_batch
from simulator.support.tables import column_file
from simulator.timeline.export import write_csv, write_spans
from simulator.workload import cap_tokens
from tests.support.growth import exponent, memory_exponent

LIMIT = 1.4
"""Of the exponents: 1 is in proportion, 2 the square. Sorting and a busy machine add a little."""

pytestmark = pytest.mark.slow


def holds(make: Callable[[int], Any], work: Callable[[Any], Any], n: int = 200, memory: int = 150) -> None:
    def quiet(given: Any) -> Any:
        try:
            return work(given)
        except SimulatorError:
            return None

    assert exponent(make, quiet, n) <= LIMIT, "time"
    assert memory_exponent(make, quiet, memory) <= LIMIT, "memory"


# Texts.

TAGS = {
    "asyncthink": ("FORK-1", "JOIN-1", "WORKER-1"),
    "multiverse": ("Goal", "Path"),
    "threadweaver": ("Outline", "Thread"),
    "npr": ("plan", "step"),
    "parallel_r1": ("Parallel", "Path"),
}
TEXTS: dict[str, Callable[[str, int], str]] = {
    "words": lambda tag, n: "word " * (20 * n),
    "one long word": lambda tag, n: "a" * (100 * n),
    "opened": lambda tag, n: f"<{tag}>" * n,
    "closed": lambda tag, n: f"</{tag}>" * n,
    "opened, then closed": lambda tag, n: f"<{tag}>" * n + f"</{tag}>" * n,
    "one after the other": lambda tag, n: f"<{tag}>some words</{tag}> and\n" * n,
    "half a tag": lambda tag, n: f"<{tag[:3]}" * n,
    "brackets": lambda tag, n: "<" * (20 * n),
    "white space": lambda tag, n: " \n" * (20 * n),
    "in a block": lambda tag, n: "<Parallel>" + f"<{tag}>1: some words</{tag}>\n" * n + "</Parallel>",
    "in many blocks": lambda tag, n: f"<Parallel><{tag}>1: some words</{tag}></Parallel> then\n" * n,
    "nested blocks": lambda tag, n: f"<Parallel><{tag}>1:" * n + f"</{tag}></Parallel>" * n,
    "labels": lambda tag, n: (
        "<Parallel><Goal>"
        + "".join(f"<Outline>{k}: x</Outline>" for k in range(n))
        + "</Goal>"
        + "".join(f"<{tag}>{k}: x" + "</Parallel>y" * (k % 2) for k in range(n))
    ),
    "labels below": lambda tag, n: (
        "<Parallel><Goal>"
        + "<Outline>1: x</Outline>" * n
        + f"</Goal><{tag}>1: <Parallel>"
        + "".join(f"<{tag}>1.{k}: x" for k in range(n))
        + "".join(f"<{tag}>{k}: x" for k in range(n))
    ),
    "guidelines": lambda tag, n: (
        f"<guideline><plan>1: x</plan></guideline><{tag}>1: y</{tag}><takeaway>z</takeaway>" * n
    ),
    "numbered": lambda tag, n: "".join(
        f"<{tag.replace('1', str(k + 1))}>x</{tag.replace('1', str(k + 1))}>" for k in range(n)
    ),
}


@pytest.mark.parametrize("shape", TEXTS)
@pytest.mark.parametrize("format, tag", [(name, tag) for name, tags in TAGS.items() for tag in tags])
def test_texts(format, tag, shape):
    holds(lambda n: TEXTS[shape](tag, n), lambda text: parse(text, format=format))


@pytest.mark.parametrize("shape", ["opened", "one after the other", "numbered"])
def test_rewards_of_texts(shape):
    holds(lambda n: TEXTS[shape]("FORK-1", n), lambda text: score_batch([text], protocol=Protocol(capacity=4)))


# Traces.


def wide(n: int, shared: bool = False) -> Trace:
    """n workers that are all forked, then all joined."""
    forks, joins = [Fork(k + 1, 1) for k in range(n)], [Join(k + 1, 1, 3) for k in range(n)]
    workers = [Thread(str(k + 1), (Think(1 + k % 7), Return(2)), 12 if shared else 0, 10 * shared) for k in range(n)]
    return Trace("wide", (Thread("organizer", (*forks, *joins, Answer(3)), 10), *workers))


def silent(n: int) -> Trace:
    """n workers that are forked without a token in between: Forks of one task."""
    forks, joins = [Fork(k + 1) for k in range(n)], [Join(k + 1) for k in range(n)]
    workers = [Thread(str(k + 1), (Return(1 + k % 5),)) for k in range(n)]
    return Trace("silent", (Thread("organizer", (Think(1), *forks, *joins, Answer(3))), *workers))


def chain(n: int) -> Trace:
    """n workers, one after the other, each with all that came before as its prefix."""
    actions: list[Any] = []
    for k in range(n):
        actions += [Fork(k + 1, 1), Think(2), Join(k + 1, 1, 3), Delay(0.5)]
    workers = [Thread(str(k + 1), (Return(5),), 7 * k + 4, 7 * k) for k in range(n)]
    return Trace("chain", (Thread("organizer", (*actions, Answer(2))), *workers))


def backwards(n: int) -> Trace:
    """n workers that are joined in the order opposite to that of their Forks."""
    forks, joins = [Fork(k + 1, 1) for k in range(n)], [Join(k + 1, 1) for k in reversed(range(n))]
    workers = [Thread(str(k + 1), (Return(1 + k % 9),)) for k in range(n)]
    return Trace("backwards", (Thread("organizer", (*forks, *joins, Answer(3))), *workers))


def nested(n: int) -> Trace:
    """Workers with three workers each, 30 deep at most."""
    threads = [Thread("organizer", (Fork(1, 1), Fork(2, 1), Join(1, 1), Join(2, 1), Answer(2)))]
    waiting = ["1", "2"]
    while waiting:
        name = waiting.pop(0)
        more = len(threads) + len(waiting) < n and name.count(".") < 28
        inner = (Fork(1, 1), Fork(2, 1), Join(1, 1), Join(2, 1)) if more else ()
        threads.append(Thread(name, (*inner, Return(2))))
        waiting += [f"{name}.1", f"{name}.2"] if more else []
    return Trace("nested", tuple(threads))


def long(n: int) -> Trace:
    """One agent that thinks and waits for tools."""
    return Trace("long", (Thread("organizer", (*(Think(3), Delay(0.25)) * n, Answer(1))),))


def faulty(n: int) -> Trace:
    """Forks of one index, Joins of unknown ones, and Forks of nobody."""
    actions = [Fork(1, 1), Join(2, 1), Fork(10**6, 1)] * n
    return Trace("faulty", (Thread("organizer", (*actions, Answer(1))), Thread("1", (Return(2),))))


TRACES = {"wide": wide, "silent": silent, "chain": chain, "backwards": backwards, "nested": nested, "long": long}
TRACES |= {"faulty": faulty, "shared": lambda n: wide(n, shared=True)}
BATCH = GPU(cost=LinearBatch(1e-2, 1e-4, p=1e-5), max_num_seqs=8, max_num_batched_tokens=512)
PAGED = GPU(cost=LinearBatch(1e-2, 1e-4), max_num_seqs=8, num_kv_blocks=1 << 22, block_size=4)


@pytest.mark.parametrize("shape", TRACES)
@pytest.mark.parametrize("when_full", ["queue", "block", "inline"])
@pytest.mark.parametrize("machine", ["batch", "paged"])
def test_simulations(shape, when_full, machine):
    rules = Protocol(capacity=4, when_full=when_full)
    run = {"batch": {"gpu": BATCH, "max_workers": 6}, "paged": {"gpu": PAGED}}[machine]
    holds(
        lambda n: compile_trace(TRACES[shape](n), rules),
        lambda graph: summarize(simulate(graph, on_deadlock="record", **run)),
    )


@pytest.mark.parametrize("shape", TRACES)
@pytest.mark.parametrize("when_full", ["queue", "block", "inline"])
def test_metrics(shape, when_full):
    rules = Protocol(capacity=4, when_full=when_full)
    holds(
        lambda n: simulate(compile_trace(TRACES[shape](n), rules), gpu=BATCH, on_deadlock="record"),
        measure,
    )


ANALYSES: dict[str, Callable[[ExecutionGraph], Any]] = {
    "compile_trace": lambda graph: compile_trace(graph.trace),
    "critical_path": critical_path,
    "decode_clock": lambda graph: decode_clock(graph.trace),
    "score": lambda graph: score(graph.trace),
    "slack_table": slack_table,
    "what_if": lambda graph: what_if(graph, thread="organizer", scale=0.5),
    "sensitivity": lambda graph: sensitivity(graph, most=2),
    "to_networkx": to_networkx,
    "from_networkx": lambda graph: from_networkx(to_networkx(graph)),
    "cap_tokens": lambda graph: cap_tokens(graph.trace, worker=2),
    "rollout_step": lambda graph: rollout_step(simulate(graph)),
    "render": lambda graph: render(graph.trace, format="native"),
    "render and parse": lambda graph: parse(render(graph.trace, format="native"), format="native"),
}


@pytest.mark.parametrize("shape", TRACES)
@pytest.mark.parametrize("name", ANALYSES)
def test_analyses(name, shape):
    holds(lambda n: compile_trace(TRACES[shape](n)), ANALYSES[name])


@pytest.mark.parametrize("shape", TRACES)
@pytest.mark.parametrize(
    "format", ["asyncthink", "multiverse", "threadweaver", "npr", "parallel_r1", "native", "agentic_mooncake"]
)
def test_writing_and_reading_traces(tmp_path, shape, format):
    def back(trace: Trace) -> None:
        refused: list[Any] = []
        with open(tmp_path / "file", "w") as file:
            dump([trace], file, format, refused=refused.append)
        list(read(tmp_path / "file", format=format))

    holds(TRACES[shape], back)


@pytest.mark.parametrize("shape", TRACES)
def test_pictures(shape):
    plots = pytest.importorskip("simulator.plots")
    holds(lambda n: simulate(compile_trace(TRACES[shape](n))), lambda timeline: plots.gantt(timeline), n=50, memory=50)


@pytest.mark.parametrize("write", [write_csv, write_spans])
def test_timelines_as_files(tmp_path, write):
    holds(lambda n: simulate(compile_trace(wide(n))), lambda timeline: write(timeline, tmp_path / "file.csv"))


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_tables(tmp_path, ending):
    def save(columns: dict[str, Any]) -> None:
        with column_file(tmp_path / f"file.{ending}") as add:
            add(columns)

    def columns(n: int) -> dict[str, Any]:
        return {"trace": [f"q{k}" for k in range(n)], "latency": np.linspace(0, 1, n)}

    holds(columns, save, n=4000, memory=4000)


# Many queries.


@pytest.mark.parametrize("machine", ["steps", "batch", "paged"])
@pytest.mark.parametrize("policy", ["fcfs", "critical-path-first"])
def test_many_queries(machine, policy):
    from simulator.machine.policy import POLICIES

    gpu = {"steps": GPU(), "batch": BATCH, "paged": PAGED}[machine]

    def run(n: int) -> Any:
        graphs = [compile_trace(wide(3)) for _ in range(n)]
        return graphs, [0.3 * k for k in range(n)]

    holds(run, lambda given: simulate(given[0], gpu=gpu, arrivals=given[1], policy=POLICIES[policy]), n=50, memory=100)


# Logs of others.


def request(k: int, **more: Any) -> dict[str, Any]:
    return {"timestamp": k, "input_length": 40 + k, "output_length": 3, "hash_ids": [*range(1 + k % 50)], **more}


def agentic(n: int, chained: bool) -> str:
    """Sessions of twenty requests in a row, or of one, that all wait for the first."""
    header = {"schema": "dynamo.agentic_mooncake", "version": 2, "block_size": 64, "hash_id_scope": "local"}
    rows: list[dict[str, Any]] = [header]
    for k in range(n):
        place = k % 20 if chained else 0
        row = {"request_id": f"r{k}", "play_id": "p", "session_id": f"s{k - place}", "model": "m", "not_before_ms": 0}
        row |= {"input_length": 64 * (place + 1), "output_length": 3, "hash_ids": [0, *range(k, k + place)]}
        after = {"request_id": f"r{k - 1 if place else 0}", "trigger": "completion", "delay_ms": 1}
        rows.append(row | {"dependencies": [after | {"relation": "sequence" if place else "spawn"}] if k else []})
    return "".join(json.dumps(row) + "\n" for row in rows)


def rollout(n: int, shape: str) -> str:
    """A rollout of verifiers: turns in a row, off one, or without an edge."""
    nodes, calls = [], []
    for k in range(n):
        node: dict[str, Any] = {"message": {"role": "assistant", "content": "x"}, "sampled": True}
        if k and shape == "row":
            node["parent"] = k - 1
        if k and shape == "star":
            node |= {"parent": 0, "semantic_parents": [{"node": 0, "type": "subagent_call"}]}
        nodes.append(node)
        times = {"start": float(k), "end": k + 0.5 if shape == "row" else n + 1.0}
        calls.append({"node": k, "usage": {"prompt_tokens": 10, "completion_tokens": 3}, "time": times})
    return json.dumps({"id": "r", "task": {}, "nodes": nodes, "calls": calls}) + "\n"


def search(n: int, shape: str) -> str:
    """A search of APR: many calls one after another, many at once, or one text that calls nothing."""
    asks = "".join(f"<Start Sub Search {k} at level 1> go\n" for k in range(n if shape == "wide" else 1))
    asks = f"<Calling Sub Searches>\n{asks}<End Calling Sub Searches>\n"
    got = "<Sub Searches>\n<No Solution in Sub Search 0 at level 1>\n<End Sub Searches>\n"
    one = {"main_calls": ["go\nno"], "sub_calls": []}
    if shape == "wide":
        record = {"main_calls": ["x\n" + asks, "x\n" + got * n], "sub_calls": [[one] * n]}
    elif shape == "long":
        text = (got + "a\n") * n + asks * n
        record = {"main_calls": [text, text + "b"], "sub_calls": [[one]]}
    else:
        record = {"main_calls": ["x " + asks] * n, "sub_calls": [[one]] * n}
    return json.dumps(record) + "\n"


FILES: dict[str, Callable[[int], str]] = {
    "apr, wide": lambda n: search(n, "wide"),
    "apr, long": lambda n: search(n, "long"),
    "apr, in rows": lambda n: search(n, "rows"),
    "mooncake": lambda n: "".join(json.dumps(request(k)) + "\n" for k in range(n)),
    "mooncake, one prefix": lambda n: "".join(json.dumps(request(49)) + "\n" for k in range(n)),
    "agentic, in rows": lambda n: agentic(n, True),
    "agentic, a star": lambda n: agentic(n, False),
    "verifiers, a row": lambda n: rollout(n, "row"),
    "verifiers, a star": lambda n: rollout(n, "star"),
    "verifiers, loose": lambda n: rollout(n, "loose"),
    "objects": lambda n: '{"output": "I think. <ANSWER>9</ANSWER>"}\n' * n,
    "lines of nothing": lambda n: "{}\n" * n,
    "deep": lambda n: "[" * n + "]" * n + "\n",
    "keys": lambda n: json.dumps({f"k{k}": k for k in range(n)}) + "\n",
}


@pytest.mark.parametrize("name", FILES)
def test_files(tmp_path, name):
    def write(n: int) -> str:
        path = tmp_path / f"{n}.jsonl"
        path.write_text(FILES[name](n))
        return str(path)

    holds(write, lambda path: list(read(path)))


def test_formats_are_all_here():
    assert {*FORMATS} - {"native", "verifiers", "apr"} == {*TAGS}
    assert io.StringIO().read() == ""


@pytest.mark.parametrize("returns", ["one", "many", "none"])
@pytest.mark.parametrize("inside", ["", "x", "another thought"])
def test_joins_of_what_workers_returned(returns, inside):
    """Each Join is held against all that its worker returned."""

    def rollout(n: int) -> dict[str, Any]:
        said = {"one": "words " * n + "<RETURN>x</RETURN>", "many": "<RETURN>x y</RETURN>" * n, "none": "words " * n}
        text = "<FORK-1>q</FORK-1>" + f"<JOIN-1>{inside}</JOIN-1>" * n + "<JOIN-1>" * n
        return {"text": text, "workers": {"1": said[returns]}}

    holds(rollout, lambda each: score_batch([each], protocol=Protocol(capacity=4)))


def test_masks():
    reader = Reader(decode=lambda ids: bytes(ids).decode())

    def rollout(n: int) -> dict[str, Any]:
        ids = list(b"<JOIN-1>x</JOIN-1> so ") * n
        return {"text": ids, "mask": ([1] * 8 + [0] * 10 + [1] * 4) * n}

    holds(rollout, lambda each: score_batch([each], protocol=Protocol(capacity=4), reader=reader))
