"""Several replicas, and prefixes shared between queries, on paper. A step takes 1 s, a prompt token `T` more."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import (
    GPU,
    Answer,
    Cluster,
    ConfigError,
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
    Timeline,
    Trace,
    compile_trace,
    measure,
    simulate,
    summarize,
)
from simulator.machine.routing import ROUTINGS, Choice, prefix_affinity, round_robin
from tests.support.strategies import arrivals, gpus, protocols, traces

T = 2.0**-10
PROMPTS = GPU(cost=LinearBatch(1.0, p=T))
PAGED = replace(PROMPTS, num_kv_blocks=1000, block_size=1)


def query(prompt: int, tokens: int, name: str = "t", shared: int = 0, prefix_of: str | None = None) -> ExecutionGraph:
    organizer = Thread("organizer", (Answer(tokens),), prompt, shared)
    return compile_trace(Trace(name, (organizer,), prefix_of=prefix_of))


def forking() -> ExecutionGraph:
    """A prompt of 8, two tokens, a Fork; the worker has a prompt of 8 + 2; a Join inserts 4; two tokens more."""
    organizer = Thread("organizer", (Fork(1, 2), Join(1, inserted_tokens=4), Answer(2)), 8)
    return compile_trace(Trace("t", (organizer, Thread("1", (Return(2),), 10, 8))))


def replicas(timeline: Timeline) -> list[int]:
    """Of each task that was on a GPU, in order of its start: where."""
    rows = sorted(timeline.stays(), key=lambda row: (row.start, row[:3]))
    return [row.replica for row in rows if row.replica >= 0]


def test_least_loaded_takes_the_first_of_the_emptiest():
    """Three queries of 4 tokens at 0, two of 1 at 1: both replicas of two, then one has a query less."""
    cluster = Cluster(replicas=[GPU()] * 2)
    timeline = simulate([query(0, 4)] * 3 + [query(0, 1)] * 2, gpu=cluster, arrivals=[0, 0, 0, 1, 1])
    assert timeline.column("replica").tolist() == [1, 0, 0, 1, 0]  # in order of finish: the short ones first
    assert [row.replica for row in sorted(timeline.stays())] == [0, 1, 0, 1, 0]
    assert timeline.answered.tolist() == [4, 4, 4, 2, 2]


def test_replicas_have_steps_and_batches_of_their_own():
    """Replica 0 takes 2 s a step, replica 1 takes 1 s; a place each. Queries of 2, 2 and 3 tokens, in turn.

    replica 0   0 0 0 0 2 2 2 2 2 2
    replica 1   1 1
    """
    cluster = Cluster(
        replicas=[GPU(cost=ConstantRate(0.5), max_num_seqs=1), GPU(cost=ConstantRate(1), max_num_seqs=1)],
        routing=round_robin,
    )
    timeline = simulate([query(0, 2), query(0, 2), query(0, 3)], gpu=cluster)
    assert timeline.answered.tolist() == [4, 2, 10]
    assert [(replica.steps, replica.busy) for replica in timeline.replicas] == [(5, 10), (2, 2)]
    assert (timeline.steps, timeline.busy, timeline.max_num_seqs) == (7, 12, 2)
    assert timeline.replicas[1].batch.tolist() == [[0, 1], [2, 0]]
    sizes = {time: size for time, size in timeline.batch.tolist()}
    assert sizes == {0: 2, 2: 1, 4: 1, 10: 0}
    summary = summarize(timeline)
    assert summary["utilization"] == pytest.approx(12 / 20)
    assert summary["mean_batch"] == pytest.approx(12 / 10)
    assert measure(timeline, 1).speedup == 1  # alone on the replica where it ran


@pytest.mark.parametrize(("gpu", "again"), [(PROMPTS, 0), (PAGED, 1)], ids=["endless", "paged"])
def test_what_is_not_on_a_replica_is_processed_there(gpu, again):
    """Round robin over two: the organizer on 0, the worker on 1, the organizer on 0 again.

    The worker's prompt of 10 is not on replica 1. The organizer's 10 tokens are on replica 0, but for the last one
    where memory is modelled, and 4 more are inserted. With prefix affinity the worker has 8 of its 10 at once.
    """
    cluster = Cluster(replicas=[gpu] * 2, routing=round_robin)
    timeline = simulate(forking(), gpu=cluster)
    assert replicas(timeline) == [0, 1, 0]
    # (1 + 8T) + 1, then (1 + 10T) + 1, then (1 + 4T) + 1
    assert timeline.answered[0] == 6 + (8 + 10 + 4 + again) * T
    together = simulate(forking(), gpu=replace(cluster, routing=prefix_affinity))
    assert replicas(together) == [0, 0, 0]
    assert together.answered[0] == 6 + (8 + 2 + 4 + again) * T


def test_an_organizer_that_moves_takes_nothing_along():
    """Three replicas in turn: organizer 0, worker 1, organizer 2: all 14 tokens are processed there."""
    timeline = simulate(forking(), gpu=Cluster(replicas=[PROMPTS] * 3, routing=round_robin))
    assert replicas(timeline) == [0, 1, 2]
    assert timeline.answered[0] == 6 + (8 + 10 + 14) * T


def test_a_kept_place_is_not_routed():
    """A Fork does not interrupt the organizer; it goes on where it is, and the worker is request number 1."""
    organizer = Thread("organizer", (Fork(1, 2), Answer(5)))
    graph = compile_trace(Trace("t", (organizer, Thread("1", (Return(2),)))))
    timeline = simulate(graph, gpu=Cluster(replicas=[GPU()] * 3, routing=round_robin))
    assert {(row.thread, row.replica) for row in timeline.stays()} == {(0, 0), (1, 1)}


@pytest.mark.parametrize(("gpu", "again"), [(PROMPTS, 0), (PAGED, 1)], ids=["endless", "paged"])
def test_the_next_turn_of_a_conversation_finds_the_last(gpu, again):
    """Turn 1: 6 + 3 tokens. Turn 2's prompt begins with those 9 and has 2 more, turn 3's with 12 of its 13 and 3 more.

    Where memory is modelled, the last token of a turn was never in it.
    """
    turns = [query(6, 3, "1"), query(11, 2, "2", 9, "1"), query(16, 1, "3", 13, "2")]
    timeline = simulate(turns, gpu=gpu, arrivals=[0, 10, 20])
    assert timeline.latency.tolist() == [3 + 6 * T, 2 + (2 + again) * T, 1 + (3 + again) * T]
    alone = simulate(turns[1], gpu=gpu)  # nobody has computed its prefix
    assert alone.latency.tolist() == [2 + 11 * T]
    # In turn over two replicas: turn 2 finds nothing, turn 3 of turn 1's 9 tokens those that it shares with it.
    apart = simulate(turns, gpu=Cluster(replicas=[gpu] * 2, routing=round_robin), arrivals=[0, 10, 20])
    assert apart.latency.tolist() == [3 + 6 * T, 2 + 11 * T, 1 + (16 - 9 + again) * T]
    near = simulate(turns, gpu=Cluster(replicas=[gpu] * 2, routing=prefix_affinity), arrivals=[0, 10, 20])
    assert near.latency.tolist() == timeline.latency.tolist()


def test_a_prefix_of_somebody_still_to_come_is_nobodys():
    later = [query(6, 3, "1"), query(11, 2, "2", 9, "1")]
    for gpu in (PROMPTS, PAGED):
        assert simulate(later, gpu=gpu, arrivals=[10, 0]).latency.tolist() == [3 + 6 * T, 2 + 11 * T]


def test_a_long_conversation_is_no_deep_recursion():
    turns = [query(1, 1, "0")] + [query(i + 1, 1, str(i), i, str(i - 1)) for i in range(1, 1500)]
    paged = replace(PAGED, num_kv_blocks=4000)
    for cluster in (paged, Cluster(replicas=[paged] * 2, routing=round_robin), Cluster(replicas=[PROMPTS] * 2)):
        timeline = simulate(turns, gpu=cluster, arrivals=[2.0 * i for i in range(1500)])
        assert timeline.answered[-1] < 3000


def test_a_cluster_of_one_is_that_gpu():
    for gpu in (GPU(), PROMPTS, PAGED):
        one = simulate([forking()] * 3, gpu=gpu, arrivals=[0, 1, 2])
        for routing in ROUTINGS.values():
            cluster = simulate([forking()] * 3, gpu=Cluster(replicas=[gpu], routing=routing), arrivals=[0, 1, 2])
            assert cluster.rows.tobytes() == one.rows.tobytes()


@settings(max_examples=60)
@given(
    st.lists(traces(min_tokens=1, prompts=True), min_size=1, max_size=4),
    protocols(charge_inserted=False, capacity=None),
    st.lists(gpus(), min_size=1, max_size=3),
    st.sampled_from(list(ROUTINGS.values())),
    st.data(),
)
def test_laws_of_any_cluster(recorded, protocol, machines, routing, data):
    """Every token is decoded once, no replica holds more than it may, and a second run is the same."""
    machines = [replace(gpu, cost=LinearBatch(1.0, 0.25, p=T)) for gpu in machines]
    graphs = [compile_trace(trace, protocol) for trace in recorded]
    protocol = replace(protocol, after_answer="finish")
    times = data.draw(arrivals(machines[0], len(graphs)))
    cluster = Cluster(replicas=machines, routing=routing)
    timeline = simulate(graphs, gpu=cluster, protocol=protocol, arrivals=times)
    assert timeline.column("tokens").sum() == sum(graph.tokens for graph in graphs)
    for index, replica in enumerate(timeline.replicas):
        assert replica.batch[:, 1].max(initial=0) <= (replica.gpu.max_num_seqs or 1 << 60)
        decoded = timeline.rows[timeline.rows["replica"] == index]
        assert replica.busy <= timeline.makespan + 1e-9
        assert (replica.steps > 0) == (len(decoded) > 0)
    again = simulate(graphs, gpu=cluster, protocol=protocol, arrivals=times)
    assert again.rows.tobytes() == timeline.rows.tobytes()


def test_unlike_replicas_are_told_apart_by_a_function_of_ones_own():
    """Organizers to the large GPU, workers to the small one."""

    def by_role(choice: Choice) -> int:
        return 1 if choice.thread else 0

    cluster = Cluster(replicas=[GPU(cost=ConstantRate(1)), GPU(cost=ConstantRate(4))], routing=by_role)
    timeline = simulate(forking(), gpu=cluster)
    assert replicas(timeline) == [0, 1, 0]
    assert timeline.answered[0] == 2 + 0.5 + 2


@pytest.mark.parametrize(
    ("message", "make"),
    [
        ("replicas must be GPUs, at least one", lambda: Cluster(replicas=[])),
        ("replicas must be GPUs, at least one", lambda: Cluster(replicas=[1])),
        ("replicas must be GPUs, at least one", lambda: Cluster(replicas=GPU())),
        ("all take steps", lambda: Cluster(replicas=[GPU(), PROMPTS])),
        ("routing must be a function", lambda: Cluster(replicas=[GPU()], routing=5)),
        ("did you mean round-robin", lambda: Cluster(replicas=[GPU()], routing="round-robins")),
        (
            "routing must return a replica from 0 to 1; got 2",
            lambda: simulate(query(0, 1), gpu=Cluster(replicas=[GPU()] * 2, routing=lambda choice: 2)),
        ),
        ("or a Cluster", lambda: simulate(query(0, 1), gpu=[GPU()])),
    ],
)
def test_what_is_no_cluster_is_refused(message, make):
    with pytest.raises(ConfigError, match=message):
        make()


def test_capacity_knows_no_replicas():
    """A pool of 2 is a pool of 2 on any number of GPUs."""
    organizer = Thread("organizer", (Fork(1, 1), Fork(2, 1), Join(1), Join(2), Answer(1)))
    graph = compile_trace(Trace("t", (organizer, Thread("1", (Return(4),)), Thread("2", (Return(4),)))))
    timeline = simulate(graph, gpu=Cluster(replicas=[GPU()] * 4), protocol=Protocol(capacity=2))
    assert timeline.overflows.tolist() == [1]
    assert timeline.answered.tolist() == [10]


def test_what_ends_when_a_query_arrives_has_left_already():
    """Query 0 arrives as query 1 ends: replica 0 is empty again, whichever event the clock had first."""
    cluster = Cluster(replicas=[GPU(cost=ConstantRate(1))] * 2)
    timeline = simulate([query(0, 1), query(0, 4)], gpu=cluster, arrivals=[4, 0])
    assert replicas(timeline) == [0, 0]


def test_nothing_is_in_memory_of_a_context_of_nothing():
    """Both replicas hold 0 tokens of it, whatever their blocks are; so it goes to the first."""
    large, small = (replace(PAGED, num_kv_blocks=9, block_size=size) for size in (4, 1))
    assert replicas(simulate(query(0, 1), gpu=Cluster(replicas=[large, small], routing=prefix_affinity))) == [0]


def test_affinity_knows_what_a_request_that_ends_now_leaves_behind():
    """The worker is routed first, to 0, the organizer to 1; the Join is ready as the organizer's last step ends.

    9 of its 10 tokens are on replica 1, and none on replica 0, which is as empty.
    """
    organizer = Thread("organizer", (Fork(1), Think(4), Join(1), Answer(2)), 6)
    graph = compile_trace(Trace("t", (organizer, Thread("1", (Return(1),), 1))))
    cluster = Cluster(replicas=[PAGED] * 2, routing=prefix_affinity)
    assert replicas(simulate(graph, gpu=cluster)) == [1, 0, 1]


def test_affinity_in_mid_leap_finds_what_the_parent_has_computed_since_its_fork():
    """Blocks of 3. The organizer forks with 3 tokens, the last not in memory yet, and goes on for 50 steps.

    The worker is ready 5.5 s later, and all 3 tokens that it shares are in a full block by then: it goes to replica 0.
    """
    organizer = Thread("organizer", (Fork(1, 1), Answer(50)), 2)
    graph = compile_trace(Trace("t", (organizer, Thread("1", (Delay(5.5), Return(1)), 4, 3))))
    gpu = replace(PAGED, block_size=3)
    assert replicas(simulate(graph, gpu=Cluster(replicas=[gpu] * 2, routing=prefix_affinity))) == [0, 0, 0]


@pytest.mark.parametrize(("pause", "replica"), [(5.25, 0), (9.25, 1)])
def test_affinity_in_mid_leap_knows_what_has_been_evicted(pause, replica):
    """10 blocks of 1. The first query leaves 5 of them in use; the second takes them one by one, in a leap of 8 steps.

    The first goes on in mid-leap: with some of its blocks left where they are, without any where nobody is.
    """
    first = compile_trace(Trace("a", (Thread("organizer", (Think(1), Delay(pause), Answer(1)), 5),)))
    gpu = replace(PAGED, num_kv_blocks=10)
    cluster = Cluster(replicas=[gpu] * 2, routing=prefix_affinity)
    timeline = simulate([first, query(2, 9)], gpu=cluster, arrivals=[0, 2])
    assert [row.replica for row in sorted(timeline.stays())] == [0, -1, replica, 0]
