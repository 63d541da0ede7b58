"""The table of a study: means, intervals, paired differences, what failed."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import ConfigError
from simulator.study import Table
from simulator.study.table import half_width, mean_and_interval


def table(values, *, replications=2, axes=None, errors=None, confidence=0.95):
    """A table of one metric, `values` by point and replication, over an axis c = 1, 2, ... or the given ones."""
    points = len(values) // replications
    given = axes or {"c": np.arange(1, points + 1)}
    return Table(
        columns={
            "point": np.repeat(np.arange(points), replications),
            "replication": np.tile(np.arange(replications), points),
            **{name: np.repeat(np.asarray(column), replications) for name, column in given.items()},
            "m": np.array(values, dtype=np.float64),
            "error": np.array(errors or [None] * len(values), dtype=object),
        },
        axes=tuple(given),
        metrics=("m",),
        confidence=confidence,
    )


# Two-sided quantiles of Student's t as every textbook prints them: confidence, degrees of freedom, t.
QUANTILES = [
    (0.95, 1, 12.706),
    (0.95, 4, 2.776),
    (0.95, 9, 2.262),
    (0.95, 30, 2.042),
    (0.99, 1, 63.657),
    (0.99, 9, 3.250),
    (0.90, 9, 1.833),
    (0.80, 19, 1.328),
]


@pytest.mark.parametrize(("confidence", "freedom", "quantile"), QUANTILES)
def test_half_width_is_students(confidence, freedom, quantile):
    values = np.arange(freedom + 1, dtype=np.float64)
    expected = quantile * statistics.stdev(values.tolist()) / math.sqrt(freedom + 1)
    assert half_width(values, confidence) == pytest.approx(expected, rel=4e-4)


def test_one_value_has_no_interval():
    mean, low, high = mean_and_interval(np.array([3.0]), 0.95)
    assert mean == 3.0 and math.isnan(low) and math.isnan(high)
    assert math.isnan(mean_and_interval(np.array([]), 0.95)[0])


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_an_interval_covers_the_mean_as_often_as_it_says(confidence):
    rng = np.random.default_rng(5)
    n, samples = 4000, 5
    hits = 0
    for _ in range(n):
        _, low, high = mean_and_interval(rng.normal(10, 3, samples), confidence)
        hits += low <= 10 <= high
    spread = math.sqrt(confidence * (1 - confidence) / n)
    assert abs(hits / n - confidence) < 4 * spread


def test_a_summary_by_hand():
    summary = table([8, 10, 5, 7], replications=2).summary()
    assert summary["c"].tolist() == [1, 2]
    assert summary["m"].tolist() == [9.0, 6.0]
    # s = sqrt(2), t = 12.706: half of the interval is 12.706.
    assert summary["m_low"][0] == pytest.approx(9 - 12.706, abs=1e-3)
    assert summary["m_high"][1] == pytest.approx(6 + 12.706, abs=1e-3)
    assert list(summary.columns) == ["point", "c", "n", "m", "m_low", "m_high"]


def test_differences_are_paired():
    # Both go up and down together, by 100: apart they say nothing, paired the difference is 2 to the last bit.
    found = table([0, 100, 200, 2, 102, 202], replications=3)
    summary, compared = found.summary(), found.compare({"c": 1})
    assert summary["m_low"][1] < summary["m_high"][0]  # they overlap
    assert (compared["m"][1], compared["m_low"][1], compared["m_high"][1]) == (2.0, 2.0, 2.0)
    assert compared["m_ratio"].tolist() == [1.0, 1.02]


def test_each_point_is_compared_with_the_one_that_has_its_other_values():
    found = table([1, 1, 3, 3, 10, 10, 15, 15], axes={"rate": [1, 1, 2, 2], "c": ["two", "four", "two", "four"]})
    compared = found.compare({"c": "two"})
    assert compared["m"].tolist() == [0.0, 2.0, 0.0, 5.0]
    assert found.compare({"rate": 1, "c": "two"})["m"].tolist() == [0.0, 2.0, 9.0, 14.0]


def test_failed_replications_are_left_out_of_both():
    found = table([1, 2, 5, math.nan, 7, 9], replications=2, errors=[None, None, None, "died", None, None])
    summary = found.summary()
    assert summary["n"].tolist() == [2, 1, 2]
    assert summary["m"].tolist() == [1.5, 5.0, 8.0]
    compared = found.compare({"c": 2})  # only replication 0 has a partner
    assert compared["n"].tolist() == [1, 1, 1]
    assert compared["m"].tolist() == [-4.0, 0.0, 2.0]


def test_what_does_not_exist_once_has_no_mean():
    summary = table([1, math.nan, 2, 3]).summary()
    assert math.isnan(summary["m"][0]) and summary["m"][1] == 2.5
    assert summary["n"].tolist() == [2, 2]


def test_a_ratio_to_nothing_is_none():
    assert math.isnan(table([0, 0, 1, 1]).compare({"c": 1})["m_ratio"][1])


def test_wrong_questions():
    found = table([1, 2, 3, 4])
    with pytest.raises(ConfigError, match="no column is called 'mm'; did you mean m"):
        found["mm"]
    with pytest.raises(ConfigError, match="no axis is called 'd'"):
        found.compare({"d": 1})
    with pytest.raises(ConfigError, match="no point is at c = 9"):
        found.compare({"c": 9})
    with pytest.raises(ConfigError, match="at least one value"):
        found.compare({})
    with pytest.raises(ConfigError, match="no column is called 'd'"):
        found.where({"d": 1})


def test_where_and_rows():
    found = table([1, 2, 3, 4])
    assert [row["m"] for row in found.where({"c": 2}).rows()] == [3.0, 4.0]
    assert len(found.where({"c": 2, "replication": 5})) == 0
    assert "c" in found and "d" not in found


def test_no_rows_at_all():
    found = table([])
    assert len(found) == 0
    assert len(found.summary()) == 0


def test_pandas():
    pandas = pytest.importorskip("pandas")
    frame = table([1, 2, 3, 4]).to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["m"].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert frame["error"].isna().all()


def test_without_pandas(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match="pip install pandas"):
        table([1, 2]).to_pandas()


@given(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=12).filter(lambda values: len(values) % 2 == 0))
def test_a_difference_of_means_is_the_mean_of_differences(values):
    half = len(values) // 2
    found = table(values, replications=half)
    summary, compared = found.summary(), found.compare({"c": 1})
    assert compared["m"][1] == pytest.approx(summary["m"][1] - summary["m"][0], abs=1e-6)
    assert compared["m"][0] == 0
    differences = [b - a for a, b in zip(values[:half], values[half:], strict=True)]
    width = compared["m_high"][1] - compared["m_low"][1]
    assert width == pytest.approx(2 * half_width(np.array(differences), 0.95), rel=1e-9, abs=1e-6)
