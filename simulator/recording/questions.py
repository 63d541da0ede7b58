"""Reading what is to be recorded: questions for free mode."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import msgspec

from simulator.errors import FormatError
from simulator.recording.free import Question
from simulator.support.files import stem

MAX_QUESTION = 2**20
_KEYS = ("question", "prompt", "query", "problem")


class _Row(msgspec.Struct):
    question: str | None = None
    prompt: str | None = None
    query: str | None = None
    problem: str | None = None
    id: str | int | None = None
    index: str | int | None = None


_decoder = msgspec.json.Decoder(_Row)


def questions(path: str) -> Iterator[Question | FormatError]:
    """Yield the questions of a file: a text, or JSON lines with ``question``, ``prompt``, ``query`` or ``problem``.

    Parameters
    ----------
    path : str
        ``-`` is standard input. Names ending in .txt are one question; others are JSON lines if they begin with ``{``.

    Yields
    ------
    Question or FormatError
        In the order of the file.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
    ...     _ = file.write('{"id": 7, "question": "Why?"}' + chr(10) + "{}")
    ...     file.flush()
    ...     first, second = questions(file.name)
    >>> first
    Question(id='7', text='Why?')
    >>> second.message
    'has no question; accepted is an object with a text under question, prompt, query or problem'
    """
    shown = "<stdin>" if path == "-" else path
    name = stem(path)
    try:
        if path == "-":
            data = sys.stdin.buffer.read()
        else:
            with open(path, "rb") as file:
                data = file.read()
    except OSError as error:
        yield FormatError(f"cannot be read ({error.strerror or error})", path=shown)
        return
    data = data.removeprefix(b"\xef\xbb\xbf")
    if path.lower().endswith(".txt") or not data.lstrip().startswith(b"{"):
        yield _text(data, name, shown)
        return
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            yield _row(line, name, shown, number)


def _text(data: bytes, name: str, path: str) -> Question | FormatError:
    try:
        text = data.decode().strip()
    except UnicodeDecodeError as error:
        return FormatError(f"is no UTF-8 text: {error.reason} at byte {error.start}", path=path)
    if not text or len(text) > MAX_QUESTION:
        return FormatError("is empty, or no question of at most 2^20 characters", path=path)
    return Question(name, text)


def _row(line: bytes, name: str, path: str, number: int) -> Question | FormatError:
    try:
        row = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        return FormatError(f"no question: {error}", path=path, line=number)
    text = next((text for key in _KEYS if (text := getattr(row, key))), None)
    if not text or len(text) > MAX_QUESTION:
        accepted = "accepted is an object with a text under question, prompt, query or problem"
        return FormatError(f"has no question; {accepted}", path=path, line=number)
    given = row.id if row.id is not None else row.index
    return Question(f"{name}:{number}" if given is None else str(given), text)
