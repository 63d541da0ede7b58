"""Gantt charts side by side, on one scale of time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from simulator.errors import ConfigError
from simulator.plots.chart import compose, printable
from simulator.plots.gantt import headline
from simulator.timeline import Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PITCH = 0.3  # inches of a lane
_LANES = (2, 22)  # what the height is fitted to, at least and at most
_MOST = 4


def side_by_side(
    timelines: Sequence[Timeline],
    *,
    query: int = 0,
    notes: Sequence[str] = (),
    caption: str = "",
    unit: str | None = None,
    width: float = 11.0,
) -> Axes:
    """Draw one query of each timeline as a Gantt chart, the charts beside each other on one scale (see `gantt`).

    Parameters
    ----------
    timelines : sequence of Timeline
        From two to four.
    query : int
        Which of their queries.
    notes : sequence of str
        One a chart, written after its name: what the rollout earns, say.
    caption : str
        Written above all of them.
    unit : str, optional
        Label of the time axes. Default: ``decode steps`` on the decode-step clock, else ``seconds``.
    width : float
        Inches, from 3 to 40. The height follows from the number of threads.

    Returns
    -------
    Axes
        The first chart. ``.figure.axes`` are all of them.

    Raises
    ------
    ConfigError
        If a number is out of range, or there is no such query.

    Examples
    --------
    >>> from simulator import Answer, Thread, Trace, compile_trace, simulate
    >>> traces = [Trace(name, (Thread("organizer", (Answer(n),)),)) for name, n in (("A", 9), ("B", 4))]
    >>> pair = [simulate(compile_trace(trace)) for trace in traces]
    >>> axes = side_by_side(pair, notes=("earns 1.1", "earns 1.0"))
    >>> [each.get_title(loc="left") for each in axes.figure.axes]
    ['A: earns 1.1', 'B: earns 1.0']
    """
    if not 2 <= len(timelines) <= _MOST:
        raise ConfigError(f"from 2 to {_MOST} timelines go side by side, got {len(timelines)}")
    if notes and len(notes) != len(timelines):
        raise ConfigError(f"{len(timelines)} timelines need as many notes, got {len(notes)}")
    if not 3 <= width <= 40:
        raise ConfigError(f"width must be from 3 to 40 inches, got {width!r}")
    scenes = [compose(timeline, query) for timeline in timelines]
    from simulator.plots import canvas
    from simulator.plots.lanes import draw_lanes
    from simulator.plots.legend import draw_legend
    from simulator.plots.style import FONT, INK

    lanes = max(len(chart.lanes) for chart in scenes)
    height = _PITCH * min(max(lanes, _LANES[0]), _LANES[1])
    axes = canvas.panels_beside(len(scenes), width, height)
    unit = unit or canvas.time_unit(timelines[0])
    across = 72 * (width - 0.3) / len(scenes)
    length = max(chart.end - chart.start for chart in scenes)
    for ax, timeline, chart, note in zip(axes, timelines, scenes, notes or [""] * len(scenes), strict=True):
        pitch = 72 * height / max(lanes, _LANES[0])
        names = draw_lanes(ax, chart, pitch, pitch >= 4, 0.3 * across)
        title = printable(timeline.graphs[query].name, 100) + (f": {note}" if note else "")
        canvas.draw_title(ax, title, headline(timeline, query, chart, unit), across - names - 12)
        canvas.time_axis(ax, chart.start, chart.start + length, unit)
        ax.set_ylim(max(lanes, _LANES[0]) - 0.4, -0.5)  # lanes are equally high in all of them
    draw_legend(*axes, own=True)
    if caption:
        figure: Any = axes[0].figure
        lines = _wrapped(caption, 72 * (width - 0.4), FONT + 0.5)
        look: dict[str, Any] = {"fontsize": FONT + 0.5, "color": INK.text, "parse_math": False}
        figure.suptitle("\n".join(lines), x=0.01, ha="left", **look)
        figure.set_figheight(figure.get_figheight() + 0.17 * len(lines) + 0.1)
    return axes[0]


def _wrapped(text: str, room: float, size: float) -> list[str]:
    """Return `text` in lines of at most `room` points, broken between words."""
    from simulator.plots import canvas

    lines: list[str] = []
    for word in printable(text, 1000).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and canvas.text_width(longer, size) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
