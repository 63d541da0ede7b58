"""Laws of the simulation: what must hold whatever is simulated, and what one would like to hold but does not."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from itertools import pairwise

import msgspec
from hypothesis import assume, given
from hypothesis import strategies as st

from simulator import (
    GPU,
    ConstantRate,
    Delay,
    ExecutionGraph,
    Join,
    Protocol,
    Thread,
    Timeline,
    Trace,
    compile_trace,
    critical_path,
    decode_clock,
    simulate,
)
from simulator.machine.policy import POLICIES
from simulator.timeline import CANCELLED
from simulator.trace.full_pool import WHEN_FULL, Admission
from tests.support.strategies import SECONDS, any_traces, arrivals, free_graphs, gpus, graphs, protocols, traces

TIMES = ("waited_from", "slotted", "granted", "ready", "start", "decode_start", "finish")
GRAPHS = st.one_of(
    graphs(nested=True, delays=SECONDS, unjoined=True, prompts=True), any_traces().map(compile_trace), free_graphs()
)
UNIT = st.lists(graphs(nested=True, min_tokens=1), min_size=1, max_size=3)
"""Queries whose threads all end before the answer, with nothing but tokens in them."""
policies = st.sampled_from(list(POLICIES.values()))


def unit(m: int | None) -> GPU:
    """One token, one step; `m` places in the batch."""
    return GPU(max_num_seqs=m)


def rows(timeline: Timeline) -> list[dict[str, float]]:
    return [row._asdict() for row in timeline.stays()]


def work(graphs: list[ExecutionGraph]) -> int:
    return sum(graph.tokens for graph in graphs)


# One token a step, room for everybody: the simulation is the decode-step clock.


@given(st.one_of(traces(nested=True, delays=SECONDS, unjoined=True), any_traces()), st.sampled_from((0.0, 1.0, 1.5)))
def test_with_room_for_all_everything_happens_when_the_clock_says(trace, rate):
    protocol = Protocol(delay_steps_per_second=rate, after_answer="finish")
    graph = compile_trace(trace, protocol)
    timeline, clock, path = simulate(graph), decode_clock(trace, protocol), critical_path(graph)
    assert timeline.answered[0] == path.latency == clock.latency
    assert timeline.makespan == path.span
    for thread, (name, *_) in enumerate(graph.threads):
        own = timeline.rows[timeline.rows["thread"] == thread]
        assert (own["waited_from"].min(), own["finish"].max()) == clock.intervals[name]
    for row in rows(timeline):
        assert row["ready"] == row["start"] == path.start[int(row["task"])]
    assert simulate(graph, protocol=protocol.with_(after_answer="cancel")).answered[0] == clock.latency


@given(traces(nested=True, delays=SECONDS), st.sampled_from((1.0, 4.0)))
def test_seconds_are_steps_at_one_step_a_second(trace, rate):
    """The simulation in steps is the simulation in seconds, at a rate that makes every Delay whole steps."""
    trace = msgspec.structs.replace(
        trace,
        threads=tuple(
            msgspec.structs.replace(
                thread, actions=tuple(Delay(1.0) if isinstance(a, Delay) else a for a in thread.actions)
            )
            for thread in trace.threads
        ),
    )
    steps = simulate(compile_trace(trace, Protocol(delay_steps_per_second=rate)))
    seconds = simulate(compile_trace(trace), gpu=GPU(cost=ConstantRate(rate)))
    assert all((steps.rows[name] / rate).tolist() == seconds.rows[name].tolist() for name in TIMES)


@given(traces(nested=True, min_tokens=1, unjoined=True), st.integers(1, 4), st.sampled_from(("cancel", "finish")))
def test_allow_counts_the_overflows_of_the_clock(trace, capacity, after_answer):
    # Every thread ends with a token. Else its end may come after a Fork of the same instant.
    protocol = Protocol(capacity=capacity, when_full="allow", after_answer=after_answer)
    assert simulate(compile_trace(trace, protocol)).overflows[0] == decode_clock(trace, protocol).overflows


@given(traces(min_tokens=1, unjoined=True), st.integers(1, 4), st.sampled_from(("cancel", "finish")))
def test_allow_counts_the_overflows_of_the_clock_where_joins_free_slots(trace, capacity, after_answer):
    # Each Join costs a token. Else the clock would let a Join of the same step, after the Fork, free a slot for it.
    organizer, *workers = trace.threads
    actions = [Join(a.index, max(a.tokens, 1)) if isinstance(a, Join) else a for a in organizer.actions]
    trace = Trace("t", (Thread("organizer", tuple(actions)), *workers))
    protocol = Protocol(capacity=capacity, when_full="allow", after_answer=after_answer, release="join")
    assert simulate(compile_trace(trace, protocol)).overflows[0] == decode_clock(trace, protocol).overflows


@given(GRAPHS, protocols(charge_inserted=False), gpus())
def test_a_pool_nobody_overflows_is_no_pool(graph, protocol, gpu):
    free = simulate(graph, gpu=gpu, protocol=protocol.with_(capacity=None))
    pooled = simulate(graph, gpu=gpu, protocol=protocol, on_deadlock="record")
    assume(not pooled.overflows.any())
    assert pooled.rows.tolist() == free.rows.tolist()


# Bounds on any order of work.


@given(UNIT, policies)
def test_one_place_in_the_batch_makes_the_makespan_the_work(graphs, policy):
    timeline = simulate(graphs, gpu=unit(1), policy=policy)
    assert timeline.makespan == work(graphs)
    assert timeline.busy == timeline.steps == work(graphs)


@given(graphs(nested=True, unjoined=True), st.sampled_from((1, 2)))
def test_an_organizer_that_does_everything_itself_takes_the_work(graph, places):
    alone = Protocol(capacity=1, when_full="inline", after_answer="finish")
    timeline = simulate(graph, gpu=unit(places), protocol=alone)
    assert timeline.makespan == graph.tokens
    assert timeline.overflows[0] == len(graph.threads) - 1


@given(UNIT, st.integers(1, 5), policies)
def test_grahams_bounds(graphs, m, policy):
    """Any order of admission that leaves no place idle is within ``2 - 1/m`` of the best.

    A task holds one place from its admission to its end, and a place is idle only if nothing is ready (see
    `test_no_place_is_idle_while_work_waits`). So at any step either all m places are busy, or one of the tasks of some
    path is decoding: (makespan - span) * m + span <= work. That a thread keeps its place only changes the order.
    """
    makespan = simulate(graphs, gpu=unit(m), policy=policy).makespan
    span = max(critical_path(graph).span for graph in graphs)
    assert max(span, math.ceil(work(graphs) / m)) <= makespan
    assert makespan * m <= work(graphs) + (m - 1) * span


@given(st.lists(GRAPHS, min_size=1, max_size=3), gpus(), policies, st.data())
def test_no_place_is_idle_while_work_waits(graphs, gpu, policy, data):
    times = data.draw(arrivals(gpu, len(graphs)))
    timeline = simulate(graphs, gpu=gpu, arrivals=times, policy=policy)
    limit = min(gpu.max_num_seqs or math.inf, gpu.max_num_batched_tokens or math.inf)
    plans = timeline.batch.tolist()  # (time, batch from then on), one for each time the batch was planned anew
    for row in rows(timeline):
        for time, size in plans:
            assert size <= limit
            if row["ready"] <= time < row["start"]:
                assert size == limit, (time, row)
    # Where no plan falls into the wait, a step was under way: work is ready in it and admitted at its end.
    for (time, size), (following, _) in pairwise(plans):
        if following == time:
            continue
        for row in rows(timeline):
            if time < row["ready"] < following and row["start"] > row["ready"]:
                assert size > 0 and row["start"] >= following


@given(UNIT, st.integers(1, 4), policies)
def test_no_place_is_idle_while_work_waits_step_by_step(graphs, m, policy):
    done = rows(simulate(graphs, gpu=unit(m), policy=policy))
    for row in done:
        for step in range(int(row["ready"]), int(row["start"])):
            assert sum(other["start"] <= step < other["finish"] for other in done) == m


# What happens to each task.


@given(st.lists(GRAPHS, min_size=1, max_size=3), gpus(), protocols(charge_inserted=False), policies, st.data())
def test_tasks_run_once_after_what_they_wait_for(graphs, gpu, protocol, policy, data):
    times = data.draw(arrivals(gpu, len(graphs)))
    timeline = simulate(graphs, gpu=gpu, protocol=protocol, arrivals=times, policy=policy, on_deadlock="record")
    at = {(int(row["query"]), int(row["task"])): row for row in rows(timeline)}
    assert len(at) == len(timeline.rows)
    for (query, task), row in at.items():
        graph = graphs[query]
        assert graph.tasks[task].thread == row["thread"]
        marks = [row[name] for name in TIMES]
        assert marks == sorted(marks), row
        assert row["waited_from"] >= times[query]
        assert row["tokens"] <= graph.tasks[task].tokens
        cut = int(row["flags"]) & CANCELLED
        assert not cut or graph.tasks[task].seconds or row["tokens"] < graph.tasks[task].tokens
        for before in graph.predecessors()[task]:
            if (query, before) in at:  # a dropped worker has no rows
                assert row["ready"] >= at[query, before]["finish"]
    for query, graph in enumerate(graphs):
        ran = [row for (number, _), row in at.items() if number == query]
        whole = not any(int(row["flags"]) & CANCELLED for row in ran)
        if not math.isnan(timeline.answered[query]):
            assert timeline.answered[query] == at[query, graph.answer]["finish"]
        if whole and not (timeline.deadlocks or timeline.overflows[query]):
            if protocol.after_answer == "finish":
                assert len(ran) == len(graph)
                assert sum(row["tokens"] for row in ran) == graph.tokens
            assert [row["granted"] for row in ran] == [row["waited_from"] for row in ran]


@given(UNIT, protocols(after_answer="finish", charge_inserted=False), gpus())
def test_tokens_are_conserved(graphs, protocol, gpu):
    assume(Admission.DROP not in WHEN_FULL[protocol.when_full].may)
    timeline = simulate(graphs, gpu=gpu, protocol=protocol, on_deadlock="record")
    assume(not timeline.deadlocks)
    assert len(timeline.rows) == sum(map(len, graphs))
    assert timeline.column("tokens").sum() == work(graphs)
    if isinstance(gpu.cost, ConstantRate):  # each token is one sequence's share of one step
        sizes = timeline.batch.tolist()
        area = sum(size * (after - time) for (time, size), (after, _) in pairwise(sizes))
        assert area * gpu.cost.tokens_per_second == work(graphs)


@given(GRAPHS, protocols(charge_inserted=False), gpus(), st.integers(0, 100))
def test_later_arrival_same_story(graph, protocol, gpu, k):
    now = simulate(graph, gpu=gpu, protocol=protocol, on_deadlock="record")
    later = simulate(graph, gpu=gpu, protocol=protocol, on_deadlock="record", arrivals=[k / 4])
    now_rows, later_rows = now.rows.copy(), later.rows.copy()
    for name in TIMES:
        now_rows[name] += k / 4
    assert now_rows.tolist() == later_rows.tolist()


@given(st.lists(GRAPHS, min_size=2, max_size=3), protocols(charge_inserted=False), st.data())
def test_on_a_gpu_with_room_for_all_at_one_pace_queries_do_not_notice_each_other(graphs, protocol, data):
    times = [float(data.draw(st.integers(0, 9))) for _ in graphs]
    together = simulate(graphs, gpu=unit(None), protocol=protocol, arrivals=times, on_deadlock="record")
    for query, graph in enumerate(graphs):
        alone = simulate(graph, gpu=unit(None), protocol=protocol, arrivals=[times[query]], on_deadlock="record")
        assert sorted(row[1:] for row in together.stays(query)) == sorted(row[1:] for row in alone.stays())


@given(st.lists(GRAPHS, min_size=1, max_size=3), gpus(), protocols(charge_inserted=False), policies)
def test_the_same_again_is_the_same(graphs, gpu, protocol, policy):
    one, two = (simulate(graphs, gpu=gpu, protocol=protocol, policy=policy, on_deadlock="record") for _ in range(2))
    assert one.rows.tobytes() == two.rows.tobytes()
    assert one.batch.tobytes() == two.batch.tobytes()
    assert one.deadlocks == two.deadlocks


SCRIPT = """
import sys
from simulator import GPU, LinearBatch, Protocol, compile_trace, simulate
from simulator.trace.protocol import WHEN_FULL
from simulator.workload import FAMILIES, generate
for when_full in WHEN_FULL:
    protocol = Protocol(capacity=2, when_full=when_full, release="join")
    graphs = [compile_trace(t, protocol) for f in FAMILIES for t in generate(f, 2, seed=3)]
    gpu = GPU(cost=LinearBatch(6e-3, 1e-5, 5e-8, 1e-6), max_num_seqs=4, max_num_batched_tokens=64)
    timeline = simulate(graphs, gpu=gpu, on_deadlock="record")
    sys.stdout.buffer.write(timeline.rows.tobytes() + timeline.batch.tobytes() + repr(timeline.deadlocks).encode())
"""


def test_the_same_bytes_whatever_the_hash_seed():
    out = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert out[0] == out[1]
    assert len(out[0]) > 10_000
