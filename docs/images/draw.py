"""Draw the pictures of this folder: ``python docs/images/draw.py [FOLDER]``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from simulator import (
    GPU,
    Answer,
    Delay,
    Fork,
    Join,
    LinearBatch,
    Protocol,
    Return,
    Think,
    Thread,
    Timeline,
    Trace,
    compile_trace,
    simulate,
)
from simulator.plots import gantt, save


def staggered() -> Timeline:
    """Three workers, joined one after another."""
    organizer = Thread(
        "organizer",
        (
            Think(40),
            *(Fork(1, 25), Fork(2, 25), Fork(3, 25)),
            *(Think(60), Join(2, 5, 20), Think(50), Join(1, 5, 20), Think(30), Join(3, 5, 20)),
            Answer(60),
        ),
    )
    workers = (Thread("1", (Return(260),)), Thread("2", (Return(90),)), Thread("3", (Return(340),)))
    return simulate(compile_trace(Trace("geometry-3-workers", (organizer, *workers)), Protocol(capacity=4)))


def countdown() -> Timeline:
    """A second Fork that depends on what the first returned."""
    organizer = Thread(
        "organizer",
        (
            *(Think(35), Fork(1, 20), Think(45), Join(1, 4, 15), Think(55)),
            *(Fork(2, 22), Think(30), Join(2, 4, 15), Think(40), Answer(48)),
        ),
    )
    workers = (Thread("1", (Think(150), Return(12))), Thread("2", (Think(190), Return(14))))
    return simulate(compile_trace(Trace("countdown-dynamic-fork", (organizer, *workers)), Protocol(capacity=2)))


def queued() -> Timeline:
    """A pool of 2: of three workers, one runs at a time."""
    organizer = Thread(
        "organizer", (Fork(1, 20), Fork(2, 20), Fork(3, 20), Think(30), Join(1, 4), Join(2, 4), Join(3, 4), Answer(30))
    )
    workers = (Thread("1", (Return(90),)), Thread("2", (Return(60),)), Thread("3", (Return(80),)))
    return simulate(compile_trace(Trace("pool-of-2", (organizer, *workers)), Protocol(capacity=2)))


def gpu_bound() -> Timeline:
    """More threads than the batch takes, and prompts that take time."""
    organizer = Thread(
        "organizer",
        (
            Think(30),
            *(Fork(i, 12) for i in range(1, 5)),
            Think(20),
            *(Join(i, 3, 300) for i in range(1, 5)),
            Answer(40),
        ),
        prompt_tokens=600,
    )
    workers = tuple(
        Thread(str(i), (Return(tokens),), prompt_tokens=900, shared_tokens=100)
        for i, tokens in enumerate((70, 110, 60, 90), 1)
    )
    gpu = GPU(cost=LinearBatch(a=6e-3, b=2e-4, c=2e-7, p=2.5e-4), max_num_seqs=2, max_num_batched_tokens=512)
    return simulate(compile_trace(Trace("gpu-bound", (organizer, *workers)), Protocol(capacity=8)), gpu=gpu)


def nested() -> Timeline:
    """Workers that Fork, three deep."""
    organizer = Thread(
        "organizer", (Think(20), Fork(1, 10), Fork(2, 10), Think(30), Join(1, 3), Join(2, 3), Answer(40))
    )
    workers = (
        Thread("1", (Think(30), Fork(1, 8), Fork(2, 8), Join(1, 2), Join(2, 2), Return(20))),
        Thread("1.1", (Think(40), Fork(1, 8), Think(20), Join(1, 2), Return(12))),
        Thread("1.1.1", (Return(90),)),
        Thread("1.2", (Return(75),)),
        Thread("2", (Think(50), Fork(1, 8), Think(70), Join(1, 2), Return(20))),
        Thread("2.1", (Think(20), Delay(45), Return(20))),
    )
    return simulate(compile_trace(Trace("nested-3-deep", (organizer, *workers)), Protocol(capacity=8)))


def hundred() -> Timeline:
    """A hundred workers."""
    organizer = Thread(
        "organizer",
        (Think(50), *(Fork(i, 6) for i in range(1, 101)), Think(80), *(Join(i, 2) for i in range(1, 101)), Answer(90)),
    )
    workers = tuple(Thread(str(i), (Return(120 + (i * 7919) % 400),)) for i in range(1, 101))
    return simulate(compile_trace(Trace("a-hundred-workers", (organizer, *workers)), Protocol(capacity=33)))


def cancelled() -> Timeline:
    """Two workers that nobody joins."""
    organizer = Thread(
        "organizer", (Think(30), Fork(1, 15), Fork(2, 15), Fork(3, 15), Think(60), Join(2, 4), Think(50), Answer(40))
    )
    workers = (Thread("1", (Return(400),)), Thread("2", (Return(120),)), Thread("3", (Think(60), Return(20))))
    return simulate(compile_trace(Trace("unjoined-worker", (organizer, *workers)), Protocol(capacity=4)))


def sequential() -> Timeline:
    """No Fork at all."""
    organizer = Thread("organizer", (Think(1900), Answer(148)))
    return simulate(compile_trace(Trace("sequential-2K", (organizer,)), Protocol(capacity=4)))


def overflowing() -> Timeline:
    """Twelve workers where six are allowed."""
    organizer = Thread(
        "organizer",
        (Think(20), *(Fork(i, 10) for i in range(1, 13)), *(Join(i, 2) for i in range(1, 13)), Answer(40)),
    )
    workers = tuple(Thread(str(i), (Return(60 + (i * 37) % 110),)) for i in range(1, 13))
    protocol = Protocol(capacity=7, when_full="allow")
    return simulate(compile_trace(Trace("overflow", (organizer, *workers)), protocol))


GALLERY: dict[str, Callable[[], Timeline]] = {
    function.__name__: function
    for function in (staggered, countdown, queued, gpu_bound, nested, hundred, cancelled, sequential, overflowing)
}


def main(folder: Path) -> None:
    """Draw them all."""
    for name, build in GALLERY.items():
        save(gantt(build()), folder / f"{name}.png", dpi=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
