"""KV memory of any size: no block is lost, nobody waits for ever, and what never fits is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import GPU, Answer, Cluster, ConfigError, Delay, Think, Thread, Timeline, Trace, compile_trace
from simulator.engine.clock import Call
from simulator.engine.kv import Holder
from simulator.engine.paged import PagedServer
from simulator.engine.query import DECODING, PREFILLING
from tests.support.engine_scenarios import QUIET, Scenario, agree, scenarios

MOST_STEPS = 20_000
"""More than any of these scenarios takes, and few enough to notice at once that one never ends."""


def recount(server: PagedServer) -> None:
    """Count everything anew from the requests in the batch, as the next step begins."""
    cache, size = server.cache, server.size
    chunks = {request: chunk for request, chunk in server.chunks}
    holders = set(cache.idle)
    running = 0
    needed: dict[Holder, int] = {}
    for holder, request in server.batch.items():
        assert holder.busy and request.state in (PREFILLING, DECODING)
        holders |= {holder, *holder.ancestors()}
        if request.state == DECODING:
            tokens = request.context + server.step - request.joined_step
        else:
            tokens = request.context + chunks.get(request, 0)
        running += max(-(-tokens // size) - holder.base, holder.own)
        shared = holder.base
        for above in holder.ancestors():
            needed[above] = max(needed.get(above, 0), shared - above.base)
            shared = min(shared, above.base)
    idle = {holder: holder.own for holder in holders if not holder.busy}
    evictable = sum(own - needed.get(holder, 0) for holder, own in idle.items())
    pinned = running + sum(idle.values()) - evictable
    assert cache.evictable == evictable
    assert cache.free >= 0
    assert cache.free + cache.evictable + pinned == cache.blocks
    assert all(0 <= needed.get(holder, 0) <= own for holder, own in idle.items())
    decoding = [request for request in server.batch.values() if request.state == DECODING]
    assert server.n == len(decoding) == sum(server.phases)
    assert server.context == sum(r.context + server.step - r.joined_step for r in decoding)
    assert server.prompts == sum(r.prefill for r in server.batch.values() if r.state == PREFILLING)


def recounted(scenario: Scenario, spoil: Callable[[PagedServer], None] | None = None) -> Timeline:
    """Simulate event by event, and recount whenever a `PagedServer` has planned; before that, `spoil` it."""
    run = scenario.run()
    servers = [server for server in run.threads.fleet.servers if isinstance(server, PagedServer)]
    planned: dict[PagedServer, Call | None] = dict.fromkeys(servers)
    run.begin()
    while run.clock.peek() < math.inf:
        run.clock.step()
        for server in servers:
            leap = server.boundary
            if leap is not None and leap is not planned[server] and server.leap_start == run.clock.now:
                planned[server] = leap
                assert server.step < MOST_STEPS, "it never ends"
                if spoil:
                    spoil(server)
                recount(server)
    return run.end("record")


def tight(scenario: Scenario, blocks: int) -> Scenario:
    """The same with `blocks` blocks on each replica that has a number of them."""
    replicas = [replace(gpu, num_kv_blocks=gpu.num_kv_blocks and blocks) for gpu in scenario.replicas]
    if not isinstance(scenario.gpu, Cluster):
        return replace(scenario, gpu=replicas[0])
    return replace(scenario, gpu=replace(scenario.gpu, replicas=replicas))


def check(scenario: Scenario, blocks: int) -> None:
    scenario = tight(scenario, blocks)
    try:
        recounted(scenario)
    except ConfigError as error:
        assert "tokens in KV memory" in str(error)
    else:
        agree(scenario)
        return
    with pytest.raises(ConfigError):
        scenario.oracle()


@settings(max_examples=150, **QUIET)
@given(scenarios(), st.integers(1, 14))
def test_no_block_is_lost_and_nobody_waits_for_ever(scenario: Scenario, blocks: int):
    check(scenario, blocks)


@pytest.mark.slow
@settings(max_examples=5_000, **QUIET)
@given(scenarios(paged=True), st.integers(1, 14))
def test_no_block_is_lost_and_nobody_waits_for_ever_many(scenario: Scenario, blocks: int):
    check(scenario, blocks)


@settings(max_examples=150, **QUIET)
@given(scenarios(paged=True, capacity=None, after_answer="finish"), st.integers(1, 14))
def test_whatever_is_not_refused_is_answered_to_the_last_token(scenario: Scenario, blocks: int):
    """Without a pool that deadlocks; in memory of any size."""
    scenario = replace(tight(scenario, blocks), max_workers=None)
    try:
        timeline = recounted(scenario)
    except ConfigError as error:
        assert "tokens in KV memory" in str(error)
        return
    assert not timeline.deadlocks
    assert timeline.answered.tolist() == pytest.approx(timeline.answered.tolist())  # none is NaN
    assert timeline.column("tokens").sum() == sum(graph.tokens for graph in scenario.graphs)


def test_the_recount_notices_a_lost_block():
    """The check itself: a cache that has one block too few."""

    def lose(server: PagedServer) -> None:
        server.cache.free -= 1

    graph = compile_trace(Trace("t", (Thread("organizer", (Think(3), Delay(1.0), Answer(2))),)))
    with pytest.raises(AssertionError, match="== 100"):
        recounted(Scenario([graph], GPU(num_kv_blocks=100, block_size=1)), lose)
