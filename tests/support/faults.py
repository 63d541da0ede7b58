"""Fault injection: of all that is done to files that are written whole, one operation fails."""

from __future__ import annotations

import builtins
import os
from typing import Any

import pytest


class Faults:
    """Counts operations on files of `simulator.support.files.atomic` and of recordings, and lets one of them fail.

    `count` is how many there were. Number `fails`, from 1, raises OSError with the number `error`; a write that fails
    has written half of its content before (a torn write).
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: int = 0, error: int = 0) -> None:
        self.fails, self.error = fails, error
        self.count = 0
        self.done: list[str] = []
        module = "simulator.support.files"
        monkeypatch.setattr(f"{module}.open", self._open, raising=False)
        monkeypatch.setattr("simulator.recording.writing.open", self._open, raising=False)
        for name in ("replace", "chmod", "makedirs"):
            monkeypatch.setattr(f"{module}.os.{name}", self._before(name, getattr(os, name)))
        import tempfile

        monkeypatch.setattr(f"{module}.tempfile.mkstemp", self._before("mkstemp", tempfile.mkstemp))

    def now(self, name: str) -> bool:
        """Count an operation, and return whether it is the one that fails."""
        self.count += 1
        self.done.append(name)
        return self.count == self.fails

    def raised(self) -> OSError:
        return OSError(self.error, os.strerror(self.error))

    def _before(self, name: str, function: Any) -> Any:
        def faulty(*given: Any, **named: Any) -> Any:
            if self.now(name):
                raise self.raised()
            return function(*given, **named)

        return faulty

    def _open(self, *given: Any, **named: Any) -> Any:
        if self.now("open"):
            if isinstance(given[0], int):
                os.close(given[0])
            raise self.raised()
        return _File(builtins.open(*given, **named), self)


class _File:
    def __init__(self, file: Any, faults: Faults) -> None:
        self.file, self.faults = file, faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> _File:
        self.file.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.file.__exit__(*error)
        if error[0] is None and self.faults.now("close"):
            raise self.faults.raised()

    def write(self, content: Any) -> int:
        if self.faults.now("write"):
            self.file.write(content[: len(content) // 2])
            raise self.faults.raised()
        written: int = self.file.write(content)
        return written

    def flush(self) -> None:
        if self.faults.now("flush"):
            raise self.faults.raised()
        self.file.flush()
