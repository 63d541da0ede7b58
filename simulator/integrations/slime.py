"""slime: `custom_rm` for ``--custom-rm-path``, for a sample and for a group (``--group-rm``).

A sample's ``response`` is decoded by the engine, by default with special tokens kept. Its ``metadata`` may hold
``workers``; a custom generate function puts them there.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from simulator.integrations.scorer import Scorer, row_of, scorer_of


async def custom_rm(args: Any, sample: Any, *, scorer: Scorer, **others: Any) -> Any:
    """Return the reward of a sample, or a list of them for a list of samples.

    Where `args` has a ``reward_key``, a reward is a dict with the reward under that key, and what is worth logging.

    Parameters
    ----------
    args : namespace
        slime's arguments.
    sample : Sample or list of Sample
        Looked at are ``response``, ``tokens`` and ``response_length``, ``loss_mask``, ``label``, and ``workers`` in
        ``metadata``.
    scorer : Scorer

    Examples
    --------
    >>> import asyncio, types
    >>> sample = types.SimpleNamespace(response="So <ANSWER>9</ANSWER>", label="9", metadata={})
    >>> asyncio.run(custom_rm(None, sample, scorer=Scorer(protocol={"capacity": 2})))
    1.25
    """
    samples = sample if isinstance(sample, (list, tuple)) else [sample]
    batch = scorer.score(
        [getattr(each, "response", None) for each in samples],
        [_response_ids(each) for each in samples],
        [_metadata(each).get("workers") for each in samples],
        [getattr(each, "label", None) for each in samples],
        [getattr(each, "loss_mask", None) for each in samples],
    )
    rewards: list[Any] = batch.total.tolist()
    key = getattr(args, "reward_key", None)
    if key:
        rewards = [{**row_of(batch, place), key: reward} for place, reward in enumerate(rewards)]
    return rewards if isinstance(sample, (list, tuple)) else rewards[0]


def make_custom_rm(scorer: Scorer | None = None, **options: Any) -> Any:
    """Return `custom_rm` with a scorer of its own: for both forms.

    Parameters
    ----------
    scorer : Scorer, optional
        Or its fields as `options`: reward, protocol, reader, tokenizer, judge, ends.

    Raises
    ------
    ConfigError
        If the options do not fit together.

    >>> import asyncio
    >>> asyncio.run(make_custom_rm(protocol={"capacity": 2})(None, []))
    []
    """
    return partial(custom_rm, scorer=scorer_of(scorer, options))


def _metadata(sample: Any) -> dict[str, Any]:
    metadata = getattr(sample, "metadata", None)
    return metadata if isinstance(metadata, dict) else {}


def _response_ids(sample: Any) -> Any:
    """Return the last `response_length` of a sample's tokens, None where they are not all there."""
    tokens, length = getattr(sample, "tokens", None), getattr(sample, "response_length", 0)
    if not isinstance(tokens, (list, tuple)) or not isinstance(length, int) or not 0 < length <= len(tokens):
        return None
    return tokens[-length:]
