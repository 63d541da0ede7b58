"""How tables and sentences fit on a screen: nothing of a value is ever cut."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.measure import measure_renderables
from rich.table import Column, Table

NARROW = 110
"""A screen of fewer columns has no room for all columns of the large tables."""
PROSE = 120
"""Longer lines are hard to read."""
FIRST = 24
"""Columns of the screen that what a row is about may take, where there is not room for all; it is folded there."""


def prose(text: str, width: int) -> str:
    """Return a paragraph in lines of at most `width`, and of `PROSE`, letters.

    >>> print(prose("eta: mean number of agents that are active at once.", 30))
    eta: mean number of agents
    that are active at once.
    """
    return textwrap.fill(" ".join(text.split()), min(width, PROSE), break_long_words=False, break_on_hyphens=False)


def fitted(table: Table, width: int) -> list[Table]:
    r"""Return a table as it fits on a screen: narrower, or as several below each other, each with the first column.

    First texts are folded in the columns that say they may be, then headings, then the space between columns is halved,
    then names in the first column are folded, and at last columns go into a table of their own.

    >>> table = Table("thread", "tokens", "saved at zero")
    >>> table.add_row("organizer", "1,234", "98,765,432")
    >>> [[column.header for column in each.columns] for each in fitted(table, 30)]
    [['thread', 'tokens'], ['thread', 'saved at\nzero']]
    """
    console = Console(width=100_000)
    wide = [_widths(console, column) for column in table.columns]
    needed = [least if _folds(column) else all_ for column, (least, all_) in zip(table.columns, wide, strict=True)]
    if not wide or sum(needed) + _between(table, len(wide)) <= width:
        return [table]
    headers = [_folded(column, least) for column, (least, _) in zip(table.columns, wide, strict=True)]
    table = _copy(table, range(len(wide)), headers)
    if sum(least for least, _ in wide) + _between(table, len(wide)) > width and len(wide) > 2:
        left, right = table.padding[3], table.padding[1]
        table.padding = (0, 0, 0, max(1, min(left, right)))
    between = _between(table, 2) - _between(table, 1)
    room = width - _between(table, 1)
    first = min(wide[0][0], max(FIRST, room - sum(least + between for least, _ in wide[1:])))
    table.columns[0].overflow, table.columns[0].no_wrap = "fold", False
    parts: list[list[int]] = [[]]
    left_over = room - first
    for place, (least, _) in enumerate(wide[1:], 1):
        if least + between > left_over and parts[-1]:
            parts.append([])
            left_over = room - first
        parts[-1].append(place)
        left_over -= least + between
    return [_copy(table, [0, *part]) for part in parts]


def _widths(console: Console, column: Column) -> tuple[int, int]:
    """Return how wide a column must be and would be. What may fold its cells has room for a word of its heading."""
    options = console.options
    cells = [*column.cells]
    word, body = measure_renderables(console, options, cells) if cells else (0, 0)
    words = max((cell_len(word) for word in str(column.header).split()), default=0)
    least = max(words, min(word, FIRST) if _folds(column) else body)
    return least, max(cell_len(str(column.header)), body)


def _folds(column: Column) -> bool:
    return column.overflow == "fold"


def _folded(column: Column, width: int) -> str:
    """Return a heading in as many lines as it needs in a column of that width."""
    return "\n".join(textwrap.wrap(str(column.header), max(width, 1), break_long_words=False)) or str(column.header)


def _between(table: Table, columns: int) -> int:
    """Return what `columns` columns take beside their cells: padding, a letter between two, and one at each end."""
    _, right, _, left = table.padding
    return columns * (left + right + 1) + 1 - (0 if table.pad_edge else left + right)


def _copy(table: Table, places: Sequence[int], headers: Sequence[str] | None = None) -> Table:
    """Return some columns of a table as a table."""
    made = Table(
        title=table.title if 1 in places else None,
        title_justify=table.title_justify,
        box=table.box,
        pad_edge=table.pad_edge,
        padding=table.padding,
    )
    for place in places:
        column = table.columns[place]
        made.add_column(
            headers[place] if headers else column.header,
            justify=column.justify,
            no_wrap=column.no_wrap,
            overflow=column.overflow,
            min_width=column.min_width,
        )
    lines = zip(*([*table.columns[place].cells] for place in places), strict=True)
    for row, cells in zip(table.rows, lines, strict=True):
        made.add_row(*cells, end_section=row.end_section)
    return made
