"""Laws of the decode-step clock, the graph and the critical path, on traces of all kinds."""

from __future__ import annotations

import math

import networkx
from hypothesis import given
from hypothesis import strategies as st

from simulator import (
    Answer,
    Delay,
    ExecutionGraph,
    Fork,
    Join,
    Protocol,
    Return,
    Trace,
    compile_trace,
    critical_path,
    decode_clock,
    from_networkx,
    to_networkx,
)
from simulator.graph import EdgeKind
from simulator.graph.critical_path import b_levels
from simulator.trace import ORGANIZER, ViolationKind
from tests.support.brute import count
from tests.support.strategies import SECONDS, any_traces, free_graphs, protocols, traces

NESTED = traces(nested=True, delays=SECONDS, unjoined=True, prompts=True)
ALL = st.one_of(NESTED, any_traces())
SCALES = st.sampled_from((0.0, 1.0, 1.5))


def recurrence(trace: Trace) -> int:
    """The paper's recurrence, letter by letter, for organizers whose workers do not Fork.

    ``l_0 = 0; l_i = max(l_{i-1} + f_i, l_{j-1} + f_j^{before fork k} + f^{worker k})`` where fragment i ends at the
    Join of k, forked in fragment j.
    """
    latency = [0]
    fragment = 0  # f_i, so far
    forked: dict[int, tuple[int, int]] = {}  # by index: j, and f_j before the Fork
    for action in trace.organizer.actions:
        fragment += action.tokens
        if isinstance(action, Fork):
            forked[action.index] = (len(latency), fragment)
        elif isinstance(action, Join):
            j, before = forked[action.index]
            worker = trace.thread(str(action.index)).tokens
            latency.append(max(latency[-1] + fragment, latency[j - 1] + before + worker))
            fragment = 0
    return latency[-1] + fragment


def longest_path(graph: ExecutionGraph) -> int:
    """The longest path to the answer, by networkx."""
    g = to_networkx(graph)
    g = g.subgraph({graph.answer} | networkx.ancestors(g, graph.answer))
    weighted = networkx.DiGraph((u, v, {"weight": g.nodes[u]["steps"]}) for u, v in g.edges)
    length = networkx.dag_longest_path_length(weighted) if weighted else 0
    return length + g.nodes[graph.answer]["steps"]


@given(traces(unjoined=True))
def test_latency_is_the_papers_recurrence(trace):
    assert decode_clock(trace).latency == recurrence(trace)


@given(ALL, protocols(), SCALES)
def test_latency_is_the_longest_path(trace, protocol, scale):
    protocol = protocol.with_(delay_steps_per_second=scale)
    graph = compile_trace(trace, protocol)
    latency = decode_clock(trace, protocol).latency
    assert latency == critical_path(graph).latency
    assert latency == longest_path(graph)


@given(ALL, protocols(), SCALES, st.booleans())
def test_the_clock_counts_what_counting_token_by_token_counts(trace, protocol, scale, count_organizer):
    protocol = protocol.with_(delay_steps_per_second=scale, count_organizer=count_organizer)
    clock, counted = decode_clock(trace, protocol), count(trace, protocol)
    assert clock.latency == counted.latency
    assert clock.active_steps == counted.active_steps
    assert clock.peak_concurrency == counted.peak
    assert clock.intervals == counted.intervals
    assert clock.workers == len(counted.intervals) - 1
    assert clock.eta == (counted.active_steps / counted.latency if counted.latency else 0)


@given(ALL, protocols(), SCALES)
def test_overflows_are_the_forks_that_find_all_slots_in_use(trace, protocol, scale):
    protocol = protocol.with_(delay_steps_per_second=scale)
    clock, counted = decode_clock(trace, protocol), count(trace, protocol)
    reported = [(v.thread, v.action) for v in clock.violations if v.kind == ViolationKind.POOL_OVERFLOW]
    assert sorted(reported) == sorted(counted.overflows)
    assert clock.overflows == len(counted.overflows)


@given(ALL, protocols())
def test_work_is_all_tokens_of_the_graph(trace, protocol):
    graph = compile_trace(trace, protocol)
    assert decode_clock(trace, protocol).work == graph.tokens
    delays = sum(protocol.delay_steps(task.seconds) for task in graph.tasks)
    assert critical_path(graph).work == graph.tokens + delays


@given(traces(nested=True, delays=SECONDS, unjoined=True))
def test_legal_traces_break_no_rule(trace):
    found = {violation.kind for violation in decode_clock(trace).violations}
    assert found <= {ViolationKind.UNJOINED_WORKER}


@given(traces(nested=True, delays=SECONDS))
def test_eta_is_at_most_the_peak_and_without_waiting_work_over_latency(trace):
    clock = decode_clock(trace)
    assert clock.eta <= clock.peak_concurrency
    assert clock.active_steps == clock.work  # all workers are joined, so nothing runs beyond T


@given(st.one_of(ALL.map(compile_trace), free_graphs()))
def test_tasks_are_in_topological_order_and_edges_complete(graph):
    edges = list(graph.edges())
    assert all(edge.source < edge.target for edge in edges)
    assert len(set(edges)) == len(edges)
    joins = sum(len(task.joins) for task in graph.tasks)
    kinds = [edge.kind for edge in edges]
    assert kinds.count(EdgeKind.FORK) == len(graph.threads) - 1
    assert kinds.count(EdgeKind.JOIN) == joins
    assert kinds.count(EdgeKind.PROGRAM) == len(graph) - len(graph.threads)
    before = graph.predecessors()
    assert sorted((s, t) for t, sources in enumerate(before) for s in sources) == sorted(e[:2] for e in edges)


@given(st.data())
def test_the_trace_of_a_graph_made_by_hand_has_its_clock(data):
    protocol = data.draw(protocols())
    graph = data.draw(free_graphs(protocol))
    clock = decode_clock(graph.trace, protocol)
    assert clock.latency == critical_path(graph).latency
    assert clock.work + sum(map(graph.weight, delays(graph))) == sum(map(graph.weight, range(len(graph))))
    assert not {each.kind for each in clock.violations} & {"unknown_join", "duplicate_index", "fork_without_worker"}


def delays(graph):
    return [number for number, task in enumerate(graph.tasks) if task.seconds]


@given(st.one_of(ALL.map(compile_trace), free_graphs()))
def test_networkx_and_back(graph):
    assert from_networkx(to_networkx(graph)) == graph


@given(ALL, protocols())
def test_prompts_and_inserted_tokens_are_prefilled_once_if_anything_is_decoded_after_them(trace, protocol):
    graph = compile_trace(trace, protocol)
    for number, (name, *_) in enumerate(graph.threads):
        thread = trace.thread(name)
        pending, prefilled = thread.prompt_tokens - thread.shared_tokens, 0
        for action in thread.actions:
            inserted = action.inserted_tokens if isinstance(action, Join) else 0
            if not isinstance(action, Delay) and action.tokens + inserted * protocol.charge_inserted:
                prefilled, pending = prefilled + pending, 0
            pending += inserted * (not protocol.charge_inserted)
            if protocol.after_end == "ignore" and isinstance(action, Answer if name == ORGANIZER else Return):
                break
        tasks = [task for task in graph.tasks if task.thread == number]
        assert sum(task.prefill for task in tasks) == prefilled
        assert all(task.tokens for task in tasks if task.prefill)


@given(st.one_of(ALL.map(compile_trace), free_graphs()))
def test_levels_add_up(graph):
    found = critical_path(graph)
    weights = [graph.weight(i) for i in range(len(graph))]
    assert found.b_level == tuple(b_levels(graph))
    assert max(s + b for s, b in zip(found.start, found.b_level, strict=True)) == found.span
    assert found.start[found.path[0]] == 0
    assert sum(weights[i] for i in found.path) == found.latency
    assert found.path[-1] == graph.answer
    edges = {edge[:2] for edge in graph.edges()}
    assert all(pair in edges for pair in zip(found.path, found.path[1:], strict=False))
    for i, weight in enumerate(weights):
        following = [edge.target for edge in graph.edges() if edge.source == i]
        assert found.b_level[i] == weight + max((found.b_level[j] for j in following), default=0)


@given(st.one_of(ALL.map(compile_trace), free_graphs()), st.data())
def test_slack_is_how_long_a_task_can_be_late(graph, data):
    found = critical_path(graph)
    assert all(slack >= 0 for slack in found.slack)
    assert all(found.slack[i] == 0 for i in found.path)
    weights = [float(graph.weight(i)) for i in range(len(graph))]
    task = data.draw(st.integers(0, len(graph) - 1))
    slack = found.slack[task]

    def late(steps: float) -> float:
        return critical_path(graph, [w + steps * (i == task) for i, w in enumerate(weights)]).latency

    if math.isinf(slack):
        assert late(1e6) == found.latency
    else:
        assert late(slack) == found.latency
        assert late(slack + 1) == found.latency + 1


@given(traces(nested=True, min_tokens=1), st.integers(1, 5))
def test_shorter_tasks_never_make_a_path_longer(trace, tokens):
    graph = compile_trace(trace)
    weights = [float(graph.weight(i)) for i in range(len(graph))]
    for i in range(len(graph)):
        shorter = [max(w - tokens * (i == j), 0) for j, w in enumerate(weights)]
        assert critical_path(graph, shorter).latency <= critical_path(graph).latency


@given(ALL, protocols())
def test_the_graph_names_the_threads_that_run(trace, protocol):
    graph = compile_trace(trace, protocol)
    assert {thread.id for thread in graph.threads} == set(decode_clock(trace, protocol).intervals)
    assert graph.threads[0].id == ORGANIZER
    for i, (name, *_) in enumerate(graph.threads[1:], 1):
        parent = name.rpartition(".")[0] or ORGANIZER
        assert graph.threads[graph.threads[i].parent].id == parent


@given(ALL)
def test_capacity_changes_nothing_but_overflows(trace):
    free, one = decode_clock(trace), decode_clock(trace, Protocol(capacity=1))
    assert (free.latency, free.active_steps, free.intervals) == (one.latency, one.active_steps, one.intervals)
    assert free.overflows == 0
    if free.latency:  # with nothing cancelled at step 0, each Fork overflows an organizer that must be alone
        late = sum(start >= free.latency for name, (start, _) in free.intervals.items() if name != ORGANIZER)
        kinds = [violation.kind for violation in free.violations]
        asked = free.workers + kinds.count(ViolationKind.FORK_WITHOUT_WORKER)
        assert free.workers - late <= one.overflows <= asked
