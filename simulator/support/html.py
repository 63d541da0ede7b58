"""What notebooks show: tables as plain HTML, with every text escaped, and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

PICTURES: dict[type, Callable[[Any], bytes]] = {}
"""How something is drawn as a PNG, by type. What is drawn knows no plots: the package that exports both fills this."""


def html_table(titles: Sequence[str], rows: Iterable[Sequence[Any]], note: str = "") -> str:
    """Return a table; numbers are written to four digits, and stand at the right.

    >>> html_table(["metric", "<b>"], [["eta", 1.23456]], note="of t")
    '<table><thead><tr><th>metric</th><th>&lt;b&gt;</th></tr></thead><tbody><tr><td>eta</td>...</table><p>of t</p>'
    """
    head = "".join([f"<th>{escape(title)}</th>" for title in titles])
    body = "".join([f"<tr>{''.join([_cell(value) for value in row])}</tr>" for row in rows])
    after = f"<p>{escape(note)}</p>" if note else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{after}"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f'<td style="text-align: right">{escape(f"{value:,.4g}")}</td>'
    if isinstance(value, int) and not isinstance(value, bool):
        return f'<td style="text-align: right">{value:,}</td>'
    return f"<td>{escape('' if value is None else str(value)[:200])}</td>"
