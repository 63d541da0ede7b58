r"""Text of the Native Parallel Reasoner, NPR (arXiv 2512.07461).

::

    <guideline>
    <plan>1: what step 1 is for</plan>
    <plan>2: what step 2 is for</plan>
    </guideline>
    <step>1: text of step 1</step>
    <step>2: text of step 2</step>
    <takeaway>what follows from the steps</takeaway>
    ... \boxed{...}

A block has no tag of its own: ``<guideline>`` begins it and ``</takeaway>`` ends it. The organizer (or the step that
holds the block) decodes the guideline with its plans, and the takeaway. A step's worker decodes ``<step>``, its text
and ``</step>``. Steps make the Forks: there may be more or fewer plans.

The Answer is the line of the last ``\boxed{``, which may stand in the last takeaway, and all that follows.

`simulator.formats.groups.blocks` says how the rest is read and what becomes of malformed text. The tags are as the
paper describes them; no recorded outputs were at hand.

>>> trace = parse("<guideline><plan>1: a</plan></guideline><step>1: b</step><takeaway>so \\boxed{9}</takeaway>")
>>> [type(action).__name__ for action in trace.organizer.actions], trace.faults
(['Think', 'Fork', 'Join', 'Think', 'Answer'], ())
>>> text = "<guideline></guideline><step>odd</step><step>even</step><takeaway></takeaway>"
>>> render(parse(text)) == text
True
"""

from __future__ import annotations

from functools import partial

from simulator.formats.groups import blocks, layout
from simulator.formats.groups.dialect import Dialect
from simulator.trace.answers import BOXED

DIALECT = Dialect(
    name="npr",
    path="step",
    plan="guideline",
    outline="plan",
    summary="takeaway",
    summary_inside=True,
    block=None,
    think=None,
    answer_signs=(BOXED,),
    newline="",
)

parse = partial(blocks.parse, dialect=DIALECT)
render = partial(layout.render, dialect=DIALECT)


def detect(text: str) -> bool:
    """Return whether `text` holds a tag that only this dialect has.

    >>> detect("so <guideline>"), detect("so <step>")
    (True, False)
    """
    return "<guideline>" in text or "<takeaway>" in text
