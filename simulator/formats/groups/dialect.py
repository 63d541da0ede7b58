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
    outline: str = "Outline"
    """The tag around each entry of the plan."""
    block: str | None = "Parallel"
    """The tag around a block; None: a plan begins it, and the end of its summary ends it."""
    flat: bool = False
    """Whether paths do not nest: within a path every tag but its end is text."""
    tags: re.Pattern[str] = field(init=False, repr=False)

    @property
    def never_closed(self) -> str:
        """What is said of a block that nothing ends."""
        return f"<{self.block}> is never closed" if self.block else f"<{self.plan}> has no </{self.summary}>"

    def __post_init__(self) -> None:
        names = [self.block, self.path, self.summary] if self.block else [self.path, self.summary]
        names += [self.plan, self.outline] if self.plan else []
        names += ["[Tt]hink"] if self.think else []
        object.__setattr__(self, "tags", re.compile(f"(</?(?:{'|'.join(names)})>)"))
