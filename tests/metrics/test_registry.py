"""Every entry of the registries of metrics keeps the laws of its kind; one that is added later is known everywhere."""

import csv
import json
import math
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest

from simulator import (
    GPU,
    Answer,
    Cluster,
    ConfigError,
    ConstantRate,
    Fork,
    Join,
    LinearBatch,
    Protocol,
    Return,
    Think,
    Thread,
    Trace,
    compile_trace,
    measure,
    read,
    simulate,
    summarize,
)
from simulator.cli import main
from simulator.metrics import METRICS, SUMMARIES, TIME, Metric, QueryView
from simulator.metrics.slo import Target
from simulator.planning import parse_objective, plan
from simulator.plots import heatmap, latency_capacity
from simulator.study import QUERY_METRICS, RUN_METRICS, Hardware, Source, Study, Window, run_study
from simulator.study.measures import Observed, read_column

ROOT = Path(__file__).parents[2]
ALL = [
    *((name, metric, "query") for name, metric in QUERY_METRICS.items()),
    *((name, metric, "run") for name, metric in SUMMARIES.items()),
    *((name, metric, "window") for name, metric in RUN_METRICS.items()),
]
UNITS = {"", TIME, "steps", "tokens", "agents", "sequences", "Forks", "violations", "queries", "GPUs", "dollars"}

each_metric = pytest.mark.parametrize(("name", "metric", "of"), ALL, ids=[f"{name}, {of}" for name, _, of in ALL])


# ---------------------------------------------------------------- every entry


def seen(timeline, gpus=1):
    return Observed(timeline, Window(), gpus, dollars_per_gpu_hour=2.0, slo=(Target("latency", "<", 50.0),))


def value(metric, of, timeline):
    return float(metric.function({"query": QueryView(timeline, 0), "run": timeline, "window": seen(timeline)}[of]))


@cache
def golden():
    """Timelines of recorded, synthetic and broken traces on all kinds of machines, with every rule for a full pool."""
    files = [*sorted((ROOT / "traces").glob("*/*.jsonl")), ROOT / "traces" / "synthetic.jsonl"]
    traces = [trace for path in files for trace in read(path, keep_text=False) if isinstance(trace, Trace)]
    assert len(traces) > 20
    memory = GPU(cost=LinearBatch(a=0.02, b=1e-3, p=1e-4), num_kv_blocks=4000, max_num_seqs=3)
    machines = [GPU(), GPU(max_num_seqs=1), memory, Cluster(replicas=[GPU(cost=ConstantRate(50))] * 2)]
    runs = partial(simulate, on_deadlock="record")
    timelines = []
    for place, trace in enumerate(traces[:: max(1, len(traces) // 40)]):
        when_full = ("queue", "block", "inline", "drop", "allow")[place % 5]
        graph = compile_trace(trace, Protocol(capacity=(2, 3, None)[place % 3], when_full=when_full))
        timelines.append(runs([graph, graph], gpu=machines[place % 4], arrivals=[0.0, 1.5]))
    return timelines


@each_metric
def test_a_metric_is_a_number_or_nan_on_every_timeline(name, metric, of):
    for timeline in golden():
        assert not math.isinf(value(metric, of, timeline))


@each_metric
def test_a_metric_says_its_unit_and_its_title(name, metric, of):
    assert set(metric.unit.removesuffix(" per time").split(" per ")) <= UNITS
    assert metric.title and metric.heading
    for clock in ("steps", "seconds"):
        assert "time" not in metric.unit_on(clock).split()
        assert not any("per time" in text for text in (metric.title_on(clock), metric.heading_on(clock)))


@each_metric
def test_a_metric_is_in_the_table_of_its_kind(name, metric, of):
    kind = "query, in a study" if name in QUERY_METRICS.maps[0] and of == "query" else of
    table = dict(documented(kind))
    assert table[name] == [metric.title, metric.unit, metric.better or ""]


@pytest.mark.parametrize(
    ("kind", "names"),
    [("query", METRICS), ("query, in a study", QUERY_METRICS.maps[0]), ("run", SUMMARIES), ("window", RUN_METRICS)],
)
def test_the_tables_hold_what_the_registries_hold(kind, names):
    assert [name for name, _ in documented(kind)] == list(names)


def documented(kind):
    lines = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| of a {kind} |")) + 2
    for line in lines[start:]:
        if not line.startswith("|"):
            return
        name, *said, meaning = (cell.strip() for cell in line.removesuffix("|").removeprefix("|").split("|"))
        assert meaning
        yield name.strip("`"), said


# ---------------------------------------------------------------- which way is better


def threads(organizer, *workers):
    names = [str(i + 1) for i in range(len(workers))]
    return Trace("t", (Thread("organizer", organizer), *map(Thread, names, ((each,) for each in workers))))


ALONE = threads((Think(60), Answer(10)))
TALKATIVE = threads((Think(90), Answer(10)))
FORKED = threads((Fork(1), Fork(2), Join(1), Join(2), Answer(10)), Return(30), Return(30))
UNANSWERED = threads((Fork(1), Join(1), Answer(1)), Fork(1), Return(1))
NESTED = Trace(
    "t",
    (
        Thread("organizer", (Fork(1), Join(1), Answer(1))),
        Thread("1", (Fork(1), Join(1), Return(1))),
        Thread("1.1", (Return(1),)),
    ),
)


def run(trace, capacity=4, gpu=None, apart=None, **rules):
    graph = compile_trace(trace, Protocol(capacity=capacity, **rules))
    graphs, arrivals = ([graph], None) if apart is None else ([graph, graph], [0.0, apart])
    return simulate(graphs, gpu=gpu or GPU(max_num_seqs=8), arrivals=arrivals, on_deadlock="record")


def pairs():
    """Two timelines each, of which anybody would prefer the second, and the metrics that have to say so."""
    concurrent = "latency critical_path_steps critical_path_seconds eta eta_over_c peak_concurrency speedup_steps saved"
    concurrent += " speedup concurrency makespan latency_mean latency_p50 latency_p95 latency_p99 tokens_per_second"
    yield run(ALONE), run(FORKED), f"{concurrent} throughput goodput slo_attainment"
    one_a_second = GPU(cost=ConstantRate(1))
    yield run(ALONE, gpu=one_a_second), run(FORKED, gpu=one_a_second), f"{concurrent} cost_per_1000_queries"
    yield run(TALKATIVE), run(ALONE), "work latency"
    yield run(ALONE, gpu=one_a_second), run(ALONE, gpu=GPU(cost=ConstantRate(2))), "ttft tpot itl"
    first = compile_trace(ALONE)
    behind = simulate([first, first], arrivals=[1.0, 0.0], gpu=GPU(max_num_seqs=1))
    yield behind, run(ALONE), "queue_time ttft"
    yield run(FORKED, gpu=GPU(max_num_seqs=1)), run(FORKED), "queueing_delay wait_batch speedup"
    yield run(FORKED, 2), run(FORKED), "wait_pool overflows forks_on_full_pool queueing_delay violation_count"
    yield run(FORKED, apart=500.0), run(FORKED, apart=0.0), "utilization mean_batch throughput queries_per_second"
    memory = GPU(max_num_seqs=8, num_kv_blocks=100)
    apart, together = (run(FORKED, gpu=memory, apart=wait) for wait in (500.0, 0.0))
    yield apart, together, "occupancy batch_occupancy kv_occupancy"
    yield run(NESTED, 2), run(NESTED, 4), "answered deadlocks unanswered"


def test_better_is_better():
    shown = set()
    for worse, better, names in pairs():
        for name in names.split():
            [(metric, of)] = [(metric, of) for known, metric, of in ALL if known == name]
            low, high = value(metric, of, worse), value(metric, of, better)
            assert low > high if metric.better == "lower" else low < high, (name, low, high)
            shown.add(name)
    assert RUN_METRICS["gpus"].better == "lower"  # what it takes, and not what comes of it
    assert shown | {"gpus"} == {name for name, metric, _ in ALL if metric.better}


# ---------------------------------------------------------------- added when everything is imported


def cuts(view):
    """Forks of the organizer."""
    return sum(isinstance(action, Fork) for action in view.graph.trace.organizer.actions)


def longest(timeline):
    return float(np.nanmax(timeline.latency))


@pytest.fixture
def added(monkeypatch):
    monkeypatch.setitem(METRICS, "cuts", Metric(cuts, "cuts", "higher", "cuts of the query"))
    monkeypatch.setitem(METRICS, "idle", Metric(lambda view: view.spans["wait_join"], TIME, "lower", "idle time"))
    monkeypatch.setitem(SUMMARIES, "longest", Metric(longest, TIME, "lower", "longest wait"))


STUDY = """
queries = 4
replications = 2
metrics = ["cuts", "idle", "longest"]
percentiles = [95]
[traces.a]
generate = "parallel"
[cluster]
gpu = "rate:50"
[axes]
"protocol.capacity" = [2, 8]
"""


@pytest.mark.usefixtures("added")
def test_a_metric_added_later_is_measured():
    timeline = run(FORKED, gpu=GPU(cost=ConstantRate(10)))
    assert measure(timeline).cuts == 2 and summarize(timeline)["longest"] == timeline.latency[0]


@pytest.mark.usefixtures("added")
def test_a_metric_added_later_is_written_by_the_command(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["run", str(ROOT / "traces" / "synthetic.jsonl"), "--json", "--plots", "0", "--out", str(tmp_path)])
    assert end.value.code == 0
    first, *_ = map(json.loads, capsys.readouterr().out.splitlines())
    [row, *_] = csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines())
    assert first["cuts"] == float(row["cuts"]) and first["idle"] == float(row["idle"])


@pytest.mark.usefixtures("added")
def test_a_metric_added_later_is_studied_planned_and_drawn(tmp_path, capsys):
    (tmp_path / "study.toml").write_text(STUDY)
    study = Study(
        traces={"a": Source(generate="parallel")},
        queries=4,
        replications=2,
        cluster=Hardware(gpu="rate:50"),
        metrics=["cuts", "idle", "longest"],
        percentiles=[95],
        axes={"protocol.capacity": [2, 8]},
    )
    table = run_study(study)
    assert table.metrics == ("cuts_mean", "cuts_p95", "idle_mean", "idle_p95", "longest", "unanswered")
    assert latency_capacity(table, metric="cuts_mean").get_ylabel() == "mean cuts of the query, cuts"
    assert latency_capacity(table, metric="idle_p95").get_ylabel() == "p95 idle time, seconds"
    one = study.with_(axes={})
    found = plan(one, "smallest", "protocol.capacity", [2, 8], [parse_objective("longest < 100 h")])
    assert found.value == 2
    for text in ("idle_p95 < 1500 ms", "longest < 1.5 s"):
        assert parse_objective(text).limit == 1.5
    assert parse_objective("cuts_mean >= 2 cuts").limit == 2
    with pytest.raises(ConfigError, match="cuts_mean is no time, and takes cuts or no unit; got 's'"):
        parse_objective("cuts_mean < 2 s")
    with pytest.raises(SystemExit) as end:
        main(
            [
                "plan",
                str(tmp_path / "study.toml"),
                "--slo",
                "cuts_mean >= 1 cuts",
                "--smallest",
                "cluster.replicas=1..2",
            ]
        )
    assert end.value.code == 0
    assert "meets cuts_mean >= 1 cuts:" in capsys.readouterr().out.replace("\n", " ")


def test_a_metric_nobody_knows_is_told_by_its_name():
    column = read_column("cuts_p95")
    assert (column.name, column.statistic, column.title_on("steps")) == ("cuts", "p95", "p95 cuts")
    assert column.metric.better is None and column.metric.unit_on("seconds") == ""
    with pytest.raises(ConfigError, match="no metric is called 'cuts'"):
        Study(traces={"a": Source(generate="parallel")}, queries=4, metrics=["cuts"])


def test_a_name_that_looks_like_a_statistic(monkeypatch):
    assert read_column("latency_mean").name == "latency"  # and no metric of the run, though `summarize` has one
    monkeypatch.setitem(SUMMARIES, "gap_mean", Metric(longest, TIME, "lower", "mean gap"))
    assert read_column("gap_mean").statistic == ""
    monkeypatch.setitem(METRICS, "gap", Metric(cuts, "", None, "gap"))
    assert read_column("gap_mean").statistic == "mean"


def test_steps_of_the_paper_are_a_time_in_steps_on_either_clock():
    for clock in ("steps", "seconds"):
        assert parse_objective("critical_path_steps_mean < 100 steps", clock).limit == 100
    with pytest.raises(ConfigError, match="critical_path_steps_mean is a time in steps, and takes steps or no unit"):
        parse_objective("critical_path_steps_mean < 100 s")


def test_nothing_stands_out_where_neither_end_is_better():
    table = run_study(
        Study(
            traces={"a": Source(generate="parallel")},
            queries=2,
            replications=1,
            metrics=["bound_worker"],
            axes={"protocol.capacity": [2, 8], "cluster.max_num_seqs": [1, 4]},
        )
    )
    ax = heatmap(table, x="protocol.capacity", y="cluster.max_num_seqs", metric="bound_worker_mean")
    assert not [patch for patch in ax.patches if patch.get_gid() == "best"]


# ---------------------------------------------------------------- entries that are none


@pytest.mark.parametrize("registry", [METRICS, SUMMARIES])
def test_a_bare_function_is_told_how_to_become_a_metric(registry, monkeypatch):
    monkeypatch.setitem(registry, "cuts", cuts)
    way_out = r"the metric 'cuts' must be a simulator.metrics.Metric, such as Metric\(function, unit='', better=None"
    with pytest.raises(ConfigError, match=way_out):
        (measure if registry is METRICS else summarize)(run(ALONE))
    with pytest.raises(ConfigError, match=way_out):
        Study(traces={"a": Source(generate="parallel")}, queries=4, metrics=["cuts"])


def test_what_goes_wrong_inside_a_metric_is_told_as_it_is(monkeypatch):
    monkeypatch.setitem(METRICS, "cuts", Metric(lambda view: view.forks, "", None, "cuts"))
    with pytest.raises(AttributeError, match="forks"):
        measure(run(ALONE))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((3, "", None, "cuts"), "function must be a function, got 3"),
        ((cuts, None, None, "cuts"), "unit of cuts must be a text, empty for a plain number; got None"),
        ((cuts, "", "more", "cuts"), "better of cuts must be 'lower', 'higher' or None; got 'more'"),
        ((cuts, "", None, " "), "title must be a text, got ' '"),
    ],
)
def test_records_that_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        Metric(*fields)
