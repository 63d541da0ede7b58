"""What the formats of text have in common: bounds against hostile text, the faults of a text, and neutral words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from functools import lru_cache

import msgspec

from simulator.errors import FormatError
from simulator.trace import ORGANIZER, Delay, Join, Trace, Violation, ViolationKind

MAX_FAULTS = 100
"""The most faults of a text that are listed one by one."""
MAX_WORKERS = 10_000
"""The most workers of a text that are read."""
MAX_FILLER = 2**24
"""The most tokens of a trace that are written as neutral words: 64 MiB."""

_INDEX = re.compile(r"0|[1-9][0-9]{0,9}").fullmatch


class Faults:
    """The faults of a text. Beyond `MAX_FAULTS` only their number is kept, so that hostile text cannot fill memory.

    But the first of each kind is listed: a text with many of one cannot hide another from the gate.

    >>> faults = Faults()
    >>> faults.add(ViolationKind.STRAY_TAG, "organizer", "</FORK-1> closes nothing", offset=7)
    >>> [str(fault) for fault in faults.all()]
    ['stray_tag: thread organizer char 7: </FORK-1> closes nothing']
    """

    def __init__(self) -> None:
        self.listed: list[Violation] = []
        self.kinds: set[ViolationKind] = set()
        self.unlisted = 0

    def add(
        self,
        kind: ViolationKind,
        thread: str,
        message: str,
        offset: int | None = None,
        action: int | None = None,
    ) -> None:
        """Add a fault at a character of the text, in an action of its thread."""
        if len(self.listed) < MAX_FAULTS or kind not in self.kinds:
            self.kinds.add(kind)
            self.listed.append(Violation(kind, thread, message, action, offset))
        else:
            self.unlisted += 1

    def all(self, action_at: Callable[[str, int], int | None] | None = None) -> tuple[Violation, ...]:
        """Return what was added, with the number of those that were not listed.

        `action_at` says which action of a thread has a character of the text, where that was not known before.
        """
        listed = self.listed
        if action_at is not None:
            listed = [
                fault
                if fault.offset is None
                else msgspec.structs.replace(fault, action=action_at(fault.thread, fault.offset))
                for fault in listed
            ]
        if not self.unlisted:
            return tuple(listed)
        message = f"and {self.unlisted} more faults of this text"
        return (*listed, Violation(ViolationKind.MORE_FAULTS, ORGANIZER, message))


SECTION = re.compile(r"\n?<WORKER-?([\d.]{1,200})>")
"""What begins the text of a worker in a file."""

_FOREIGN = re.compile(
    r"</?(?:[Pp]arallel|Path|[Tt]hread|[Oo]utlines|Goal|guideline|takeaway|promise|async|think[0-9]{1,4}"
    r"|(?:fork|join|spawn|worker|subtask|Fork|Join|Spawn|Worker)[-_]?[0-9]{0,40})(?:\s[^<>]{0,200})?/?>"
)
_CALL = re.compile(r"(?:launch|spawn)_threads\(|\bspawn\(|\b(?:Alice|Bob) \[1\]: ")


def foreign_sign(text: str) -> tuple[str, int] | None:
    """Return a sign that a text divides its work in another way than AsyncThink's, and where it stands.

    Such are the tags of the group dialects, also in small letters, and those of NPR, PASTA, ParaThinker, APR and
    Hogwild.

    >>> [foreign_sign(text)[0] for text in ("so <Parallel>", "<fork-1>", "<promise tokens=3/>", "launch_threads([])")]
    ['<Parallel>', '<fork-1>', '<promise tokens=3/>', 'launch_threads(']
    >>> foreign_sign("a < b, <p>, <FORK-1>")
    """
    if tag := _FOREIGN.search(text):
        return tag[0], tag.start()
    if any(call in text for call in ("_threads(", "spawn(", "[1]: ")) and (said := _CALL.search(text)):
        return said[0], said.start()
    return None


_LIKE = re.compile(r"<(/?)([A-Z]{3,9})([ _:-]?)([0-9][0-9.]{0,40})?>")
_TAGS = ("FORK", "JOIN", "RETURN", "ANSWER", "WORKER")


@lru_cache(maxsize=1024)  # a text may hold the same word many times
def _meant(word: str) -> str:
    """Return the tag that a word is, or nearly is; empty if it is none."""
    return "".join(difflib.get_close_matches(word, _TAGS, n=1, cutoff=0.7))


def misspelt_tag(text: str) -> tuple[str, str, int] | None:
    """Return what looks like a tag of AsyncThink's and is none, what may have been meant, and where it stands.

    >>> [misspelt_tag(text)[:2] for text in ("so <JION-1>", "<FORK 2>", "<ANWSER>", "<FORK-1.2>")]
    [('<JION-1>', '<JOIN-1>'), ('<FORK 2>', '<FORK-2>'), ('<ANWSER>', '<ANSWER>'), ('<FORK-1.2>', '<FORK-2>')]
    >>> misspelt_tag("<FORK-1> <ANSWER> <HTML> <WORKER-1.2>")
    """
    for tag in _LIKE.finditer(text):
        end, word, _, index = tag.groups(default="")
        meant = _meant(word)
        if not meant:
            continue
        if meant in ("RETURN", "ANSWER"):
            index = ""
        elif not index:
            index = "1"
        elif meant != "WORKER":
            index = index.rstrip(".").rpartition(".")[2]  # each thread counts its own Forks
        right = f"<{end}{meant}{'-' if index else ''}{index}>"
        if right != tag[0] and (meant != "WORKER" or word != meant):
            return tag[0], right, tag.start()
    return None


def is_path(name: str) -> bool:
    """Return whether `name` is a path of Fork indices, which a worker's id must be.

    >>> is_path("1.2"), is_path("01"), is_path("")
    (True, False, False)
    """
    return all(map(_INDEX, name.split(".")))


def check_filler(trace: Trace) -> None:
    """Raise `FormatError` where a trace has more tokens without a text than are written as neutral words."""
    tokens = 0
    for _, _, action in trace.actions():
        if not isinstance(action, Delay) and action.text is None:
            tokens += action.tokens + (action.inserted_tokens if isinstance(action, Join) else 0)
    if tokens > MAX_FILLER:
        raise FormatError(
            f"trace {trace.id!r}: has {tokens:,} tokens without a text; as neutral words at most {MAX_FILLER:,} are"
            " written; the native format says any number"
        )


def filler(characters: int) -> str:
    """Return neutral text of that length: a word and a token each four characters.

    >>> filler(10)
    'tok tok to'
    """
    return ("tok " * (characters // 4 + 1))[:characters] if characters > 0 else ""
