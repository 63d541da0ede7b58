"""The kit of checks: what a range says is what it accepts."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.errors import ConfigError
from simulator.support.checks import Positive, check_fields, check_options, is_real, is_whole, mismatch, real, whole

RANGES = {
    "": (-math.inf, True, math.inf, True),
    "above 0": (0, False, math.inf, True),
    "from 1": (1, True, math.inf, True),
    "from -3 to 3": (-3, True, 3, True),
    "from 1 to 1,000": (1, True, 1000, True),
    "from 0 to 10^9": (0, True, 10**9, True),
    "from 10^-9 to 1e+06": (1e-9, True, 1e6, True),
    "above 0 and at most 1": (0, False, 1, True),
    "from 0.5 to below 1": (0.5, True, 1, False),
    "above 0 and below 1": (0, False, 1, False),
    "from 0 to 9,223,372,036,854,775,807": (0, True, 2**63 - 1, True),
}
NUMBERS = st.one_of(st.integers(-10, 2**64), st.floats(), st.sampled_from([0, 1, 1000, 1001, 0.5, 10**9, 2**63]))


def refused(check, *arguments, **options):
    try:
        check(*arguments, **options)
    except ConfigError as error:
        return str(error)
    return None


@given(wanted=st.sampled_from([*RANGES]), value=st.one_of(NUMBERS, st.booleans(), st.none(), st.text()))
def test_a_range_accepts_what_it_says(wanted, value):
    low, from_low, high, to_high = RANGES[wanted]
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    inside = number and (low < value or (from_low and low == value)) and (value < high or (to_high and high == value))
    said = refused(real, "x", value, wanted)
    assert (said is None) == (inside and math.isfinite(value))
    kind = f"a number {wanted}" if wanted else "a finite number"
    assert said is None or said == f"x must be {kind}, got {value!r:.80}"
    said = refused(whole, "x", value, wanted)
    assert (said is None) == (inside and isinstance(value, int))
    assert (is_real(value), is_whole(value)) == (number and math.isfinite(value), number and isinstance(value, int))


@pytest.mark.parametrize("other", ["None for no limit", "left out"])
def test_none_where_the_range_says_so(other):
    assert refused(whole, "x", None, f"from 1 to 10, or {other}") is None
    assert refused(whole, "x", 0, f"from 1 to 10, or {other}") == (
        f"x must be a whole number from 1 to 10, or {other}; got 0"
    )
    assert refused(whole, "workers", None, "from 1, or a pool", kind="a number") == (
        "workers must be a number from 1, or a pool; got None"
    )


def test_a_range_that_is_none_is_a_mistake_of_ours():
    for wanted in ("from", "at least 3", "from 1 upto 2", "from 1 to", "from x"):
        with pytest.raises(ValueError, match="is no range"):
            whole("x", 1, wanted)


def test_annotations():
    assert mismatch(0.0, Positive) == "a number above 0"
    assert mismatch(("a", 1), tuple[str, ...]) == "a list, each a text"
    assert mismatch("a", tuple[str, ...]) == "a list, each a text"
    assert mismatch({1: 2}, dict) == "" and mismatch([], dict) == "a dict"
    assert mismatch(None, int | str | None) == ""
    assert mismatch([], int | str | None) == "a whole number from 0 or a text, or left out"
    assert mismatch(object(), object) == mismatch(3, Any) == mismatch(print, Callable[..., None]) == ""


@dataclass(frozen=True)
class Record:
    n: Annotated[int, "from 1 to 5"] = 1
    kind: Literal["a", "b"] | None = None


def test_fields_and_options_by_their_annotations():
    def function(x, *, weight: Positive = 1.0, names: frozenset[str] = frozenset(), other=None):
        """Take options."""

    check_fields(Record(n=5, kind="b"), "record")
    assert refused(check_fields, Record(n=True), "record") == ("record n must be a whole number from 1 to 5; got True")
    assert refused(check_fields, Record(kind="c"), "record") == "record kind must be one of a, b, or left out; got 'c'"
    check_options(function, {"weight": 2, "names": ["a"], "other": object()}, "it")
    assert refused(check_options, function, {"weight": 0}, "it") == "it: weight must be a number above 0, got 0"
    assert refused(check_options, function, {"x": 0}, "it").startswith("no option of it is called 'x'")
