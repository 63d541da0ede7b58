"""Studies: what a file says, what a point is, what random numbers runs share, what is measured."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import Answer, ConfigError, Fork, Join, Protocol, Return, Think, Thread, Trace, dump
from simulator.study import (
    Arrivals,
    Failure,
    Hardware,
    Source,
    Study,
    Window,
    load_results,
    load_study,
    parse_study,
    rerun,
    run_in_folder,
    run_one,
    run_study,
    simulate_one,
)
from simulator.study.inputs import arrival_times, compiled, draw, input_digests, unreadable
from simulator.study.running import RunKey, row_maker
from simulator.workload import generate, grouped

MATH = {"math": Source(generate="asyncthink_math")}


def small(**changes):
    given = {"traces": {"a": Source(generate="batch")}, "queries": 6, "replications": 2}
    return Study(**{**given, **changes})


# --- what a study says -------------------------------------------------------------------------------------------

FILE = """
name = "knee"
queries = 12
replications = 3
seed = 7
metrics = ["latency", "throughput"]
percentiles = [50, 99.9]

[traces.math]
generate = "asyncthink_math"
options = {workers = 4}
weight = 3

[traces.short]
generate = "sequential"
options = {work = "constant:8"}

[protocol]
capacity = 4

[arrivals]
kind = "poisson"
rate = 2.0

[cluster]
gpu = "h100-qwen3-8b"
max_num_seqs = 32
dollars_per_gpu_hour = 2

[window]
warmup = 0.5

[axes]
protocol.capacity = [2, "none"]
"arrivals.rate" = [1, 4]
"cluster" = [{name = "one"}, {name = "two", replicas = 2}]

[baseline]
protocol.capacity = 2
"""


def test_a_file_is_a_study(tmp_path):
    path = tmp_path / "knee.toml"
    path.write_text(FILE)
    study = load_study(path)
    assert study.n_points == 8
    last = list(study.points())[-1]
    assert last.values == {"protocol.capacity": "none", "arrivals.rate": 4, "cluster": {"name": "two", "replicas": 2}}
    assert last.study.protocol.capacity is None
    assert last.study.arrivals.rate == 4
    # The table is laid over what [cluster] says.
    assert last.study.cluster == Hardware(
        gpu="h100-qwen3-8b", max_num_seqs=32, dollars_per_gpu_hour=2, name="two", replicas=2
    )
    assert study.baseline == {"protocol.capacity": 2}
    assert study.base == str(tmp_path)
    assert [study.point(i) for i in range(8)] == list(study.points())


def test_document_and_back(tmp_path):
    path = tmp_path / "knee.toml"
    path.write_text(FILE)
    study = load_study(path)
    again = parse_study(json.loads(json.dumps(study.document())), base=study.base)
    assert again == study
    assert again.document() == study.document()
    for point in study.points():
        assert parse_study(json.loads(point.study.spec())).spec() == point.study.spec()


@given(
    capacity=st.none() | st.integers(1, 9),
    kind=st.sampled_from(
        [
            {"kind": "together"},
            {"kind": "poisson", "rate": 2.5},
            {"kind": "gamma", "rate": 1, "variation": 2},
            {"kind": "closed", "users": 3, "think": 0.5},
        ]
    ),
    replicas=st.integers(1, 4),
    samples=st.just(1),
    metrics=st.lists(st.sampled_from(["latency", "eta", "makespan"]), unique=True),
    percentiles=st.lists(st.sampled_from([0, 50, 99.9]), unique=True),
)
def test_document_and_back_always(capacity, kind, replicas, samples, metrics, percentiles):
    study = small(
        protocol=Protocol(capacity=capacity, when_full="inline"),
        arrivals=Arrivals(**kind),
        cluster=Hardware(gpu=("rate:50", "linear:0.01,0.001,0,0,0"), replicas=replicas),
        samples=samples,
        metrics=tuple(metrics),
        percentiles=tuple(percentiles),
        axes={"queries": [3, 4]},
    )
    assert parse_study(json.loads(json.dumps(study.document()))) == study
    assert parse_study(json.loads(study.point(1).study.spec())).spec() == study.point(1).study.spec()


WRONG = [
    ("quieres = 3", "no key of a study is called 'quieres'; did you mean queries?"),
    ("queries = 0", "queries must be a whole number from 1"),
    ("queries = 100000000000", "queries must be a whole number from 1 to 10,000,000"),
    ("queries = 10000000\nsamples = 2", "queries x samples of a run must be at most 10,000,000"),
    ("queries = 2.5", "study queries must be a whole number from 0, or left out; got 2.5"),
    ("queries = 3\nseed = -1", "study seed must be a whole number from 0"),
    ("queries = 3\nmetrics = ['latencies']", "no metric is called 'latencies'; did you mean latency?"),
    ("queries = 3\nmetrics = 'latency'", "study metrics must be a list, each a text"),
    ("queries = 3\npercentiles = [101]", "percentiles must be from 0 to 100; got 101"),
    ("queries = 3\npercentiles = [50, 50.0]", "percentiles says one of them twice"),
    ("queries = 3\nconfidence = 1", "confidence must be above 0 and below 1"),
    ("", "must say queries"),
    ("queries = 3\n[cluster]\ngup = 'steps'", "no key of [cluster] is called 'gup'; did you mean gpu?"),
    ("queries = 3\n[cluster]\ngpu = 'h100-qwen3-8'", "no GPU profile is called 'h100-qwen3-8'; did you mean"),
    ("queries = 3\n[cluster]\nreplicas = 0", "replicas must be a whole number from 1 to 10,000"),
    ("queries = 3\n[cluster]\nrouting = 'least-load'", "did you mean least-loaded?"),
    ("queries = 3\n[cluster]\nmax_num_seqs = 0", "max_num_seqs must be a whole number from 1"),
    ("queries = 3\n[protocol]\ncapcity = 4", "no key of [protocol] is called 'capcity'; did you mean capacity?"),
    ("queries = 3\n[protocol]\ncapacity = 0", "[protocol]: capacity must be a whole number from 1"),
    ("queries = 3\n[arrivals]\nkind = 'poison'", "kind must be one of together, poisson"),
    ("queries = 3\n[arrivals]\nkind = 'poisson'", "arrivals of kind poisson must say rate"),
    ("queries = 3\n[arrivals]\nkind = 'closed'\nusers = 2\nrate = 2", "arrivals of kind closed have no rate"),
    ("queries = 3\n[arrivals]\nkind = 'poisson'\nrate = 0", "arrivals rate must be a number above 0"),
    (
        "queries = 3\n[arrivals]\nkind = 'poisson'\nrate = nan",
        "[arrivals]: a study holds tables, lists, finite numbers",
    ),
    ("queries = 3\n[arrivals]\nkind = 'recorded'", "recorded arrivals are those of files"),
    ("queries = 3\nsamples = 2\n[arrivals]\nkind = 'closed'\nusers = 2", "samples of a prompt arrive together"),
    ("queries = 3\n[window]\nwarmup = 3", "a window is for open arrivals, not for together"),
    (
        "queries = 3\n[axes]\n'protocol.capcity' = [2]",
        "no key of [protocol] is called 'capcity'; did you mean capacity?",
    ),
    ("queries = 3\n[axes]\n'protocol.capacity' = 2", "axis protocol.capacity must be a list of values"),
    ("queries = 3\n[axes]\n'protocol.capacity' = []", "at least one"),
    ("queries = 3\n[axes]\n'protocol.capacity' = [2, 2]", "says one value twice"),
    ("queries = 3\n[axes]\ncluster = [{name = 'a'}, {name = 'a', replicas = 2}]", "or two of one name"),
    ("queries = 3\n[baseline]\nqueries = 2", "a baseline is a point of the axes, and there are none"),
    ("queries = 3\n[axes]\n'protocol.capacity' = [2, 0]", "(at protocol.capacity = 0)"),
    ("queries = 3\n[axes]\nseed = [1, 2]", "seed is the same for all points: it cannot be an axis"),
    ("queries = 3\n[axes]\n'cluster.gpu' = ['steps', 'rate:50']", "that is two studies"),
    ("queries = 3\nmetrics = ['queries']\n[axes]\nqueries = [2]", "queries is an axis already"),
    ("queries = 3\n[axes]\nqueries = [2]\n[baseline]\nqueries = 3", "baseline: queries is never 3; it is 2"),
    ("queries = 3\n[axes]\nqueries = [2]\n[baseline]\nqeries = 2", "no axis is called 'qeries'; did you mean queries?"),
    ("queries = 3\n[traces.b]\ngenerate = 'bach'", "[traces.b]: 'bach' is no family"),
    ("queries = 3\n[traces.b]\ngenerate = 'batch'\noptions = {wokers = 3}", "batch has no option 'wokers'"),
    ("queries = 3\n[traces.b]\nfiles = ['x']\ngenerate = 'batch'", "either generate or files"),
    ("queries = 3\n[traces.b]\ngenerate = 'batch'\nweight = 0", "weight must be a number above 0"),
    ("queries = 3\n[traces.'b.c']\ngenerate = 'batch'", "sources are called by letters"),
    ("queries = 3\n[traces.b]\nfiles = 'x.jsonl'", "files must be a list"),
    ("queries = [", "not TOML"),
]


@pytest.mark.parametrize(("text", "says"), WRONG, ids=[f"{i}" for i in range(len(WRONG))])
def test_what_is_wrong_is_said(tmp_path, text, says):
    path = tmp_path / "s.toml"
    first, *tables = text.split("\n[")
    body = "\n".join([first, "[traces.a]", "generate = 'batch'", *(f"[{table}" for table in tables)])
    path.write_text(body)
    with pytest.raises(ConfigError) as raised:
        load_study(path)
    assert says in str(raised.value)
    assert str(raised.value).startswith(f"study {path}: ")
    assert "\n" not in str(raised.value) or says == "not TOML"


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_study(tmp_path / "none.toml")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_study(tmp_path / "b.toml")


def test_a_million_points_are_too_many():
    with pytest.raises(ConfigError, match="4,000,000 points are too many"):
        small(axes={"queries": list(range(1, 2001)), "samples": list(range(1, 2001))})


def test_what_an_axis_varies_need_not_be_said_twice():
    document = {
        "traces": {"a": {"generate": "batch"}},
        "arrivals": {"kind": "poisson"},
        "axes": {"queries": [4, 8], "arrivals.rate": [1.0, 2.0]},
    }
    study = parse_study(document)
    assert [(point.study.queries, point.study.arrivals.rate) for point in study.points()] == [
        (4, 1.0),
        (4, 2.0),
        (8, 1.0),
        (8, 2.0),
    ]
    assert parse_study(study.document()) == study


def test_a_baseline_that_is_a_table(tmp_path):
    axes = {"cluster": [{"name": "s"}, {"name": "l", "replicas": 2}], "cluster.prefix_caching": [True, False]}
    study = small(cluster=Hardware(gpu="rate:50"), axes=axes, baseline={"cluster": {"name": "s"}})
    assert parse_study(json.loads(json.dumps(study.document()))) == study
    document = {**study.document(), "baseline": {"cluster": {"name": "s"}}}
    assert parse_study(document) == study
    table = run_in_folder(study, tmp_path / "out")
    one, other = table.compare({"cluster": {"name": "s"}}), table.compare({"cluster": "s"})
    assert one["latency_mean"].tolist() == other["latency_mean"].tolist()
    assert len(table.where({"cluster.prefix_caching": True})) == 4
    assert len(table.where({"cluster": {"name": "l", "replicas": 2}})) == 4


def test_two_axes_may_not_set_one_name():
    with pytest.raises(ConfigError, match=r"the axes protocol and protocol\.capacity both set protocol.capacity"):
        small(axes={"protocol.capacity": [2, 8], "protocol": [{"capacity": 3}, {"when_full": "drop"}]})
    assert small(axes={"cluster": [{"name": "a"}, {"name": "b"}], "cluster.replicas": [1, 2]}).n_points == 4


def test_a_number_beyond_64_bits_is_refused():
    with pytest.raises(ConfigError, match="cluster max_workers must be a whole number from 1 to 10"):
        small(axes={"cluster.max_workers": [2, 10**20]})


# --- random numbers ----------------------------------------------------------------------------------------------


def test_replications_share_random_numbers_across_points():
    study = Study(
        traces=MATH,
        queries=16,
        arrivals=Arrivals(kind="poisson", rate=1),
        axes={"protocol.capacity": [2, 4], "arrivals.rate": [1, 2]},
    )
    first, *others = [point.study for point in study.points()]
    for seed in (study.seed_of(0), study.seed_of(1)):
        graphs, times = compiled(first, seed), arrival_times(first, compiled(first, seed), seed)
        for other in others:
            assert compiled(other, seed) is graphs  # not even made again
            scaled = arrival_times(other, graphs, seed) * other.arrivals.rate
            np.testing.assert_allclose(scaled, times * first.arrivals.rate, rtol=1e-12)
    one, two = (draw(first, study.seed_of(r)) for r in (0, 1))
    assert [trace.threads for trace in one] != [trace.threads for trace in two]


def test_a_changed_weight_moves_only_the_queries_that_it_must():
    sources = {"a": Source(generate="batch"), "b": Source(generate="sequential", weight=1)}
    even = Study(traces=sources, queries=400)
    odd = even.at({"traces.b.weight": 3})
    ones, others = draw(even, 5), draw(odd, 5)
    kinds = [(a.meta["family"], b.meta["family"]) for a, b in zip(ones, others, strict=True)]
    assert 150 < sum(a == "batch" for a, _ in kinds) < 250
    assert 60 < sum(b == "batch" for _, b in kinds) < 140
    assert not [pair for pair in kinds if pair == ("sequential", "batch")]  # b's share only grew
    # The series of a source are the same, only cut elsewhere.
    mine = [trace.threads for trace in ones if trace.meta["family"] == "batch"]
    theirs = [trace.threads for trace in others if trace.meta["family"] == "batch"]
    assert theirs == mine[: len(theirs)]


def test_every_row_can_be_run_again_from_what_it_records():
    study = Study(
        traces={"b": Source(generate="asyncthink_math", weight=2), "a": Source(generate="sequential")},
        queries=12,
        samples=2,
        arrivals=Arrivals(kind="gamma", rate=0.5, variation=2.0),
        cluster=Hardware(gpu="h100-qwen3-8b", max_num_seqs=8),
        axes={"protocol.capacity": [2, 4], "cluster.replicas": [1, 2]},
        replications=2,
    )
    table = run_study(study)
    for row in table.rows():
        alone = run_one(parse_study(json.loads(row["spec"])), row["seed"])
        for name, value in alone.metrics.items():
            assert row[name] == value or (math.isnan(row[name]) and math.isnan(value))


def test_the_seed_of_the_study_changes_all_rows():
    one, two = (run_study(small(seed=seed))["latency_mean"] for seed in (0, 1))
    assert not set(one.tolist()) & set(two.tolist())


def test_the_same_under_every_hash_seed():
    code = (
        "from simulator.study import *;"
        "s=Study(traces={'b': Source(generate='batch'), 'a': Source(generate='nested')}, queries=9,"
        " axes={'protocol.capacity': [3, 5]}, replications=2);"
        "print([list(row.values()) for row in run_study(s).rows()])"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


# --- files -------------------------------------------------------------------------------------------------------


def by_hand(name, *, think=10, work=20, arrival=None):
    organizer = Thread("organizer", (Think(think), Fork(1), Join(1), Answer(5)))
    return Trace(name, (organizer, Thread("1", (Return(work),))), arrival=arrival)


def files(tmp_path, *traces):
    with open(tmp_path / "t.jsonl", "w") as file:
        dump(traces, file)
    return {"f": Source(files=("t.jsonl",))}


def test_every_trace_of_the_files_once(tmp_path):
    sources = files(tmp_path, by_hand("x"), by_hand("y", work=40))
    study = Study(traces=sources, base=str(tmp_path), replications=1, metrics=("latency", "makespan", "throughput"))
    row = next(run_study(study).rows())
    # 10 + 20 + 5 and 10 + 40 + 5 steps, both from 0.
    assert (row["latency_mean"], row["latency_p50"], row["makespan"]) == (45.0, 45.0, 55.0)
    assert row["throughput"] == 2 / 55


def test_draws_from_files_are_with_replacement(tmp_path):
    study = Study(traces=files(tmp_path, by_hand("x"), by_hand("y")), base=str(tmp_path), queries=200)
    names = [trace.id for trace in draw(study, 3)]
    assert 70 < names.count("x") < 130
    assert len(names) == 200


def test_recorded_arrivals(tmp_path):
    late, early = by_hand("late", arrival=100.0), by_hand("early", arrival=40.0)
    study = Study(
        traces=files(tmp_path, late, early),
        base=str(tmp_path),
        arrivals=Arrivals(kind="recorded", speed=2.0),
        replications=1,
    )
    timeline = simulate_one(study, 0)
    assert [graph.name for graph in timeline.graphs] == ["early", "late"]
    assert timeline.arrivals.tolist() == [20.0, 50.0]
    assert [graph.name for graph in simulate_one(study.at({"queries": 1}), 0).graphs] == ["early"]
    with pytest.raises(ConfigError, match="'x' has no recorded arrival"):
        run_one(study.with_(traces=files(tmp_path, by_hand("x"))), 0)


def test_a_bad_record_is_told_and_the_rest_is_used(tmp_path):
    sources = files(tmp_path, by_hand("x"))
    path = tmp_path / "t.jsonl"
    path.write_text(path.read_text() + '{"schema": "forksim.trace/1", "id": 3}\n' + path.read_text())
    study = Study(traces=sources, base=str(tmp_path), axes={"queries": [2, 3]})
    (fault,) = unreadable(study)
    assert str(fault).startswith(f"{path}:2: ")
    assert run_study(study)["error"].tolist() == [None] * 10


def test_files_of_odd_names_and_spellings(tmp_path):
    folder = tmp_path / "run[1]*"
    folder.mkdir()
    files(folder, by_hand("x"))
    for patterns in (("*.jsonl",), ("t.jsonl", "./t.jsonl", "*.jsonl")):
        study = Study(traces={"f": Source(files=patterns)}, base=str(folder), metrics=("queries",))
        assert run_one(study, 0).metrics["queries"] == 1


def test_a_folder_reached_by_a_link(tmp_path):
    study = Study(traces=files(tmp_path, by_hand("x")), base=str(tmp_path), replications=1, metrics=("latency",))
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "er")
    run_in_folder(study, tmp_path / "link" / "out")
    for place in ("link", "deep/er"):
        stored = load_results(tmp_path / place / "out")
        row = next(stored.table.rows())
        assert rerun(row, stored.study) == row
        run_in_folder(study, tmp_path / place / "out")  # it is the same study


def test_weights_may_be_large(tmp_path):
    sources = {name: Source(generate="sequential", weight=1e308) for name in "ab"}
    assert len(draw(Study(traces=sources, queries=9), 1)) == 9


def test_no_file_and_no_trace(tmp_path):
    study = Study(traces={"f": Source(files=("*.jsonl",))}, base=str(tmp_path))
    with pytest.raises(ConfigError, match=r"nothing is called '\*.jsonl' in"):
        unreadable(study)
    (tmp_path / "t.jsonl").write_text("{")
    with pytest.raises(ConfigError, match=r"no trace could be read from \*.jsonl; .*t.jsonl:1"):
        unreadable(study)
    assert "no trace could be read" in run_study(study)["error"][0]


def test_digests_follow_the_files(tmp_path):
    study = Study(traces=files(tmp_path, by_hand("x")), base=str(tmp_path))
    before = input_digests(study)
    assert list(before) == ["t.jsonl"]
    files(tmp_path, by_hand("z"))
    assert input_digests(study) != before


def test_a_run_that_cannot_be_done_is_a_row(tmp_path):
    study = Study(
        traces=files(tmp_path, by_hand("small"), by_hand("large", think=100_000)),
        base=str(tmp_path),
        cluster=Hardware(gpu="h100-qwen3-8b"),
        axes={"cluster.num_kv_blocks": [100, 100_000]},
        replications=2,
    )
    table = run_study(study)
    assert "large" in table["error"][0]
    assert table["error"].tolist()[2:] == [None, None]
    assert np.isnan(table["latency_mean"][:2]).all()
    assert table.summary()["n"].tolist() == [0, 2]
    assert math.isnan(table.summary()["latency_mean"][0])


# --- groups ------------------------------------------------------------------------------------------------------


def test_samples_share_the_prompt():
    traces = list(grouped(generate("batch", 6, seed=3), 3))
    plain = list(generate("batch", 6, seed=3))
    for place, (trace, own) in enumerate(zip(traces, plain, strict=True)):
        first = traces[place - place % 3]
        query = first.organizer.prompt_tokens
        assert trace.organizer.prompt_tokens == query
        assert [thread.actions for thread in trace.threads] == [thread.actions for thread in own.threads]
        for thread, before in zip(trace.threads[1:], own.threads[1:], strict=True):
            assert thread.shared_tokens == query
            assert thread.prompt_tokens - query == before.prompt_tokens - before.shared_tokens  # the sub-query
        if place % 3:
            assert (trace.prefix_of, trace.organizer.shared_tokens) == (first.id, query)
        else:
            assert trace == own


def test_samples_arrive_together_and_save_prompts():
    study = Study(
        traces=MATH,
        queries=4,
        samples=8,
        arrivals=Arrivals(kind="poisson", rate=0.1),
        cluster=Hardware(gpu="h100-llama3.1-8b-engine"),
        replications=1,
    )
    timeline = simulate_one(study, study.seed_of(0))
    assert len(timeline) == 32
    assert len(set(timeline.arrivals.tolist())) == 4
    without = simulate_one(study.at({"cluster.prefix_caching": False}), study.seed_of(0))
    assert timeline.busy < without.busy


# --- what is measured --------------------------------------------------------------------------------------------


def test_window_by_hand(tmp_path):
    # Alone each takes 35 steps on the step clock; they arrive at 0, 10, 20, 30 and 40.
    traces = [by_hand(f"{i}", arrival=10.0 * i) for i in range(5)]
    study = Study(
        traces=files(tmp_path, *traces),
        base=str(tmp_path),
        arrivals=Arrivals(kind="recorded"),
        window=Window(warmup=10.0, cooldown=5.0),
        metrics=("latency", "counted", "throughput", "queries", "answered"),
        replications=1,
    )
    result = run_one(study, 0)
    # Measured from 10 to 35: the queries of 10, 20 and 30 count, and only that of 0 is answered meanwhile, at 35.
    assert result.queries["counted"].tolist() == [0, 1, 1, 1, 0]
    assert result.metrics["counted"] == 3
    assert result.metrics["throughput"] == 1 / 25
    assert result.metrics["queries"] == result.metrics["answered"] == 5


def test_cost_by_hand(tmp_path):
    study = Study(
        traces=files(tmp_path, by_hand("x"), by_hand("y")),
        base=str(tmp_path),
        cluster=Hardware(gpu="rate:1", replicas=2, dollars_per_gpu_hour=36.0),
        metrics=("cost_per_1000_queries", "gpus", "makespan"),
        replications=1,
    )
    metrics = run_one(study, 0).metrics
    # Two GPUs for 35 seconds at a cent a second, two queries.
    assert (metrics["makespan"], metrics["gpus"]) == (35.0, 2)
    assert metrics["cost_per_1000_queries"] == pytest.approx(350)


def test_closed_loop_with_one_user_is_isolated():
    together = small(
        queries=5, arrivals=Arrivals(kind="closed", users=1), cluster=Hardware(gpu="linear:0.01,0.001,0,0,0")
    )
    timeline = simulate_one(together, 3)
    alone = [simulate_one(together.with_(arrivals=Arrivals()).at({"queries": 5}), 3).graphs[i].name for i in range(5)]
    assert [graph.name for graph in timeline.graphs] == alone
    from simulator import simulate

    gpu = together.cluster.cluster()
    for i, graph in enumerate(timeline.graphs):
        assert timeline.latency[i] == pytest.approx(simulate(graph, gpu=gpu).latency[0], rel=1e-12)


FAMILY = st.sampled_from(["sequential", "parallel", "batch", "interleaved", "random_organizer", "nested"])


@settings(max_examples=100)
@given(
    family=FAMILY,
    capacity=st.integers(1, 6),
    when_full=st.sampled_from(["queue", "block", "inline", "drop", "allow"]),
    seed=st.integers(0, 10**6),
    gpu=st.sampled_from(
        ["steps", "rate:50", "linear:0.01,0.002,0,0.0001,0", "h100-qwen3-8b", "h100-llama3.1-8b-engine"]
    ),
    queries=st.integers(1, 5),
    max_num_seqs=st.none() | st.integers(1, 4),
)
def test_bounds_hold(family, capacity, when_full, seed, gpu, queries, max_num_seqs):
    study = Study(
        traces={"a": Source(generate=family, options={"work": "uniform:1:60", "think": "uniform:1:20"})},
        queries=queries,
        protocol=Protocol(capacity=capacity, when_full=when_full),
        cluster=Hardware(gpu=gpu, max_num_seqs=max_num_seqs),
        metrics=("lower_bound", "upper_bound"),
    )
    columns = run_one(study, seed).queries
    rows = (columns[name].tolist() for name in ("latency", "lower_bound", "upper_bound"))
    for latency, low, high in zip(*rows, strict=True):
        if not math.isnan(latency):
            assert math.isnan(low) or low <= latency * (1 + 1e-9)
            assert math.isnan(high) or latency <= high * (1 + 1e-9)
    if gpu == "steps" and capacity >= 2 and when_full == "queue" and family != "nested" and max_num_seqs is None:
        assert not np.isnan(columns["upper_bound"]).any()


def test_the_upper_bound_is_reached(tmp_path):
    # c = 2: three workers of 10 one after another, all joined; no overlap with the organizer's 1 + 1 + 1 + 1.
    forks = (Fork(1, 1), Fork(2), Fork(3), Join(1), Join(2), Join(3), Answer(1))
    workers = tuple(Thread(str(i), (Return(10),)) for i in (1, 2, 3))
    sources = files(tmp_path, Trace("t", (Thread("organizer", forks), *workers)))
    study = Study(
        traces=sources,
        base=str(tmp_path),
        protocol=Protocol(capacity=2),
        metrics=("latency", "lower_bound", "upper_bound"),
        percentiles=(),
    )
    # Work 32, path 12: (32 - 12) / 1 + 12 = 32, and that is what happens. From below: 32 / 2 = 16.
    assert run_one(study, 0).metrics == {
        "latency_mean": 32.0,
        "lower_bound_mean": 16.0,
        "upper_bound_mean": 32.0,
        "unanswered": 0,
    }


def test_max_workers_takes_the_upper_bound_away(tmp_path):
    study = Study(
        traces=files(tmp_path, by_hand("x")),
        base=str(tmp_path),
        protocol=Protocol(capacity=2),
        cluster=Hardware(max_workers=1),
        metrics=("upper_bound",),
    )
    assert math.isnan(run_one(study, 0).metrics["upper_bound_mean"])


def test_unanswered_queries_are_not_averaged(tmp_path):
    # In a pool of one the worker never gets a place, and the organizer waits for it for ever.
    study = Study(
        traces=files(tmp_path, by_hand("x")),
        base=str(tmp_path),
        protocol=Protocol(capacity=1),
        metrics=("latency", "answered", "deadlocks", "eta"),
        percentiles=(50,),
    )
    metrics = run_one(study, 0).metrics
    assert (metrics["answered"], metrics["deadlocks"]) == (0, 1)
    assert math.isnan(metrics["latency_mean"])
    assert math.isnan(metrics["eta_p50"])


# --- running -----------------------------------------------------------------------------------------------------


def test_done_runs_are_left_out():
    study = small(axes={"queries": [3, 4]})
    seen = []
    table = run_study(study, done={RunKey(0, 0), RunKey(1, 1)}, each=lambda task, outcome: seen.append(task))
    assert seen == [RunKey(1, 0), RunKey(0, 1)]
    assert list(zip(table["point"].tolist(), table["replication"].tolist(), strict=True)) == [(0, 1), (1, 0)]


def test_a_failure_is_a_row():
    row = row_maker(small())(RunKey(0, 1), Failure("it died", died=True))
    assert row["error"] == "it died"
    assert math.isnan(row["latency_mean"])
    assert row["seed"] == small().seed_of(1)


def test_queries_are_kept_where_they_are_asked_for():
    kept = []
    run_study(small(), each=lambda task, outcome: kept.append(len(outcome.queries)), keep_queries=True)
    run_study(small(), each=lambda task, outcome: kept.append(len(outcome.queries)))
    assert kept == [7, 7, 0, 0]
