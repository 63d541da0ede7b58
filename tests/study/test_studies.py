"""The studies that ship, with fewer queries, points and replications: they run, and their pictures can be drawn."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from simulator.cli import _run
from simulator.study import Window, load_study, run_in_folder, run_study

ROOT = Path(__file__).parents[2]
FILES = sorted(ROOT.glob("studies/*.toml"))
PICTURES = runpy.run_path(str(ROOT / "docs" / "images" / "draw_studies.py"))["PICTURES"]
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def small(study):
    """The same study, with the first and the last value of each axis."""
    ends = {name: (values[0], values[-1]) for name, values in study.axes.items()}
    samples = min(study.samples, 2)
    return study.with_(queries=12, samples=samples, replications=2, window=Window(), axes=ends)


@pytest.fixture(scope="module")
def tables():
    return {path.stem: run_study(small(load_study(path))) for path in FILES}


@each_file
def test_every_run_ends_well(path, tables):
    table = tables[path.stem]
    assert len(table) == 8 and set(table["error"].tolist()) == {None}
    study = load_study(path)
    compared = table.compare(study.baseline)  # its point is there
    for metric in table.metrics:
        assert np.isfinite(table[metric]).all(), metric
        assert (compared[metric] == 0).any(), metric


def test_the_knee_lies_between_its_bounds(tables):
    table = tables["capacity_knee"]
    assert (table["lower_bound_mean"] <= table["latency_mean"]).all()
    assert (table["latency_mean"] <= table["upper_bound_mean"]).all()


@pytest.mark.parametrize("picture", PICTURES)
def test_the_shipped_pictures_are_those_of_the_studies(picture, tables):
    study, draw = PICTURES[picture]
    draw(tables[study]).figure.draw_without_rendering()
    shipped = ROOT / "docs" / "images" / f"{picture}.png"
    assert shipped.stat().st_size < 200_000
    assert {path.stem for path in shipped.parent.glob("study_*.png")} == set(PICTURES)


@each_file
def test_what_a_file_says_to_run_runs(path, tables, tmp_path, monkeypatch, capsys):
    """The commands in its comment, on the small study's results."""
    lines = re.findall(r"^#     forksim (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert lines[0] == f"study run studies/{path.name}"
    monkeypatch.chdir(tmp_path)
    run_in_folder(small(load_study(path)), f"results/{path.stem}", parquet=False)
    for line in lines[1:]:
        assert _run(line.split()) == 0
        assert capsys.readouterr().out == f"wrote {line.split()[-1]}\n"
        assert (tmp_path / line.split()[-1]).stat().st_size > 10_000
