"""From what a trainer has, to traces: texts, mappings, token ids."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from simulator.errors import ConfigError, FormatError
from simulator.formats import asyncthink, detect, lookup
from simulator.formats.records import Record, trace_of
from simulator.support.checks import whole
from simulator.trace import Outcome, Trace
from simulator.trace.tokens import TokenCounter, by_characters

RolloutLike = Trace | str | bytes | Mapping[str, Any] | Sequence[int]
"""What `score_batch` takes for a rollout."""

Judged = Outcome | bool | float | None
"""What it takes for an outcome."""

_TEXTS = ("organizer", "output", "text", "completion", "response")
_FILLER = "·"  # a token that is no tag, where only ids are known


def outcome_of(judged: Judged) -> Outcome | None:
    """Return the outcome that a judge's verdict stands for.

    Raises
    ------
    FormatError
        If it is neither an Outcome, nor right or wrong (true, false, 1, 0, also of numpy), nor None.

    >>> outcome_of(1.0) == outcome_of(True) == Outcome(correct=True), outcome_of(None)
    (True, None)
    """
    if judged is None or judged.__class__ is Outcome:
        return judged
    if judged is True:
        return _RIGHT
    if judged is False:
        return _WRONG
    if isinstance(judged, (int, float, np.bool_, np.number)) and judged in (0, 1):
        return _RIGHT if judged else _WRONG
    raise FormatError(f"an outcome is an Outcome, true, false, 1, 0 or None; got {judged!r:.80}")


_RIGHT, _WRONG = Outcome(correct=True), Outcome(correct=False)


@dataclass(frozen=True, kw_only=True)
class Reader:
    """How rollouts are read. Frozen, and picklable if its functions are.

    Raises
    ------
    ConfigError
        If there is no such format, or an option makes no sense.

    Examples
    --------
    Token ids whose tags are tokens of their own need no tokenizer, and their counts are exact:

    >>> reader = Reader(format="threadweaver", tags={"<Parallel>": 1, "</Parallel>": 2, "<Thread>": 3, "</Thread>": 4})
    >>> trace = reader.trace([7, 8, 1, 3, 9, 9, 4, 3, 9, 4, 2, 7])
    >>> [thread.tokens for thread in trace.threads]
    [5, 4, 3]
    """

    format: str | None = None
    """A key of `simulator.formats.FORMATS`; by default found from each text."""
    count: TokenCounter = by_characters
    """Counts the tokens of a text whose rollout does not say."""
    decode: Callable[[list[int]], str] | None = None
    """Token ids to text, with special tokens kept. Counts are then the number of ids, spread over the text."""
    tags: Mapping[str, int] | None = field(default=None, hash=False)
    """The id of each tag that is one token. Then ids are not decoded: nothing but the tags is looked at."""
    max_size: int = 4_000_000
    """Characters, bytes or token ids of a rollout at most (of a Trace: actions). A larger one is not scored."""
    _tag_of: Mapping[int, str] = field(init=False, repr=False, compare=False)
    _pattern: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.format is not None:
            lookup(self.format)
        whole("max_size", self.max_size)
        if not callable(self.count) or not (self.decode is None or callable(self.decode)):
            raise ConfigError("count and decode must be functions")
        tags = dict(self.tags or {})
        if not all(isinstance(text, str) and text for text in tags) or len(set(tags.values())) < len(tags):
            raise ConfigError(f"tags must be a mapping from tags to token ids, each to its own; got {self.tags!r:.200}")
        try:
            ids = {int(number): text for text, number in tags.items()}
        except (TypeError, ValueError):
            raise ConfigError(f"tags must be a mapping from tags to token ids; got {self.tags!r:.200}") from None
        pattern = "|".join(re.escape(text) for text in sorted(tags, key=lambda text: (-len(text), text)))
        object.__setattr__(self, "tags", tags or None)
        object.__setattr__(self, "_tag_of", ids)
        object.__setattr__(self, "_pattern", re.compile(pattern) if tags else None)

    def trace(self, rollout: Any, id: str = "rollout", outcome: Outcome | None = None) -> Trace:
        """Return the Trace of a rollout; `outcome` goes before what the rollout says.

        Raises
        ------
        FormatError
            If none can be built, or it is too large.
        """
        kind = rollout.__class__
        if kind is str:
            self._bound(len(rollout), "characters")
            return self._parse(rollout, id, outcome)
        if kind is Trace:
            self._bound(sum(len(thread.actions) for thread in rollout.threads), "actions")
            recorded: Trace = rollout
            return recorded if outcome is None else msgspec.structs.replace(recorded, outcome=outcome)
        if isinstance(rollout, Mapping):
            return self._mapping(rollout, id, outcome)
        if isinstance(rollout, (bytes, bytearray, memoryview)):
            self._bound(len(rollout), "bytes")
            return self._parse(_utf8(bytes(rollout)), id, outcome)
        if isinstance(rollout, str):
            return self.trace(str(rollout), id, outcome)
        if isinstance(rollout, FormatError):  # what `read` found instead of a trace
            raise rollout
        if _is_ids(rollout):
            return self._mapping({"text": rollout}, id, outcome)
        raise FormatError(
            f"a rollout is a Trace, a text, a mapping with a text, or token ids; got {type(rollout).__name__}"
        )

    def _bound(self, size: int, unit: str) -> None:
        if size > self.max_size:
            raise FormatError(f"has {size:,} {unit}; at most {self.max_size:,} are scored")

    def _parse(self, text: str, id: str, outcome: Outcome | None) -> Trace:
        form = lookup(self.format or detect(text))
        return form.parse(text, id=id, count=self.count, keep_text=False, outcome=outcome)

    def _mapping(self, given: Mapping[str, Any], id: str, outcome: Outcome | None) -> Trace:
        workers: Any = given.get("workers")
        if isinstance(workers, Sequence) and not isinstance(workers, (str, bytes)):
            workers = {str(i): text for i, text in enumerate(workers, 1)}
        key = next((key for key in _TEXTS if given.get(key) is not None), "text")
        text = given.get(key)
        if outcome is None and (correct := given.get("correct")) is not None and given.get("wanted") is None:
            outcome = outcome_of(correct)
        texts: list[Any] = [text, *workers.values()] if isinstance(workers, Mapping) else [text]
        ids = [each for each in texts if _is_ids(each)]
        self._bound(sum([len(each) for each in texts if each.__class__ is str]), "characters")
        self._bound(sum(map(len, ids)), "token ids")
        count, fields = self.count, {key: text, "workers": workers}
        if ids:
            if len(ids) < len(texts):
                raise FormatError("has texts and token ids side by side; accepted are all texts, or all ids")
            fields = {key: self._text(text)}
            if isinstance(workers, Mapping):
                fields["workers"] = {name: self._text(each) for name, each in workers.items()}
            if self._pattern is None:
                fields["tokens"] = sum(map(len, ids))
            else:
                count = self._count_ids
        elif (
            given.keys() <= _SIMPLE
            and self.format in (None, "asyncthink")
            and workers.__class__ is dict
            and text.__class__ is str
            and all(map(_is_text, (*workers, *workers.values())))
        ):  # what most are, without the price of a general conversion
            return asyncthink.parse(text, workers=workers, id=id, count=count, keep_text=False, outcome=outcome)
        for name in _NUMBERS:
            if name in given and name not in fields:
                value = given[name]
                fields[name] = value.item() if isinstance(value, np.generic) else value
        if outcome is not None:
            fields |= {"correct": outcome.correct, "found": outcome.found, "wanted": outcome.wanted}
        try:
            record = msgspec.convert(fields, Record)
        except msgspec.ValidationError as error:
            raise FormatError(str(error)) from None
        return trace_of(record, id, self.format, count, False)

    def _text(self, ids: Any) -> str:
        """Return token ids as text: decoded, or with a filler for all that is no tag."""
        if self._pattern is not None:
            tag_of = self._tag_of
            return "".join([tag_of.get(number, _FILLER) for number in ids])
        if self.decode is None:
            raise FormatError("token ids need Reader(decode=...) or Reader(tags=...)")
        text = self.decode([int(number) for number in ids])
        if not isinstance(text, str):
            raise FormatError(f"decode returned no text but {type(text).__name__}")
        return text

    def _count_ids(self, piece: str) -> int:
        return len(self._pattern.sub(_FILLER, piece)) if self._pattern else len(piece)


_SIMPLE = frozenset({*_TEXTS, "workers", "correct"})
_NUMBERS = ("found", "wanted", "tokens", "prompt_tokens")


def _is_text(value: Any) -> bool:
    return value.__class__ is str


def _is_ids(value: Any) -> bool:
    if value.__class__ is str:
        return False
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.dtype.kind in "iu"
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes, bytearray, memoryview)):
        return False
    return all(isinstance(number, (int, np.integer)) for number in value)


def _utf8(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"is no UTF-8 text: {error.reason} at byte {error.start}") from None
