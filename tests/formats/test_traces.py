"""The shipped traces are what traces/README.md says."""

import ast
import csv
import importlib
import json
import os
import re
import runpy
import sys
from fractions import Fraction
from itertools import groupby, pairwise
from pathlib import Path

import pytest

from simulator.formats import detect, native, render
from simulator.formats.reading import read
from simulator.graph.clock import check, decode_clock
from simulator.trace import Answer, Fork, Join, Think, ViolationKind
from simulator.trace.protocol import Protocol

ROOT = Path(__file__).parents[2]
TRACES = ROOT / "traces"
CORPUS = os.environ.get("FORKSIM_CORPUS")


def load(name):
    return list(read(TRACES / name))


@pytest.fixture
def convert(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    return importlib.import_module("convert_llamacpp")


# Hand-written


@pytest.mark.parametrize(("name", "capacity"), [("countdown", 2), ("geometry", 4)])
def test_hand_written_traces_are_legal(name, capacity):
    trace = load(f"asyncthink/{name}.txt")[0]
    clock = decode_clock(trace, Protocol(capacity=capacity, nested_forks=False))
    assert clock.violations == ()
    assert clock.peak_concurrency == capacity
    for worker in trace.threads[1:]:
        join = next(a for a in trace.organizer.actions if isinstance(a, Join) and str(a.index) == worker.id)
        assert join.text == worker.actions[-1].text


def value(node, leaves):
    """Return the exact value of an arithmetic expression; collect its numbers."""
    if isinstance(node, ast.Constant):
        leaves.append(node.value)
        return Fraction(node.value)
    left, right = value(node.left, leaves), value(node.right, leaves)
    return {
        ast.Add: left.__add__,
        ast.Sub: left.__sub__,
        ast.Mult: left.__mul__,
        ast.Div: left.__truediv__,
    }[type(node.op)](right)


def test_countdown_is_solved_four_times_and_forks_on_what_it_learned():
    trace = load("asyncthink/countdown.txt")[0]
    answers = trace.organizer.actions[-1].text.splitlines()
    assert len(set(answers)) == 4
    for answer in answers:
        leaves = []
        assert value(ast.parse(answer, mode="eval").body, leaves) == 54
        assert sorted(leaves) == [2, 5, 6, 12]
    order = [(type(a), a.index) for a in trace.organizer.actions if isinstance(a, (Fork, Join))]
    assert order == [(Fork, 1), (Join, 1), (Fork, 2), (Join, 2)]


@pytest.mark.parametrize("name", ["asyncthink/countdown.txt", "asyncthink/geometry.txt"])
def test_equations_between_numbers_hold(name):
    text = (TRACES / name).read_text(encoding="utf-8")
    number = r"[0-9]+(?: ?[-+*/] ?[0-9]+)*"
    found = 0
    for chain in re.findall(rf"(?<![-\w+*/^()x] )(?<![\w^(/]){number}(?: = {number})+(?![\w^(/]| [-+*/(])", text):
        values = {value(ast.parse(side.strip(), mode="eval").body, []) for side in chain.split("=")}
        assert len(values) == 1, chain
        found += 1
    assert found >= 10


# More faults than are listed take more than a hundred tags: no file for people.
SHIPPED_KINDS = set(ViolationKind) - {ViolationKind.MORE_FAULTS}


@pytest.mark.parametrize("kind", sorted(SHIPPED_KINDS))
def test_one_trace_for_each_violation(kind):
    [trace] = load(f"violations/{kind}.txt")
    assert [violation.kind for violation in check(trace, Protocol(capacity=3, nested_forks=False))] == [kind]


def test_no_other_violation_files():
    assert {path.stem for path in (TRACES / "violations").iterdir()} == SHIPPED_KINDS


@pytest.mark.parametrize(
    ("name", "workers"),
    [
        ("multiverse", ["1", "2", "3"]),
        ("multiverse_nested", ["1", "2", "2.1", "2.2"]),
        ("threadweaver", ["1", "2", "3"]),
        ("parallel_r1", ["1", "2"]),
    ],
)
def test_siblings(name, workers):
    text = (TRACES / "siblings" / f"{name}.txt").read_text(encoding="utf-8")
    assert detect(text) == name.removesuffix("_nested")
    [trace] = load(f"siblings/{name}.txt")
    assert [thread.id for thread in trace.threads[1:]] == workers
    assert check(trace) == ()
    assert isinstance(trace.organizer.actions[-1], Answer)


RECORDED = sorted(f"recorded/{path.name}" for path in (TRACES / "recorded").glob("*.jsonl"))


@pytest.mark.parametrize("name", ["synthetic.jsonl", *RECORDED])
def test_native_files_are_rendered_as_they_stand(name):
    lines = (TRACES / name).read_text(encoding="utf-8").splitlines()
    assert [render(trace, "native").rstrip("\n") for trace in load(name)] == lines


# Synthetic


def test_synthetic_traces_are_regenerated_byte_for_byte(capsys):
    runpy.run_path(str(ROOT / "tools" / "synthetic.py"))
    assert capsys.readouterr().out == (TRACES / "synthetic.jsonl").read_text(encoding="utf-8")


def test_synthetic_traces_are_legal():
    traces = load("synthetic.jsonl")
    assert len(traces) == 60
    for trace in traces:
        found = {v.kind for v in check(trace, Protocol(capacity=trace.meta["capacity"]))}
        assert found <= ({ViolationKind.UNJOINED_WORKER} if "unjoined" in trace.meta else set())


# Recorded


def runs():
    traces = load("recorded/llamacpp.jsonl")
    return [list(group) for _, group in groupby(traces, key=lambda trace: trace.meta["run"])]


def test_the_selection():
    traces = load("recorded/llamacpp.jsonl")
    assert (len(traces), len(runs())) == (40, 24)
    assert len({trace.id for trace in traces}) == 40
    fan_outs = set()
    for trace in traces:
        for is_fork, group in groupby(trace.organizer.actions, key=lambda action: isinstance(action, Fork)):
            fan_outs |= {len(list(group))} if is_fork else set()
    assert {1, 2, 3, 4, 6, 8, 12} <= fan_outs
    assert {(trace.meta["model"].split()[0], trace.meta["kind"]) for trace in traces} == {
        (model, kind) for model in ("gemma3-270m,", "random-weights") for kind in ("single", "multi", "seq")
    }


@pytest.mark.parametrize("run", runs(), ids=lambda run: run[0].meta["run"])
def test_recorded_times_fit_together(run):
    cap = run[0].meta["cap"]
    assert [trace.meta["query"] for trace in run] == list(range(run[0].meta["queries"]))
    changes = []
    for trace in run:
        assert check(trace) == ()
        threads = {thread.id: thread for thread in trace.threads}
        for thread in trace.threads:
            times = [time for action in thread.actions for time in (action.start, action.finish)]
            assert times == sorted(times)
            assert times[0] >= trace.arrival
        organizer = trace.organizer.actions
        assert organizer[-1].finish - trace.arrival == pytest.approx(trace.meta["latency"], abs=3e-4)
        for place, action in enumerate(organizer):
            if isinstance(action, Fork):
                worker = threads[str(action.index)]
                assert worker.actions[0].start >= action.finish
                assert 0 < worker.shared_tokens < worker.prompt_tokens
                changes += [(worker.actions[0].start, 1), (worker.actions[-1].finish, -1)]
            if isinstance(action, Join):
                assert action.finish >= threads[str(action.index)].actions[-1].finish
            if isinstance(action, Think | Answer) and place:
                assert action.start >= organizer[place - 1].finish
    running = peak = 0
    for _, change in sorted(changes):
        running += change
        peak = max(peak, running)
    assert peak <= cap
    if cap < max(len(trace.threads) - 1 for trace in run) and len(run) == 1:
        assert peak == cap


@pytest.mark.corpus
@pytest.mark.skipif(not CORPUS, reason="FORKSIM_CORPUS is not set")
def test_every_recorded_run_is_replayed_exactly_and_the_selection_is_what_is_shipped(convert, capsys):
    convert.main(CORPUS)
    out, err = capsys.readouterr()
    assert err == "96 runs, 20655 steps: every step reproduced\n"
    assert out == (TRACES / "recorded" / "llamacpp.jsonl").read_text(encoding="utf-8")


@pytest.mark.corpus
@pytest.mark.skipif(not CORPUS, reason="FORKSIM_CORPUS is not set")
@pytest.mark.parametrize("change", ["cap", "decode one token more", "prefill one token less"])
def test_the_replay_would_notice_a_wrong_protocol(convert, change):
    """The comparison of steps is worth something only if it fails for a slightly different run."""
    with open(Path(CORPUS) / "llamacpp_random.jsonl", encoding="utf-8") as lines:
        record = json.loads(next(lines))
    if change == "cap":
        record["spec"]["cap"] += 1
    worker = record["spec"]["progs"][0]["rounds"][0]["workers"][0]
    if "decode" in change:
        worker[1] += 1
    if "prefill" in change:
        worker[0] -= 1
    with pytest.raises(convert.Mismatch, match="step"):
        convert.replay(record)


# Recorded by `forksim record`

OWN = ("gemma", "random")


def own_runs(model):
    found = {}
    for trace in load(f"recorded/own-{model}.jsonl"):
        found.setdefault(trace.meta["run"], []).append(trace)
    return found


def own_steps(model):
    found = {}
    with open(TRACES / "recorded" / f"own-{model}-steps.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row.pop("run"), []).append({name: float(value) for name, value in row.items()})
    return found


@pytest.mark.parametrize("model", OWN)
def test_our_own_runs_are_what_was_asked_for(model, monkeypatch, capsys):
    """Each spec twice, with all its tokens; a worker shares what its organizer had stored."""
    monkeypatch.setattr(sys, "argv", ["record_specs.py"])
    runpy.run_path(str(ROOT / "tools" / "record_specs.py"), run_name="__main__")
    specs = {trace.id: trace for trace in map(native.decode, capsys.readouterr().out.splitlines())}
    runs = own_runs(model)
    assert len(runs) == 2 * len({spec.meta["run"] for spec in specs.values()}) == 36
    seen = []
    for name, traces in runs.items():
        for trace in traces:
            spec = specs[trace.id.removeprefix(f"{model}-").partition("#")[0]]
            seen.append((spec.id, trace.meta["rep"]))
            assert trace.meta["ended"] == "answer" and check(trace) == ()
            assert name == f"{model}-{spec.meta['run']}-{trace.meta['rep']}"
            assert (trace.meta["kind"], trace.meta["spec"]) == (spec.meta["kind"], spec.meta["spec"])
            assert trace.arrival == spec.arrival
            for thread, asked in zip(trace.threads, sorted(spec.threads, key=order(trace)), strict=True):
                assert [a.tokens for a in thread.actions] == [a.tokens for a in asked.actions]
                assert thread.prompt_tokens == asked.prompt_tokens
                assert thread.shared_tokens == max(asked.shared_tokens - 1, 0)
    assert sorted(seen) == sorted((name, rep) for name in specs for rep in (0, 1))


def test_the_noise_is_as_stated():
    text = (TRACES / "README.md").read_text(encoding="utf-8")
    for model in OWN:
        latencies = {}
        for trace in load(f"recorded/own-{model}.jsonl"):
            name = trace.id.partition("#")[0]
            latencies.setdefault((trace.meta["kind"], name), []).append(trace.meta["latency"])
        row = [model]
        for kind in ("single", "seq", "multi"):
            pairs = [pair for (of, _), pair in latencies.items() if of == kind]
            spread = [200 * abs(first - second) / (first + second) for first, second in pairs]
            row.append(f"{sum(spread) / len(spread):.1f} %, {max(spread):.1f} %")
        assert f"| {' | '.join(row)} |" in text


def test_our_own_runs_from_a_server():
    traces = load("recorded/own-server.jsonl")
    assert len(traces) == 8 and {trace.meta["run"] for trace in traces} == {"server-at-once-0", "server-at-once-1"}
    specs = {trace.id.removeprefix("gemma-").partition("#")[0]: trace for trace in load("recorded/own-gemma.jsonl")}
    for trace in traces:
        asked = specs[trace.id.removeprefix("server-").partition("#")[0]]
        assert trace.meta["ended"] == "answer" and check(trace) == () and trace.token_source == "record"
        tokens = {thread.id: [a.tokens for a in thread.actions] for thread in trace.threads}
        assert tokens == {thread.id: [a.tokens for a in thread.actions] for thread in asked.threads}
    for run in ("server-at-once-0", "server-at-once-1"):
        last = max(trace.meta["latency"] for trace in traces if trace.meta["run"] == run)
        assert f"{last:.0f}" in (TRACES / "README.md").read_text(encoding="utf-8")


def order(trace):
    places = {thread.id: place for place, thread in enumerate(trace.threads)}
    return lambda thread: places[thread.id]


@pytest.mark.parametrize("model", OWN)
def test_our_own_steps_add_up(model):
    """Tokens and times of the traces are those of the steps, and no more workers ran than might."""
    runs, steps = own_runs(model), own_steps(model)
    assert set(runs) == set(steps)
    for name, traces in runs.items():
        rows = steps[name]
        threads = [thread for trace in traces for thread in trace.threads]
        joins = [action for thread in threads for action in thread.actions if isinstance(action, Join)]
        own = sum(thread.prompt_tokens - thread.shared_tokens for thread in threads)
        # What a Join inserts is prefilled with the token before it; each prefill also yields a token.
        assert sum(row["prefill_tokens"] for row in rows) == own + sum(join.inserted_tokens + 1 for join in joins)
        assert sum(row["decodes"] for row in rows) == sum(t.tokens for t in threads) - len(threads) - len(joins)
        assert max(row["prefill_tokens"] for row in rows) <= 128
        ends = {round(row["start"] + row["seconds"], 6) for row in rows}
        ends |= {trace.arrival for trace in traces}
        for trace in traces:
            finish = trace.organizer.actions[-1].finish
            assert min(abs(finish - end) for end in ends) < 2e-6
            assert trace.meta["latency"] == pytest.approx(finish - trace.arrival, abs=2e-6)
        for before, after in pairwise(rows):
            assert before["start"] + before["seconds"] <= after["start"] + 2e-6
        changes = []
        for trace in traces:
            for thread in trace.threads[1:]:
                changes += [(thread.actions[0].start, 1), (thread.actions[-1].finish, -1)]
        running = peak = 0
        for _, change in sorted(changes):
            running += change
            peak = max(peak, running)
        assert peak <= traces[0].meta["max_workers"] == 4
