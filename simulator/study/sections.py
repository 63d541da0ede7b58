"""Plain tables to the fields of a `Study`, with every key checked."""

from __future__ import annotations

import json
import typing
from collections.abc import Collection, Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any

from simulator.errors import ConfigError
from simulator.study.documents import canonical, flat
from simulator.study.spec import Arrivals, Hardware, Source, Window
from simulator.support.checks import choose, within
from simulator.trace.protocol import Protocol

_NEEDED = {"queries", "arrivals.rate", "arrivals.variation", "arrivals.users"}
_SECTIONS: dict[str, type] = {"arrivals": Arrivals, "cluster": Hardware, "protocol": Protocol, "window": Window}


def fields_of(document: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return the fields of the study that a document describes, which may say the names in `known`.

    >>> fields_of({"traces": {}, "window": {"warmup": 0.1}}, known=("traces", "window"))["window"].warmup
    0.1
    """
    given: dict[str, Any] = {}
    document = _table(document, "a study")
    axes = flat(_table(document.get("axes", {}), "axes"))  # written with quotes or as tables
    for key, value in _completed(document, axes).items():
        choose(key, known, "key of a study")
        if key == "traces":
            given[key] = {name: _made(Source, item, f"[traces.{name}]") for name, item in _table(value, key).items()}
        elif key in _SECTIONS:
            given[key] = _made(_SECTIONS[key], value, f"[{key}]")
        elif key == "axes":
            given[key] = axes
        elif key == "baseline":
            given[key] = flat(_table(value, key), axes)
        else:
            given[key] = tuple(value) if isinstance(value, list) else value
    if "traces" not in given:
        raise ConfigError("a study says where its traces come from: [traces.NAME] with generate or files")
    return given


def _table(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} must be a table; got {value!r:.80}")
    return value


def _completed(document: Mapping[str, Any], axes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with the first values of axes in place of what it must say: it need not be said twice."""
    full = {key: dict(value) if isinstance(value, Mapping) else value for key, value in document.items()}
    for name in _NEEDED & axes.keys():
        section, _, key = name.rpartition(".")
        table = full.get(section, {}) if section else full
        if isinstance(axes[name], list) and axes[name] and isinstance(table, dict):
            table.setdefault(key, axes[name][0])
    return full


def _made(kind: type, value: Any, where: str) -> Any:
    """Return a section: its keys checked, lists as tuples, ``"none"`` as None where that is accepted."""
    table = _table(value, where)
    with within(where):
        text = canonical(table)
    return _parsed(kind, text, where)


@lru_cache(maxsize=4096)
def _parsed(kind: type, text: str, where: str) -> Any:
    """Return the section that JSON says: most sections are the same at most points, and need not be checked again."""
    hints = typing.get_type_hints(kind)
    made = {}
    for key, item in json.loads(text).items():
        hint = hints[choose(key, [each.name for each in fields(kind)], f"key of {where}")]
        types = typing.get_args(hint)
        optional = type(None) in types and str not in types
        made[key] = None if item == "none" and optional else tuple(item) if isinstance(item, list) else item
    with within(where):
        return kind(**made)
