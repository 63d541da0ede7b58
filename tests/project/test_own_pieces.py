"""Own metrics, policies, cost models, formats and rewards reach every command, by a file, a study or a package."""

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from simulator.cli import _command, _run
from simulator.errors import ConfigError
from simulator.formats import FORMATS, LOGS
from simulator.machine.cost import COSTS
from simulator.machine.policy import POLICIES
from simulator.machine.routing import ROUTINGS
from simulator.metrics import METRICS, SUMMARIES
from simulator.rewards import REWARDS, TERMS
from simulator.study import Processes, load_results, load_study, run_study
from simulator.support import own
from simulator.trace.full_pool import WHEN_FULL
from simulator.workload import FAMILIES

ROOT = Path(__file__).parents[2]
PIECES = ROOT / "examples" / "pieces"

OWN = """
from dataclasses import dataclass
from typing import ClassVar

from beside import HEADER

from simulator import Answer, FormatError, Thread, Trace
from simulator.formats import LOGS, LogFormat
from simulator.machine.cost import COSTS
from simulator.machine.routing import ROUTINGS


@dataclass(frozen=True)
class Twofold:
    memory: float
    compute: float
    monotone: ClassVar[bool] = True

    @property
    def prefill_is_free(self):
        return False

    def step_seconds(self, n, context, prefill_tokens=0, prefill_context=0):
        return max(self.memory, self.compute * (n + prefill_tokens))

    def decode_seconds(self, n, context, k):
        return k * self.step_seconds(n, context)


def read(lines, reading):
    for number, line in lines:
        if line.strip() == HEADER:
            continue
        try:
            name, tokens = line.decode().split(",")
            yield Trace(name, (Thread("organizer", (Answer(int(tokens)),)),))
        except ValueError as error:
            yield FormatError(f"is no row: {error}", line=number)


COSTS["twofold"] = Twofold
LOGS["rows"] = LogFormat("rows", "a request a line", lambda line: line.strip() == HEADER, read, None)
"""

STUDY = """
import = ["mine.py"]
queries = 4
replications = 1
metrics = ["latency"]
[traces.a]
generate = "batch"
[cluster]
gpu = "twofold:8e-3,5e-3"
[axes]
"protocol.capacity" = [2, 4]
"""


REGISTRIES = (FORMATS, LOGS, COSTS, POLICIES, ROUTINGS, METRICS, SUMMARIES, REWARDS, TERMS, WHEN_FULL, FAMILIES)


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """What a test lists is not there in the next."""
    monkeypatch.setattr(own, "_LOADED", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules, listed = set(sys.modules), [dict(registry) for registry in REGISTRIES]
    yield
    for registry, before in zip(REGISTRIES, listed, strict=True):
        registry.clear()
        registry.update(before)
    for name in set(sys.modules) - modules:
        if name.startswith(("mine", "my_pieces", "beside", "random_", "good_", "broken_")):
            del sys.modules[name]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(OWN)
    Path("beside.py").write_text('HEADER = b"id,tokens"\n')
    Path("rows.csv").write_text("id,tokens\na,10\nb,20\n")
    Path("study.toml").write_text(STUDY)
    return tmp_path


def leaves(command, path=()):
    for name, each in getattr(command, "commands", {}).items():
        yield from leaves(each, (*path, name))
    if not getattr(command, "commands", {}):
        yield path, command


def test_every_command_takes_own_pieces():
    found = list(leaves(_command()))
    assert len(found) > 15
    for path, command in found:
        assert any("--import" in each.opts for each in command.params), path


def test_a_file_lists_a_log_format_and_a_cost_model(here, capsys):
    assert _run(["run", "rows.csv", "--import", "mine.py", "--gpu", "twofold:8e-3,5e-3", "--json"]) == 0
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(line["trace"], line["latency"]) for line in lines[:2]] == [("a", 0.08), ("b", 0.16)]  # 8 ms a token
    assert err == ""
    assert _run(["gpus", "--import", "./mine.py", "--json"]) == 0


def test_the_pieces_of_the_page_are_the_ones_that_ship(capsys):
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    assert f"```python\n{(PIECES / 'my_pieces.py').read_text(encoding='utf-8')}```" in page
    pieces = ["--import", str(PIECES / "my_pieces.py")]
    files = sorted(map(str, (ROOT / "traces" / "asyncthink").glob("*.txt")))
    assert _run(["run", *files, *pieces, "--policy", "longest-first", "--json"]) == 0
    assert all("organizer_idle" in line for line in capsys.readouterr().out.splitlines()[:-1])
    assert _run(["score", str(ROOT / "traces" / "judged.jsonl"), *pieces, "--reward", "brief", "--json"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["terms"]["brevity"] == pytest.approx(-0.737)


def test_a_study_file_imports_for_itself_and_for_its_processes(here):
    study = load_study("study.toml")
    assert study.imports == ("mine.py",) and study.document()["import"] == ["mine.py"]
    alone = run_study(study)
    Path("mine.py").unlink()  # they were sent its text
    shared = run_study(study, executor=Processes(2))
    assert alone["latency_mean"].tolist() == shared["latency_mean"].tolist()
    assert alone["error"].tolist() == [None, None] == shared["error"].tolist()


def forksim(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "simulator", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )


def test_a_result_folder_runs_nothing_unless_it_is_said(here):
    Path("out").mkdir()
    done = forksim("study", "run", "study.toml", "-o", "out/a")
    assert done.returncode == 0, done.stderr
    shown = forksim("study", "show", "out/a")
    assert shown.returncode == 2
    assert shown.stderr.endswith("the study has code of its own: --import mine.py\n")
    shown = forksim("study", "show", "out/a", "--import", "mine.py")
    assert shown.returncode == 0, shown.stderr
    # The code is an input like any other: changed, it is another study.
    Path("mine.py").write_text(OWN + "\nX = 1\n")
    changed = forksim("study", "run", "study.toml", "-o", "out/a")
    assert changed.returncode == 2 and "mine.py" in changed.stderr


def test_the_option_is_remembered_like_the_line_of_the_file(here):
    (here / "sub").mkdir()
    Path("sub/plain.toml").write_text(STUDY.replace('import = ["mine.py"]\n', ""))
    assert _run(["study", "run", "sub/plain.toml", "-o", "out", "--import", "mine.py"]) == 0
    assert load_results("out").study.imports == (os.path.join("..", "mine.py"),)


def test_a_function_that_is_asked_for_by_name_is_not_sent_to_other_processes(here):
    assert own.load_own("mine.py:Twofold").__name__ == "Twofold"
    assert not own._LOADED and own.with_pieces(abs) is abs
    own.load_pieces("mine.py")
    assert len(own._LOADED) == 1 and own.with_pieces(abs)(-3) == 3


def test_a_file_runs_once_and_has_a_name_of_its_own(here):
    Path("random.py").write_text("RUNS = 0\nRUNS += 1\n")
    module = own.load_pieces("random.py")
    assert own.load_pieces(str(here / "random.py")) is module
    assert module.__name__ != "random" and own.load_own("random.py:RUNS") == 1
    Path("random.py").write_text("RUNS = 7\n")
    assert own.load_own("random.py:RUNS") == 7  # in a notebook: it has changed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n1 / 0\n", r"'bad.py' cannot be imported \(line 2: ZeroDivisionError: division by zero\)"),
        ("x = (\n", r"'bad.py' cannot be imported \(SyntaxError: '\(' was never closed \(bad.py, line 1\)\)"),
        ("import sys\nsys.exit(3)\n", r"'bad.py' cannot be imported \(line 2: SystemExit: 3\)"),
        ("import nowhere\n", r"'bad.py' cannot be imported \(line 1: ModuleNotFoundError: No module named 'nowhere'\)"),
        ("x = '\0'\n", r"'bad.py' cannot be imported \("),
        ("\N{ELECTRIC PLUG}", r"'bad.py' cannot be imported \(SyntaxError"),
    ],
)
def test_what_cannot_be_imported_is_told_in_a_line(here, capsys, text, message):
    Path("bad.py").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        own.load_pieces("bad.py")
    assert not [name for name in sys.modules if name.startswith("bad_")]
    assert _run(["run", "rows.csv", "--import", "bad.py"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("forksim: 'bad.py' cannot be imported") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.py", "No such file or directory"),
        ("folder.py", "it is no plain file"),
        ("nowhere", "ModuleNotFoundError"),
        ("", "ValueError"),
        (".", "cannot be imported"),
    ],
)
def test_what_is_no_program_is_told(here, name, message):
    Path("folder.py").mkdir()
    with pytest.raises(ConfigError, match=message):
        own.load_pieces(name)


@pytest.mark.parametrize("value", ['"mine.py"', "[3]", "{}", "true"])
def test_a_study_says_a_list_of_imports(here, value):
    Path("study.toml").write_text(STUDY.replace('["mine.py"]', value))
    with pytest.raises(ConfigError, match="import must be a list of texts; got"):
        load_study("study.toml")


def test_imports_are_no_axis(here):
    Path("study.toml").write_text(STUDY.replace('"protocol.capacity" = [2, 4]', 'import = ["a", "b"]'))
    with pytest.raises(ConfigError, match="import"):
        load_study("study.toml")


def test_packages_bring_pieces_and_a_broken_one_is_left_out(here, monkeypatch, capsys):
    Path("good_package.py").write_text(
        "from simulator.machine.policy import POLICIES, fcfs\nPOLICIES['polite'] = fcfs\n"
    )
    Path("broken_package.py").write_text("1 / 0\n")
    entries = [EntryPoint(name, f"{name}_package", own.ENTRY_POINTS) for name in ("good", "broken")]
    monkeypatch.setattr(own, "entry_points", lambda group: [each for each in entries if each.group == group])
    trace = str(ROOT / "traces" / "asyncthink" / "countdown.txt")
    assert _run(["run", trace, "--gpu", "rate:50", "--policy", "polite"]) == 0
    assert capsys.readouterr().err == (
        "forksim: the pieces 'broken' are left out: 'broken_package' cannot be imported "
        "(ZeroDivisionError: division by zero)\n"
    )
