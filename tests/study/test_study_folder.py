"""The folder of a study's results: killed, torn, full, contested, foreign; and always the same bytes in the end."""

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import ConfigError
from simulator.study.store.folder import ResultFolder
from simulator.study.store.journal import open_line, seal
from simulator.study.store.results import read_folder
from tests.support.fill_folder import IDENTITY, Saboteur, content, fill, filled, full, queries, row
from tests.support.read_tables import read_columns

ROOT = Path(__file__).parents[2]
RUNS = 8


def open_folder(path, identity=IDENTITY, keys=RUNS, **options):
    return ResultFolder(path, identity, keys=keys, **options)


def refusal(path, **options):
    """Return why a folder cannot be opened: one line."""
    with pytest.raises(ConfigError) as caught, open_folder(path, **options):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an uninterrupted run leaves."""
    return filled(tmp_path_factory.mktemp("whole"), RUNS, queries=True)


@pytest.fixture(scope="module", autouse=True)
def unsynced():
    """Thousands of folders need not reach the disk; whether they do is seen by no test that leaves the machine on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


# ---------------------------------------------------------------- by hand


def test_by_hand(tmp_path):
    with open_folder(tmp_path, {"axes": [1, 2]}, 3, queries=True, parquet=False) as folder:
        folder.add(2, {"c": 2, "gpu": "a", "latency": 1.5}, {"latency": np.array([1.0, 2.0])})
        folder.fail(0, "it broke", {"c": 1, "gpu": "a, b"})
        folder.add(1, {"c": 1, "gpu": None, "latency": math.nan}, {"latency": np.array([math.nan])})
        assert (folder.done, folder.failed) == ({1, 2}, {0: "it broke"})
        folder.finish(("c", "latency"), tags=("c",))
    assert content(tmp_path)["rows.csv"].decode() == 'c,latency,gpu,error\n1,,"a, b",it broke\n1,,,\n2,1.5,a,\n'
    assert content(tmp_path)["queries.csv"].decode() == "run,c,latency\n1,1,\n2,2,1.0\n2,2,2.0\n"
    assert json.loads(content(tmp_path)["study.json"]) == {"forksim_results": 2, "runs": 3, "study": {"axes": [1, 2]}}
    with open_folder(tmp_path, {"axes": [1, 2]}, 3, queries=True, parquet=False) as folder:
        assert (folder.done, folder.failed, folder.notes) == ({1, 2}, {0: "it broke"}, [])
        folder.add(0, {"c": 1, "gpu": "a, b", "latency": 3}, {"latency": np.array([3.0])})
        folder.finish(("c", "latency"), tags=("c",))
        folder.write("summary.csv", {"c": np.array([1, 2])})
    assert content(tmp_path)["rows.csv"].decode() == 'c,latency,gpu,error\n1,3.0,"a, b",\n1,,,\n2,1.5,a,\n'
    assert content(tmp_path)["queries.csv"].decode() == "run,c,latency\n0,1,3.0\n1,1,\n2,2,1.0\n2,2,2.0\n"
    assert sorted(content(tmp_path)) == ["journal.jsonl", "queries.csv", "rows.csv", "study.json", "summary.csv"]


def test_types_come_back(tmp_path):
    pytest.importorskip("pyarrow", exc_type=ImportError)
    filled(tmp_path, RUNS, queries=True)
    for columns in (read_columns(tmp_path / "rows.parquet"), read_folder(tmp_path).columns):
        assert {name: column.dtype.kind for name, column in columns.items()} == {
            "point": "i",
            "replication": "i",
            "routing": "O",
            "latency": "f",
            "answered": "i",
            "error": "O",
        }
        np.testing.assert_array_equal(columns["latency"], [float(row(key)["latency"]) for key in range(RUNS)])
    kept = read_columns(tmp_path / "queries.parquet")
    assert list(kept) == ["run", "point", "trace", "latency", "tokens"]
    expected = [value for key in range(RUNS) for value in queries(key)["latency"].tolist()]
    assert kept["latency"].tolist() == expected


@settings(max_examples=15)
@given(st.lists(st.floats(), min_size=1, max_size=20), st.integers(-(2**63), 2**63 - 20))
def test_numbers_are_exact(tmp_path_factory, floats, integer):
    for parquet in (True, False):
        path = tmp_path_factory.mktemp("exact")
        with open_folder(path, keys=len(floats), parquet=parquet) as folder:
            for key, value in enumerate(floats):
                folder.add(key, {"latency": value, "seed": integer + key})
            folder.finish()
        table = read_columns(path / f"rows{folder.ending}")
        np.testing.assert_array_equal(table["latency"], np.array(floats))  # NaN equals NaN here
        assert (
            np.signbit(table["latency"][~np.isnan(floats)]).tolist()
            == np.signbit(np.array(floats)[~np.isnan(floats)]).tolist()
        )
        assert table["seed"].tolist() == [integer + key for key in range(len(floats))]


# ---------------------------------------------------------------- the same bytes, however it went


@settings(max_examples=30)
@given(st.permutations(range(RUNS)), st.sets(st.integers(1, RUNS - 1)), st.sets(st.integers(0, RUNS - 1)))
def test_order_and_interruptions_and_failures_leave_no_trace(tmp_path_factory, whole, order, stops, fails):
    path = tmp_path_factory.mktemp("runs")
    for begin, end in zip([0, *sorted(stops)], [*sorted(stops), RUNS], strict=True):
        with open_folder(path, queries=True) as folder:
            for key in order[begin:end]:
                if key in fails:
                    folder.fail(key, "out of luck", {"point": 7})
        for _ in fill(path, RUNS, keys=order[begin:end], queries=True):
            pass
    assert content(path) == whole


@pytest.mark.parametrize("parquet", [True, False])
def test_a_finished_folder_is_left_alone(tmp_path, parquet):
    before = filled(tmp_path, RUNS, queries=True, parquet=parquet)
    times = {name: (tmp_path / name).stat().st_mtime_ns for name in before}
    assert filled(tmp_path, RUNS, queries=True, parquet=parquet) == before
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == times


@pytest.mark.parametrize("name", ["rows.parquet", "queries.parquet"])
def test_a_lost_table_is_made_again(tmp_path, whole, name):
    pytest.importorskip("pyarrow", exc_type=ImportError)
    filled(tmp_path, RUNS, queries=True)
    (tmp_path / name).unlink()
    done = list(fill(tmp_path, RUNS, queries=True))
    assert done == ([] if name == "rows.parquet" else list(range(RUNS)))
    assert content(tmp_path) == whole


def test_queries_asked_for_later(tmp_path, whole):
    filled(tmp_path, RUNS, queries=False)
    with open_folder(tmp_path, queries=True) as folder:
        assert folder.done == set()
        assert folder.notes == [
            f"{str(tmp_path)!r}: the queries of {RUNS} finished runs are not there; they are done again"
        ]
    with open_folder(tmp_path, queries=False) as folder:  # as good as before
        assert folder.done == set(range(RUNS))
    assert filled(tmp_path, RUNS, queries=True) == whole


def test_csv_asked_for_later(tmp_path):
    pytest.importorskip("pyarrow", exc_type=ImportError)
    filled(tmp_path, RUNS, queries=True)
    assert list(fill(tmp_path, RUNS, queries=True, parquet=False)) == []
    assert sorted(content(tmp_path)) == ["journal.jsonl", "queries.parquet", "rows.csv", "study.json"]


def test_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert sorted(filled(tmp_path, RUNS, queries=True)) == ["journal.jsonl", "queries.csv", "rows.csv", "study.json"]


# ---------------------------------------------------------------- killed


def started(path, point=0):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.fill_folder", path, str(RUNS), str(point)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def operations(path):
    """Return how many operations on files an uninterrupted run takes."""
    with Saboteur(0, None).at_work() as saboteur:
        filled(path, RUNS, queries=True)
    return saboteur.count


def killed_within(path, point):
    process = started(path, point)
    out, err = process.communicate()
    assert (process.returncode, err) == (-signal.SIGKILL, "")
    with open_folder(path, queries=True) as folder:
        assert folder.done >= set(map(int, out.split()))  # what was said to be there is there
        assert folder.notes == []


def killed_from_outside(path, lines):
    process = started(path)
    said = [int(process.stdout.readline()) for _ in range(lines)]
    process.kill()
    process.communicate()
    with open_folder(path, queries=True) as folder:
        assert folder.done >= set(said)
        assert folder.notes == []


def test_killed(tmp_path, whole):
    total = operations(tmp_path / "count")
    for turn, point in enumerate((total // 2, total - 2)):
        killed_within(tmp_path / str(turn), point)
        assert filled(tmp_path / str(turn), RUNS, queries=True) == whole
    killed_from_outside(tmp_path / "out", 3)
    assert filled(tmp_path / "out", RUNS, queries=True) == whole


@pytest.mark.slow
def test_killed_again_and_again(tmp_path, whole):
    """Ten times from inside, amid an operation, and ten times from outside; then one folder over and over."""
    chance = random.Random(5)
    total = operations(tmp_path / "count")
    for turn in range(10):
        killed_within(tmp_path / f"in{turn}", chance.randint(1, total))
        assert filled(tmp_path / f"in{turn}", RUNS, queries=True) == whole
        killed_from_outside(tmp_path / f"out{turn}", chance.randint(0, RUNS))
        assert filled(tmp_path / f"out{turn}", RUNS, queries=True) == whole
    for point in chance.sample(range(1, total // 3), 10):
        process = started(tmp_path / "on", point)
        process.communicate()
    assert filled(tmp_path / "on", RUNS, queries=True) == whole


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the children are forked")
def test_killed_at_every_operation(tmp_path):
    process = started(tmp_path, "each")
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    killed = int(out.split()[-1])
    assert killed > 100
    whole = content(tmp_path / str(killed + 1))
    for point in range(1, killed + 1):
        assert filled(tmp_path / str(point), RUNS, queries=True, parquet=False) == whole, point


@pytest.fixture
def unfinished(tmp_path):
    """A folder with all runs but the last, as a killed process leaves it."""
    path = tmp_path / "unfinished"
    for _ in fill(path, RUNS, keys=range(RUNS - 1), queries=True):
        pass
    return path


def test_torn_at_every_byte(tmp_path, whole, unfinished):
    journal = (unfinished / "journal.jsonl").read_bytes()
    parts = (unfinished / "parts.bin").read_bytes()
    last = len(b"".join(journal.splitlines(keepends=True)[:-2]))
    for size in (*range(0, 60), *range(60, last, 20), *range(last, len(journal))):
        path = tmp_path / "torn"
        shutil.copytree(unfinished, path)
        (path / "journal.jsonl").write_bytes(journal[:size])
        with open_folder(path, queries=True) as folder:
            assert (folder.done, folder.notes) == (set(range(max(0, journal[:size].count(b"\n") - 1))), [])
        if size > len(journal) - 150 or size % 50 == 0:
            assert filled(path, RUNS, queries=True) == whole
        shutil.rmtree(path)
    for size in range(0, len(parts), 15):
        path = tmp_path / "torn"
        shutil.copytree(unfinished, path)
        (path / "parts.bin").write_bytes(parts[:size])
        with open_folder(path, queries=True) as folder:
            assert len(folder.notes) == 1
            assert "finished runs are not there; they are done again" in folder.notes[0]
        if size % 10 == 0:
            assert filled(path, RUNS, queries=True) == whole
        shutil.rmtree(path)


@pytest.mark.parametrize(
    "garbage", [b"\0" * 4096, b"x", b"\xff\xfe\n", b"\n\n\n", b'00000000 {"run":7}\n', seal({"run": 1})[:-1]]
)
def test_garbage_at_the_end_is_cut_off(whole, unfinished, garbage):
    before = (unfinished / "journal.jsonl").read_bytes()
    (unfinished / "journal.jsonl").write_bytes(before + garbage)
    with open_folder(unfinished, queries=True) as folder:
        assert (folder.done, folder.notes) == (set(range(RUNS - 1)), [])
    assert (unfinished / "journal.jsonl").read_bytes() == before
    assert filled(unfinished, RUNS, queries=True) == whole


def test_damage_in_the_middle_is_said_and_done_again(tmp_path, whole, unfinished):
    lines = (unfinished / "journal.jsonl").read_bytes().splitlines(keepends=True)
    for place in range(len(lines[3])):
        damaged = bytearray(lines[3])
        damaged[place] ^= 0x55
        path = tmp_path / "damaged"
        shutil.copytree(unfinished, path)
        (path / "journal.jsonl").write_bytes(b"".join([*lines[:3], bytes(damaged), *lines[4:]]))
        with open_folder(path, queries=True) as folder:
            assert len(folder.notes) == 1
            assert "journal.jsonl': damaged in line 4" in folder.notes[0]
            assert set(range(RUNS - 1)) - folder.done <= {2, 3}  # 3 too if the damage is the end of its line
        if place % 20 == 0:
            assert filled(path, RUNS, queries=True) == whole
        shutil.rmtree(path)


def test_damaged_queries_are_done_again(whole, unfinished):
    parts = bytearray((unfinished / "parts.bin").read_bytes())
    parts[-1] ^= 1
    (unfinished / "parts.bin").write_bytes(parts)
    with pytest.raises(ConfigError, match="the queries of run 6 are damaged; run again to do it anew"):
        filled(unfinished, RUNS, queries=True)
    assert list(fill(unfinished, RUNS, queries=True)) == [6]
    assert content(unfinished) == whole


# ---------------------------------------------------------------- a full disk


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_at_every_operation(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(
        "simulator.study.store.folder.time.monotonic", iter(range(10**6)).__next__
    )  # each run is synced
    total = operations(tmp_path / "count")
    assert total > 100
    refused = 0
    for point in range(1, total + 1):
        path = tmp_path / str(point)
        try:
            with Saboteur(point, full).at_work():
                filled(path, RUNS, queries=True)
        except ConfigError as error:
            refused += 1
            assert "(No space left on device)" in str(error)
            assert "\n" not in str(error)
        with open_folder(path, queries=True) as folder:
            assert folder.notes == []
        assert filled(path, RUNS, queries=True) == whole, point
        shutil.rmtree(path)
    assert refused > total * 0.8  # a folder need not be synced, and what is removed may stay


def test_after_a_failed_write_the_folder_goes_on(tmp_path, whole):
    """The disk is full for one write: the run is not counted, and the next one is written where that one began."""
    with open_folder(tmp_path, queries=True) as folder:
        folder.add(0, row(0), queries(0))
        for key in (3, 1):
            with (
                pytest.raises(ConfigError, match="No space left on device"),
                Saboteur(2 * (key == 3) + 2, full).at_work(),
            ):
                folder.add(key, row(key), queries(key))
            assert folder.done == {0}
        folder.add(2, row(2), queries(2))
        assert folder.done == {0, 2}
    assert filled(tmp_path, RUNS, queries=True) == whole


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    if (
        shutil.which("mount") is None
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", path], capture_output=True).returncode
    ):
        pytest.skip("no file system can be mounted here")
    yield path
    subprocess.run(["umount", path], check=True)


def test_a_disk_that_is_full(small_disk, tmp_path):
    runs = 400
    with pytest.raises(ConfigError, match=r"cannot be written \(No space left on device\); what is finished is kept"):
        filled(small_disk / "out", runs, queries=True)
    found = read_folder(small_disk / "out")
    assert 0 < len(found.keys) < runs
    with pytest.raises(ConfigError, match="No space left on device"):
        filled(small_disk / "out", runs, queries=True)
    shutil.copytree(small_disk / "out", tmp_path / "moved")
    assert filled(tmp_path / "moved", runs, queries=True) == filled(tmp_path / "whole", runs, queries=True)


# ---------------------------------------------------------------- two at once


def test_two_in_one_process(tmp_path):
    with open_folder(tmp_path):
        assert "another forksim study is writing to" in refusal(tmp_path)
    with open_folder(tmp_path):
        pass


def test_two_processes(tmp_path, whole):
    process = started(tmp_path)
    process.stdout.readline()
    process.send_signal(signal.SIGSTOP)
    try:
        assert refusal(tmp_path, queries=True).startswith(f"another forksim study is writing to {str(tmp_path)!r}; ")
        assert 0 < len(read_folder(tmp_path).keys) <= RUNS  # reading is free
    finally:
        process.kill()
        process.communicate()
    assert filled(tmp_path, RUNS, queries=True) == whole  # the dead hold no lock


def test_two_start_at_the_same_instant(tmp_path, whole):
    processes = [started(tmp_path / "out") for _ in range(3)]
    ends = [(*process.communicate(), process.returncode) for process in processes]
    assert any(code == 0 for *_, code in ends)
    for _, err, code in ends:
        assert code == 0 or (code == 1 and err.startswith("another forksim study is writing to"))
    assert content(tmp_path / "out") == whole


# ---------------------------------------------------------------- folders that are not ours


def test_another_study(tmp_path):
    filled(tmp_path, RUNS)
    assert refusal(tmp_path, identity={"name": "knee", "protocol": {"capacity": 2}}) == (
        f"{str(tmp_path)!r} holds another study: protocol.capacity is 4 there, 2 here; "
        "choose another -o, or go on with the study it was made with"
    )
    assert "runs is 8 there, 9 here" in refusal(tmp_path, keys=9)
    several = refusal(tmp_path, identity={"a": [1, 2], "b": None, "c": "x" * 100})
    assert 'a is not set there, [1, 2] here; b is not set there, null here; c is not set there, "xxx' in several
    assert "x... here; and 2 more; choose" in several
    assert len(several) < 400


def test_journal_of_another_study(tmp_path):
    filled(tmp_path / "a", RUNS)
    with open_folder(tmp_path / "b", {"name": "other"}):
        pass
    shutil.copy(tmp_path / "b" / "journal.jsonl", tmp_path / "a")
    assert "is the journal of another study" in refusal(tmp_path / "a")


@pytest.mark.parametrize(
    "name", ["rows.parquet", "rows.csv", "queries.csv", "summary.csv", "journal.jsonl", "parts.bin"]
)
def test_files_of_other_origin(tmp_path, name):
    (tmp_path / "notes.txt").write_text("mine")
    filled(tmp_path / "fine", RUNS)
    (tmp_path / name).write_text("mine")
    assert refusal(tmp_path) == (
        f"{str(tmp_path)!r} has a file {name} of other origin, and no study.json; choose another -o"
    )
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(
        ["fine", "notes.txt", name]
    )  # nothing is left there
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "npm"}', "[" * 10**5, '{"forksim_results": 1}', "\x00"])
def test_a_study_file_of_other_origin(tmp_path, text):
    (tmp_path / "study.json").write_text(text)
    said = refusal(tmp_path)
    assert "study.json' is not what a forksim study writes: it is " in said and "study run STUDY.toml -o DIR)" in said
    assert (tmp_path / "study.json").read_text() == text


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ('{"forksim_results": 1, "runs": 8, "study": {}}', "1"),
        ('{"forksim_results": 3}', "3"),
        ('{"forksim_results": "2b", "runs": 8}', "'2b'"),
        ('{"forksim_results": [2], "runs": 8}', "[2]"),
    ],
)
def test_a_study_file_of_another_format(tmp_path, text, number):
    (tmp_path / "study.json").write_text(text)
    says = (
        f"{str(tmp_path)!r} holds results of another version of forksim, in format {number}, and this one has format "
        "2: run the study again into another folder (forksim study run STUDY.toml -o DIR), or read them with that "
        "version"
    )
    assert refusal(tmp_path) == says
    with pytest.raises(ConfigError) as caught:
        read_folder(tmp_path)
    assert str(caught.value) == says
    assert (tmp_path / "study.json").read_text() == text


def test_a_journal_that_is_none(tmp_path):
    filled(tmp_path, RUNS)
    (tmp_path / "journal.jsonl").write_text("dear diary,\nnothing happened\n")
    assert "journal.jsonl' is not what a forksim study writes" in refusal(tmp_path)
    assert (tmp_path / "journal.jsonl").read_text() == "dear diary,\nnothing happened\n"


@pytest.mark.parametrize("name", ["journal.jsonl", "parts.bin", "study.json", "rows.parquet", ".lock"])
@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_names_that_are_no_plain_files(tmp_path, name, kind):
    (tmp_path / "precious").write_text("mine")
    path = tmp_path / "out"
    path.mkdir()
    if kind == "link":
        (path / name).symlink_to(tmp_path / "precious")
    elif kind == "folder":
        (path / name).mkdir()
    else:
        os.mkfifo(path / name)
    if (name, kind) != (".lock", "pipe"):  # which can be locked like any
        refusal(path)
    assert (tmp_path / "precious").read_text() == "mine"


def test_the_folder_is_a_file(tmp_path):
    (tmp_path / "out").write_text("mine")
    assert refusal(tmp_path / "out") == f"{str(tmp_path / 'out')!r}: cannot be written (File exists)"
    assert "cannot be written (Not a directory)" in refusal(tmp_path / "out" / "in")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert "cannot be written (File exists)" in refusal(tmp_path / "link")


def test_the_folder_is_a_link(tmp_path, whole):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert filled(tmp_path / "link", RUNS, queries=True) == whole
    with open_folder(tmp_path / "link"):
        assert "another forksim study" in refusal(tmp_path / "real")


@pytest.fixture
def nobody():
    """A user who may not write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_permission_denied(tmp_path, nobody):
    path = Path("/root/out") if os.getuid() == 0 else tmp_path / "out"
    if os.getuid() != 0:
        path.mkdir(mode=0o500)
    assert refusal(path) == f"{str(path)!r}: cannot be written (Permission denied)"


def test_no_result_folder(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match=r"is no result folder \(study\.json: No such file or directory\)"):
            read_folder(path)


# ---------------------------------------------------------------- misuse, and reading


def test_misuse(tmp_path):
    with open_folder(tmp_path, queries=True) as folder:
        folder.add(0, row(0), queries(0))
        with pytest.raises(ConfigError, match="run 0 is finished already"):
            folder.add(0, row(0), queries(0))
        with pytest.raises(ConfigError, match="run 0 is finished already"):
            folder.fail(0, "late", row(0))
        with pytest.raises(ConfigError, match="there are runs 0 to 7; got 8"):
            folder.add(8, row(8), queries(8))
        with pytest.raises(ConfigError, match="run 1 comes without the columns of its queries"):
            folder.add(1, row(1))
        with pytest.raises(ConfigError, match=r"run 1: latency must be a number, .* or None; got \[1\]"):
            folder.add(1, {"latency": [1]}, queries(1))
        with pytest.raises(ConfigError, match="7 of 8 runs have not ended"):
            folder.finish()
        for name in ("../x.csv", "study.json", "journal.jsonl", "a/b.csv"):
            with pytest.raises(ConfigError, match="a table in a result folder cannot be called"):
                folder.write(name, {"a": np.zeros(1)})
        for key in range(1, RUNS):
            folder.add(key, row(key), {"latency": np.zeros(2, dtype=np.int64 if key == 5 else np.float64)})
        with pytest.raises(ConfigError, match=r"run 1: its queries have columns .*not .* as before"):
            folder.finish()
    assert read_folder(tmp_path).missing == 0


def test_reading_what_there_is(unfinished):
    found = read_folder(unfinished)
    assert (found.identity, found.runs, found.missing, found.failed) == (IDENTITY, RUNS, 1, {})
    assert found.keys.tolist() == found.columns["answered"].tolist() == list(range(RUNS - 1))
    with open(unfinished / "journal.jsonl", "ab") as file:
        file.write(b"torn")
    with open_folder(unfinished) as folder:
        folder.fail(7, "no luck", {"point": 3})
        found = read_folder(unfinished)  # while it is being written
    assert (found.missing, found.failed, found.columns["error"].tolist()[-2:]) == (0, {7: "no luck"}, [None, "no luck"])
    (unfinished / "journal.jsonl").unlink()
    found = read_folder(unfinished)
    assert (found.missing, found.columns) == (RUNS, {})


@given(
    st.dictionaries(
        st.text(), st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text())
    )
)
def test_lines_hold_what_they_were_given(record):
    whole = {"run": 0, "row": record}
    line = seal(whole)
    assert open_line(line, 1) == whole
    assert line.count(b"\n") == 1
