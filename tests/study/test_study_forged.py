"""A result folder that somebody else has written, or a disk has damaged: the right results again, or one clear line."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import ConfigError
from simulator.study import Source, Study, load_results, rerun, run_in_folder
from simulator.study.store.journal import seal
from simulator.study.store.results import MAX_RUNS

STUDY = Study(
    traces={"a": Source(generate="batch")},
    queries=3,
    axes={"protocol.capacity": [2, 3]},
    baseline={"protocol.capacity": 2},
    replications=2,
    metrics=("latency", "throughput"),
)


def content(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name != ".lock"}


@pytest.fixture(scope="module", params=[True, False], ids=["parquet", "csv"])
def finished(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "out"
    run_in_folder(STUDY, path, queries=True, parquet=request.param)
    return path, request.param, content(path)


@pytest.fixture
def copy(tmp_path):
    def make(path: Path) -> Path:
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        return Path(shutil.copytree(path, tmp_path / "copy"))

    return make


def read_all(path: Path) -> None:
    """Do with a folder what `show`, `plot` and `rerun` do. It may be refused."""
    stored = load_results(path)
    summary = stored.table.summary()
    assert len(list(summary.rows())) == len(stored.table.points())
    if not stored.missing:
        stored.table.compare(STUDY.baseline)
    for row in list(stored.table.rows())[:1]:
        rerun(row, stored.study)


# What a disk does.


@settings(max_examples=60)
@given(st.data())
def test_a_flipped_bit_is_mended_or_refused(finished, tmp_path_factory, data):
    path, parquet, whole = finished
    folder = Path(shutil.copytree(path, tmp_path_factory.mktemp("flip") / "out"))
    name = data.draw(st.sampled_from(sorted(whole)), label="file")
    place = data.draw(st.integers(0, len(whole[name]) - 1), label="byte")
    damaged = bytearray(whole[name])
    damaged[place] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    (folder / name).write_bytes(damaged)
    try:
        read_all(folder)
        run_in_folder(STUDY, folder, queries=True, parquet=parquet)
    except ConfigError as error:
        assert name in ("study.json", "journal.jsonl"), error
        assert str(folder) in str(error)
    else:
        assert content(folder) == whole


@pytest.mark.parametrize("name", ["rows", "queries", "summary", "comparison"])
@pytest.mark.parametrize("size", [0, 10, -1])
def test_a_table_that_was_cut_off_is_made_again(finished, copy, name, size):
    path, parquet, whole = finished
    folder = copy(path)
    file = next(folder / each for each in whole if each.startswith(name))
    file.write_bytes(file.read_bytes()[:size])
    run_in_folder(STUDY, folder, queries=True, parquet=parquet)
    assert content(folder) == whole


def test_a_table_of_the_other_kind_is_made_once(finished, copy):
    path, parquet, _ = finished
    folder = copy(path)
    run_in_folder(STUDY, folder, queries=True, parquet=not parquet)
    once = content(folder)
    times = {name: os.stat(folder / name).st_mtime_ns for name in once if name.startswith(("rows", "queries"))}
    run_in_folder(STUDY, folder, queries=True, parquet=not parquet)
    assert content(folder) == once
    assert times == {name: os.stat(folder / name).st_mtime_ns for name in times}


# What somebody else does: every line has the right checksum.

ROW = {"point": 0, "replication": 0, "seed": 1, "protocol.capacity": 2, "error": None, "spec": "{}"}
LINES = [
    {"run": 10**12, "row": ROW},
    {"run": -1, "row": ROW},
    {"run": "0", "row": ROW},
    {"run": True, "row": ROW},
    {"run": 0},
    {"run": 0, "row": []},
    {"run": 0, "row": {"a": []}},
    {"run": 0, "row": {"a": {}}},
    {"run": 0, "row": ROW, "part": [0, 10**12, 3]},
    {"run": 0, "row": ROW, "part": [-5, 10, 3]},
    {"run": 0, "row": ROW, "part": "all"},
    {"run": 0, "row": ROW, "failed": 3},
    {"run": 0, "row": ROW, "more": 1},
    {"run": 0, "lost": 1},
    {"finished": 4},
    {"finished": 4, "tables": {"rows.parquet": 3}},
    {"study": 3},
    {},
    [],
    3,
    None,
    "x",
]


@pytest.mark.parametrize("record", LINES, ids=lambda record: json.dumps(record)[:60])
@pytest.mark.parametrize("where", ["end", "second"])
def test_a_line_that_no_study_writes(finished, copy, record, where):
    path, parquet, whole = finished
    folder = copy(path)
    lines = whole["journal.jsonl"].splitlines(keepends=True)
    lines.insert(len(lines) if where == "end" else 1, seal(record))
    (folder / "journal.jsonl").write_bytes(b"".join(lines))
    try:
        read_all(folder)
        run_in_folder(STUDY, folder, queries=True, parquet=parquet)
    except ConfigError as error:
        assert str(folder) in str(error) or "spec of the row" in str(error)
    else:
        assert {name: data for name, data in content(folder).items() if name != "journal.jsonl"} == {
            name: data for name, data in whole.items() if name != "journal.jsonl"
        }


WRONG_VALUES = {
    "point": [-1, 2, 10**9, 0.5, None, "0", True],
    "replication": [-1, 2, None, "0"],
    "seed": [None, "0", 0.5],
    "latency_mean": ["fast"],
    "throughput": ["fast", True and "x"],
    "error": [3, 0.5],
    "spec": [None, 3, "{", "[]", "{}", '{"traces": 3}'],
}


@pytest.mark.parametrize("name, value", [(name, value) for name, values in WRONG_VALUES.items() for value in values])
def test_a_row_that_no_study_writes(finished, copy, name, value):
    path, _, whole = finished
    folder = copy(path)
    lines = whole["journal.jsonl"].splitlines(keepends=True)
    record = json.loads(lines[1][9:])
    record["row"][name] = value
    lines[1] = seal(record)
    (folder / "journal.jsonl").write_bytes(b"".join(lines))
    with pytest.raises(ConfigError):
        read_all(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"runs": 10**12},
        {"runs": MAX_RUNS + 1},
        {"runs": MAX_RUNS},
        {"runs": -5},
        {"runs": 0},
        {"runs": True},
        {"runs": 4.0},
        {"study": []},
        {"study": {}},
        {"study": {"document": []}},
        {"study": {"document": {}, "base": 3}},
        {"study": {"document": {"traces": {"a": {"generate": "batch"}}, "queries": 3}}},
        {"study": {"document": {"traces": {"a": {"files": ["/dev/zero"]}}}, "base": "\0"}},
        {"forksim_results": None},
        {"forksim_results": {}},
    ],
    ids=str,
)
def test_a_study_file_that_no_study_writes(finished, copy, change):
    folder = copy(finished[0])
    there = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps({**there, **change}))
    with pytest.raises(ConfigError, match=str(folder)):
        read_all(folder)


@pytest.mark.parametrize("name", ["study.json", "journal.jsonl"])
@pytest.mark.parametrize("what", ["/dev/zero", "fifo", "folder"])
def test_a_file_that_never_ends(finished, copy, tmp_path, name, what):
    folder = copy(finished[0])
    (folder / name).unlink()
    if what == "fifo":
        os.mkfifo(folder / name)
    elif what == "folder":
        (folder / name).mkdir()
    else:
        (folder / name).symlink_to(what)
    with pytest.raises(ConfigError, match="plain file"):
        load_results(folder)
    with pytest.raises(ConfigError, match="plain file"):
        run_in_folder(STUDY, folder)


def test_a_folder_has_a_bound():
    with pytest.raises(ConfigError, match="at most 10,000,000 runs; got 20,000,000"):
        run_in_folder(STUDY.with_(axes={"queries": [*range(1, 21)]}, baseline=None, replications=10**6), "nowhere")


def test_all_of_it_is_there(finished):
    assert np.isfinite(load_results(finished[0]).table["latency_mean"]).all()
