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
from simulator.integrations.scorer import Scorer, means, scorer_of, texts_of
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
    return partial(forksim_reward, scorer=scorer_of(scorer, options))


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
