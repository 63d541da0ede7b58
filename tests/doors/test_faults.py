"""Every command that writes, with every file operation failing once: one line, and what was there before."""

from __future__ import annotations

import errno
import json

import pytest

from simulator.cli import _run
from simulator.formats import native
from simulator.workload import generate
from tests.support.fake_server import FakeServer
from tests.support.faults import Faults

TEXT = "a <FORK-1>q</FORK-1> b <JOIN-1>r</JOIN-1><ANSWER>9</ANSWER>"
TRACE = json.dumps({"output": TEXT, "workers": {"1": "r"}, "outcome": "correct"})
COMMANDS = {
    "convert": ("traces.jsonl", ["convert", "TRACES", "-o"]),
    "convert to asyncthink": ("traces.jsonl", ["convert", "TRACES", "--to", "asyncthink", "-o"]),
    "generate": ("traces.jsonl", ["generate", "batch", "-n", "3", "-o"]),
    "score to lines": ("scores.jsonl", ["score", "TRACES", "-o"]),
    "score to csv": ("scores.csv", ["score", "TRACES", "-o"]),
    "score to parquet": ("scores.parquet", ["score", "TRACES", "-o"]),
    "gantt": ("chart.svg", ["gantt", "TRACES", "-o"]),
    "whatif": ("chart.png", ["whatif", "TRACES", "-o"]),
    "run": ("folder", ["run", "TRACES", "--plots", "1", "--out"]),
}


pytestmark = pytest.mark.slow


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_one_operation_fails(tmp_path, capsys, name, error):
    out, command = COMMANDS[name]
    if out.endswith(".parquet"):
        pytest.importorskip("pyarrow", exc_type=ImportError)
    traces = tmp_path / "in.jsonl"
    traces.write_text(f"{TRACE}\n" * 3)
    target = tmp_path / "out" / out
    arguments = [str(traces) if word == "TRACES" else word for word in command] + [str(target)]

    def begin():
        for path in sorted((tmp_path / "out").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        (target if name == "run" else target.parent).mkdir(parents=True, exist_ok=True)
        for file in (target / "metrics.csv", target / "spans.csv") if name == "run" else (target,):
            file.write_text("what was there")
        return files(tmp_path / "out")

    before = begin()
    with pytest.MonkeyPatch.context() as patch:
        whole = Faults(patch)
        assert _run(arguments) == 0, capsys.readouterr().err
    after = files(tmp_path / "out")
    assert after.keys() >= before.keys() and all(after[path] != before[path] for path in before)
    for fails in sorted({*range(1, min(whole.count, 6) + 1), *range(max(whole.count - 4, 1), whole.count + 1)}):
        begin()
        capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, fails, error)
            code = _run(arguments)
        what = faults.done[fails - 1], fails
        err = capsys.readouterr().err.splitlines()
        there = files(tmp_path / "out")
        assert code == 2 and len(err) == 1 and "cannot be written" in err[0], (what, err)
        assert not any("/." in f"/{path}" for path in there), what
        for path, content in there.items():  # as it was, or whole
            assert content in (before.get(path), after.get(path)), (what, path)
        if name != "run":
            assert there == before, what


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_one_operation_fails_while_a_recording_is_written(tmp_path, capsys, error):
    """What was recorded before is there, in whole lines, and the next recording can be added."""
    pytest.importorskip("httpx", reason="needs forksim[record]")
    traces, target = tmp_path / "in.jsonl", tmp_path / "new" / "out.jsonl"
    traces.write_bytes(b"".join(native.encode(trace) + b"\n" for trace in generate("asyncthink_math", 3, seed=1)))
    bursts = tmp_path / "new" / "bursts.jsonl"
    with FakeServer() as fake:
        arguments = ["record", "server", fake.url, str(traces), "-o", str(target), "--bursts", str(bursts)]
        with pytest.MonkeyPatch.context() as patch:
            whole = Faults(patch)
            assert _run(arguments) == 0, capsys.readouterr().err
        assert len(target.read_bytes().splitlines()) == 3 and whole.count > 6
        for fails in sorted({*range(1, 7), *range(whole.count - 3, whole.count + 1)}):
            target.unlink(missing_ok=True)
            bursts.unlink(missing_ok=True)
            capsys.readouterr()
            with pytest.MonkeyPatch.context() as patch:
                faults = Faults(patch, fails, error)
                code = _run(arguments)
            err = capsys.readouterr().err.splitlines()
            assert code == 2 and "cannot be written" in err[-1], (fails, faults.done[fails - 1 : fails], err)
            lines = target.read_bytes().splitlines(keepends=True) if target.exists() else []
            assert all(native.decode(line.decode()) and line.endswith(b"\n") for line in lines)
            assert _run([*arguments, "--append"]) == 0, capsys.readouterr().err
            assert len(target.read_bytes().splitlines()) == len(lines) + 3


def test_what_was_killed_in_the_middle_of_a_line_spoils_that_line_alone(tmp_path):
    from simulator.recording.writing import Lines

    path = tmp_path / "out.jsonl"
    path.write_text('{"whole": 1}\n{"half": ')
    with Lines(str(path), append=True) as lines:
        lines.write('{"next": 2}')
    assert path.read_text() == '{"whole": 1}\n{"half": \n{"next": 2}\n'
