"""Graphs that no trace compiles to: what they may not do is refused, and what they may does end."""

from __future__ import annotations

import networkx
import pytest

from simulator import (
    GPU,
    Answer,
    Delay,
    ExecutionGraph,
    Fork,
    GraphError,
    Join,
    LinearBatch,
    Protocol,
    Return,
    Think,
    Thread,
    compile_trace,
    critical_path,
    decode_clock,
    from_networkx,
    measure,
    simulate,
    to_networkx,
    what_if,
)
from simulator.graph import GraphThread, Task


@pytest.mark.parametrize("charge", [False, True])
@pytest.mark.parametrize("cost", [LinearBatch(a=1, p=1), LinearBatch(a=1, c=1)])
def test_a_join_that_inserts_more_than_is_read_takes_nothing_away(charge, cost):
    """The organizer decodes 1, then 1 for its worker, then 1: no prompt, though 5 tokens were to be inserted."""
    protocol = Protocol(capacity=1, when_full="inline", after_answer="finish", charge_inserted=charge)
    tasks = (Task(0, 1, forks=(1,)), Task(1, 1), Task(0, 1, joins=(1,)))
    graph = ExecutionGraph(tasks, (GraphThread("organizer"), GraphThread("1", inserted=5)), protocol)
    timeline = simulate(graph, gpu=GPU(cost=cost))
    assert timeline.column("tokens").sum() == (2 if charge else 3)


def test_a_join_by_another_thread_than_the_parent_is_refused():
    tasks = (Task(0, 1, forks=(1,)), Task(1, 2, forks=(2,)), Task(2, 1, joins=(1,)), Task(0, 1))
    with pytest.raises(GraphError, match="task 2 joins thread 1, which another thread has forked"):
        ExecutionGraph(tasks, tuple(map(GraphThread, ("organizer", "1", "1.1"))))


def test_a_graph_of_other_origin_gets_a_trace():
    """Drawn: planner 5 --fork searcher(10), reader(4)-- 3 -- join searcher -- 2; a person needs 1.5 s in between."""
    graph = networkx.DiGraph(name="drawn")
    nodes = (("planner", 5, 7), ("searcher", 10, 4), ("reader", 4, 0), ("planner", 3, 0), ("planner", 2, 6))
    for number, (thread, tokens, prefill) in enumerate(nodes):
        graph.add_node(number, thread=thread, tokens=tokens, prefill=prefill)
    graph.add_node(9, thread="reader", seconds=1.5)
    edges = ((0, 1, "fork", 0), (0, 2, "fork", 1), (0, 3, "program", 0), (3, 4, "program", 0), (1, 4, "join", 0))
    for source, target, kind, position in (*edges, (2, 9, "program", 0)):
        graph.add_edge(source, target, kind=kind, position=position)
    made = from_networkx(graph)
    trace = made.trace
    assert [(thread.id, thread.label) for thread in trace.threads] == [
        ("organizer", "planner"),
        ("1", "searcher"),
        ("2", "reader"),
    ]
    assert trace.organizer == Thread(
        "organizer", (Think(5), Fork(1), Fork(2), Think(3), Join(1, inserted_tokens=6), Answer(2)), 7, 0, "planner"
    )
    assert trace.threads[1].prompt_tokens == 4 and trace.threads[2].actions == (Think(4), Delay(1.5), Return(0))
    assert decode_clock(trace).latency == critical_path(made).latency == simulate(made).latency[0] == 17
    assert measure(simulate(made)).critical_path_steps == 17
    assert critical_path(what_if(made, thread="1", scale=0.5)).latency == 12
    assert sorted(task[:-1] for task in compile_trace(trace).tasks) == sorted(task[:-1] for task in made.tasks)
    # A trace that no longer says what the tasks do is not believed.
    there = to_networkx(made)
    assert from_networkx(there).trace is made.trace
    there.nodes[1]["tokens"] = 20
    assert decode_clock(from_networkx(there).trace).latency == 27


@pytest.mark.parametrize(
    ("edge", "message"),
    [
        ((1, 4, "join"), "edge 1 -> 4: a JOIN comes from the last task"),
        ((0, 2, "fork"), "edge 0 -> 2: a FORK leads to the first task"),
    ],
)
def test_edges_into_the_middle_of_a_thread_are_refused(edge, message):
    graph = networkx.DiGraph()
    for node, thread in enumerate(("organizer", "1", "1", "organizer", "organizer")):
        graph.add_node(node, thread=thread, tokens=1)
    for source, target, kind in ((0, 1, "fork"), (1, 2, "program"), (0, 3, "program"), (3, 4, "program"), edge):
        graph.add_edge(source, target, kind=kind)
    with pytest.raises(GraphError, match=message):
        from_networkx(graph)
