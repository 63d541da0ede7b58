"""Pictures of a study's table: their structure, not their pixels."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from simulator import ConfigError
from simulator.plots import heatmap, knee, latency_capacity, pareto, pareto_front, save
from simulator.plots.findings import near_best, power_knee, saturated
from simulator.plots.means import Points
from simulator.study import Table

C, RATE, GPU, USERS = "protocol.capacity", "arrivals.rate", "cluster.gpu", "arrivals.users"


def table(axes, found, runs=3, failed=(), noise=0.05, **options):
    """A table of the metrics `found` gives of each point, times 1 - noise, 1, 1 + noise, ..."""
    rows = []
    for point, values in enumerate(itertools.product(*axes.values())):
        at = dict(zip(axes, values, strict=True))
        for run in range(runs):
            bad = (point, run) in failed
            factor = 1 + noise * (run - (runs - 1) / 2)
            metrics = {name: math.nan if bad else value * factor for name, value in found(at).items()}
            said = {"point": point, "replication": run, "seed": run, **at, **metrics}
            rows.append(said | {"error": "poisoned" if bad else None, "spec": "{}"})
    texts = ("error", "spec")
    columns = {name: np.array([row[name] for row in rows], dtype=object if name in texts else None) for name in rows[0]}
    return Table(columns=columns, axes=tuple(axes), metrics=tuple(metrics), **options)


def work_law(at):
    """2,600 steps of work on a critical path of 650, halfway between the bounds."""
    c = at[C]
    low, high = max(650, 2600 / c), 2600 / c + (1 - 1 / c) * 650
    return {
        "latency_mean": (low + high) / 2,
        "lower_bound_mean": low,
        "upper_bound_mean": high,
        "throughput": c / (3 + c),
    }


def mm1(at):
    """M/M/1 with a capacity of 1 (beyond it, what is served)."""
    rate = at[RATE]
    served = min(rate, 1.0)
    sojourn = 1 / (1 - rate) if rate < 1 else 40.0
    return {"throughput": served, "latency_p95": sojourn * at.get("slow", 1), "cost_per_1000_queries": 2 / served}


def artists(ax, gid):
    return [artist for artist in ax.get_children() if artist.get_gid() == gid]


def spots(ax, gid):
    """The points drawn under one name."""
    found = [at for artist in artists(ax, gid) for at in zip(*artist.get_data(), strict=True)]
    return [(float(f"{x:.9g}"), float(f"{y:.9g}")) for x, y in found]


def labels(ax, gid="label"):
    return [text.get_text() for text in artists(ax, gid)]


def facts(ax):
    return artists(ax, "numbers")[0].get_text()


def legend_of(ax):
    found = ax.figure.legends or ([ax.get_legend()] if ax.get_legend() else [])
    return [text.get_text() for legend in found for text in legend.get_texts()]


def boxes(ax, gid="label"):
    ax.figure.draw_without_rendering()
    return [text.get_window_extent() for text in artists(ax, gid)]


# ---------------------------------------------------------------- findings

numbers = st.one_of(st.integers(-3, 3).map(float), st.floats(allow_nan=True, allow_infinity=True))


@given(st.lists(st.tuples(numbers, numbers), max_size=40))
def test_the_front_is_what_nobody_dominates(points):
    costs, values = [a for a, _ in points], [b for _, b in points]
    known = [i for i, pair in enumerate(points) if not any(map(math.isnan, pair))]

    def dominated(i):
        return any(
            costs[j] <= costs[i] and values[j] <= values[i] and (costs[j] < costs[i] or values[j] < values[i])
            for j in known
        )

    front = pareto_front(costs, values).tolist()
    assert sorted(front) == [i for i in known if not dominated(i)]
    assert front == sorted(front, key=lambda i: (costs[i], i))


@given(st.lists(st.tuples(st.floats(0.01, 1e6), st.floats(0.01, 1e6)), min_size=1, max_size=30))
def test_no_point_has_more_power_than_the_knee(points):
    at = power_knee(*np.transpose(points))
    assert all(points[at][0] / points[at][1] >= x / y for x, y in points)


def test_findings_by_hand():
    assert near_best([10, 5.25, 5, 6]) == 1 and near_best([10, 5.26, 5, 6]) == 2
    assert near_best([1, 9.5, 10], higher=True) == 1 and near_best([-10, -10.4]) == 0
    assert near_best([math.nan, math.inf]) is None and near_best([0.0, 0.0]) == 0
    assert power_knee([1, 2, math.nan], [1, 1.5, 1]) == 1 and power_knee([math.nan], [1]) is None
    assert power_knee([1, 2], [0.0, 0.0]) is None
    grown = saturated([1, 2, 3, 4, 8], [1, 2, math.nan, 2.9, 3.9])  # 2 to 4: grew by 45 % of 100 %; to 8: 34 %
    assert grown.tolist() == [False, False, False, True, True]
    with pytest.raises(ConfigError, match="as many costs as values, got 2 and 1"):
        pareto_front([1, 2], [1])


# ---------------------------------------------------------------- latency by capacity


def test_a_line_through_the_means_with_intervals_bounds_and_knee():
    ax = latency_capacity(table({C: [1, 2, 4, 8, 16]}, work_law, unit="steps"))
    (line,) = artists(ax, "line")
    assert spots(ax, "line") == [(c, work_law({C: c})["latency_mean"]) for c in (1, 2, 4, 8, 16)]
    assert ax.get_xscale() == "log" and [text.get_text() for text in ax.get_xticklabels()] == ["1", "2", "4", "8", "16"]
    assert ax.get_ylabel() == "mean latency, decode steps" and ax.get_ylim()[0] == 0
    caps = [artist for artist in artists(ax, "interval") if hasattr(artist, "get_xdata")]
    half = 4.302652729911275 * 0.05 / math.sqrt(3)  # t of 2 degrees of freedom, of values 0.95, 1, 1.05
    first = [float(y) for cap in caps for x, y in zip(*cap.get_data(), strict=True) if x == 1]
    ends = sorted(y / line.get_ydata()[0] for y in first)
    assert ends == pytest.approx([1 - half, 1 + half])
    assert spots(ax, "lower bound")[2] == (4, 650) and spots(ax, "upper bound")[0] == (1, 2600)
    assert len(artists(ax, "bounds")) == 1
    assert not artists(ax, "knee")  # a pool of 32 might be better still
    assert "no knee up to 16: the last value is the best by more than 5 %" in facts(ax)
    assert ax.get_xlabel() == "pool capacity c" and ax.get_title("left") == "mean latency by pool capacity c"
    open_end = latency_capacity(table({C: [1, 2, None]}, lambda at: {"latency_mean": {1: 9, 2: 6}.get(at[C], 5)}))
    assert "knee at none: 5, the best" in facts(open_end)  # there is nothing beyond
    assert "means of 3 runs, 95 % Student-t intervals" in facts(ax) and "failed" not in facts(ax)
    assert legend_of(ax) == ["between Brent's and Graham's bounds"]


def test_the_knee_is_the_smallest_that_is_nearly_the_best():
    ax = latency_capacity(table({C: [1, 2, 3]}, lambda at: {"latency_mean": {1: 9, 2: 5.2, 3: 5}[at[C]]}))
    assert spots(ax, "knee") == [(2, pytest.approx(5.2))] and ax.get_xscale() == "linear"
    assert "knee at 2: 5.2, within 5 % of the best (5 at 3)" in facts(ax)
    more = latency_capacity(table({C: [1, 2, 4, 8, 64]}, work_law), metric="throughput")  # of which more is better
    assert not artists(more, "knee") and not artists(more, "bounds") and "no knee up to 64" in facts(more)
    most = latency_capacity(table({C: [1, 2, 64, 65]}, work_law), metric="throughput")
    assert spots(most, "knee") == [(64, pytest.approx(64 / 67))]


def test_other_axes_are_a_line_each_and_never_mixed():
    many = table({C: [4, 1], GPU: ["b", "a"], RATE: [1]}, lambda at: {"latency_mean": at[C] + (at[GPU] == "a") * 10})
    ax = latency_capacity(many)
    assert legend_of(ax)[:2] == ["gpu = b", "gpu = a"]
    assert [y for _, y in spots(ax, "line")] == [1, 4, 11, 14]
    assert len({artist.get_marker() for artist in artists(ax, "line")}) == 2
    assert "knee, the smallest within 5 % of the best: 1 (gpu = b), 1 (gpu = a)" in facts(ax)
    assert legend_of(latency_capacity(many, by=[GPU, RATE]))[0] == "gpu = b, rate = 1"
    with pytest.raises(
        ConfigError, match=r"the axis cluster.gpu has several values here: .* table.where\(\{'cluster.gpu'"
    ):
        latency_capacity(many, by=RATE)
    assert len(artists(latency_capacity(many.where({GPU: "a"}), by=RATE), "line")) == 1


def test_lines_with_bounds_of_their_own_each_show_them():
    def found(at):
        return {"latency_p95": at[RATE] * 3 / at[C], "lower_bound_p95": at[RATE] / at[C], "latency_mean": 1.0}

    ax = latency_capacity(table({C: [1, 2], RATE: [1, 2]}, found), metric="latency_p95")
    assert [artist.get_ydata().tolist() for artist in artists(ax, "lower bound")] == [[1, 0.5], [2, 1]]
    assert "lower bound (Brent)" in legend_of(ax) and not artists(ax, "bounds")
    assert not artists(
        latency_capacity(table({C: [1, 2], RATE: [1]}, found)), "lower bound"
    )  # they are not of the mean
    assert not artists(latency_capacity(table({C: [1, 2]}, work_law), bounds=False), "lower bound")


def test_failed_runs_and_missing_values_are_told_and_marked():
    failed = {(1, 0), (2, 0), (2, 1), (2, 2)}
    ax = latency_capacity(table({C: [1, 2, 4]}, work_law, failed=failed))
    assert [x for x, _ in spots(ax, "failed")] == [2, 4] and "a run failed" in legend_of(ax)
    assert "means of 0 to 3 runs" in facts(ax) and "4 of 9 runs failed" in facts(ax)
    assert "1 of 3 points without mean latency" in facts(ax)
    assert np.isnan(artists(ax, "line")[0].get_ydata()).tolist() == [False, False, True]
    nothing = latency_capacity(table({C: [1, 2]}, lambda at: {"latency_mean": math.nan}))
    assert not artists(nothing, "knee") and "2 of 2 points without" in facts(nothing)


def test_without_replications_there_is_no_interval():
    for draw in (latency_capacity, knee, pareto):
        metrics = {"latency_mean": 1.0, "latency_p95": 2.0, "throughput": 3.0, "cost_per_1000_queries": 4.0}
        ax = draw(table({RATE if draw is knee else C: [1, 2]}, lambda at, metrics=metrics: metrics, runs=1))
        assert not artists(ax, "interval") and "one run each, so no intervals" in facts(ax)
    alone = latency_capacity(table({C: [4]}, work_law, runs=1))
    assert not artists(alone, "knee") and "knee" not in facts(alone)


# ---------------------------------------------------------------- the knee


def test_the_knee_of_mm1_is_at_half_its_capacity():
    rates = [0.9, 0.1, 0.3, 0.5, 0.7, 1.2, 1.5]  # as given; drawn in rising order
    ax = knee(table({RATE: rates}, mm1))
    assert [x for x, _ in spots(ax, "line")] == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9, 1, 1])
    assert spots(ax, "knee") == [(pytest.approx(0.5), pytest.approx(2))]
    assert "knee at arrival rate 0.5: the greatest throughput / latency" in facts(ax)
    assert [x for x, _ in spots(ax, "saturated")] == pytest.approx([1.0, 1.0])
    ray = np.array(spots(ax, "ray"))
    assert ray[:, 1] / ray[:, 0] == pytest.approx(np.full(len(ray), 4.0))
    assert {"0.5", "0.1"} <= set(labels(ax)) <= {
        str(rate) for rate in rates
    } and "labelled with the arrival rate" in facts(ax)
    assert ax.get_ylabel() == "p95 latency, seconds" and ax.get_xlabel() == "throughput, queries per second"
    assert ax.get_yscale() == "log"  # 40 is more than 30 times 1.1


def test_the_load_is_found_or_asked_for():
    both = table({"slow": [1, 2], RATE: [0.2, 0.5, 0.8]}, mm1)
    ax = knee(both)
    assert legend_of(ax)[:2] == ["slow = 1", "slow = 2"] and len(spots(ax, "knee")) == 2
    assert "0.5 (slow = 1), 0.5 (slow = 2)" in facts(ax)
    assert len(artists(knee(both, load="slow"), "line")) == 3
    other = {"a": [1, 2], "b": [1, 2]}
    with pytest.raises(ConfigError, match="say which axis is the load; the study has a, b"):
        knee(table(other, lambda at: {"latency_p95": 1.0, "throughput": 1.0}))
    with pytest.raises(ConfigError, match=r"the axis slow must be of numbers to be drawn along, got x"):
        knee(table({"slow": ["x", "y"]}, lambda at: {"latency_p95": 1.0, "throughput": 1.0}))


@pytest.mark.parametrize("axis", [C, "cluster.replicas"])
def test_what_meets_the_load_is_no_load(axis):
    alone = table({axis: [1, 2, 4]}, lambda at: {"latency_p95": 1.0, "throughput": 1.0})
    with pytest.raises(ConfigError, match=rf"a knee is along a load, such as arrivals.rate; the study has {axis}"):
        knee(alone)
    with pytest.raises(ConfigError, match=f"a knee is along a load, and {axis} is what the load meets"):
        knee(alone, load=axis)


@pytest.mark.parametrize(("rates", "end"), [([0.1, 0.3, 0.5], "highest, 0.5"), ([0.6, 0.7, 0.9], "lowest, 0.6")])
def test_a_knee_at_the_edge_is_not_declared(rates, end):
    ax = knee(table({RATE: rates}, mm1))
    assert not artists(ax, "knee") and not artists(ax, "ray")
    assert f"no knee among these loads: throughput / latency is greatest at the {end}" in facts(ax)


def test_nothing_positive_is_drawn_below_zero():
    """The interval of three runs, 0.05, 1 and 1.95, reaches below zero; the mean does not."""
    for draw in (latency_capacity, knee, pareto):
        metrics = {"latency_mean": 1.0, "latency_p95": 1.0, "throughput": 1.0, "cost_per_1000_queries": 1.0}
        at = {RATE if draw is knee else C: [1, 2, 4]}
        ax = draw(table(at, lambda at, metrics=metrics: metrics, noise=0.95))
        assert ax.get_ylim()[0] >= 0 and ax.get_xlim()[0] >= 0


# ---------------------------------------------------------------- heat map


def test_cells_are_where_their_values_are():
    found = lambda at: {"latency_mean": at[C] * 10 + (at[GPU] == "a") if (at[C], at[GPU]) != (1, "b") else math.nan}  # noqa: E731
    ax = heatmap(table({C: [8, 1], GPU: ["b", "a"]}, found, failed={(0, 1), (2, 0)}, noise=0), x=C, y=GPU)
    (cells,) = artists(ax, "cells")
    assert np.ma.filled(cells.get_array(), math.nan).ravel().tolist() == pytest.approx(
        [math.nan, 80, 11, 81], nan_ok=True
    )
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1", "8"]  # numbers rise, texts are as in the study
    assert [text.get_text() for text in ax.get_yticklabels()] == ["b", "a"]
    texts = {tuple(text.get_position()): text.get_text() for text in artists(ax, "value")}
    assert texts == {(1.5, 0.5): "80", (0.5, 1.5): "11", (1.5, 1.5): "81"}
    assert [patch.get_xy() for patch in artists(ax, "missing")] == [(0, 0)]
    assert artists(ax, "best")[0].get_xy() == pytest.approx((0.03, 1.04)) and "best: 11 at" in facts(ax)
    assert sorted((math.floor(x), math.floor(y)) for x, y in spots(ax, "failed")) == [(0, 0), (1, 0)]
    assert {"a run failed", "no value"} <= set(legend_of(ax))
    assert "means of 2 to 3 runs" in facts(ax) and "interval" not in facts(ax)


def test_numbers_can_be_read_on_every_colour():
    ax = heatmap(table({C: [*range(1, 9)], RATE: [1, 2]}, lambda at: {"latency_mean": at[C] * 1.0}), x=C, y=RATE)
    (cells,) = artists(ax, "cells")
    for text in artists(ax, "value"):
        column, row = (int(part) for part in text.get_position())
        back = cells.cmap(cells.norm(cells.get_array().reshape(2, 8)[row, column]))
        contrast = [
            (0.05 + light(one)) / (0.05 + light(other))
            for one, other in ((text.get_color(), back), (back, text.get_color()))
        ]
        assert max(contrast) > 4.5  # what WCAG 2 asks for


def light(color):
    return sum(
        share * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
        for share, c in zip((0.2126, 0.7152, 0.0722), to_rgb(color), strict=True)
    )


def test_a_crowded_heat_map_leaves_numbers_out_and_thins_ticks():
    crowd = table({C: range(1, 101), RATE: range(1, 9)}, lambda at: {"latency_mean": at[C] * 12345.6}, runs=1)
    ax = heatmap(crowd, x=C, y=RATE)
    assert not artists(ax, "value") and 5 < len(ax.get_xticklabels()) <= 100
    shown = boxes_of(ax.get_xticklabels(), ax)
    assert all(a.x1 <= b.x0 for a, b in itertools.pairwise(shown))
    more = heatmap(table({C: [1, 2], RATE: [1]}, lambda at: {"throughput": at[C]}), x=C, y=RATE, metric="throughput")
    assert "best: 2 at pool capacity c = 2" in facts(more)


def boxes_of(texts, ax):
    ax.figure.draw_without_rendering()
    return [text.get_window_extent() for text in texts]


# ---------------------------------------------------------------- Pareto front


def test_the_front_is_a_staircase_with_names():
    points = {1: (1, 9), 2: (2, 4), 3: (2, 5), 4: (3, 4), 5: (9, 1)}
    ax = pareto(
        table({C: [*points]}, lambda at: dict(zip(("gpus", "latency_p95"), points[at[C]], strict=True))), cost="gpus"
    )
    assert spots(ax, "front") == [(1, 9), (2, 4), (9, 1)]
    assert spots(ax, "dominated") == [(2, 5), (3, 4)]
    top, right = ax.get_ylim()[1], ax.get_xlim()[1]
    stairs = [(1, top), (1, 9), (2, 9), (2, 4), (9, 4), (9, 1), (right, 1)]
    assert np.array(spots(ax, "staircase")) == pytest.approx(np.array(stairs))
    assert set(labels(ax)) == {"1", "2", "5"} and "3 of 5 points are on the front" in facts(ax)


def test_where_more_is_better_the_front_is_on_the_other_side():
    ax = pareto(table({RATE: [0.25, 0.5, 1.5]}, mm1), cost="latency_p95", latency="throughput")
    assert len(spots(ax, "front")) == 3
    assert spots(ax, "staircase")[0][1] == ax.get_ylim()[0]
    worse = table({RATE: [1, 2]}, lambda at: {"a": at[RATE], "throughput": 3 - at[RATE]})
    assert spots(pareto(worse, cost="a", latency="throughput"), "front") == [(1, 2)]


def test_marks_tell_the_values_of_an_axis():
    ax = pareto(
        table({RATE: [0.25, 0.5], GPU: ["a", "b"]}, lambda at: mm1(at) | {"gpus": 1 + (at[GPU] == "b")}),
        by=GPU,
        cost="gpus",
    )
    assert legend_of(ax)[:2] == ["gpu = a", "gpu = b"]
    assert spots(ax, "front") == [(1, 1.33333333)] and labels(ax) == ["0.25 / a"]
    assert "labelled with arrival rate / GPU" in facts(ax)


def test_points_that_are_equal_are_all_on_the_front():
    ax = pareto(table({C: [1, 2, 4]}, lambda at: {"cost_per_1000_queries": 1.0, "latency_p95": 2.0}))
    assert len(spots(ax, "front")) == 3 and "3 of 3 points" in facts(ax)


# ---------------------------------------------------------------- any table


@pytest.mark.parametrize("draw", [knee, pareto])
def test_a_hundred_points_have_labels_that_do_not_overlap(draw):
    axis = RATE if draw is knee else C

    def found(at):
        c = at[axis]
        return {"throughput": c / (c + 20), "latency_p95": 5 + c**2 / 400, "cost_per_1000_queries": 100.0 / c}

    ax = draw(table({axis: range(1, 101)}, found, noise=0.01))
    placed = boxes(ax)
    assert 10 < len(placed) <= 100
    assert not any(a.overlaps(b) for a, b in itertools.combinations(placed, 2))
    inside = ax.get_window_extent()
    assert all(
        inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1 for box in placed
    )
    ends = {"1", "100"}
    assert ends <= set(labels(ax))


LONG = "cluster." + "no_end_of_a_name_" * 9


@pytest.mark.parametrize(
    ("axis", "draw"),
    [
        (C, latency_capacity),
        (USERS, lambda t: knee(t, load=USERS)),
        (C, lambda t: pareto(t, by=LONG)),
        (C, lambda t: heatmap(t, x=C, y=LONG)),
        (C, lambda t: heatmap(t, x=LONG, y=C)),
    ],
)
@pytest.mark.parametrize("scale", [1e-12, 1e15])
def test_long_names_and_huge_numbers_stay_within_the_figure(axis, draw, scale):
    def found(at):
        return {
            name: scale * (9 + 9 / at[axis])
            for name in ("latency_mean", "latency_p95", "throughput", "cost_per_1000_queries")
        }

    ax = draw(table({axis: [2**i for i in range(9)], LONG: ["$x_1$" + "W" * 300, "a\x00\nb", "c"]}, found))
    ax.figure.draw_without_rendering()
    edge = ax.figure.bbox
    texts = [ax.title, ax.xaxis.label, ax.yaxis.label, *artists(ax, "numbers"), *artists(ax, "label")]
    for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    texts += [text for legend in ax.figure.legends for text in legend.get_texts()]
    for text in texts:
        box = text.get_window_extent()
        assert edge.x0 - 1 <= box.x0 and box.x1 <= edge.x1 + 1 and edge.y0 - 1 <= box.y0 and box.y1 <= edge.y1 + 1, text
    assert ax.get_position().width > 0.4 and ax.get_position().height > 0.3


def test_sixteen_lines_all_have_names_and_looks_of_their_own():
    ax = latency_capacity(table({C: [1, 2], LONG: range(16)}, work_law))
    looks = {(artist.get_marker(), artist.get_linestyle()) for artist in artists(ax, "line")}
    assert len(looks) == 16  # also without colour
    named = {text for text in legend_of(ax) if "=" in text}
    assert len(named) == 16 and {text.split(" = ")[1] for text in named} == {str(i) for i in range(16)}
    ax.figure.draw_without_rendering()
    assert ax.get_position().height > 0.4
    with pytest.raises(ConfigError, match=r"arrivals.rate would give 17 lines; at most 16 can be told apart"):
        latency_capacity(table({C: [1, 2], RATE: range(17)}, work_law))
    with pytest.raises(ConfigError, match=r"arrivals.rate has 17 values; at most 16"):
        pareto(table({RATE: range(1, 18)}, mm1), by=RATE)


CALLS = {
    "capacity": (lambda t, **o: latency_capacity(t, metric="latency_p95", x=RATE, **o)),
    "knee": knee,
    "heatmap": (lambda t, **o: heatmap(t, x=RATE, y="slow", metric="latency_p95", **o)),
    "pareto": pareto,
}


@pytest.mark.parametrize("kind", CALLS)
def test_axes_of_the_caller_are_used(kind):
    figure = Figure(layout="constrained")
    ax = figure.subplots()
    assert CALLS[kind](table({RATE: [0.2, 0.5], "slow": [1, 2]}, mm1, failed={(0, 0)}), ax=ax) is ax
    assert figure.axes[0] is ax and len(figure.axes) == 1 + (kind == "heatmap") and not figure.legends
    figure.draw_without_rendering()


@pytest.mark.parametrize("kind", CALLS)
def test_the_same_table_gives_the_same_bytes(kind, tmp_path):
    for name in "ab":
        drawn = CALLS[kind](table({RATE: [0.2, 0.5, 0.8], "slow": [1, 2]}, mm1, failed={(0, 0)}))
        save(drawn, tmp_path / f"{name}.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


ONE = {C: [1, 2], RATE: [1]}


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda t: latency_capacity(t, metric="latncy_mean"), "called 'latncy_mean'; did you mean latency_mean"),
        (lambda t: latency_capacity(t, x="protocol.capcity"), "'protocol.capcity'; did you mean protocol.capacity"),
        (lambda t: latency_capacity(t, by="arrivals.rat"), "did you mean arrivals.rate"),
        (lambda t: latency_capacity(t, by=C), "protocol.capacity cannot be both"),
        (lambda t: knee(t, latency="latency_mean", throughput="thruput"), "did you mean throughput"),
        (lambda t: heatmap(t, x=C, y=C), "a heat map is over two axes, got protocol.capacity twice"),
        (lambda t: heatmap(t, x=C, y="arivals.rate"), "did you mean arrivals.rate"),
        (lambda t: heatmap(t, x=C, y=RATE, metric="latency"), "did you mean latency_mean"),
        (lambda t: pareto(t, cost="latency_mean", latency="throughput", by="gpu"), "no axis .* is called 'gpu'"),
        (lambda t: pareto(t, cost="cost", latency="latency_mean"), "no metric of the table is called 'cost'"),
        (lambda t: Points(t.take([])), "the table has no rows"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_said(draw, said):
    with pytest.raises(ConfigError, match=said):
        draw(table(ONE, work_law))


def test_studies_without_axes_or_prices_say_so():
    with pytest.raises(ConfigError, match=r"the study has no axes, so there is no 'protocol.capacity' to draw over"):
        latency_capacity(table({}, lambda at: {"latency_mean": 1.0}))
    with pytest.raises(
        ConfigError, match="no point has a value of cost_per_1000_queries: give the cluster dollars_per_gpu_hour"
    ):
        pareto(table({C: [1, 2]}, lambda at: {"cost_per_1000_queries": math.nan, "latency_p95": 1.0}))
    assert len(spots(pareto(table({}, lambda at: {"cost_per_1000_queries": 1.0, "latency_p95": 1.0})), "front")) == 1


def test_nothing_is_loaded_before_a_picture():
    code = "import sys, simulator.plots; assert not {'matplotlib', 'scipy'} & set(sys.modules), 'too early'"
    subprocess.run([sys.executable, "-c", code], check=True)
