"""Values as the command line takes them: ``NAME=1..64``, ``NAME=0.1..50``, ``NAME=a,b``."""

from __future__ import annotations

import re
import tomllib
import typing
from collections.abc import Mapping
from typing import Any

from simulator.errors import ConfigError
from simulator.planning import ladder
from simulator.study import Arrivals, Hardware, Window
from simulator.trace.protocol import Protocol

_SECTIONS: Mapping[str, type] = {"arrivals": Arrivals, "cluster": Hardware, "protocol": Protocol, "window": Window}
_RANGE = re.compile(r"(?P<low>[\d.eE+-]+?)\.\.(?P<high>[\d.eE+-]+)", re.ASCII)
_WHOLE = re.compile(r"\d{1,15}", re.ASCII)
_EACH = 1000
"""Whole numbers that are candidates one by one; longer ranges go up in steps."""


def named_values(text: str, option: str) -> tuple[str, tuple[Any, ...]]:
    """Return the name and the values of ``NAME=VALUE,...``, values as TOML has them; what is no TOML is a text.

    >>> named_values("cluster.gpu=h100-qwen3-8b,rate:50", "--for")
    ('cluster.gpu', ('h100-qwen3-8b', 'rate:50'))
    """
    name, equals, values = text.partition("=")
    if not (equals and name.strip() and values.strip()):
        raise ConfigError(f"{option} takes NAME=VALUE,VALUE,...; got {text!r:.80}")
    listed = _toml(values.strip())
    if isinstance(listed, list):
        return name.strip(), tuple(listed)
    return name.strip(), tuple(_value(each.strip()) for each in values.split(","))


def searched(text: str, option: str, step: float) -> tuple[str, tuple[Any, ...]]:
    """Return the name and the candidates of ``NAME=LOW..HIGH`` or ``NAME=VALUE,...``.

    Between whole numbers every one is a candidate, up to a thousand of them. Longer ranges, and those of real numbers,
    go up by a share of `step`.
    """
    name, _, values = (part.strip() for part in text.partition("="))
    if ".." not in values:
        return named_values(text, option)
    found = _RANGE.fullmatch(values)
    try:
        low, high = (float(found[end]) for end in ("low", "high")) if found else (float("nan"),) * 2
        if not (name and low <= high):
            raise ValueError
    except ValueError:
        raise ConfigError(f"{option} takes NAME=LOW..HIGH, such as cluster.replicas=1..64; got {text!r:.80}") from None
    whole = found is not None and bool(_WHOLE.fullmatch(found["low"]) and _WHOLE.fullmatch(found["high"]))
    if not whole or _is_real(name):
        return name, ladder(low, high, step)
    first, last = int(low), int(high)
    if last - first < _EACH:
        return name, tuple(range(first, last + 1))
    return name, tuple(sorted({first, *(round(value) for value in ladder(max(first, 1), last, step))}))


def _is_real(name: str) -> bool:
    """Whether a dotted name of a study takes real numbers."""
    section, _, field = name.partition(".")
    hints = typing.get_type_hints(_SECTIONS[section]) if section in _SECTIONS else {}
    return float in _plain_types(hints.get(field))


def _plain_types(hint: Any) -> set[Any]:
    inner = typing.get_args(hint)
    return {hint} if not inner else set().union(*(_plain_types(each) for each in inner))


def _toml(text: str) -> Any:
    try:
        found = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return None
    return found["value"] if list(found) == ["value"] else None


def _value(text: str) -> Any:
    if not text:
        raise ConfigError("a list of values has an empty one")
    found = _toml(text)
    return text if found is None or not isinstance(found, (int, float, str, bool)) else found
