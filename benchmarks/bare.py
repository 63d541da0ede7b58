"""The least a program can do: fork/join queries on one batch, nothing else, with `heapq` and leaps.

The yardstick of `bench_simulation.py`: no pool, no policies, no Delays, no cancelling, no rows, no spans; every query
is an organizer that forks all its workers, thinks on, joins them all and answers. The latencies must equal forksim's.
"""

from __future__ import annotations

from heapq import heappop, heappush


def bare(queries, arrivals, a, b, c, limit):
    """Return the latency of each query: (prompt, think, go_on, answer, inserted, [(prompt, tokens), ...])."""
    n = context = step = 0
    now = leap_start = 0.0
    leap = 0
    end = float("inf")
    waiting, running = [], []
    left = [len(query[5]) for query in queries]
    own_context = [query[0] for query in queries]
    done_forking = [False] * len(queries)
    latencies = [0.0] * len(queries)
    upcoming = 0

    def seconds(k):
        return k * (a + b * n + c * context) + c * n * (k * (k - 1) // 2)

    while upcoming < len(queries) or running or waiting:
        arrival = arrivals[upcoming] if upcoming < len(queries) else float("inf")
        if arrival < end:
            now = arrival
            heappush(waiting, (now, upcoming, 0, 0, queries[upcoming][1], own_context[upcoming]))
            upcoming += 1
            if n and n < limit and leap > 1:
                low, high = 1, leap
                while low < high:
                    middle = (low + high) // 2
                    if seconds(middle) < now - leap_start:
                        low = middle + 1
                    else:
                        high = middle
                if low < leap:
                    leap = low
                    end = max(leap_start + seconds(leap), now)
            if n:
                continue
        else:
            now = end
            step += leap
            context += leap * n
            while running and running[0][0] == step:
                _, q, thread, stage, joined, had = heappop(running)
                n -= 1
                context -= had + step - joined
                _, think, go_on, answer, inserted, workers = queries[q]
                if thread:
                    left[q] -= 1
                elif stage == 0:
                    own_context[q] += think
                    for place, (prompt, tokens) in enumerate(workers, 1):
                        heappush(waiting, (now, q, place, 0, tokens, prompt))
                    n += 1
                    context += own_context[q]
                    heappush(running, (step + go_on, q, 0, 1, step, own_context[q]))
                elif stage == 1:
                    own_context[q] += go_on
                    done_forking[q] = True
                else:
                    latencies[q] = now - arrivals[q]
                if done_forking[q] and not left[q]:
                    done_forking[q] = False
                    own_context[q] += inserted
                    heappush(waiting, (now, q, 0, 2, answer, own_context[q]))
        while waiting and n < limit:
            _, q, thread, stage, tokens, had = heappop(waiting)
            n += 1
            context += had
            heappush(running, (step + tokens, q, thread, stage, step, had))
        if n:
            leap_start = now
            leap = running[0][0] - step
            end = now + seconds(leap)
        else:
            end = float("inf")
    return latencies
