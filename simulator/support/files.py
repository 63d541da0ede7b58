"""Files that are whole or not there."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from simulator.errors import ConfigError


@contextmanager
def atomic(path: str | os.PathLike[str], mode: str = "w", *, durable: bool = False) -> Iterator[IO[Any]]:
    """Open a file that appears under `path` only when the block ends well.

    It is written beside its place and then renamed, so a crash or a full disk leaves what was there before. Folders
    that do not exist yet are made. Devices and pipes are written directly. A `durable` file is on the disk when the
    block ends: it outlives the machine.

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
    encoding, errors = (None, None) if "b" in mode else ("utf-8", "backslashreplace")
    newline = "" if encoding else None
    temporary = None
    try:
        there = os.stat(target) if os.path.exists(target) else None
        if there is not None and not stat.S_ISREG(there.st_mode):
            with open(target, mode, encoding=encoding, errors=errors, newline=newline) as file:
                yield file  # a device or a pipe: never to be replaced by a file
            return
        final = os.path.realpath(target)  # a link stays one
        folder, name = os.path.split(final)
        os.makedirs(folder, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name[:100]}.")
        with open(handle, mode, encoding=encoding, errors=errors, newline=newline) as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(temporary, stat.S_IMODE(there.st_mode) if there else 0o666 & ~_umask())
        os.replace(temporary, final)
        if durable:
            _sync_folder(folder)
    except BaseException as error:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise ConfigError(f"{target!r}: cannot be written ({error.strerror or error})") from None
        raise


def stem(path: str) -> str:
    """Return what is called after a file: its name without folder and ending; ``stdin`` for ``-``.

    >>> stem("traces/a.b.txt"), stem("-")
    ('a.b', 'stdin')
    """
    return "stdin" if path == "-" else os.path.splitext(os.path.basename(path))[0]


def require_plain(path: str | os.PathLike[str], what: str) -> None:
    """Raise `ConfigError` where a path is a device, a pipe or a folder: to read it could hang, or never end."""
    mode = os.stat(path).st_mode if os.path.exists(path) else stat.S_IFREG  # who opens it will say what is not there
    if not stat.S_ISREG(mode):
        raise ConfigError(f"{what} {os.fspath(path)}: cannot be read (it is no plain file)")


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return a digest of what a file holds, or raise `ConfigError`."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise ConfigError(f"{os.fspath(path)}: cannot be read ({error.strerror or error})") from None


def _sync_folder(folder: str) -> None:
    """Put the names in a folder on the disk, where the system can: a renamed file is found under its new name then."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    """Return the process's umask, which mkstemp ignores: it makes files that only their owner can read."""
    umask = os.umask(0)
    os.umask(umask)
    return umask
