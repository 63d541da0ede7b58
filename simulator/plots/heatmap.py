"""A metric over two axes of a study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simulator.errors import ConfigError
from simulator.plots.means import Points, axis_name, higher_is_better, label_of, shown
from simulator.plots.style import FONT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from simulator.study.table import Table

_SMALLEST = 5.0  # points of the numbers in the cells
_SIDE, _BELOW = 130.0, 90.0  # points of a name beside the rows, and beneath the columns
_WIDE = 30.0  # from this ratio of largest to smallest on, colours are on a logarithmic scale
_DARK = 0.179  # luminance from which on black is easier to read than white (WCAG 2, equal contrast)


def heatmap(table: Table, *, x: str, y: str, metric: str = "latency_mean", ax: Axes | None = None) -> Axes:
    """Draw the mean of a metric over two axes of a study as colours and numbers.

    Hatched cells have no value. The best cell has a frame. Numbers are left out where cells are too small for them.

    Parameters
    ----------
    table : Table
        Of a study.
    x, y : str
        Axes, of numbers (in rising order) or texts (in the study's order).
    metric : str
        A column of metrics.
    ax : Axes, optional
        Default: those of a new figure. The colour bar takes some of their room.

    Returns
    -------
    Axes

    Raises
    ------
    ConfigError
        If there is no such column, `x` and `y` are one, or another axis has several values.

    Examples
    --------
    >>> import numpy as np
    >>> from simulator.study import Table
    >>> columns = {"point": [0, 1, 2], "c": [1, 2, 2], "gpu": ["a", "a", "b"], "eta": [1.0, 2.0, 3.0]}
    >>> columns["error"] = [None] * 3
    >>> table = Table(columns={k: np.array(v) for k, v in columns.items()}, axes=("c", "gpu"), metrics=("eta",))
    >>> axes = heatmap(table, x="c", y="gpu", metric="eta")
    >>> [text.get_text() for text in axes.texts if text.get_gid() == "value"]
    ['1', '2', '3']
    """
    points = Points(table)
    found = points.metric(metric).value
    columns, rows = _places(points.axis(x)), _places(points.axis(y))
    if x == y:
        raise ConfigError(f"a heat map is over two axes, got {x} twice")
    points.covered(x, y)
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm, Normalize

    from simulator.plots import canvas, marks

    shape = (len(rows), len(columns))
    values, failed = np.full(shape, np.nan), np.zeros(shape, dtype=bool)
    for i, (across, up) in enumerate(zip(points.axis(x), points.axis(y), strict=True)):
        values[rows[up], columns[across]] = found[i]
        failed[rows[up], columns[across]] = points.failures[i] > 0
    own = ax is None
    if ax is None:
        ax = canvas.one_panel(min(max(2.6 + 0.62 * shape[1], 5.5), 15), min(max(1.5 + 0.38 * shape[0], 2.8), 12))
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    norm: Any = LogNorm(low, high) if low > 0 and high >= _WIDE * low else Normalize(low, high)
    shades = colormaps["cividis"]
    kept = np.ma.masked_invalid(values)
    mesh = ax.pcolormesh(kept, cmap=shades, norm=norm, edgecolors="white", linewidth=0.6, gid="cells")
    _hatch(ax, ~np.isfinite(values))
    _name(ax, "x", list(columns), axis_name(x))
    _name(ax, "y", list(rows), axis_name(y))
    _colour_bar(ax, mesh, label_of(metric, table.unit))
    figure: Any = ax.figure
    figure.draw_without_rendering()  # lays it out, so that the room of the title and of the numbers is known
    facts = points.facts(metric, intervals=False)
    higher = higher_is_better(metric)
    if len(finite) and higher is not None:
        loss = np.where(np.isfinite(values), -values if higher else values, np.inf)
        row, column = (int(i) for i in np.unravel_index(int(loss.argmin()), shape))
        _frame(ax, column, row)
        where = f"{axis_name(x)} = {shown(list(columns)[column])}, {axis_name(y)} = {shown(list(rows)[row])}"
        facts.insert(0, f"best: {shown(float(values[row, column]))} at {where}")
    entries: list[tuple[Any, str]] = []
    if failed.any():
        at = np.argwhere(failed).astype(np.float64)
        marks.mark_failed(ax, at[:, 1] + 0.86, at[:, 0] + 0.8)
        entries.append((marks.swatch("failed"), "a run failed"))
    if not np.isfinite(values).all():
        entries.append((_swatch_of_nothing(), "no value"))
    marks.finish(ax, f"{points.title(metric)} by {axis_name(x)} and {axis_name(y)}", facts, entries, own=own, grid="")
    ax.grid(False)
    ax.spines[:].set_visible(False)
    _write(ax, values, lambda value: shades(norm(value)))
    return ax


def _places(values: list[Any]) -> dict[Any, int]:
    """Return the place of each value along its axis."""
    different = list(dict.fromkeys(values))
    if not any(isinstance(value, (str, bool)) or value is None for value in different):
        different.sort()
    return {value: place for place, value in enumerate(different)}


def _name(ax: Any, which: str, values: list[Any], label: str) -> None:
    """Write the values along an axis, as many as there is room for."""
    from simulator.plots import canvas

    room = canvas.points_of(ax)[which == "y"]
    most = _SIDE if which == "y" else _BELOW
    texts = [canvas.fitted(shown(value), FONT, most) for value in values]
    widest = max(canvas.text_width(text, FONT) for text in texts) + 6
    slanted = which == "x" and widest * len(texts) > room and any(isinstance(value, str) for value in values)
    need = FONT + 4 if which == "y" or slanted else widest
    every = max(1, int(np.ceil(need * len(texts) / room)))
    axis = getattr(ax, f"{which}axis")
    axis.set_ticks(np.arange(len(texts))[::every] + 0.5, texts[::every], parse_math=False)
    if slanted:
        for text in axis.get_ticklabels():
            text.set(rotation=30, ha="right", rotation_mode="anchor")
    look: dict[str, Any] = {"fontsize": FONT + 0.5, "color": INK.text, "parse_math": False}
    axis.set_label_text(canvas.fitted(label, FONT + 0.5, 0.95 * room), **look)


def _colour_bar(ax: Any, mesh: Any, label: str) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    bar = ax.figure.colorbar(mesh, ax=ax, pad=0.02, fraction=0.06)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=FONT, colors=INK.text, length=2)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(float(value))))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.set_label(label, fontsize=FONT, color=INK.text, parse_math=False)


def _hatch(ax: Any, cells: NDArray[np.bool_]) -> None:
    from matplotlib.patches import Rectangle

    from simulator.plots.style import set_hatch

    for row, column in np.argwhere(cells).tolist():
        cell = Rectangle((column, row), 1, 1, facecolor="white", edgecolor=INK.faint, linewidth=0.6, gid="missing")
        set_hatch(cell, "////")
        ax.add_patch(cell)


def _swatch_of_nothing() -> Any:
    from matplotlib.patches import Patch

    from simulator.plots.style import set_hatch

    patch = Patch(facecolor="white", edgecolor=INK.faint, linewidth=0.6)
    set_hatch(patch, "////")
    return patch


def _frame(ax: Any, column: int, row: int) -> None:
    from matplotlib.patches import Rectangle

    style: dict[str, Any] = {"fill": False, "edgecolor": INK.cut, "linewidth": 2, "zorder": 4, "gid": "best"}
    ax.add_patch(Rectangle((column + 0.03, row + 0.04), 0.94, 0.92, **style))


def _write(ax: Any, values: NDArray[np.float64], shade: Any) -> None:
    """Write the value of each cell, in black or white, if there is room."""
    from simulator.plots import canvas

    texts = {place: shown(float(value)) for place, value in np.ndenumerate(values) if np.isfinite(value)}
    if not texts:
        return
    scale = 72 / ax.figure.dpi
    width, height = (scale * side for side in (ax.bbox.width / values.shape[1], ax.bbox.height / values.shape[0]))
    widest = max(canvas.text_width(text, FONT) for text in texts.values())
    size = min(FONT, FONT * 0.9 * width / widest, 0.7 * height)
    if size < _SMALLEST:
        return
    for (row, column), text in texts.items():
        color = "black" if _luminance(shade(values[row, column])) > _DARK else "white"
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size, "color": color}
        ax.text(column + 0.5, row + 0.5, text, gid="value", **style)


def _luminance(color: Sequence[float]) -> float:
    """Return the relative luminance of an RGB colour, as WCAG 2 defines it."""
    linear: list[float] = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
