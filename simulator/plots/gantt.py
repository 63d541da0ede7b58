"""The Gantt chart of one query."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from simulator.errors import ConfigError
from simulator.metrics import METRICS, QueryView
from simulator.plots.chart import Chart, compose, printable
from simulator.plots.curves import draw_concurrency
from simulator.timeline import Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PITCH = 0.27  # inches of a lane, where there is room
_TALLEST = 6.6  # inches of all lanes


def gantt(
    timeline: Timeline,
    *,
    query: int = 0,
    ax: Axes | None = None,
    unit: str | None = None,
    arrows: bool | None = None,
    legend: bool = True,
    width: float = 8.0,
) -> Axes:
    """Draw one query: one lane per thread, the organizer on top, and its realised critical path as a heavy black line.

    Bars are work: decoding, a thin dark one for prefill, a dotted one for a delay. Pale thin bars are waits: for a
    Join, for a pool slot, for the batch. An arrow down is a Fork, one up a Join; dots lead from a worker's end to the
    time it was joined. A cross ends what was cancelled. Beneath, unless `ax` is given, the agents active at each time.

    Parameters
    ----------
    timeline : Timeline
    query : int
        Which of its queries.
    ax : Axes, optional
        Draw the lanes there, without the panel beneath (see `concurrency`). Default: a figure of its own.
    unit : str, optional
        Label of the time axis. Default: ``decode steps`` on the decode-step clock, else ``seconds``.
    arrows : bool, optional
        Draw Fork and Join arrows. Default: while lanes are high enough to see them, up to about 120.
    legend : bool
        Explain what is drawn, beneath the chart; beside it if `ax` is given.
    width : float
        Inches, of a figure of its own. Its height follows from the number of threads, up to 9 inches.

    Returns
    -------
    Axes
        The lanes. ``.figure`` is the figure, and ``.figure.axes[1]`` the panel beneath.

    Raises
    ------
    ConfigError
        If there is no such query, or `width` is not from 3 to 40.

    Examples
    --------
    >>> from simulator import Answer, Fork, Join, Return, Think, Thread, Trace, compile_trace, simulate
    >>> organizer = Thread("organizer", (Think(5), Fork(1), Think(3), Join(1), Answer(2)))
    >>> timeline = simulate(compile_trace(Trace("t", (organizer, Thread("1", (Return(10),))))))
    >>> axes = gantt(timeline)
    >>> [label.get_text() for label in axes.get_yticklabels()], axes.get_title(loc="left")
    (['organizer', '   1'], 't')
    """
    chart = compose(timeline, query)
    if not 3 <= width <= 40:
        raise ConfigError(f"width must be from 3 to 40 inches, got {width!r}")
    # Here, so that importing this package does not import matplotlib.
    from simulator.plots import canvas
    from simulator.plots.lanes import draw_lanes
    from simulator.plots.legend import draw_legend

    unit = unit or canvas.time_unit(timeline)
    lanes = len(chart.lanes)
    panel = None
    if ax is None:
        height = max(min(_PITCH * lanes, _TALLEST), 0.4)
        ax, panel = canvas.two_panels(width, height)
        across, pitch = 72 * (width - 0.3), 72 * height / lanes
    else:
        across, pitch = canvas.points_of(ax)
        pitch /= lanes
    names = draw_lanes(ax, chart, pitch, pitch >= 4 if arrows is None else arrows, 0.3 * across)
    facts = headline(timeline, query, chart, unit)
    canvas.draw_title(ax, printable(timeline.graphs[query].name, 200), facts, across - names if panel else across)
    if panel is not None:
        draw_concurrency(panel, timeline, query)
        canvas.time_axis(panel, chart.start, chart.end, unit)
    else:
        canvas.time_axis(ax, chart.start, chart.end, unit)
    if legend:
        draw_legend(ax, own=panel is not None)
    return ax


def headline(timeline: Timeline, query: int, chart: Chart, unit: str) -> list[str]:
    """Return what one would ask first."""
    view = QueryView(timeline, query)
    facts = [f"query {query + 1:,} of {len(timeline):,}"] if len(timeline) > 1 else []
    facts.append("never answered" if math.isnan(view.latency) else f"latency {_amount(view.latency)} {unit}")
    workers = len(chart.lanes) - 1
    facts.append(f"{workers:,} worker{'' if workers == 1 else 's'}")
    if timeline.overflows[query]:
        facts.append(f"pool full {timeline.overflows[query]:,} ×")
    eta = f"η {view.clock.eta:.2f}" + (f", η/c {METRICS['eta_over_c'].function(view):.2f}" if view.capacity else "")
    same = view.latency == view.clock.latency
    logical = [eta] if same else [f"latency {_amount(view.clock.latency)}", eta]
    if not same or not math.isclose(METRICS["concurrency"].function(view), view.clock.eta):
        # The pool, the batch or a Delay had its say: eta is not the mean of the curve beneath.
        logical[0] = f"on the decode-step clock: {logical[0]}"
    facts += logical
    return facts + [f"deadlock: {', '.join(found.cycle)}" for found in timeline.deadlocks if found.query == query]


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value % 1 == 0 or value >= 1e4 else f"{value:.4g}"
