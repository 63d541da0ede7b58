"""`forksim record` on the command line: what it writes, what it refuses, and how it ends."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from simulator import Answer, Think, Thread, Trace, check
from simulator.cli import _run
from simulator.fidelity import validate
from simulator.formats import native
from simulator.machine.profiles import gpu_from_text
from simulator.trace import ORGANIZER
from tests.recording.test_recording import BOOK, TWO, model
from tests.support.fake_server import FakeServer

pytest.importorskip("httpx", reason="needs forksim[record]")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with two queries, of two runs."""
    monkeypatch.chdir(tmp_path)
    other = Trace("other", (Thread(ORGANIZER, (Think(2), Answer(4)), 5),), arrival=0.0, meta={"run": "b", "spec": "s"})
    lines = [native.render(trace) for trace in (TWO, other)]
    Path("two.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def forksim(capsys):
    """Runs a command; returns exit code, stdout and the lines of stderr."""

    def run(*arguments):
        code = _run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, [line.removeprefix("forksim: ") for line in err.splitlines()]

    return run


def recorded(text):
    return [native.decode(line) for line in text.splitlines()]


def test_traces_come_out_as_lines(here, forksim):
    with FakeServer() as fake:
        code, out, err = forksim("record", "server", fake.url, "two.jsonl")
    assert (code, err) == (0, [])
    first, second = recorded(out)
    assert (first.id, first.meta["run"], second.id, second.meta["run"]) == ("two", "run", "other", "b")
    assert second.meta["spec"] == "s" and second.meta["rep"] == 0
    assert [action.tokens for action in second.organizer.actions] == [2, 4]


def test_repeats_are_runs_of_their_own(here, forksim):
    with FakeServer() as fake:
        code, _, _ = forksim(
            "record",
            "server",
            fake.url + "/v1",
            "two.jsonl",
            "--repeat",
            2,
            "--prefix",
            "x-",
            "-o",
            "new/out.jsonl",
            "--bursts",
            "b.jsonl",
        )
    assert code == 0
    found = recorded(Path("new/out.jsonl").read_text())
    assert [(trace.id, trace.meta["run"], trace.meta["rep"]) for trace in found] == [
        ("x-two#0", "x-run-0", 0), ("x-other#0", "x-b-0", 0), ("x-two#1", "x-run-1", 1), ("x-other#1", "x-b-1", 1),
    ]  # fmt: skip
    assert [trace.meta["spec"] for trace in found] == ["x-run closed", "s", "x-run closed", "s"]  # its own stays
    checked = validate(found, gpu=gpu_from_text("rate:50"))
    assert checked.repeats() is not None
    bursts = [json.loads(line) for line in Path("b.jsonl").read_text().splitlines()]
    decoded = {}
    for row in bursts:
        assert row["at"] == sorted(row["at"]) and row["start"] <= row["at"][0]
        decoded[row["trace"]] = decoded.get(row["trace"], 0) + sum(row["tokens"])
    assert decoded == {trace.id: trace.tokens for trace in found}


def test_a_recording_is_not_overwritten(here, forksim):
    Path("out.jsonl").write_text("dear\n")
    with FakeServer() as fake:
        code, out, [line] = forksim("record", "server", fake.url, "two.jsonl", "-o", "out.jsonl")
        assert (code, out) == (2, "") and line == "'out.jsonl' holds a recording already; --append adds to it"
        assert forksim("record", "server", fake.url, "two.jsonl", "-o", "out.jsonl", "--append")[0] == 0
    assert Path("out.jsonl").read_text().startswith("dear\n{") and len(Path("out.jsonl").read_text().splitlines()) == 3


def test_bad_records_are_told_and_good_ones_recorded(here, forksim):
    with Path("two.jsonl").open("a") as file:
        file.write("{oops\n")
    with FakeServer() as fake:
        code, out, err = forksim("record", "server", fake.url, "two.jsonl", "nothing.jsonl", "two.jsonl")
    assert code == 2 and len(recorded(out)) == 4
    assert [line.partition(" ")[0] for line in err] == ["two.jsonl:3:", "nothing.jsonl:", "two.jsonl:3:"]


def test_what_goes_wrong_is_told_and_recorded(here, forksim):
    with FakeServer(fault=lambda request, _: 503 if request["max_tokens"] == 8 else None, ignores_eos=False) as fake:
        code, out, err = forksim("record", "server", fake.url, "two.jsonl")
    first, second = recorded(out)
    assert code == 2
    assert first.meta["ended"] == "error" and second.meta["ended"] == "answer"
    assert err[0].startswith("two: error: thread 1: HTTP 503: ")
    assert err[1:] == [
        "two: the engine decoded 2 tokens fewer than were asked for",
        "other: the engine decoded 3 tokens fewer than were asked for",
    ]


def test_questions(here, forksim):
    Path("q.jsonl").write_text('{"id": 1, "question": "sum?"}\n{"x": 1}\n')
    Path("p.txt").write_text("{question} LAST Question")
    Path("w.txt").write_text("{question} LAST Sub-query")
    with FakeServer(says=model(BOOK)) as fake:
        code, out, [line] = forksim(
            "record", "server", fake.url, "q.jsonl", "--mode", "free", "--organizer-prompt", "p.txt",
            "--worker-prompt", "w.txt",
        )  # fmt: skip
    assert code == 2 and line.startswith("q.jsonl:2: has no question")
    [trace] = recorded(out)
    assert trace.id == "1" and check(trace) == () and trace.meta["mode"] == "free"


def test_the_key_comes_from_the_environment_and_is_told_nowhere(here, forksim, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    with FakeServer(fault=lambda *_: 401) as fake:
        code, out, err = forksim("record", "server", fake.url, "two.jsonl", "--api-key-env", "MY_KEY")
    assert code == 2 and "sk-secret" not in out + "".join(err) and "Bearer ***" in out
    assert {headers["Authorization"] for headers in fake.headers} == {"Bearer sk-secret"}


def test_what_could_not_begin_leaves_no_file(here, forksim):
    assert forksim("record", "server", "http://127.0.0.1:9", "two.jsonl", "-o", "out.jsonl")[0] == 2
    assert not Path("out.jsonl").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_told_in_one_line(here, forksim):
    with FakeServer() as fake:
        code, _, [line] = forksim("record", "server", fake.url, "two.jsonl", "-o", "/dev/full")
    assert code == 2 and line.startswith("'/dev/full': cannot be written")


THERE = ("server", "http://x", "two.jsonl")
REFUSED = {
    "the form of before": (("two.jsonl", "--server", "http://x"), "record is two commands: forksim record server URL"),
    "two engines": (("server", "http://x", "--llama", "x"), "No such option: --llama"),
    "mode": ((*THERE, "--mode", "both"), "--mode takes scripted or free, got 'both'"),
    "steps of a server": ((*THERE, "--steps", "s.csv"), "No such option: --steps"),
    "model of a file": (("llama", "x", "two.jsonl", "--model", "m"), "No such option: --model"),
    "arrivals": (
        (*THERE, "--arrivals", "soon"),
        "--arrivals takes closed, together, recorded or",
    ),
    "rate": (
        (*THERE, "--arrivals", "poisson:0"),
        "takes a number from 10^-9 to 10^9; got '0'",
    ),
    "rate not plain": ((*THERE, "--arrivals", "poisson:1_0"), "10^-9 to 10^9; got '1_0'"),
    "concurrency of arrivals": (
        (*THERE, "--arrivals", "together", "--concurrency", "2"),
        "goes with",
    ),
    "concurrency": (
        (*THERE, "--concurrency", "0"),
        "users must be a whole number from 1, got 0",
    ),
    "workers": (
        (*THERE, "--max-workers", "0"),
        "max_workers must be a whole number from 1, got 0",
    ),
    "timeout": ((*THERE, "--timeout", "-1"), "timeout must be above 0"),
    "NaN": ((*THERE, "--timeout", "nan"), "timeout must be above 0"),
    "capacity": ((*THERE, "--capacity", "0"), "capacity must be a whole number from 1"),
    "full pool": ((*THERE, "--full-pool", "burst"), "--full-pool takes queue"),
    "temperature": (
        (*THERE, "--temperature", "-1"),
        "--temperature takes a number from 0 to 100",
    ),
    "tokens": (
        (*THERE, "--mode", "free", "--max-tokens", "0"),
        "organizer_tokens must be from 1",
    ),
    "prompt": (
        (*THERE, "--mode", "free", "--worker-prompt", "two.jsonl"),
        "must hold {question}",
    ),
    "no prompt": ((*THERE, "--mode", "free", "--worker-prompt", "none"), "cannot be read"),
    "no key": (
        (*THERE, "--api-key-env", "NOT_SET"),
        "the environment variable NOT_SET is not set",
    ),
    "body": ((*THERE, "--body", "[1]"), "--body takes a JSON object"),
    "address": (("server", "x:80", "two.jsonl"), "a server is an address such as http://127.0.0.1:8000, got 'x:80'"),
    "nobody there": (("server", "http://127.0.0.1:9", "two.jsonl"), "http://127.0.0.1:9 cannot be reached"),
    "recorded": (
        ("server", "http://127.0.0.1:9", "two.jsonl", "--model", "m", "--arrivals", "recorded"),
        "no recorded arrival",
    ),
    "folder": ((*THERE, "-o", "."), "cannot be written"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused_in_one_line(here, forksim, name):
    options, message = REFUSED[name]
    code, out, [line] = forksim("record", *options)
    assert (code, out) == (2, "") and message in line


@pytest.mark.parametrize(
    ("module", "options", "extra"),
    [
        ("httpx", ("server", "http://127.0.0.1:9", "two.jsonl"), "record"),
        ("llama_cpp", ("llama", "two.jsonl", "two.jsonl"), "llama"),
    ],
)
def test_an_extra_that_is_not_installed(here, forksim, monkeypatch, module, options, extra):
    monkeypatch.setitem(sys.modules, module, None)
    code, out, [line] = forksim("record", *options)
    assert (code, out) == (2, "") and f"pip install 'forksim[{extra}]'" in line


@pytest.mark.parametrize("number, said", [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_an_interrupt_loses_nothing(here, number, said):
    """The first query is over, the second hangs: both are in the file, whole."""
    with FakeServer(fault=lambda request, _: ("hang", 1) if request["max_tokens"] == 6 else None) as fake:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
        process = subprocess.Popen(
            [sys.executable, "-m", "simulator", "record", "server", fake.url, "two.jsonl", "-o", "out.jsonl"],
            stderr=subprocess.PIPE, env=environment, text=True,
        )  # fmt: skip
        assert fake.hanging.wait(60)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err.splitlines()[-1]) == (128 + number, f"forksim: {said}")
    first, second = recorded(Path("out.jsonl").read_text())
    assert first.meta["ended"] == "answer" and check(first) == ()
    assert second.meta["ended"] == "interrupted" and len(second.organizer.actions) <= 1
