r"""ThreadWeaver text (arXiv 2512.07843, github.com/facebookresearch/threadweaver).

::

    <think>
    text <Parallel>
    <Outlines>
    <Outline>1: what thread 1 is for</Outline>
    </Outlines>
    <Thread>1: text of thread 1</Thread>
    </Parallel>
    text </think>
    ... \boxed{...}

Earlier versions close a block with ``<Conclusion>...</Conclusion>``, which is read too.

The dialect is flat. It is read as its own reward reads it (``get_parallel_stats`` of version 2): within a thread every
tag but ``</Thread>`` is text, also ``</Parallel>`` and another ``<Thread>``; within a block so is ``<Parallel>``; a
thread or block that nothing ends goes on to the end of the text; what stands between threads is the organizer's.

The organizer decodes ``<Parallel>``, the Outlines, a Conclusion and ``</Parallel>``. A thread's worker decodes
``<Thread>``, its text and ``</Thread>``. Threads make the Forks: there may be more or fewer Outlines.

The Answer is the text after ``</think>``; the opening ``<think>`` may have been part of the prompt. A text without any
``think`` tag answers in the line of its last ``\boxed{``, if that follows its last block. A text cut off while thinking
has no Answer.

`simulator.formats.groups.blocks` says how the rest is read and what becomes of malformed text.

>>> trace = parse("<think>so <Parallel><Thread>1: odd</Thread><Thread>2: even</Thread></Parallel></think>9")
>>> [type(action).__name__ for action in trace.organizer.actions]
['Think', 'Fork', 'Fork', 'Join', 'Join', 'Think', 'Answer']
>>> text = "<Parallel><Thread>odd</Thread><Thread>even</Thread></Parallel>"
>>> render(parse(text)) == text
True
"""

from __future__ import annotations

from functools import partial

from simulator.formats.groups import blocks, layout
from simulator.formats.groups.dialect import Dialect
from simulator.trace.answers import BOXED

DIALECT = Dialect(
    name="threadweaver",
    path="Thread",
    plan="Outlines",
    summary="Conclusion",
    summary_inside=True,
    think="think",
    answer_signs=(BOXED,),
    newline="",
    flat=True,
)

parse = partial(blocks.parse, dialect=DIALECT)
render = partial(layout.render, dialect=DIALECT)


def detect(text: str) -> bool:
    """Return whether `text` holds a tag that only this dialect has, or thinks as it does and holds none of another.

    >>> detect("<Outlines>"), detect("</think>9"), detect("<think><Parallel><Path>")
    (True, True, False)
    """
    if "<Thread>" in text or "<Outlines>" in text:
        return True
    return ("<think>" in text or "</think>" in text) and "<Path>" not in text
