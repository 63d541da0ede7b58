"""``forksim study`` as a user meets it."""

import csv
import json
import re
from pathlib import Path

import pytest

from simulator.cli import _with_address, main
from simulator.errors import ConfigError
from simulator.study import load_results, load_study, parse_study, run_in_folder
from simulator.study.running import row_names
from simulator.study.store.journal import open_line, seal
from simulator.study.store.results import FORMAT
from simulator.support.tables import can_write_parquet

ROOT = Path(__file__).parents[2]
ENDING = ".parquet" if can_write_parquet() else ".csv"

KNEE = """
name = "knee"
queries = 8
replications = 3
metrics = ["latency", "throughput", "cost_per_1000_queries"]
percentiles = [50, 95]
[traces.math]
generate = "asyncthink_math"
[cluster]
gpu = "rate:50"
dollars_per_gpu_hour = 3.6
[axes]
protocol.capacity = [2, 4]
cluster = [{name = "one"}, {name = "two", replicas = 2}]
[baseline]
cluster = "one"
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "knee.toml").write_text(KNEE)
    return "knee.toml"


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    out = capsys.readouterr()
    return end.value.code, out.out, out.err


def test_the_folder_is_called_like_the_study(study, capsys):
    text = Path(study).read_text()
    Path("other.toml").write_text(text.replace('name = "knee"', 'name = "my knee: ../2"'))
    assert call(capsys, "study", "run", "other.toml")[1].endswith("wrote results/my_knee_2\n")
    Path("unnamed.toml").write_text(text.replace('name = "knee"\n', ""))
    assert call(capsys, "study", "run", "unnamed.toml")[1].endswith("wrote results/unnamed\n")


def test_a_metric_is_named_by_one_of_its_columns_or_as_a_whole(study, capsys):
    call(capsys, "study", "run", study)
    _, out, _ = call(capsys, "study", "show", "results/knee", "-m", "latency")
    header = next(line for line in out.splitlines() if "capacity" in line and "n" in line.split())
    assert header.split()[-3:] == ["latency_mean", "latency_p50", "latency_p95"]
    _, one, _ = call(capsys, "study", "show", "results/knee", "-m", "latency_p50")
    assert "latency_p50" in one and "latency_mean" not in one
    code, out, err = call(capsys, "study", "show", "results/knee", "-m", "latenci")
    assert (code, out) == (2, "") and "latency_mean" in err


def test_a_damaged_folder_says_what_is_wrong_and_what_to_do(study, capsys):
    call(capsys, "study", "run", study)
    folder = Path("results/knee")
    kept = {name: (folder / name).read_bytes() for name in ("study.json", "journal.jsonl")}
    lines = kept["journal.jsonl"].splitlines(keepends=True)
    again = "forksim study run STUDY.toml -o results/knee does the missing runs again"
    beside = f"rows{ENDING}, summary.csv, comparison.csv can still be read as they are"
    for journal, said in {
        b"": f"'results/knee/journal.jsonl' is empty, so no run is known to have ended; {beside}",
        lines[0] + b"{broken\n" + b"".join(lines[2:]): (
            f"'results/knee/journal.jsonl' is damaged: 1 of its {len(lines)} lines are not what was written, first"
            " line 2"
        ),
    }.items():
        (folder / "journal.jsonl").write_bytes(journal)
        code, _, err = call(capsys, "study", "show", "results/knee", "--json")
        assert code == 2 and err.splitlines()[-1] == f"forksim: {said}; {again}"
    (folder / "journal.jsonl").write_bytes(kept["journal.jsonl"][:-9])  # killed while it wrote: that is no damage
    assert call(capsys, "study", "show", "results/knee", "--json")[0] == 0
    (folder / "journal.jsonl").unlink()
    assert "journal.jsonl' is not there, so no run is known" in call(capsys, "study", "show", "results/knee")[2]
    assert call(capsys, "study", "run", study)[0] == 0 and call(capsys, "study", "show", "results/knee")[0] == 0
    for text, why in {"": "it is empty", "{broken": "it is no JSON (", "{}": "it is no table that says"}.items():
        (folder / "study.json").write_text(text)
        code, out, err = call(capsys, "study", "show", "results/knee")
        assert (code, out) == (2, "") and f"study.json' is not what a forksim study writes: {why}" in err
        assert "(forksim study run STUDY.toml -o DIR); " + beside in err


def test_run_shows_a_table_and_leaves_files(study, capsys):
    code, out, err = call(capsys, "study", "run", study)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("knee: mean over n replications ± half the 95 % interval; times in seconds")
    names = [
        "capacity",
        "cluster",
        "n",
        "latency_mean",
        "latency_p50",
        "latency_p95",
        "throughput",
        "cost_per_1000_queries",
    ]
    assert lines[2].split() == names
    assert [line.split()[:3] for line in lines[4:8]] == [
        ["2", "one", "3"],
        ["2", "two", "3"],
        ["4", "one", "3"],
        ["4", "two", "3"],
    ]
    assert "difference to cluster = one, replication by replication" in out
    assert out.endswith("wrote results/knee\n")
    names = sorted(path.name for path in Path("results/knee").iterdir())
    assert names == [".lock", "comparison.csv", "journal.jsonl", f"rows{ENDING}", "study.json", "summary.csv"]
    with open("results/knee/summary.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["cluster"] for row in rows] == ["one", "two", "one", "two"]
    low, mean, high = (float(rows[0][f"latency_mean{end}"]) for end in ("_low", "", "_high"))
    assert low < mean < high
    # At a constant rate replicas do not matter, but for what they cost.
    with open("results/knee/comparison.csv") as file:
        rows = list(csv.DictReader(file))
    assert abs(float(rows[1]["latency_mean"])) < 0.04  # waiting for a step to begin
    assert float(rows[1]["cost_per_1000_queries_ratio"]) == pytest.approx(2)


def test_again_and_from_processes_the_same_bytes(study, capsys):
    call(capsys, "study", "run", study, "-o", "a", "--queries")
    before = {path.name: path.read_bytes() for path in Path("a").iterdir()}
    code, _, err = call(capsys, "study", "run", study, "-o", "a", "--queries")
    assert (code, err) == (0, "forksim: a: 12 of 12 runs are done already\n")
    call(capsys, "study", "run", study, "-o", "b", "--queries", "--jobs", "2")
    for folder in ("a", "b"):
        assert {path.name: path.read_bytes() for path in Path(folder).iterdir()} == before
    assert f"queries{ENDING}" in before


@pytest.mark.parametrize("csv", [True, False])
def test_an_axis_of_numbers_and_a_text(study, capsys, csv):
    text = KNEE.replace("[2, 4]", '[2, 4, "none"]').replace('cluster = "one"', "protocol.capacity = 2")
    Path(study).write_text(text)
    code, out, err = call(capsys, "study", "run", study, "-o", "out", *(["--csv"] if csv else []))
    assert (code, err) == (0, "")
    assert "difference to protocol.capacity = 2" in out
    table = load_results("out").table
    assert table["protocol.capacity"].tolist() == [2] * 6 + [4] * 6 + ["none"] * 6
    assert call(capsys, "study", "rerun", "out", "--point", "5")[0] == 0
    assert call(capsys, "study", "plot", "out", "--where", "cluster=one", "-o", "out.png")[0] == 0


def test_csv_files(study, capsys):
    code, _, _ = call(capsys, "study", "run", study, "-o", "out", "--csv", "--queries")
    assert code == 0
    with open("out/queries.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 3 * 8
    assert list(rows[0])[:9] == [
        "run",
        "point",
        "replication",
        "query",
        "trace",
        "arrival",
        "answered",
        "counted",
        "latency",
    ]
    with open("out/rows.csv") as file:
        row = next(csv.DictReader(file))
    assert parse_study(json.loads(row["spec"])).protocol.capacity == 2


def test_show(study, capsys):
    call(capsys, "study", "run", study)
    code, out, err = call(capsys, "study", "show", "results/knee", "-m", "latency_p95")
    assert (code, err) == (0, "")
    assert out.splitlines()[2].split() == ["capacity", "cluster", "n", "latency_p95"]
    code, out, _ = call(capsys, "study", "show", "results/knee", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == 8
    assert rows[0]["n"] == 3
    assert rows[4]["compared_with"] == {"cluster": "one"}
    code, _, err = call(capsys, "study", "show", "results/knee", "-m", "latency_p59")
    assert code == 2
    assert "no column is called 'latency_p59'; did you mean latency_p95?" in err
    code, _, err = call(capsys, "study", "show", "results/knee", "-m", "seed")
    assert (code, "seed is no metric; there are latency_mean" in err) == (2, True)


def test_rerun(study, capsys):
    call(capsys, "study", "run", study)
    code, out, err = call(capsys, "study", "rerun", "results/knee", "--point", "3", "--replication", "1")
    assert (code, err) == (0, "forksim: the row is the same\n")
    row = json.loads(out)
    assert (row["point"], row["replication"], row["cluster"]) == (3, 1, "two")
    code, _, err = call(capsys, "study", "rerun", "results/knee", "--point", "9")
    assert code == 2
    assert "no row of point 9, replication 0; a whole one has points 0 to 3, replications 0 to 2" in err


def test_a_row_that_was_changed_is_found(study, capsys):
    call(capsys, "study", "run", study, "--csv")
    stored = load_results("results/knee")
    row = next(stored.table.rows())
    from simulator.study import rerun

    assert rerun({**row, "latency_mean": 1.0}, stored.study) == row


def rewritten(folder, change, number=2):
    """Rewrite the results of a folder as another version might have left them: each row changed, in another format."""
    path = folder / "study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"forksim_results": number}))
    records = [open_line(line, 10**6) for line in (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)]
    for record in records:
        if "row" in record:
            change(record["row"])
    (folder / "journal.jsonl").write_bytes(b"".join(map(seal, records)))


def drop_unanswered(row):
    """Make a row of format 1 as it was before ``unanswered`` was always measured."""
    del row["unanswered"]


@pytest.mark.parametrize(
    ("change", "number", "says"),
    [
        (drop_unanswered, 1, "in format 1, and this one has format 2: "),
        (lambda row: None, 3, "in format 3, and this one has format 2: "),
        (drop_unanswered, 2, "whose rows are without unanswered: "),
        (lambda row: row.update(mood=1.5), 2, "whose rows are with mood: "),
    ],
    ids=["older", "newer", "a column less", "a column more"],
)
def test_a_folder_of_another_version_is_told_in_one_line(study, capsys, change, number, says):
    call(capsys, "study", "run", study)
    rewritten(Path("results/knee"), change, number)
    before = {path.name: path.read_bytes() for path in Path("results/knee").iterdir()}
    told = f"'results/knee' holds results of another version of forksim, {says}run the study again into another folder"
    for arguments in (
        ["run", study],
        ["show", "results/knee"],
        ["plot", "results/knee", "-o", "knee.png"],
        ["rerun", "results/knee", "--point", "3"],
    ):
        code, out, err = call(capsys, "study", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert told in err
    with pytest.raises(ConfigError, match="holds results of another version of forksim"):
        load_results("results/knee")
    assert {path.name: path.read_bytes() for path in Path("results/knee").iterdir()} == before


def test_a_study_of_another_version_is_told_in_one_line(study, capsys):
    call(capsys, "study", "run", study)
    path = Path("results/knee/study.json")
    path.write_text(path.read_text().replace('"percentiles"', '"quantiles"'))
    code, out, err = call(capsys, "study", "show", "results/knee")
    assert (code, out) == (2, "")
    assert "'results/knee' holds a study that does not run here: no key of a study is called 'quantiles'" in err


def test_the_columns_of_a_row_are_those_of_the_format():
    """A row with other columns is another format: whoever changes this raises `FORMAT`."""
    study = parse_study({"traces": {"a": {"generate": "batch"}}, "queries": 2, "metrics": ["eta", "makespan"]})
    columns = "point replication seed eta_mean eta_p50 eta_p95 eta_p99 makespan unanswered error spec"
    assert (FORMAT, row_names(study)) == (2, columns.split())


def test_a_failed_run_is_told_and_tried_again(study, capsys):
    text = KNEE.replace('gpu = "rate:50"', 'gpu = "h100-qwen3-8b"\nnum_kv_blocks = 1')
    Path(study).write_text(text)
    code, _, err = call(capsys, "study", "run", study)
    assert code == 2
    assert re.match(r"forksim: point 0, replication 0 failed: .*asyncthink_math", err)
    assert len(err.splitlines()) == 12
    code, _, err = call(capsys, "study", "run", study)
    assert (code, len(err.splitlines())) == (2, 12)


def test_queries_that_are_never_answered_are_told(study, capsys):
    Path(study).write_text(KNEE.replace("[2, 4]", "[1, 4]"))
    code, _, err = call(capsys, "study", "run", study)
    assert code == 0
    assert err.splitlines() == [
        f"forksim: point {point}: 8 queries of a run are never answered, and in no mean" for point in (0, 1)
    ]


def test_a_study_whose_baseline_has_not_run_is_shown(study, capsys):
    call(capsys, "study", "run", study, "-o", "out")
    journal = Path("out/journal.jsonl")
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text(lines[0] + lines[4])  # a run of the cluster that is no baseline
    for path in Path("out").glob("*.[cp]*"):
        path.unlink()
    code, out, err = call(capsys, "study", "show", "out")
    assert (code, err) == (0, "forksim: 11 runs have not ended; forksim study run goes on\n")
    assert "difference to" not in out


def test_what_differs_at_the_end_of_a_list_is_said(study, capsys):
    metrics = '["latency", "eta", "work", "throughput", "utilization", "mean_batch", "gpus"]'
    Path(study).write_text(KNEE.replace('["latency", "throughput", "cost_per_1000_queries"]', metrics))
    call(capsys, "study", "run", study, "-o", "out")
    Path(study).write_text(Path(study).read_text().replace('"gpus"', '"queries"'))
    code, _, err = call(capsys, "study", "run", study, "-o", "out")
    assert code == 2
    assert "holds another study: metrics is" in err


def test_queries_of_an_earlier_call_do_not_stay_beside_other_rows(study, capsys):
    spec = load_study(study)
    table = run_in_folder(spec, "whole", queries=True)
    assert len(table) == 12
    assert list(Path("whole").glob("queries.*"))
    journal = Path("whole/journal.jsonl")
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:5]))
    run_in_folder(spec, "whole")
    assert not list(Path("whole").glob("queries.*"))


def test_unreadable_records_are_told_and_the_rest_is_used(study, capsys):
    Path("t.jsonl").write_text('{"id": "a", "output": "x<ANSWER>1</ANSWER>"}\nnonsense\n')
    Path(study).write_text('replications = 1\nmetrics = ["answered"]\n[traces.f]\nfiles = ["t.jsonl"]\n')
    code, out, err = call(capsys, "study", "run", study)
    assert code == 2
    assert re.search(r"t.jsonl:2: ", err)
    assert len(err.splitlines()) == 1
    assert out.splitlines()[4].split() == ["1", "1.000"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "none.toml"], "study none.toml: cannot be read (No such file or directory)"),
        (["run", "knee.toml", "-o", ""], "--out takes the name of a folder"),
        (["run", "knee.toml", "--jobs", "0"], "Invalid value for '--jobs'"),
        (["run", "knee.toml", "-o", "knee.toml"], "knee.toml"),
        (["show", "nowhere"], "nowhere"),
        (["rerun", "nowhere"], "nowhere"),
        (["run"], "Missing argument"),
    ],
)
def test_what_is_asked_wrongly(study, capsys, arguments, says):
    code, out, err = call(capsys, "study", *arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert len(err.splitlines()) == 1


def test_the_address_of_ray_may_be_left_out():
    assert _with_address(["study", "run", "--ray", "s.toml"]) == ["study", "run", "--ray", "local", "s.toml"]
    assert _with_address(["study", "run", "s.toml", "--ray"])[-2:] == ["--ray", "local"]
    for address in ("auto", "local", "10.0.0.1:6379", "ray://host:10001"):
        assert _with_address(["--ray", address, "-j", "2"]) == ["--ray", address, "-j", "2"]


def test_the_file_of_the_documentation_is_the_one_that_ships():
    text = (ROOT / "docs/studies.md").read_text(encoding="utf-8")
    block = re.search(r"```toml\n(.*?)```", text, re.DOTALL)[1]
    assert block == (ROOT / "examples" / "study_small.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_studies_load(path):
    study = load_study(path)
    assert study.n_points >= 4
    assert study.name
