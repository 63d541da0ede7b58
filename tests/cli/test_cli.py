"""The command line on good input: what it prints, to the letter, and what it writes.

`FORKSIM_ACCEPT=1 pytest tests/cli/test_cli.py` accepts what is printed now as golden.
"""

import csv
import json
import math
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import simulator
from simulator import Outcome, Protocol, check, measure, read, score, simulate
from simulator.cli import _run, app
from simulator.cli.report import Tally, count, metrics_table, number, printable, rewards_table, summary_table
from simulator.formats import native, readable, writable
from simulator.formats.asyncthink import parse
from simulator.graph.compiler import compile_trace
from simulator.machine.policy import POLICIES
from simulator.machine.profiles import gpu_from_text
from simulator.metrics import METRICS, SUMMARIES
from simulator.trace.protocol import WHEN_FULL
from simulator.workload import FAMILIES, PRESETS

GOLDEN = Path(__file__).parent / "golden"

# organizer  |-2-|-F1 4-|----6----|J1|.......|-A 3-|      two.jsonl:1, a right answer
# worker 1              |---------14---------|
TWO = parse(
    "thinks<FORK-1>a bc</FORK-1>then it thinks on, a bit<JOIN-1>x</JOIN-1><ANSWER>4</ANSWER>",
    workers={"1": "a long worker, longer than the organizer<RETURN>x</RETURN>"},
    id="two",
    outcome=Outcome(correct=True),
)
ALONE = parse("only thinking <ANSWER>7</ANSWER>", id="alone", outcome=Outcome(found=1, wanted=4))
BROKEN = parse("a</FORK-1>b <JOIN-3>c</JOIN-3> and no more", id="broken")
FULL = parse(
    "<FORK-1>a</FORK-1><FORK-2>b</FORK-2><JOIN-1>x</JOIN-1><JOIN-2>y</JOIN-2><ANSWER>6</ANSWER>",
    workers={"1": "works for long<RETURN>x</RETURN>", "2": "works too<RETURN>y</RETURN>"},
    id="full",
    outcome=Outcome(correct=False),
)
TRACES = (TWO, ALONE, BROKEN, FULL)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with `traces.jsonl` and the same as texts."""
    monkeypatch.chdir(tmp_path)
    write("traces.jsonl", *TRACES)
    write("two.jsonl", TWO)
    write("alone.jsonl", ALONE)
    Path("think.txt").write_text("only thinking <ANSWER>7</ANSWER>", encoding="utf-8")
    return tmp_path


def write(name, *traces):
    Path(name).write_bytes(b"".join(native.encode(trace) + b"\n" for trace in traces))


@pytest.fixture
def forksim(capsys):
    """Runs a command; returns exit code, stdout and stderr."""

    def run(*arguments):
        code = _run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


# ---------------------------------------------------------------- golden

COMMANDS = {
    "run": ("run", "traces.jsonl"),
    "run_capacity": ("run", "traces.jsonl", "--capacity", 2, "--gpu", "rate:8"),
    "run_together": (
        "run",
        "traces.jsonl",
        "-c",
        3,
        "--arrivals",
        "together",
        "--max-num-seqs",
        2,
        "--full-pool",
        "block",
    ),
    "run_one": ("run", "two.jsonl", "-c", 2, "--gpu", "linear:0.01,0.001,0,0.0001"),
    "run_rows": ("run", "traces.jsonl", "--rows", 1),
    "run_json": ("run", "traces.jsonl", "-c", 2, "--json"),
    "run_together_json": ("run", "two.jsonl", "two.jsonl", "--arrivals", "together", "--gpu", "rate:8", "--json"),
    "score": ("score", "traces.jsonl", "-c", 2, "--eta-weight", 0.2, "--eta-threshold", 0.75),
    "score_json": ("score", "traces.jsonl", "--json"),
    "whatif": ("whatif", "traces.jsonl"),
    "whatif_full_pool": ("whatif", "traces.jsonl", "-c", 2, "--gpu", "rate:8", "--scale", 2, "--rows", 2),
    "check": ("check", "traces.jsonl", "-c", 2),
    "check_json": ("check", "traces.jsonl", "-c", 2, "--json"),
    "convert": ("convert", "think.txt", "two.jsonl", "--to", "asyncthink"),
    "generate": ("generate", "batch", "-n", 2, "--seed", 7, "workers=2", "work=uniform:5:9"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_golden(here, forksim, name):
    code, out, err = forksim(*COMMANDS[name])
    assert code == (1 if COMMANDS[name][0] == "check" else 0)
    assert err == ""
    file = GOLDEN / f"{name}.out"
    if os.environ.get("FORKSIM_ACCEPT"):
        file.write_text(out, encoding="utf-8", newline="")
    assert out == file.read_text(encoding="utf-8")


def test_every_golden_file_is_compared():
    assert {path.stem for path in GOLDEN.iterdir()} == set(COMMANDS)


# ---------------------------------------------------------------- help


def test_no_command_shows_help(forksim):
    code, out, err = forksim()
    assert (code, err) == (0, "")
    assert out == forksim("--help")[1]
    for command in (command.name for command in app.registered_commands):
        assert f"  {command} " in out
        code, help_of, err = forksim(command, "-h")
        assert (code, err) == (0, "")
        assert f"forksim {command}" in help_of


def flat(text):
    """Return a help text without what wrapping does to it."""
    return re.sub(r"-\s*\n\s+", "-", text).replace("\n", " ")


@pytest.mark.parametrize(
    ("command", "names"),
    [("run", [*readable(), *WHEN_FULL, *POLICIES]), ("generate", [*FAMILIES, *PRESETS, *writable()])],
)
def test_help_lists_what_is_accepted(forksim, command, names):
    said = flat(forksim(command, "--help")[1])
    assert [name for name in names if name not in said] == []


def test_commands_and_their_functions_have_the_same_names():
    assert [command.name for command in app.registered_commands] == [
        command.callback.__name__ for command in app.registered_commands
    ]


# ---------------------------------------------------------------- run


def test_json_is_what_measure_says(here, forksim):
    _, out, _ = forksim("run", "traces.jsonl", "--gpu", "h100-qwen3-8b", "-c", 2, "--json")
    *records, last = lines(out)
    for trace, record in zip(TRACES, records, strict=True):
        metrics = measure(simulate(compile_trace(trace, Protocol(capacity=2)), gpu=gpu_from_text("h100-qwen3-8b")))
        assert record.pop("trace") == trace.id
        assert record.pop("unit") == "seconds"
        assert record.pop("kinds") == sorted({violation.kind.value for violation in metrics.violations})
        assert record == metrics.values
    assert last["summary"]["traces"] == 4


def test_what_does_not_exist_is_null(here, forksim):
    first, summary = lines(forksim("run", "alone.jsonl", "--json")[1])
    assert first["eta_over_c"] is None
    assert "eta_over_c" not in summary["summary"]


def test_the_summary_is_over_all_traces_also_those_not_shown(here, forksim):
    *records, last = lines(forksim("run", "traces.jsonl", "--json")[1])
    summary = last["summary"]
    assert (summary["traces"], summary["with_violations"], summary["unreadable"]) == (4, 1, 0)
    assert summary["violations"] == {"forged_join": 1, "missing_answer": 1, "stray_tag": 1, "unknown_join": 1}
    for name in ("latency", "critical_path_steps", "work", "speedup", "eta", "peak_concurrency"):
        values = [record[name] for record in records]
        assert summary[name] == pytest.approx(
            {"mean": np.mean(values)} | {f"p{each}": np.percentile(values, each) for each in (50, 95, 99)}
        )


@pytest.mark.parametrize("rows", [0, 1, 3, 4, 9])
def test_rows(here, forksim, rows):
    _, out, _ = forksim("run", "traces.jsonl", "--rows", rows)
    shown = [trace.id for trace in TRACES if re.search(rf"^ ?{trace.id} ", out, re.MULTILINE)]
    assert shown == [trace.id for trace in TRACES[:rows]]
    more = f"and {4 - rows} more (--rows, --json or --out show all)"
    assert (more in out) == (rows < 4)
    assert "4 traces: 3 ok, 1 with violations" in out


def test_together_they_share_a_gpu(here, forksim):
    _, alone, _ = forksim("run", "two.jsonl", "two.jsonl", "--max-num-seqs", 1, "--json")
    _, together, _ = forksim("run", "two.jsonl", "two.jsonl", "--max-num-seqs", 1, "--arrivals", "together", "--json")
    assert lines(alone)[0]["latency"] == lines(alone)[1]["latency"] < lines(together)[1]["latency"]
    assert "run" not in lines(alone)[-1]["summary"]
    run = lines(together)[-1]["summary"]["run"]
    assert list(run) == list(SUMMARIES)
    assert (run["queries"], run["occupancy"]) == (2, 1.0)


def test_an_slo_counts_the_queries_that_keep_to_it(here, forksim):
    options = (
        "--gpu",
        "rate:10",
        "--arrivals",
        "together",
        "--max-num-seqs",
        1,
        "--slo",
        "e2e < 6",
        "--slo",
        "ttft<=3500ms",
    )
    code, out, err = forksim("run", "traces.jsonl", *options, "--json", "--out", "out", "--plots", 0)
    assert (code, err) == (0, "")
    *records, last = lines(out)
    kept = [record["latency"] < 6 and record["ttft"] <= 3.5 for record in records]
    assert [record["meets_slo"] for record in records] == kept and 0 < sum(kept) < 4
    summary = last["summary"]
    assert summary["slo"] == {"objectives": ["latency < 6", "ttft <= 3.5"], "met": sum(kept)}
    assert summary["run"]["goodput"] == pytest.approx(sum(kept) / summary["run"]["makespan"])
    rows = csv.DictReader(Path("out/metrics.csv").read_text().splitlines())
    assert [row["meets_slo"] for row in rows] == [str(int(each)) for each in kept]
    _, out, _ = forksim("run", "traces.jsonl", *options)
    assert f"{sum(kept)} of 4 queries keep to latency < 6 s and TTFT <= 3.5 s." in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--slo", "p95 ttft < 1"), "'p95 ttft < 1': this is asked of each query, which has no p95: say ttft < 1"),
        (("--slo", "ttft"), "an objective is METRIC < NUMBER [UNIT], such as 'ttft < 1 s'; got 'ttft'"),
        (("--slo", "tfft < 1"), "'tfft < 1': no metric of a query is called 'tfft'; did you mean ttft?"),
        (("--slo", "ttft < 1 s"), "'ttft < 1 s': ttft is a time in steps, and takes steps or no unit; got 's'"),
        (("--arrivals", "poisson:2"), "is a rate per second, and without --gpu time is counted in decode steps: give"),
        (("--arrivals", "poisson:2/step", "--gpu", "rate:9"), "is a rate per decode step, and this --gpu counts"),
    ],
)
def test_what_time_a_limit_or_a_rate_is_in_must_be_clear(here, forksim, options, message):
    code, out, err = forksim("run", "traces.jsonl", *options)
    assert (code, out, err.count("\n")) == (2, "", 1) and message in err


@pytest.mark.filterwarnings("default")
def test_long_prompts_that_are_free_are_told(here, forksim):
    organizer = simulator.Thread("organizer", (simulator.Answer(5),), prompt_tokens=1001)
    write("long.jsonl", simulator.Trace("long", (organizer,)))
    code, _, err = forksim("run", "long.jsonl", "long.jsonl", "--gpu", "h100-qwen3-8b")
    assert code == 0 and err.splitlines() == [
        "forksim: note: h100-qwen3-8b takes no time for prompts, and there are queries with more than 1,000 prompt"
        " tokens: a profile whose name ends in -database or -engine charges for them"
    ]
    for gpu in ("h100-qwen3-8b-database", "steps"):
        assert forksim("run", "long.jsonl", "--gpu", gpu)[2] == ""


def test_recorded_arrivals(here, forksim):
    late = native.parse(native.render(ALONE).replace('"threads"', '"arrival":100.0,"threads"'))
    write("recorded.jsonl", native.parse(native.render(ALONE).replace('"threads"', '"arrival":0.0,"threads"')), late)
    *_, last = lines(forksim("run", "recorded.jsonl", "--arrivals", "recorded", "--json")[1])
    assert last["summary"]["run"]["makespan"] == 100 + last["summary"]["latency"]["mean"]


def test_poisson_arrivals_come_from_the_seed(here, forksim):
    def out(seed):
        return forksim("run", "traces.jsonl", "--arrivals", "poisson:2", "--gpu", "rate:8", "--json", "--seed", seed)[1]

    assert out(1) == out(1) != out(2)


@pytest.mark.parametrize("mode", WHEN_FULL)
def test_full_pool_modes(here, forksim, mode):
    *records, _ = lines(forksim("run", "traces.jsonl", "-c", 2, "--full-pool", mode, "--json")[1])
    rules = Protocol(capacity=2, when_full=mode)
    assert [record["latency"] for record in records] == [
        measure(simulate(compile_trace(trace, rules))).latency for trace in TRACES
    ]


@pytest.mark.parametrize("policy", POLICIES)
def test_policies(here, forksim, policy):
    code, out, _ = forksim(
        "run", "traces.jsonl", "--policy", policy, "--arrivals", "together", "--max-num-seqs", 1, "--json"
    )
    *records, _ = lines(out)
    timeline = simulate(
        [compile_trace(trace) for trace in TRACES],
        policy=POLICIES[policy],
        gpu=gpu_from_text("steps").__class__(max_num_seqs=1),
    )
    assert code == 0
    assert [record["latency"] for record in records] == [measure(timeline, query).latency for query in range(4)]


NESTED = parse(
    "<FORK-1>a</FORK-1><JOIN-1>x</JOIN-1><ANSWER>1</ANSWER>",
    workers={"1": "<FORK-1>b</FORK-1><JOIN-1>y</JOIN-1><RETURN>x</RETURN>", "1.1": "<RETURN>y</RETURN>"},
    id="stuck",
)


def test_a_deadlock_is_named_on_stderr_and_the_rest_goes_on(here, forksim):
    write("stuck.jsonl", NESTED, ALONE)
    code, out, err = forksim("run", "stuck.jsonl", "-c", 2)
    assert code == 2
    who = "1.1 waits for a slot held by 1, 1 waits to join 1.1"
    assert err == f"forksim: stuck: deadlock: {who} (a larger --capacity, or --full-pool inline, avoids it)\n"
    assert re.search(r"^ ?stuck .* deadlock .* -  +pool_overflow", out, re.MULTILINE)
    assert re.search(r"^ ?alone ", out, re.MULTILINE)


def test_queries_that_nobody_is_left_to_ask_are_counted_on_stderr(here, forksim):
    """One user; the first query waits for a place that its own worker has, and the others never come."""
    write("stuck.jsonl", NESTED, ALONE, ALONE)
    code, out, err = forksim("run", "stuck.jsonl", "--arrivals", "closed:1", "--max-workers", 1)
    assert code == 2
    deadlock, lost = err.splitlines()
    assert "1.1 waits for one of the max_workers seats, and all are taken" in deadlock
    assert lost == "forksim: 2 of 3 queries never arrived: each user waits for an answer in a deadlock"
    assert re.search(r"^ queries +3  ", out, re.MULTILINE) and re.search(r"^ answered +0 ", out, re.MULTILINE)


# --out


def test_old_charts_do_not_stay_beside_new_tables(here, forksim):
    write("two.jsonl", TWO, ALONE)
    write("one.jsonl", ALONE)
    assert forksim("run", "two.jsonl", "--out", "results")[0] == 0
    Path("results/gantt-mine.png").write_text("kept: its name is none of forksim's")
    assert len(list(Path("results").glob("gantt-0*.png"))) == 2
    assert forksim("run", "one.jsonl", "--out", "results")[0] == 0
    assert sorted(path.name for path in Path("results").iterdir()) == [
        "gantt-000-alone.png", "gantt-mine.png", "metrics.csv", "spans.csv",
    ]  # fmt: skip


def test_files(here, forksim):
    code, out, err = forksim("run", "traces.jsonl", "-c", 2, "--out", "new/out", "--plots", 2)
    assert (code, err) == (0, "")
    assert out.endswith("wrote new/out\n")
    assert sorted(os.listdir("new/out")) == ["gantt-000-two.png", "gantt-001-alone.png", "metrics.csv", "spans.csv"]
    with open("new/out/metrics.csv", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["trace", *METRICS, "kinds"]
    *records, _ = lines(forksim("run", "traces.jsonl", "-c", 2, "--json")[1])
    for row, record in zip(rows, records, strict=True):
        assert row[0] == record["trace"]
        assert row[-1].split() == record["kinds"]
        assert [float(cell) for cell in row[1:-1]] == [record[name] for name in METRICS]
    with open("new/out/spans.csv", encoding="utf-8", newline="") as file:
        spans = list(csv.DictReader(file))
    assert {span["trace"] for span in spans} == {trace.id for trace in TRACES}
    assert sum(int(span["tokens"]) for span in spans) == sum(trace.tokens for trace in TRACES)


def test_no_charts(here, forksim):
    forksim("run", "traces.jsonl", "--out", "out", "--plots", 0)
    assert sorted(os.listdir("out")) == ["metrics.csv", "spans.csv"]


def test_charts_are_named_after_their_traces_as_far_as_files_can_be(here, forksim):
    write("odd.jsonl", parse("x", id="../a b/\ud7ff\n" + "x" * 300), parse("y", id=""))
    assert forksim("run", "odd.jsonl", "--out", "out")[0] == 0
    first, second, *_ = sorted(os.listdir("out"))
    assert first == "gantt-000-.._a_b___" + "x" * 71 + ".png"
    assert second == "gantt-001-.png"


def test_files_and_json_together(here, forksim):
    code, out, _ = forksim("run", "traces.jsonl", "--json", "--out", "out", "--plots", 0)
    assert code == 0
    assert len(lines(out)) == 5
    assert os.path.exists("out/spans.csv")


# ---------------------------------------------------------------- score, check


def test_scores_are_what_score_says(here, forksim):
    options = {"capacity": 3, "eta_weight": 0.7, "eta_threshold": 0.6, "format_error_reward": -3.0}
    given = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    *records, last = lines(forksim("score", "traces.jsonl", "--json", *given)[1])
    for trace, record in zip(TRACES, records, strict=True):
        result = score(trace, Protocol(**options))
        assert record["trace"] == trace.id
        assert (record["reward"], record["terms"]) == (result.total, result.terms)
        assert (record["T_steps"], record["eta"], record["eta_over_c"]) == (
            result.latency,
            result.eta,
            result.eta_over_c,
        )
        assert record["accuracy"] == result.accuracy
    assert last["summary"]["reward"]["mean"] == pytest.approx(np.mean([record["reward"] for record in records]))


def test_scores_go_to_a_file_one_row_a_record(here, forksim):
    with open("some.jsonl", "w") as file:
        file.write('{"id": "a", "output": "<ANSWER>9</ANSWER>", "correct": true}\nnonsense\n{"output": "<JOIN-4>"}\n')
    code, out, err = forksim("score", "some.jsonl", "-c", 2, "-o", "new/scores.jsonl")
    assert code == 2
    assert "2 traces: 1 ok, 1 with violations (missing_answer 1, unknown_join 1), 1 unreadable" in out
    assert "some.jsonl:2: not one complete JSON object" in err
    rows = lines(Path("new/scores.jsonl").read_text())
    assert [(row["trace"], row["total"], row["failed"]) for row in rows] == [
        ("a", 1.25, False),
        ("some.jsonl:2", -1.0, True),
        ("some:3", -1.0, False),
    ]
    assert rows[1]["reason"].startswith("some.jsonl:2: not one complete JSON object")
    assert (rows[2]["n_unknown_join"], rows[2]["accuracy"]) == (1, None)


def test_scores_as_parquet(here, forksim):
    parquet = pytest.importorskip("pyarrow.parquet", exc_type=ImportError)  # a new one wants a new numpy
    assert forksim("score", "traces.jsonl", "-o", "scores.parquet")[0] == 0
    assert forksim("score", "traces.jsonl", "-o", "scores.jsonl")[0] == 0
    table = parquet.read_table("scores.parquet").to_pylist()
    records = lines(Path("scores.jsonl").read_text())
    assert len(table) == len(records) == len(TRACES)
    for row, line in zip(table, records, strict=True):
        assert {key: None if value != value else value for key, value in row.items()} == line


def test_without_pyarrow_parquet_says_what_it_needs(here, forksim, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = forksim("score", "traces.jsonl", "-o", "scores.parquet")
    assert (code, err) == (2, "forksim: Parquet files need: pip install 'forksim[parquet]'\n")
    assert not os.path.exists("scores.parquet")


def test_a_reward_file_on_the_command_line(here, forksim):
    with open("reward.toml", "w") as file:
        file.write('reward = "parallel_r1"\n[protocol]\ncapacity = 7\n[terms.accuracy]\n')
    *records, last = lines(forksim("score", "traces.jsonl", "--reward", "reward.toml", "--json")[1])
    assert [list(record["terms"]) for record in records] == [
        ["format_error", "correct", "efficiency", "accuracy"]
    ] * len(TRACES)
    assert all(record["eta"] == pytest.approx(7 * record["eta_over_c"]) for record in records)
    assert list(last["summary"])[4:7] == ["reward", "accuracy", "correct"]
    out = forksim("score", "traces.jsonl", "--reward", "reward.toml", "-c", 3)[1]
    assert out.endswith("scored with reward.toml, c = 3\n")


def test_check_says_what_check_says(here, forksim):
    code, out, _ = forksim("check", "traces.jsonl", "-c", 2, "--json")
    *found, last = lines(out)
    expected = [(trace.id, violation) for trace in TRACES for violation in check(trace, Protocol(capacity=2))]
    assert code == 1
    assert [(each["trace"], each["kind"], each["thread"], each["action"], each["offset"]) for each in found] == [
        (name, violation.kind, violation.thread, violation.action, violation.offset) for name, violation in expected
    ]
    assert last["summary"]["with_violations"] == 2


def test_check_of_good_traces(here, forksim):
    assert forksim("check", "two.jsonl", "think.txt", "-c", 4) == (
        0,
        "2 traces: 2 ok, 0 with violations, 0 unreadable\n",
        "",
    )


def test_nested_forks_can_be_forbidden(here, forksim):
    text = "<FORK-1>a</FORK-1><JOIN-1>x</JOIN-1><ANSWER>1</ANSWER>"
    workers = {"1": "<FORK-1>b</FORK-1><JOIN-1>y</JOIN-1><RETURN>x</RETURN>", "1.1": "<RETURN>y</RETURN>"}
    write("nested.jsonl", parse(text, workers=workers))
    assert forksim("check", "nested.jsonl")[0] == 0
    code, out, _ = forksim("check", "nested.jsonl", "--no-nested-forks")
    assert code == 1
    assert out.startswith("trace: thread 1 action 0: a worker may not Fork in this protocol [nested_fork]\n")


def test_plain_prose_is_told_to_be_prose(here, forksim):
    Path("prose.txt").write_text("The answer is nine, as everybody knows.\n")
    Path("lower.txt").write_text("<fork-1>q</fork-1><answer>9</answer>\n")  # told by unknown_tags
    said = "forksim: prose.txt: holds no tag of any format, so it is one thought, without Forks or an answer\n"
    for command in ("run", "check", "score"):
        assert forksim(command, "prose.txt")[2] == said
        assert forksim(command, "lower.txt")[2] == ""
    assert forksim("run", "prose.txt", "--format", "asyncthink")[2] == ""


# ---------------------------------------------------------------- generate, convert, gantt


@pytest.mark.parametrize("family", [*FAMILIES, *PRESETS])
def test_every_family_is_generated_and_run(here, forksim, family):
    code, out, err = forksim("generate", family, "-n", 3, "--seed", 5, "-o", "made.jsonl")
    assert (code, out, err) == (0, "wrote made.jsonl\n", "")
    code, out, err = forksim("run", "made.jsonl", "--json")
    assert (code, err) == (0, "")
    assert [record["trace"] for record in lines(out)[:-1]] == [f"{family}-5-{i}" for i in range(3)]


def test_a_trace_is_generated_again_alone(here, forksim):
    _, all_of_them, _ = forksim("generate", "batch", "-n", 5, "--seed", 3)
    _, third, _ = forksim("generate", "batch", "-n", 1, "--seed", 3, "--start", 2)
    assert third == all_of_them.splitlines(keepends=True)[2]
    assert forksim("generate", "batch", "-n", 0) == (0, "", "")


def test_options_of_a_family_take_hyphens(here, forksim):
    with_hyphen = forksim("generate", "batch", "-n", 1, "sub-query=9")
    assert with_hyphen[0] == 0
    assert with_hyphen == forksim("generate", "batch", "-n", 1, "sub_query=9")


def test_native_to_native_is_the_same_file(here, forksim):
    code, out, err = forksim("convert", "traces.jsonl")
    assert (code, err) == (0, "")
    assert out == Path("traces.jsonl").read_text(encoding="utf-8")
    assert forksim("convert", "traces.jsonl", "--out", "again.jsonl")[:2] == (0, "wrote again.jsonl\n")
    assert Path("again.jsonl").read_bytes() == Path("traces.jsonl").read_bytes()
    assert forksim("convert", "traces.jsonl", "-o", "-")[1] == out


def test_text_goes_through_native_and_back(here, forksim):
    forksim("convert", "think.txt", "--out", "think.jsonl")
    _, out, _ = forksim("convert", "think.jsonl", "--to", "asyncthink")
    assert json.loads(out) == {"id": "think", "output": "only thinking <ANSWER>7</ANSWER>"}


def test_what_one_trace_cannot_say_does_not_stop_the_others(here, forksim):
    write("delay.jsonl", ALONE, next(iter(native_with_delay())), TWO)
    code, out, err = forksim("convert", "delay.jsonl", "--to", "asyncthink", "-o", "out.jsonl")
    assert (code, out) == (2, "wrote out.jsonl\n")
    assert err == "forksim: trace 'slow': AsyncThink text cannot hold a Delay; use the native format\n"
    assert [json.loads(line)["id"] for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()] == [
        "alone",
        "two",
    ]


def native_with_delay():
    yield native.parse(
        '{"schema":"forksim.trace/1","id":"slow","threads":[{"id":"organizer","actions":'
        '[{"do":"delay","seconds":1.5},{"do":"answer","tokens":2}]}]}'
    )


def test_a_file_may_be_converted_onto_itself(here, forksim):
    before = Path("traces.jsonl").read_bytes()
    assert forksim("convert", "traces.jsonl", "-o", "traces.jsonl")[0] == 0
    assert Path("traces.jsonl").read_bytes() == before


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_gantt(here, forksim, suffix):
    code, out, err = forksim("gantt", "traces.jsonl", "-n", 4, "-o", f"new.{suffix}", "-c", 2)
    assert (code, out, err) == (0, f"wrote new.{suffix}\n", "")
    assert os.path.getsize(f"new.{suffix}") > 1000


def test_gantt_of_the_trace_with_that_number(here, forksim):
    forksim("gantt", "traces.jsonl", "-n", 2, "-o", "second.png")
    forksim("gantt", "alone.jsonl", "-o", "alone.png")
    assert Path("second.png").read_bytes() == Path("alone.png").read_bytes()


# ---------------------------------------------------------------- input


def test_traces_keep_the_order_of_files(here, forksim):
    _, out, _ = forksim("run", "think.txt", "two.jsonl", "alone.jsonl", "think.txt", "--json")
    assert [record["trace"] for record in lines(out)[:-1]] == ["think", "two", "alone", "think"]


def test_tokens_are_counted_as_asked(here, forksim):
    characters, words = (
        lines(forksim("run", "think.txt", "--tokens", name, "--json")[1])[0]["work"] for name in ("characters", "words")
    )
    assert (characters, words) == (4 + 5, 2 + 1)


def test_a_tokenizer(here, forksim):
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")
    tokenizers.Tokenizer(model).save("tokenizer.json")
    _, out, _ = forksim("convert", "think.txt", "--tokens", "tokenizer.json")
    assert json.loads(out)["token_source"] == "tokenizer:tokenizer.json"


def test_the_format_can_be_forced(here, forksim):
    _, out, _ = forksim("run", "think.txt", "--format", "multiverse", "--json")
    assert (
        lines(out)[0]["critical_path_steps"]
        == measure(simulate(compile_trace(next(read("think.txt", format="multiverse"))))).latency
    )


# ---------------------------------------------------------------- report


@pytest.mark.parametrize(
    ("value", "as_number", "as_count"),
    [
        (0, "0.000", "0"),
        (1, "1.000", "1"),
        (-1.5, "-1.500", "-1.500"),
        (9.9996, "10.00", "10.00"),
        (10, "10.00", "10"),
        (99.999, "100.0", "100.0"),
        (123.456, "123.5", "123.5"),
        (1e6, "1,000,000", "1,000,000"),
        (1e12, "1,000,000,000,000", "1,000,000,000,000"),
        (math.nan, "-", "-"),
        (math.inf, "inf", "inf"),
    ],
)
def test_numbers(value, as_number, as_count):
    assert (number(value), count(value)) == (as_number, as_count)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [red]", "plain [red]"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\ud800\u202e", "\\ud800\\u202e"),
        ("é€汉", "é€汉"),
        ("x" * 200, "x" * 119 + "…"),
    ],
)
def test_names_do_nothing_to_a_terminal(text, shown):
    assert printable(text) == shown


def rendered(table, width):
    console = Console(width=width, file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    with console.capture() as captured:
        console.print(table)
    console.file.close()
    return captured.get()


def test_a_narrow_table_fits_80_columns_and_keeps_the_names():
    rules = Protocol(capacity=2)
    metrics = [measure(simulate(compile_trace(trace, rules))) for trace in TRACES]
    for table in (
        metrics_table(metrics, "seconds", narrow=True),
        rewards_table([(trace.id, score(trace, rules)) for trace in TRACES], narrow=True),
    ):
        text = rendered(table, 80)
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= 80
        for word in ("two", "alone", "broken", "full", "violations"):
            assert word in text


def test_a_tally_keeps_a_fair_sample(monkeypatch):
    monkeypatch.setattr(Tally, "SAMPLE", 1000)
    tally = Tally(("x", "y"))
    for i in range(10_000):
        tally.add({"x": float(i), "y": math.nan if i % 2 else 1.0}.__getitem__, ["stray_tag"] * (i % 3 == 0))
    assert len(tally.values["x"]) == 1000
    summary = tally.summary()
    assert summary["x"]["mean"] == 4999.5
    assert summary["x"]["p50"] == pytest.approx(5000, abs=400)
    assert summary["x"]["p95"] == pytest.approx(9500, abs=200)
    assert summary["y"] == {"mean": 1.0, "p50": 1.0, "p95": 1.0, "p99": 1.0}
    assert (summary["traces"], summary["with_violations"], summary["violations"]) == (10_000, 3334, {"stray_tag": 3334})


def test_a_tally_of_few_is_exact():
    tally = Tally(("x",))
    for value in (3.0, 1.0, 2.0):
        tally.add({"x": value}.__getitem__, [])
    assert tally.summary()["x"] == pytest.approx({"mean": 2.0, "p50": 2.0, "p95": 2.9, "p99": 2.98})
    assert "x" in rendered(summary_table(tally), 80)


def test_an_empty_tally():
    assert Tally(("x",)).summary() == {"traces": 0, "with_violations": 0, "unreadable": 0, "violations": {}}
    assert Tally(()).sentence() == "0 traces: 0 ok, 0 with violations, 0 unreadable"
