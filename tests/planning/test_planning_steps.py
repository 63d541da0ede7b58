"""Rollout steps: what they take and waste, what changes would save, and traces cut short."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import check
from simulator.engine.simulation import simulate
from simulator.errors import ConfigError
from simulator.formats import native
from simulator.graph.compiler import compile_trace
from simulator.machine.cost import ConstantRate
from simulator.machine.gpu import GPU, Cluster
from simulator.machine.routing import ROUTINGS
from simulator.planning import Change, changes_of, plan_step, rollout_step
from simulator.study import Arrivals, Hardware, Source, Study
from simulator.trace import Answer, Delay, Fork, Join, Outcome, Return, Think, Thread, Trace, ViolationKind
from simulator.trace.protocol import Protocol
from simulator.workload import FAMILIES, cap_tokens, generate

BARE = {"tag": "constant:0", "answer": "constant:0", "query": "constant:0"}


def alone(tokens, name="q"):
    return compile_trace(Trace(f"{name}{tokens}", (Thread("organizer", (Answer(tokens),)),)))


# ---------------------------------------------------------------- a step

# lengths 10, 20, 20, 80 on two GPUs that hold one each, round-robin; a token a second
#   GPU 0  |-10-|-20-|                       busy 30 of 100
#   GPU 1  |-20-|------------80-----------|  busy 100
TWO = Cluster(replicas=[GPU(cost=ConstantRate(1), max_num_seqs=1)] * 2, routing=ROUTINGS["round-robin"])


def test_a_step_by_hand():
    step = rollout_step(simulate([alone(n) for n in (10, 20, 20, 80)], gpu=TWO), slices=5)
    assert (step.queries, step.tokens, step.makespan, step.unit) == (4, 130, 100, "seconds")
    assert (step.last, step.last_query, step.last_latency, step.median_latency) == ("q80", 3, 100, 25)
    assert step.idle.tolist() == [0.7, 0.0]
    assert step.batch.tolist() == [2, 1.5, 1, 1, 1]
    assert step.mean_batch == 1.3
    assert step.tails == {0.9: 0, 0.95: 0, 0.99: 0}  # nine tenths of four are four


def test_the_tail_is_what_is_left_when_nine_tenths_are_answered():
    lengths = [*range(1, 96), 200, 200, 200, 200, 400]
    step = rollout_step(simulate([alone(n) for n in lengths]))
    assert step.tails == {0.9: 1 - 90 / 400, 0.95: 1 - 95 / 400, 0.99: 0.5}


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(1, 4), st.integers(1, 7))
def test_slices_hold_all_the_work(lengths, slots, slices):
    timeline = simulate([alone(n) for n in lengths], gpu=GPU(max_num_seqs=slots))
    step = rollout_step(timeline, slices=slices)
    assert len(step.batch) == slices
    assert math.isclose(step.batch.mean() * step.makespan, sum(lengths))
    assert math.isclose(step.batch.mean(), step.mean_batch)
    assert 1 > step.tails[0.9] >= step.tails[0.95] >= step.tails[0.99] >= 0


def test_a_step_that_stands_still_is_refused():
    ring = Trace(
        "ring",
        (
            Thread("organizer", (Fork(1), Join(1), Answer(1))),
            Thread("1", (Fork(1), Join(1), Return(1))),
            Thread("1.1", (Return(1),)),
        ),
    )
    stuck = simulate(compile_trace(ring, Protocol(capacity=2)), on_deadlock="record")
    with pytest.raises(ConfigError, match="1 queries were never answered"):
        rollout_step(stuck)
    for slices in (0, 2.5, True):
        with pytest.raises(ConfigError, match="slices must be"):
            rollout_step(simulate(alone(3)), slices=slices)


# ---------------------------------------------------------------- changes


def rollout(**changes):
    study = {
        "traces": {
            "a": Source(
                generate="batch",
                options={
                    **BARE,
                    "workers": 3,
                    "rounds": 1,
                    "think": "constant:0",
                    "sub_query": "constant:0",
                    "takeaways": "constant:0",
                    "work": "constant:100",
                },
            )
        },
        "queries": 6,
        "replications": 2,
        "cluster": Hardware(gpu="rate:100", max_num_seqs=3),
        "protocol": Protocol(capacity=4),
    }
    return Study(**{**study, **changes})


def test_what_changes_save_is_counted_on_paper():
    """Six queries of three workers of a second each, three places: six seconds."""
    planned = plan_step(rollout(), changes_of(rollout(), caps=[50, 200], capacities=[2, 4], replicas=[1, 2, 3]))
    assert planned.makespan == (6, 6, 6) and planned.gpus == 1 and len(planned.steps) == 2
    found = {each.change.name: each for each in planned.savings}
    assert list(found) == [
        "workers to 50 tokens",
        "workers to 200 tokens",
        "capacity 2",
        "replicas 2",
        "replicas 3",
        "longest first",
    ]
    half = found["workers to 50 tokens"]
    assert (half.makespan, half.saved, half.low, half.high, half.share, half.tokens_cut) == (3, 3, 3, 3, 0.5, 0.5)
    assert found["workers to 200 tokens"].saved == 0 == found["workers to 200 tokens"].tokens_cut
    assert [found[f"replicas {n}"].makespan for n in (2, 3)] == [3, 2]
    assert [found[f"replicas {n}"].gpu_time for n in (2, 3)] == [6, 6]
    assert found["capacity 2"].makespan >= 6


def test_longest_first_saves_what_graham_says(tmp_path):
    """Two places: 2, 2 and then 4 take 6 steps; 4 beside 2 and 2 takes 4."""
    traces = [alone(n).trace for n in (2, 2, 4)]
    (tmp_path / "t.jsonl").write_bytes(b"".join(native.encode(trace) + b"\n" for trace in traces))
    source = Source(files=("t.jsonl",))
    study = Study(traces={"a": source}, cluster=Hardware(max_num_seqs=2), base=str(tmp_path), replications=1)
    planned = plan_step(study, changes_of(study))
    [saving] = planned.savings
    assert (planned.steps[0].makespan, saving.makespan, saving.saved) == (6, 4, 2)
    assert math.isnan(saving.low)  # one replication has no interval


@pytest.mark.parametrize(
    "settings",
    [
        {"queries": 3},
        {"samples": 2},
        {"seed": 2},
        {"traces.a.weight": 2.0},
        {"arrivals.kind": "closed", "arrivals.users": 2},
        {"window.warmup": 1.0},
    ],
)
def test_a_change_of_the_queries_is_refused(settings):
    with pytest.raises(
        ConfigError, match="one of cluster or protocol, on the same queries; got " + next(iter(settings))
    ):
        plan_step(rollout(), [Change(name="other", settings=settings)])


def test_a_change_that_is_compiled_into_graphs_is():
    """Read at 100 a second, what Joins insert takes time: as a study that says so from the start."""
    costly = {"takeaways": "constant:100", "think": "constant:0"}
    source = Source(generate="batch", options={**rollout().traces["a"].options, **costly})
    study = rollout(traces={"a": source})
    charged = rollout(traces={"a": source}, protocol=Protocol(capacity=4, charge_inserted=True))
    [saving] = plan_step(study, [Change(name="charged", settings={"protocol.charge_inserted": True})]).savings
    assert saving.makespan == plan_step(charged).makespan[0] > plan_step(study).makespan[0]


def test_what_a_change_cannot_run_is_said():
    """A request of two hundred tokens does not fit into the memory that is left."""
    study = rollout(cluster=Hardware(gpu="rate:100", num_kv_blocks=100))
    tight = Change(name="no memory", settings={"cluster.num_kv_blocks": 2})
    [saving] = plan_step(study, [tight]).savings
    assert (math.isnan(saving.makespan) and "KV" in saving.why) or "block" in saving.why


def test_groups_stay_together_when_the_longest_go_first():
    from simulator.planning.changes import _longest_first

    traces = [Trace(f"t{n}", (Thread("organizer", (Answer(n),)),)) for n in (5, 1, 9, 2, 30, 1)]
    graphs = [compile_trace(trace) for trace in traces]
    assert [graph.name for graph in _longest_first(graphs, 1)] == ["t30", "t9", "t5", "t2", "t1", "t1"]
    assert [graph.name for graph in _longest_first(graphs, 3)] == ["t2", "t30", "t1", "t5", "t9", "t1"]


@pytest.mark.parametrize(
    ("study", "options", "message"),
    [
        (rollout(arrivals=Arrivals(kind="poisson", rate=1)), {}, "arrivals kind together, not poisson"),
        (rollout(axes={"protocol.capacity": [2, 3]}), {}, "axes"),
        (rollout(), {"replications": 0}, "replications must be"),
        (rollout(), {"changes": [Change(name="x", settings={"cluster.replicsa": 2})]}, "did you mean replicas"),
    ],
)
def test_what_is_no_step(study, options, message):
    with pytest.raises(ConfigError, match=message):
        plan_step(study, **options)


def test_a_cap_is_a_number_of_tokens():
    for cap in (0, -1, 2.5, True):
        with pytest.raises(ConfigError, match="a cap on worker tokens must be"):
            Change(name="x", worker_cap=cap)


# ---------------------------------------------------------------- traces cut short


def worker(*actions, organizer=None, **changes):
    threads = (Thread("organizer", organizer or (Fork(1, 3), Join(1, 2, 40), Answer(5))), Thread("1", actions))
    return Trace("t", threads, **changes)


@pytest.mark.parametrize(
    ("actions", "cap", "left", "inserted"),
    [
        ((Think(900), Return(40)), 512, (Think(472), Return(40)), 40),
        ((Think(100), Return(40)), 140, (Think(100), Return(40)), 40),
        ((Think(10), Think(10), Return(5)), 17, (Think(10), Think(2), Return(5)), 40),
        ((Think(10), Delay(3.0), Think(10), Return(5)), 17, (Think(10), Delay(3.0), Think(2), Return(5)), 40),
        ((Think(10), Return(50)), 30, (Return(30),), 20),
        ((Think(10),), 4, (Think(4),), 40),
        ((Think(10), Return(5), Think(99)), 12, (Think(7), Return(5)), 40),
    ],
)
def test_a_cut_keeps_what_came_first_and_room_to_return(actions, cap, left, inserted):
    cut = cap_tokens(worker(*actions), worker=cap)
    assert cut.threads[1].actions == left
    assert cut.threads[0].actions[1].inserted_tokens == inserted


def test_what_a_cut_worker_would_have_forked_never_was():
    trace = Trace(
        "t",
        (
            Thread("organizer", (Fork(1), Join(1), Answer(1))),
            Thread("1", (Think(10), Fork(1), Think(50), Fork(2), Join(1), Join(2), Return(5))),
            Thread("1.1", (Fork(7), Join(7), Return(1))),
            Thread("1.1.7", (Return(1),)),
            Thread("1.2", (Fork(3), Join(3), Return(1))),
            Thread("1.2.3", (Return(1),)),
        ),
    )
    cut = cap_tokens(trace, worker=20)
    assert [thread.id for thread in cut.threads] == ["organizer", "1", "1.1", "1.1.7"]
    assert cut.threads[1].actions == (Think(10), Fork(1), Think(5), Return(5))
    assert {violation.kind for violation in check(cut)} == {ViolationKind.UNJOINED_WORKER}


def test_a_later_worker_shares_what_is_left_of_its_parents_context():
    """Worker 1 returns 30 tokens for 100, so 70 less are inserted, and worker 2's prompt is 70 shorter."""
    organizer = Thread("organizer", (Think(10), Fork(1), Join(1, 0, 100), Fork(2), Join(2), Answer(1)), 5)
    one, two = Thread("1", (Return(100),), 15, 15), Thread("2", (Fork(1), Join(1), Return(1)), 125, 115)
    cut = cap_tokens(Trace("t", (organizer, one, two, Thread("2.1", (Return(1),), 127, 125))), worker=30)
    prompts = [(thread.prompt_tokens, thread.shared_tokens) for thread in cut.threads]
    assert prompts == [(5, 0), (15, 15), (55, 45), (57, 55)]


def test_what_is_no_longer_known_is_left_out():
    trace = worker(Think(90, "long", 1.0, 2.0), Return(4), outcome=Outcome(correct=True), meta={"group": 3})
    cut = cap_tokens(trace, worker=10)
    assert cut.outcome is None and cut.meta == {"group": 3, "tokens_cut": 84}
    assert cut.threads[1].actions[0] == Think(6)
    assert cap_tokens(trace, worker=94) is trace


@given(st.sampled_from(list(FAMILIES)), st.integers(0, 50), st.integers(1, 600), st.integers(1, 600))
def test_laws_of_cuts(family, seed, one, other):
    """No worker beyond its cap, the organizer as it was, twice the same as once, and a tighter cap never holds more."""
    [trace] = generate(family, 1, seed=seed)
    small, large = sorted((one, other))
    cut, less = (cap_tokens(trace, worker=cap) for cap in (large, small))
    assert all(thread.tokens <= large for thread in cut.threads[1:])
    assert cut.organizer.tokens == trace.organizer.tokens
    assert cap_tokens(cut, worker=large) is cut
    assert less.tokens <= cut.tokens <= trace.tokens
    assert simulate(compile_trace(cut)).makespan <= simulate(compile_trace(trace)).makespan
    if cut is not trace:
        assert cut.meta["tokens_cut"] == trace.tokens - cut.tokens
    assert {violation.kind for violation in check(cut)} <= {ViolationKind.UNJOINED_WORKER}


def test_a_cap_must_be_whole():
    for cap in (0, 1.5, "7"):
        with pytest.raises(ConfigError, match="worker must be a whole number"):
            cap_tokens(worker(Return(1)), worker=cap)
