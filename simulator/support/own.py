"""People's own code: a file or a module that is imported because they asked for it, here and in other processes."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from traceback import walk_tb
from types import ModuleType
from typing import Any

from simulator.errors import ConfigError, why
from simulator.support.files import require_plain

ENTRY_POINTS = "forksim.pieces"
"""The group of entry points under which a package names modules that the command line imports by itself."""

MAX_BYTES = 10**7
"""A larger file is no program that anybody wrote."""


@dataclass(frozen=True)
class Piece:
    """What another process needs to import the same."""

    name: str
    """As it was asked for: ``FILE.py`` or ``MODULE``."""
    module: str
    """What the module is called there and here."""
    source: bytes | None = None
    """Text of a file, which may not be on the other machine; None: a module that is installed."""


_LOADED: dict[str, Piece] = {}
"""All that has been imported so, by the name of the module, in the order in which that was done."""


def load_pieces(name: str, base: str = "") -> ModuleType:
    """Import ``FILE.py`` or ``MODULE``, once, and remember it for the processes that this one starts.

    A file may import what lies beside it. Its module has a name of its own, so that a file called ``random.py`` does
    not stand in for Python's.

    Parameters
    ----------
    name : str
        The path of a file that ends in ``.py``, or the dotted name of a module that Python finds, also in the working
        folder.
    base : str
        The folder where a relative path starts.

    Raises
    ------
    ConfigError
        If there is no such file or module, or importing it raises.

    >>> load_pieces("simulator.rewards.library").asyncthink.__name__
    'asyncthink'
    >>> load_pieces("nowhere.py")
    Traceback (most recent call last):
    simulator.errors.ConfigError: 'nowhere.py' cannot be imported (No such file or directory)
    """
    piece = _piece(os.path.join(base, name) if name.endswith(".py") else name, name)
    module = _load(piece)
    _LOADED[piece.module] = piece
    return module


def load_own(name: str) -> Any:
    """Return what ``MODULE:NAME`` or ``FILE.py:NAME`` says. It is imported, so it runs, but in this process only.

    Raises
    ------
    ConfigError
        If there is no such module, file or name, or importing it raises.

    >>> load_own("simulator.rewards.library:asyncthink").__name__
    'asyncthink'
    """
    place, _, attribute = name.rpartition(":")
    try:
        module = _load(_piece(place, place))
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    if not hasattr(module, attribute):
        raise ConfigError(f"{name}: {place!r} has no {attribute!r}")
    return getattr(module, attribute)


def load_installed() -> list[str]:
    """Import the pieces of all installed packages, and return a line for each that cannot be imported."""
    faults = []
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: (entry.name, entry.value)):
        try:
            load_pieces(entry.module)
        except ConfigError as error:
            package = f" of {entry.dist.name}" if entry.dist else ""
            faults.append(f"the pieces {entry.name!r}{package} are left out: {error}")
    return faults


def _piece(path: str, name: str) -> Piece:
    if not name.endswith(".py"):
        return Piece(name, name)
    require_plain(path, "program")
    try:
        with open(path, "rb") as file:
            source = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{name!r} cannot be imported ({error.strerror or error})") from None
    if len(source) > MAX_BYTES:
        raise ConfigError(f"{name!r} cannot be imported (over {MAX_BYTES:,} bytes)")
    place = os.path.realpath(path)
    folder = os.path.dirname(place)
    if folder not in sys.path:
        sys.path.append(folder)  # at the end: nothing in it stands in for what is installed
    key = hashlib.sha256(place.encode(errors="surrogateescape") + b"\0" + source).hexdigest()[:12]
    return Piece(name, f"{os.path.basename(place)[:-3]}_{key}", source)


def _load(piece: Piece) -> ModuleType:
    if piece.source is None and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` has it
    try:
        if piece.source is None:
            module = importlib.import_module(piece.module)
        else:
            module = sys.modules.get(piece.module) or _run(piece)
    except (Exception, SystemExit) as error:  # of any kind: it is somebody's code
        lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == piece.name]
        where = f"line {lines[-1]}: " if lines else ""
        raise ConfigError(f"{piece.name!r} cannot be imported ({where}{why(error, limit=200)})") from None
    return module


def _run(piece: Piece) -> ModuleType:
    assert piece.source is not None
    module = ModuleType(piece.module)
    module.__file__ = piece.name
    sys.modules[piece.module] = module  # so that dataclasses in it find themselves, and pickles their classes
    try:
        exec(compile(piece.source, piece.name, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[piece.module]
        raise
    return module


# ---------------------------------------------------------------- in other processes


def with_pieces(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that, sent to another process, imports there first what was imported here.

    >>> import pickle
    >>> with_pieces(abs)(-3), pickle.loads(pickle.dumps(with_pieces(abs)))(-3)
    (3, 3)
    """
    return _Carried(_Imports(), function) if _LOADED else function


class _Carried:
    def __init__(self, imports: _Imports, function: Callable[..., Any]) -> None:
        self.imports = imports
        self.function = function

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.function(*arguments, **named)

    def __reduce__(self) -> Any:
        return _Carried, (self.imports, self.function)  # read in this order: the function may be made of pieces


class _Imports:
    """Read from a pickle, it imports."""

    def __reduce__(self) -> Any:
        return _import_all, (tuple(_LOADED.values()),)


def _import_all(pieces: tuple[Piece, ...]) -> _Imports:
    for piece in pieces:
        if piece.module not in _LOADED:
            _load(piece)
            _LOADED[piece.module] = piece
    return _Imports()
