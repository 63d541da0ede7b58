"""Graphs that no trace compiles to: what they may not do is refused, and what they may does end."""

from __future__ import annotations

import networkx
import pytest

from simulator import GPU, ExecutionGraph, GraphError, LinearBatch, Protocol, from_networkx, simulate, to_networkx
from simulator.graph import Task


@pytest.mark.parametrize("charge", [False, True])
@pytest.mark.parametrize("cost", [LinearBatch(a=1, p=1), LinearBatch(a=1, c=1)])
def test_a_join_that_inserts_more_than_is_read_takes_nothing_away(charge, cost):
    """The organizer decodes 1, then 1 for its worker, then 1: no prompt, though 5 tokens were to be inserted."""
    protocol = Protocol(capacity=1, when_full="inline", after_answer="finish", charge_inserted=charge)
    tasks = (Task(0, 1, forks=(1,)), Task(1, 1), Task(0, 1, joins=(1,)))
    graph = ExecutionGraph(tasks, ("organizer", "1"), (0, 0), (0, 5), protocol)
    timeline = simulate(graph, gpu=GPU(cost=cost))
    assert timeline.column("tokens").sum() == (2 if charge else 3)


def test_two_edges_between_two_tasks_are_refused():
    tasks = (Task(0, 1, forks=(1,)), Task(1, 2, forks=(2,)), Task(2, 1, joins=(1,)), Task(0, 1))
    graph = ExecutionGraph(tasks, ("organizer", "1", "2"), (0,) * 3, (0,) * 3)
    with pytest.raises(GraphError, match="tasks 1 and 2 have two edges"):
        to_networkx(graph)


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
