"""What the marks of a picture mean."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from simulator.plots.canvas import text_width
from simulator.plots.style import FONT, INK, STYLES, set_hatch

_HANDLE = 30.0  # points of a handle and the gaps around it
_DOTS = {"linewidth": 0.9, "linestyle": (0, (1, 2))}
_ARROW = {"color": INK.arrow, "linewidth": 0.8, "markersize": 4, "markeredgewidth": 0}

_MARKS: dict[str, tuple[str, dict[str, Any]]] = {
    "cut": ("cancelled", {"color": INK.cut, "linestyle": "none", "marker": "x", "markersize": 5}),
    "stuck": ("waits in vain", {"color": INK.cut, **_DOTS}),
    "brief": ("takes hardly any time", {"color": INK.curve, "linestyle": "none", "marker": "D", "markersize": 4}),
    "fork head": ("Fork", {"marker": "v", **_ARROW}),
    "join head": ("Join", {"marker": "^", **_ARROW}),
    "rest": ("done, not yet joined", {"color": INK.arrow, **_DOTS}),
    "few": ("Forks and Joins, thinned", {"color": INK.faint, "linewidth": 0.8}),
    "critical_path": ("critical path", {"color": INK.path, "linewidth": 2.4}),
}


def draw_legend(ax: Axes, *others: Axes, own: bool) -> None:
    """Explain what is in `ax` and `others`: beneath everything in a figure of our own, else to the right of `ax`."""
    drawn: dict[str, Any] = {str(artist.get_gid()): artist for each in (ax, *others) for artist in each.get_children()}
    if {"fork", "join"} & drawn.keys() and not {"fork head", "join head"} & drawn.keys():
        drawn["few"] = None
    entries: list[tuple[Any, str]] = [
        (_swatch(drawn[kind]), style.label) for kind, style in STYLES.items() if kind in drawn
    ]
    for gid, (label, mark) in _MARKS.items():
        if gid in drawn:
            handle: Any = Line2D([], [], **mark)
            bars = next((artist for name, artist in drawn.items() if name.endswith(" cancelled")), None)
            if gid == "cut" and bars is not None:
                handle = (_swatch(bars), handle)  # here too the cross stands on its bar
            entries.append((handle, label))
    place_legend(ax, entries, own=own)


def place_legend(ax: Axes, entries: list[tuple[Any, str]], *, own: bool) -> int:
    """Write pairs of handle and label: beneath everything in a figure of our own, else to the right of `ax`.

    Returns how many rows that takes.
    """
    if not entries:
        return 0
    rows = len(entries)
    look: dict[str, Any] = {"fontsize": FONT - 0.5, "frameon": False, "labelcolor": INK.text}
    look |= {"handlelength": 1.8, "handletextpad": 0.5}
    if own:
        figure: Any = ax.figure
        widths = [text_width(label, FONT - 0.5) + _HANDLE for _, label in entries]
        room = 72 * figure.get_figwidth()
        fits = (n for n in range(len(entries), 1, -1) if sum(max(widths[i::n]) for i in range(n)) <= room)
        rows = math.ceil(len(entries) / next(fits, 1))
        columns = math.ceil(len(entries) / rows)  # no row much shorter than the others
        # matplotlib fills column after column; people read row after row.
        entries = [entries[i] for column in range(columns) for i in range(column, len(entries), columns)]
        handles, labels = zip(*entries, strict=True)
        look |= {"loc": "outside lower center", "ncols": columns, "columnspacing": 1.4}
        legend = figure.legend(handles, labels, **look)
    else:
        handles, labels = zip(*entries, strict=True)
        legend = ax.legend(handles, labels, loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, **look)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return rows


def _swatch(bars: PolyCollection) -> Patch:
    colors: list[Any] = [bars.get_facecolor(), bars.get_edgecolor()]
    patch = Patch(facecolor=colors[0][0], edgecolor=colors[1][0], linewidth=0.6)
    set_hatch(patch, bars.get_hatch())
    return patch
