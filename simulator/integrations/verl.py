"""verl: `compute_score` for ``reward.custom_reward_function``, and the form of its batch reward manager.

verl's managers decode with special tokens skipped. So tags must be ordinary tokens, or the token ids must come along:
an agent loop's ``extra_fields`` reach the reward in `extra_info`, where this looks for ``workers``, ``response_ids``
and ``response_mask``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import msgspec

from simulator.integrations.scorer import Scorer, row_of, scorer_of
from simulator.support.checks import is_whole


def compute_score(
    data_source: Any = None,
    solution_str: Any = None,
    ground_truth: Any = None,
    extra_info: Any = None,
    *,
    scorer: Scorer | None = None,
    **others: Any,
) -> dict[str, Any]:
    """Return ``score`` and what is worth logging, of one rollout.

    Parameters
    ----------
    data_source
        Not used.
    solution_str : str or sequence of int
        The organizer's text, or its token ids.
    ground_truth
        What the judge compares with.
    extra_info : mapping, optional
        Looked at are ``workers`` (texts or token ids by id, or JSON of that), ``response_ids`` and ``response_mask``,
        and ``global_steps`` for a reward that changes with the training step.
    scorer : Scorer, optional
        Or, from verl's ``reward_kwargs``, plain values: ``reward`` (a name or a file), ``protocol`` (a table). Whatever
        else verl passes is ignored.

    Returns
    -------
    dict
        ``score``, ``acc`` and the columns of `ScoreBatch`: numbers, but for ``reason``. Every rollout has
        the same keys.

    Raises
    ------
    ConfigError
        If reward and protocol do not fit together. Nothing in a rollout raises.

    Examples
    --------
    >>> row = compute_score("math", "So <ANSWER>9</ANSWER>", "9", {"index": 3}, protocol={"capacity": 2})
    >>> row["score"], row["acc"], row["term_concurrency"], row["latency"]
    (1.25, 1.0, 0.25, 6.0)
    """
    return compute_score_batch([data_source], [solution_str], [ground_truth], [extra_info], scorer=scorer, **others)[0]


def compute_score_batch(
    data_sources: Any = None,
    solution_strs: Any = (),
    ground_truths: Any = None,
    extra_infos: Any = None,
    *,
    scorer: Scorer | None = None,
    **others: Any,
) -> list[dict[str, Any]]:
    """Return what `compute_score` does, for a batch: as verl's ``BatchRewardManager`` asks for it.

    >>> [row["score"] for row in compute_score_batch(["m"], ["no answer"], [None], [None], protocol={"capacity": 2})]
    [-1.0]
    """
    if scorer is None:
        options = {name: others[name] for name in ("reward", "protocol") if others.get(name) is not None}
        scorer = _scorer(msgspec.json.encode(options, enc_hook=_plain))
    texts = list(solution_strs)
    infos = [info if isinstance(info, Mapping) else {} for info in _column(extra_infos, len(texts))]
    batch = scorer.score(
        texts,
        [info.get("response_ids") for info in infos],
        [info.get("workers") for info in infos],
        _column(ground_truths, len(texts)),
        [info.get("response_mask") for info in infos],
        next((info["global_steps"] for info in infos if is_whole(info.get("global_steps"))), None),
    )
    rows = [row_of(batch, place) for place in range(len(batch))]
    return [{"score": row["total"], "acc": row["accuracy"], **row} for row in rows]


def make_compute_score(scorer: Scorer | None = None, *, batch: bool = False, **options: Any) -> Any:
    r"""Return `compute_score`, or with `batch` the batch form, with a scorer of its own.

    For a file of yours that ``reward.custom_reward_function.path`` names.

    Parameters
    ----------
    scorer : Scorer, optional
        Or its fields as `options`: reward, protocol, reader, tokenizer, judge, ends.

    Raises
    ------
    ConfigError
        If the options do not fit together.

    >>> make_compute_score(reward="threadweaver")(solution_str=r"\boxed{9}", ground_truth="9")["score"]
    1.0
    """
    return partial(compute_score_batch if batch else compute_score, scorer=scorer_of(scorer, options))


def _column(values: Any, length: int) -> Sequence[Any]:
    """Return `values` as a list of that length: what is missing is None."""
    kept = [] if values is None else list(values)[:length]
    return kept + [None] * (length - len(kept))


@lru_cache(maxsize=16)
def _scorer(options: bytes) -> Scorer:
    return scorer_of(None, msgspec.json.decode(options))


def _plain(value: Any) -> Any:
    """Return a table of verl's configuration as a dict."""
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, Sequence) else str(value)
