"""Options that are checked when they are given: known names, the right types, within range."""

from __future__ import annotations

import collections.abc
import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from functools import cache
from typing import Annotated, Any, Literal

from simulator.errors import ConfigError

__all__ = ["NonNegative", "Positive", "Share", "check_fields", "check_options", "choose", "mismatch"]

Positive = Annotated[float, "above 0"]
NonNegative = Annotated[float, "from 0"]
Share = Annotated[float, "above 0 and at most 1"]
_RANGES: dict[str, Callable[[float], bool]] = {
    "above 0": lambda value: value > 0,
    "from 0": lambda value: value >= 0,
    "above 0 and at most 1": lambda value: 0 < value <= 1,
}


def choose(name: object, known: Iterable[str], what: str) -> str:
    """Return `name` if it is one of `known`, and otherwise say what is near.

    >>> choose("accurcy", ["accuracy", "leverage"], "term")
    Traceback (most recent call last):
    simulator.errors.ConfigError: no term is called 'accurcy'; did you mean accuracy? there are accuracy, leverage
    """
    names = list(known)
    if isinstance(name, str) and name in names:
        return name
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(f"no {what} is called {name!r}; {hint}there are {', '.join(names)}")


def check_options(function: Callable[..., Any], options: Mapping[str, Any], what: str) -> None:
    """Raise `ConfigError` where an option of `function` is unknown, of the wrong type, or out of range.

    The options are its keyword-only parameters, and their annotations say what is accepted.
    """
    accepted = _signature(function)
    for name, value in options.items():
        hint = accepted[choose(name, accepted, f"option of {what}")]
        wanted = mismatch(value, hint)
        if wanted:
            raise ConfigError(f"{what}: {name} must be {wanted}, got {value!r}")


def check_fields(record: Any, what: str) -> None:
    """Raise `ConfigError` where a field of a dataclass is not what its annotation says."""
    kind: Any = type(record)
    hints = _hints(kind)
    for each in fields(record):
        value = getattr(record, each.name)
        wanted = mismatch(value, hints[each.name])
        if wanted:
            raise ConfigError(f"{what} {each.name} must be {wanted}; got {value!r:.80}")


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


@cache
def _signature(function: Callable[..., Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    return {each.name: hints.get(each.name, Any) for each in parameters if each.kind is each.KEYWORD_ONLY}


def mismatch(value: Any, hint: Any) -> str:
    """Return what an annotation wants, or nothing if `value` is that.

    >>> mismatch(0, Positive), mismatch("x", int | None), mismatch(2, float)
    ('a number above 0', 'a whole number from 0, or left out', '')
    """
    origin = typing.get_origin(hint)
    if origin is Annotated:
        kind, what = typing.get_args(hint)
        ok = not mismatch(value, kind) and _RANGES[what](value)
        return "" if ok else f"a number {what}"
    if origin in (typing.Union, types.UnionType):
        wanted = [mismatch(value, each) for each in typing.get_args(hint)]
        return "" if not all(wanted) else " or ".join(each for each in wanted if each != "None") + ", or left out"
    if origin is Literal:
        choices = typing.get_args(hint)
        return "" if isinstance(value, str) and value in choices else f"one of {', '.join(choices)}"
    if hint is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        return "" if number else "a finite number"
    if hint is int:
        return "" if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else "a whole number from 0"
    if hint is bool:
        return "" if isinstance(value, bool) else "true or false"
    if hint is type(None):
        return "" if value is None else "None"
    if origin is tuple:  # of any length, as in tuple[str, ...]
        each = typing.get_args(hint)[0]
        wrong = [mismatch(item, each) for item in (value if isinstance(value, tuple) else (None,))]
        return next((f"a list, each {why}" for why in wrong if why), "")
    if origin is collections.abc.Mapping:
        ok = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
        return "" if ok else "a table"
    if origin is frozenset:
        ok = isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(each, str) for each in value)
        return "" if ok else "a list of names"
    if hint is str:
        return "" if isinstance(value, str) else "a text"
    return "" if not isinstance(hint, type) or isinstance(value, hint) else f"a {hint.__name__}"
