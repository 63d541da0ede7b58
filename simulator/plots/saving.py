"""Writing a picture to a file."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.errors import ConfigError
from simulator.support.files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What would differ from run to run, or say which machine drew it.
_METADATA: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}


def save(figure: Figure | Axes, path: str | os.PathLike[str], *, dpi: float = 150) -> Path:
    """Write a picture to `path`; the same picture gives the same bytes.

    The file appears whole or not at all (see `simulator.support.files.atomic`).

    Parameters
    ----------
    figure : Figure or Axes
        What `gantt`, `concurrency` or `batch` returned, or its figure.
    path : str or path-like
        Its suffix chooses the format: ``.png``, ``.svg`` or ``.pdf``.
    dpi : float
        Pixels per inch of a PNG.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    ConfigError
        If the suffix is another, `dpi` is not from 10 to 1200, or the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from simulator import Answer, Thread, Trace, compile_trace, simulate
    >>> timeline = simulate(compile_trace(Trace("t", (Thread("organizer", (Answer(4),)),))))
    >>> from simulator.plots import gantt
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(gantt(timeline), f"{folder}/t.png").name
    't.png'
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in _METADATA:
        raise ConfigError(f"a picture is saved as {', '.join(_METADATA)}; got {str(target)!r}")
    if not 10 <= dpi <= 1200:
        raise ConfigError(f"dpi must be from 10 to 1200, got {dpi!r}")
    with atomic(target, "wb") as file:
        file.write(rendered(figure, suffix, dpi))
    return target


def rendered(figure: Figure | Axes, suffix: str, dpi: float = 100) -> bytes:
    """Return a picture as the bytes of a file.

    >>> from simulator import Answer, Thread, Trace, compile_trace, simulate
    >>> timeline = simulate(compile_trace(Trace("t", (Thread("organizer", (Answer(4),)),))))
    >>> from simulator.plots import gantt
    >>> rendered(gantt(timeline), ".png")[1:4]
    b'PNG'
    """
    from matplotlib import rc_context

    drawing: Any = figure
    while getattr(drawing, "figure", drawing) is not drawing:  # from axes, or a part of a figure, up to the whole
        drawing = drawing.figure
    # Journals refuse Type 3 fonts; without a salt the ids in an SVG are random.
    style: Any = {"pdf.fonttype": 42, "svg.hashsalt": "forksim", "hatch.linewidth": 0.6}
    file = BytesIO()
    with rc_context(style):
        drawing.savefig(file, format=suffix[1:], dpi=dpi, metadata=_METADATA[suffix])
    return file.getvalue()
