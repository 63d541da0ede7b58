"""What people who serve models ask: time to first token, pace of the tokens, queue time, and how full the GPUs are.

The formulas are those of vLLM's benchmark, applied to a whole query: its user sends one prompt, and reads what the
organizer decodes.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from simulator.metrics.view import QueryView
from simulator.timeline import Replica, Timeline


def ttft(view: QueryView) -> float:
    """Time to first token: from arrival until the organizer has decoded one; NaN if it never did."""
    return float(view.timeline.first_token[view.query] - view.timeline.arrivals[view.query])


def tpot(view: QueryView) -> float:
    """Time per output token: from the first token to the answer, over the organizer's tokens but the first.

    NaN for fewer than two. It includes all that the organizer waits for: this is the pace at which its user reads.
    """
    rows = view.timeline.of_query(view.query)
    tokens = float(rows["tokens"][rows["thread"] == 0].sum())
    if tokens < 2:
        return math.nan
    return float(view.timeline.answered[view.query] - view.timeline.first_token[view.query]) / (tokens - 1)


def itl(view: QueryView) -> float:
    """Inter-token latency: the mean time from token to token of all threads while they decode; NaN without tokens.

    Waits and prompts are left out: this is the pace of the GPU. A stay in the batch begins with a token if a prompt was
    processed, and otherwise with a step towards one.
    """
    rows = view.timeline.of_query(view.query)
    steps = rows["tokens"] - (rows["decode_start"] > rows["start"])
    gaps = float(steps[steps > 0].sum())
    decoding = (rows["finish"] - rows["decode_start"])[steps > 0]
    return float(decoding.sum()) / gaps if gaps else math.nan


def queue_time(view: QueryView) -> float:
    """How long the organizer's first request waits for a place in the batch; NaN if it never decodes."""
    rows = view.timeline.of_query(view.query)
    mine = rows[(rows["thread"] == 0) & (rows["replica"] >= 0)]
    if not len(mine):
        return math.nan
    first = mine[np.argmin(mine["start"])]
    return float(first["start"] - first["ready"])


def mean_batch(timeline: Timeline) -> float:
    """Mean number of sequences in the batch over the makespan, of all replicas together."""
    return _mean(timeline.batch, timeline.makespan)


def batch_occupancy(timeline: Timeline) -> float:
    """Mean share of the places in the batch that are taken; NaN if a replica has no limit."""
    return float(np.mean([_seats(replica, timeline.makespan) for replica in timeline.replicas]))


def kv_occupancy(timeline: Timeline) -> float:
    """Mean share of the KV memory that running requests need; NaN where memory is not modelled.

    Between the first and the last of the steps that the engine takes in one go, blocks are taken to grow evenly: it is
    right to a block per running sequence.
    """
    return float(np.mean([_memory(replica, timeline.makespan) for replica in timeline.replicas]))


def occupancy(timeline: Timeline) -> float:
    """GPU occupancy: how full the batch or the KV memory is on average, whichever is fuller; the mean over replicas.

    NaN where a replica has neither a batch limit nor a limit of memory: then nothing says what full would be.
    """
    shares = [
        np.fmax(_seats(replica, timeline.makespan), _memory(replica, timeline.makespan))
        for replica in timeline.replicas
    ]
    return float(np.mean(shares))


def _seats(replica: Replica, makespan: float) -> float:
    return _mean(replica.batch, makespan) / replica.gpu.max_num_seqs if replica.gpu.max_num_seqs else math.nan


def _memory(replica: Replica, makespan: float) -> float:
    if replica.gpu.num_kv_blocks is None:
        return math.nan
    if not len(replica.kv) or not makespan:
        return 0.0
    begin, end = replica.kv[::2], replica.kv[1::2]
    taken = (begin[:, 1] + end[:, 1]) / 2 * (end[:, 0] - begin[:, 0])
    return float(taken.sum() / makespan / replica.gpu.num_kv_blocks)


def _mean(changes: npt.NDArray[np.float64], makespan: float) -> float:
    """Return the mean over the makespan of what is so much from each of these times on."""
    if not len(changes) or not makespan:
        return 0.0
    times, sizes = changes[:, 0], changes[:, 1]
    return float(np.dot(sizes[:-1], np.diff(times)) / makespan)
