"""One rollout from several rows: where a trainer has a row for each thread, the organizer's and its workers'."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal, NamedTuple

from simulator.errors import FormatError
from simulator.integrations.scorer import Scorer
from simulator.rewards import ScoreBatch
from simulator.support.checks import one_of
from simulator.trace import ORGANIZER
from simulator.trace.tokens import by_characters

Share = Literal["rollout", "tokens"]


class Row(NamedTuple):
    """What a trainer has of one thread."""

    text: Any
    ids: Any = None
    """Its token ids, if there are any."""
    mask: Any = None
    """Which of them were sampled."""
    truth: Any = None
    """What the judge compares with; that of the organizer counts."""
    rollout: Hashable = None
    """What the rows of one rollout have in common; None: the row is a rollout of its own."""
    thread: str | None = None
    """Whose row it is: ``organizer``, or a worker's id (``1``, nested ``1.2``); None is the organizer."""
    workers: Any = None
    """Of an organizer: texts or ids of workers that have no rows."""
    group: Any = None
    """What the rollouts of one query have in common, for a reward that compares them; that of the organizer counts."""


class Shared(NamedTuple):
    """What `score_rows` returns."""

    rewards: list[float]
    """Of each row."""
    batch: ScoreBatch
    """A row a rollout, in the order in which they first appear."""
    rollouts: list[int]
    """Of each row, which rollout of the batch it belongs to."""


def score_rows(scorer: Scorer, rows: Sequence[Row], *, share: Share = "rollout", step: int | None = None) -> Shared:
    """Score rollouts of which each thread has a row of its own.

    Parameters
    ----------
    scorer : Scorer
    rows : sequence of Row
    share : {"rollout", "tokens"}
        What a row gets: the reward of its rollout, or a share of that by its tokens. Such shares add up to the reward.
    step : int, optional
        The training step (see `Scorer.score`).

    Raises
    ------
    ConfigError
        If there is no such `share`. Nothing in a row raises: a rollout that cannot be put together fails.

    Examples
    --------
    >>> scorer = Scorer(protocol={"capacity": 2})
    >>> text = "<FORK-1>q</FORK-1><JOIN-1>9</JOIN-1><ANSWER>9</ANSWER>"
    >>> worker = Row("hm <RETURN>9</RETURN>", rollout=7, thread="1")
    >>> rows = [Row(text, truth="9", rollout=7, thread="organizer"), worker]
    >>> found = score_rows(scorer, rows)
    >>> [round(reward, 3) for reward in found.rewards], found.rollouts
    ([1.281, 1.281], [0, 0])
    >>> [round(reward, 3) for reward in score_rows(scorer, rows, share="tokens").rewards]
    [0.897, 0.384]
    """
    one_of("share", share, ("rollout", "tokens"))
    groups: dict[Hashable, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(("alone", place) if row.rollout is None else ("rollout", row.rollout), []).append(place)
    texts, ids, workers, truths, masks, names = [], [], [], [], [], []
    belongs = [0] * len(rows)
    for number, places in enumerate(groups.values()):
        for place in places:
            belongs[place] = number
        main, helpers = _together([rows[place] for place in places], scorer)
        texts.append(main.text)
        ids.append(main.ids)
        workers.append(helpers or main.workers)
        truths.append(main.truth)
        masks.append(main.mask)
        names.append(main.group)
    known = None if any(name is None for name in names) else names
    batch = scorer.score(texts, ids, workers, truths, masks, step, known)
    totals = batch.total.tolist()
    if share == "rollout":
        return Shared([totals[number] for number in belongs], batch, belongs)
    sizes = [_size(row) for row in rows]
    whole = [sum(sizes[place] for place in places) for places in groups.values()]
    count = [len(places) for places in groups.values()]
    shares = [
        size / whole[number] if whole[number] else 1 / count[number]
        for size, number in zip(sizes, belongs, strict=True)
    ]
    return Shared([totals[number] * part for number, part in zip(belongs, shares, strict=True)], batch, belongs)


def _together(rows: Sequence[Row], scorer: Scorer) -> tuple[Row, dict[str, Any]]:
    """Return the organizer's row, and the workers' texts or token ids by id."""
    organizers = [row for row in rows if row.thread in (None, ORGANIZER)]
    helpers: dict[str, Any] = {}
    by_ids = scorer.reader.decode is not None or scorer.reader.tags is not None
    for row in rows:
        if row.thread not in (None, ORGANIZER):
            helpers[str(row.thread)] = row.ids if by_ids and row.ids is not None else row.text
    if len(organizers) != 1 or len(helpers) != len(rows) - 1:
        named = ", ".join(str(row.thread or ORGANIZER) for row in rows[:8])
        fault = FormatError(f"a rollout has one row of the organizer and one of each worker; got rows of {named:.80}")
        return Row(fault), {}
    return organizers[0], helpers


def _size(row: Row) -> int:
    try:
        return len(row.ids) if row.ids is not None else by_characters(row.text)
    except TypeError:
        return 0
