"""Scoring many rollouts: one row each, whatever they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice, repeat, zip_longest
from multiprocessing import get_all_start_methods, get_context
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.errors import ConfigError, TraceError, mistaken, why
from simulator.rewards.grouped import Grouped
from simulator.rewards.library import asyncthink
from simulator.rewards.loading import load_reward
from simulator.rewards.result import Rollout, Score
from simulator.rewards.rollouts import Judged, Reader, RolloutLike, outcome_of
from simulator.rewards.spec import Reward
from simulator.rewards.timed import map_watched
from simulator.support.checks import real, whole
from simulator.trace import Trace, Violation, ViolationKind
from simulator.trace.protocol import Protocol

CHUNK = 1024
"""Rollouts that are scored, and held in memory as Python objects, at once."""

SHARED_CHUNK = 512
"""The same, where processes share the work: the larger, the less is spent on handing it over."""

MAX_REASON = 300
_DEFAULT = asyncthink()
_READER = Reader()
_LOST = ViolationKind.FORK_WITHOUT_WORKER
_KINDS = tuple(kind.value for kind in ViolationKind)


def score(trace: Trace, protocol: Protocol | None = None, *, reward: Reward | str = _DEFAULT) -> Score:
    """Return the reward of one trace.

    Parameters
    ----------
    trace : Trace
    protocol : Protocol, optional
        Default: the reward's own, or ``Protocol()``. The AsyncThink reward needs a `capacity`.
    reward : Reward or str
        Default: AsyncThink's. A name or a file is loaded (see `load_reward`).

    Raises
    ------
    ConfigError
        If the protocol lacks what the reward needs.

    >>> from simulator.trace import Answer, Fork, Join, Outcome, Return, Think, Thread
    >>> organizer = Thread("organizer", (Think(5), Fork(1), Think(3), Join(1), Answer(2)))
    >>> trace = Trace("t", (organizer, Thread("1", (Return(9),))), Outcome(correct=True))
    >>> result = score(trace, Protocol(capacity=2))
    >>> result.total, result.terms["accuracy"], round(result.terms["concurrency"], 6)
    (1.296875, 1.0, 0.296875)
    """
    if not isinstance(trace, Trace):
        raise TraceError(f"{mistaken('score', 'Trace', trace)}; score_batch takes texts")
    spec, rules = resolve(reward, protocol)
    return spec.score(Rollout(trace, rules))


def resolve(reward: Reward | str, protocol: Protocol | None) -> tuple[Reward, Protocol]:
    """Return the reward, loaded if it is a name, and the protocol that goes with it."""
    spec = load_reward(reward)
    if protocol is not None and not isinstance(protocol, Protocol):
        raise ConfigError(f"protocol must be a Protocol, such as Protocol(capacity=4); got {protocol!r:.80}")
    return spec, protocol or spec.protocol or Protocol()


@dataclass(frozen=True, eq=False)
class ScoreBatch:
    """Scores of many rollouts, one numpy array per column, in the order the rollouts came in.

    A rollout that could not be scored has `failed` set and earns what a format error earns; its accuracy is NaN, and
    all else is 0.

    >>> from simulator import Protocol, score_batch
    >>> batch = score_batch(["<ANSWER>4</ANSWER>", "no answer"], protocol=Protocol(capacity=2), outcomes=[True, False])
    >>> batch, batch.total.tolist(), batch.failed.tolist()
    (ScoreBatch(2 rollouts: mean reward 0.125), [1.25, -1.0], [False, False])
    """

    total: npt.NDArray[np.float64]
    """The reward: the sum of the terms."""
    terms: dict[str, npt.NDArray[np.float64]]
    """Each term, ``format_error`` first."""
    accuracy: npt.NDArray[np.float64]
    """R_A before any format error; NaN where nobody judged."""
    latency: npt.NDArray[np.int64]
    """Critical-path latency T, in decode steps."""
    eta: npt.NDArray[np.float64]
    """Concurrency ratio."""
    eta_over_c: npt.NDArray[np.float64]
    """eta over the pool capacity; NaN without one."""
    peak_concurrency: npt.NDArray[np.int64]
    """Most agents active at once."""
    workers: npt.NDArray[np.int64]
    """Workers that ran."""
    work: npt.NDArray[np.int64]
    """Tokens decoded by all threads that ran."""
    without_workers: npt.NDArray[np.bool_]
    """Whether it Forks and no worker's text is there: then eta is the organizer's alone, whatever it does."""
    violations: dict[str, npt.NDArray[np.int64]]
    """How many of each `ViolationKind` there are, by its value."""
    failed: npt.NDArray[np.bool_]
    """Whether the rollout could not be scored at all."""
    reason: tuple[str | None, ...]
    """Why it failed, or the violation that cost it the reward; None where all is well."""
    answers: tuple[str | None, ...]
    """What is to be judged of each (see `Score.answer`)."""

    def __len__(self) -> int:
        return len(self.total)

    def __repr__(self) -> str:
        mean = f"mean reward {self.total.mean():.4g}" if len(self) else "nothing"
        lost = int(self.failed.sum())
        return f"ScoreBatch({len(self):,} rollouts: {mean}{f', {lost:,} not scored' if lost else ''})"

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Return all columns flat, as a table has them: ``term_NAME`` for terms, ``n_KIND`` for violations.

        >>> batch = score_batch(["<ANSWER>9</ANSWER>"], protocol=Protocol(capacity=1))
        >>> list(batch.columns())[:5]
        ['total', 'term_format_error', 'term_accuracy', 'term_concurrency', 'accuracy']
        """
        return {
            "total": self.total,
            **{f"term_{name}": column for name, column in self.terms.items()},
            **{name: getattr(self, name) for name in _PLAIN},
            **{f"n_{kind}": column for kind, column in self.violations.items()},
            "failed": self.failed,
            "reason": np.array(self.reason, dtype=object),
        }

    @classmethod
    def join(cls, parts: Sequence[ScoreBatch]) -> ScoreBatch:
        """Return the rows of all parts, which must be of one reward, one after another."""
        first = parts[0]
        stacked: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in (*_PLAIN, "total", "failed")
        }
        for name in ("terms", "violations"):
            stacked[name] = {
                key: np.concatenate([getattr(part, name)[key] for part in parts]) for key in getattr(first, name)
            }
        for name in ("reason", "answers"):
            stacked[name] = tuple(chain.from_iterable(getattr(part, name) for part in parts))
        return cls(**stacked)


_PLAIN = ("accuracy", "latency", "eta", "eta_over_c", "peak_concurrency", "workers", "work", "without_workers")


def score_batch(
    rollouts: Iterable[RolloutLike],
    *,
    reward: Reward | str = _DEFAULT,
    protocol: Protocol | None = None,
    outcomes: Iterable[Judged] | None = None,
    masks: Iterable[Any] | None = None,
    groups: Iterable[Hashable] | None = None,
    reader: Reader = _READER,
    workers: int | Executor = 1,
    max_seconds: float | None = None,
) -> ScoreBatch:
    """Score rollouts. Whatever is wrong with one of them is a matter of its row.

    Parameters
    ----------
    rollouts : iterable
        Each a `Trace`, a text of any format, token ids (see `Reader`), or a mapping: a text or ids under ``organizer``,
        ``output``, ``text``, ``completion`` or ``response``; optionally ``workers`` (a mapping from ids to texts, or a
        list), ``correct``, ``found`` and ``wanted``, ``tokens``, ``prompt_tokens``; with token ids ``mask`` (also
        called ``response_mask`` or ``loss_mask``) and ``worker_masks``. Other keys are ignored.
    reward : Reward or str
        Default: AsyncThink's. A name or a file is loaded (see `load_reward`).
    protocol : Protocol, optional
        Default: the reward's own, or ``Protocol()``. The AsyncThink reward needs a `capacity`.
    outcomes : iterable, optional
        How each was judged: an Outcome, true or false, 1 or 0, or None for what the rollout itself says.
    masks : iterable, optional
        Of rollouts of token ids, for each id whether the policy sampled it (1) or the runtime inserted it (0), or None
        for what the rollout itself says under ``mask``.
    groups : iterable, optional
        What the rollouts of one query have in common, one for each, such as the prompt. Only a reward that compares
        them needs it (see `Reward.grouped`).
    reader : Reader
        Format, token counting, token ids, and how large a rollout may be. Where it names no format, that of the reward.
    workers : int or concurrent.futures.Executor
        Processes to share the work; or a pool of yours, which saves starting one at every call. More than one needs a
        reward and a reader that can be pickled.
    max_seconds : float, optional
        A rollout that takes longer is given up and fails. The rollouts are then scored in processes that are watched,
        also with one worker. This is the one option that can make two runs differ, and only in the rows it strikes;
        `Reader.max_size` bounds the work of a row the same way every time, as parsing and scoring are linear in it.

    Returns
    -------
    ScoreBatch
        The same for the same input, however many workers.

    Raises
    ------
    ConfigError
        If the reward, the protocol and the options do not fit together. Nothing in a rollout raises.

    Examples
    --------
    >>> texts = ["So <FORK-1>q</FORK-1><JOIN-1>9</JOIN-1><ANSWER>9</ANSWER>", "<JOIN-1> <ANSWER>9</ANSWER>", None]
    >>> batch = score_batch(texts, protocol=Protocol(capacity=2), outcomes=[True, True, True])
    >>> batch.total.tolist()
    [1.25, -1.0, -1.0]
    >>> for reason in batch.reason:
    ...     print(reason)
    None
    unknown_join: thread organizer action 0: Join of sub-query 1, which was not forked
    a rollout is a Trace, a text, a mapping with a text, or token ids; got NoneType
    """
    spec, rules = resolve(reward, protocol)
    spec.check(rules)
    reader = reader.meant_for(spec)
    if masks is not None:
        rollouts = _masked(rollouts, masks)
    task = partial(_score_chunk, spec, rules, reader)
    if not isinstance(workers, Executor):
        whole("workers", workers, "from 1, or a pool")
    chunks = _chunks(rollouts, outcomes, CHUNK if workers == 1 else _share(rollouts))
    if max_seconds is not None:
        if isinstance(workers, Executor):
            raise ConfigError("max_seconds needs processes of its own: give workers as a number")
        real("max_seconds", max_seconds, "above 0 and at most 10^6")
        parts = map_watched(task, chunks, seconds=max_seconds, workers=workers)
    elif isinstance(workers, Executor):
        parts = list(workers.map(task, chunks))
    elif workers == 1:
        parts = list(map(task, chunks))
    else:
        with process_pool(workers) as pool:
            parts = list(pool.map(task, chunks))
    batch = ScoreBatch.join(parts) if len(parts) != 1 else parts[0]
    return batch if spec.grouped is None else _weighed(batch, spec.grouped, groups)


def _weighed(batch: ScoreBatch, grouped: Grouped, groups: Iterable[Hashable] | None) -> ScoreBatch:
    """Return a batch whose terms count as they do within groups."""
    if groups is None:
        raise ConfigError("the reward compares the rollouts of one query: give groups=, what those have in common")
    names = list(groups)
    if len(names) != len(batch):
        raise ConfigError(f"there are {len(names)} groups for {len(batch)} rollouts; each has its own")
    in_order = np.array([reason is None for reason in batch.reason], dtype=np.bool_)
    right = (batch.accuracy == 1) & in_order
    terms, total = dict(batch.terms), batch.total.copy()
    for name in grouped.terms:
        terms[name] = np.where(in_order, grouped.weighed(terms[name], right, names), terms[name])
        total += terms[name] - batch.terms[name]
    return replace(batch, terms=terms, total=total)


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of processes for `score_batch`, worth keeping where batches come one after another.

    Not forked from this process: a trainer has threads and a GPU, neither of which survives a fork.
    """
    method = "forkserver" if "forkserver" in get_all_start_methods() else "spawn"
    return ProcessPoolExecutor(workers, mp_context=get_context(method))


_Chunk = list[tuple[Any, Any]]


def _chunks(rollouts: Iterable[Any], judged: Iterable[Any] | None, size: int) -> Iterator[_Chunk]:
    """Yield rollouts with their verdicts, at least one chunk."""
    _several(rollouts)
    try:
        items, verdicts = iter(rollouts), repeat(None) if judged is None else iter(judged)
    except TypeError as error:
        raise ConfigError(f"rollouts and outcomes must be iterables: {error}") from None
    first = True
    while (chunk := list(islice(items, size))) or first:
        given = list(islice(verdicts, len(chunk)))
        if len(given) < len(chunk):
            raise ConfigError("there are fewer outcomes than rollouts")
        yield list(zip(chunk, given, strict=True))
        first = False
    if judged is not None and next(verdicts, _END) is not _END:
        raise ConfigError("there are more outcomes than rollouts")


_END: Any = object()


def _several(rollouts: Any) -> None:
    if isinstance(rollouts, (str, bytes, Mapping, Trace)):
        raise ConfigError(f"rollouts must be several, such as [rollout]; got one {type(rollouts).__name__}")


def _masked(rollouts: Iterable[Any], masks: Iterable[Any]) -> Iterator[Any]:
    """Yield rollouts with their masks."""
    _several(rollouts)
    for rollout, mask in zip_longest(rollouts, masks, fillvalue=_END):
        if mask is _END or rollout is _END:
            raise ConfigError(f"there are {'fewer' if mask is _END else 'more'} masks than rollouts")
        if mask is None:
            yield rollout
        else:
            yield {**rollout, "mask": mask} if isinstance(rollout, Mapping) else {"text": rollout, "mask": mask}


def _share(rollouts: Iterable[Any]) -> int:
    """Return how many rollouts a process is handed at once: a sixteenth of them, within reason."""
    return max(32, min(SHARED_CHUNK, len(rollouts) // 16)) if isinstance(rollouts, Sized) else SHARED_CHUNK


def _score_chunk(
    reward: Reward, protocol: Protocol, reader: Reader, chunk: _Chunk, beat: Callable[[], None] | None = None
) -> ScoreBatch:
    rows: list[tuple[float, ...]] = []
    counts: list[tuple[int, ...]] = []
    reasons: list[str | None] = []
    answers: list[str | None] = []
    found: list[tuple[int, tuple[Violation, ...]]] = []
    names = reward.names
    gate, read = reward.gate, reader.trace
    make_score = reward.score if reward.grouped is None else partial(reward.score, alone=False)
    for place, (item, verdict) in enumerate(chunk):
        reason = answer = None
        try:
            rollout = Rollout(read(item, "rollout", verdict if verdict is None else outcome_of(verdict)), protocol)
            result = make_score(rollout)
            clock = rollout.clock
            accuracy = math.nan if result.accuracy is None else result.accuracy
            row = (result.total, *result.terms.values(), accuracy, result.eta, result.eta_over_c, False)
            lost = False
            if clock.violations:
                lost = not clock.workers and any(each.kind is _LOST for each in clock.violations)
                closed = gate.closes(clock.violations, protocol) if gate is not None else None
                reason = None if closed is None else _line(str(closed))
                found.append((place, clock.violations))
            numbers = (clock.latency, clock.peak_concurrency, clock.workers, clock.work, lost)
            answer = result.answer
        except Exception as error:  # of any kind: a bad row must not stop a trainer
            price = reward.price(protocol)
            row = (price, price, *repeat(0.0, len(names) - 1), math.nan, 0.0, 0.0, True)
            numbers = (0, 0, 0, 0, False)
            reason = why(error, limit=MAX_REASON)
        rows.append(row)
        counts.append(numbers)
        reasons.append(reason)
        answers.append(answer)
        if beat is not None:
            beat()
    return _batch(rows, counts, found, names, {"reason": tuple(reasons), "answers": tuple(answers)})


def _line(text: str) -> str:
    return " ".join(text[:MAX_REASON].split())


def _batch(
    rows: list[tuple[float, ...]],
    numbers: list[tuple[int, ...]],
    found: list[tuple[int, tuple[Violation, ...]]],
    names: tuple[str, ...],
    texts: dict[str, tuple[str | None, ...]],
) -> ScoreBatch:
    width = len(names)
    floats = np.array(rows, dtype=np.float64).reshape(len(rows), width + 5).T.copy()
    whole = np.array(numbers, dtype=np.int64).reshape(len(rows), 5).T.copy()
    counts = {kind: np.zeros(len(rows), dtype=np.int64) for kind in _KINDS}
    for place, violations in found:
        for violation in violations:
            counts[violation.kind.value][place] += 1
    accuracy, eta, ratio, failed = floats[width + 1 :]
    latency, peak, workers, work, lost = whole
    return ScoreBatch(
        total=floats[0],
        terms={name: floats[1 + i] for i, name in enumerate(names)},
        accuracy=accuracy,
        latency=latency,
        eta=eta,
        eta_over_c=ratio,
        peak_concurrency=peak,
        workers=workers,
        work=work,
        without_workers=lost.astype(np.bool_),
        violations=counts,
        failed=failed.astype(np.bool_),
        **texts,
    )
