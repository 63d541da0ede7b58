"""The notebooks run from top to bottom, and print what is committed with them.

`jupyter execute --inplace notebooks/*.ipynb` accepts a change.
"""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def printed(notebook):
    """Return what each cell wrote to stdout or stderr, and how many pictures it drew."""
    return [
        (
            "".join(output["text"] for output in cell.outputs if output.output_type == "stream"),
            sum("image/png" in output.get("data", {}) for output in cell.outputs),
        )
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_there_is_one():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_prints_what_is_committed(path, tmp_path, monkeypatch):
    shutil.copytree(ROOT / "traces", tmp_path / "traces")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    committed = printed(notebook)
    resources = {"metadata": {"path": str(tmp_path / "notebooks")}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    assert printed(notebook) == committed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_small_and_clean(path):
    assert path.stat().st_size < 300_000
    for cell in nbformat.read(path, as_version=4).cells:
        assert cell.source.strip()
        if cell.cell_type == "code":
            assert not any(output.output_type == "error" for output in cell.outputs)
