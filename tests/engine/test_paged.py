"""Paged KV memory: scenes worked out by hand, and `simulate` against the block-by-block oracle."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import (
    GPU,
    Answer,
    ConfigError,
    ExecutionGraph,
    Fork,
    Join,
    LinearBatch,
    Return,
    Thread,
    Trace,
    compile_trace,
    simulate,
)
from simulator.machine.cost import DecodeSteps
from tests.support.engine_scenarios import QUIET, Scenario, agree, blocks_needed, scenarios
from tests.support.oracle_state import PREEMPTED, Row
from tests.support.strategies import arrivals

# Scenes. A step takes 1 second, and each prompt token 1/1024 more: 7 + 12 * T is after 7 steps with 12 prompt tokens.
T = 2.0**-10
PROMPTS = LinearBatch(1.0, p=T)


def scene(graphs: ExecutionGraph | list[ExecutionGraph], blocks: int, **gpu: object) -> dict[object, list[tuple]]:
    """By query, thread, task: (start, decode_start, finish, tokens, flags) of each stay; both programs must say so."""
    graphs = [graphs] if isinstance(graphs, ExecutionGraph) else graphs
    machine = GPU(num_kv_blocks=blocks, **{"cost": PROMPTS} | gpu)
    stays: dict[object, list[tuple]] = {}
    for row in agree(Scenario(graphs, machine, arrivals=[0.0] * len(graphs))).rows:
        stays.setdefault(row[:3], []).append((row.start, row.decode_start, row.finish, row.tokens, row.flags))
    return stays


def forks_and_joins(returned: int = 2) -> ExecutionGraph:
    """A prompt of 5, two tokens, a Fork; the worker has a prompt of 5 + 2; a Join inserts 3; two tokens more."""
    organizer = Thread("organizer", (Fork(1, 2), Join(1, inserted_tokens=3), Answer(2)), 5)
    return compile_trace(Trace("t", (organizer, Thread("1", (Return(returned),), 7, 5))))


ORGANIZER, WORKER, JOIN = (0, 0, 0), (0, 1, 1), (0, 0, 2)


def test_worker_finds_its_parents_prefix_and_join_finds_the_organizers():
    """Blocks of 1. The last token that a thread decoded is never in memory: no step has attended to it yet.

    step           1   2 | 3 4 | 5 6
    organizer      5+1 1 |     | 4+1 1     finds 6 of 10: prompt and first token; not the second, nor what was returned
    worker               | 2+1 1           finds 5 of 7: all that it shares
    """
    rows = scene(forks_and_joins(), 100, block_size=1)
    assert rows[ORGANIZER] == [(0, 1 + 5 * T, 2 + 5 * T, 2, 0)]
    assert rows[WORKER] == [(2 + 5 * T, 3 + 7 * T, 4 + 7 * T, 2, 0)]
    assert rows[JOIN] == [(4 + 7 * T, 5 + 11 * T, 6 + 11 * T, 2, 0)]


@pytest.mark.parametrize(
    ("block_size", "worker", "join"),
    [
        (2, 3, 4),  # [p p][p p][p 1]: the worker shares two blocks, 4 of its 7 tokens; the Join finds all three
        (4, 3, 6),  # [p p p p][p 1: one block stays
        (16, 7, 10),  # no block is ever full
    ],
)
def test_only_full_blocks_are_found(block_size, worker, join):
    rows = scene(forks_and_joins(), 100, block_size=block_size)
    assert rows[WORKER][0][1] == 3 + (5 + worker) * T
    assert rows[JOIN][0][1] == 5 + (5 + worker + join) * T


def test_without_prefix_caching_everything_is_processed_again():
    rows = scene(forks_and_joins(), 100, block_size=1, prefix_caching=False)
    assert rows[WORKER][0][1] == 3 + (5 + 7) * T
    assert rows[JOIN][0][1] == 5 + (5 + 7 + 10) * T


def test_waiting_organizer_loses_blocks_and_processes_them_again():
    """Blocks of 1; the worker decodes 5 and has 11 tokens in memory in its last step.

    worker     0 1 2 3 4 | 5 6 7 8 9 10
    organizer  `shared`--' 5                  12 blocks for both; with 11 the organizer's sixth is taken
    """
    enough, short = (scene(forks_and_joins(5), blocks, block_size=1)[JOIN] for blocks in (12, 11))
    assert enough == [(7 + 7 * T, 8 + 11 * T, 9 + 11 * T, 2, 0)]
    assert short == [(7 + 7 * T, 8 + 12 * T, 9 + 12 * T, 2, 0)]


def test_last_admitted_is_preempted_and_processes_its_own_tokens_again():
    """Two queries, a prompt of 1 and 4 tokens each; 5 blocks of 1. In memory, in use by nobody in brackets:

    step       1  2  3   4    5  6
    query 0    1  2  3   4              would be 3 + 3 in step 3
    query 1    1  2 (2) (1)   3  4      1 token found, 2 processed again
    """
    graph = compile_trace(Trace("t", (Thread("organizer", (Answer(4),), 1),)))
    rows = scene([graph, graph], 5, block_size=1)
    assert rows[0, 0, 0] == [(0, 1 + 2 * T, 4 + 2 * T, 4, 0)]
    assert rows[1, 0, 0] == [(0, 1 + 2 * T, 2 + 2 * T, 2, PREEMPTED), (4 + 2 * T, 5 + 4 * T, 6 + 4 * T, 2, 0)]


def test_kept_place_that_finds_no_block_is_preempted_at_once():
    """Both at 4 tokens in 8 blocks of 1; query 1 forks in its place and has no block to go on."""
    organizer = Thread("organizer", (Fork(1, 2), Answer(2)), 3)
    forking = compile_trace(Trace("t", (organizer, Thread("1", (Return(1),), 1))))
    plain = compile_trace(Trace("t", (Thread("organizer", (Answer(4),), 3),)))
    rows = scene([plain, forking], 8, block_size=1, cost=DecodeSteps())
    assert rows[0, 0, 0] == [(0, 1, 4, 4, 0)]
    assert rows[1, 0, 0] == [(0, 1, 2, 2, 0)]
    assert rows[1, 0, 2][0] == (2, 2, 2, 0, PREEMPTED)
    assert sum(tokens for *_, tokens, _ in rows[1, 0, 2]) == 2


def test_what_never_fits_is_refused():
    """The Join's last step attends to 11 tokens."""
    scene(forks_and_joins(), 11, block_size=1)
    with pytest.raises(ConfigError, match="thread organizer needs 11 tokens in KV memory, and 10 blocks of 1 hold 10"):
        scene(forks_and_joins(), 10, block_size=1)
    with pytest.raises(ConfigError, match="2 blocks of 4 hold 8"):
        scene(forks_and_joins(), 2, block_size=4)


def test_what_never_fits_is_refused_in_a_kept_place_too():
    """The worker forks and goes on for 17 tokens. It would be cancelled long before, but nobody knows that."""
    organizer = Thread("organizer", (Fork(1, 1), Answer(2)))
    worker = Thread("1", (Fork(1, 1), Return(17)))
    graph = compile_trace(Trace("t", (organizer, worker, Thread("1.1", (Return(1),)))))
    with pytest.raises(ConfigError, match="thread 1 needs 18 tokens in KV memory, and 8 blocks of 2 hold 16"):
        scene(graph, 8, block_size=2)
    scene(graph, 9, block_size=2)


@settings(max_examples=100, **QUIET)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5), st.data())
def test_memory_without_end_changes_nothing_for_prompts_that_nobody_shares(shapes, data):
    """Nothing can be found, nothing is taken away: then paged memory is no different from none."""
    graphs = [compile_trace(Trace("t", (Thread("organizer", (Answer(n),), prompt),))) for prompt, n in shapes]
    seqs, budget = data.draw(st.sampled_from([(None, None), (2, 3), (3, 9)]))
    cost = LinearBatch(T, 2 * T, T, 3 * T, T)
    times = data.draw(arrivals(GPU(cost=cost), len(graphs)))
    limits = {"cost": cost, "max_num_seqs": seqs, "max_num_batched_tokens": budget}
    one, other = (
        simulate(graphs, gpu=GPU(**limits, **memory), arrivals=times)
        for memory in ({}, {"num_kv_blocks": 10_000, "block_size": 1})
    )
    assert one.rows.tolist() == other.rows.tolist()
    assert (one.steps, one.busy) == (other.steps, other.busy)


one_gpu = scenarios(paged=True, clusters=False)


@settings(max_examples=100, **QUIET)
@given(scenarios(paged=True, clusters=False, after_answer="finish", when_full="queue", capacity=None))
def test_all_is_answered_and_no_token_lost(scenario: Scenario):
    """In the least memory that nothing is refused in."""
    assert isinstance(scenario.gpu, GPU)
    size = scenario.gpu.block_size
    least = max(blocks_needed(graph, scenario.protocol, size) for graph in scenario.graphs)
    result = agree(replace(scenario, gpu=replace(scenario.gpu, num_kv_blocks=least), max_workers=None))
    assert result.replicas[0].most <= least
    assert all(answered == answered for answered in result.answered)
    stays: dict[tuple[int, int, int], list[Row]] = {}
    for row in result.rows:
        stays.setdefault(row[:3], []).append(row)
    for (query, _, task), rows in stays.items():
        assert sum(row.tokens for row in rows) == scenario.graphs[query].tasks[task].tokens
        assert [bool(row.flags & PREEMPTED) for row in rows] == [True] * (len(rows) - 1) + [False]


@settings(max_examples=300, **QUIET)
@given(one_gpu)
def test_simulate_equals_blocks_one_by_one(scenario: Scenario):
    agree(scenario)


@pytest.mark.slow
@settings(max_examples=4_000, **QUIET)
@given(one_gpu)
def test_simulate_equals_blocks_one_by_one_many(scenario: Scenario):
    agree(scenario)
