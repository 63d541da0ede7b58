"""Values that are checked when they are given: within range, of the right type, called by a known name.

A range is written once, as the message says it: ``from 1 to 1,000``, ``above 0 and at most 1``, ``from 0.5 to below
1``; ``, or None for no limit`` after it means that None is accepted too.
"""

from __future__ import annotations

import difflib
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from functools import cache, lru_cache
from typing import Annotated, Any, Literal

from simulator.errors import ConfigError

Positive = Annotated[float, "above 0"]
NonNegative = Annotated[float, "from 0"]
Share = Annotated[float, "above 0 and at most 1"]

_NUMBER = r"[-\d][\d.,e^+-]*?"
_RANGE = re.compile(
    rf"(?:(?P<low>from|above) (?P<least>{_NUMBER}))?"
    rf"(?: ?\b(?P<high>to below|to|and below|and at most|below) (?P<most>{_NUMBER}))?"
    r"(?P<unit> seconds)?(?P<other>, or .+)?"
)


@lru_cache(maxsize=1024)
def _range(wanted: str) -> tuple[float, float, bool]:
    """Return the least and the largest number within a range, and whether None is accepted too."""
    match = _RANGE.fullmatch(wanted)
    if match is None:
        raise ValueError(f"{wanted!r} is no range")
    least, most = _bound(match["least"], -math.inf), _bound(match["most"], math.inf)
    if match["low"] == "above":
        least = math.nextafter(least, math.inf)
    if "below" in (match["high"] or ""):
        most = math.nextafter(most, -math.inf)
    return least, most, any(word in (match["other"] or "") for word in ("None", "left out"))


def _bound(text: str | None, default: float) -> float:
    """Return the number that a range says, a whole one as an int: floats are not exact beyond 2^53."""
    base, power, exponent = (text or "").replace(",", "").partition("^")
    if not base:
        return default
    number = int(base) if base.lstrip("-").isdigit() else float(base)
    return number ** int(exponent) if power else number


def is_whole(value: object) -> typing.TypeGuard[int]:
    """Return whether a value is an int, which a truth value is not.

    >>> is_whole(3), is_whole(True), is_whole(3.0)
    (True, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool)


def is_real(value: Any) -> bool:
    """Return whether a value is a number that a float can hold, and finite."""
    if isinstance(value, float):
        return math.isfinite(value)
    return is_whole(value) and abs(value) < 1 << 1023


def whole(name: str, value: Any, wanted: str = "from 1", *, kind: str = "a whole number") -> None:
    """Raise `ConfigError` unless a value is an int within a range.

    >>> whole("workers", 7, "from 1 to 1,000"), whole("max_num_seqs", None, "from 1, or None for no limit")
    (None, None)
    >>> whole("workers", True, "from 1 to 1,000")
    Traceback (most recent call last):
    simulator.errors.ConfigError: workers must be a whole number from 1 to 1,000, got True
    """
    least, most, takes_none = _range(wanted)
    if not (takes_none if value is None else is_whole(value) and least <= value <= most):
        raise _refusal(name, value, kind, wanted)


def real(name: str, value: Any, wanted: str = "", *, kind: str = "a number") -> None:
    """Raise `ConfigError` unless a value is a finite number within a range.

    >>> real("threshold", float("nan"), "above 0 and at most 1")
    Traceback (most recent call last):
    simulator.errors.ConfigError: threshold must be a number above 0 and at most 1, got nan
    """
    least, most, takes_none = _range(wanted)
    if not (takes_none if value is None else is_real(value) and least <= value <= most):
        raise _refusal(name, value, kind if wanted else "a finite number", wanted)


def _refusal(name: str, value: Any, kind: str, wanted: str) -> ConfigError:
    said = " ".join(part for part in (kind, wanted) if part)
    return ConfigError(f"{name} must be {said}{';' if ', or ' in wanted else ','} got {value!r:.80}")


def one_of(name: str, value: object, accepted: Iterable[str]) -> None:
    """Raise `ConfigError` unless a value is one of a few words.

    >>> one_of("release", "soon", ("return", "join"))
    Traceback (most recent call last):
    simulator.errors.ConfigError: release must be one of return, join; got 'soon'
    """
    words = list(accepted)
    if value not in words:
        raise ConfigError(f"{name} must be one of {', '.join(words)}; got {value!r:.80}")


@contextmanager
def within(where: str) -> Iterator[None]:
    """Put `where` before what a `ConfigError` of the block says.

    >>> with within("[window]"):
    ...     real("warmup", -1, "from 0")
    Traceback (most recent call last):
    simulator.errors.ConfigError: [window]: warmup must be a number from 0, got -1
    """
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


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
    accepted = _options(function)
    for name, value in options.items():
        if wanted := accepted[choose(name, accepted, f"option of {what}")](value):
            raise ConfigError(f"{what}: {name} must be {wanted}, got {value!r}")


def check_fields(record: Any, what: str) -> None:
    """Raise `ConfigError` where a field of a dataclass is not what its annotation says."""
    kind: Any = type(record)
    for name, mismatch_of in _fields(kind):
        if wanted := mismatch_of(value := getattr(record, name)):
            raise ConfigError(f"{what} {name} must be {wanted}; got {value!r:.80}")


Mismatch = Callable[[Any], str]
"""Returns what is wanted in place of a value, or nothing if the value is that."""


@cache
def _options(function: Any) -> dict[str, Mismatch]:
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    return {each.name: _mismatch(hints.get(each.name, Any)) for each in parameters if each.kind is each.KEYWORD_ONLY}


@cache
def _fields(kind: Any) -> list[tuple[str, Mismatch]]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return [(each.name, _mismatch(hints[each.name])) for each in fields(kind)]


def mismatch(value: Any, hint: Any) -> str:
    """Return what an annotation wants, or nothing if `value` is that.

    >>> mismatch(0, Positive), mismatch("x", int | None), mismatch(2, float)
    ('a number above 0', 'a whole number from 0, or left out', '')
    """
    return _mismatch(hint)(value)


@cache
def _mismatch(hint: Any) -> Mismatch:
    make = _MISMATCHES.get(typing.get_origin(hint) or hint)
    if make is not None:
        return make(*typing.get_args(hint))
    if isinstance(hint, type) and hint is not Any:
        return _unless(lambda value: isinstance(value, hint), f"a {hint.__name__}")
    return lambda value: ""


def _unless(accepts: Callable[[Any], bool], wanted: str) -> Mismatch:
    return lambda value: "" if accepts(value) else wanted


def _ranged(kind: Any, wanted: str) -> Mismatch:
    least, most, _ = _range(wanted)
    is_kind, name = (is_whole, "a whole number") if kind is int else (is_real, "a number")
    return _unless(lambda value: is_kind(value) and least <= value <= most, f"{name} {wanted}")


def _any_of(*hints: Any) -> Mismatch:
    kinds = [_mismatch(hint) for hint in hints]

    def any_of(value: Any) -> str:
        wanted = [kind(value) for kind in kinds]
        return " or ".join(each for each in wanted if each != "None") + ", or left out" if all(wanted) else ""

    return any_of


def _tuple_of(hint: Any, *_: Any) -> Mismatch:  # of any length, as tuple[str, ...]
    kind = _mismatch(hint)

    def tuple_of(value: Any) -> str:
        wrong = map(kind, value if isinstance(value, tuple) else (None,))
        return next((f"a list, each {wanted}" for wanted in wrong if wanted), "")

    return tuple_of


def _of_texts(value: Any, kinds: Any) -> bool:
    return isinstance(value, kinds) and all(isinstance(each, str) for each in value)


_MISMATCHES: dict[Any, Callable[..., Mismatch]] = {
    Annotated: _ranged,
    typing.Union: _any_of,
    types.UnionType: _any_of,
    Literal: lambda *of: _unless(lambda value: isinstance(value, str) and value in of, f"one of {', '.join(of)}"),
    tuple: _tuple_of,
    Mapping: lambda *_: _unless(lambda value: _of_texts(value, Mapping), "a table"),
    frozenset: lambda *_: _unless(lambda value: _of_texts(value, (list, tuple, set, frozenset)), "a list of names"),
    float: lambda: _unless(is_real, "a finite number"),
    int: lambda: _unless(lambda value: is_whole(value) and value >= 0, "a whole number from 0"),
    bool: lambda: _unless(lambda value: isinstance(value, bool), "true or false"),
    str: lambda: _unless(lambda value: isinstance(value, str), "a text"),
    type(None): lambda: _unless(lambda value: value is None, "None"),
}
"""What makes the check of an annotation, by its origin, from its arguments."""
