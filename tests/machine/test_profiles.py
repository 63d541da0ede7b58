"""The GPU profiles: what ships is whole and agrees with its sources; what is broken is told in one line."""

import json
import math
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from simulator import GPU, STEP_CLOCK, ConfigError, LinearBatch
from simulator.cli import _run
from simulator.machine.cost import MeasuredTable, Roofline
from simulator.machine.profiles import KINDS, gpu_from_text, load_profile, profiles, read_profile
from simulator.machine.profiles.reading import parse_profile

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "simulator" / "machine" / "profiles"
GPUS = ("a100", "h100", "h200", "b200", "l40s")
MODELS = tomllib.loads((FOLDER / "models.toml").read_text(encoding="utf-8"))
ON_CPUS = [name for name in profiles() if name.startswith("cpu-")]
each_profile = pytest.mark.parametrize("name", [name for name in profiles() if name not in ON_CPUS])


def forksim(*words):
    return subprocess.run(
        [sys.executable, "-m", "simulator", *words], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=60
    )


# ---------------------------------------------------------------- what ships


def test_what_must_be_there():
    there = set(profiles())
    for gpu in GPUS:
        assert {f"{gpu}-{model}-roofline" for model in ("qwen3-4b", "qwen3-8b", "llama3.1-8b")} <= there
        assert {f"{gpu}x{count}-llama3.1-70b-roofline" for count in (4, 8)} <= there
        assert f"{gpu}-qwen3-32b-roofline" in there or f"{gpu}x2-qwen3-32b-roofline" in there
    assert {"h100-qwen3-8b", "h100-llama3.1-8b", "h100x2-qwen3-32b"} <= there  # the names of old


@each_profile
def test_a_profile_is_whole(name):
    profile = read_profile(name)
    gpu = profile.gpu
    assert profile.name == gpu.name == name and load_profile(name) is gpu
    assert profile.kind in KINDS and len(profile.source) > 20 and profile.date >= "2026" and profile.measured
    if profile.kind in ("fitted", "database"):
        assert 0 < profile.mean_error < profile.max_error < 0.5
    assert (gpu.max_num_seqs, gpu.max_num_batched_tokens, gpu.block_size) == (256, 8192, 16)
    assert profile.kv_tokens == 16 * gpu.num_kv_blocks
    used = profile.kv_tokens * profile.kv_bytes_per_token
    assert 0 < used < 0.9 * profile.memory
    assert profile.concurrency(2048) >= 4 * profile.concurrency(8192) >= 4
    assert 1e-4 < gpu.cost.step_seconds(1, 2048) < gpu.cost.step_seconds(64, 64 * 2048) < 1


@pytest.mark.parametrize("name", ON_CPUS)
def test_a_profile_of_a_cpu_is_whole(name):
    profile = read_profile(name)
    gpu, cost = profile.gpu, profile.gpu.cost
    assert profile.kind == "measured" and "llama.cpp" in profile.source and "held-out" in profile.measured
    assert 0 < profile.mean_error < 0.1 and profile.max_error < 0.3
    assert (gpu.max_prefill_tokens, gpu.max_num_batched_tokens) == (128, cost.tokens[-1])
    assert cost.c and cost.q and cost.r and cost.extrapolate is None
    assert cost.step_seconds(2, 400) > 2 * cost.step_seconds(1, 200)  # what a tile costs


@each_profile
def test_nothing_is_faster_than_the_datasheet(name):
    profile = read_profile(name)
    plain = re.sub("-(database|engine|roofline)$", "", name)
    bound = load_profile(f"{plain}-roofline").cost
    for n in (1, 8, 64, 256):
        for each in (256, 2048, 8192):
            assert profile.gpu.cost.step_seconds(n, n * each) >= bound.step_seconds(n, n * each)


@pytest.mark.parametrize(
    ("model", "parameters", "kv"),
    [  # as the model cards have them
        ("qwen3-4b", 4.02e9, 147456),
        ("qwen3-8b", 8.19e9, 147456),
        ("qwen3-32b", 32.76e9, 262144),
        ("llama3.1-8b", 8.03e9, 131072),
        ("llama3.1-70b", 70.55e9, 327680),
    ],
)
def test_shapes_have_the_parameters_that_are_published(model, parameters, kv):
    shape = next(p.cost.model for p in map(load_profile, profiles()) if p.name.endswith(f"{model}-roofline"))
    assert shape.parameters == pytest.approx(parameters, rel=2e-3)
    assert shape.kv_bytes_per_token == kv


def test_the_table_agrees_with_numbers_looked_up_apart():
    cost = load_profile("h100-qwen3-8b-database").cost
    assert isinstance(cost, MeasuredTable)
    data = tomllib.loads((ROOT / "benchmarks" / "step_times.toml").read_text(encoding="utf-8"))
    grid = data["grid"][0]
    for n, row in grid["decode"].items():
        for context, ms in zip(grid["contexts"], row, strict=True):
            assert 1000 * cost.step_seconds(int(n), int(n) * context) == pytest.approx(ms, rel=0.01)
    for tokens, cached, ms in grid["prefill"]:
        attended = tokens * cached + tokens * (tokens + 1) // 2
        assert 1000 * cost.step_seconds(0, 0, tokens, attended) == pytest.approx(ms, rel=0.03)


def test_the_page_prints_what_the_script_prints():
    script = [sys.executable, "benchmarks/check_roofline.py"]
    printed = subprocess.run(
        script, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, encoding="utf-8", check=True, timeout=60
    ).stdout
    page = (ROOT / "docs" / "machine.md").read_text(encoding="utf-8")
    shown = [table for table in printed.strip().split("\n\n") if table.splitlines()[0] in page]
    assert shown and all(table in page for table in shown)


# ---------------------------------------------------------------- names and files


def test_nearest_names_are_offered():
    with pytest.raises(ConfigError, match=r"'h100-qwen3-8'; did you mean h100-qwen3-8b, .*\? `forksim gpus` lists all"):
        load_profile("h100-qwen3-8")
    with pytest.raises(ConfigError, match=r"'Llama'; did you mean a100-llama3.1-8b-roofline, b200-llama"):
        load_profile("Llama")
    with pytest.raises(ConfigError, match=r"'H100-Qwen3-8B'; did you mean h100-qwen3-8b, "):
        load_profile("H100-Qwen3-8B")
    with pytest.raises(ConfigError, match=r"'qqqq'; `forksim gpus` lists all; accepted besides: steps, .*rate:"):
        gpu_from_text("qqqq")
    result = forksim("run", "traces/synthetic.jsonl", "--gpu", "h10-qwen3-8b")
    assert result.returncode == 2 and result.stderr.count("\n") == 1 and "did you mean h100-qwen3-8b" in result.stderr


def test_what_the_command_line_names():
    assert gpu_from_text("steps") is STEP_CLOCK
    assert gpu_from_text("linear:1e-3").cost == LinearBatch(1e-3)
    assert gpu_from_text("h100-qwen3-8b").cost == LinearBatch(6.564e-3, 1.226e-5, 4.661e-8)
    assert isinstance(gpu_from_text("b200-qwen3-4b-roofline").cost, Roofline)


PROVENANCE = 'provenance = {kind = "measured", source = "s", date = 2026-11-22}\n'
LINEAR = 'cost = {type = "linear", a = 0.02}\n'


def test_a_profile_of_ones_own(tmp_path):
    file = tmp_path / "mine.toml"
    engine = "engine = {max_num_seqs = 4, max_num_batched_tokens = 64, num_kv_blocks = 100, block_size = 32}\n"
    file.write_text(PROVENANCE + LINEAR + engine)
    profile = read_profile(file)
    expected = GPU(
        cost=LinearBatch(0.02),
        max_num_seqs=4,
        max_num_batched_tokens=64,
        num_kv_blocks=100,
        block_size=32,
        name="mine",
    )
    assert profile.gpu == expected == gpu_from_text(str(file))
    assert (profile.memory, profile.kv_bytes_per_token, profile.kv_tokens) == (None, None, 3200)
    assert profile.concurrency(33) == 50
    file.write_text(PROVENANCE + LINEAR)
    assert read_profile(file).concurrency(10) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = ", "not TOML"),
        (PROVENANCE, r"\[cost\] type must be one of rate, linear, table, split, roofline, aiconfigurator; got None"),
        (LINEAR, r"\[provenance\] must say kind"),
        (PROVENANCE + LINEAR + "speed = 3", "the file has no key 'speed'"),
        (PROVENANCE + 'cost = {type = "linear", a = 0.02, z = 1}', r"\[cost\] has no key 'z'; accepted: type, a, b"),
        (PROVENANCE + 'cost = {type = "linear"}', r"\[cost\] of type linear: missing 1 required .* 'a'"),
        (PROVENANCE + 'cost = {type = "linear", a = nan}', "a must be a number from 0 to 10.9, got nan"),
        (PROVENANCE + 'cost = {type = "linear", a = -1}', "a must be a number"),
        (PROVENANCE + 'cost = {type = "linear", a = "1"}', "a must be a number"),
        (PROVENANCE + 'cost = {type = "roofline"}', "a roofline needs hardware and model"),
        (PROVENANCE + "cost = 3", "cost must be a table"),
        (
            PROVENANCE
            + 'cost = {type = "table", sequences = [1, 2], contexts = [0, 1], seconds = [[1.0, 1.0], [1.0]]}',
            "rows",
        ),
        (PROVENANCE + LINEAR + 'hardware = "h1000"', "no hardware is called 'h1000'; accepted: a100, h100"),
        (PROVENANCE + LINEAR + "model = 5", "no model is called 5"),
        (PROVENANCE + LINEAR + "tensor_parallel = 0", "tensor_parallel must be a whole number"),
        (PROVENANCE + LINEAR + 'hardware = "h100"\nmodel = "llama3.1-70b"', "leave no room for a KV cache on 1 h100"),
        (PROVENANCE + LINEAR + "engine = {num_kv_blocks = 0}", "num_kv_blocks must be a whole number from 1"),
        (PROVENANCE + LINEAR + "engine = {block_size = 0}", "block_size must be a whole number"),
        (PROVENANCE + LINEAR + "engine = {max_num_seqs = 9000}", "max_num_batched_tokens .* must be at least"),
        (PROVENANCE + LINEAR + "engine = {max_seqs = 9}", r"\[engine\] has no key 'max_seqs'"),
        (PROVENANCE.replace("measured", "guessed") + LINEAR, "kind must be one of datasheet"),
        (PROVENANCE.replace("2026-11-22", '"soon"') + LINEAR, "date must be a date"),
        (PROVENANCE.replace("}", ", mean_error = -0.1}") + LINEAR, "mean_error must be a number from 0"),
        (
            PROVENANCE + 'hardware = "h100"\nmodel = "qwen3-8b"\nengine = {block_size = 0}\n' + LINEAR,
            "block_size must be a whole number",
        ),
    ],
)
def test_a_broken_file(text, message):
    with pytest.raises(ConfigError, match=f"^profile mine: .*{message}") as raised:
        parse_profile(text, "mine")
    assert "\n" not in str(raised.value)


GRID = "sequences = [1, 2], contexts = [0, 100]"
PROMPTS = "prefill_tokens = [1, 9], prefill_cached = [0, 9]"
ROOFLINE = 'hardware = "h100"\nmodel = "qwen3-8b"\n'


def table_of(cells):
    return f'cost = {{type = "table", {GRID}, seconds = {cells}}}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (table_of("[[0.1, 0.1], [0.1]]"), "a hole: seconds must be 2 rows of 2, got rows of [2, 1]"),
        (table_of("[[0.1, 0.1]]"), "a hole: seconds must be 2 rows of 2, got rows of [2]"),
        (table_of("[]"), "a hole: seconds must be 2 rows of 2, got rows of []"),
        (table_of("0.1"), "seconds must be rows of numbers, got 0.1"),
        (table_of("[[0.1, nan], [0.1, 0.1]]"), "seconds at (1, 100) must be above 0 and at most 3600, got nan"),
        (table_of("[[0.1, 0.1], [-0.1, 0.1]]"), "seconds at (2, 0) must be above 0 and at most 3600, got -0.1"),
        (table_of("[[0.0, 0.1], [0.1, 0.1]]"), "seconds at (1, 0) must be above 0 and at most 3600, got 0.0"),
        (table_of("[[0.1, 0.1], [0.1, inf]]"), "seconds at (2, 100) must be above 0 and at most 3600, got inf"),
        (table_of('[[0.1, "x"], [0.1, 0.1]]'), "seconds at (1, 100) must be above 0 and at most 3600, got 'x'"),
        (
            f'cost = {{type = "table", {GRID}, seconds = [[1, 1], [1, 1]], {PROMPTS}, prefill_seconds = [[1, 1]]}}',
            "a hole: prefill_seconds must be 2 rows of 2, got rows of [2]",
        ),
        ('cost = {type = "table", sequences = [2, 1], contexts = [0, 1], seconds = []}', "increasing; got (2, 1)"),
        (
            'cost = {type = ["table"]}',
            "type must be one of rate, linear, table, split, roofline, aiconfigurator; got ['table']",
        ),
        ('cost = {type = "linear", a = 1e300}', "a must be a number from 0 to 10^9, got 1e+300"),
        ('cost = {type = "linear", a = 1, overhead = nan}', "overhead must be a number from 0 to 10^9, got nan"),
        ('cost = {type = "rate", tokens_per_second = 0}', "tokens_per_second must be above 0, got 0"),
        (f'{ROOFLINE}cost = {{type = "roofline", alpha = 0}}', "alpha must be a number from 0.001 to 1, got 0"),
        (f'{ROOFLINE}cost = {{type = "roofline", beta = nan}}', "beta must be a number from 0.001 to 1, got nan"),
        (f'{ROOFLINE}tensor_parallel = 1000\ncost = {{type = "roofline"}}', "(1000) must divide the 32 heads"),
        (LINEAR + "engine = {max_num_seqs = nan}", "max_num_seqs must be a whole number from 1"),
        (LINEAR + "engine = 'fast'", "engine must be a table: [engine]"),
        (LINEAR.replace("0.02", "true"), "a must be a number from 0 to 10^9, got True"),
    ],
)
def test_the_command_line_tells_it_in_one_line(tmp_path, capsys, text, message):
    file = tmp_path / "mine.toml"
    file.write_text(text.replace("cost =", PROVENANCE + "cost =", 1))
    code = _run(["run", str(ROOT / "traces" / "synthetic.jsonl"), "--gpu", str(file)])
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"forksim: profile {file}: ") and message in err


@pytest.mark.parametrize("source", ["5", '""', '" "'])
def test_a_source_is_words(source):
    with pytest.raises(ConfigError, match="source must say where the numbers come from; got"):
        parse_profile(PROVENANCE.replace('"s"', source) + LINEAR, "mine")


def test_a_file_that_is_not_there(tmp_path):
    for path in (tmp_path / "no.toml", tmp_path):
        with pytest.raises(ConfigError, match=r"cannot be read|no GPU profile"):
            read_profile(path)
    (tmp_path / "x.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_profile(tmp_path / "x.toml")


@pytest.mark.parametrize("field", ["num_kv_blocks", "block_size"])
@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "4", math.nan])
def test_fields_of_the_cache_are_checked(field, bad):
    with pytest.raises(ConfigError, match=f"{field} must be a whole number"):
        GPU(**{field: bad})


# ---------------------------------------------------------------- forksim gpus


def test_the_command_lists_them_all():
    table = forksim("gpus")
    assert table.returncode == 0 and not table.stderr
    listed = [line.split()[0] for line in table.stdout.splitlines() if line.startswith(" ") and len(line.split()) > 8]
    assert set(profiles()) <= set(listed)
    assert max(map(len, table.stdout.splitlines())) <= 120
    records = [json.loads(line) for line in forksim("gpus", "--json").stdout.splitlines()]
    assert [record["profile"] for record in records] == list(profiles())
    record = next(record for record in records if record["profile"] == "h100-llama3.1-8b")
    assert record["concurrency"] == {"2048": 208, "8192": 52}
    assert record["step_seconds"]["64"] == pytest.approx(6.625e-3 + 64 * 7.38e-6 + 64 * 2048 * 4.295e-8)
    assert record["prompt_seconds"] is None and record["kind"] == "fitted" and record["mean_error"] == 0.016
    assert (record["tensor_parallel"], record["memory_bytes"]) == (1, 80e9)


def test_no_name_is_cut_on_a_narrow_terminal(monkeypatch, capsys):
    monkeypatch.setattr("simulator.cli.gpus.screen_width", lambda: 80)
    monkeypatch.setattr("simulator.cli.common.screen_width", lambda: 80)
    assert _run(["gpus"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and not any("…" in line for line in lines)
    cells = {line.split()[0]: line.split()[1:] for line in lines if line.startswith(" ") and len(line.split()) > 7}
    assert cells.pop("profile") == ["TP", "GB", "2k", "b=1", "b=8", "b=64", "prompt", "±", "%"]
    assert list(cells) == list(profiles())
    assert cells["h100x2-llama3.1-8b"] == ["2", "160", "476", "4.17", "4.52", "7.34", "-", "2.1"]
