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

>>> trace = parse("<Parallel><Goal></Goal><Path>1: odd</Path><Path>2: even</Path></Parallel>")
>>> [type(action).__name__ for action in trace.organizer.actions]
['Think', 'Fork', 'Fork', 'Join', 'Join', 'Think']
>>> path = trace.thread("2")
>>> path.actions[0].text, path.label, path.prompt_tokens, path.shared_tokens
('<Path>2: even</Path>', '2', 6, 6)
>>> text = "<Parallel><Path>odd</Path><Path>even</Path></Parallel>"
>>> render(parse(text)) == text
True
"""

from __future__ import annotations

import re
from functools import partial

from simulator.formats.groups import blocks, layout
from simulator.formats.groups.dialect import Dialect
from simulator.trace.answers import BOXED

_OWN = re.compile("<(?:Goal|/?Think)>")
DIALECT = Dialect(
    name="multiverse",
    path="Path",
    plan="Goal",
    summary="Conclusion",
    summary_inside=True,
    think="Think",
    answer_signs=(BOXED,),
    newline="\n",
)

parse = partial(blocks.parse, dialect=DIALECT)
render = partial(layout.render, dialect=DIALECT)


def detect(text: str) -> bool:
    """Return whether `text` holds a tag that only this dialect has.

    >>> detect("<Think>so"), detect("<Parallel><Path>")
    (True, False)
    """
    return _OWN.search(text) is not None or ("<Path>" in text and ("<Outline>" in text or "<Conclusion>" in text))
