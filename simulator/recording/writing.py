"""Files of a recording: each line is on the disk as soon as there is one."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import msgspec

from simulator.errors import ConfigError

STEP_COLUMNS = (
    "run",
    "start",
    "seconds",
    "wall",
    "cpu",
    "decodes",
    "decode_context",
    "prefill_tokens",
    "prefill_context",
    "kv_tokens",
)


class Lines:
    """A file that grows by whole lines, each written through at once. Of a line that cannot be written nothing is left.

    Parameters
    ----------
    path : str
        What is there already is kept, and refused unless `append`.
    append : bool

    Raises
    ------
    ConfigError
        If it cannot be written, or would be overwritten.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with Lines(f"{folder}/new/a.jsonl") as lines:
    ...         lines.write("whole")
    ...     print(Path(f"{folder}/new/a.jsonl").read_text(), end="")
    whole
    """

    def __init__(self, path: str, *, append: bool = False) -> None:
        self.path = path
        try:
            there = os.path.isfile(path) and os.path.getsize(path) > 0
            if there and not append:
                raise ConfigError(f"{path!r} holds a recording already; --append adds to it")
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            self._file: Any = open(path, "ab", buffering=0)  # noqa: SIM115  # closed on exit
        except OSError as error:
            raise self._refusal(error) from None
        self.fresh = not there
        self.size = os.path.getsize(path) if there else 0
        if there and not _ends_a_line(path):  # what was killed in the middle of a line
            self._add(b"\n")

    def write(self, line: str) -> None:
        """Add a line."""
        self._add((line + "\n").encode(errors="backslashreplace"))

    def _add(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            with suppress(OSError):  # of a pipe or a device
                self._file.truncate(self.size)
            raise self._refusal(error) from None
        self.size += len(data)

    def _refusal(self, error: OSError) -> ConfigError:
        return ConfigError(f"{self.path!r}: cannot be written ({error.strerror or error})")

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        """Close it; a new file that nothing was written to is not left behind."""
        with suppress(OSError):  # what could not be written has been told
            self._file.close()
            if self.fresh and os.path.isfile(self.path) and not os.path.getsize(self.path):
                os.unlink(self.path)


def _ends_a_line(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
    except OSError:
        return True


class StepLines:
    """Engine steps as rows: CSV where the name of the file ends in .csv, else JSON lines."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self.csv = lines.path.lower().endswith(".csv")
        self.run = "run"
        if self.csv and lines.fresh:
            lines.write(",".join(STEP_COLUMNS))

    def add(self, step: Any) -> None:
        """Write a `simulator.recording.llamacpp.Step` of the run."""
        values = (self.run, *(getattr(step, name) for name in STEP_COLUMNS[1:]))
        if self.csv:
            name = f'"{self.run}"'.replace("\n", " ") if set(self.run) & set(',"\n') else self.run
            self.lines.write(",".join((name, *(f"{value:.6f}".rstrip("0").rstrip(".") for value in values[1:]))))
        else:
            self.lines.write(msgspec.json.encode(dict(zip(STEP_COLUMNS, values, strict=True))).decode())


def burst_row(run: str, trace: str, thread: str, generation: Any) -> str:
    """Return a generation as a JSON line: when it began, and when how many tokens came.

    >>> from simulator.recording.engine import Generate
    >>> from simulator.recording.generation import Generation
    >>> generation = Generation(Generate(3, True))
    >>> generation.began = 0.5
    >>> generation.add(0.75, "a", 1)
    >>> burst_row("run", "q", "1", generation)
    '{"run":"run","trace":"q","thread":"1","start":0.5,"at":[0.75],"tokens":[1]}'
    """
    row = {
        "run": run,
        "trace": trace,
        "thread": thread,
        "start": generation.began,
        "at": generation.times,
        "tokens": generation.per_burst(),
    }
    return msgspec.json.encode(row).decode()
