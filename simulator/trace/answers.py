"""Which answer counts: one rule for the clock, the gate and the judge."""

from __future__ import annotations

import re

from simulator.trace.model import Answer, Trace
from simulator.trace.protocol import Protocol

BOXED = "\\boxed{"
_BRACE = re.compile("[{}]")
_DEFAULT = Protocol()


def answer_of(trace: Trace, protocol: Protocol = _DEFAULT) -> str | None:
    """Return the text of the Answer that counts: the last, or with ``after_end="ignore"`` the first.

    >>> from simulator.trace import Think, Thread
    >>> twice = Trace("t", (Thread("organizer", (Answer(1, "8"), Think(1), Answer(1, "9"))),))
    >>> answer_of(twice), answer_of(twice, Protocol(after_end="ignore"))
    ('9', '8')
    """
    actions = trace.threads[0].actions
    for action in actions if protocol.after_end == "ignore" else reversed(actions):
        if type(action) is Answer:
            return action.text
    return None


def boxed_answer(text: str, start: int = 0) -> int:
    r"""Return where the last ``\boxed{...}`` from `start` on begins if it is an answer, or -1.

    It is one if its braces are closed, something stands in them, and the text ends with that line.

    >>> [boxed_answer(text) for text in (r"so \boxed{\frac{1}{2}}.", r"\boxed{", r"\boxed{ }", "\\boxed{1}.\nMore.")]
    [3, -1, -1, -1]
    """
    found = text.rfind(BOXED, start)
    if found < 0:
        return -1
    inside = found + len(BOXED)
    end = closing_brace(text, inside)
    if end < 0 or not text[inside:end].strip():
        return -1
    _, _, after = text[end:].partition("\n")
    return -1 if any(character.isalnum() for character in after) else found


def closing_brace(text: str, start: int) -> int:
    """Return where the brace is closed that was opened just before `start`, or -1.

    >>> closing_brace("{a{b}c}d", 1), closing_brace("{a", 1)
    (6, -1)
    """
    depth = 1
    for match in _BRACE.finditer(text, start):
        depth += 1 if match[0] == "{" else -1
        if not depth:
            return match.start()
    return -1
