"""Study files: TOML to `Study`, with every key checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from simulator.study.study import Study
from simulator.support.toml import load_toml

__all__ = ["load_study", "parse_study"]


def load_study(path: str | os.PathLike[str]) -> Study:
    """Return the study that a TOML file describes; see docs/studies.md.

    Raises
    ------
    ConfigError
        If it cannot be read, is no TOML, or a key or a value is not what is accepted.
    """
    return load_toml("study", path, partial(parse_study, base=os.path.dirname(os.path.abspath(path))))


def parse_study(document: Mapping[str, Any], *, base: str = "") -> Study:
    """Return the study that plain tables describe: the inverse of `Study.document`.

    Parameters
    ----------
    document : mapping
        As a study file says it.
    base : str
        The folder from which relative paths start.

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
