"""TRL: a reward function for `GRPOTrainer(reward_funcs=...)` and its kin.

The trainer calls it with lists that are parallel: ``prompts``, ``completions``, ``completion_ids``, every column of the
data set, and every extra field of a ``rollout_func``. `completions` are decoded with special tokens skipped, so where
the tags are special tokens give the `tokenizer`: then `completion_ids` are read.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.errors import ConfigError
from simulator.integrations.scorer import Scorer, means, scorer_of, texts_of

LOGGED = ("latency", "eta", "workers", "failed", "reason")
"""Columns that go into the trainer's table of completions; the means of all columns go into its metrics."""


@dataclass(frozen=True)
class RewardFunction:
    """What `make_reward_func` returns. Picklable if its scorer is."""

    scorer: Scorer
    truth: str
    workers: str
    applies: str
    mask: str = "env_mask"

    @property
    def __name__(self) -> str:
        """What TRL calls it in its logs: ``rewards/forksim/mean``."""
        return "forksim"

    def __call__(
        self,
        prompts: Sequence[Any] | None = None,
        completions: Sequence[Any] = (),
        completion_ids: Sequence[Any] | None = None,
        *,
        log_metric: Callable[[str, float], None] | None = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Return the reward of each completion; None where the column `applies` says it is another function's."""
        texts = [texts_of(completion) for completion in completions]
        get = columns.get
        step = getattr(get("trainer_state"), "global_step", None)
        if self.scorer.judge is not None and self.truth not in columns:
            there = ", ".join(sorted(map(str, columns))) or "none"
            warnings.warn(
                f"the data set has no column {self.truth!r} (it has {there}), so every answer counts as wrong;"
                " truth=... names another",
                stacklevel=2,
            )
        batch = self.scorer.score(
            texts, completion_ids, get(self.workers), get(self.truth), get(self.mask), step, groups=prompts
        )
        if log_metric is not None:
            for name, value in means(batch).items():
                log_metric(f"forksim/{name}", value)
        if log_extra is not None:
            table = batch.columns()
            for name in LOGGED:
                values = table[name].tolist()
                log_extra(f"forksim/{name}", [value or "" for value in values] if name == "reason" else values)
        rewards: list[float | None] = batch.total.tolist()
        applies = columns.get(self.applies)
        if isinstance(applies, Sequence) and len(applies) == len(rewards):
            rewards = [reward if ours else None for reward, ours in zip(rewards, applies, strict=True)]
        return rewards


def make_reward_func(
    scorer: Scorer | None = None,
    *,
    truth: str = "answer",
    workers: str = "workers",
    applies: str = "forksim",
    mask: str = "env_mask",
    **options: Any,
) -> RewardFunction:
    """Return a reward function for TRL.

    Parameters
    ----------
    scorer : Scorer, optional
        Or its fields as `options`: reward, protocol, reader, tokenizer, judge, ends.
    truth, workers, applies, mask : str
        The columns with what the judge compares with, with the workers' texts or token ids, with false where the
        reward does not apply, and with which of the `completion_ids` were sampled.

    Raises
    ------
    ConfigError
        If the options do not fit together.

    Examples
    --------
    As the trainer calls it:

    >>> reward = make_reward_func(protocol={"capacity": 2})
    >>> texts = ["So <FORK-1>q</FORK-1><JOIN-1>9</JOIN-1><ANSWER>9</ANSWER>", "no tags"]
    >>> workers = [{"1": "<RETURN>9</RETURN>"}, None]
    >>> reward(prompts=["?", "?"], completions=texts, workers=workers, answer=["9", "9"], trainer_state=None)
    [1.28125, -1.0]
    """
    for name, value in {"truth": truth, "workers": workers, "applies": applies, "mask": mask}.items():
        if not isinstance(value, str) or not value:
            raise ConfigError(f"{name} must be the name of a column, got {value!r:.80}")
    return RewardFunction(scorer_of(scorer, options), truth, workers, applies, mask)
