"""What the documentation says is so. Its `>>>` blocks are collected by pytest itself, as doctests; the rest is here."""

import inspect
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

import simulator
from simulator.fidelity import LAWS
from simulator.formats import FORMATS, LOGS
from simulator.machine import profiles
from simulator.machine.cost import COSTS
from simulator.machine.policy import POLICIES
from simulator.machine.routing import ROUTINGS
from simulator.metrics import METRICS, SUMMARIES
from simulator.rewards import REWARDS, TERMS
from simulator.trace import Answer, Delay, Fork, Join, Outcome, Return, Think, Thread, Trace, Violation, ViolationKind
from simulator.trace.full_pool import WHEN_FULL
from simulator.trace.protocol import FORMAT_ERRORS
from simulator.trace.tokens import COUNTERS
from simulator.workload import FAMILIES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "traces" / "README.md", *sorted(ROOT.glob("docs/*.md"))]
DOCTESTED = [page for page in PAGES if page == ROOT / "README.md" or page.parent.name == "docs"]

TO_BE_WRITTEN = {  # by readers of docs/extending.md
    "simulator/formats/NAME.py",
    "simulator/formats/logs/NAME.py",
    "simulator/machine/profiles/NAME.toml",
}

PIECES = [path.read_text(encoding="utf-8") for path in ROOT.glob("examples/pieces/*.py")]

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def rows(page, title):
    """Return the cells of the table whose first column is called `title`."""
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {title} |"))
    table = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return table
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


def ticked(text):
    return re.findall(r"`([^`]+)`", text)


# ---------------------------------------------------------------- nothing on a page goes unrun


@pytest.mark.parametrize("page", DOCTESTED, ids=lambda page: page.name)
def test_python_blocks_are_doctests(page):
    for block in blocks(page, "python"):
        if block in PIECES:
            continue  # tests/project/test_own_pieces.py runs it
        assert block.startswith(">>> "), block
        assert block.endswith("\n\n"), "doctest takes what follows for output: leave a blank line at the end"
    assert not blocks(page, "py") and not blocks(page, "pycon")


def shell(block):
    return re.findall(r"^(?:\.venv/bin/)?(forksim .*)$", block, re.MULTILINE)


def printed(block):
    return re.findall(r"^\$ (forksim .*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)


WITH_FOLDERS = "forksim study"  # one needs what another left: see below


def commands():
    for page in PAGES:
        for block in blocks(page, "console"):
            for command, output in printed(block):
                if command.startswith(WITH_FOLDERS):
                    continue
                yield pytest.param(command, output, id=f"{page.name}: {command}")
        for block in blocks(page, "sh"):
            for command in shell(block):
                if command.startswith(WITH_FOLDERS):
                    continue
                yield pytest.param(command, None, id=f"{page.name}: {command}")


@pytest.mark.parametrize(("command", "output"), list(commands()))
def test_commands_do_what_is_printed(command, output):
    words = [
        word
        for pattern in shlex.split(command, comments=True)[1:]
        for word in (
            sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern)) if "*" in pattern else [pattern]
        )
    ]
    result = subprocess.run(
        [sys.executable, "-m", "simulator", *words], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=120
    )
    assert result.stderr == ""
    assert result.returncode == int(words[0] == "check")  # they all check traces with violations
    if output is not None:
        assert result.stdout == output


def in_turn():
    for page in PAGES:
        with_output = [printed(block) for block in blocks(page, "console")]
        without = [[(command, None) for command in shell(block)] for block in blocks(page, "sh")]
        for number, block in enumerate(without + with_output):
            found = [(command, output) for command, output in block if command.startswith(WITH_FOLDERS)]
            if found:
                yield pytest.param(found, id=f"{page.name}-{number}")


@pytest.mark.slow
@pytest.mark.parametrize("block", list(in_turn()))
def test_commands_that_leave_results_run_in_turn(block, tmp_path):
    for name in ("studies", "traces", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    for command, output in block:
        words = shlex.split(command, comments=True)[1:]
        result = subprocess.run(
            [sys.executable, "-m", "simulator", *words],
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
            timeout=600,
        )
        assert result.returncode == 0, result.stderr
        assert result.stdout == output if output is not None else result.stdout


# ---------------------------------------------------------------- what it points at is there


@each_page
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)]*))?\)", text):
        to = page.parent / target if target else page
        assert to.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", to.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}


@each_page
def test_names_exist(page):
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for name in re.findall(r"`([^`\n]+)`", prose):
        if re.fullmatch(r"simulator(\.\w+)+(\(.*\))?", name):
            pkgutil.resolve_name(name.partition("(")[0])
        elif re.match(r"(?:docs|tests|tools|traces|examples|benchmarks|simulator|notebooks)/", name):
            assert name in TO_BE_WRITTEN or list(ROOT.glob(name)), name


# ---------------------------------------------------------------- tables


def test_every_kind_of_violation_is_explained():
    table = rows("formats.md", "kind")
    assert [kind.strip("`") for kind, *_ in table] == [kind.value for kind in ViolationKind]
    assert {ViolationKind(kind.strip("`")) for kind, *_, error in table if error == "yes"} == FORMAT_ERRORS


def test_every_field_of_the_native_format_is_explained():
    actions = {"think": Think, "fork": Fork, "join": Join, "return": Return, "answer": Answer, "delay": Delay}
    structs = {"trace": Trace, "thread": Thread, "outcome": Outcome, "fault": Violation, **actions}
    there = {
        (name, field.name): field.required
        for name, struct in structs.items()
        for field in msgspec.structs.fields(struct)
    }
    there |= {("trace", "schema"): True} | {(name, "do"): True for name in actions}
    said = {}
    for where, fields, _, default in rows("formats.md", "in"):
        for name in actions if where == "action" else where.split(", "):
            for field in ticked(fields):
                assert (name, field) not in said
                said[name, field] = default == "must be there"
    assert said == there


def test_formats_are_listed_in_order_of_detection():
    assert [name.strip("`") for name, *_ in rows("formats.md", "format")] == list(FORMATS)
    logs = {name.strip("`"): written == "yes" for name, *_, written in rows("formats.md", "log")}
    assert list(logs) == list(LOGS)
    assert logs == {name: log.write is not None for name, log in LOGS.items()}


def test_every_counter_is_explained():
    said = {ticked(counter)[0] for counter, *_ in rows("formats.md", "counter") if "`" in counter}
    assert {counter.__name__ for counter in COUNTERS.values()} <= said


def test_every_registry_is_in_the_table_of_extensions():
    registries = [pkgutil.resolve_name(name) for row in rows("extending.md", "to add") for name in ticked(row[2])]
    assert registries == [
        FORMATS,
        LOGS,
        COSTS,
        LAWS,
        profiles,
        POLICIES,
        ROUTINGS,
        WHEN_FULL,
        METRICS,
        SUMMARIES,
        TERMS,
        REWARDS,
        COUNTERS,
        FAMILIES,
    ]


@pytest.mark.parametrize(("title", "registry"), [("reward", REWARDS), ("term", TERMS)])
def test_every_reward_and_term_is_in_its_table_with_all_its_options(title, registry):
    table = {ticked(row[0])[0]: ticked(row[2]) for row in rows("rewards.md", title)}
    assert table == {
        name: [each.name for each in inspect.signature(function).parameters.values() if each.kind is each.KEYWORD_ONLY]
        for name, function in registry.items()
    }


def test_the_reward_file_on_the_page_is_the_one_that_ships():
    [block] = blocks(ROOT / "docs" / "rewards.md", "toml")
    assert block == (ROOT / "examples" / "reward.toml").read_text(encoding="utf-8")


def test_every_module_has_its_floor():
    said = [ticked(row[1]) for row in rows("design.md", "floor")]
    names = sorted(name for floor in said for name in floor)
    assert names == sorted(module.name for module in pkgutil.iter_modules(simulator.__path__))
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = {contract["id"]: contract for contract in configuration["tool"]["importlinter"]["contracts"]}
    assert [set(floor) for floor in said] == [set(layer.split(" | ")) for layer in contracts["floors"]["layers"]]
