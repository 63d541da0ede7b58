"""Colours and sizes. Every colour has a partner that is not a colour (thickness, hatch, mark): print it in grey."""

from __future__ import annotations

from typing import Any, NamedTuple

from simulator.timeline import SpanKind

FONT = 8.0
"""Points of most text."""


class BarStyle(NamedTuple):
    """How one kind of span looks."""

    label: str
    face: str
    edge: str
    """Of the outline, and of the hatch."""
    height: float
    """Of a lane's height."""
    hatch: str | None = None
    flat: str | None = None
    """The face where lanes are too low for a hatch."""


# Okabe and Ito's palette, which the colour-blind can tell apart; the waits are pale tints of it, on white.
STYLES: dict[SpanKind, BarStyle] = {
    SpanKind.DECODE: BarStyle("decodes", "#56B4E9", "#56B4E9", 0.62),
    SpanKind.PREFILL: BarStyle("prefill", "#003F66", "#003F66", 0.34),
    SpanKind.DELAY: BarStyle("delay (off the GPU)", "#E69F00", "#6E4C00", 0.62, "....", "#E69F00"),
    SpanKind.WAIT_JOIN: BarStyle("waits for a Join", "#FFFFFF", "#A8A8A8", 0.34, "/////", "#DADADA"),
    SpanKind.WAIT_POOL: BarStyle("waits for a slot", "#F6DDEB", "#B5568A", 0.34, None, "#EBC0D8"),
    SpanKind.WAIT_BATCH: BarStyle("waits for the batch", "#FBF3B4", "#A08A00", 0.34, "|||||", "#EEDF7E"),
}

CANCELLED = BarStyle("cancelled", "#D9EEFA", "#56B4E9", 0.62)
"""Work that was cut short: an outline of what it would have been."""

KINDS: tuple[tuple[str, str], ...] = (
    ("o", "#0072B2"),
    ("^", "#D55E00"),
    ("s", "#009E73"),
    ("D", "#CC79A7"),
    ("v", "#E69F00"),
    ("P", "#56B4E9"),
    ("X", "#6B6B6B"),
    ("<", "#7A3B00"),
)
"""Marker and colour of the first, second, ... kind of points."""


class INK:
    """Colours of what is no bar."""

    path = "#111111"
    arrow = "#6B6B6B"
    faint = "#C4C4C4"
    """Arrows where there are very many."""
    cut = "#D55E00"
    overflow = "#D55E00"
    capacity = "#7A3B00"
    curve = "#0072B2"
    under_curve = "#CFE6F5"
    text = "#222222"
    quiet = "#666666"
    answer = "#8C8C8C"
    grid = "#E3E3E3"
    band = "#F7F7F7"


def set_hatch(artist: Any, hatch: str | None) -> None:
    """Hatch a bar with thin lines; before matplotlib 3.10, only `save` can make them thin."""
    artist.set_hatch(hatch)
    if hasattr(artist, "set_hatch_linewidth"):
        artist.set_hatch_linewidth(0.6)
