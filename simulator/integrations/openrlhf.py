"""OpenRLHF: `reward_func` for a file that ``--reward.remote_url`` (older: ``--remote_rm_url``) names.

Queries are prompt and response in one text, with special tokens kept; OpenRLHF passes one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from simulator.integrations.scorer import Scorer, row_of, scorer_of


def response_of(query: Any, prompt: Any) -> Any:
    """Return `query` without the prompt it begins with.

    A prompt that was cut at its left to fit is found by its last characters, with nothing but the prompt before them:
    a response may hold them, too.

    >>> response_of("What is 4 + 5? 9", "What is 4 + 5?"), response_of("is 4 + 5? 9", "What is 4 + 5?")
    (' 9', ' 9')
    """
    if not isinstance(query, str) or not isinstance(prompt, str) or not prompt:
        return query
    if query.startswith(prompt):
        return query[len(prompt) :]
    for length in (len(prompt), 64, 8):
        before, found, rest = query.partition(prompt[-length:])
        if found and prompt.endswith(before + found):
            return rest
    return query


def reward_func(
    queries: Sequence[Any],
    prompts: Any = None,
    labels: Any = None,
    *,
    scorer: Scorer,
    workers: Any = None,
    **others: Any,
) -> dict[str, Any]:
    """Return ``rewards``, ``scores`` and ``extra_logs``.

    Parameters
    ----------
    queries, prompts, labels : sequence
        As OpenRLHF passes them. A label is what the judge compares with.
    scorer : Scorer
    workers : sequence, optional
        The workers' texts, where an agent of yours calls this.

    Returns
    -------
    dict
        Plain numbers for one query, as OpenRLHF makes tensors of them; lists for several. ``scores`` is how the rollout
        was judged (0 where nobody did), which OpenRLHF filters prompts by; without a judge, the reward.

    Examples
    --------
    >>> found = reward_func(["4 + 5? <ANSWER>9</ANSWER>"], ["4 + 5?"], ["9"], scorer=Scorer(protocol={"capacity": 2}))
    >>> found["rewards"], found["scores"], found["extra_logs"]["latency"]
    (1.25, 1.0, 6.0)
    """
    queries = list(queries)
    prompts = [] if prompts is None else list(prompts)
    prompts += [None] * (len(queries) - len(prompts))
    texts = [response_of(query, prompt) for query, prompt in zip(queries, prompts, strict=False)]
    batch = scorer.score(texts, None, workers, labels, groups=prompts)
    rows = [row_of(batch, place) for place in range(len(batch))]
    name = "total" if scorer.judge is None else "accuracy"
    logs = {key: [row[key] for row in rows] for key in batch.columns() if key not in ("reason", "total")}
    found = {"rewards": batch.total.tolist(), "scores": [row[name] for row in rows]}
    if len(rows) != 1:
        return {**found, "extra_logs": logs}
    return {**{key: values[0] for key, values in found.items()}, "extra_logs": {key: logs[key][0] for key in logs}}


def make_reward_func(scorer: Scorer | None = None, **options: Any) -> Any:
    """Return `reward_func` with a scorer of its own.

    Parameters
    ----------
    scorer : Scorer, optional
        Or its fields as `options`: reward, protocol, reader, tokenizer, judge, ends.

    Raises
    ------
    ConfigError
        If the options do not fit together, or the reward compares the rollouts of one query: OpenRLHF passes one at a
        time, and goes on without a reward where one raises.

    >>> make_reward_func(protocol={"capacity": 2})(["9"], [""], [None])["rewards"]
    -1.0
    """
    made = scorer_of(scorer, options)
    made.refuse_groups(", and OpenRLHF passes one at a time")
    return partial(reward_func, scorer=made)
