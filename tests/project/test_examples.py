"""Each example prints exactly what stands beside it. `python examples/x.py > examples/x.out` accepts a change."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_every_example_has_its_output():
    assert EXAMPLES
    assert [path.stem for path in EXAMPLES] == sorted(path.stem for path in (ROOT / "examples").glob("*.out"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_prints_its_output(example, tmp_path):
    result = subprocess.run(
        [sys.executable, "-W", "error", example],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert result.stderr == ""
    assert result.returncode == 0
    assert result.stdout == example.with_suffix(".out").read_text(encoding="utf-8")
