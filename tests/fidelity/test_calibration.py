"""Calibration: known laws are found again, noise and drift are survived, and what cannot be known is refused."""

import json
import tomllib
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import GPU, Answer, ConfigError, Fork, FormatError, Join, LinearBatch, Return, Think, Thread, Trace
from simulator.fidelity import Steps, calibrate, calibrate_traces, read_steps, validate
from simulator.fidelity.designs import hats, knots
from simulator.fidelity.solve import blind, nonnegative, solve
from simulator.machine.cost import MeasuredTable, SplitTable
from simulator.machine.profiles import parse_profile
from tests.support.recorded import record

LINEAR = LinearBatch(a=5e-3, b=2e-3, c=1e-6, p=5e-4, q=2e-7)
SPLIT = SplitTable((1, 2, 4, 16, 64), (1e-2, 3e-2, 2.5e-2, 6e-2, 0.2), b=4e-3, c=2e-6, q=1e-6, r=5e-7)


def rows(law, runs=6, steps=60, noise=0.0, speeds=None, seed=1):
    """Return random steps of a law: a third with prompts alone, a third decode, a third both."""
    rng = np.random.default_rng(seed)
    made = []
    for run, number in product(range(runs), range(steps)):
        kind = number % 3
        n = int(rng.choice([1, 2, 3, 4, 8, 12])) if kind else 0
        m = 0 if kind == 1 else int(rng.choice([1, 4, 12, 24, 50]))
        context = n * int(rng.integers(20, 900)) + n
        cached = int(rng.integers(0, 800))
        attended = m * cached + m * (m + 1) // 2
        stored = context + cached + int(rng.integers(0, 3000))
        seconds = law.step_seconds(n, context, m, attended)
        if getattr(law, "cache_seconds", None):
            seconds += law.cache_seconds(n + m, stored, 1)
        seconds *= (1.0 if speeds is None else speeds[run]) * float(np.exp(noise * rng.standard_normal()))
        step = {"decodes": n, "decode_context": context, "prefill_tokens": m, "prefill_context": attended}
        made.append(step | {"kv_tokens": stored, "seconds": seconds, "run": f"run {run}", "start": float(number)})
    return made


def values(found):
    return {parameter.name: parameter.value for parameter in found.parameters}


# ---------------------------------------------------------------- known laws are found again


def test_a_linear_law_is_found_again():
    found = calibrate(rows(LINEAR), law="linear")
    for name in "abcpq":
        assert values(found)[name] == pytest.approx(getattr(LINEAR, name), rel=1e-5)
    assert found.held_out_steps.max < 1e-5 and found.held_out_runs.max < 1e-5 and found.drift < 1e-6
    for parameter in found.parameters:
        assert parameter.low == pytest.approx(parameter.value, rel=1e-4) == parameter.high


def test_a_split_law_is_found_again():
    found = calibrate(rows(SPLIT, steps=300), law="split")
    for name in "bcqr":
        assert values(found)[name] == pytest.approx(getattr(SPLIT, name), rel=1e-4)
    for n, m in ((1, 0), (2, 0), (3, 0), (4, 12), (0, 24), (12, 50)):
        context, attended = 100 * n, m * 40 + m * (m + 1) // 2
        ours, theirs = (law.step_seconds(n, context, m, attended) for law in (found.cost, SPLIT))
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert found.cost.tokens[0] == 1 and found.cost.tokens[-1] == 62


def test_a_table_is_found_again():
    truth = MeasuredTable(
        (1, 4, 16), (0, 100, 1000), ((5e-3, 6e-3, 9e-3), (6e-3, 8e-3, 2e-2), (7e-3, 1e-2, 4e-2)), (8, 64), (0, 500),
        ((7e-3, 8e-3), (2e-2, 4e-2)),
    )  # fmt: skip
    grid = [(n, c, 0, 0) for n, c in product((1, 4, 16), (0, 100, 1000))]
    grid += [(0, 0, m, c) for m, c in product((8, 64), (0, 500))] + [(4, 100, 8, 500)]
    steps = [
        {
            "decodes": n,
            "decode_context": max(n * c, n),
            "prefill_tokens": m,
            "prefill_context": m * d + m * (m + 1) // 2,
            "seconds": truth.step_seconds(n, max(n * c, n), m, m * d + m * (m + 1) // 2),
        }
        for n, c, m, d in grid + [(n, c, m, 0) for n, c, m in product((1, 16), (100, 1000), (8, 64))]
    ]
    found = calibrate(steps, law="table", folds=13)
    assert len(found.steps) == 13  # steps with both say nothing of the grids
    for row in steps:
        sizes = [row[name] for name in ("decodes", "decode_context", "prefill_tokens", "prefill_context")]
        assert found.cost.step_seconds(*sizes) == pytest.approx(row["seconds"], rel=1e-3)


@settings(max_examples=25)
@given(st.tuples(st.floats(1e-3, 1e-2), *[st.floats(0, 1e-3)] * 2, st.floats(1e-5, 1e-3), st.floats(0, 1e-6)))
def test_any_linear_law_is_found_again(coefficients):
    truth = LinearBatch(*coefficients)
    found = calibrate(rows(truth, runs=3, steps=30), law="linear", folds=3)
    for row in rows(truth, runs=1, steps=30, seed=9):
        sizes = [row[name] for name in ("decodes", "decode_context", "prefill_tokens", "prefill_context")]
        assert found.cost.step_seconds(*sizes) == pytest.approx(truth.step_seconds(*sizes), rel=1e-4)


def test_a_profile_says_what_was_found():
    found = calibrate(rows(SPLIT, steps=300), law="split")
    text = found.profile(source='a "desk" \\ no more', engine={"max_prefill_tokens": 50})
    profile = parse_profile(text, "desk")
    assert profile.source == 'a "desk" \\ no more' and profile.kind == "measured"
    assert profile.mean_error == pytest.approx(found.held_out_runs.mean, abs=1e-4)
    assert (profile.gpu.max_num_seqs, profile.gpu.max_num_batched_tokens, profile.gpu.max_prefill_tokens) == (
        12,
        62,
        50,
    )
    assert profile.gpu.cost.tokens == found.cost.tokens
    assert profile.gpu.cost.seconds == pytest.approx(found.cost.seconds, rel=1e-5)
    assert "1,800 engine steps of 6 runs" in tomllib.loads(text)["provenance"]["measured"]


def test_a_coefficient_of_zero_is_written_where_a_profile_must_have_it():
    found = replace(calibrate(rows(LINEAR, steps=30), law="linear"), cost=LinearBatch(0.0, 1e-3))
    assert parse_profile(found.profile(source="a desk"), "desk").gpu.cost == found.cost


# ---------------------------------------------------------------- noise, interruptions, drift


def test_intervals_hold_the_truth():
    found = calibrate(rows(LINEAR, runs=30, noise=0.1), law="linear")
    inside = [p.low <= getattr(LINEAR, p.name) <= p.high for p in found.parameters]
    assert sum(inside) >= 4 and all(p.low <= p.value * 1.05 and p.value <= p.high * 1.05 for p in found.parameters)
    assert 0.05 < found.held_out_steps.mean < 0.12
    assert calibrate(rows(LINEAR, runs=30, noise=0.1), law="linear").parameters == found.parameters


def test_interrupted_steps_are_outvoted():
    steps = rows(LINEAR, runs=10, noise=0.02)
    for row in steps[::40]:
        row["seconds"] *= 30
    sizes = ("decodes", "decode_context", "prefill_tokens", "prefill_context")
    design = np.array([[1, *(row[name] for name in sizes)] for row in steps])
    plain = np.linalg.lstsq(design, np.array([row["seconds"] for row in steps]), rcond=None)[0]
    found = calibrate(steps, law="linear")
    assert 0.02 < found.outliers < 0.06
    ratio = values(found)["p"] / values(found)["b"]
    assert ratio == pytest.approx(LINEAR.p / LINEAR.b, rel=0.1)
    assert abs(plain[3] / plain[1] / (LINEAR.p / LINEAR.b) - 1) > abs(ratio / (LINEAR.p / LINEAR.b) - 1)


def test_every_run_counts_the_same():
    """The mean relative error of the runs' sums is 0, however long they are; how they differ in speed is told."""
    steps = rows(LINEAR, runs=4, speeds=(1.0, 1.0, 1.0, 1.5))
    steps = [row for row in steps if row["run"] != "run 3" or row["start"] < 30]
    found = calibrate(steps, law="linear")
    sums = [sum(array[found.steps.run == run]) for run in range(4) for array in (found.predicted, found.steps.seconds)]
    assert np.mean([sums[i] / sums[i + 1] - 1 for i in (0, 2, 4, 6)]) == pytest.approx(0, abs=1e-9)
    assert found.drift == pytest.approx(np.std([1, 1, 1, 1.5], ddof=1), rel=0.15)


def test_whole_runs_are_held_out():
    """A run of its own speed is predicted by the others, which do not know that speed."""
    found = calibrate(rows(LINEAR, runs=5, speeds=(1.0, 1.0, 1.0, 1.0, 2.0)), law="linear", folds=5)
    assert found.held_out_runs.max == pytest.approx(0.5, abs=0.01) or found.held_out_runs.max > 0.2
    errors = {name: found.held_out[found.steps.run == i].sum() for i, name in enumerate(found.steps.names)}
    real = {name: found.steps.seconds[found.steps.run == i].sum() for i, name in enumerate(found.steps.names)}
    assert errors["run 4"] / real["run 4"] == pytest.approx(0.5, rel=0.01)


def test_groups_without_runs():
    base = {"decodes": 1, "prefill_tokens": 0, "prefill_context": 0, "seconds": 1.0}
    timeline = Steps.from_rows([base | {"decode_context": 5, "start": i} for i in range(40)])
    assert timeline.groups.tolist() == sorted(timeline.groups.tolist()) and len(set(timeline.groups.tolist())) == 10
    sweep = Steps.from_rows([base | {"decode_context": c} for c in (5, 9, 5, 7)])
    assert len(set(sweep.groups.tolist())) == 3 and sweep.groups[0] == sweep.groups[2]


# ---------------------------------------------------------------- the pieces


@settings(max_examples=100)
@given(st.integers(1, 6), st.integers(0, 10**6))
def test_least_squares_meets_its_conditions(k, seed):
    """Karush, Kuhn and Tucker: no coefficient below 0, no gradient below 0, and one of both is 0."""
    rng = np.random.default_rng(seed)
    design, seconds = rng.standard_normal((12, k)), rng.standard_normal(12)
    gram, target = design.T @ design, design.T @ seconds
    x = nonnegative(gram, target)
    gradient = gram @ x - target
    assert (x >= 0).all() and (gradient >= -1e-8).all() and np.abs(x * gradient).max() < 1e-8


def test_what_cannot_be_told_is_found():
    design = np.array([[1.0, 2, 5], [1, 2, 6], [1, 2, 9]])
    (direction,) = blind(design)
    assert np.abs(direction[:2]).min() > 0.5 and abs(direction[2]) < 1e-6
    assert len(blind(np.array([[1.0, 2], [1, 3]]))) == 0
    assert len(blind(np.array([[1.0, 0], [1, 0]]))) == 1


def test_entries_of_a_table():
    sizes = np.array([1.0] * 20 + [2] * 3 + [3] * 9 + [10, 40])
    assert knots(sizes, "tokens") == (1, 2, 3, 10, 40)
    weights = hats(np.array([2.0, 10, 70]), (1, 3, 10, 40))
    assert weights.sum(axis=1).tolist() == [1, 1, 1] and weights[2].tolist() == [0, 0, -1, 2]


def test_nothing_to_fit():
    with pytest.raises(ConfigError, match="there is nothing to fit"):
        solve(np.zeros((3, 2)), np.ones(3), np.zeros(3, dtype=np.int64))


# ---------------------------------------------------------------- refused


def step(n, context, m=0, attended=0, seconds=0.01):
    return dict(decodes=n, decode_context=context, prefill_tokens=m, prefill_context=attended, seconds=seconds)


@pytest.mark.parametrize(
    ("steps", "law", "message"),
    [
        ([step(4, c) for c in range(4, 99)], "linear", r"a, b cannot be told apart .*: decodes is 4 in every step"),
        ([step(n, 64) for n in range(1, 9)], "linear", r"a, c cannot be told apart .*: decode_context is 64 in every"),
        ([step(n, 9 * n) for n in range(1, 9)], "linear", r"b, c cannot be told apart .* always change together"),
        ([step(0, 0, m, m * m) for m in range(1, 9)], "linear", "no step decodes"),
        ([step(0, 0, m, m * m) for m in range(1, 9)], "split", "no step decodes"),
        ([step(0, 0, m, m * m) for m in range(1, 9)], "table", "no step only decodes"),
        ([step(4, c) for c in range(4, 99)], "split", "every step has 4 tokens: measure steps of other sizes"),
        ([step(4, 4 * c) for c in range(4, 99)], "table", "every step has 4 decodes"),
        ([step(n, n * 10) for n in range(1, 9)], "table", "every step has 10 tokens of context"),
        ([step(1, 9)] * 5, "linear", "cannot be told apart"),
        ([], "linear", "there are no steps"),
        ([step(1, 9), step(2, 20)], "cubic", "no law is called 'cubic'; accepted: linear, split, table"),
    ],
)
def test_what_the_steps_cannot_tell(steps, law, message):
    with pytest.raises(ConfigError, match=message):
        calibrate(steps, law=law)


@pytest.mark.parametrize("folds", [1, 0, 2.0, True, 10**6])
def test_folds(folds):
    with pytest.raises(ConfigError, match="folds must be a whole number from 2"):
        calibrate(rows(LINEAR), law="linear", folds=folds)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seconds": 0}, "seconds must be a number above 0"),
        ({"seconds": float("nan")}, "seconds must be a number above 0"),
        ({"seconds": True}, "seconds must be a number above 0"),
        ({"decodes": -1}, "decodes must be a number from 0"),
        ({"decodes": 1.5}, "decodes must be a whole number"),
        ({"decodes": 0}, "needs decodes or prefill_tokens above 0"),
        ({"decode_context": 0}, "each token attends to itself"),
        ({"prefill_tokens": None}, "a step needs prefill_tokens"),
        ({"kv_tokens": "many"}, "kv_tokens must be a number from 0"),
    ],
)
def test_rows_that_are_no_step(change, message):
    with pytest.raises(ConfigError, match=message):
        Steps.from_rows([step(1, 9) | change])


def test_files_of_steps(tmp_path):
    lines = tmp_path / "steps.jsonl"
    lines.write_text(json.dumps(step(1, 9) | {"wall": 3}) + "\n\n{\n[]\n" + json.dumps(step(2, 1)) + "\n" + "[" * 70000)
    found = list(read_steps(lines))
    assert found[0]["decode_context"] == 9
    assert [(error.line, error.message[:30]) for error in found[1:]] == [
        (3, "not one complete JSON object: "),
        (4, "not a JSON object of at most 6"),
        (5, "each token attends to itself a"),
        (6, "not a JSON object of at most 6"),
    ]
    table = tmp_path / "steps.CSV"
    table.write_text(
        "run,decodes,decode_context,prefill_tokens,prefill_context,seconds\na,1,9,0,0,0.5\na,1,x,0,0,0.5\n"
    )
    first, second = read_steps(table)
    assert first["seconds"] == 0.5 and isinstance(second, FormatError) and second.line == 3
    (tmp_path / "no.csv").write_text("decodes\n1\n")
    (error,) = read_steps(tmp_path / "no.csv")
    assert "no column decode_context, prefill_tokens, prefill_context, seconds" in error.message
    with pytest.raises(ConfigError, match="cannot be read"):
        list(read_steps(tmp_path / "absent.csv"))


# ---------------------------------------------------------------- from traces


def asked(number, rng):
    """Return a query of one round."""
    crew = int(rng.integers(1, 5))
    prompt = int(rng.integers(20, 300))
    forks = tuple(Fork(i) for i in range(1, crew + 1))
    joins = tuple(Join(i, inserted_tokens=int(rng.integers(3, 20))) for i in range(1, crew + 1))
    first = int(rng.integers(5, 40))
    actions = (Think(first), *forks, Think(int(rng.integers(3, 60))), *joins, Answer(int(rng.integers(5, 60))))
    workers = tuple(
        Thread(str(i), (Think(int(rng.integers(10, 90))), Return()), prompt + first + 15, prompt + first)
        for i in range(1, crew + 1)
    )
    return Trace(f"{number}", (Thread("organizer", actions, prompt), *workers))


def recorded_runs(gpu, runs=8, queries=2):
    rng = np.random.default_rng(4)
    for run in range(runs):
        traces = [asked(f"{run}/{query}", rng) for query in range(queries)]
        yield from record(traces, gpu, [0.0, 0.4][:queries], {"run": f"r{run}"}, max_workers=3)


def test_a_law_is_found_in_traces():
    """Of a record whose times follow a law exactly, that law comes out, and predicts the record."""
    truth = GPU(cost=LINEAR, max_prefill_tokens=64)
    traces = list(recorded_runs(truth))
    found = calibrate_traces(traces, law="linear", max_prefill_tokens=64)
    for name in "abcp":
        assert values(found)[name] == pytest.approx(getattr(LINEAR, name), rel=0.05)
    assert found.held_out_runs.max < 0.01 and found.what == "task" and not found.refused
    again = validate(traces, gpu=GPU(cost=found.cost, max_prefill_tokens=64))
    assert again.errors().max < 0.01


def test_a_table_is_found_in_traces():
    truth = GPU(cost=SplitTable((1, 2, 4, 16, 70), (1e-2, 3e-2, 3.5e-2, 6e-2, 0.2), c=2e-6), max_prefill_tokens=64)
    traces = list(recorded_runs(truth, runs=16))
    found = calibrate_traces(traces, law="split", max_prefill_tokens=64)
    assert found.held_out_runs.mean < 0.06
    assert found.cost.step_seconds(2, 400) == pytest.approx(truth.cost.step_seconds(2, 400), rel=0.1)
    plain = calibrate_traces(traces, law="linear", max_prefill_tokens=64)
    assert found.held_out_runs.mean < plain.held_out_runs.mean


def test_traces_that_tell_nothing():
    bare = Trace("bare", (Thread("organizer", (Answer(5),)),))
    with pytest.raises(
        ConfigError, match=r"there is no recorded task to fit to: trace 'bare': thread organizer: no rec"
    ):
        calibrate_traces([bare])
    with pytest.raises(ConfigError, match="there is no recorded task"):
        calibrate_traces([])
    with pytest.raises(ConfigError, match="linear or split; got 'table'"):
        calibrate_traces([bare], law="table")
    found = calibrate_traces([*recorded_runs(GPU(cost=LINEAR)), bare])
    assert [str(error)[:14] for error in found.refused] == ["trace 'bare': "]
