"""What the adapters have in common: from the columns of a trainer to rollouts, and to numbers it can log."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import msgspec
import numpy as np

from simulator.errors import ConfigError
from simulator.formats import asyncthink
from simulator.rewards import Reader, Reward, ScoreBatch, load_reward, score_batch
from simulator.rewards.batch import resolve
from simulator.support.checks import check_options, choose
from simulator.trace import Outcome, Trace
from simulator.trace.answers import BOXED, answer_of, closing_brace
from simulator.trace.protocol import Protocol

ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<end_of_turn>", "<eos>", "</s>")
"""What models put at the end of a turn. It is no thinking, so it is cut off."""

Judge = Callable[[str, Any], Outcome | bool | float | None]
r"""From an answer and what the data set says is right, to a verdict.

It sees the answer that the clock stops at, in ``<ANSWER>`` tags unless it holds a ``\boxed{}``; of a rollout without
one, which is clocked to its end, all of the organizer's text.
"""

_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""Under which of these servers put what was thought: it was decoded, wherever it stands."""
_NO_WORKERS = (
    "some rollouts Fork, and no text of a worker comes with them: their concurrency is that of the organizer alone,"
    " whatever it does (see the column without_workers)"
)


def exact(text: str, truth: Any) -> bool | None:
    r"""Return whether the answer in `text` is `truth`, to the letter but for space around it.

    The answer is the one that the clock stops at: the last in ``<ANSWER>`` tags, or else a ``\boxed{}`` in the last
    line. None if there is no `truth` to compare with.

    >>> exact("so <ANSWER> 9 </ANSWER>", 9), exact(r"so \boxed{9}.", "8"), exact("9", "9"), exact("9", None)
    (True, False, False, None)
    """
    if truth is None:
        return None
    said = answer_of(asyncthink.parse(text, keep_text=False))
    if said is None:
        return False
    _, boxed, rest = said.rpartition(BOXED)
    if boxed and (end := closing_brace(rest, 0)) >= 0:
        said = rest[:end]
    return said.strip() == str(truth).strip()


def _as_judged(answer: str) -> str:
    r"""Return an answer as judges look for one: in ``\boxed{}``, or else in tags."""
    return answer if BOXED in answer else f"<ANSWER>{answer}</ANSWER>"


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
        reward = load_reward(self.reward)
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
        object.__setattr__(self, "reader", self.reader.meant_for(reward))
        object.__setattr__(self, "reward", reward)
        object.__setattr__(self, "protocol", protocol)
        reward.check(protocol or reward.protocol or Protocol())

    def score(
        self,
        texts: Sequence[Any],
        ids: Sequence[Any] | None = None,
        workers: Sequence[Any] | None = None,
        truths: Sequence[Any] | None = None,
        masks: Sequence[Any] | None = None,
        step: int | None = None,
        groups: Sequence[Any] | None = None,
    ) -> ScoreBatch:
        """Score rollouts, a row each text. What is judged is the answer that the clock stops at (see `Judge`).

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
        masks : sequence, optional
            Of the token ids, which the policy sampled (1) and which the runtime inserted (0). Without ids they are not
            looked at.
        step : int, optional
            The training step, for a reward that changes with it.
        groups : sequence, optional
            What the rollouts of one query have in common, such as the prompt, for a reward that compares them.
        """
        if step is not None and self._reward.schedule is not None:
            # Without the tokenizer, which the reader and the ends have taken in.
            now = replace(self, reward=self._reward.at(step), tokenizer=None)
            return now.score(texts, ids, workers, truths, masks, groups=groups)
        rollouts: list[Any] = []
        verdicts = []
        for place, text in enumerate(texts):
            given = _at(ids, place) if self.reader.decode or self.reader.tags else None
            given = text if given is None else given
            main = self._cut(given)
            helpers, mask = _workers(_at(workers, place)), _at(masks, place)
            more = {}
            if helpers:
                more["workers"] = self._cut_all(helpers)
            if mask is not None and isinstance(main, list):
                more["mask"] = mask[: len(main)] if _length(mask) == len(given) else mask  # or it is refused
            rollout = {"text": main, **more} if more else main
            trace, verdict = self._judged(rollout, text if isinstance(text, str) else main, _at(truths, place))
            rollouts.append(rollout if trace is None else trace)
            verdicts.append(verdict)
        return self.batch(rollouts, verdicts, self.reader, groups)

    def batch(
        self,
        rollouts: Sequence[Any],
        outcomes: Sequence[Any],
        reader: Reader | None = None,
        groups: Sequence[Any] | None = None,
    ) -> ScoreBatch:
        """Score rollouts as `score_batch` takes them.

        >>> Scorer(reward="threadweaver").batch(["9"], [True]).total.tolist()
        [1.0]
        """
        assert not isinstance(self.protocol, Mapping)  # since __post_init__
        names = None if groups is None else [named(group) for group in groups]
        batch = score_batch(
            rollouts,
            reward=self.reward,
            protocol=self.protocol,
            outcomes=outcomes,
            groups=names,
            reader=reader or self.reader,
        )
        # None is a trainer's way to say that there is nothing.
        failed = [place for place in np.flatnonzero(batch.failed).tolist() if rollouts[place] is not None]
        if failed:
            what = str(batch.reason[failed[0]]).partition(":")[0]
            warnings.warn(
                f"some rollouts could not be scored, and earn what a format error does: {what} (see the column reason)",
                stacklevel=3,
            )
        if batch.without_workers.any():  # Python shows the same warning once; how many there are is in the logs
            warnings.warn(_NO_WORKERS, stacklevel=3)
        return batch

    def _judged(self, rollout: Any, text: Any, truth: Any) -> tuple[Trace | None, Outcome | bool | float | None]:
        """Return the trace of a rollout, None if there is none, and what the judge says of its answer."""
        try:
            trace = self.reader.trace(rollout)
        except Exception:  # of any kind: scoring meets it again, and says so in its row
            return None, None
        assert not isinstance(self.protocol, Mapping)  # since __post_init__
        answer = answer_of(trace, resolve(self._reward, self.protocol)[1])
        return trace, self.verdict(text if answer is None else _as_judged(answer), truth)

    @property
    def compares(self) -> bool:
        """Whether the reward compares the rollouts of one query, and so needs them all at once."""
        return self._reward.grouped is not None

    def refuse_groups(self, why: str) -> None:
        """Raise `ConfigError` if the reward compares the rollouts of one query, where these do not come together."""
        if self.compares:
            raise ConfigError(f"the reward compares the rollouts of one query{why}")

    @property
    def _reward(self) -> Reward:
        assert isinstance(self.reward, Reward)  # since __post_init__
        return self.reward

    def _cut(self, rollout: Any) -> Any:
        """Return `rollout` without what ends a turn."""
        if isinstance(rollout, str):
            ends = tuple(end for end in self.ends if isinstance(end, str))
            stop = at = len(rollout)
            while True:
                while at and rollout[at - 1].isspace():
                    at -= 1
                end = next((end for end in ends if rollout.endswith(end, 0, at)), None)
                if end is None:
                    return rollout if stop == len(rollout) else rollout[:at]
                stop = at = at - len(end)
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
        except Exception as error:  # of any kind, as of a parser of mathematics that met nonsense
            # The same text each time: Python then shows it once.
            warnings.warn(f"the judge raised {type(error).__name__}: such answers count as wrong", stacklevel=2)
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
    if not isinstance(scorer, Scorer):
        raise ConfigError(f"this takes a Scorer, or its options: write reward=...; got {scorer!r:.60}")
    if options:
        raise ConfigError("give a scorer, or options for one; not both")
    return scorer


def _at(column: Any, place: int) -> Any:
    """Return the row of a column that may be missing, too short or no column at all."""
    try:
        return None if column is None else column[place]
    except (IndexError, KeyError, TypeError):
        return None


def named(group: Any) -> Hashable:
    """Return a group by a name that can be compared: a prompt may be a list of messages.

    >>> named([{"role": "user", "content": "4 + 5?"}]) == named([{"content": "4 + 5?", "role": "user"}]), named(7)
    (True, 7)
    """
    if isinstance(group, Hashable) and not isinstance(group, tuple):
        return group
    try:
        return msgspec.json.encode(group, order="sorted")
    except (TypeError, ValueError, msgspec.EncodeError):
        return repr(group)


def _length(column: Any) -> int:
    return len(column) if hasattr(column, "__len__") and hasattr(column, "__getitem__") else -1


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
    """Return the text of a completion: of messages, what the assistant says, and what it thought before.

    >>> texts_of([{"role": "assistant", "content": "So "}, {"role": "tool", "content": "?"}, {"content": "9"}])
    'So 9'
    >>> texts_of([{"role": "assistant", "reasoning_content": "Hm. ", "content": "9"}])
    'Hm. 9'
    """
    if not isinstance(completion, (list, tuple)) or not any(isinstance(each, Mapping) for each in completion):
        return completion
    pieces = []
    for message in completion:
        if not isinstance(message, Mapping) or message.get("role", "assistant") != "assistant":
            continue
        pieces += [message[key] for key in _THOUGHTS if isinstance(message.get(key), str)][:1]
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
