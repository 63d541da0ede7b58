"""Slips that a stranger makes in Python: each gets our own sentence and the way out, and what is printed is short."""

from pathlib import Path

import numpy as np
import pytest

import simulator
from simulator import (
    GPU,
    Cluster,
    ConfigError,
    ConstantRate,
    FormatError,
    Protocol,
    SimulatorError,
    compile_trace,
    decode_clock,
    measure,
    parse,
    plots,
    score,
    score_batch,
    simulate,
    summarize,
)
from simulator.formats import FORMATS, Format
from simulator.graph import critical_path
from simulator.machine.policy import shortest_first
from simulator.machine.routing import ROUTINGS
from simulator.study.table import Table

TRACE = parse("so <FORK-1>q</FORK-1><JOIN-1>9</JOIN-1><ANSWER>9</ANSWER>", workers={"1": "<RETURN>9</RETURN>"}, id="t")
GRAPH = compile_trace(TRACE)
TIMELINE = simulate(GRAPH)


class Half:
    """A cost model with one member of three."""

    prefill_is_free = True


SLIPS = {
    "a trace is simulated": (lambda: simulate(TRACE), "this is a Trace: compile_trace(trace) makes the graph"),
    "traces are simulated": (lambda: simulate([TRACE]), "this is a Trace: compile_trace(trace) makes the graph"),
    "a text is simulated": (
        lambda: simulate("so"),
        "this is a str: compile_trace(simulator.parse(text)) makes the graph",
    ),
    "a graph is measured": (lambda: measure(GRAPH), "this is an ExecutionGraph: simulate(graph) makes the Timeline"),
    "a trace is measured": (lambda: measure(TRACE), "simulate(compile_trace(trace)) makes the Timeline"),
    "one of many is measured": (lambda: measure(simulate([GRAPH] * 3)), "holds 3 queries: measure(timeline, query)"),
    "a graph is summed up": (lambda: summarize(GRAPH), "simulate(graph) makes the Timeline"),
    "a graph is drawn": (lambda: plots.gantt(GRAPH), "gantt() takes a Timeline, and this is an ExecutionGraph"),
    "a text is compiled": (lambda: compile_trace("so"), "this is a str: simulator.parse(text) makes a Trace"),
    "a graph is compiled": (lambda: compile_trace(GRAPH), "graph.trace is the Trace it was made from"),
    "a graph is clocked": (lambda: decode_clock(GRAPH), "graph.trace is the Trace it was made from"),
    "a text is scored": (lambda: score("so", Protocol(capacity=2)), "score_batch takes texts"),
    "a path of a trace": (lambda: critical_path(TRACE), "compile_trace(trace) makes the graph"),
    "a name of a file": (
        lambda: parse("mine.txt"),
        "'mine.txt' is the name of a file, not thinking: simulator.read(path)",
    ),
    "a longer name": (lambda: parse("C:\\traces\\run-1.jsonl"), "is the name of a file"),
    "a path object": (lambda: parse(Path("mine.txt")), "got PosixPath; simulator.read(path) reads a file"),
    "a cost as a GPU": (lambda: simulate(GRAPH, gpu=ConstantRate(50)), "GPU(cost=...) makes a GPU of a cost model"),
    "no GPU at all": (lambda: simulate(GRAPH, gpu=7), "gpu must be a GPU, the name of one, or a Cluster, got 7"),
    "a GPU misspelt": (lambda: simulate(GRAPH, gpu="h100-quen3-8b"), "did you mean h100-qwen3-8b"),
    "half a cost": (lambda: GPU(cost=Half()), "lacks step_seconds, decode_seconds (see CostModel)"),
    "a class of cost": (lambda: GPU(cost=ConstantRate), "is a class, not one of its objects"),
    "a routing misspelt": (lambda: Cluster(replicas=[GPU()], routing="least_loaded"), "did you mean least-loaded"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_told_with_the_way_out(slip):
    call, said = SLIPS[slip]
    with pytest.raises(SimulatorError) as caught:
        call()
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_text_that_ends_like_a_file_is_thinking_where_one_says_so():
    assert parse("mine.txt", format="asyncthink").organizer.tokens == 2
    assert parse("I looked into mine.txt").organizer.tokens == 6
    assert score_batch(["mine.txt"], protocol=Protocol(capacity=2)).failed.tolist() == [False]


def test_a_gpu_and_a_routing_may_be_named():
    by_name = simulate(GRAPH, gpu="h100-qwen3-8b-database")
    assert by_name.makespan == simulate(GRAPH, gpu=simulator.load_profile("h100-qwen3-8b-database")).makespan
    assert simulate(GRAPH, gpu="rate:50").makespan == simulate(GRAPH, gpu=GPU(cost=ConstantRate(50))).makespan
    for name, function in ROUTINGS.items():
        assert Cluster(replicas=[GPU()], routing=name).routing is function


def test_what_is_printed_is_short():
    batch = score_batch(["<ANSWER>9</ANSWER>", None], protocol=Protocol(capacity=2), outcomes=[True, True])
    long = parse("a" * 4000 + "<FORK-1>q</FORK-1>" * 50, id="long")
    columns = {f"c{k}": np.arange(3) for k in range(10)}
    table = Table(columns=columns, axes=(), metrics=())
    assert repr(GRAPH) == "ExecutionGraph('t': 4 tasks, 2 threads)"
    assert repr(TIMELINE) == f"Timeline(1 query: 4 tasks in {TIMELINE.makespan:.6g} decode steps)"
    assert repr(simulate([GRAPH] * 2, gpu="rate:50")).startswith("Timeline(2 queries: 8 tasks in 0.")
    assert repr(measure(TIMELINE)).startswith("Metrics('t': latency 16, ") and repr(measure(TIMELINE)).endswith(
        " more)"
    )
    assert repr(batch) == "ScoreBatch(2 rollouts: mean reward 0.125, 1 not scored)"
    assert repr(table) == "Table(3 rows of c0, c1, c2, c3, c4, c5, c6, c7 and 2 more)"
    assert repr(long) == "Trace('long': 51 actions of 1 thread, 1,250 tokens)"
    for each in (GRAPH, TIMELINE, measure(TIMELINE), batch, table, long, simulate([GRAPH] * 500)):
        assert len(repr(each)) < 200


def test_a_small_trace_says_it_all():
    assert eval(repr(TRACE), vars(simulator) | vars(simulator.trace)) == TRACE


def test_metrics_complete_on_tab_and_show_as_tables():
    metrics = measure(TIMELINE)
    assert {"latency", "eta", "speedup", "name", "values"} <= set(dir(metrics))
    shown = metrics._repr_html_()
    assert shown.startswith("<table>") and "<td>latency</td>" in shown and "of t" in shown
    assert "<td>steps</td>" in shown and "<td>time</td>" not in shown
    table = Table(columns={"<b>": np.array(["<script>"] * 30, dtype=object), "n": np.arange(30)}, axes=(), metrics=())
    shown = table._repr_html_()
    assert "<script>" not in shown and "&lt;script&gt;" in shown and "the first 20 of 30 rows" in shown


def test_a_notebook_draws_a_timeline_of_one_query():
    assert TIMELINE._repr_png_().startswith(b"\x89PNG")
    assert simulate([GRAPH] * 2)._repr_png_() is None
    nothing = simulate(compile_trace(simulator.Trace("t", (simulator.Thread("organizer", ()),))))
    assert nothing._repr_png_() is None or nothing._repr_png_().startswith(b"\x89PNG")


def test_the_command_says_its_version_and_what_its_groups_hold(capsys):
    from simulator.cli import _run

    assert _run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("forksim ")
    for group in ("study", "record"):
        assert _run([group]) == 0
        said = capsys.readouterr()
        assert said.err == "" and said.out.startswith(f"Usage: forksim {group} ") and "Commands:" in said.out


def test_what_the_sentences_are_made_of():
    with pytest.raises(ConfigError, match="no query 9"):
        measure(TIMELINE, 9)
    with pytest.raises(FormatError, match="got int"):
        parse(3)


@pytest.mark.parametrize("group", [[], ["study"], ["record"]], ids=["forksim", "study", "record"])
def test_no_line_of_help_is_cut(group, capsys):
    from simulator.cli import _run

    assert _run([*group, "--help"]) == 0
    assert "..." not in capsys.readouterr().out.partition("Commands:")[2]


def test_a_format_whose_parse_returns_something_else(monkeypatch):
    monkeypatch.setitem(
        FORMATS, "mine", Format("mine", "one of mine", lambda text, **how: 42, None, lambda text: False)
    )
    with pytest.raises(FormatError, match="parse of the format 'mine' must return a Trace; it returned 42"):
        parse("anything", format="mine")


def test_a_policy_by_name():
    graph = compile_trace(TRACE)
    assert simulate(graph, policy="shortest-first").makespan == simulate(graph, policy=shortest_first).makespan
    with pytest.raises(ConfigError, match="no policy is called 'shortest'; did you mean shortest-first"):
        simulate(graph, policy="shortest")
