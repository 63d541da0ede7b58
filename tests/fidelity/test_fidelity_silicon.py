"""Closed-loop runs of a real engine on an H100 against their simulation; docs/validation.md has the whole story.

The measured rows and the operator database are in aiconfigurator-core, which is not installed by default.
"""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simulator.machine.profiles import read_profile

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "validation.md"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def benchmark():
    pytest.importorskip("aiconfigurator_core", reason="needs the extra aiconfigurator: the measured rows are in it")
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield importlib.import_module("fidelity_silicon")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def rows(benchmark):
    return benchmark.measured(benchmark.SCORED)


def bounds(rows, found, *, mean, most, bias, few):
    """Check the errors of the time per output token: mean, largest, mean with sign, and that at 8 users."""
    error = found[:, 1]
    assert abs(error).mean() <= mean
    assert abs(error).max() <= most
    assert abs(error.mean()) <= bias
    assert abs(error[[row.users == 8 for row in rows]].mean()) <= few


def test_the_rows_are_those_of_one_full_grid(rows):
    assert len(rows) == 42 == len({row[:3] for row in rows})
    grid = {(p, o, u) for p in (1024, 2048, 4096) for o in (128, 256, 512) for u in (8, 16, 32, 64, 128)}
    assert {row[:3] for row in rows} == grid - {(4096, output, 128) for output in (128, 256, 512)}


def test_without_a_fitted_constant(benchmark, rows):
    found = benchmark.errors(benchmark.SCORED, rows, 0.0)
    bounds(rows, found, mean=0.03, most=0.08, bias=0.025, few=0.02)
    assert abs(found[:, 0]).mean() <= 0.16  # time to the first token, where one run has waited for nobody
    assert np.median(abs(found[:, 0])) <= 0.11


def test_with_the_host_fitted_to_other_rows(benchmark, rows):
    for key in (lambda row: row.prompt, lambda row: row.users):
        found, overheads = benchmark.held_out(benchmark.SCORED, rows, key)
        bounds(rows, found, mean=0.03, most=0.08, bias=0.01, few=0.02)
        assert all(1e-4 < overhead < 4e-4 for overhead in overheads)


def test_the_profile_says_how_far_it_is_off(benchmark, rows, monkeypatch):
    profile = read_profile("h100-llama3.1-8b-engine")
    monkeypatch.setattr(benchmark, "AIConfigurator", lambda *_, **__: profile.gpu.cost)
    bounds(rows, benchmark.errors(benchmark.SCORED, rows, 0.0), mean=profile.mean_error, most=0.08, bias=0.01, few=0.02)


def test_two_gpus_need_half_a_millisecond(benchmark):
    rows = benchmark.measured(benchmark.TWO)
    assert len(rows) == 45
    overhead = benchmark.fit(benchmark.TWO, rows)
    assert 4e-4 < overhead < 6e-4
    bounds(rows, benchmark.errors(benchmark.TWO, rows, overhead), mean=0.025, most=0.12, bias=0.01, few=0.025)


def test_waiting_for_a_place_is_what_explains_the_first_token(benchmark, rows):
    """With a place for everybody it would come twice as early as it does."""
    full = replace(
        benchmark.SCORED, engine=lambda p, users: benchmark.SCORED.engine(p, users) | {"max_num_seqs": users}
    )
    assert benchmark.errors(full, rows, 0.0)[:, 0].mean() < -0.5


def test_the_page_has_what_the_benchmark_prints(benchmark, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fidelity_silicon.py", str(tmp_path / "picture.png")])
    benchmark.main()
    page = PAGE.read_text(encoding="utf-8").splitlines()
    runs, *tables = [part for part in capsys.readouterr().out.split("\n\n") if part.startswith("|")]
    assert runs.count("\n") == 43  # and not on the page: they are not ours
    assert len(tables) == 5
    for table in tables[:3]:
        assert not {*table.strip().splitlines()[2:]} - {*page}
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_the_page_on_cost_models_has_what_its_script_prints(benchmark, capsys):
    importlib.import_module("check_steps").main()
    assert capsys.readouterr().out.strip() in (ROOT / "docs" / "machine.md").read_text(encoding="utf-8")
