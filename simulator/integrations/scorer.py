"""What the adapters have in common: from the columns of a trainer to rollouts, and to numbers it can log."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import msgspec
import numpy as np

from simulator.errors import ConfigError
from simulator.rewards import Reader, Reward, ScoreBatch, load_reward, score_batch
from simulator.support.checks import check_options, choose
from simulator.trace import Outcome
from simulator.trace.protocol import Protocol

ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<end_of_turn>", "<eos>", "</s>")
"""What models put at the end of a turn. It is no thinking, so it is cut off."""

Judge = Callable[[str, Any], Outcome | bool | float | None]
"""From the organizer's text and what the data set says is right, to a verdict."""

_ANSWER = re.compile(r"<ANSWER>([^<]*)</ANSWER>")


def exact(text: str, truth: Any) -> bool | None:
    r"""Return whether the last answer in `text` is `truth`, to the letter but for space around it.

    An answer stands in ``<ANSWER>`` tags, or else in ``\boxed{}``. None if there is no `truth` to compare with.

    >>> exact("so <ANSWER> 9 </ANSWER>", 9), exact(r"so \boxed{9}.", "8"), exact("9", "9"), exact("9", None)
    (True, False, False, None)
    """
    if truth is None:
        return None
    found = _ANSWER.findall(text)
    if not found:
        _, boxed, rest = text.rpartition("\\boxed{")
        found = [rest[: _closing(rest)]] if boxed else []
    return bool(found) and found[-1].strip() == str(truth).strip()


def _closing(text: str) -> int:
    """Return where the brace that was opened before `text` is closed."""
    depth = 1
    for place, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if not depth:
            return place
    return len(text)


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A reward with all that it takes to score what a trainer hands over. Frozen; picklable if its functions are.

    Raises
    ------
    ConfigError
        If the reward, the protocol and the options do not fit together. Nothing in a rollout raises.

    Examples
    --------
    >>> scorer = Scorer(protocol=Protocol(capacity=2))
    >>> scorer.score(["<ANSWER>9</ANSWER><|im_end|>", None], truths=["9", "9"]).total.tolist()
    [1.25, -1.0]
    """

    reward: Reward | str = "asyncthink"
    """A name or a file is loaded (see `simulator.load_reward`)."""
    protocol: Protocol | Mapping[str, Any] | None = None
    """Default: the reward's own. The AsyncThink reward needs a `capacity`."""
    reader: Reader = field(default_factory=Reader)
    """Format, token counting, token ids. Ids go before texts where the reader has `decode` or `tags`."""
    tokenizer: Any = None
    """Decodes token ids, with special tokens kept: in place of ``Reader(decode=...)``. Its end and padding tokens are
    cut off."""
    judge: Judge | None = exact
    """Tells right from wrong. One that raises has said wrong. None: nobody judges."""
    ends: tuple[str | int, ...] = ENDS
    """Texts, and token ids, that are cut off the end of a rollout."""

    def __post_init__(self) -> None:
        reward = self.reward if isinstance(self.reward, Reward) else load_reward(self.reward)
        protocol = self.protocol
        if isinstance(protocol, Mapping):
            for key in protocol:
                choose(key, [each.name for each in fields(Protocol)], "key of protocol")
            check_options(Protocol, dict(protocol), "protocol")
            protocol = Protocol(**protocol)
        if self.judge is not None and not callable(self.judge):
            raise ConfigError(f"judge must be a function of a text and the truth, got {self.judge!r:.80}")
        if isinstance(self.ends, str) or not all(isinstance(end, (str, int)) and end != "" for end in self.ends):
            raise ConfigError(f"ends must be texts and token ids, got {self.ends!r:.80}")
        if self.tokenizer is not None:
            if self.reader.decode is not None or self.reader.tags is not None:
                raise ConfigError("give a tokenizer, or a reader with decode or tags; not both")
            named = (getattr(self.tokenizer, name, None) for name in ("eos_token_id", "pad_token_id"))
            object.__setattr__(self, "ends", (*self.ends, *(end for end in named if isinstance(end, int))))
            object.__setattr__(self, "reader", replace(self.reader, decode=_Decode(self.tokenizer)))
        object.__setattr__(self, "reward", reward)
        object.__setattr__(self, "protocol", protocol)
        reward.check(protocol or reward.protocol or Protocol())

    def score(
        self,
        texts: Sequence[Any],
        ids: Sequence[Any] | None = None,
        workers: Sequence[Any] | None = None,
        truths: Sequence[Any] | None = None,
    ) -> ScoreBatch:
        """Score rollouts, a row each text.

        Parameters
        ----------
        texts : sequence
            The organizers' texts; or token ids, or anything else `score_batch` takes.
        ids : sequence of sequence of int, optional
            Their token ids. What is missing, None or too short is as if it were not given.
        workers : sequence, optional
            Their workers' texts or token ids: mappings from the worker's id, lists, or JSON of either.
        truths : sequence, optional
            What the judge compares with.
        """
        rollouts, verdicts = [], []
        for place, text in enumerate(texts):
            main = _at(ids, place) if self.reader.decode or self.reader.tags else None
            main = self._cut(text if main is None else main)
            helpers = _workers(_at(workers, place))
            rollouts.append(main if not helpers else {"text": main, "workers": self._cut_all(helpers)})
            seen = main if self.reader.decode is not None and isinstance(main, list) else text
            verdicts.append(self.verdict(seen, _at(truths, place)))
        return self.batch(rollouts, verdicts, self.reader)

    def batch(self, rollouts: Sequence[Any], outcomes: Sequence[Any], reader: Reader | None = None) -> ScoreBatch:
        """Score rollouts as `score_batch` takes them.

        >>> Scorer(reward="threadweaver").batch(["9"], [True]).total.tolist()
        [1.0]
        """
        assert not isinstance(self.protocol, Mapping)  # since __post_init__
        return score_batch(
            rollouts, reward=self.reward, protocol=self.protocol, outcomes=outcomes, reader=reader or self.reader
        )

    def _cut(self, rollout: Any) -> Any:
        """Return `rollout` without what ends a turn."""
        if isinstance(rollout, str):
            kept = rollout.rstrip()
            while end := next((end for end in self.ends if isinstance(end, str) and kept.endswith(end)), None):
                kept = rollout = kept[: -len(end)].rstrip()
            return rollout
        if isinstance(rollout, np.ndarray) or hasattr(rollout, "tolist"):
            rollout = rollout.tolist()
        if isinstance(rollout, (list, tuple)):
            length = len(rollout)
            while length and isinstance(rollout[length - 1], int) and rollout[length - 1] in self.ends:
                length -= 1
            return list(rollout[:length])
        return rollout

    def _cut_all(self, workers: Any) -> Any:
        if isinstance(workers, Mapping):
            return {name: self._cut(worker) for name, worker in workers.items()}
        return [self._cut(worker) for worker in workers] if isinstance(workers, list) else workers

    def verdict(self, given: Any, truth: Any) -> Outcome | bool | float | None:
        """Return what the judge says of a text, or of token ids that can be decoded; None where nobody can.

        >>> Scorer(reward="threadweaver").verdict("so <ANSWER>9</ANSWER>", "9")
        True
        """
        if self.judge is None:
            return None
        try:
            if isinstance(given, list) and self.reader.decode is not None:
                given = self.reader.decode(given)
            return self.judge(given, truth) if isinstance(given, str) else None
        except Exception:  # of any kind, as of a parser of mathematics that met nonsense
            return False


@dataclass(frozen=True)
class _Decode:
    tokenizer: Any

    def __call__(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=False))


def scorer_of(scorer: Scorer | None, options: Mapping[str, Any]) -> Scorer:
    """Return `scorer`, or one made with `options`.

    Raises
    ------
    ConfigError
        If both are given, or an option is none of `Scorer`.

    >>> scorer_of(None, {"reward": "threadweaver"}).reward.names
    ('format_error', 'correct', 'acceleration')
    """
    for name in options:
        choose(name, [each.name for each in fields(Scorer)], "option of Scorer")
    if scorer is None:
        return Scorer(**options)
    if options:
        raise ConfigError("give a scorer, or options for one; not both")
    return scorer


def _at(column: Any, place: int) -> Any:
    """Return the row of a column that may be missing, too short or no column at all."""
    try:
        return None if column is None else column[place]
    except (IndexError, KeyError, TypeError):
        return None


def _workers(given: Any) -> Any:
    """Return workers as a mapping or a list. Tables fill columns of mappings up with None."""
    if isinstance(given, (str, bytes)):
        try:
            given = msgspec.json.decode(given)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return given
    if isinstance(given, np.ndarray):
        given = given.tolist()
    if isinstance(given, Mapping):
        return {str(name): worker for name, worker in given.items() if worker is not None}
    return list(given) if isinstance(given, tuple) else given


def texts_of(completion: Any) -> Any:
    """Return the text of a completion: of messages, what the assistant says.

    >>> texts_of([{"role": "assistant", "content": "So "}, {"role": "tool", "content": "?"}, {"content": "9"}])
    'So 9'
    """
    if not isinstance(completion, (list, tuple)) or not any(isinstance(each, Mapping) for each in completion):
        return completion
    pieces = []
    for message in completion:
        if not isinstance(message, Mapping) or message.get("role", "assistant") != "assistant":
            continue
        content = message.get("content")
        parts = content if isinstance(content, (list, tuple)) else [content]
        pieces += [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    return "".join(piece for piece in pieces if isinstance(piece, str))


def row_of(batch: ScoreBatch, place: int) -> dict[str, Any]:
    """Return one row as plain numbers, the same keys for every row; what is not known is 0.

    >>> batch = Scorer(protocol=Protocol(capacity=2)).score(["<JOIN-1>"])
    >>> row = row_of(batch, 0)
    >>> row["total"], row["latency"], row["n_unknown_join"], row["reason"][:12]
    (-1.0, 2.0, 1.0, 'unknown_join')
    """
    row: dict[str, Any] = {}
    for name, column in batch.columns().items():
        if name == "reason":
            row[name] = column[place] or ""
        else:
            value = float(column[place])
            row[name] = value if math.isfinite(value) else 0.0
    return row


def means(batch: ScoreBatch) -> dict[str, float]:
    """Return the mean of each column, without rows where it is not known, and without columns that nobody knows.

    >>> means(Scorer(protocol=Protocol(capacity=2)).score(["<ANSWER>9</ANSWER>", "<JOIN-1>"]))["n_unknown_join"]
    0.5
    """
    found = {}
    for name, column in batch.columns().items():
        if name != "reason":
            known = column[np.isfinite(column)].astype(np.float64)
            if known.size:
                found[name] = float(known.mean())
    return found
