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

>>> trace = parse("<Parallel><Path>odd</Path><Path>even</Path></Parallel><Summary>both</Summary>\nFinal Answer: 9")
>>> [type(action).__name__ for action in trace.organizer.actions]
['Think', 'Fork', 'Fork', 'Join', 'Join', 'Think', 'Answer']
>>> trace.organizer.actions[-1].text
'Final Answer: 9'
>>> text = "<Parallel><Path>odd</Path><Path>even</Path></Parallel>"
>>> render(parse(text)) == text
True
"""

from __future__ import annotations

from functools import partial

from simulator.formats.groups import blocks, layout
from simulator.formats.groups.dialect import Dialect
from simulator.trace.answers import BOXED

DIALECT = Dialect(
    name="parallel_r1",
    path="Path",
    plan=None,
    summary="Summary",
    summary_inside=False,
    think=None,
    answer_signs=("Final Answer", BOXED),
    newline="\n",
)

parse = partial(blocks.parse, dialect=DIALECT)
render = partial(layout.render, dialect=DIALECT)


def detect(text: str) -> bool:
    r"""Return whether `text` answers as this dialect does, or holds a tag of it.

    Its siblings have these tags too, and others: `simulator.formats.detect` asks them first.

    >>> detect("<Parallel><Path>"), detect("9\nFinal Answer: 9"), detect("<think>")
    (True, True, False)
    """
    return any(sign in text for sign in ("<Parallel>", "<Path>", "<Summary>", "\nFinal Answer:"))
