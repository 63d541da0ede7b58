r"""Parallel-R1 text (arXiv 2509.07980, github.com/zhengkid/Parallel-R1).

::

    text <Parallel>
    <Path>text of path 1</Path>
    <Path>text of path 2</Path>
    </Parallel>
    <Summary>what follows from the paths</Summary>
    text
    Final Answer: ...

The organizer decodes ``<Parallel>``, ``</Parallel>`` and the Summary after it. A path's worker decodes ``<Path>``, its
text and ``</Path>``. There is no plan: a Fork has no sub-query.

The Answer is the line of the last ``Final Answer``, or if there is none of the last ``\boxed{``, and all that follows;
it must follow the last block and its Summary.

`simulator.formats.groups.blocks` says how the rest is read and what becomes of malformed text.
"""

from __future__ import annotations

from simulator.formats.groups import blocks, layout
from simulator.formats.groups.dialect import Dialect
from simulator.trace import Outcome, Trace
from simulator.trace.tokens import TokenCounter, by_characters

__all__ = ["detect", "parse", "render"]

DIALECT = Dialect(
    name="parallel_r1",
    path="Path",
    plan=None,
    summary="Summary",
    summary_inside=False,
    think=None,
    answer_signs=("Final Answer", "\\boxed{"),
    newline="\n",
)


def parse(
    text: str,
    *,
    id: str = "trace",
    count: TokenCounter = by_characters,
    keep_text: bool = True,
    outcome: Outcome | None = None,
) -> Trace:
    r"""Return the Trace of a Parallel-R1 output. Nothing in a text raises.

    Parameters
    ----------
    text : str
        The whole output.
    id : str
        The trace's name.
    count : callable
        Counts the tokens of a piece of text.
    keep_text : bool
        Whether actions keep their text. Scoring does not need it.
    outcome : Outcome, optional
        How the answer was judged.

    Examples
    --------
    >>> trace = parse("<Parallel><Path>odd</Path><Path>even</Path></Parallel><Summary>both</Summary>\nFinal Answer: 9")
    >>> [type(action).__name__ for action in trace.organizer.actions]
    ['Think', 'Fork', 'Fork', 'Join', 'Join', 'Think', 'Answer']
    >>> trace.organizer.actions[-1].text
    'Final Answer: 9'
    """
    return blocks.parse(text, DIALECT, id=id, count=count, keep_text=keep_text, outcome=outcome)


def render(trace: Trace) -> str:
    """Return `trace` as Parallel-R1 text. Actions without text are filled with neutral words.

    Raises
    ------
    FormatError
        If the trace does more than fork groups of paths and wait for all of each.

    >>> text = "<Parallel><Path>odd</Path><Path>even</Path></Parallel>"
    >>> render(parse(text)) == text
    True
    """
    return layout.render(trace, DIALECT)


def detect(text: str) -> bool:
    r"""Return whether `text` answers as this dialect does, or holds a tag of it.

    Its siblings have these tags too, and others: `simulator.formats.detect` asks them first.

    >>> detect("<Parallel><Path>"), detect("9\nFinal Answer: 9"), detect("<think>")
    (True, True, False)
    """
    return any(sign in text for sign in ("<Parallel>", "<Path>", "<Summary>", "\nFinal Answer:"))
