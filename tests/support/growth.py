"""How the time and the memory of something grow with its input: the exponent e of ``n ** e``, measured."""

from __future__ import annotations

import gc
import math
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

MOST = 1 << 12
"""The largest of the small inputs: what takes no time there is no concern."""
SHORTEST = 0.01
"""CPU seconds that the smallest input should take: below that, the clock and the caches are measured."""


def exponent(make: Callable[[int], Any], work: Callable[[Any], Any], n: int, doublings: int = 2) -> float:
    """Return the exponent of CPU time over inputs of size n to ``n * 2 ** doublings``; n grows until that can be seen.

    The least of a few measurements: what else the machine does can only add.
    """
    while _seconds(work, make(n)) < SHORTEST and n < MOST:
        n *= 2
    small, large = make(n), make(n << doublings)
    found = math.inf
    for _ in range(3):
        ratio = min(_seconds(work, large), _seconds(work, large)) / min(_seconds(work, small), _seconds(work, small))
        found = min(found, math.log2(ratio) / doublings)
        if found < 1.2:
            break
    return found


def _seconds(work: Callable[[Any], Any], given: Any) -> float:
    gc.collect()
    gc.disable()  # its passes over all that lives grow by themselves
    try:
        begin = time.process_time()
        work(given)
        return max(time.process_time() - begin, SHORTEST / 20)  # what takes less is a constant
    finally:
        gc.enable()


def memory_exponent(make: Callable[[int], Any], work: Callable[[Any], Any], n: int, doublings: int = 2) -> float:
    """Return the exponent of the most memory in use while `work` runs, over inputs of size n and larger."""
    peaks = []
    for size in (n, n << doublings):
        given = make(size)
        work(given)  # caches of a fixed size fill now, and not at one size only
        gc.collect()
        tracemalloc.start()
        try:
            work(given)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    return math.log2(peaks[1] / peaks[0]) / doublings
