"""A thread of a server: a text that grows, piece by piece, each with its tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Text:
    """A thread's text in pieces, each with its tokens. In a chat the first piece is the user's."""

    parts: list[tuple[str, int]] = field(default_factory=list)
    tokens: int = 0
    live: int = 0
    """Number of its generation, 0 if it has none."""
    task: Any = None
    said: list[str] = field(default_factory=list)
    """What the generation has said so far."""
    fresh: bool = False
    """Whether the last piece is what a generation said."""

    def add(self, text: str, tokens: int) -> None:
        """Append a piece."""
        self.fresh = False
        self.parts.append((text, tokens))
        self.tokens += tokens

    def prefix(self, tokens: int) -> Text:
        """Return a context that begins as this one does."""
        new = Text()
        for text, count in self.parts:
            left = tokens - new.tokens
            if count > left:
                if left:
                    new.add(text[: len(text) * left // count], left)
                break
            new.add(text, count)
        return new
