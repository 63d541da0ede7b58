"""TOML files that describe something of ours: a study, a reward, a profile."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from typing import Any, TypeVar

from simulator.errors import ConfigError
from simulator.support.checks import within
from simulator.support.files import require_plain

T = TypeVar("T")

MAX_BYTES = 1 << 24
"""No file is read further."""


def load_toml(kind: str, path: str | os.PathLike[str], make: Callable[[dict[str, Any]], T]) -> T:
    """Return what `make` makes of the table in a TOML file. Errors begin with the `kind` of file and its path."""
    name = os.fspath(path)
    require_plain(name, kind)
    try:
        with open(name, encoding="utf-8") as file:
            text = file.read(MAX_BYTES)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{kind} {name}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    return parse_toml(f"{kind} {name}", text, make)


def parse_toml(name: str, text: str, make: Callable[[dict[str, Any]], T]) -> T:
    """Return what `make` makes of the table that a text in TOML says; `name` is what messages begin with.

    >>> parse_toml("study knee.toml", "seed = 1", dict)
    {'seed': 1}
    >>> parse_toml("study knee.toml", "seed", dict)
    Traceback (most recent call last):
    simulator.errors.ConfigError: study knee.toml: not TOML: Expected '=' after a key in a key/value pair ...
    """
    with within(name):
        try:
            table = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # a ValueError too: a whole number of thousands of digits
            raise ConfigError(f"not TOML: {error}") from None
        return make(table)
