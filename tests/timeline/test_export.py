"""Files of timelines: what is in them, and that they are whole or not there."""

import csv
import errno
import math
import os
import stat
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import (
    GPU,
    Answer,
    ConfigError,
    Fork,
    Join,
    LinearBatch,
    Protocol,
    Return,
    Think,
    Thread,
    Trace,
    compile_trace,
    simulate,
)
from simulator.support.files import atomic
from simulator.timeline import COLUMNS
from simulator.timeline.export import SPAN_FIELDS, span_rows, write_csv, write_npz, write_spans
from tests.support.strategies import any_traces, gpus, protocols

TRACE = Trace(
    "q,1",
    (
        Thread("organizer", (Think(2), Fork(1, 1), Think(1), Join(1, 1), Answer(2))),
        Thread("1", (Return(6),)),
    ),
)
WRITERS = {"csv": write_csv, "npz": write_npz, "spans": write_spans}
writers = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


@pytest.fixture
def timeline():
    # organizer  |-2T 1F-|-1T 1J-|.........|-2A-|      ends 3, 5, 11
    # worker 1           |--------6--------|           ends 9
    return simulate(compile_trace(TRACE))


@pytest.fixture
def folder(tmp_path):
    """An empty folder."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


# ---------------------------------------------------------------- what is in them


def test_tasks_as_csv(timeline, folder):
    write_csv(timeline, folder / "tasks.csv")
    assert (folder / "tasks.csv").read_text(encoding="utf-8") == (
        "trace,thread_id,query,thread,task,waited_from,granted,ready,start,decode_start,finish,tokens,flags,replica,"
        "slotted\n"
        '"q,1",organizer,0,0,0,0.0,0.0,0.0,0.0,0.0,3.0,3,0,0,0.0\n'
        '"q,1",organizer,0,0,2,3.0,3.0,3.0,3.0,3.0,5.0,2,0,0,3.0\n'
        '"q,1",1,0,1,1,3.0,3.0,3.0,3.0,3.0,9.0,6,0,0,3.0\n'
        '"q,1",organizer,0,0,3,5.0,5.0,9.0,9.0,9.0,11.0,2,0,0,5.0\n'
    )


def test_spans_as_csv(timeline, folder):
    write_spans(timeline, folder / "spans.csv")
    assert (folder / "spans.csv").read_text(encoding="utf-8") == (
        "trace,query,thread,task,kind,start,finish,tokens,cancelled\n"
        '"q,1",0,organizer,0,decode,0.0,3.0,3,0\n'
        '"q,1",0,organizer,2,decode,3.0,5.0,2,0\n'
        '"q,1",0,1,1,decode,3.0,9.0,6,0\n'
        '"q,1",0,organizer,3,wait_join,5.0,9.0,0,0\n'
        '"q,1",0,organizer,3,decode,9.0,11.0,2,0\n'
    )


def test_spans_of_one_query(timeline):
    graph = timeline.graphs[0]
    both = simulate([graph, graph])
    assert [row[1] for row in span_rows(both)].count(1) == len(span_rows(both, 1)) == len(span_rows(timeline))
    assert all(len(row) == len(SPAN_FIELDS) for row in span_rows(both))


def test_npz(timeline, folder):
    write_npz(timeline, folder / "timeline.npz")
    with np.load(folder / "timeline.npz", allow_pickle=False) as saved:
        assert sorted(saved) == sorted([*COLUMNS, "arrivals", "answered", "batch", "traces"])
        for name in COLUMNS:
            assert saved[name].dtype == (
                np.int64 if name in ("query", "thread", "task", "tokens", "flags", "replica") else np.float64
            )
            assert np.array_equal(saved[name], timeline.column(name))
        assert saved["traces"].tolist() == ["q,1"]
        assert saved["answered"].tolist() == [11.0]
        assert np.array_equal(saved["batch"], timeline.batch)


@given(any_traces(), protocols(), gpus())
def test_csv_says_exactly_what_the_timeline_says(tmp_path_factory, trace, protocol, gpu):
    timeline = simulate(compile_trace(trace, protocol), gpu=gpu, on_deadlock="record")
    path = tmp_path_factory.mktemp("csv") / "tasks.csv"
    write_csv(timeline, path)
    header, *rows = table(path)
    assert tuple(header[2:]) == COLUMNS
    assert [tuple(float(cell) for cell in row[2:]) for row in rows] == list(timeline.stays())
    names = timeline.graphs[0].threads
    assert [row[1] for row in rows] == [names[int(row[3])].id for row in rows]


@writers
@pytest.mark.parametrize("name", ["", "line\nbreak", '"quoted"', "\u20ac", "\ud800", "=1+1", "x" * 5000, "\0"])
def test_any_name_of_a_trace(folder, write, name):
    timeline = simulate(compile_trace(Trace(name, TRACE.threads)))
    write(timeline, folder / "file")
    assert (folder / "file").stat().st_size
    if write is write_csv and name not in ("\ud800", "\0"):
        assert table(folder / "file")[1][0] == ("'=1+1" if name == "=1+1" else name)


FORMULAS = ["=1+1", "+1", "-1+1", "@A1", "\t=1", "'=1", "=cmd|'/c calc'!A0"]


@pytest.mark.parametrize("name", FORMULAS)
def test_a_name_that_a_spreadsheet_takes_for_a_formula(folder, name):
    timeline = simulate(compile_trace(Trace(name, TRACE.threads)))
    for write in (write_csv, write_spans):
        write(timeline, folder / "safe.csv")
        assert {row[0] for row in table(folder / "safe.csv")[1:]} == {"'" + name}
        write(timeline, folder / "raw.csv", formulas=True)
        assert {row[0] for row in table(folder / "raw.csv")[1:]} == {name}


@writers
def test_the_same_timeline_gives_the_same_bytes(timeline, folder, write):
    write(timeline, folder / "a")
    write(simulate(compile_trace(TRACE)), folder / "b")
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()


@writers
def test_cancelled_and_deadlocked_runs_can_be_written(folder, write):
    cancelled = Trace("t", (Thread("organizer", (Fork(1, 1), Answer(1))), Thread("1", (Return(9),))))
    stuck = Trace(
        "t",
        (
            Thread("organizer", (Fork(1, 2), Join(1), Answer(1))),
            Thread("1", (Fork(1), Join(1), Return(1))),
            Thread("1.1", (Return(5),)),
        ),
    )
    graphs = [compile_trace(trace, Protocol(capacity=2)) for trace in (cancelled, stuck)]
    timeline = simulate(graphs, on_deadlock="record", gpu=GPU(cost=LinearBatch(1, p=1)))
    write(timeline, folder / "file")
    if write is write_spans:
        assert [row[2] for row in table(folder / "file") if row[-1] == "1"] == ["1"]
    if write is write_npz:
        with np.load(folder / "file") as saved:
            assert math.isnan(saved["answered"][1])


# ---------------------------------------------------------------- whole or not there


@pytest.mark.parametrize("mode", ["w", "wb"])
def test_a_file_appears_at_the_end(folder, mode):
    content = b"whole" if "b" in mode else "whole"
    with atomic(folder / "new" / "er" / "file", mode) as file:
        file.write(content)
        assert not (folder / "new" / "er" / "file").exists()
    assert (folder / "new" / "er" / "file").read_bytes() == b"whole"
    assert os.listdir(folder / "new" / "er") == ["file"]


class Crash(Exception):
    """Not one of ours."""


@pytest.mark.parametrize("error", [Crash("no"), KeyboardInterrupt(), SystemExit(3), MemoryError()])
def test_after_a_crash_there_is_what_there_was(folder, error):
    (folder / "file").write_text("old", encoding="utf-8")
    with pytest.raises(type(error)), atomic(folder / "file") as file:
        file.write("new")
        raise error
    assert (folder / "file").read_text(encoding="utf-8") == "old"
    assert os.listdir(folder) == ["file"]


class FullDisk:
    """A file on a full disk: `at` says when that is noticed."""

    def __init__(self, file, at):
        self.file = file
        self.at = at

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        self.file.__enter__()
        return self

    def __exit__(self, *error):
        self.file.__exit__(*error)
        if self.at == "close":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, content):
        if self.at == "write":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(content)


@pytest.mark.parametrize("at", ["write", "close"])
@writers
def test_on_a_full_disk_there_is_what_there_was(timeline, folder, monkeypatch, write, at):
    (folder / "file").write_text("old", encoding="utf-8")

    def full(*given, **named):
        return FullDisk(open(*given, **named), at)

    monkeypatch.setattr("simulator.support.files.open", full, raising=False)
    with pytest.raises(ConfigError) as caught:
        write(timeline, folder / "file")
    assert str(caught.value) == f"{str(folder / 'file')!r}: cannot be written (No space left on device)"
    assert (folder / "file").read_text(encoding="utf-8") == "old"
    assert os.listdir(folder) == ["file"]


def test_a_failing_rename_leaves_nothing(folder, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("simulator.support.files.os.replace", refuse)
    with pytest.raises(ConfigError, match="Permission denied"), atomic(folder / "file") as file:
        file.write("new")
    assert os.listdir(folder) == []


@pytest.mark.parametrize("place", ["there is a file", "in a file", "a folder", ""])
def test_where_nothing_can_be_written(folder, place):
    (folder / "a file").write_text("old", encoding="utf-8")
    target = {
        "there is a file": folder / "a file" / "x" / "y",
        "in a file": folder / "a file" / "x",
        "a folder": folder,
        "": "",
    }[place]
    with pytest.raises(ConfigError) as caught, atomic(target) as file:
        file.write("new")
    assert str(caught.value).startswith(f"{str(target)!r}: cannot be written (")
    assert os.listdir(folder) == ["a file"]
    assert (folder / "a file").read_text(encoding="utf-8") == "old"


def test_a_broken_pipe_is_left_to_the_caller(folder):
    with pytest.raises(BrokenPipeError), atomic(folder / "file"):
        raise BrokenPipeError
    assert os.listdir(folder) == []


def test_a_new_file_is_as_readable_as_others(folder):
    umask = os.umask(0o027)
    try:
        with atomic(folder / "file") as file:
            file.write("x")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((folder / "file").stat().st_mode) == 0o640


def test_a_file_that_is_replaced_stays_as_readable_as_it_was(folder):
    (folder / "file").write_text("old", encoding="utf-8")
    (folder / "file").chmod(0o604)
    with atomic(folder / "file") as file:
        file.write("new")
    assert stat.S_IMODE((folder / "file").stat().st_mode) == 0o604
    assert (folder / "file").read_text(encoding="utf-8") == "new"


@pytest.mark.parametrize("there", [True, False], ids=["whole", "dangling"])
def test_a_link_stays_a_link(folder, there):
    (folder / "elsewhere").mkdir()
    if there:
        (folder / "elsewhere" / "target").write_text("old", encoding="utf-8")
    (folder / "link").symlink_to(folder / "elsewhere" / "target")
    with atomic(folder / "link") as file:
        file.write("new")
    assert (folder / "link").is_symlink()
    assert (folder / "elsewhere" / "target").read_text(encoding="utf-8") == "new"
    assert sorted(os.listdir(folder)) == ["elsewhere", "link"]
    assert os.listdir(folder / "elsewhere") == ["target"]


def test_a_pipe_is_written_and_stays_a_pipe(folder):
    os.mkfifo(folder / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((folder / "pipe").read_text(encoding="utf-8")))
    reader.start()
    with atomic(folder / "pipe") as file:
        file.write("through")
    reader.join()
    assert got == ["through"]
    assert stat.S_ISFIFO((folder / "pipe").stat().st_mode)
    assert os.listdir(folder) == ["pipe"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_device_is_never_replaced(monkeypatch):
    monkeypatch.setattr("simulator.support.files.os.replace", None)  # or root would lose /dev/null to a bug
    monkeypatch.setattr("simulator.support.files.tempfile.mkstemp", None)
    with atomic(os.devnull) as file:
        file.write("x")
    with pytest.raises(ConfigError, match="No space left on device"), atomic("/dev/full") as file:
        file.write("x")


@given(st.text(st.characters(), max_size=20))
def test_any_text_can_be_written(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("text") / "file"
    with atomic(path) as file:
        file.write(text)
    written = path.read_bytes().decode("utf-8")
    assert written == text.encode("utf-8", "backslashreplace").decode("utf-8")
