"""Simulated queues beside queueing theory: the mean sojourn, with its 99 % Student-t interval.

    python benchmarks/queueing.py [QUERIES [REPLICATIONS]]

QUERIES a replication (more where sojourns vary more), REPLICATIONS independent ones. A row whose interval does not
contain the theory ends in OUTSIDE. One of a hundred right rows would.
"""

from __future__ import annotations

import sys

from queues import CASES, measured


def main():
    queries = int(float(sys.argv[1])) if sys.argv[1:] else 20_000
    replications = int(sys.argv[2]) if sys.argv[2:] else 20
    print(f"{replications} replications of {queries:,} queries, the first and the last tenth not counted")
    print(f"{'queue':<20} {'as a GPU':<52} {'theory':>8} {'simulated':>10} {'+-':>7} {'+- %':>6}")
    for case in CASES:
        theory = case.theory(1.0)
        mean, half = measured(case, queries, replications)
        mark = "" if abs(mean - theory) <= half else "  OUTSIDE"
        row = f"{case.name:<20} {case.setting:<52} {theory:>8.4f} {mean:>10.4f} {half:>7.4f} {100 * half / mean:>6.2f}"
        print(row + mark, flush=True)


if __name__ == "__main__":
    main()
