"""What tells one group dialect from another."""

from __future__ import annotations

import re
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Dialect:
    """The tags of one group dialect and what its answer looks like."""

    name: str
    path: str
    """The tag around one path."""
    plan: str | None
    """The tag around the ``<Outline>`` tags before the paths."""
    summary: str
    """The tag around what the parent concludes from the paths."""
    summary_inside: bool
    """Whether the summary stands in the block or follows it."""
    think: str | None
    """The tag around the organizer's thinking, after which the answer follows."""
    answer_signs: tuple[str, ...]
    """Without a thinking tag, the answer is the line of the last one of these; the first that is found decides."""
    newline: str
    """What `render` writes after an opening and before a closing tag."""
    flat: bool = False
    """Whether paths do not nest: within a path every tag but its end is text."""
    tags: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        names = ["Parallel", self.path, self.summary]
        names += [self.plan, "Outline"] if self.plan else []
        names += ["[Tt]hink"] if self.think else []
        object.__setattr__(self, "tags", re.compile(f"(</?(?:{'|'.join(names)})>)"))
