r"""AsyncThink text (arXiv 2510.26658): the organizer's text, and beside it one text a worker.

::

    think ... <FORK-1>sub-query</FORK-1> think on ... <JOIN-1>returned text</JOIN-1> ... <ANSWER>42</ANSWER>
    <WORKER-1>think ... <RETURN>takeaways</RETURN></WORKER-1>

The hyphen may be missing (``<FORK1>``), and so may ``</JOIN-i>``: then the inserted text is taken to be what worker i
returned. Workers come as a mapping from id to text; in one file they stand after the organizer in ``<WORKER-i>``
sections, which are this project's own layout and are read only in a whole file (`parse_file`): in a text that a model
wrote they are text. Without an ``<ANSWER>`` that says something, a ``\boxed{...}`` in the last line is the answer.

Whose tokens: a Fork's tags and sub-query are decoded by the forking thread, as is the opening ``<JOIN-i>``; the
returned text and ``</JOIN-i>`` are inserted by the runtime (`Join.inserted_tokens`). That is believed only of what
worker i returned, or of what a mask says was not sampled; anything else between the tags was decoded by the thread it
stands in, and is a ``forged_join``. ``<WORKER-i>`` tags of a file are nobody's. White space after the last
``</ANSWER>`` or ``</RETURN>`` is not counted.

Recovery, in one pass and without look-ahead: a tag that opens while another is open leaves the first *unclosed*, and
its text is thinking; a closing tag that closes nothing is *stray*, and is text of what it stands in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from simulator.errors import FormatError
from simulator.formats.scan import TAGS, Insertions, Scan
from simulator.formats.texts import MAX_WORKERS, SECTION, Faults, check_filler, filler, is_path
from simulator.trace import (
    MAX_NESTING,
    ORGANIZER,
    Action,
    Answer,
    Delay,
    Fork,
    Join,
    Outcome,
    Return,
    Think,
    Thread,
    Trace,
    ViolationKind,
    child_id,
)
from simulator.trace.tokens import COUNTERS, TokenCounter, by_characters, counter_name

_HINT = re.compile(r"</?(?:FORK|JOIN|RETURN|ANSWER|WORKER)")
_PLAIN = re.compile(r"0|[1-9][0-9]{0,9}").fullmatch  # the index of a worker of the organizer


def parse(
    text: str,
    *,
    workers: Mapping[str, str] | None = None,
    id: str = "trace",
    count: TokenCounter = by_characters,
    keep_text: bool = True,
    outcome: Outcome | None = None,
    insertions: Insertions | None = None,
) -> Trace:
    """Return the Trace of an organizer's text and its workers' texts.

    Parameters
    ----------
    text : str
        The organizer's text.
    workers : mapping from str to str, optional
        Text of each worker by id (``"1"``, nested ``"1.2"``).
    id, count, keep_text, outcome
        As of `simulator.parse`.
    insertions : mapping from str to frozenset of int, optional
        Of threads whose sampled tokens are known, the characters at which a runtime inserted what stands in a Join.

    Raises
    ------
    FormatError
        If a worker's id is no path of Fork indices. Nothing in a text raises.

    Examples
    --------
    >>> trace = parse("Split it. <FORK-1>odd half</FORK-1> <JOIN-1>9</JOIN-1><ANSWER>9</ANSWER>",
    ...               workers={"1": "1 + 3 + 5 = 9 <RETURN>9</RETURN>"})
    >>> [type(action).__name__ for action in trace.organizer.actions]
    ['Think', 'Fork', 'Think', 'Join', 'Answer']
    >>> trace.faults
    ()
    """
    texts = dict(workers) if workers else {}
    scan = Scan(texts, count, keep_text, Faults(), insertions)
    return _trace(text, texts, scan, id, outcome)


def parse_file(
    text: str,
    *,
    id: str = "trace",
    count: TokenCounter = by_characters,
    keep_text: bool = True,
    outcome: Outcome | None = None,
) -> Trace:
    """Return the Trace of a whole file: the organizer's text, and each worker's in a ``<WORKER-i>`` section after it.

    The parameters are those of `simulator.parse`.

    >>> trace = parse_file("<FORK-1>odd</FORK-1><JOIN-1>9</JOIN-1><WORKER-1><RETURN>9</RETURN></WORKER-1>")
    >>> [thread.id for thread in trace.threads]
    ['organizer', '1']
    """
    faults = Faults()
    workers: dict[str, str] = {}
    if "<WORKER" in text:
        text = _cut_sections(text, workers, faults)
    scan = Scan(workers, count, keep_text, faults, whole_file=True)
    return _trace(text, workers, scan, id, outcome)


def _trace(text: str, workers: Mapping[str, str], scan: Scan, id: str, outcome: Outcome | None) -> Trace:
    faults, count = scan.faults, scan.count
    names = _in_order(workers, faults)
    threads = [Thread(ORGANIZER, scan.thread(ORGANIZER, text))]
    for name in names:
        actions = scan.thread(name, workers[name])
        threads.append(Thread(name, actions, scan.forked.get(name, 0)))
    return Trace(id, tuple(threads), outcome, counter_name(count), None, faults.all())


def _in_order(texts: Mapping[str, str], faults: Faults) -> list[str]:
    """Return the workers' ids, parents before children, without those whose parent is not recorded."""
    if all(map(_PLAIN, texts)):
        return sorted(texts, key=int)
    kept: dict[str, None] = {}
    for name in sorted(texts, key=_path):
        parent = name.rpartition(".")[0]
        if (parent and parent not in kept) or name.count(".") >= MAX_NESTING:
            message = f"worker {name[:40]} is recorded but not its parent"
            faults.add(ViolationKind.WORKER_WITHOUT_FORK, ORGANIZER, message)
        else:
            kept[name] = None
    return list(kept)


def _path(name: str) -> tuple[int, ...]:
    if not is_path(name):
        raise FormatError(f"a worker is called by its Fork index, like '1' or nested '1.2'; got {name[:40]!r}")
    return tuple(map(int, name.split(".")))


def _cut_sections(text: str, texts: dict[str, str], faults: Faults) -> str:
    """Move the ``<WORKER-i>`` sections of `text` into `texts` and return what precedes them."""
    organizer, at = "", 0
    for match in SECTION.finditer(text):
        start, end = match.span()
        if start < at:
            continue
        organizer += text[at:start]
        name = match[1]
        close = text.find("</WORKER", end)
        stop = text.find(">", close) if close >= 0 else -1
        if stop < 0:
            faults.add(ViolationKind.UNCLOSED_TAG, name, f"<WORKER-{name[:40]}> is never closed", start)
            close = stop = len(text)
        message = ""
        if name in texts:
            message = f"a second text for worker {name[:40]}"
        elif len(texts) >= MAX_WORKERS:
            message = f"more than {MAX_WORKERS} workers; the rest is left out"
        elif not is_path(name):
            message = f"<WORKER-{name[:40]}> is no path of Fork indices"
        if message:
            faults.add(ViolationKind.STRAY_TAG, ORGANIZER, message, start)
        else:
            texts[name] = text[end:close]
        at = stop + 1
    rest = text[at:]
    return organizer + rest if rest.strip() else organizer


def detect(text: str) -> bool:
    """Return whether `text` holds a tag of this dialect.

    >>> detect("<FORK-1>x</FORK-1>"), detect("plain")
    (True, False)
    """
    # Texts of other dialects have none of these, and this expression fails at the first letter of their tags.
    if _HINT.search(text) is None:
        return False
    return TAGS.search(text) is not None or SECTION.search(text) is not None


def _inside(text: str | None, tokens: int, opening: str, closing: str) -> str:
    return filler(4 * tokens - len(opening) - len(closing)) if text is None else text


def _tagged(text: str | None, tokens: int, opening: str, closing: str) -> str:
    return opening + _inside(text, tokens, opening, closing) + closing


def render(trace: Trace) -> str:
    r"""Return `trace` in the one-file layout.

    Actions without text are filled with neutral words, Joins with what their worker returns.

    Raises
    ------
    FormatError
        If a thread holds a Delay, which the dialect cannot say, or too many tokens have no text.

    >>> render(parse("a <FORK1>b</FORK1><JOIN-1>c</JOIN-1><ANSWER>d</ANSWER>", workers={"1": "<RETURN>c</RETURN>"}))
    'a <FORK-1>b</FORK-1><JOIN-1>c</JOIN-1><ANSWER>d</ANSWER>\n<WORKER-1><RETURN>c</RETURN></WORKER-1>'
    """
    text, workers = render_threads(trace)
    return text + "".join([f"\n<WORKER-{name}>{said}</WORKER-{name}>" for name, said in workers.items()])


def render_threads(trace: Trace) -> tuple[str, dict[str, str]]:
    """Return the text of the organizer and the texts of the workers, as `parse` takes them. Raises as `render` does."""
    check_filler(trace)
    returned: dict[str, str] = {}
    for thread in trace.threads:
        last = next((action for action in reversed(thread.actions) if isinstance(action, Return)), None)
        if last is not None:
            returned[thread.id] = _inside(last.text, last.tokens, "<RETURN>", "</RETURN>")
    texts: dict[str, str] = {}
    for thread in trace.threads:
        said = []
        for action in thread.actions:
            if isinstance(action, Join) and action.text is None and action.inserted_tokens:
                inserted = returned.get(child_id(thread.id, action.index))
                action = msgspec.structs.replace(action, text=inserted)
            said.append(_said(action, trace))
        texts[thread.id] = "".join(said)
    return texts.pop(ORGANIZER), texts


def _said(action: Action, trace: Trace) -> str:
    text = action.text
    match action:
        case Delay():
            raise FormatError(f"trace {trace.id!r}: AsyncThink text cannot hold a Delay; use the native format")
        case Think(tokens=tokens):
            return _tagged(text, tokens, "", "")
        case Fork(index=i, tokens=tokens):
            return _tagged(text, tokens, f"<FORK-{i}>", f"</FORK-{i}>")
        case Join(index=i):
            return f"<JOIN-{i}>" + ("" if text is None else f"{text}</JOIN-{i}>")
        case Return(tokens=tokens):
            return _tagged(text, tokens, "<RETURN>", "</RETURN>")
        case Answer(tokens=tokens):
            count = COUNTERS.get(trace.token_source)
            if text and text.startswith("\\boxed{") and (not count or tokens == count(text)):
                return text
            return _tagged(text, tokens, "<ANSWER>", "</ANSWER>")
