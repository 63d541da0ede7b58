"""The import-linter contract and the size of files, as tests: `make test` alone keeps the architecture."""

from pathlib import Path

import pytest

importlinter = pytest.importorskip("importlinter.cli")
ROOT = Path(__file__).parents[2]


def test_imports_go_down_only(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    status = importlinter.lint_imports(no_cache=True)
    assert status == 0, capsys.readouterr().out


@pytest.mark.parametrize("path", sorted((ROOT / "simulator").rglob("*.py")), ids=lambda path: path.name)
def test_a_file_is_a_noun(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
