"""Write what the shipped recordings were asked to do: scripted runs of one query, of several, and fork-free twins.

    python tools/record_specs.py > specs.jsonl

A run is the traces with one ``meta["run"]``. ``kind`` is single, multi (several queries in one run) or seq: the work of
the single run of the same ``spec`` without a Fork. A twin decodes as many tokens, one after another; tasks and returned
texts are not put in, for one who thinks alone has them in mind.
"""

from __future__ import annotations

import sys

import numpy as np

from simulator.formats.reading import dump
from simulator.trace import Action, Answer, Fork, Join, Return, Think, Thread, Trace

SINGLES, MULTIS = 7, 4


def query(random: np.random.Generator) -> tuple[Thread, ...]:
    """Return the threads of one query: rounds of Forks, thinking beside them, and Joins."""

    def some(low: int, high: int) -> int:
        return int(random.integers(low, high + 1))

    prompt = some(60, 220)
    actions: list[Action] = []
    workers: list[Thread] = []
    context = prompt
    for _ in range(some(1, 2)):
        actions.append(Think(some(6, 20)))
        context += actions[-1].tokens
        first = len(workers) + 1
        for index in range(first, first + some(1, 5)):
            task, tokens, returned = some(6, 18), some(12, 36), some(3, 8)
            actions.append(Fork(index, task))
            context += task
            # The sub-query is decoded by the organizer, and prefilled by the worker behind all that came before it.
            worker = (Think(tokens), Return(returned))
            workers.append(Thread(str(index), worker, context + task, context))
        if random.random() < 0.6:
            actions.append(Think(some(8, 30)))
            context += actions[-1].tokens
        for worker in workers[first - 1 :]:
            returned = worker.actions[-1]
            assert isinstance(returned, Return)
            actions.append(Join(int(worker.id), 1, returned.tokens))
            context += 1 + returned.tokens
    actions.append(Answer(some(8, 24)))
    return (Thread("organizer", tuple(actions), prompt), *workers)


def alone(threads: tuple[Thread, ...]) -> tuple[Thread, ...]:
    """Return the same work done by the organizer alone."""
    organizer = threads[0]
    answer = organizer.actions[-1]
    assert isinstance(answer, Answer)
    thinking = sum(thread.tokens for thread in threads) - answer.tokens
    return (Thread("organizer", (Think(thinking), answer), organizer.prompt_tokens),)


def main() -> None:
    """Write them all."""
    traces: list[Trace] = []
    for number in range(SINGLES):
        threads = query(np.random.default_rng([1, number]))
        for kind, played in (("single", threads), ("seq", alone(threads))):
            meta = {"run": f"{kind}-{number}", "kind": kind, "spec": f"single-{number}"}
            traces.append(Trace(f"{kind}-{number}", played, arrival=0.0, meta=meta))
    for number in range(MULTIS):
        random = np.random.default_rng([2, number])
        arrival = 0.0
        for place in range(int(random.integers(3, 5))):
            meta = {"run": f"multi-{number}", "kind": "multi", "spec": f"multi-{number}"}
            traces.append(Trace(f"multi-{number}/{place}", query(random), arrival=round(arrival, 3), meta=meta))
            arrival += float(random.exponential(1.0))
    dump(traces, sys.stdout)


if __name__ == "__main__":
    main()
