"""Files that are whole or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from simulator.errors import ConfigError

__all__ = ["atomic"]


@contextmanager
def atomic(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that appears under `path` only when the block ends well.

    It is written beside its place and then renamed, so a crash or a full disk leaves what was there before. Folders
    that do not exist yet are made.

    Raises
    ------
    ConfigError
        If it cannot be written there.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic(f"{folder}/new/a.txt") as file:
    ...         _ = file.write("whole")
    ...     Path(f"{folder}/new/a.txt").read_text()
    'whole'
    """
    target = os.fspath(path)
    folder = os.path.dirname(target) or "."
    encoding = None if "b" in mode else "utf-8"
    try:
        os.makedirs(folder, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{os.path.basename(target)[:100]}.")
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written ({error.strerror or error})") from None
    try:
        with open(handle, mode, encoding=encoding, newline="" if encoding else None) as file:
            yield file
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files that only their owner can read
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise ConfigError(f"{target}: cannot be written ({error.strerror or error})") from None
        raise
