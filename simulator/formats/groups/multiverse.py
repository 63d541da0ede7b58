r"""Multiverse text (arXiv 2506.09991, github.com/Multiverse4FM/Multiverse).

::

    <Think>
    text <Parallel>
    <Goal>
    <Outline>
    1: what path 1 is for
    </Outline>
    </Goal>
    <Path>
    1: text of path 1, which may hold a block of its own, with paths 1.1, 1.2, ...
    </Path>
    <Conclusion>
    what follows from the paths
    </Conclusion>
    </Parallel>
    text </Think>
    Answer: ...

The organizer (or the path that holds the block) decodes ``<Parallel>``, the Goal with its Outlines, the Conclusion and
``</Parallel>``. A path's worker decodes ``<Path>``, its text and ``</Path>``. Paths make the Forks: there may be more
or fewer Outlines.

The Answer is the text after ``</Think>``, if there is more than the word ``Answer:``. A text without any ``Think`` tag
answers in the line of its last ``\boxed{``, if that follows its last block. A text cut off while thinking has no
Answer.

`simulator.formats.groups.blocks` says how the rest is read and what becomes of malformed text.
"""

from __future__ import annotations

import re

from simulator.formats.groups import blocks, layout
from simulator.formats.groups.dialect import Dialect
from simulator.trace import Outcome, Trace
from simulator.trace.tokens import TokenCounter, by_characters

__all__ = ["detect", "parse", "render"]

_OWN = re.compile("<(?:Goal|/?Think)>")
DIALECT = Dialect(
    name="multiverse",
    path="Path",
    plan="Goal",
    summary="Conclusion",
    summary_inside=True,
    think="Think",
    answer_signs=("\\boxed{",),
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
    """Return the Trace of a Multiverse output. Nothing in a text raises.

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
    >>> trace = parse("<Parallel><Goal></Goal><Path>1: odd</Path><Path>2: even</Path></Parallel>")
    >>> [type(action).__name__ for action in trace.organizer.actions]
    ['Think', 'Fork', 'Fork', 'Join', 'Join', 'Think']
    >>> trace.thread("2")
    Thread(id='2', actions=(Return(tokens=5, text='<Path>2: even</Path>', start=None, finish=None),), prompt_tokens=6, \
shared_tokens=6, label='2')
    """
    return blocks.parse(text, DIALECT, id=id, count=count, keep_text=keep_text, outcome=outcome)


def render(trace: Trace) -> str:
    """Return `trace` as Multiverse text. Actions without text are filled with neutral words.

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
    """Return whether `text` holds a tag that only this dialect has.

    >>> detect("<Think>so"), detect("<Parallel><Path>")
    (True, False)
    """
    return _OWN.search(text) is not None or ("<Path>" in text and ("<Outline>" in text or "<Conclusion>" in text))
