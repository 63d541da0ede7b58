"""From what a trainer has, to traces: texts, mappings, token ids."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np

from simulator.errors import ConfigError, FormatError
from simulator.formats import asyncthink, detect_written, lookup
from simulator.formats.records import Record, prompted, trace_of
from simulator.rewards.ids import ByDecoding, ByTag, Piece, mask_of, said
from simulator.rewards.spec import Reward
from simulator.support.checks import whole
from simulator.trace import ORGANIZER, Outcome, Trace
from simulator.trace.tokens import Along, TokenCounter, by_characters

RolloutLike = Trace | str | bytes | Mapping[str, Any] | Sequence[int]
"""What `score_batch` takes for a rollout."""

Judged = Outcome | bool | float | None
"""What it takes for an outcome."""

_TEXTS = ("organizer", "output", "text", "completion", "response")
_MASKS = ("mask", "response_mask", "loss_mask")
_DETECT = "detect"


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
    """A key of `simulator.formats.FORMATS`; by default `otherwise`, and ``asyncthink`` of rollouts with workers.
    ``detect``: found from each text by its tags. Then the policy chooses how it is clocked."""
    otherwise: str = "asyncthink"
    """The format where none is said. `score_batch` puts that of the reward here, if the reward has one."""
    count: TokenCounter = by_characters
    """Counts the tokens of a text whose rollout does not say."""
    decode: Callable[[list[int]], str] | None = None
    """Token ids to text, with special tokens kept. Counts are then those of the ids, thread by thread."""
    tags: Mapping[str, int] | None = field(default=None, hash=False)
    """The id of each tag that is one token. Then ids are not decoded: nothing but the tags is looked at."""
    spaces: Collection[int] = ()
    """With `tags`, the ids of tokens that are white space; where there is a `decode`, it finds them itself."""
    max_size: int = 4_000_000
    """Characters, bytes or token ids of a rollout at most (of a Trace: actions). A larger one is not scored."""
    _pieces: Callable[[Sequence[int]], list[Piece]] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.format is not None and self.format != _DETECT:
            lookup(self.format)
        lookup(self.otherwise)
        whole("max_size", self.max_size)
        if not callable(self.count) or not (self.decode is None or callable(self.decode)):
            raise ConfigError("count and decode must be functions")
        tags = dict(self.tags or {})
        if not all(isinstance(text, str) and text for text in tags) or len(set(tags.values())) < len(tags):
            raise ConfigError(f"tags must be a mapping from tags to token ids, each to its own; got {self.tags!r:.200}")
        try:
            ids = {int(number): text for text, number in tags.items()}
            spaces = frozenset(map(int, self.spaces))
        except (TypeError, ValueError):
            raise ConfigError(
                f"tags must be a mapping from tags to token ids, and spaces token ids; got {self.tags!r:.200} and"
                f" {self.spaces!r:.80}"
            ) from None
        if spaces and not tags:
            raise ConfigError("spaces go with tags; decode finds white space itself")
        object.__setattr__(self, "tags", tags or None)
        object.__setattr__(self, "spaces", spaces)
        pieces: Callable[[Sequence[int]], list[Piece]] | None = None
        if tags:
            pieces = ByTag(ids, spaces, self.decode)
        elif self.decode is not None:
            pieces = ByDecoding(self.decode)
        object.__setattr__(self, "_pieces", pieces)

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

    def meant_for(self, reward: Reward) -> Reader:
        """Return the reader whose `otherwise` is the format of a reward: itself where nothing changes.

        >>> from simulator.rewards import make_reward
        >>> Reader().meant_for(make_reward("threadweaver")).otherwise
        'threadweaver'
        """
        format = reward.format
        return self if format is None or format == self.otherwise else replace(self, otherwise=format)

    def _bound(self, size: int, unit: str) -> None:
        if size > self.max_size:
            raise FormatError(f"has {size:,} {unit}; at most {self.max_size:,} are scored")

    def _parse(self, text: str, id: str, outcome: Outcome | None) -> Trace:
        form = lookup(self._format(text))
        return form.parse(text, id=id, count=self.count, keep_text=False, outcome=outcome)

    def _format(self, text: str) -> str:
        """Return the format of a text that has no workers beside it."""
        return detect_written(text) if self.format == _DETECT else self.format or self.otherwise

    def _mapping(self, given: Mapping[str, Any], id: str, outcome: Outcome | None) -> Trace:
        workers: Any = given.get("workers")
        if workers.__class__ is dict and len(given) == 2 and self.format in (None, "asyncthink"):
            text: Any = next((given[key] for key in _TEXTS if key in given), None)
            texts: list[Any] = [text, *workers.values()]
            if all([each.__class__ is str for each in (*texts, *workers)]):  # what most are, without all that follows
                self._bound(sum(map(len, texts)), "characters")
                return asyncthink.parse(
                    text, workers=workers, id=id, count=self.count, keep_text=False, outcome=outcome
                )
        if isinstance(workers, Sequence) and not isinstance(workers, (str, bytes)):
            workers = {str(i): text for i, text in enumerate(workers, 1)}
        key = next((key for key in _TEXTS if given.get(key) is not None), "text")
        text = given.get(key)
        if outcome is None and (correct := given.get("correct")) is not None and given.get("wanted") is None:
            outcome = outcome_of(correct)
        texts = [text, *workers.values()] if isinstance(workers, Mapping) else [text]
        ids = [each for each in texts if _is_ids(each)]
        self._bound(sum([len(each) for each in texts if each.__class__ is str]), "characters")
        self._bound(sum(map(len, ids)), "token ids")
        if ids:
            if len(ids) < len(texts):
                raise FormatError("has texts and token ids side by side; accepted are all texts, or all ids")
            return self._of_ids(text, workers if isinstance(workers, Mapping) else {}, given, id, outcome)
        if not _MASKED.isdisjoint(given) and any(given.get(name) is not None for name in _MASKED):
            raise FormatError("has a mask, which says of each token id who made it, beside a text; give the token ids")
        fields = {key: text, "workers": workers}
        if (
            given.keys() <= _SIMPLE
            and self.format in (None, "asyncthink")
            and workers.__class__ is dict
            and text.__class__ is str
            and all(map(_is_text, (*workers, *workers.values())))
        ):  # what most are, without the price of a general conversion
            return asyncthink.parse(text, workers=workers, id=id, count=self.count, keep_text=False, outcome=outcome)
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
        format = self._format(record.first or "") if record.workers is None else self.format
        return trace_of(record, id, None if format == _DETECT else format, self.count, False)

    def _of_ids(
        self, text: Any, workers: Mapping[str, Any], given: Mapping[str, Any], id: str, outcome: Outcome | None
    ) -> Trace:
        """Return the Trace of a rollout of token ids."""
        pieces = self._pieces
        if pieces is None:
            raise FormatError("token ids need Reader(decode=...) or Reader(tags=...)")
        mask = next((given[name] for name in _MASKS if given.get(name) is not None), None)
        masks = given.get("worker_masks") or {}
        if isinstance(masks, Sequence) and not isinstance(masks, str):
            masks = {str(i): each for i, each in enumerate(masks, 1)}
        if not isinstance(masks, Mapping):
            raise FormatError(f"worker_masks must be a mapping from ids to masks, or a list; got {masks!r:.80}")
        main = said(_plain(text), mask_of(mask, text), pieces)
        others = {name: said(_plain(each), mask_of(masks.get(name), each), pieces) for name, each in workers.items()}
        threads = {ORGANIZER: main, **others}
        count = Along({name: each.ends for name, each in threads.items()})
        format = self._format(main.text) if not others or self.format not in (None, _DETECT) else "asyncthink"
        if format == "asyncthink":
            insertions = {name: each.insertions for name, each in threads.items() if each.insertions is not None}
            trace = asyncthink.parse(
                main.text,
                workers={name: each.text for name, each in others.items()},
                id=id,
                count=count,
                keep_text=False,
                outcome=outcome,
                insertions=insertions,
            )
        elif others:
            raise FormatError(f"has workers beside its ids, as {format} has not; accepted is the asyncthink format")
        else:
            trace = lookup(format).parse(main.text, id=id, count=count, keep_text=False, outcome=outcome)
        if isinstance(pieces, ByTag):
            trace = pieces.spelled(trace)
        prompt = given.get("prompt_tokens")
        return prompted(trace, _number(prompt)) if prompt else trace


def _plain(ids: Any) -> list[int]:
    return [int(id) for id in ids]


def _number(value: Any) -> int:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise FormatError(f"prompt_tokens must be a number from 0 to 10^12, got {value!r:.40}")
    return int(value)


_MASKED = frozenset({*_MASKS, "worker_masks"})
_SIMPLE = frozenset({*_TEXTS, "workers", "correct", *_MASKED})
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
