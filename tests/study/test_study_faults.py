"""`forksim study run` from end to end, killed, interrupted, on a full disk, twice at once, on hostile traces."""

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from simulator.cli import _run
from simulator.study.store.results import read_folder
from tests.support.fill_folder import Saboteur, content, full

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")
ROOT = Path(__file__).parents[2]
STUDY = """
seed = 3
replications = 2
queries = 6
metrics = ["latency", "throughput"]
baseline = {"protocol.capacity" = 2}
[traces.math]
generate = "asyncthink_math"
[cluster]
gpu = "h100-qwen3-8b"
[axes]
"protocol.capacity" = [2, 4]
"cluster.replicas" = [1, 2, 3]
"""
RUNS = 12
one_or_two = pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
FILES = ["comparison.csv", "journal.jsonl", "queries.csv", "rows.csv", "study.json", "summary.csv"]


def command(study, out, *more):
    return ["study", "run", str(study), "-o", str(out), "--queries", "--csv", *more]


def started(module, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def forksim(*arguments):
    """Run a command; return its exit code, its output, and what it complains about, a line each."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = _run([str(argument) for argument in arguments])
    lines = err.getvalue().splitlines()
    assert all(line.startswith("forksim: ") for line in lines), err.getvalue()
    return code, out.getvalue(), [line.removeprefix("forksim: ") for line in lines]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "study.toml"
    path.write_text(STUDY, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory, study):
    """What an uninterrupted run leaves."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert forksim(*command(study, out))[0] == 0
    files = content(out)
    assert sorted(files) == FILES
    return files


def resumed(study, out, *more):
    """Go on, and return what is in the folder then."""
    code, _, complaints = forksim(*command(study, out, *more))
    assert code == 0, complaints
    assert all(re.search(r"[\d,]+ of 12 runs are done already$", line) for line in complaints), complaints
    return content(out)


def stopped(study, out, number, *more):
    """Return a process that waits before it adds run `number`, with all before it in the folder."""
    process = started("tests.support.watched_study", "stop", number, *command(study, out, *more))
    assert process.stdout.readline() == "waiting\n", process.communicate()
    return process


def ended(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


# ---------------------------------------------------------------- killed


@one_or_two
def test_killed(tmp_path, study, whole, jobs):
    out = tmp_path / "out"
    process = stopped(study, out, 5, "--jobs", jobs)
    process.kill()
    assert ended(process)[0] == -signal.SIGKILL
    assert len(read_folder(out).keys) == 5
    assert resumed(study, out, "--jobs", jobs) == whole


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_at_ten_random_moments(tmp_path, study, whole, jobs):
    chance = random.Random(jobs)
    process = started("tests.support.watched_study", "die", 0, *command(study, tmp_path / "count", "--jobs", jobs))
    total = int(ended(process)[1].split()[-1])
    assert total > 100
    for turn in range(10):
        out = tmp_path / str(turn)
        if turn % 2:
            process = stopped(study, out, chance.randrange(RUNS), "--jobs", jobs)
            process.kill()
        else:
            point = chance.randint(1, total)
            process = started("tests.support.watched_study", "die", point, *command(study, out, "--jobs", jobs))
        assert ended(process)[0] == -signal.SIGKILL
        assert resumed(study, out, "--jobs", jobs) == whole


@pytest.mark.slow
def test_one_folder_killed_over_and_over(tmp_path, study, whole):
    """Each turn is killed a little later than the last, and goes on with the other number of processes."""
    out = tmp_path / "out"
    for turn, point in enumerate(range(8, 68, 6)):
        process = started("tests.support.watched_study", "die", point, *command(study, out, "--jobs", 1 + turn % 2))
        assert ended(process)[0] in (-signal.SIGKILL, 0)
    assert resumed(study, out) == whole


# ---------------------------------------------------------------- interrupted


@pytest.mark.parametrize("jobs", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_interrupted(tmp_path, study, whole, jobs):
    out = tmp_path / "out"
    process = stopped(study, out, 4, "--jobs", jobs)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert ended(process) == (
        130,
        "",
        f"forksim: interrupted; 4 of 12 runs are in {out}, the same command goes on\n",
    )
    assert len(read_folder(out).keys) == 4
    assert resumed(study, out) == whole


def interrupt():
    raise KeyboardInterrupt


def test_interrupted_at_any_operation(tmp_path, study, whole):
    """From the first file that is made to the last that is removed."""
    with Saboteur(0, interrupt).at_work() as saboteur:
        assert forksim(*command(study, tmp_path / "count"))[0] == 0
    for point in range(1, saboteur.count + 1, 40):
        out = tmp_path / str(point)
        with Saboteur(point, interrupt).at_work():
            code, said, complaints = forksim(*command(study, out))
        assert (code, said, len(complaints)) == (130, "", 1)
        assert re.fullmatch(rf"interrupted; \d+ of 12 runs are in {out}, the same command goes on", complaints[0])
        assert resumed(study, out) == whole


# ---------------------------------------------------------------- contested, full


def test_two_at_once(tmp_path, study, whole):
    out = tmp_path / "out"
    process = stopped(study, out, 3)
    code, said, complaints = forksim(*command(study, out))
    assert (code, said) == (2, "")
    assert complaints == [f"another forksim study is writing to {str(out)!r}; wait for it, or choose another -o"]
    process.kill()
    ended(process)
    pair = [started("simulator", *command(study, out)) for _ in range(2)]
    assert sorted(ended(each)[0] for each in pair) in ([0, 0], [0, 2])
    assert content(out) == whole


def test_a_full_disk(tmp_path, study, whole):
    out = tmp_path / "out"
    for point in range(1, 100, 12):  # each gets a little further
        with Saboteur(point, full).at_work():
            code, said, complaints = forksim(*command(study, out))
        assert (code, said) == (2, "")
        complaints = [line for line in complaints if not line.endswith("runs are done already")]
        assert len(complaints) == 1
        assert "cannot be written (No space left on device)" in complaints[0]
    assert resumed(study, out) == whole


# ---------------------------------------------------------------- hostile input


def trace(name, *threads, **more):
    return json.dumps({"schema": "forksim.trace/1", "id": name, "threads": threads, **more})


def thread(name, *actions, **more):
    return {
        "id": name,
        "actions": [dict(zip(("do", "tokens", "index"), action, strict=False)) for action in actions],
        **more,
    }


GOOD = trace("good", thread("organizer", ("think", 50), ("answer", 5)))
HUGE = trace("huge", thread("organizer", ("answer", 5), prompt_tokens=100_000))
NESTED = trace(
    "nested",
    thread("organizer", ("fork", 1, 1), ("join", 1, 1), ("answer", 1)),
    thread("1", ("fork", 1, 1), ("join", 1, 1), ("return", 1)),
    thread("1.1", ("return", 5)),
)
LINES = [GOOD, '{"schema": oops', GOOD, "[" * 10**5, trace("less", thread("organizer", ("answer", -5))), "\0", NESTED]


def poisoned(folder, lines, axis):
    (folder / "traces.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = re.sub(r"(?ms)^generate = .*?$", 'files = ["traces.jsonl"]', STUDY)
    text = re.sub(r"(?ms)^baseline.*?$", "", text)
    (folder / "study.toml").write_text(text[: text.index("[axes]")] + f"[axes]\n{axis}\n", encoding="utf-8")
    return folder / "study.toml"


@one_or_two
def test_lines_that_are_no_traces(tmp_path, jobs):
    """They are named with file and line, the study is of the others; a deadlock has no answer, and stops nothing."""
    path = poisoned(tmp_path, LINES, '"protocol.capacity" = [2, 4]')
    out = tmp_path / "out"
    code, _, complaints = forksim(*command(path, out, "--jobs", jobs))
    assert code == 2
    places = [re.match(rf"{re.escape(str(tmp_path))}/traces\.jsonl:(\d+): ", line) for line in complaints]
    assert [int(place[1]) for place in places if place] == [2, 4, 5, 6]
    found = read_folder(out)
    assert (len(found.keys), found.missing, found.failed) == (4, 0, {})
    assert (found.columns["throughput"] > 0).all()
    poisoned(
        tmp_path,
        [line for i, line in enumerate(LINES, start=1) if i not in (2, 4, 5, 6)],
        '"protocol.capacity" = [2, 4]',
    )
    assert forksim(*command(path, tmp_path / "clean", "--jobs", jobs))[0] == 0
    assert content(tmp_path / "clean")["rows.csv"] == content(out)["rows.csv"]


@one_or_two
def test_a_trace_that_fits_into_no_memory(tmp_path, jobs):
    """Its run fails, is named with the reason, and is tried again; the rest is done, and done once."""
    path = poisoned(tmp_path, [GOOD, HUGE], '"cluster.num_kv_blocks" = [1000, 100000]')
    out = tmp_path / "out"
    before = {}
    for turn in range(2):
        code, _, complaints = forksim(*command(path, out, "--jobs", jobs))
        assert code == 2
        assert complaints[turn:] == [
            f"point 0, replication {i} failed: huge: thread organizer needs 100004 tokens in KV memory, "
            "and 1000 blocks of 16 hold 16000"
            for i in range(2)
        ]
        assert turn == 0 or complaints[0] == f"{out}: 2 of 4 runs are done already"
        assert set(read_folder(out).failed) == {0, 1}
        tables = {name: text for name, text in content(out).items() if name != "journal.jsonl"}
        assert tables == before or turn == 0
        before = tables


def test_input_that_changed(tmp_path):
    path = poisoned(tmp_path, [GOOD], '"protocol.capacity" = [2, 4]')
    assert forksim(*command(path, tmp_path / "out"))[0] == 0
    poisoned(tmp_path, [GOOD, GOOD], '"protocol.capacity" = [2, 4]')
    code, said, complaints = forksim(*command(path, tmp_path / "out"))
    assert (code, said) == (2, "")
    assert len(complaints) == 1
    assert "holds another study: " in complaints[0]
    assert "traces.jsonl" in complaints[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("replications", "replication", "no key of a study is called 'replication'; did you mean replications?"),
        ("[cluster]\ngpu", "[cluster]\ngpus", "'gpus'; did you mean gpu?"),
        ('"protocol.capacity" = [2, 4]', '"protocol.capacty" = [2, 4]', "did you mean"),
        ("seed = 3", "seed = -3", "seed must be"),
        ("seed = 3", "seed 3", "study.toml"),
    ],
)
def test_a_misspelt_study(tmp_path, old, new, message):
    assert old in STUDY
    (tmp_path / "study.toml").write_text(STUDY.replace(old, new), encoding="utf-8")
    code, said, complaints = forksim(*command(tmp_path / "study.toml", tmp_path / "out"))
    assert (code, said, len(complaints)) == (2, "", 1)
    assert message in complaints[0]
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_origin(tmp_path, study):
    (tmp_path / "rows.csv").write_text("mine")
    code, said, complaints = forksim(*command(study, tmp_path))
    assert (code, said) == (2, "")
    assert complaints == [
        f"{str(tmp_path)!r} has a file rows.csv of other origin, and no study.json; choose another -o"
    ]
    assert [each.name for each in tmp_path.iterdir()] == ["rows.csv"]
