"""Metrics and the realised critical path: drawn and computed by hand, then laws on graphs of all kinds."""

import copy
import math
import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import (
    GPU,
    Answer,
    ConfigError,
    ConstantRate,
    Delay,
    Fork,
    Join,
    LinearBatch,
    Outcome,
    Protocol,
    Return,
    Think,
    Thread,
    Trace,
    ViolationKind,
    breakdown,
    compile_trace,
    decode_clock,
    measure,
    realised_path,
    simulate,
    summarize,
)
from simulator.metrics import METRICS, SUMMARIES
from simulator.timeline import SpanKind
from tests.support.strategies import SECONDS, any_traces, costs, gpus, protocols, traces

NAN = math.nan
BOUND_NAMES = ("decode", "worker", "prefill", "delay", "wait_batch", "wait_pool")


def path(timeline, query=0):
    """The realised critical path in short, such as 'o decode 0-5, 1 worker 5-19'."""
    names = ["o", *(thread.id for thread in timeline.graphs[query].threads[1:])]
    return ", ".join(
        f"{names[piece.thread]} {piece.bound} {piece.start:g}-{piece.finish:g}"
        for piece in realised_path(timeline, query)
    )


def bounds(**shares):
    return {f"bound_{name}": shares.get(name, 0.0) for name in BOUND_NAMES}


# ---------------------------------------------------------------- by hand
#
# step       0         5         10        15        20        25
# organizer  |---|-F1--|----|-F2-|--|J1|..............|--|J2|--A-|     3 2F 4 1F 2 1J | 2 1J 2A    T = 24
# worker 1             |------------------------------|                10 4R
# worker 2                       |-----|                               3R

TWO_WORKERS = Trace(
    "two",
    (
        Thread(
            "organizer",
            (Think(3), Fork(1, 2), Think(4), Fork(2, 1), Think(2), Join(1, 1), Think(2), Join(2, 1), Answer(2)),
        ),
        Thread("1", (Think(10), Return(4))),
        Thread("2", (Return(3),)),
    ),
    Outcome(correct=True),
)
LONGER = Trace("longer", (*TWO_WORKERS.threads[:2], Thread("2", (Return(5),))))

ALONE = {
    "latency": 24,
    "ttft": 1,
    "tpot": 23 / 17,  # the organizer decodes 18 tokens
    "itl": 1,
    "queue_time": 0,
    "critical_path_steps": 24,
    "critical_path_seconds": 24,
    "eta": 35 / 24,  # 13 + 5 steps of the organizer, 14 and 3 of the workers
    "eta_over_c": NAN,
    "peak_concurrency": 3,  # from 10 to 13
    "overflows": 0,
    "violation_count": 0,
    "work": 35,
    "speedup_steps": 35 / 24,
    "saved": 11 / 35,
    "speedup": 35 / 24,
    "concurrency": 35 / 24,
    "queueing_delay": 0,
    "wait_join": 6,  # from 13 to 19
    "wait_pool": 0,
    "wait_batch": 0,
    **bounds(decode=10 / 24, worker=14 / 24),
}


def test_the_paper_clock():
    timeline = simulate(compile_trace(TWO_WORKERS))
    metrics = measure(timeline)
    assert metrics.values == pytest.approx(ALONE, nan_ok=True)
    assert list(metrics.values) == list(METRICS)
    assert path(timeline) == "o decode 0-5, 1 worker 5-19, o decode 19-22, o decode 22-24"
    assert (metrics.name, metrics.violations, metrics.outcome) == ("two", (), Outcome(correct=True))


def test_a_pool_that_is_large_enough_changes_eta_over_c_only():
    metrics = measure(simulate(compile_trace(TWO_WORKERS, Protocol(capacity=3))))
    assert metrics.values == pytest.approx({**ALONE, "eta_over_c": 35 / 24 / 3})


def test_a_batch_of_two_holds_up_worker_2_but_nobody_waits_for_it():
    # organizer  |-----13-----|........|-----|      worker 2 is admitted when the organizer pauses, at 13
    # worker 1        |-------14-------|
    # worker 2             ~~~|-3-|
    timeline = simulate(compile_trace(TWO_WORKERS), gpu=GPU(max_num_seqs=2))
    assert measure(timeline).values == pytest.approx({**ALONE, "wait_batch": 3}, nan_ok=True)


def test_a_batch_of_one():
    # organizer  |--13--|..............~~~|-3-|-2-|      first come first served: 1 since 5, 2 since 10
    # worker 1       ~~~|-----14-----|
    # worker 2          ~~~~~~~~~~~~~|-3-|
    timeline = simulate(compile_trace(TWO_WORKERS), gpu=GPU(max_num_seqs=1))
    assert path(timeline) == (
        "o decode 0-5, 1 wait_batch 5-13, 1 worker 13-27, o wait_batch 27-30, o decode 30-33, o decode 33-35"
    )
    assert measure(timeline).values == pytest.approx(
        {
            **ALONE,
            "latency": 35,
            "tpot": 34 / 17,
            "speedup": 1,
            "concurrency": 1,
            "queueing_delay": 11,
            "wait_join": 14,
            "wait_batch": 8 + 17 + 3,
            **bounds(decode=10 / 35, worker=14 / 35, wait_batch=11 / 35),
        },
        nan_ok=True,
    )


FULL = {**ALONE, "eta_over_c": 37 / 24 / 2, "overflows": 1, "violation_count": 1, "work": 37, "eta": 37 / 24} | {
    "speedup_steps": 37 / 24,
    "saved": 13 / 37,
}


@pytest.mark.parametrize(
    ("when_full", "pieces", "changes"),
    [
        (
            # organizer  |--10--|-3-|......|-3-|..|-2-|
            # worker 1      |-----14-----|
            # worker 2          :::::::::|-5--|              in the slot that worker 1 leaves at 19
            "queue",
            "o decode 0-5, o decode 5-10, 2 wait_pool 10-19, 2 worker 19-24, o decode 24-26",
            {"latency": 26, "tpot": 25 / 17, "wait_pool": 9, "queueing_delay": 9, "wait_join": 6 + 2}
            | {"speedup": 37 / 26, "concurrency": 37 / 26}
            | bounds(decode=12 / 26, wait_pool=9 / 26, worker=5 / 26),
        ),
        (
            # organizer  |--10--|::::::::::|-3-|-3-|-2-|
            # worker 1      |-----14-------|
            # worker 2                     |-5--|
            "block",
            "o decode 0-5, o decode 5-10, o wait_pool 10-19, o decode 19-22, o decode 22-25, o decode 25-27",
            {"latency": 27, "tpot": 26 / 17, "wait_pool": 9 + 9, "queueing_delay": 9, "wait_join": 0}
            | {"speedup": 37 / 27, "concurrency": 37 / 27}
            | bounds(decode=18 / 27, wait_pool=9 / 27),
        ),
        (
            # organizer  |--10--|=5=|-3-|..|-3-|-2-|            does worker 2's work itself, 10 to 15: as worker 2
            # worker 1      |-----14-------|
            "inline",
            "o decode 0-5, 1 worker 5-19, o decode 19-22, o decode 22-24",
            {"wait_join": 5 + 1, "speedup": 37 / 24, "concurrency": 37 / 24},
        ),
        (
            # worker 2 never runs
            "drop",
            "o decode 0-5, 1 worker 5-19, o decode 19-22, o decode 22-24",
            {"work": 32, "speedup": 32 / 24, "concurrency": 32 / 24},
        ),
        (
            "allow",
            "o decode 0-5, 1 worker 5-19, o decode 19-22, o decode 22-24",
            {"speedup": 37 / 24, "concurrency": 37 / 24},
        ),
    ],
)
def test_a_full_pool(when_full, pieces, changes):
    timeline = simulate(compile_trace(LONGER, Protocol(capacity=2, when_full=when_full)))
    metrics = measure(timeline)
    assert path(timeline) == pieces
    assert metrics.values == pytest.approx({**FULL, **changes})
    assert [violation.kind for violation in metrics.violations] == [ViolationKind.POOL_OVERFLOW]


def test_a_worker_that_ends_just_in_time_is_not_waited_for():
    # organizer  |-2-|--4--|1|
    # worker 1       |--4--|
    trace = Trace("t", (Thread("organizer", (Fork(1, 2), Think(4), Join(1), Answer(1))), Thread("1", (Return(4),))))
    assert path(simulate(compile_trace(trace))) == "o decode 0-2, o decode 2-6, o decode 6-7"


def test_two_inline_forks_follow_each_other_on_the_path():
    # organizer  |-2-|=3=|=4=|-1-|     both workers are done by the organizer, before its Joins
    trace = Trace(
        "t",
        (
            Thread("organizer", (Fork(1, 2), Fork(2), Join(1), Join(2), Answer(1))),
            Thread("1", (Return(3),)),
            Thread("2", (Return(4),)),
        ),
    )
    timeline = simulate(compile_trace(trace, Protocol(capacity=1, when_full="inline")))
    assert path(timeline) == "o decode 0-2, 1 worker 2-5, 2 worker 5-9, o decode 9-10"
    assert measure(timeline).bound_worker == 0.7


def test_a_worker_whose_last_fork_is_blocked_ends_late():
    # organizer  |1|::::::|...............|1|      its Fork of 2 is blocked until 1 leaves the only slot, at 3
    # worker 1     |--2---|:::::::::::::::|        its Fork of 1.1 is blocked until 2 leaves that slot, at 8
    # worker 2            |-------5-------|
    # worker 1.1                          |3...    nobody waits for it
    trace = Trace(
        "t",
        (
            Thread("organizer", (Fork(1, 1), Fork(2), Join(1), Answer(1))),
            Thread("1", (Fork(1, 2),)),
            Thread("1.1", (Return(3),)),
            Thread("2", (Return(5),)),
        ),
    )
    timeline = simulate(compile_trace(trace, Protocol(capacity=2, when_full="block")))
    assert path(timeline) == "o decode 0-1, 1 worker 1-3, 1 wait_pool 3-8, o decode 8-9"
    assert measure(timeline).bound_wait_pool == pytest.approx(5 / 9)


def test_prompts_take_time():
    # step:  1 + 4 * 0.5 = 3 s for the prompt and the first token, then two more tokens at 1 s
    trace = Trace("t", (Thread("organizer", (Answer(3),), prompt_tokens=4),))
    timeline = simulate(compile_trace(trace), gpu=GPU(cost=LinearBatch(a=1, p=0.5)))
    assert path(timeline) == "o prefill 0-3, o decode 3-5"
    assert measure(timeline).values == pytest.approx(
        {
            "latency": 5,
            "ttft": 3,
            "tpot": 1,
            "itl": 1,
            "queue_time": 0,
            "critical_path_steps": 3,
            "critical_path_seconds": 5,
            "eta": 1,
            "eta_over_c": NAN,
            "peak_concurrency": 1,
            "overflows": 0,
            "violation_count": 0,
            "work": 3,
            "speedup_steps": 1,
            "saved": 0,
            "speedup": 1,
            "concurrency": 1,
            "queueing_delay": 0,
            "wait_join": 0,
            "wait_pool": 0,
            "wait_batch": 0,
            **bounds(prefill=0.6, decode=0.4),
        },
        nan_ok=True,
    )


def test_prompts_are_cut_into_chunks_alone_too():
    # at most 2 tokens a step: the prompt of 4 takes two steps of 1 + 2 * 0.5 s
    trace = Trace("t", (Thread("organizer", (Answer(1),), prompt_tokens=4),))
    metrics = measure(simulate(compile_trace(trace), gpu=GPU(cost=LinearBatch(a=1, p=0.5), max_num_batched_tokens=2)))
    assert (metrics.latency, metrics.critical_path_seconds, metrics.speedup) == (4, 4, 1)


def test_what_a_prefill_attends_to_and_context_cost_time():
    # shared 3, own 2:  q * (2*3 + 2*3/2) = 9;  the second token is decoded on 3 + 2 + 1 tokens of context
    trace = Trace("t", (Thread("organizer", (Answer(2),), prompt_tokens=5, shared_tokens=3),))
    metrics = measure(simulate(compile_trace(trace), gpu=GPU(cost=LinearBatch(a=1, c=0.5, q=1))))
    assert metrics.latency == (1 + 9) + (1 + 0.5 * 6)
    assert (metrics.critical_path_seconds, metrics.speedup) == (metrics.latency, 1)


def test_delays():
    # at 2 tokens a second:  |-1-|===3 s===|0.5|
    trace = Trace("t", (Thread("organizer", (Think(2), Delay(3.0), Answer(1))),))
    timeline = simulate(compile_trace(trace), gpu=GPU(cost=ConstantRate(2)))
    metrics = measure(timeline)
    assert path(timeline) == "o decode 0-1, o delay 1-4, o decode 4-4.5"
    assert (metrics.latency, metrics.critical_path_steps, metrics.critical_path_seconds) == (4.5, 3, 4.5)
    assert (metrics.eta, metrics.concurrency, metrics.work) == (1, 1, 3)
    assert metrics.bound_delay == pytest.approx(3 / 4.5)
    counted = measure(simulate(compile_trace(trace, Protocol(delay_steps_per_second=2.0))))
    assert (counted.latency, counted.critical_path_steps, counted.eta, counted.bound_delay) == (9, 9, 1, 6 / 9)


@pytest.mark.parametrize(("after_answer", "work"), [("cancel", 4 + 1 + 4), ("finish", 4 + 1 + 10)])
def test_workers_after_the_answer(after_answer, work):
    # organizer  |1F|---4---|         worker 1 would go on until 11
    # worker 1      |---4---|xxxx
    trace = Trace("t", (Thread("organizer", (Fork(1, 1), Answer(4))), Thread("1", (Return(10),))))
    metrics = measure(simulate(compile_trace(trace, Protocol(after_answer=after_answer))))
    assert (metrics.latency, metrics.eta, metrics.work) == (5, 9 / 5, work)
    assert metrics.concurrency == pytest.approx(9 / 5)
    assert metrics.saved == pytest.approx(4 / 9)
    assert [violation.kind for violation in metrics.violations] == [ViolationKind.UNJOINED_WORKER]


def test_the_organizer_need_not_count():
    rules = Protocol(capacity=3, count_organizer=False)
    metrics = measure(simulate(compile_trace(TWO_WORKERS, rules)))
    assert metrics.eta == pytest.approx(17 / 24)
    assert metrics.eta_over_c == pytest.approx(17 / 72)
    assert metrics.peak_concurrency == 2
    assert metrics.concurrency == pytest.approx(17 / 24)
    assert metrics.speedup_steps == pytest.approx(35 / 24)  # what one agent would take, whoever counts


@pytest.mark.parametrize("actions", [(), (Answer(0),), (Fork(1), Join(1), Answer())])
def test_nothing_takes_no_time(actions):
    trace = Trace("t", (Thread("organizer", actions), Thread("1", (Return(),))))
    metrics = measure(simulate(compile_trace(trace, Protocol(capacity=2))))
    assert (metrics.latency, metrics.eta, metrics.concurrency, metrics.work, metrics.saved) == (0, 0, 0, 0, 0)
    assert (metrics.speedup, metrics.speedup_steps) == (1, 1)
    assert sum(breakdown(simulate(compile_trace(trace))).values()) == 0


def deadlocked():
    trace = Trace(
        "stuck",
        (
            Thread("organizer", (Fork(1, 2), Join(1), Answer(1))),
            Thread("1", (Think(3), Fork(1, 1), Join(1), Return(1))),
            Thread("1.1", (Return(5),)),
        ),
    )
    return simulate(compile_trace(trace, Protocol(capacity=2)), on_deadlock="record")


def test_a_deadlock_has_no_latency():
    timeline = deadlocked()
    metrics = measure(timeline)
    missing = {"latency", "tpot", "speedup", "concurrency", "queueing_delay", *bounds()}
    assert {name for name, value in metrics.values.items() if math.isnan(value)} == missing
    assert (metrics.critical_path_steps, metrics.work, metrics.overflows) == (2 + 4 + 5 + 1 + 1, 6, 1)
    with pytest.raises(ConfigError, match="query 0 was never answered"):
        realised_path(timeline)
    with pytest.raises(ConfigError, match="never answered"):
        breakdown(timeline)


def test_each_query_of_several_has_its_own_metrics():
    # one place: |-4-|-2-| and the second, since 2, waits from 2 to 4
    graphs = [compile_trace(Trace(name, (Thread("organizer", (Answer(n),)),))) for name, n in (("a", 4), ("b", 2))]
    timeline = simulate(graphs, arrivals=[0, 2], gpu=GPU(max_num_seqs=1))
    first, second = measure(timeline, 0), measure(timeline, 1)
    assert (first.name, first.latency, first.queueing_delay, first.work) == ("a", 4, 0, 4)
    assert (second.name, second.latency, second.queueing_delay, second.work) == ("b", 4, 2, 2)
    assert path(timeline, 1) == "o wait_batch 2-4, o decode 4-6"
    assert second.speedup == second.bound_decode == second.bound_wait_batch == 0.5


def test_metrics_are_read_by_name_in_two_ways():
    metrics = measure(simulate(compile_trace(TWO_WORKERS)))
    for name in METRICS:
        assert metrics[name] == getattr(metrics, name) or math.isnan(metrics[name])
    with pytest.raises(AttributeError, match="no metric is called 'latencies'; there are latency, ttft"):
        metrics.latencies  # noqa: B018
    with pytest.raises(KeyError):
        metrics["latencies"]


def test_metrics_can_be_copied_and_sent():
    metrics = measure(simulate(compile_trace(TWO_WORKERS, Protocol(capacity=3))))
    assert pickle.loads(pickle.dumps(metrics)) == copy.deepcopy(metrics) == copy.copy(metrics) == metrics


def test_no_name_of_a_metric_is_hidden_by_a_field():
    assert not {"name", "values", "violations", "outcome", "unit"} & set(METRICS)


@pytest.mark.parametrize("query", [-1, 1, 7])
def test_a_query_that_is_not_there(query):
    with pytest.raises(ConfigError, match=f"there is no query {query}; the timeline holds 1"):
        measure(simulate(compile_trace(TWO_WORKERS)), query)


@pytest.mark.parametrize("function", [realised_path, breakdown])
def test_the_path_of_a_query_that_is_not_there(function):
    with pytest.raises(ConfigError, match="there is no query 1; the timeline holds 1"):
        function(simulate(compile_trace(TWO_WORKERS)), 1)


# ---------------------------------------------------------------- the whole run, by hand

QUIET = {
    "queries": 2,
    "answered": 2,
    "makespan": 8,
    "latency_mean": 3,
    "latency_p50": 3,
    "latency_p95": 3.9,  # between 2 and 4, at 95 %
    "latency_p99": 3.98,
    "utilization": 6 / 8,
    "occupancy": 6 / 8,
    "batch_occupancy": 6 / 8,
    "kv_occupancy": NAN,
    "mean_batch": 6 / 8,
    "queries_per_second": 2 / 8,
    "tokens_per_second": 6 / 8,
    "forks_on_full_pool": 0,
    "deadlocks": 0,
}


def simple(*arrivals, gpu):
    graphs = [compile_trace(Trace("t", (Thread("organizer", (Answer(n),)),))) for n in (4, 2)]
    return simulate(graphs, arrivals=arrivals, gpu=gpu)


def test_a_run_with_a_gap():
    # |---4---|   |-2-|
    # 0       4   6   8
    summary = summarize(simple(0, 6, gpu=GPU(max_num_seqs=1)))
    assert summary == pytest.approx(QUIET, nan_ok=True)
    assert list(summary) == list(SUMMARIES)


def test_a_run_begins_with_its_first_arrival():
    assert summarize(simple(10, 16, gpu=GPU(max_num_seqs=1))) == pytest.approx(QUIET, nan_ok=True)


def test_a_run_in_one_batch():
    # |---4---|      two in the batch from 1 to 3
    #   |-2-|
    assert summarize(simple(0, 1, gpu=GPU(cost=ConstantRate(1)))) == pytest.approx(
        {
            **QUIET,
            "makespan": 4,
            "utilization": 1,
            "occupancy": NAN,
            "batch_occupancy": NAN,
            "mean_batch": 6 / 4,
            "queries_per_second": 2 / 4,
            "tokens_per_second": 6 / 4,
        },
        nan_ok=True,
    )


def test_a_run_of_places():
    assert summarize(simple(0, 1, gpu=GPU(max_num_seqs=4)))["occupancy"] == pytest.approx(6 / 16)


def test_a_run_of_memory():
    # Blocks of 2 tokens. In its four steps the first query has 1, 2, 3 and 4 tokens in memory, so 1, 1, 2 and 2 blocks;
    # the second, from 1 on, has 1 and 2 tokens and a block. That is 1, 2, 3 and 2 blocks in four steps of 1 s.
    timeline = simple(0, 1, gpu=GPU(num_kv_blocks=10, block_size=2, max_num_seqs=4))
    ends = [[0, 1], [1, 1], [1, 2], [2, 2], [2, 3], [3, 3], [3, 2], [4, 2]]
    assert timeline.replicas[0].kv.tolist() == ends
    summary = summarize(timeline)
    assert summary["kv_occupancy"] == pytest.approx(8 / 4 / 10)
    assert summary["batch_occupancy"] == summary["occupancy"] == pytest.approx(6 / 16)
    tight = summarize(simple(0, 1, gpu=GPU(num_kv_blocks=3, block_size=2, max_num_seqs=4)))
    assert tight["occupancy"] == tight["kv_occupancy"] == pytest.approx(8 / 4 / 3)


# ---------------------------------------------------------------- what serving asks, by hand


def test_the_first_token_waits_for_a_place_and_for_its_prompt():
    # One place; a step takes 1 s, and 0.5 s for each prompt token. First: its prompt takes 2 s, and its tokens are out
    # at 2 and 3. Second, since 1: it waits until 3, its prompt takes 3 s, and its tokens are out at 6, 7 and 8.
    graphs = [
        compile_trace(Trace(name, (Thread("organizer", (Answer(tokens),), prompt_tokens=prompt),)))
        for name, tokens, prompt in (("a", 2, 2), ("b", 3, 4))
    ]
    timeline = simulate(graphs, arrivals=[0, 1], gpu=GPU(cost=LinearBatch(a=1, p=0.5), max_num_seqs=1))
    assert timeline.first_token.tolist() == [2, 6]
    first, second = measure(timeline, 0), measure(timeline, 1)
    assert (first.ttft, first.tpot, first.itl, first.queue_time) == (2, 1, 1, 0)
    assert (second.ttft, second.tpot, second.itl, second.queue_time) == (5, 1, 1, 2)


def test_a_free_prompt_yields_its_token_with_the_next_step():
    # A step takes 1 s and 0.25 s for each sequence. Alone, the first token is out at 1.25; from 2.5 on there are two,
    # and a step takes 1.5 s; from 4 on, the second is alone.
    graphs = [compile_trace(Trace(name, (Thread("organizer", (Answer(3),), prompt_tokens=5),))) for name in "ab"]
    timeline = simulate(graphs, arrivals=[0, 2], gpu=GPU(cost=LinearBatch(a=1, b=0.25)))
    assert timeline.first_token.tolist() == [1.25, 4]
    assert timeline.answered.tolist() == [4, 6.5]
    assert measure(timeline, 1).values["ttft"] == 2
    assert measure(timeline, 1).itl == pytest.approx((1.5 + 1.25 + 1.25) / 3)


def test_an_organizer_that_begins_with_a_tool_waits_for_its_first_token():
    # |==3 s==|-1-|-1-|     arrival at 0, and nothing waits in a queue
    trace = Trace("t", (Thread("organizer", (Delay(3.0), Answer(2))),))
    metrics = measure(simulate(compile_trace(trace), gpu=GPU(cost=ConstantRate(1))))
    assert (metrics.ttft, metrics.tpot, metrics.queue_time) == (4, 1, 0)


def test_who_never_decodes_has_no_first_token():
    metrics = measure(simulate(compile_trace(Trace("t", (Thread("organizer", (Answer(0),)),)))))
    assert all(math.isnan(metrics[name]) for name in ("ttft", "tpot", "itl", "queue_time"))


def test_a_run_that_deadlocks():
    summary = summarize(deadlocked())
    assert {name for name, value in summary.items() if math.isnan(value)} == {
        "latency_mean",
        "latency_p50",
        "latency_p95",
        "latency_p99",
        "occupancy",
        "batch_occupancy",
        "kv_occupancy",
    }
    assert (summary["queries"], summary["answered"], summary["deadlocks"]) == (1, 0, 1)
    assert (summary["makespan"], summary["forks_on_full_pool"], summary["tokens_per_second"]) == (6, 1, 1)


def test_a_run_of_nothing():
    summary = summarize(simulate(compile_trace(Trace("t", (Thread("organizer", ()),)))))
    assert (summary["makespan"], summary["utilization"], summary["mean_batch"], summary["tokens_per_second"]) == (
        0,
    ) * 4
    assert summary["latency_p50"] == 0


# ---------------------------------------------------------------- laws

LEGAL = traces(nested=True, delays=SECONDS, unjoined=True, prompts=True)
ALL = st.one_of(LEGAL, any_traces())


SEATS = st.none() | st.integers(1, 3)


@st.composite
def runs(draw, trace=ALL, gpu=None, seats=SEATS, **rules):
    """A timeline of one query, and none that deadlocks."""
    protocol = draw(protocols(**rules))
    graph = compile_trace(draw(trace), protocol)
    gpu = gpus() if gpu is None else gpu
    return simulate(graph, gpu=draw(gpu), max_workers=draw(seats), on_deadlock="record")


answered = runs().filter(lambda timeline: not timeline.deadlocks)


def test_a_parent_is_blocked_for_a_slot_and_not_for_a_seat():
    # c - 1 = 2 slots and one seat. Worker 1 runs from 2 to 5. Worker 2 has its slot at 2 and its seat at 5; worker 3
    # its slot at 5, when the organizer goes on, and its seat at 9.
    organizer = Thread("organizer", (Think(2), Fork(1), Fork(2), Fork(3), Think(5), Join(1), Join(2), Answer(1)))
    workers = (Thread("1", (Return(3),)), Thread("2", (Return(4),)), Thread("3", (Return(2),)))
    graph = compile_trace(Trace("t", (organizer, *workers)), Protocol(capacity=3, when_full="block"))
    timeline = simulate(graph, max_workers=1)
    slots = {row.thread: (row.waited_from, row.slotted, row.granted) for row in timeline.stays() if row.thread}
    assert slots == {1: (2, 2, 2), 2: (2, 2, 5), 3: (2, 5, 9)}
    path = [(piece.thread, piece.bound, piece.start, piece.finish) for piece in realised_path(timeline)]
    assert path == [(0, "decode", 0, 2), (0, "wait_pool", 2, 5), (0, "decode", 5, 10), (0, "decode", 10, 11)]
    assert measure(timeline).bound_wait_pool == 3 / 11


@given(answered)
def test_the_path_leads_from_the_arrival_to_the_answer_without_a_gap(timeline):
    pieces = realised_path(timeline)
    now = timeline.arrivals[0]
    for piece in pieces:
        assert piece.start == now < piece.finish
        now = piece.finish
    assert now == timeline.answered[0]


@given(st.data())
def test_the_path_of_each_query_begins_with_its_arrival(data):
    graphs = [compile_trace(data.draw(ALL), data.draw(protocols())) for _ in range(3)]
    gpu = data.draw(gpus())
    arrivals = [k * 2.0**-12 for k in data.draw(st.lists(st.integers(0, 9), min_size=3, max_size=3))]
    seats = data.draw(st.none() | st.integers(1, 4))
    timeline = simulate(graphs, gpu=gpu, arrivals=arrivals, max_workers=seats, on_deadlock="record")
    for query in range(3):
        if math.isnan(timeline.answered[query]):
            assert query in {deadlock.query for deadlock in timeline.deadlocks}
            continue
        ends = [timeline.arrivals[query]]
        for piece in realised_path(timeline, query):
            assert piece.start == ends[-1]
            ends.append(piece.finish)
        assert ends[-1] == timeline.answered[query]


def test_a_fork_that_is_held_up_by_a_worker_that_never_runs():
    """Worker 1 decodes from 0 to 1, worker 3 forks 3.3 at 0 and is held up by the full pool until 1. Then 3.3 has its
    slot, but other queries have all three of `max_workers`, and the answer comes at 2 without it.

    organizer |F1 F3|......... J3 |          0 to 0, then 2 to 2
    1         |-1-|
    3         |F3.3..|-1-|                   held up from 0 to 1, decodes from 1 to 2
    """
    block = Protocol(capacity=3, when_full="block")
    organizer = Thread("organizer", (Fork(1), Fork(3), Join(3), Answer(0)))
    workers = (Thread("1", (Think(1),)), Thread("3", (Fork(3), Think(1))), Thread("3.3", ()))
    other = Thread("organizer", (Fork(1), Fork(2), Fork(3), Join(1), Join(2), Join(3), Answer(0)))
    graphs = [
        compile_trace(Trace("t", (organizer, *workers)), block),
        compile_trace(Trace("other", (other, *(Thread(name, (Return(9),)) for name in "123")))),
    ]
    timeline = simulate(graphs, max_workers=3, on_deadlock="record")
    assert timeline.answered[0] == 2 and {row.thread for row in timeline.stays(0)} == {0, 1, 2}
    pieces = [(piece.thread, piece.kind.value, piece.start, piece.finish) for piece in realised_path(timeline, 0)]
    assert pieces == [(2, "wait_pool", 0.0, 1.0), (2, "decode", 1.0, 2.0)]
    assert measure(timeline, 0).bound_wait_pool == 0.5


@given(answered)
def test_each_piece_is_what_its_thread_did(timeline):
    spans = {(span.thread, span.task, span.kind): (span.start, span.finish) for span in timeline.spans()}
    for piece in realised_path(timeline):
        if piece.kind != SpanKind.WAIT_POOL:  # one wait of a thread may be for several slots in a row
            assert spans[piece.thread, piece.task, piece.kind] == (piece.start, piece.finish)
        assert piece.kind != SpanKind.WAIT_JOIN


@given(answered)
def test_shares_sum_to_one(timeline):
    shares = breakdown(timeline)
    assert tuple(shares) == BOUND_NAMES
    assert all(0 <= share <= 1 for share in shares.values())
    assert math.fsum(shares.values()) == pytest.approx(1 if timeline.latency[0] else 0)
    metrics = measure(timeline)
    assert {name: metrics[f"bound_{name}"] for name in shares} == shares
    assert metrics.queueing_delay == pytest.approx((shares["wait_batch"] + shares["wait_pool"]) * metrics.latency)


@given(runs(when_full="queue") | runs(when_full="block") | runs(when_full="allow"))
def test_nothing_is_faster_than_the_critical_path(timeline):
    """But for ``inline`` and ``drop``, which change the work."""
    metrics = measure(timeline)
    if not timeline.deadlocks:
        assert metrics.critical_path_seconds <= metrics.latency * (1 + 1e-12)


UNLIMITED = st.builds(ConstantRate, st.sampled_from((0.5, 1.0, 2.0))).map(lambda cost: GPU(cost=cost))


@given(runs(traces(nested=True, unjoined=True, prompts=True), UNLIMITED, st.none(), capacity=None))
def test_an_unlimited_machine_takes_the_critical_path(timeline):
    metrics = measure(timeline)
    assert metrics.latency == metrics.critical_path_seconds
    assert metrics.queueing_delay == metrics.wait_pool == metrics.wait_batch == 0
    assert {name for name in BOUND_NAMES if metrics[f"bound_{name}"]} <= {"decode", "worker"}


@given(ALL, protocols(capacity=None), st.sampled_from((0.0, 1.0, 1.5)), st.booleans())
def test_on_the_step_clock_the_simulation_says_what_the_closed_form_says(trace, protocol, scale, count_organizer):
    rules = protocol.with_(delay_steps_per_second=scale, count_organizer=count_organizer)
    metrics = measure(simulate(compile_trace(trace, rules)))
    assert metrics.latency == metrics.critical_path_steps == metrics.critical_path_seconds
    assert metrics.concurrency == pytest.approx(metrics.eta)
    assert metrics.queueing_delay == 0


@given(ALL, protocols(), st.sampled_from((0.0, 1.0, 1.5)), st.booleans(), gpus())
def test_the_clock_of_the_paper_is_no_matter_of_the_machine(trace, protocol, scale, count_organizer, gpu):
    rules = protocol.with_(delay_steps_per_second=scale, count_organizer=count_organizer)
    clock = decode_clock(trace, rules)
    metrics = measure(simulate(compile_trace(trace, rules), gpu=gpu, on_deadlock="record"))
    assert metrics.critical_path_steps == clock.latency
    assert metrics.eta == clock.eta == (clock.active_steps / clock.latency if clock.latency else 0)
    assert metrics.peak_concurrency == clock.peak_concurrency
    assert metrics.overflows == clock.overflows
    assert metrics.violation_count == len(clock.violations)
    assert metrics.violations == clock.violations
    if rules.capacity:
        assert metrics.eta_over_c == clock.eta / rules.capacity


@given(LEGAL, protocols(), st.sampled_from((0.0, 1.0, 1.5)), st.booleans(), gpus())
def test_a_graph_whose_trace_is_made_from_its_tasks_has_the_same_metrics(trace, protocol, scale, count_organizer, gpu):
    rules = protocol.with_(delay_steps_per_second=scale, count_organizer=count_organizer)
    graph = compile_trace(trace, rules)
    with_trace = measure(simulate(graph, gpu=gpu, on_deadlock="record"))
    without = measure(simulate(replace(graph, trace=None), gpu=gpu, on_deadlock="record"))
    assert without.values == pytest.approx(with_trace.values, nan_ok=True)
    assert [each.kind for each in without.violations] == [each.kind for each in with_trace.violations]
    assert without.outcome is None


@given(ALL, protocols(), st.sampled_from((0.0, 1.0)))
def test_somebody_is_active_at_every_step(trace, protocol, scale):
    rules = protocol.with_(delay_steps_per_second=scale)
    metrics = measure(simulate(compile_trace(trace, rules), on_deadlock="record"))
    if metrics.critical_path_steps:
        assert 1 <= metrics.eta <= metrics.peak_concurrency
        assert metrics.speedup_steps == metrics.eta
        assert metrics.saved == pytest.approx(1 - 1 / metrics.speedup_steps)
        assert 0 <= metrics.saved < 1


@given(ALL, st.integers(1, 5))
def test_without_an_overflow_eta_over_c_is_at_most_one(trace, capacity):
    metrics = measure(simulate(compile_trace(trace, Protocol(capacity=capacity)), on_deadlock="record"))
    if not metrics.overflows:
        assert metrics.eta_over_c <= 1
        assert metrics.peak_concurrency <= capacity


@given(runs())
def test_waits_and_work_are_sums_over_the_timeline(timeline):
    metrics = measure(timeline)
    for kind in (SpanKind.WAIT_JOIN, SpanKind.WAIT_POOL, SpanKind.WAIT_BATCH):
        assert metrics[kind.value] == pytest.approx(
            math.fsum(span.finish - span.start for span in timeline.spans() if span.kind == kind)
        )
    assert metrics.work == timeline.rows["tokens"].sum()
    assert metrics.work <= sum(task.tokens for task in timeline.graphs[0].tasks)


@given(runs(gpu=costs.map(lambda cost: GPU(cost=cost, max_num_seqs=1)), after_answer="finish"))
def test_one_place_gives_no_speedup(timeline):
    """Unless a Delay passes meanwhile, or a dropped or inline worker's prompt and returned text need no prefill."""
    graph = timeline.graphs[0]
    if timeline.deadlocks or any(task.seconds for task in graph.tasks) or timeline.overflows[0]:
        return
    assert measure(timeline).speedup <= 1 + 1e-9 or timeline.makespan > timeline.latency[0]


@given(runs())
def test_measuring_changes_nothing_and_repeats(timeline):
    before = timeline.rows.tobytes()
    first, second = measure(timeline), measure(timeline)
    assert timeline.rows.tobytes() == before
    assert first.values == pytest.approx(second.values, nan_ok=True, abs=0, rel=0)


@given(runs())
def test_summaries_agree_with_the_metrics_of_the_only_query(timeline):
    metrics, summary = measure(timeline), summarize(timeline)
    if math.isnan(metrics.latency):
        assert summary["answered"] == 0
        return
    for name in ("mean", "p50", "p95", "p99"):
        assert summary[f"latency_{name}"] == metrics.latency
    assert summary["makespan"] >= metrics.latency
    assert summary["tokens_per_second"] * summary["makespan"] == pytest.approx(metrics.work)
    assert 0 <= summary["utilization"] <= 1 + 1e-12
    assert summary["mean_batch"] <= (timeline.max_num_seqs or math.inf) + 1e-9
