"""Service level objectives of each query: what they may say, and goodput by hand and as a law."""

import math
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import (
    Answer,
    ConfigError,
    Fork,
    FreePromptWarning,
    Join,
    Protocol,
    Return,
    Thread,
    Trace,
    compile_trace,
    measure,
    simulate,
)
from simulator.formats import native
from simulator.metrics.slo import RELATIONS, Target, meets, parse_target, parse_targets, query_meets
from simulator.planning import parse_objectives, plan
from simulator.study import Arrivals, Hardware, Source, Study, run_study


def one(name, tokens, prompt=0):
    return Trace(name, (Thread("organizer", (Answer(tokens),), prompt_tokens=prompt),))


def files(folder, *traces):
    (folder / "traces.jsonl").write_bytes(b"".join(native.encode(trace) + b"\n" for trace in traces))
    return {"f": Source(files=("traces.jsonl",))}


# ---------------------------------------------------------------- what they say


@pytest.mark.parametrize(
    ("text", "unit", "target"),
    [
        ("ttft < 1 s", "seconds", Target("ttft", "<", 1.0)),
        ("ttft<1s", "seconds", Target("ttft", "<", 1.0)),
        ("tpot <= 50 ms", "seconds", Target("tpot", "<=", 0.05)),
        ("e2e < 2 min", "seconds", Target("latency", "<", 120.0)),
        ("latency < 500", "steps", Target("latency", "<", 500.0)),
        ("latency < 500 steps", "steps", Target("latency", "<", 500.0)),
        ("bound_prefill < 20 %", "seconds", Target("bound_prefill", "<", 0.2)),
        ("eta >= 2", "seconds", Target("eta", ">=", 2.0)),
    ],
)
def test_what_can_be_said(text, unit, target):
    assert parse_target(text, unit) == target


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an objective is METRIC < NUMBER"),
        ("ttft", "an objective is METRIC < NUMBER"),
        (3, "an objective is METRIC < NUMBER"),
        ("ttft < nan", "an objective is METRIC < NUMBER"),
        ("p95 ttft < 1", r"asked of each query, which has no p95: say ttft < 1"),
        ("mean ttft < 1", r"asked of each query, which has no mean"),
        ("ttft_p95 < 1", "no metric of a query is called 'ttft_p95'; did you mean ttft"),
        ("throughput > 1", "no metric of a query is called 'throughput'"),
        ("ttft < 1 fortnight", "ttft is a time in seconds, and takes ms, s, min, h or no unit; got 'fortnight'"),
        ("eta < 1 s", "eta is no time, and takes % or no unit"),
    ],
)
def test_what_cannot_be_said(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_target(text)


@given(st.sampled_from(list(RELATIONS)), st.floats(allow_nan=True), st.floats(-10, 10))
def test_a_target_holds_as_python_compares(relation, value, limit):
    assert Target("eta", relation, limit).holds(value) == eval(f"value {relation} limit")


def test_what_does_not_exist_keeps_to_nothing():
    assert not Target("tpot", "<", 1.0).holds(math.nan) and not Target("tpot", ">", 1.0).holds(math.nan)
    nothing = simulate(compile_trace(one("t", 1)))
    assert not query_meets(parse_targets(["tpot < 9"], "steps"), nothing, 0)  # one token has no pace


# ---------------------------------------------------------------- goodput


def test_goodput_by_hand(tmp_path):
    """One place at 10 tokens/s, all at 0: answers at 1, 3, 6 and 10 s, first tokens at 0.1, 1.1, 3.1 and 6.1 s."""
    traces = files(tmp_path, *(one(f"q{n}", 10 * n) for n in (1, 2, 3, 4)))
    study = Study(
        traces=traces,
        base=str(tmp_path),
        cluster=Hardware(gpu="rate:10", max_num_seqs=1),
        metrics=("throughput", "goodput", "slo_attainment", "ttft"),
        slo=["ttft < 3.5 s", "e2e <= 4 s"],
        replications=1,
        percentiles=(50,),
    )
    [row] = run_study(study).rows()
    assert row["throughput"] == pytest.approx(0.4)
    assert row["goodput"] == pytest.approx(2 / 10)
    assert row["slo_attainment"] == pytest.approx(2 / 4)
    assert row["ttft_mean"] == pytest.approx((0.1 + 1.1 + 3.1 + 6.1) / 4)


def test_goodput_is_the_throughput_where_all_keep_to_it_and_nothing_where_none_does():
    study = Study(
        traces={"a": Source(generate="batch")},
        queries=30,
        replications=2,
        arrivals=Arrivals(kind="poisson", rate=2.0),
        cluster=Hardware(gpu="rate:50", max_num_seqs=8),
        metrics=("throughput", "goodput", "slo_attainment"),
        percentiles=(),
        slo=("eta < 9",),
        axes={"arrivals.rate": [1.0, 4.0]},
    )
    rows = {limit: list(run_study(study.with_(slo=(f"e2e < {limit}",))).rows()) for limit in (1e6, 20, 1e-3)}
    for all_of_them, some, none in zip(*rows.values(), strict=True):
        assert all_of_them["goodput"] == all_of_them["throughput"] and all_of_them["slo_attainment"] == 1
        assert 0 <= some["goodput"] <= some["throughput"] and some["throughput"] == all_of_them["throughput"]
        assert none["goodput"] == none["slo_attainment"] == 0


def test_an_objective_is_checked_when_the_study_is_made():
    source = {"a": Source(generate="batch")}
    with pytest.raises(ConfigError, match=r"goodput counts by objectives of each query: say slo"):
        Study(traces=source, queries=4, metrics=("goodput",))
    with pytest.raises(ConfigError, match="ttft is a time in steps"):
        Study(traces=source, queries=4, slo=("ttft < 1 s",))
    with pytest.raises(ConfigError, match="slo is the same for all points: it cannot be an axis"):
        Study(traces=source, queries=4, slo=("ttft < 9",), axes={"slo": [["ttft < 1"], ["ttft < 2"]]})
    study = Study(traces=source, queries=4, slo=["ttft < 9"], axes={"cluster.gpu": ["rate:10", "rate:20"]})
    assert study.document()["slo"] == ["ttft < 9"] and study.at({"cluster.gpu": "rate:5"}).slo == ("ttft < 9",)


def test_a_plan_asks_for_goodput():
    """Each replica answers a query a second; four of eight are to be answered within two seconds."""
    fixed = Source(generate="sequential", options={"work": "constant:85", "answer": "constant:5"})
    study = Study(traces={"a": fixed}, queries=8, cluster=Hardware(gpu="rate:100", max_num_seqs=1), slo=("e2e <= 2.5",))
    metrics = measure(simulate(compile_trace(one("t", 100)), gpu="rate:100"))
    assert meets(parse_targets(["e2e <= 2.5"]), metrics.values)
    found = plan(study, "smallest", "cluster.replicas", range(1, 9), parse_objectives(["slo_attainment >= 100 %"]))
    assert found.value == 4


# ---------------------------------------------------------------- prompts that are free


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("gpu", "prompt", "warned"),
    [("h100-qwen3-8b", 1001, True), ("h100-qwen3-8b", 1000, False), ("h100-qwen3-8b-database", 5000, False)],
)
def test_a_study_warns_once_of_long_prompts_that_are_free(tmp_path, gpu, prompt, warned):
    study = Study(
        traces=files(tmp_path, one("q", 4, prompt)),
        base=str(tmp_path),
        cluster=Hardware(gpu=gpu),
        replications=3,
        axes={"cluster.max_num_seqs": [1, 2]},
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run_study(study)
    told = [str(each.message) for each in caught if each.category is FreePromptWarning]
    assert len(told) == int(warned) and all("h100-qwen3-8b takes no time for prompts" in each for each in told)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        simulate(compile_trace(one("q", 4, prompt)), gpu=gpu)
    assert len(caught) == int(warned)


def test_who_is_never_answered_keeps_to_nothing_in_a_run_as_in_a_study():
    stuck = Trace("stuck", (Thread("organizer", (Fork(1, 2), Join(1), Answer(1))), Thread("1", (Return(5),))))
    timeline = simulate(compile_trace(stuck), protocol=Protocol(capacity=1), on_deadlock="record")
    targets = parse_targets(["ttft < 9"], "steps")
    assert measure(timeline).ttft == 1 and math.isnan(measure(timeline).latency)
    assert not meets(targets, measure(timeline).values) and not query_meets(targets, timeline, 0)
