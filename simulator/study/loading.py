"""Study files: TOML to `Study`, with every key checked."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from typing import Any

from simulator.errors import ConfigError
from simulator.study.study import Study

__all__ = ["load_study", "parse_study"]

MAX_BYTES = 1 << 24


def load_study(path: str | os.PathLike[str]) -> Study:
    """Return the study that a TOML file describes; see docs/studies.md.

    Raises
    ------
    ConfigError
        If it cannot be read, is no TOML, or a key or a value is not what is accepted.
    """
    name = os.fspath(path)
    try:
        with open(name, encoding="utf-8") as file:
            table = tomllib.loads(file.read(MAX_BYTES))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"study {name}: not TOML: {error}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"study {name}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    try:
        return parse_study(table, base=os.path.dirname(os.path.abspath(name)))
    except ConfigError as error:
        raise ConfigError(f"study {name}: {error}") from None


def parse_study(document: Mapping[str, Any], *, base: str = "") -> Study:
    """Return the study that plain tables describe: the inverse of `Study.document`.

    Parameters
    ----------
    document : mapping
        As a study file says it.
    base : str
        Folder where relative paths start.

    Raises
    ------
    ConfigError
        If a key or a value is not what is accepted.

    >>> study = parse_study({"traces": {"a": {"generate": "batch"}}, "queries": 8, "cluster": {"max_num_seqs": 4}})
    >>> study.cluster.max_num_seqs, study == parse_study(study.document())
    (4, True)
    >>> parse_study({"traces": {"a": {"generate": "batch"}}, "querys": 8})
    Traceback (most recent call last):
    simulator.errors.ConfigError: no key of a study is called 'querys'; did you mean queries? there are ...
    """
    return Study.of(document, base)
