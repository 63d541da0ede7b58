"""verl: `compute_score` for ``reward.custom_reward_function``, and the form of its batch reward manager.

verl's managers decode with special tokens skipped. So tags must be ordinary tokens, or the token ids must come along:
an agent loop's ``extra_fields`` reach the reward in `extra_info`, where this looks for ``workers``, ``response_ids``
and ``response_mask``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, get_args

import msgspec

from simulator.errors import ConfigError
from simulator.integrations.scorer import Scorer, row_of, scorer_of
from simulator.integrations.siblings import Row, Share, score_rows
from simulator.support.checks import is_whole, one_of
from simulator.trace import ORGANIZER

_READ = ("reward", "protocol")
"""Keys of verl's ``reward_kwargs`` that are read."""


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
    scorer = scorer or _scorer_of(others)
    scorer.refuse_groups(": verl's manager must be the one for batches")
    return compute_score_batch([data_source], [solution_str], [ground_truth], [extra_info], scorer=scorer)[0]


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

    Where an agent loop returns an output for each thread, they are one rollout: each says in its ``extra_fields`` which
    ``rollout`` it is of and whose ``thread`` it is (``organizer``, or a worker's id). Each gets the rollout's reward,
    or with ``share="tokens"`` its part. A reward that compares the rollouts of one query goes by ``uid``, or by the
    ``index`` of the data set.

    >>> [row["score"] for row in compute_score_batch(["m"], ["no answer"], [None], [None], protocol={"capacity": 2})]
    [-1.0]
    """
    scorer = scorer or _scorer_of(others)
    texts = list(solution_strs)
    infos = [info if isinstance(info, Mapping) else {} for info in _column(extra_infos, len(texts))]
    truths = _column(ground_truths, len(texts))
    rows = [_row(text, truth, info) for text, truth, info in zip(texts, truths, infos, strict=True)]
    step = next((info["global_steps"] for info in infos if is_whole(info.get("global_steps"))), None)
    found = score_rows(scorer, rows, share=others.get("share") or "rollout", step=step)
    logged = [row_of(found.batch, place) for place in range(len(found.batch))]
    return [
        {"score": reward, "acc": logged[place]["accuracy"], **logged[place]}
        for reward, place in zip(found.rewards, found.rollouts, strict=True)
    ]


def reward_outputs(
    outputs: Sequence[Any], ground_truth: Any = None, *, scorer: Scorer, share: Share = "rollout"
) -> list[float]:
    """Set ``reward_score`` of the outputs of one agent loop, an ``AgentLoopOutput`` a thread, and return the rewards.

    For an agent loop that returns a list of outputs: verl takes a ``reward_score`` that is there for the reward.

    Parameters
    ----------
    outputs : sequence of AgentLoopOutput
        Looked at are ``response_ids``, ``response_mask`` and, in ``extra_fields``, ``thread`` (``organizer``, or a
        worker's id) and ``text`` (the response in words, where the scorer has no tokenizer).
    ground_truth
        What the judge compares with.
    scorer : Scorer
    share : {"rollout", "tokens"}
        What each gets: the rollout's reward, or its part by tokens.

    Raises
    ------
    ConfigError
        If the reward compares the rollouts of one query, of which here is only one.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> said = {"organizer": "<FORK-1>q</FORK-1><JOIN-1>9</JOIN-1><ANSWER>9</ANSWER>", "1": "hm <RETURN>9</RETURN>"}
    >>> outputs = [SimpleNamespace(response_ids=None, extra_fields={"thread": t, "text": s}) for t, s in said.items()]
    >>> [round(reward, 3) for reward in reward_outputs(outputs, "9", scorer=Scorer(protocol={"capacity": 2}))]
    [1.281, 1.281]
    >>> round(outputs[1].reward_score, 3)
    1.281
    """
    scorer.refuse_groups(", and an agent loop sees one of them")
    rows = []
    for output in outputs:
        info = getattr(output, "extra_fields", None)
        info = dict(info) if isinstance(info, Mapping) else {}
        ids = getattr(output, "response_ids", None)
        info |= {"rollout": 0, "response_ids": ids, "response_mask": getattr(output, "response_mask", None)}
        rows.append(_row(info.get("text", ids), ground_truth, {**info, "thread": info.get("thread", ORGANIZER)}))
    rewards = score_rows(scorer, rows, share=share).rewards
    for output, reward in zip(outputs, rewards, strict=True):
        output.reward_score = reward
    return rewards


def _row(text: Any, truth: Any, info: Mapping[str, Any]) -> Row:
    thread, rollout = info.get("thread"), info.get("rollout")
    return Row(
        text,
        info.get("response_ids"),
        info.get("response_mask"),
        truth,
        rollout if thread is not None and isinstance(rollout, (str, int)) else None,
        None if thread is None else str(thread),
        info.get("workers"),
        info.get("uid", info.get("index")),
    )


def _scorer_of(others: Mapping[str, Any]) -> Scorer:
    """Return the scorer that plain values of verl's ``reward_kwargs`` ask for."""
    for name in map(str, others):  # what verl passes besides, such as reward_router_address, is no slip
        near = difflib.get_close_matches(name, _READ, n=1, cutoff=0.8)
        if near and name not in _READ and not name.startswith("reward_"):
            raise ConfigError(f"no key of reward_kwargs is called {name!r}; did you mean {near[0]}?")
    options = {name: others[name] for name in _READ if others.get(name) is not None}
    return _scorer(msgspec.json.encode(options, enc_hook=_plain))


def make_compute_score(
    scorer: Scorer | None = None, *, batch: bool = False, share: Share = "rollout", **options: Any
) -> Any:
    r"""Return `compute_score`, or with `batch` the batch form, with a scorer of its own.

    For a file of yours that ``reward.custom_reward_function.path`` names.

    Parameters
    ----------
    scorer : Scorer, optional
        Or its fields as `options`: reward, protocol, reader, tokenizer, judge, ends.
    batch : bool
        Whether the manager hands over whole batches.
    share : {"rollout", "tokens"}
        In a batch, what each row of a rollout gets that has several.

    Raises
    ------
    ConfigError
        If the options do not fit together.

    >>> make_compute_score(reward="threadweaver")(solution_str=r"\boxed{9}", ground_truth="9")["score"]
    1.0
    """
    one_of("share", share, get_args(Share))
    made = scorer_of(scorer, options)
    if batch:
        return partial(compute_score_batch, scorer=made, share=share)
    if made.compares or share != "rollout":
        raise ConfigError(
            "what compares or shares rollouts needs them all at once: batch=True, and verl's batch manager"
        )
    return partial(compute_score, scorer=made)


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
