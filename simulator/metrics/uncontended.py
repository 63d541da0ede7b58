"""What tasks would take if each had a GPU to itself: what a speed-up is measured against."""

from __future__ import annotations

from collections.abc import Mapping

from simulator.machine.gpu import GPU
from simulator.timeline import Timeline


def seconds_alone(timeline: Timeline, query: int, tokens: Mapping[int, float] | None = None) -> list[float]:
    """Return the time of each task of a query alone in the batch of the replica that it ran on.

    Parameters
    ----------
    timeline : Timeline
    query : int
    tokens : mapping, optional
        Tokens to decode of each task, instead of all; tasks that are not in it take no time.

    Returns
    -------
    list of float
        In the timeline's unit, one per task.
    """
    graph, protocol = timeline.graphs[query], timeline.protocol_of(query)
    in_steps = timeline.unit == "steps"
    gpus = _gpus(timeline, query)
    context = [thread.shared for thread in graph.threads]
    seconds = []
    for i, task in enumerate(graph.tasks):
        have, prefill, gpu = context[task.thread], task.prefill, gpus.get(i, gpus[-1])
        context[task.thread] += prefill + task.tokens
        decoded = task.tokens if tokens is None else int(tokens.get(i, 0))
        if tokens is not None and i not in tokens:
            seconds.append(0.0)
        elif not task.tokens:
            seconds.append(protocol.delay_steps(task.seconds) if in_steps else task.seconds)
        elif not decoded:
            seconds.append(0.0)
        elif prefill and (gpu.num_kv_blocks is not None or not gpu.cost.prefill_is_free):  # free, it fills memory
            rest = gpu.cost.decode_seconds(1, have + prefill + 1, decoded - 1) if decoded > 1 else 0.0
            seconds.append(prompt_seconds(gpu, prefill, have) + rest)
        else:
            seconds.append(gpu.cost.decode_seconds(1, have + prefill, decoded))
    return seconds


def prompt_seconds(gpu: GPU, tokens: int, cached: int = 0) -> float:
    """Return the seconds of `tokens` prompt tokens behind `cached` ones, in as few steps as the GPU's limits allow.

    >>> from simulator.machine.cost import LinearBatch
    >>> prompt_seconds(GPU(cost=LinearBatch(a=1.0, p=0.5), max_num_batched_tokens=4), 10)
    8.0
    """
    most = min(gpu.max_num_batched_tokens or tokens, gpu.max_prefill_tokens or tokens)
    seconds = 0.0
    while tokens > 0:
        chunk = min(tokens, most)
        seconds += gpu.cost.step_seconds(0, 0, chunk, chunk * cached + chunk * (chunk + 1) // 2)
        cached += chunk
        tokens -= chunk
    return seconds


def _gpus(timeline: Timeline, query: int) -> dict[int, GPU]:
    """Return the GPU that each task ran on, and, as -1, the first."""
    replicas = timeline.replicas
    gpus = {-1: replicas[0].gpu}
    if len(replicas) > 1:
        gpus |= {row.task: replicas[row.replica].gpu for row in timeline.stays(query) if row.replica >= 0}
    return gpus
