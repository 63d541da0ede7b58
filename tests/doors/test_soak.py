"""Commands that are killed and interrupted at any moment, and a server that misbehaves at any.

`FORKSIM_SOAK` says how many of each; `make fuzz` tries many.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from simulator.formats import native
from simulator.study.store.results import read_folder
from simulator.workload import generate
from tests.support.fill_folder import content
from tests.support.wild_server import WildServer

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals")]

TURNS = int(os.environ.get("FORKSIM_SOAK", "2"))
ROOT = Path(__file__).parents[2]
# Says so once it answers signals: before that, Python itself does.
READY = """
import sys
sys.argv[0], sys.orig_argv = "forksim", ["python", "-m", "simulator"]
import simulator
print(file=sys.stderr, flush=True)
from simulator.cli import main
main()
"""
STUDY = """
seed = 3
replications = 4
queries = 20
metrics = ["latency", "throughput"]
[traces.math]
generate = "asyncthink_math"
[cluster]
gpu = "h100-qwen3-8b"
[axes]
"protocol.capacity" = [2, 3, 4]
"cluster.replicas" = [1, 2, 3]
"""


def started(*arguments):
    process = subprocess.Popen(
        [sys.executable, "-c", READY, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stderr.readline() == "\n"
    return process


def ended(process):
    out, err = process.communicate(timeout=300)
    assert "Traceback" not in out + err and all(line.startswith("forksim: ") for line in err.splitlines()), err
    return process.returncode, err


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    path = tmp_path_factory.mktemp("traces") / "traces.jsonl"
    path.write_bytes(b"".join(native.encode(trace) + b"\n" for trace in generate("asyncthink_math", 600, seed=2)))
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "study.toml"
    path.write_text(STUDY, encoding="utf-8")
    return path


def commands(traces, study, out):
    return {
        "score": ["score", traces, "-o", out / "scores.parquet"],
        "convert": ["convert", traces, "-o", out / "texts.jsonl", "--to", "asyncthink"],
        "run": ["run", traces, "--out", out, "--plots", "1"],
        "study": ["study", "run", study, "-o", out / "results", "--queries", "--csv"],
        "study on two": ["study", "run", study, "-o", out / "results", "--queries", "--csv", "--jobs", "2"],
    }


def files(folder):
    """What people see; what a process that was killed has begun has a name that begins with a dot."""
    seen = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in seen if path.suffix != ".png"}


@pytest.mark.parametrize("name", ["score", "convert", "run", "study", "study on two"])
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_ended_at_any_moment(tmp_path, traces, study, name, sent):
    chance = random.Random(f"{name} {sent}")
    whole = tmp_path / "whole"
    process = started(*commands(traces, study, whole)[name])
    assert ended(process)[0] == 0
    wanted = content(whole / "results") if "study" in name else files(whole)
    assert wanted
    longest = 4.0
    for turn in range(TURNS):
        out = tmp_path / str(turn)
        process = started(*commands(traces, study, out)[name])
        try:
            process.wait(longest * chance.random())
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, sent) if turn % 2 else process.send_signal(sent)
        code, said = ended(process)
        assert code in {0, -sent, 128 + sent}, (code, said)
        if "study" not in name:
            assert set(files(out).items()) <= set(wanted.items())
            if sent != signal.SIGKILL:
                assert not [path for path in out.rglob(".*")]
        elif (out / "results" / "journal.jsonl").exists():
            read_folder(out / "results")
        process = started(*commands(traces, study, out)[name])
        assert ended(process)[0] == 0
        assert (content(out / "results") if "study" in name else files(out)) == wanted


@pytest.mark.parametrize("mode", ["scripted", "free"])
def test_a_server_that_misbehaves_at_random(tmp_path, mode):
    pytest.importorskip("httpx", reason="needs forksim[record]")
    traces = tmp_path / "traces.jsonl"
    traces.write_bytes(b"".join(native.encode(trace) + b"\n" for trace in generate("nested", 6, seed=3)))
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"id": "q", "question": "1 + 3?"}\n' * 6)
    for seed in range(TURNS):
        out = tmp_path / f"{seed}.jsonl"
        with WildServer(seed) as server:
            given = [traces] if mode == "scripted" else [questions, "--nested-forks", "--max-tokens", "60"]
            process = started(
                *("record", "server", server.url, *given, "--mode", mode, "-o", out),
                *("--timeout", "2", "--concurrency", "3", "--max-workers", "4"),
            )
            code, said = ended(process)
        assert code in {0, 2}, said
        if out.exists():
            for line in out.read_bytes().splitlines():
                native.decode(line)
