"""The same fork/join queries on NVIDIA AISimulate with fixed step times, and here: every request, to the float.

A step there takes `prefill_ms` if it holds prompts, and `decode_ms` besides if it holds decodes. `peers.Phases` is that
cost model. All times are binary fractions of a second and whole nanoseconds, to which AISimulate rounds a step. The
differences that are left are in docs/validation.md, each held here by a test.
"""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks import peers
from simulator import GPU, Answer, Delay, Fork, Join, Return, Think, Thread, Trace, compile_trace, read, simulate
from simulator.timeline import CANCELLED
from simulator.workload import FAMILIES, generate

try:
    peers.find_aisimulate()
    ABSENT = ""
except peers.Absent as error:
    ABSENT = str(error)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(ABSENT), reason=ABSENT)]

ROOT = Path(__file__).parents[2]
PREFILL, DECODE = 2.0**-7, 3 * 2.0**-8
PLENTY = 1_000_000


def both(traces, *, split=False, max_num_seqs=256, tokens=PLENTY, blocks=PLENTY, caching=True):
    """Return, for each request, its times there and here: came, admitted, finished, and how often preempted."""
    limits = dict(max_num_seqs=max_num_seqs, max_num_batched_tokens=tokens, num_kv_blocks=blocks, block_size=64)
    there = peers.aisimulate(
        traces, prefill_ms=PREFILL * 1000, decode_ms=DECODE * 1000, prefix_caching=caching, **limits
    )
    graphs = [compile_trace(trace) for trace in traces]
    if split:
        graphs = [requests_of_their_own(graph) for graph in graphs]
    gpu = GPU(cost=peers.Phases(PREFILL, DECODE), prefix_caching=caching, **limits)
    timeline = simulate(graphs, gpu=gpu, arrivals=[trace.arrival or 0.0 for trace in traces])
    stays = {}
    for row in zip(*(timeline.column(name).tolist() for name in ROW), strict=True):
        query, thread, task = map(int, row[:3])
        if graphs[query].tasks[task].tokens:
            stays.setdefault((query, thread), {}).setdefault(task, []).append(row[3:])
    pairs = {}
    for record in there.records:
        query, thread, place = map(int, record["request_id"].split("."))
        mine = stays[query, thread][sorted(stays[query, thread])[place]]
        theirs = (record["arrival_time_ms"], record["first_admit_ms"], record["last_token_ms"])
        ours = (mine[0][0], mine[0][1], mine[-1][2])
        pairs[record["request_id"]] = (
            (*(time / 1000 for time in theirs), record["readmission_count"]),
            (*ours, len(mine) - 1),
        )
    assert len(pairs) == sum(len(tasks) for tasks in stays.values())
    return pairs, there, timeline


ROW = ("query", "thread", "task", "ready", "start", "finish", "flags")


def requests_of_their_own(graph):
    """Give each task a prompt: then a Fork ends a request here too, as it does there."""
    return replace(
        graph, tasks=tuple(task._replace(prefill=max(1, task.prefill)) if task.tokens else task for task in graph.tasks)
    )


def arriving(traces, most, seed=0):
    """Let traces arrive up to `most` eighths of a second after one another."""
    at = np.cumsum(np.random.default_rng(seed).integers(0, most, len(traces))) / 8
    return [msgspec.structs.replace(trace, arrival=float(a - at[0])) for trace, a in zip(traces, at, strict=True)]


def blocking(n, seed=1):
    """Queries whose organizer joins as soon as it has forked, so that no Fork is in the middle of its decoding."""
    rng = np.random.default_rng(seed)
    traces = []
    for i in range(n):
        prompt, think, answer, *work = (int(tokens) for tokens in rng.integers(64, 513, 7))
        joins = [Join(k, 0, int(rng.integers(1, 30))) for k in range(1, 5)]
        organizer = Thread("organizer", (Think(think), *map(Fork, range(1, 5)), *joins, Answer(answer)), prompt)
        rest = (Thread(str(k), (Return(n),), prompt + think + 20, prompt + think) for k, n in enumerate(work, 1))
        traces.append(Trace(f"q{i}", (organizer, *rest), arrival=0.0))
    return traces


def same(pairs, columns=slice(None)):
    different = {name: pair for name, pair in pairs.items() if pair[0][columns] != pair[1][columns]}
    return not different or dict(list(different.items())[:3])


@pytest.mark.parametrize("limit", [256, 16, 3])
@pytest.mark.parametrize(
    "traces", [blocking(1), blocking(40), arriving(blocking(40), 16)], ids=["alone", "at once", "load"]
)
def test_every_request_comes_starts_and_ends_at_the_same_time(traces, limit):
    pairs, _, timeline = both(traces, max_num_seqs=limit)
    assert same(pairs) is True
    assert len(pairs) == 6 * len(traces)
    assert len(traces) == 1 or limit == 256 or (timeline.column("start") > timeline.column("ready")).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_where_a_fork_ends_a_request(family):
    pairs, _, _ = both(arriving(list(generate(family, 40, seed=3)), 8), split=True, max_num_seqs=16)
    assert same(pairs) is True


def delayed(trace, rng):
    """Put a Delay before the last action of each thread."""
    threads = []
    for thread in trace.threads:
        actions = list(thread.actions)
        actions.insert(-1, Delay(int(rng.integers(1, 9)) / 8))
        threads.append(msgspec.structs.replace(thread, actions=tuple(actions)))
    return msgspec.structs.replace(trace, threads=tuple(threads))


@pytest.mark.parametrize("family", ["interleaved", "nested"])
def test_delays(family):
    rng = np.random.default_rng(5)
    traces = [delayed(trace, rng) for trace in generate(family, 40, seed=4)]
    pairs, _, _ = both(arriving(traces, 8), split=True, max_num_seqs=16)
    assert same(pairs) is True


@pytest.mark.parametrize("blocks", [400, 200, 100])
def test_preemption_without_a_prefix_cache(blocks):
    pairs, _, _ = both(arriving(blocking(100), 8), blocks=blocks, caching=False)
    assert same(pairs) is True
    assert sum(theirs[3] for theirs, _ in pairs.values()) > 200


def test_it_runs_all_that_ships():
    paths = sorted(path for path in (ROOT / "traces").rglob("*") if path.suffix in (".jsonl", ".txt"))
    traces = [item for path in paths for item in read(path) if isinstance(item, Trace)]
    there = peers.aisimulate(traces, max_num_batched_tokens=8192)
    assert len({record["play_id"] for record in there.records}) == len(traces) > 100
    assert {record["terminal_status"] for record in there.records} == {"completed"}


# ---------------------------------------------------------------- what differs


@pytest.mark.parametrize(("limit", "tokens"), [(64, 256), (16, 512)])
def test_a_seat_is_taken_at_admission_here_and_with_the_first_chunk_there(limit, tokens):
    pairs, _, _ = both(arriving(blocking(100), 8), max_num_seqs=limit, tokens=tokens, caching=False)
    assert same(pairs, (0)) is True
    assert same(pairs, slice(2, 4)) is True  # and it changes nothing
    assert any(theirs[1] > ours[1] for theirs, ours in pairs.values())
    assert all(theirs[1] >= ours[1] for theirs, ours in pairs.values())


def test_a_fork_does_not_interrupt_decoding_here():
    organizer = Thread("organizer", (Think(8), Fork(1), Think(16), Join(1, 0, 4), Answer(4)), 64)
    trace = Trace("t", (organizer, Thread("1", (Return(8),), 72, 72)))
    pairs, _, _ = both([trace])
    theirs = {name[9:]: times[2] for name, (times, _) in pairs.items()}
    ours = {name[9:]: times[2] for name, (_, times) in pairs.items()}
    fork = PREFILL + 7 * DECODE
    # There the organizer is a new request: it and the worker share a step of prompts, and nothing decodes meanwhile.
    assert theirs == {
        "0000.0000": fork,
        "0001.0000": fork + PREFILL + 7 * DECODE,
        "0000.0001": fork + PREFILL + 15 * DECODE,
        "0000.0002": fork + PREFILL + 15 * DECODE + PREFILL + 3 * DECODE,
    }
    # Here it decodes beside the worker's prompt: that step takes both times, and has given the organizer a token.
    assert ours == {
        "0000.0000": fork,
        "0001.0000": fork + PREFILL + DECODE + 7 * DECODE,
        "0000.0001": fork + PREFILL + 16 * DECODE,
        "0000.0002": fork + PREFILL + 16 * DECODE + PREFILL + 3 * DECODE,
    }


def test_what_was_decoded_is_prefilled_again_there():
    trace = Trace("t", (Thread("organizer", (Think(128), Delay(1.0), Answer(2)), 128),))
    _, there, _ = both([trace])
    assert [record["reused_input_tokens"] for record in there.records] == [0, 128]
    pairs, _, _ = both([trace], max_num_seqs=16, tokens=32)
    theirs, ours = pairs["00000000.0000.0001"]
    assert theirs[2] - theirs[0] == 4 * PREFILL + DECODE  # 256 - 128 tokens, 32 a step
    assert ours[2] - ours[0] == 2 * PREFILL + DECODE  # 256 - 192: the last block is always read again


def test_siblings_find_what_another_reads_in_the_same_step_there():
    workers = [Thread(str(k), (Return(4),), 320, 256) for k in (1, 2)]
    organizer = Thread("organizer", (Fork(1), Fork(2), Join(1), Join(2), Answer(2)), 256)
    pairs, there, _ = both([Trace("t", (organizer, *workers))], tokens=320)
    reused = {record["request_id"][9:]: record["reused_input_tokens"] for record in there.records}
    assert reused == {"0001.0000": 0, "0002.0000": 256, "0000.0000": 192}
    second = pairs["00000000.0002.0000"]
    # The first fills a step of 320 tokens, and decodes from then on. The second needs 64 there, and all its 320 here.
    assert [times[2] for times in second] == [2 * PREFILL + 4 * DECODE, 3 * PREFILL + 5 * DECODE]


def test_workers_that_nobody_joins_run_on_there():
    organizer = Thread("organizer", (Think(4), Fork(1), Answer(4)), 64)
    pairs, _, timeline = both([Trace("t", (organizer, Thread("1", (Return(50),), 68, 68)))], split=True)
    theirs, ours = pairs["00000000.0001.0000"]
    end = PREFILL + 3 * DECODE + PREFILL + 3 * DECODE
    assert timeline.latency[0] == end
    assert theirs[2] == end + 46 * DECODE
    assert ours[2] == end
    assert int((timeline.column("flags") == CANCELLED).sum()) == 1


def test_a_step_is_rounded_to_nanoseconds_there():
    trace = Trace("t", (Thread("organizer", (Answer(3),), 64),))
    there = peers.aisimulate([trace], prefill_ms=1 / 3, decode_ms=2 / 3)
    assert there.records[0]["last_token_ms"] == 0.333333 + 2 * 0.666667
