"""Pictures: their structure, not their pixels."""

from __future__ import annotations

import hashlib
import math
import os
import runpy
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from simulator import (
    GPU,
    Answer,
    ConfigError,
    Fork,
    Join,
    LinearBatch,
    Protocol,
    Return,
    SpanKind,
    Think,
    Thread,
    Trace,
    compile_trace,
    decode_clock,
    simulate,
)
from simulator.metrics import METRICS, QueryView
from simulator.plots import batch, concurrency, gantt, save, side_by_side
from simulator.plots.curves import active_agents, thinned

IMAGES = Path(__file__).parents[2] / "docs" / "images"
GALLERY = runpy.run_path(str(IMAGES / "draw.py"))["GALLERY"]


def artists(ax, gid):
    """What is drawn in `ax` under one name."""
    return [artist for artist in ax.get_children() if artist.get_gid() == gid]


def count(ax, gid):
    """How many bars or lines are drawn under one name."""
    return sum(len(artist.get_paths()) for artist in artists(ax, gid))


def path_of(ax):
    """The stretches of the critical path as (lane, start, finish)."""
    segments = [segment for artist in artists(ax, "critical_path") for segment in artist.get_segments()]
    return [(math.floor(a[1]), a[0], b[0]) for a, b in segments]


def labels(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def legend_of(ax):
    found = ax.figure.legends or [ax.get_legend()]
    return [text.get_text() for text in found[0].get_texts()]


def facts(ax):
    return artists(ax, "numbers")[0].get_text()


def run(organizer, *workers, name="t", **protocol):
    threads = (Thread(str(i), tuple(actions)) for i, actions in enumerate(workers, 1))
    return simulate(compile_trace(Trace(name, (Thread("organizer", tuple(organizer)), *threads)), Protocol(**protocol)))


def flat(workers, tokens=lambda i: 100 + 37 * i % 61):
    forks = [Fork(i, 3) for i in range(1, workers + 1)]
    joins = [Join(i, 2) for i in range(1, workers + 1)]
    return run([*forks, *joins, Answer(9)], *([Return(tokens(i))] for i in range(1, workers + 1)))


@pytest.fixture(scope="module", params=GALLERY)
def picture(request):
    timeline = GALLERY[request.param]()
    return timeline, gantt(timeline)


def test_every_span_is_one_bar(picture):
    timeline, ax = picture
    work = (SpanKind.DECODE, SpanKind.DELAY)
    spans = Counter(s.kind.value + " cancelled" * (s.cancelled and s.kind in work) for s in timeline.spans(0))
    names = [*(kind.value for kind in SpanKind), "decode cancelled", "delay cancelled"]
    assert {name: count(ax, name) for name in names if count(ax, name)} == spans


def test_the_critical_path_is_as_long_as_the_latency(picture):
    timeline, ax = picture
    path = path_of(ax)
    assert sum(finish - start for _, start, finish in path) == pytest.approx(timeline.latency[0])
    assert path[0][:2] == (0, timeline.arrivals[0])
    assert (path[-1][0], path[-1][2]) == (0, timeline.answered[0])
    assert all(a[2] == b[1] for a, b in pairwise(path))
    assert count(ax, "critical_path link") == len(path) - 1


def test_lanes_are_named_and_time_is_shared(picture):
    timeline, ax = picture
    threads = timeline.graphs[0].threads
    assert labels(ax)[0] == "organizer"
    assert {label.strip() for label in labels(ax)} <= {thread.id for thread in threads}
    assert len(labels(ax)) == len(threads) or len(threads) > 40
    lanes, panel = ax.figure.axes
    assert lanes is ax
    assert lanes.get_xlim() == panel.get_xlim()
    assert panel.get_xlabel() == {"steps": "decode steps"}.get(timeline.unit, "seconds")
    assert ax.get_title(loc="left") == timeline.graphs[0].name


def test_the_legend_explains_what_is_drawn_and_no_more(picture):
    timeline, ax = picture
    kinds = {span.kind for span in timeline.spans(0)}
    legend = legend_of(ax)
    assert ("waits for a slot" in legend) == (SpanKind.WAIT_POOL in kinds)
    assert ("waits for the batch" in legend) == (SpanKind.WAIT_BATCH in kinds)
    assert ("prefill" in legend) == (SpanKind.PREFILL in kinds)
    assert ("cancelled" in legend) == any(span.cancelled for span in timeline.spans(0))
    assert "critical path" in legend
    assert len(legend) == len(set(legend))


def test_the_shipped_pictures_are_those_of_the_gallery():
    shipped = {path.stem for path in IMAGES.glob("*.png")}
    others = ("fidelity_", "audit_", "study_")  # of benchmarks/, of forksim audit, and of draw_studies.py
    assert {name for name in shipped if not name.startswith(others)} == set(GALLERY)
    assert all(path.stat().st_size < 200_000 for path in IMAGES.glob("*.png"))


def test_arrows_stand_where_threads_begin_and_are_joined():
    timeline = run([Think(5), Fork(1), Fork(2, 1), Join(2, 2), Join(1, 1), Answer(2)], [Return(10)], [Return(4)])
    ax = gantt(timeline)
    forks, joins = (artists(ax, name)[0].get_segments() for name in ("fork", "join"))
    assert sorted(float(segment[0][0]) for segment in forks) == [5, 6]
    # 2 ends at 10, when the organizer waits since 8; 1 ends at 15, the organizer waits from 11
    assert sorted(float(segment[0][0]) for segment in joins) == [10, 15]
    assert all(a[1] > b[1] for a, b in joins)
    assert not artists(ax, "rest")
    ax = gantt(run([Fork(1), Think(9), Join(1), Answer(1)], [Return(4)]))
    (rest,) = artists(ax, "rest")[0].get_segments()  # done at 4, joined at 9
    assert rest.tolist() == [[4, 1], [9, 1]]


def test_nested_workers_stand_under_their_parent_and_are_indented():
    threads = (
        Thread("organizer", (Fork(1), Fork(2), Join(1), Join(2), Answer(1))),
        Thread("1", (Fork(1), Join(1), Return(1))),
        Thread("2", (Return(3),), label="checks $a_1$\nand b"),
        Thread("1.1", (Return(2),), label="1.1"),
    )
    ax = gantt(simulate(compile_trace(Trace("t", threads))))
    assert labels(ax) == ["organizer", "   1", "      1.1", "   2 · checks $a_1$ and b"]
    ax.figure.draw_without_rendering()  # the "$" is no formula


@pytest.mark.parametrize("when_full", ["queue", "block", "inline", "drop", "allow"])
def test_every_full_pool_behaviour_is_drawn(when_full):
    joins = [Join(1, 4), Join(2, 4), Join(3, 4)]
    organizer = [Fork(1, 20), Fork(2), Fork(3), Think(30), *joins, Answer(30)]
    ax = gantt(run(organizer, [Return(90)], [Return(60)], [Return(80)], capacity=2, when_full=when_full))
    notes = {"inline": " (inline)", "drop": " (never ran)"}
    assert labels(ax)[2] == "   2" + notes.get(when_full, "")
    assert "pool full" in facts(ax)
    assert bool(artists(ax.figure.axes[1], "overflow")) == (when_full == "allow")
    assert not artists(ax, "stuck")


def test_a_deadlock_is_drawn_with_those_who_wait():
    threads = (
        Thread("organizer", (Fork(1, 5), Fork(2, 5), Join(1), Join(2), Answer(1))),
        *(Thread(str(i), (Think(20), Fork(1), Join(1), Return(5))) for i in (1, 2)),
        *(Thread(f"{i}.1", (Return(20),)) for i in (1, 2)),
    )
    timeline = simulate(compile_trace(Trace("t", threads), Protocol(capacity=3)), on_deadlock="record")
    ax = gantt(timeline)
    assert count(ax, "stuck") == 5
    assert not path_of(ax)
    assert not artists(ax, "answer")
    assert "never answered" in facts(ax)
    assert timeline.deadlocks[0].cycle[0] in facts(ax)


def test_cancelled_threads_end_in_a_cross():
    threads = (
        Thread("organizer", (Fork(1, 5), Fork(2, 5), Think(20), Answer(1))),
        Thread("1", (Think(5), Fork(1), Join(1), Return(5))),
        Thread("1.1", (Return(50),)),
        Thread("2", (Return(90),)),
    )
    ax = gantt(simulate(compile_trace(Trace("t", threads))))
    (crosses,) = artists(ax, "cut")  # 1 waits for 1.1 in vain; 1.1 and 2 are cut while they decode
    assert sorted(zip(*crosses.get_data(), strict=True)) == [(31, 1), (31, 2), (31, 3)]
    assert count(ax, "stuck") == 1
    assert count(ax, "decode cancelled") == 2


def test_threads_too_short_to_see_are_marked():
    ax = gantt(run([Think(5), Fork(1), Fork(2), Think(10**6), Join(1), Join(2), Answer(3)], [Return(0)], [Return(1)]))
    assert artists(ax, "brief")[0].get_ydata() == (1, 2)


def test_an_empty_trace_has_a_chart():
    ax = gantt(run([]))
    assert "latency 0 decode steps" in facts(ax)
    assert not path_of(ax)
    assert ax.get_xlim()[0] < 0 < ax.get_xlim()[1]
    ax.figure.draw_without_rendering()


@pytest.mark.parametrize("workers", [0, 1, 3, 12, 45, 100, 400])
def test_figures_stay_within_a_page(workers):
    ax = gantt(flat(workers))
    ax.figure.draw_without_rendering()
    assert ax.figure.get_figheight() <= 9
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert all(upper.y0 >= lower.y1 - 2 for upper, lower in pairwise(boxes)), "labels overlap"


def test_arrows_are_thinned_in_a_crowd_and_can_be_left_out():
    few, many = gantt(flat(12)), gantt(flat(100, lambda i: 900))
    assert count(few, "fork") == 12
    assert 0 < count(many, "fork") < 100
    assert not artists(many, "fork head")
    assert "Forks and Joins, thinned" in legend_of(many)
    assert not artists(gantt(flat(12), arrows=False), "fork")
    assert not artists(gantt(flat(400)), "fork")


@pytest.mark.parametrize("scale", [1, 10**5, 10**11])
def test_any_length_of_time_has_a_chart(scale):
    ax = gantt(run([Think(scale), Fork(1), Join(1), Answer(8 * scale)], [Return(scale)]))
    ax.figure.draw_without_rendering()
    ticks = [label.get_text() for label in ax.figure.axes[1].get_xticklabels()]
    assert 3 <= len(set(ticks)) == len(ticks) <= 12


def test_one_query_of_many():
    graph = flat(3).graphs[0]
    gpu = GPU(cost=LinearBatch(0.01, 0.001), max_num_seqs=4)
    timeline = simulate([graph] * 5, gpu=gpu, arrivals=[0, 1, 2, 3, 50.25])
    ax = gantt(timeline, query=4)
    assert "query 5 of 5" in facts(ax)
    assert path_of(ax)[0][1] == 50.25
    assert ax.figure.axes[1].get_xlabel() == "seconds"
    assert count(ax, "decode") == sum(span.kind == SpanKind.DECODE for span in timeline.spans(4))


def test_eta_is_the_mean_of_the_curve_or_says_of_what_clock():
    assert "on the decode-step clock" not in facts(gantt(flat(3)))
    queued = flat(3).graphs[0]
    assert "on the decode-step clock: latency" in facts(gantt(simulate(queued, protocol=Protocol(capacity=2))))


def test_long_names_do_not_squeeze_the_chart():
    threads = (Thread("organizer", (Fork(1, 3), Join(1), Answer(1))), Thread("1", (Return(9),), label="W" * 200))
    ax = gantt(simulate(compile_trace(Trace("W" * 500, threads))), width=3.3)
    ax.figure.draw_without_rendering()
    assert labels(ax)[1].endswith("…")
    assert ax.get_title(loc="left").endswith("…")
    assert ax.get_position().width > 0.3
    assert ax.title.get_window_extent().x1 <= ax.figure.bbox.x1


@pytest.mark.parametrize("draw", [gantt, concurrency, batch])
def test_axes_of_the_caller_are_used_and_nothing_else(draw):
    figure = Figure(layout="constrained")
    ax = figure.subplots()
    assert draw(flat(3), ax=ax, unit="ticks of $1") is ax
    assert figure.axes == [ax]
    assert not figure.legends
    assert ax.get_xlabel() == "ticks of $1"
    figure.draw_without_rendering()
    assert not gantt(flat(3), legend=False).figure.legends


def test_the_panel_shows_capacity_overflow_and_mean():
    ax = concurrency(GALLERY["overflowing"](), query=0)
    assert artists(ax, "limit")[0].get_ydata() == [7, 7]
    assert artists(ax, "overflow")
    assert {"c = 7", "mean 4.50"} <= {text.get_text() for text in ax.texts}
    assert not artists(concurrency(GALLERY["staggered"](), query=0), "overflow")
    assert not artists(concurrency(GALLERY["staggered"]()), "limit")


def test_the_batch_shows_its_limit():
    timeline = GALLERY["gpu_bound"]()
    ax = batch(timeline)
    assert artists(ax, "limit")[0].get_ydata() == [2, 2]
    assert artists(ax, "curve")[0].get_ydata().max() == timeline.batch[:, 1].max()
    assert not artists(batch(flat(2)), "limit")


tokens = st.integers(0, 30)


@given(st.lists(st.tuples(tokens, tokens, tokens), max_size=6), st.booleans(), tokens)
def test_the_curve_adds_up_to_eta(workers, count_organizer, last):
    numbers = range(1, len(workers) + 1)
    organizer = [action for i, (a, b, _) in zip(numbers, workers, strict=True) for action in (Fork(i, a), Think(b))]
    timeline = run(
        [*organizer, *map(Join, numbers), Answer(last)],
        *([Return(c)] for *_, c in workers),
        count_organizer=count_organizer,
    )
    times, agents = active_agents(timeline, 0)
    area = float(np.dot(agents[:-1], np.diff(times)))
    clock = decode_clock(timeline.graphs[0].trace, timeline.graphs[0].protocol)
    assert area == clock.active_steps
    assert area == pytest.approx(METRICS["concurrency"].function(QueryView(timeline, 0)) * timeline.latency[0])
    if len(agents):
        assert agents[-1] == 0
        assert agents.max() >= clock.peak_concurrency


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 9)), min_size=1, max_size=300), st.integers(1, 50))
def test_thinning_keeps_extremes_and_ends(steps, points):
    times = np.array(sorted(time for time, _ in steps))
    values = np.array([float(value) for _, value in steps])
    if times[0] == times[-1]:
        times = np.arange(len(times), dtype=float)
    at, kept = thinned(times, values, points)
    assert len(at) <= max(3 * points, 0) or len(times) <= points
    assert (kept.min(), kept.max(), kept[-1]) == (values.min(), values.max(), values[-1])
    assert (at[0], at[-1]) == (times[0], times[-1])
    assert (np.diff(at) >= 0).all()


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_same_timeline_gives_the_same_bytes(tmp_path, suffix):
    for name in "ab":
        save(gantt(GALLERY["gpu_bound"]()), tmp_path / f"{name}.{suffix}")
    here = (tmp_path / f"a.{suffix}").read_bytes()
    assert here == (tmp_path / f"b.{suffix}").read_bytes()
    code = (
        "import runpy; from simulator.plots import gantt, save;"
        f"gallery = runpy.run_path({str(IMAGES / 'draw.py')!r})['GALLERY'];"
        f"save(gantt(gallery['gpu_bound']()), {str(tmp_path / f'c.{suffix}')!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert hashlib.sha256((tmp_path / f"c.{suffix}").read_bytes()).digest() == hashlib.sha256(here).digest()


def test_pyplot_is_never_touched_nor_matplotlib_loaded_before_a_picture():
    code = (
        "import sys, simulator.plots as plots; assert 'matplotlib' not in sys.modules;"
        "from simulator import *; from simulator.trace import *;"
        "graph = compile_trace(Trace('t', (Thread('organizer', (Answer(4),)),)));"
        "t = simulate(graph); plots.gantt(t); plots.batch(t); plots.concurrency(t);"
        "assert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_saving_replaces_the_whole_file_or_nothing(tmp_path, monkeypatch):
    ax = gantt(flat(1))
    target = tmp_path / "chart.png"
    target.write_text("old")

    def broken(self, file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", broken)
        with pytest.raises(ConfigError, match=r"chart\.png': cannot be written .*No space left"):
            save(ax, target)
    assert target.read_text() == "old"
    assert save(ax.figure, str(target)) == target
    assert target.read_bytes().startswith(b"\x89PNG")
    assert os.listdir(tmp_path) == ["chart.png"]
    part = Figure().subfigures()  # saving a part saves the whole
    assert save(gantt(flat(1), ax=part.subplots()), tmp_path / "chart.PDF").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: gantt(t, query=1), "there is no query 1; the timeline holds 1"),
        (lambda t: gantt(t, query=-1), "there is no query -1"),
        (lambda t: concurrency(t, query=7), "there is no query 7"),
        (lambda t: gantt(t, width=0.5), "width must be from 3 to 40 inches, got 0.5"),
        (lambda t: save(gantt(t), "chart.jpeg"), r"saved as \.png, \.svg, \.pdf; got 'chart.jpeg'"),
        (lambda t: save(gantt(t), "chart"), "got 'chart'"),
        (lambda t: save(gantt(t), "chart.png", dpi=0), "dpi must be from 10 to 1200, got 0"),
        (lambda t: save(gantt(t), f"{__file__}/chart.png"), "chart.png': cannot be written"),
    ],
)
def test_what_cannot_be_drawn_is_said(call, message):
    with pytest.raises(ConfigError, match=message):
        call(flat(1))


# ---------------------------------------------------------------- side by side


def test_side_by_side_has_one_scale_and_one_height_of_lanes():
    long = run([Fork(1), Fork(2), Think(30), Join(1), Join(2), Answer(10)], [Return(90)], [Return(20)], name="A")
    brief = run([Answer(10)], name="B")
    first = side_by_side([long, brief], notes=("earns 2", "earns 1"), caption="Why: costs $5 and $6.")
    one, other = first.figure.axes
    assert one.get_xlim() == other.get_xlim() and one.get_ylim() == other.get_ylim()
    assert [ax.get_title(loc="left") for ax in (one, other)] == ["A: earns 2", "B: earns 1"]
    assert labels(one) == ["organizer", "   1", "   2"] and labels(other) == ["organizer"]
    assert path_of(one)[-1][2] == 100 and path_of(other) == [(0, 0.0, 10.0)]
    assert "waits for a Join" in legend_of(one) and len(first.figure.legends) == 1
    assert first.figure.get_suptitle() == "Why: costs $5 and $6."


def test_side_by_side_keeps_within_its_figure(tmp_path):
    crowd = flat(60)
    caption = "a long reason " * 40
    figure = side_by_side([crowd, crowd, crowd], caption=caption, width=12).figure
    save(figure, tmp_path / "crowd.png")
    assert figure.get_figheight() < 12 and figure.get_suptitle().count("\n") >= 2
    assert " ".join(figure.get_suptitle().split()) == caption.strip()


@pytest.mark.parametrize(
    ("count", "options", "said"),
    [
        (1, {}, "from 2 to 4 timelines go side by side, got 1"),
        (5, {}, "from 2 to 4 timelines go side by side, got 5"),
        (2, {"notes": ("one",)}, "2 timelines need as many notes, got 1"),
        (2, {"width": math.nan}, "width must be from 3 to 40 inches, got nan"),
        (2, {"query": 1}, "query"),
    ],
)
def test_side_by_side_refuses_what_makes_no_sense(count, options, said):
    with pytest.raises(ConfigError, match=said):
        side_by_side([run([Answer(3)])] * count, **options)
