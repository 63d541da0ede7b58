"""What-if, slack and the ranking of threads: answers on paper, and laws."""

from __future__ import annotations

import math
from dataclasses import replace

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import (
    GPU,
    Answer,
    ClosedLoop,
    Cluster,
    ConfigError,
    Delay,
    Fork,
    GraphError,
    Join,
    LinearBatch,
    Protocol,
    Return,
    Think,
    Thread,
    Trace,
    check,
    compile_trace,
    critical_path,
    decode_clock,
    load_profile,
    measure,
    realised_path,
    sensitivity,
    simulate,
    slack_table,
    to_networkx,
    what_if,
)
from simulator.sensitivity import path_change
from tests.support.drawn import traced
from tests.support.strategies import SECONDS, any_traces, free_graphs, gpus, protocols, traces

LEGAL = traces(nested=True, delays=SECONDS, unjoined=True, prompts=True)
ALL = st.one_of(LEGAL, any_traces())
RULES = st.sampled_from((Protocol(), Protocol(delay_steps_per_second=1.5), Protocol(charge_inserted=True)))
GRAPHS = st.one_of(st.builds(compile_trace, ALL, RULES), RULES.flatmap(free_graphs))
SCALES = st.sampled_from((0.0, 0.25, 0.5, 0.7, 1.0, 1.3, 3.0))


def lengths(trace, name):
    return [action.tokens for action in trace.thread(name).actions if not isinstance(action, Delay)]


def same_run(one, other):
    """Whether two timelines are equal to the byte."""
    return (
        one.rows.tobytes() == other.rows.tobytes()
        and one.answered.tobytes() == other.answered.tobytes()
        and one.overflows.tobytes() == other.overflows.tobytes()
        and [replica.batch.tobytes() for replica in one.replicas]
        == [replica.batch.tobytes() for replica in other.replicas]
    )


# ---------------------------------------------------------------- on paper
#
# organizer  |--4--|F1 1|F2 1|-----6-----|J1 . . . .|J2 . .|-A 3-|
# worker 1               |------------12------------|
# worker 2                    |-----------------14---------|
#
# By step 6 both are forked; the organizer asks at 12; 1 ends at 17, 2 at 20, the answer is out at 23.


def drawn(**changes):
    return compile_trace(
        traced(
            [Think(4), Fork(1, 1), Fork(2, 1), Think(6), Join(1), Join(2), Answer(3)],
            w1=[Return(12)],
            w2=[Return(14)],
        ),
        **changes,
    )


def test_two_workers_on_paper():
    graph = drawn()
    table = {(row.thread, row.weight): row for row in slack_table(graph)}
    assert critical_path(graph).latency == 23
    one, two, thinking = table["1", 12], table["2", 14], table["organizer", 6]
    assert (one.start, one.b_level, one.slack, one.free_slack, one.drag) == (5, 15, 3, 3, 0)
    assert (two.start, two.b_level, two.slack, two.free_slack, two.drag) == (6, 17, 0, 0, 3)
    assert (thinking.start, thinking.slack, thinking.drag) == (6, 8, 0)
    assert two.critical and not one.critical

    result = sensitivity(graph)
    assert [row.thread for row in result.threads] == ["organizer", "2", "1"]
    rows = {row.thread: row for row in result.threads}
    # 2 at half ends at 13, and 1 at 17 binds: 17 + 3 = 20. At nothing: the same.
    assert rows["2"] == ("2", 14, 0, 14 / 23, 20, 3, 3, "1", 12 / 20, 0, "1")
    assert rows["1"] == ("1", 12, 3, 0, 23, 0, 0, "2", 0, 0, None)
    # The organizer at half: 2 tokens, Forks at 2.5 and 3 (3 in all, rounded), 3 of thought, 1.5 of answer (8 in all).
    assert rows["organizer"].latency == 19
    assert rows["organizer"].saved_at_zero == 9
    assert (result.latency, result.bound, result.unit, result.best) == (23, "2", "steps", rows["2"])


def test_nested_worker_on_paper():
    """A worker on the critical path only as long as its own worker is.

    ::

        organizer  |F1 1|J1 . . . . . . . . .|A 1|
        worker 1        |F1 2|-3-|J1 . . .|R 2|
        worker 1.1           |-----7------|
    """
    graph = compile_trace(
        traced([Fork(1, 1), Join(1), Answer(1)], w1=[Fork(1, 2), Think(3), Join(1), Return(2)], w1_1=[Return(7)])
    )
    assert critical_path(graph).latency == 13
    rows = {row.thread: row for row in sensitivity(graph, scale=0).threads}
    assert rows["1.1"].saved == 4 and rows["1.1"].instead == "1"  # its parent's 3 steps of thought take over
    assert rows["1"].saved == 4 and rows["1"].instead is None
    assert rows["organizer"].saved == 2
    assert rows["1"].slack == 0  # its Fork and its Return are critical, its thought is not
    assert [row.slack for row in slack_table(graph)] == [0, 0, 0, 4, 0, 0]


def test_a_worker_that_nobody_joins_may_take_for_ever():
    graph = compile_trace(traced([Fork(1, 1), Answer(4)], w1=[Return(100)]))
    [worker] = [row for row in slack_table(graph) if row.thread == "1"]
    assert worker.slack == worker.free_slack == math.inf
    assert worker.drag == 0
    result = sensitivity(graph)
    assert result.best is None
    assert result.threads[-1][:3] == ("1", 100, math.inf)


def test_a_tool_call_binds():
    """Seconds of a Delay scale with the thread. On 10 tokens a second: 1 + 5 + 1 seconds, then 1 + 2.5 + 0.5."""
    trace = traced([Fork(1, 10), Join(1), Answer(10)], w1=[Delay(5.0), Return(10)])
    gpu = GPU(cost=LinearBatch(a=0.1))
    result = sensitivity(compile_trace(trace), threads="1", gpu=gpu)
    [row] = result.threads
    assert result.unit == "seconds"
    assert result.latency == pytest.approx(8)
    assert (row.saved, row.saved_at_zero, row.share) == (pytest.approx(3), pytest.approx(6), pytest.approx(0.75))


def test_more_is_not_saved_where_the_pool_binds():
    """One slot: worker 2 waits for worker 1, so any token of worker 1 counts, slack or not."""
    graph = compile_trace(traced([Fork(1), Fork(2), Join(1), Join(2), Answer(1)], w1=[Return(4)], w2=[Return(10)]))
    free, full = (sensitivity(graph, protocol=Protocol(capacity=c), threads="1").threads[0] for c in (3, 2))
    assert (free.slack, free.saved) == (6, 0)
    assert (full.slack, full.saved, full.saved_at_zero, full.instead) == (6, 2, 4, None)


def test_shorter_is_not_always_earlier_with_a_full_pool():
    """Not a law: three slots for workers. Worker 1 at half lets the organizer fork 3 and 4 before 2 forks 2.1, which is
    the long one and now waits for a slot.

    ::

        as it was                                       1 at half
        step  0        3  4        8        11  13      0     2  3     5  6                   15
        1     |-----4-----|                             |--2--|
        2     |---3----|. . . . . . . . . . . . |       |---3----|. . . . . . . . . . . . . . . . |
        2.1            |-----------10-----------|                |pool |------------10-----------|
        3                 |----4---|                          |------4----|
        4                 |  pool  |---3----|                 |---3----|
        org   |. . . . . .|. . . . . . . . . . .|A|     |. . .|. . . . . . . . . . . . . . . . . |A|
    """
    trace = traced(
        [Fork(1), Fork(2), Join(1), Fork(3), Fork(4), Join(3), Join(4), Join(2), Answer(1)],
        w1=[Return(4)],
        w2=[Think(3), Fork(1), Join(1), Return()],
        w2_1=[Return(10)],
        w3=[Return(4)],
        w4=[Return(3)],
    )
    graph = compile_trace(trace, Protocol(capacity=4))
    assert simulate(graph).overflows[0] == simulate(what_if(graph, thread="1", scale=0.5)).overflows[0] == 1
    result = sensitivity(graph, threads="1")
    [row] = result.threads
    assert (result.latency, row.latency, row.saved) == (14, 16, -2)
    assert result.best is None
    assert row.moved == 2 / 16  # 2.1 waits for a slot, and did not


def test_shorter_is_not_always_earlier_with_a_full_batch():
    """Not a law: worker 1's own worker takes the place of the long worker 2. It is drawn in test_nonlaws.py."""
    trace = traced(
        [Fork(1), Fork(2, 1), Join(2), Join(1), Answer()],
        w1=[Fork(1, 2), Think(1), Join(1), Return()],
        w1_1=[Return(2)],
        w2=[Return(5)],
    )
    result = sensitivity(compile_trace(trace), gpu=GPU(max_num_seqs=2), scale=2 / 3)
    row = next(row for row in result.threads if row.thread == "1")
    assert result.latency == 6
    assert (row.saved, row.latency) == (-1, 7)


def test_one_query_of_a_loaded_run():
    """One place for both, first come first served. Only query 1 changes, and query 0 is the earlier for it.

    ::

        query 0  | 1: 9 tokens |.................|A|
        query 1      |.........| 1: 9, or 5      |.|A|
        step     0   2         9           14   18
    """
    graph = compile_trace(traced([Fork(1), Join(1), Answer(1)], w1=[Return(9)]))
    result = sensitivity([graph, graph], query=1, gpu=GPU(max_num_seqs=1), threads="1", arrivals=[0, 2])
    [row] = result.threads
    assert result.latency == 20 - 2
    assert (row.saved, row.others) == (4, 4)
    assert row.saved_at_zero == 10  # its own 9, and at 9 its answer goes before that of query 0, which is ready later
    assert row.share == 9 / 18
    assert row.bound == "wait_batch"


# ---------------------------------------------------------------- what a change is


def test_tokens_are_rounded_over_the_thread():
    graph = compile_trace(Trace("t", (Thread("organizer", (*[Think(1)] * 5, Answer(4))),)))
    assert lengths(what_if(graph, thread="organizer", scale=0.5).trace, "organizer") == [1, 0, 1, 0, 1, 2]
    assert lengths(what_if(graph, thread="organizer", max_tokens=6).trace, "organizer") == [1, 1, 1, 1, 1, 1]
    assert lengths(what_if(graph, thread="organizer", scale=2, max_tokens=9).trace, "organizer") == [2, 2, 2, 2, 1, 0]


def test_what_no_longer_fits_the_changed_trace_is_left_out():
    trace = traced(
        [Think(4, "a", 0.0, 1.0), Fork(1, 2, "b", 1.0, 2.0), Join(1, 2, 3, "c", 4.0, 5.0), Answer(2, "d", 5.0, 6.0)],
        w1=[Return(3, "e", 2.0, 4.0)],
    )
    graph = compile_trace(trace)
    assert what_if(graph, thread="1", scale=1) is graph
    organizer, worker = what_if(graph, thread="1", scale=2).trace.threads
    assert worker.actions == (Return(6),)
    assert organizer.actions == (Think(4, "a"), Fork(1, 2, "b"), Join(1, 2, 3, "c"), Answer(2, "d"))
    organizer = what_if(graph, thread="organizer", scale=0.5).trace.organizer
    assert organizer.actions == (Think(2), Fork(1, 1), Join(1, 1, 3, "c"), Answer(1))


def test_a_prompt_follows_what_it_shares():
    """Worker 1 begins with all that the organizer has by its Fork: 10 of prompt, 6 of thought. Worker 1.1 shares 8 of
    its own 20 tokens of context on top of that."""
    organizer = Thread("organizer", (Think(5), Fork(1, 1), Join(1), Answer(2)), 10)
    one = Thread("1", (Think(8), Fork(1, 4), Join(1), Return(2)), 18, 16)
    nested = Thread("1.1", (Return(3),), 27, 26)
    graph = compile_trace(Trace("t", (organizer, one, nested)))
    for each in (graph, replace(graph, trace=None)):
        half = what_if(each, thread="organizer", scale=0.5)
        assert shared(half) == [0, 13, 23]
        assert [thread.prompt for thread in half.threads] == [thread.prompt for thread in each.threads] == [10, 2, 1]
        assert shared(what_if(each, thread="organizer", scale=2)) == [0, 22, 32]
        assert shared(what_if(each, thread="1", scale=0.5)) == [0, 16, 22]
        assert shared(what_if(each, thread="1.1", scale=0.5)) == shared(each)


def shared(graph):
    return [thread.shared for thread in graph.threads]


def test_text_of_a_join_is_prefilled_by_whoever_decodes_next():
    organizer = (Fork(1, 1), Join(1, 0, 7), Think(2), Fork(2, 0), Join(2, 0, 5), Answer(1))
    graph = compile_trace(traced([*organizer], w1=[Return(1)], w2=[Return(1)]))
    for each in (graph, replace(graph, trace=None)):
        [think] = [i for i, task in enumerate(each.tasks) if task.thread == 0 and task.tokens == 2]
        half = what_if(each, task=think, scale=0)
        assert [(task.tokens, task.prefill) for task in half.tasks if task.thread == 0 and task.tokens] == [
            (1, 0),
            (1, 12),
        ]


def test_several_threads_and_single_tasks():
    graph = drawn()
    both = what_if(graph, thread=("1", "2"), scale=0.5)
    assert [both.trace.thread(name).tokens for name in ("1", "2")] == [6, 7]
    assert what_if(graph, thread={"1": 0.5, "2": 0.5}) == both
    assert what_if(graph, thread={"1": 2.0, "2": 0.0}).trace.tokens == graph.tokens + 12 - 14
    [task] = [i for i, task in enumerate(graph.tasks) if task.tokens == 6]
    assert lengths(what_if(graph, task=task, scale=1.5).trace, "organizer") == [4, 1, 1, 9, 0, 0, 3]
    assert what_if(graph, task={task: 1.5}) == what_if(graph, task=[task], scale=1.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thread": "3", "scale": 0.5}, "no thread is called '3'; there are organizer, 1, 2"),
        ({"thread": "organiser", "scale": 0.5}, "did you mean organizer"),
        ({"thread": "1", "scale": -1}, "scale must be a number from 0 to 10^6, got -1"),
        ({"thread": "1", "scale": math.nan}, "scale must be a number from 0 to 10^6, got nan"),
        ({"thread": {"1": "x"}}, "scale must be a number from 0 to 10^6, got 'x'"),
        ({"thread": {"1": 1}, "scale": 2}, "a mapping has a scale for each"),
        ({"thread": "1", "max_tokens": 1.5}, "max_tokens must be a whole number from 0 to 10^12, got 1.5"),
        ({"thread": "1"}, "needs a scale=, such as 0.5, or max_tokens="),
        ({"scale": 1}, "give one of thread= and task="),
        ({"thread": "1", "task": 0, "scale": 1}, "give one of thread= and task="),
        ({"task": 99, "scale": 1}, "there is no task 99; the graph has tasks 0 to"),
        ({"task": "0", "scale": 1}, "there is no task '0'"),
    ],
)
def test_wrong_changes_are_refused(options, message):
    with pytest.raises(ConfigError) as error:
        what_if(drawn(), **options)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": ["1", "7"]}, "no thread is called '7'"),
        ({"scale": math.inf}, "scale must be a number"),
        ({"query": 1}, "there is no query 1; there are 1"),
        ({"capacity": 2}, "no option of sensitivity() is called 'capacity'"),
        ({"arivals": [0]}, "did you mean arrivals"),
    ],
)
def test_wrong_questions_are_refused(options, message):
    with pytest.raises(ConfigError) as error:
        sensitivity(drawn(), **options)
    assert message in str(error.value)


def test_there_must_be_a_graph():
    with pytest.raises(GraphError, match="takes execution graphs"):
        sensitivity([])
    with pytest.raises(GraphError, match="takes execution graphs"):
        sensitivity([drawn().trace])


def test_of_many_threads_those_on_the_path_are_looked_at():
    # Workers take 1 to 9 steps, and the organizer asks for all at once: the path is the organizer and worker 9.
    forks, joins = ([kind(k) for k in range(1, 10)] for kind in (Fork, Join))
    organizer = Thread("organizer", (Think(1), *forks, *joins, Answer(1)))
    graph = compile_trace(Trace("t", (organizer, *(Thread(str(k), (Return(k),)) for k in range(1, 10)))))
    whole = sensitivity(graph)
    for most in (1, 2, 4, 9):
        some = sensitivity(graph, most=most)
        assert {each.thread for each in some.threads} == set(
            ["9", "organizer", "8", "7", "6", "5", "4", "3", "2"][:most]
        )
        assert some.left_out == 10 - most
        assert all(each in whole.threads for each in some.threads)
    assert sensitivity(graph, most=10) == whole
    assert whole.left_out == sensitivity(graph, threads=["1", "2"], most=1).left_out == 0
    with pytest.raises(ConfigError, match="most must be a whole number from 1"):
        sensitivity(graph, most=0)


def test_a_query_in_a_deadlock_has_nothing_to_speed_up():
    trace = traced([Fork(1), Join(1), Answer(1)], w1=[Fork(1), Join(1), Return(1)], w1_1=[Return(1)])
    with pytest.raises(ConfigError, match="is never answered"):
        sensitivity(compile_trace(trace), protocol=Protocol(capacity=2))


def test_a_speed_up_that_ends_in_a_deadlock_is_told():
    """Two slots, for workers 1 and 2 or for 1 and its own 1.1. A faster organizer forks 2 before 1 forks 1.1: then both
    workers wait for a slot for theirs."""
    trace = traced(
        [Fork(1), Think(4), Fork(2), Join(1), Join(2), Answer(1)],
        w1=[Think(3), Fork(1), Join(1), Return(1)],
        w1_1=[Return(5)],
        w2=[Fork(1), Join(1), Return(1)],
        w2_1=[Return(1)],
    )
    result = sensitivity(compile_trace(trace, Protocol(capacity=3)))
    assert [row.thread for row in result.threads if math.isnan(row.saved)] == ["organizer"]
    last = result.threads[-1]
    assert (last.thread, last.bound, last.instead) == ("organizer", None, None)
    assert math.isnan(last.saved_at_zero) and math.isnan(last.moved)


# ---------------------------------------------------------------- laws


@given(GRAPHS, st.data())
def test_scale_1_is_the_identity(graph, data):
    gpu = data.draw(gpus())
    same = what_if(graph, thread=[thread.id for thread in graph.threads], scale=1)
    assert same == graph
    assert same is graph
    again = what_if(replace(graph, trace=None), task=range(len(graph)), scale=1.0)
    assert [task[:-1] for task in again.tasks] == [task[:-1] for task in graph.tasks] and again.threads == graph.threads
    assert same_run(simulate(again, gpu=gpu), simulate(graph, gpu=gpu))


@given(GRAPHS, SCALES, st.data())
def test_slack_and_drag_say_what_becomes_of_the_latency(graph, scale, data):
    """One task at a time, e longer or d shorter: closed form, longest path of the changed graph, and simulation."""
    graph = replace(graph, trace=None)
    i = data.draw(st.integers(0, len(graph) - 1))
    row = slack_table(graph)[i]
    other = what_if(graph, task=i, scale=scale)
    change = sum(map(other.weight, range(len(other)))) - sum(map(graph.weight, range(len(graph))))
    expected = critical_path(graph).latency + (max(0, change - row.slack) if change > 0 else -min(-change, row.drag))
    assert critical_path(other).latency == expected
    assert simulate(other).latency[0] == expected


@given(GRAPHS)
def test_slack_against_networkx(graph):
    g = to_networkx(graph)
    rows = slack_table(graph)
    useful = {graph.answer} | networkx.ancestors(g, graph.answer)

    def longest(nodes):
        if not {0, graph.answer} <= nodes:
            return -math.inf
        sub = g.subgraph(nodes)
        sub = sub.subgraph(
            ({0} | networkx.descendants(sub, 0)) & ({graph.answer} | networkx.ancestors(sub, graph.answer))
        )
        if graph.answer not in sub:
            return -math.inf
        level = {}
        for node in networkx.topological_sort(sub):
            level[node] = g.nodes[node]["steps"] + max((level[u] for u in sub.predecessors(node)), default=0)
        return level[graph.answer]

    latency = longest(set(g))
    for i, row in enumerate(rows):
        if i not in useful:
            assert (row.slack, row.drag) == (math.inf, 0)
            continue
        assert 0 <= row.free_slack <= row.slack
        assert row.drag == latency - max(longest(set(g) - {i}), latency - row.slack - row.weight)
        assert row.critical or row.drag == 0
        assert 0 <= row.drag <= row.weight


@given(GRAPHS, st.data())
def test_free_slack_delays_nobody(graph, data):
    i = data.draw(st.integers(0, len(graph) - 1))
    row = slack_table(graph)[i]
    weights = [graph.weight(j) for j in range(len(graph))]
    by = 5 if math.isinf(row.free_slack) else row.free_slack
    start = critical_path(graph).start
    weights[i] += by
    moved = critical_path(graph, weights).start
    assert math.isinf(row.free_slack) or moved == start
    weights[i] += 1
    if not math.isinf(row.free_slack) and i != graph.answer:
        assert critical_path(graph, weights).start != start


@given(ALL, RULES, SCALES, st.data())
def test_trace_and_graph_agree(trace, protocol, scale, data):
    """The decode-step clock, which walks the changed trace, and the longest path of the changed tasks."""
    protocol = protocol.with_(charge_inserted=False)
    graph = compile_trace(trace, protocol)
    name = data.draw(st.sampled_from([thread.id for thread in graph.threads]))
    cap = data.draw(st.sampled_from((None, 0, 3)))
    one = what_if(graph, thread=name, scale=scale, max_tokens=cap)
    other = what_if(replace(graph, trace=None), thread=name, scale=scale, max_tokens=cap)
    assert decode_clock(one.trace, protocol).latency == critical_path(one).latency == critical_path(other).latency
    assert simulate(one).latency[0] == critical_path(one).latency
    assert measure(simulate(one)).critical_path_steps == critical_path(one).latency
    assert one.tokens == other.tokens
    assert [thread.inserted for thread in one.threads] == [thread.inserted for thread in other.threads]
    total = sum(task.tokens for task in graph.tasks if graph.threads[task.thread].id == name)
    expected = min(math.floor(total * scale + 0.5), total * 9 if cap is None else cap)
    assert sum(task.tokens for task in other.tasks if graph.threads[task.thread].id == name) == expected
    rest = graph.tokens - total
    assert other.tokens == rest + expected


@given(ALL, RULES, SCALES, st.data())
def test_only_the_thread_changes_and_no_rule_is_broken_anew(trace, protocol, scale, data):
    graph = compile_trace(trace, protocol)
    name = data.draw(st.sampled_from([thread.id for thread in graph.threads]))
    new = what_if(graph, thread=name, scale=scale).trace
    for before, after in zip(trace.threads, new.threads, strict=True):
        assert before.prompt_tokens - before.shared_tokens == after.prompt_tokens - after.shared_tokens
        if before.id != name:
            assert before.actions == after.actions
        assert [type(action) for action in before.actions] == [type(action) for action in after.actions]
        for one, other in zip(before.actions, after.actions, strict=True):
            if not isinstance(one, Delay):
                assert (other.tokens - one.tokens) * (scale - 1) >= 0
    assert check(new) == check(trace)


@given(GRAPHS, st.sampled_from((0.0, 0.3, 0.5, 0.9)))
def test_on_a_free_machine_a_speed_up_never_costs(graph, scale):
    protocol = Protocol(charge_inserted=graph.protocol.charge_inserted, delay_steps_per_second=1.0)
    graph = compile_trace(graph.trace, protocol)
    result = sensitivity(graph, scale=scale)
    assert result.latency == critical_path(graph).latency
    for row in result.threads:
        assert 0 <= row.saved <= row.saved_at_zero
        assert row.saved_at_zero <= result.latency
        assert row.saved == 0 or row.slack == 0
        assert row.latency == critical_path(what_if(graph, thread=row.thread, scale=scale)).latency
    assert sum(row.share for row in result.threads) == pytest.approx(1 if result.latency else 0)
    assert [row.saved for row in result.threads] == sorted((row.saved for row in result.threads), reverse=True)


@given(traces(nested=True, delays=SECONDS, prompts=True), protocols(), st.data())
def test_path_changes_add_up(trace, protocol, data):
    gpu = data.draw(gpus())
    graph = compile_trace(trace, protocol)
    name = data.draw(st.sampled_from([thread.id for thread in graph.threads]))
    runs = [simulate(each, gpu=gpu, on_deadlock="record") for each in (graph, what_if(graph, thread=name, scale=0.5))]
    if any(np.isnan(run.answered).any() for run in runs):
        return
    before, after = runs
    change = path_change(before, after)
    assert sum(change.before.values()) == pytest.approx(before.latency[0])
    assert sum(change.after.values()) == pytest.approx(after.latency[0])
    assert 0 <= change.moved <= 1
    assert (change.instead is None) == (change.moved == 0)
    same = path_change(before, before)
    assert (same.moved, same.instead) == (0, None)
    assert set(change.after) <= {*(thread.id for thread in graph.threads), "wait_batch", "wait_pool"}


@given(traces(nested=True, delays=SECONDS, prompts=True), protocols(), st.sampled_from((1, 4, 16)), st.booleans())
def test_every_machine_and_protocol_has_an_answer(trace, protocol, block_size, caching):
    """With KV memory, preemption and all that a full pool does: nothing breaks, and what is said is consistent."""
    total = trace.tokens + sum(thread.prompt_tokens for thread in trace.threads)
    inserted = sum(action.inserted_tokens for _, _, action in trace.actions() if isinstance(action, Join))
    blocks = (total + inserted) // block_size + 2  # the largest request fits, all of them do not
    cost = LinearBatch(2.0**-6, 2.0**-10, 0.0, 2.0**-10, 0.0)
    gpu = GPU(cost=cost, num_kv_blocks=blocks, block_size=block_size, prefix_caching=caching, max_num_seqs=2)
    graph = compile_trace(trace, protocol)
    if np.isnan(simulate(graph, gpu=gpu, on_deadlock="record").answered[0]):
        return
    result = sensitivity(graph, gpu=gpu, scale=0.5)
    assert sorted(row.thread for row in result.threads) == sorted(thread.id for thread in graph.threads)
    assert sum(row.tokens for row in result.threads) == graph.tokens
    for row in result.threads:
        assert math.isnan(row.latency) or row.saved == result.latency - row.latency
        assert 0 <= row.share <= 1
        assert row.slack >= 0


@given(st.lists(traces(prompts=True), min_size=2, max_size=3), st.data())
def test_loaded_runs_are_the_runs_one_would_start_oneself(several, data):
    graphs = [compile_trace(trace, Protocol(capacity=3)) for trace in several]
    gpu = data.draw(gpus())
    query = data.draw(st.integers(0, len(graphs) - 1))
    arrivals = data.draw(st.sampled_from((None, [0.0, 1.0, 2.0][: len(graphs)], ClosedLoop(1))))
    run = {"gpu": Cluster(replicas=[gpu, gpu]), "arrivals": arrivals, "max_workers": 2}
    result = sensitivity(graphs, query=query, **run)
    assert result.latency == simulate(graphs, **run).latency[query]
    for row in result.threads:
        changed = [*graphs[:query], what_if(graphs[query], thread=row.thread, scale=0.5), *graphs[query + 1 :]]
        after = simulate(changed, **run)
        assert row.latency == after.latency[query]
        worked = [
            piece.finish - piece.start
            for piece in realised_path(simulate(graphs, **run), query)
            if graphs[query].threads[piece.thread].id == row.thread and not piece.kind.value.startswith("wait")
        ]
        assert row.share * result.latency == pytest.approx(sum(worked))


def test_on_a_real_profile_with_memory():
    graph = drawn()
    gpu = replace(load_profile("h100-qwen3-8b"), num_kv_blocks=64)
    result = sensitivity(graph, gpu=gpu, scale=0)
    assert result.best is not None and result.best.thread == "2"
    assert all(row.saved == row.saved_at_zero for row in result.threads)
