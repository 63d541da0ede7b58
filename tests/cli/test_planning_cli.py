"""``forksim plan``: what it prints, and what it says to bad input."""

import json
import re
import shlex
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simulator.cli import _run
from simulator.cli.ranges import named_values, searched
from simulator.errors import ConfigError

WORK = '{ tag = "constant:0", answer = "constant:0", query = "constant:0", work = "constant:100" }'
STUDY = f"""\
queries = 100
metrics = ["latency"]
percentiles = [95]
traces.a = {{ generate = "sequential", options = {WORK} }}
arrivals = {{ kind = "gamma", rate = 2.5, variation = 0 }}
cluster = {{ gpu = "rate:100", max_num_seqs = 1 }}
window = {{ warmup = 5.0 }}
"""  # a second a query, one every 0.4 s: three servers
STEP = """\
queries = 12
samples = 2
replications = 2
traces.a = { generate = "batch", options = { workers = 2, rounds = 1 } }
cluster = { gpu = "rate:100", max_num_seqs = 8 }
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("study.toml").write_text(STUDY)
    Path("step.toml").write_text(STEP)
    return tmp_path


@pytest.fixture
def plan(here, capsys):
    """Runs the command; returns exit code, stdout and stderr."""

    def run(*arguments):
        code = _run(["plan", *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


ASK = ("study.toml", "--slo", "p95 < 1.1 s", "--smallest", "cluster.replicas=1..8")


def test_the_smallest_is_told_with_all_that_was_tried(plan):
    code, out, err = plan(*ASK)
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines() if line[1:2].isdigit()]
    assert [(row[0], row[-1] if row[-1] != "<" else row[-2] + row[-1]) for row in rows] == [
        ("1", "unstable"),
        ("2", "unstable"),
        ("3", "meets<"),
        ("4", "meets"),
        ("5", "meets"),
        ("8", "meets"),
    ]
    assert "cluster.replicas = 3 is the smallest of 1..8 that meets latency_p95 < 1.1 s: 1.00 s" in out
    assert "All 6 verdicts hold together with 95 % confidence." in out


def test_json_has_every_value_and_the_answer(plan):
    code, out, err = plan(*ASK, "--json")
    *trials, last = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert [trial["value"] for trial in trials] == [1, 2, 3, 4, 5, 8]
    assert {trial["replications"] for trial in trials} == {4}
    assert trials[2]["objectives"][0] == {
        "metric": "latency_p95",
        "relation": "<",
        "limit": 1.1,
        "mean": 1.0,
        "low": 1.0,
        "high": 1.0,
        "met": True,
    }
    answer = last["answer"]
    assert (answer["value"], answer["beyond"], answer["monotone"], answer["runs"]) == (3, 2, True, 24)


def test_the_highest_rate_goes_up_in_steps(plan):
    code, out, _ = plan("study.toml", "--slo", "p95 <= 1.0001", "--highest", "arrivals.rate=0.5..8", "--json")
    answer = json.loads(out.splitlines()[-1])["answer"]
    assert code == 0
    assert answer["value"] <= 1 < answer["beyond"] <= answer["value"] * 1.021  # one server, a second a query


def test_alternatives_are_ranked(plan):
    code, out, _ = plan(*ASK[:3], "--smallest", "cluster.replicas=1..3", "--for", "cluster.gpu=rate:100,rate:40")
    assert code == 0
    assert "cluster.gpu = rate:100\n" in out and "cluster.gpu = rate:40\n" in out
    assert "No value of cluster.replicas in 1..3" not in out.split("cluster.gpu = rate:40")[0]
    assert "Cheapest: rate:100 with cluster.replicas = 3, 3 GPUs." in " ".join(out.split())
    code, out, _ = plan(*ASK[:3], "--smallest", "cluster.replicas=1..2", "--for", "cluster.gpu=rate:100,rate:40")
    assert "None of them is shown to meet the objectives." in out


def test_axes_of_the_study_are_alternatives(plan):
    axes = '[[axes.cluster]]\nname = "dear"\ngpu = "rate:200"\ndollars_per_gpu_hour = 9.0\n'
    axes += '[[axes.cluster]]\nname = "cheap"\ngpu = "rate:100"\ndollars_per_gpu_hour = 3.0\n'
    Path("axes.toml").write_text(STUDY + axes)
    code, out, err = plan("axes.toml", *ASK[1:])
    assert (code, err) == (0, "")
    assert "cluster = dear\n" in out and "Cheapest: cheap with cluster.replicas = 3" in " ".join(out.split())


def test_one_gpu_is_one_and_prices_that_not_all_have_are_not_used(plan):
    axes = '[[axes.cluster]]\nname = "none"\ngpu = "rate:300"\n'
    axes += '[[axes.cluster]]\nname = "cheap"\ngpu = "rate:100"\ndollars_per_gpu_hour = 3.0\n'
    Path("axes.toml").write_text(STUDY + axes)
    code, out, _ = plan("axes.toml", *ASK[1:])
    text = " ".join(out.split())
    assert code == 0 and "$" not in text
    assert "Cheapest: none with cluster.replicas = 1, 1 GPU. Not all of them have a price, so GPUs are counted." in text


def test_a_step_is_told(plan):
    code, out, err = plan("step.toml", "--step", "--caps", "64,256", "--capacities", "2", "--replicas", "2")
    assert (code, err) == (0, "")
    assert out.startswith("24 queries on 1 GPU, 2 replications\nmakespan ")
    for name in ("workers to 64 tokens", "workers to 256 tokens", "capacity 2", "replicas 2", "longest first"):
        assert f"\n {name} " in out
    code, out, _ = plan("step.toml", "--step", "--caps", "64", "--json")
    records = [json.loads(line) for line in out.splitlines()]
    assert [record.get("replication") for record in records] == [0, 1, None, None, None]
    assert records[2]["change"] == "workers to 64 tokens" and records[2]["saved"] > 0 and records[2]["tokens_cut"] > 0
    assert records[-1]["step"]["makespan"] == (records[0]["makespan"] + records[1]["makespan"]) / 2


def test_what_cannot_be_read_is_told_and_the_rest_planned(plan):
    good = '{"schema":"forksim.trace/1","id":"a","threads":[{"id":"organizer","actions":[{"do":"answer","tokens":9}]}]}'
    Path("traces.jsonl").write_text(f"{good}\n{{broken\n")
    Path("files.toml").write_text('traces.a.files = ["traces.jsonl"]\n')
    code, out, err = plan("files.toml", "--slo", "p95 < 10 steps", "--smallest", "protocol.capacity=1..2")
    assert code == 2
    assert err.startswith("forksim: ") and "traces.jsonl:2" in err and err.count("\n") == 1
    assert "protocol.capacity = 1 is the smallest of 1, 2 that meets latency_p95 < 10 steps: 9.00 steps" in out


SLO = ("--slo", "p95 < 1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--smallest", "cluster.replicas=1..8"), "--smallest needs an objective: --slo 'p95 < 10 s'"),
        (SLO, "say one of --smallest, --highest and --step; got none"),
        ((*SLO, "--smallest", "a=1..2", "--step"), "got --smallest and --step"),
        ((*SLO, "--step"), "--slo is for --smallest and --highest"),
        (("--step", "--for", "protocol.capacity=2"), "--for is for --smallest and --highest"),
        (("--step",), "arrivals kind together, not gamma"),
        (("--step", "--caps", "0"), "--caps takes whole numbers from 1, as 256,512; got '0'"),
        (("--step", "--replicas", "two"), "--replicas takes whole numbers"),
        (("--step", "--capacities", "1_0"), "--capacities takes whole numbers"),
        ((*SLO, "--highest", "arrivals.rate=1..5", "--caps", "3"), "--caps is for --step, not for --highest"),
        ((*SLO, "--smallest", "cluster.replica=1..8"), "did you mean replicas?"),
        ((*SLO, "--smallest", "cluster.replicas=0..8"), "replicas must be a whole number from 1 to 10,000; got 0"),
        ((*SLO, "--smallest", "cluster.replicas=8..1"), "--smallest takes NAME=LOW..HIGH"),
        ((*SLO, "--smallest", "cluster.replicas=a..b"), "--smallest takes NAME=LOW..HIGH"),
        ((*SLO, "--smallest", "cluster.replicas"), "--smallest takes NAME=VALUE,VALUE,..."),
        ((*SLO, "--smallest", "=1..3"), "--smallest takes NAME=LOW..HIGH"),
        ((*SLO, "--smallest", "cluster.replicas=1..99999999999999999999"), "within 10^-9 to 10^9; high is 1e+20"),
        ((*SLO, "--smallest", "cluster.replicas=2,1"), "values must increase, got 2, 1"),
        ((*SLO, "--smallest", "cluster.replicas=1,,2"), "empty one"),
        ((*SLO, "--highest", "seed=1..4"), "it cannot be searched"),
        ((*SLO, "--highest", "arrivals.rate=0..5"), "within 10^-9 to 10^9; low is 0"),
        ((*SLO, "--highest", "arrivals.rate=nan..5"), "--highest takes NAME=LOW..HIGH"),
        ((*SLO, "--highest", "arrivals.rate=1e400..5"), "--highest takes NAME=LOW..HIGH"),
        ((*SLO, "--highest", "arrivals.rate=1..5", "--tolerance", "0"), "a step is a share"),
        ((*SLO, "--highest", "arrivals.rate=1..5", "--confidence", "1"), "confidence must be"),
        (
            (*SLO, "--highest", "arrivals.rate=1..5", "--replications", "1"),
            "--replications must be a whole number from 2",
        ),
        ((*SLO, "--highest", "arrivals.rate=1..5", "--backlog", "1"), "backlog must be a share"),
        ((*SLO, "--highest", "arrivals.rate=1..5", "--jobs", "0"), "jobs must be a whole number from 1"),
        ((*SLO, "--highest", "arrivals.rate=1..5", "--for", "cluster.gpu"), "--for takes NAME=VALUE"),
        ((*SLO, "--highest", "arrivals.rate=1..5", "--for", "cluster.gpu=no"), "no GPU profile is called 'no'"),
        ((*SLO, "--highest", "arrivals.rate=1..5", "--for", "arrivals.rate=1"), "cannot be an axis as well"),
        (("--slo", "p95 <", "--highest", "arrivals.rate=1..5"), "an objective is METRIC < NUMBER"),
        (("--slo", "p95 < 3 steps", "--highest", "arrivals.rate=1..5"), "latency_p95 is a time in seconds"),
        (
            ("--slo", "cost_per_1000_queries < 1", "--highest", "arrivals.rate=1..5"),
            "cost_per_1000_queries needs a price",
        ),
    ],
)
def test_bad_input_is_one_line(plan, arguments, message):
    code, out, err = plan("study.toml", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("forksim: ") and err.count("\n") == 1
    assert message in err


def test_a_study_that_is_not_there(plan):
    code, out, err = plan("none.toml", *ASK[1:])
    assert (code, out) == (2, "") and "none.toml" in err and err.count("\n") == 1


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("cluster.replicas=3..5", (3, 4, 5)),
        ("cluster.replicas = 1, 2,4", (1, 2, 4)),
        ("arrivals.rate=1..2", (1.0, 1.5, 2.0)),
        ("cluster.replicas=1.5..1.6", (1.5, 1.6)),
        ("cluster.gpu=rate:5,h100", ("rate:5", "h100")),
        ('cluster.gpu=["linear:1,2,3", "rate:5"]', ("linear:1,2,3", "rate:5")),
        ("cluster.prefix_caching=false,true", (False, True)),
    ],
)
def test_values(text, values):
    assert searched(text, "--smallest", 0.5) == (text.partition("=")[0].strip(), values)


def test_a_long_range_of_whole_numbers_goes_up_in_steps():
    _, values = searched("cluster.num_kv_blocks=1..100000", "--smallest", 0.02)
    assert values[0] == 1 and values[-1] == 100_000 and all(isinstance(value, int) for value in values)
    assert len(values) < 600 and list(values) == sorted(set(values))
    assert len(searched("cluster.num_kv_blocks=1..1000", "--smallest", 0.02)[1]) == 1000


@given(st.text(max_size=60) | st.from_regex(r"(cluster\.replicas|arrivals\.rate|a)=[0-9.,eE+-]{1,20}", fullmatch=True))
@example("cluster.replicas=" + "9" * 5000)
@example("cluster.replicas=" + "[" * 5000)
@example("cluster.gpu=1\nvalues = 2")
def test_any_text_is_values_or_one_clear_line(text):
    try:
        name, values = searched(text, "--smallest", 0.5)
    except ConfigError as error:
        assert "\n" not in str(error)
    else:
        assert name and values


def test_values_need_a_name():
    for text in ("", "=", "a=", "=3"):
        with pytest.raises(ConfigError, match="NAME="):
            named_values(text, "--for")


@pytest.mark.slow
def test_the_text_on_the_page_is_what_is_printed(capsys, monkeypatch):
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    page = (root / "docs" / "planning.md").read_text(encoding="utf-8")
    [(command, output)] = re.findall(r"^```text\n\$ forksim ([^\n]*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert _run(shlex.split(command)) == 0
    assert output.removeprefix("...\n") in capsys.readouterr().out


def test_the_file_on_the_page_is_the_one_that_ships():
    root = Path(__file__).parents[2]
    [block] = re.findall(
        r"^```toml\n(.*?)^```$", (root / "docs" / "planning.md").read_text(encoding="utf-8"), re.M | re.S
    )
    assert block == (root / "examples" / "plan_load.toml").read_text(encoding="utf-8")
