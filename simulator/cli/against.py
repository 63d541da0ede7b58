"""The part of ``forksim audit`` that compares two rewards."""

from __future__ import annotations

from typing import Any, NamedTuple

from simulator.audit import Audit, TextSearch
from simulator.cli.common import say, show, table
from simulator.cli.report import number, printable


class Open(NamedTuple):
    """How far a reward is open to one exploit, or forgery."""

    found: int
    tried: int
    most: float


class Compared:
    """What was found of two rewards."""

    def __init__(self, one: Audit, one_texts: list[TextSearch], other: Audit, other_texts: list[TextSearch]) -> None:
        self.one = _opened(one, one_texts)
        self.other = _opened(other, other_texts)

    @property
    def worse(self) -> list[str]:
        """What the first is open to and the second is not; only of what both were searched for."""
        return [
            name for name, each in self.one.items() if each.found and name in self.other and not self.other[name].found
        ]

    def records(self, name: str) -> list[dict[str, Any]]:
        """Return the figures of the second reward, as JSON lines have them."""
        lines: list[dict[str, Any]] = [
            {"against": name, "exploit": exploit, "tried": each.tried, "found": each.found, "largest_gain": each.most}
            for exploit, each in self.other.items()
        ]
        return [*lines, {"compared": {"against": name, "worse": self.worse}}]

    def print(self, name: str, other: str) -> None:
        """Print a table of what either is open to."""
        say()
        say(f"{printable(name, 40)} against {printable(other, 40)}: how often each was found, and the most it gains")
        lines = table("exploit", "found", "most", "found, other", "most, other")
        names = [exploit for exploit in {**self.one, **self.other} if self._open(exploit)]
        for exploit in names:
            lines.add_row(exploit, *_cells(self.one.get(exploit)), *_cells(self.other.get(exploit)))
        if names:
            show(lines)
        only = ", ".join(self.worse)
        say(f"open only here: {only}" if only else "open to nothing that the other is not open to")

    def _open(self, exploit: str) -> bool:
        return any(each[exploit].found for each in (self.one, self.other) if exploit in each)


def _opened(audit: Audit, texts: list[TextSearch]) -> dict[str, Open]:
    found = {each.exploit: Open(each.found, each.tried, each.largest_gain) for each in audit.searches}
    return found | {each.forgery: Open(each.found, each.tried, each.largest_gain) for each in texts}


def _cells(each: Open | None) -> tuple[str, str]:
    if each is None:
        return "not tried", ""
    return f"{each.found:,} of {each.tried:,}", number(each.most) if each.found else ""
