"""verifiers: a reward by argument names. Its ``traces.jsonl`` is a format: see `simulator.formats.logs.verifiers`.

A task of verifiers.v1 asks for ``trace``; a rubric of older releases for ``completion``, ``answer``, ``info`` and
``state``. Both frameworks pass what the function names, so `forksim_reward` names them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from simulator.errors import SimulatorError
from simulator.formats.logs import verifiers
from simulator.integrations.scorer import Scorer, means, row_of, scorer_of, texts_of
from simulator.integrations.siblings import Row, Share, score_rows
from simulator.trace import Trace


async def forksim_reward(
    trace: Any = None,
    task: Any = None,
    completion: Any = None,
    answer: Any = None,
    info: Any = None,
    state: Any = None,
    *,
    scorer: Scorer,
) -> float:
    """Return the reward of one rollout, and record its columns as metrics of the trace.

    A rollout with sub-agents is scored by its message graph. One without is scored by all that its model said, with the
    ``workers`` in the `info` of the trace (or the argument), if any.

    Parameters
    ----------
    trace, task
        Of verifiers.v1. ``task.answer`` is what the judge compares with.
    completion, answer, info, state
        Of older releases.
    scorer : Scorer

    Examples
    --------
    >>> import asyncio
    >>> messages = [{"role": "assistant", "content": "So <ANSWER>9</ANSWER>"}]
    >>> asyncio.run(forksim_reward(completion=messages, answer="9", scorer=Scorer(protocol={"capacity": 2})))
    1.25
    """
    graph, said = _read(trace)
    text = texts_of(completion) if completion is not None else said or getattr(trace, "last_reply", None)
    truth = getattr(task, "answer", None) if answer is None else answer
    notes = info if info is not None else getattr(trace, "info", None)
    notes = notes if isinstance(notes, Mapping) else {}
    if graph is not None and len(graph.threads) > 1:
        batch = scorer.score([graph], None, None, [truth])
    else:
        batch = scorer.score([text], None, [notes.get("workers")], [truth])
    record = getattr(trace, "record_metrics", None)
    if callable(record):
        record({f"forksim_{name}": value for name, value in means(batch).items()})
    return float(batch.total[0])


async def forksim_episode(
    traces: Any, task: Any = None, answer: Any = None, *, scorer: Scorer, share: Share = "rollout"
) -> list[float]:
    """Return the rewards of the traces of one episode, of which each is a thread of one rollout.

    Parameters
    ----------
    traces : sequence
        Of verifiers.v1, as an episode has them. Whose trace it is says ``info["thread"]``: ``organizer``, or a worker's
        id (``1``, nested ``1.2``). One that does not say is a rollout of its own.
    task, answer
        ``task.answer``, or `answer`, is what the judge compares with.
    scorer : Scorer
    share : {"rollout", "tokens"}
        What each gets: the rollout's reward, or its part by tokens.

    Raises
    ------
    ConfigError
        If the reward compares the rollouts of one query.

    Examples
    --------
    >>> import asyncio
    >>> from types import SimpleNamespace
    >>> said = {"organizer": "<FORK-1>q</FORK-1><JOIN-1>9</JOIN-1><ANSWER>9</ANSWER>", "1": "hm <RETURN>9</RETURN>"}
    >>> traces = [SimpleNamespace(info={"thread": name}, last_reply=text) for name, text in said.items()]
    >>> scorer = Scorer(protocol={"capacity": 2})
    >>> [round(reward, 3) for reward in asyncio.run(forksim_episode(traces, answer="9", scorer=scorer))]
    [1.281, 1.281]
    """
    scorer.refuse_groups(", and an episode is one of them")
    truth = getattr(task, "answer", None) if answer is None else answer
    rows = []
    for trace in traces:
        notes = getattr(trace, "info", None)
        notes = notes if isinstance(notes, Mapping) else {}
        thread = notes.get("thread")
        _, said = _read(trace)
        text = said or getattr(trace, "last_reply", None)
        rollout = None if thread is None else 0
        rows.append(Row(text, None, None, truth, rollout, thread and str(thread), notes.get("workers")))
    found = score_rows(scorer, rows, share=share)
    for trace, reward, place in zip(traces, found.rewards, found.rollouts, strict=True):
        record = getattr(trace, "record_metrics", None)
        if callable(record):
            row = {name: value for name, value in row_of(found.batch, place).items() if name != "reason"}
            record({f"forksim_{name}": value for name, value in row.items()} | {"forksim_share": reward})
    return found.rewards


def make_reward(scorer: Scorer | None = None, **options: Any) -> Any:
    """Return `forksim_reward` with a scorer of its own.

    Parameters
    ----------
    scorer : Scorer, optional
        Or its fields as `options`: reward, protocol, reader, tokenizer, judge, ends.

    Raises
    ------
    ConfigError
        If the options do not fit together.

    >>> import asyncio
    >>> asyncio.run(make_reward(protocol={"capacity": 2})())
    -1.0
    """
    made = scorer_of(scorer, options)
    made.refuse_groups(", and a task scores one trace at a time")
    return partial(forksim_reward, scorer=made)


def _read(trace: Any) -> tuple[Trace | None, str]:
    """Return the Trace of a rollout, None if there is none, and all that was said in it."""
    dump = getattr(trace, "to_record", None)
    if not callable(dump):
        return None, ""
    try:
        record = dump()
        return verifiers.trace_of(record), verifiers.said(record)
    except (SimulatorError, ValueError, TypeError, LookupError):
        return None, ""
