"""slime: `custom_rm` for ``--custom-rm-path``, for a sample and for a group (``--group-rm``).

A sample's ``response`` is decoded by the engine, by default with special tokens kept. Its ``metadata`` may hold
``workers``; a custom generate function puts them there.
"""

from __future__ import annotations

from functools import partial
from typing import Any, get_args

from simulator.errors import ConfigError
from simulator.integrations.scorer import Scorer, row_of, scorer_of
from simulator.integrations.siblings import Row, Share, score_rows
from simulator.support.checks import one_of
from simulator.trace import ORGANIZER


async def custom_rm(args: Any, sample: Any, *, scorer: Scorer, share: Share = "rollout", **others: Any) -> Any:
    """Return the reward of a sample, or a list of them for a list of samples.

    Where `args` has a ``reward_key``, a reward is a dict with the reward under that key, and what is worth logging.

    Parameters
    ----------
    args : namespace
        slime's arguments.
    sample : Sample or list of Sample
        Looked at are ``response``, ``tokens`` and ``response_length``, ``loss_mask``, ``label``, and ``workers`` in
        ``metadata``. Samples of one rollout, a sample a thread, say so in their ``metadata``: ``rollout`` (what they
        have in common; by default the sample's ``index``) and ``thread`` (``organizer``, or a worker's id). A reward
        that compares the rollouts of one query needs ``--group-rm``, and goes by their ``group_index``.
    scorer : Scorer
    share : {"rollout", "tokens"}
        What each of those gets (see `simulator.integrations.siblings`).

    Examples
    --------
    >>> import asyncio, types
    >>> sample = types.SimpleNamespace(response="So <ANSWER>9</ANSWER>", label="9", metadata={})
    >>> asyncio.run(custom_rm(None, sample, scorer=Scorer(protocol={"capacity": 2})))
    1.25
    """
    grouped = isinstance(sample, (list, tuple))
    samples = sample if grouped else [sample]
    if not grouped and _metadata(sample).get("thread") not in (None, ORGANIZER):
        raise ConfigError("a sample of a worker is scored together with its organizer's: run slime with --group-rm")
    if not grouped:
        scorer.refuse_groups(": run slime with --group-rm")
    found = score_rows(scorer, [_row(each) for each in samples], share=share)
    rewards: list[Any] = found.rewards
    key = getattr(args, "reward_key", None)
    if key:
        rows = zip(found.rollouts, rewards, strict=True)
        rewards = [{**row_of(found.batch, rollout), key: reward} for rollout, reward in rows]
    return rewards if grouped else rewards[0]


def make_custom_rm(scorer: Scorer | None = None, *, share: Share = "rollout", **options: Any) -> Any:
    """Return `custom_rm` with a scorer of its own: for both forms.

    Parameters
    ----------
    scorer : Scorer, optional
        Or its fields as `options`: reward, protocol, reader, tokenizer, judge, ends.
    share : {"rollout", "tokens"}
        What each sample of a rollout gets that has several.

    Raises
    ------
    ConfigError
        If the options do not fit together.

    >>> import asyncio
    >>> asyncio.run(make_custom_rm(protocol={"capacity": 2})(None, []))
    []
    """
    one_of("share", share, get_args(Share))
    return partial(custom_rm, scorer=scorer_of(scorer, options), share=share)


def _row(sample: Any) -> Row:
    metadata = _metadata(sample)
    thread = metadata.get("thread")
    rollout = metadata.get("rollout", getattr(sample, "index", None)) if thread is not None else None
    return Row(
        getattr(sample, "response", None),
        _response_ids(sample),
        getattr(sample, "loss_mask", None),
        getattr(sample, "label", None),
        rollout if isinstance(rollout, (str, int)) else None,
        None if thread is None else str(thread),
        metadata.get("workers"),
        getattr(sample, "group_index", None),
    )


def _metadata(sample: Any) -> dict[str, Any]:
    metadata = getattr(sample, "metadata", None)
    return metadata if isinstance(metadata, dict) else {}


def _response_ids(sample: Any) -> Any:
    """Return the last `response_length` of a sample's tokens, None where they are not all there."""
    tokens, length = getattr(sample, "tokens", None), getattr(sample, "response_length", 0)
    if not isinstance(tokens, (list, tuple)) or not isinstance(length, int) or not 0 < length <= len(tokens):
        return None
    return tokens[-length:]
