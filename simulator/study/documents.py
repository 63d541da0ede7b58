"""Frozen data as plain tables, as JSON, and as a table's reader sees it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from simulator.errors import ConfigError


def plain(value: Any) -> Any:
    """Return frozen data as plain tables, what is default left out."""
    if hasattr(value, "__dataclass_fields__"):
        given = {}
        for each in fields(value):
            default = each.default_factory() if callable(each.default_factory) else each.default
            if (item := getattr(value, each.name)) != default:
                given[each.name] = plain(item)
        return given
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, frozenset):
        return sorted(str(item) for item in value)
    return value.item() if isinstance(value, np.generic) else value


def flat(table: Mapping[str, Any], whole: Collection[str] = (), start: str = "") -> dict[str, Any]:
    """Return a table of tables under dotted names. Tables under the names in `whole` are values.

    >>> flat({"protocol": {"capacity": 4}, "cluster.replicas": 2})
    {'protocol.capacity': 4, 'cluster.replicas': 2}
    """
    named: dict[str, Any] = {}
    for name, value in table.items():
        dotted = f"{start}{name}"
        inside = isinstance(value, Mapping) and dotted not in whole
        named |= flat(value, whole, f"{dotted}.") if inside else {dotted: value}
    return named


def canonical(value: Any) -> str:
    """Return plain data as JSON, the same text for the same data.

    >>> canonical({"b": 1, "a": [2.5, None]})
    '{"a":[2.5,null],"b":1}'
    """
    try:
        return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        wanted = "a study holds tables, lists, finite numbers and texts"
        raise ConfigError(f"{wanted}: {error}; got {value!r:.80}") from None


def label(value: Any) -> Any:
    """Return an axis value as a table shows it: a number, or a text; a table's ``name``, if it has one.

    >>> label(4), label(None), label(True), label({"name": "large", "replicas": 2}), label("large")
    (4, 'none', 'true', 'large', 'large')
    """
    if isinstance(value, Mapping):
        return value.get("name") or canonical(value)
    if value is None:
        return "none"
    if isinstance(value, (bool, np.bool_, list, tuple)):
        return canonical(value)
    return value.item() if isinstance(value, np.generic) else value
