"""Microseconds a rollout of `score_batch`: text in, all columns out, in three formats; cores; memory; where time goes.

8,192 rollouts of about 5 kB, a training step's worth. Medians of several rounds of CPU seconds of this process; with
more processes, seconds of the wall, in a pool that is kept warm.
"""

from __future__ import annotations

import cProfile
import gc
import os
import pstats
import random
import re
import statistics
import subprocess
import sys
import tempfile
from itertools import islice
from time import perf_counter, process_time

from bench_scoring import prose
from bench_scoring import trace as asyncthink

from simulator import Protocol, score_batch
from simulator.graph.clock import decode_clock
from simulator.rewards import REWARDS, Reader, Rollout, process_pool
from simulator.rewards.batch import CHUNK
from simulator.timeline.export import score_file

ROLLOUTS = 8192
RULES = Protocol(capacity=5)


def in_blocks(path, plan, conclusion, think):
    """Return a maker of texts of a group dialect: two blocks of two paths."""

    def make(rng):
        parts = [f"<{think}>{prose(rng, 500)}"]
        for _ in range(2):
            outlines = "".join(f"<Outline>{i}: {prose(rng, 60)}</Outline>\n" for i in (1, 2))
            paths = "".join(f"<{path}>{i}: {prose(rng, 750)}</{path}>\n" for i in (1, 2))
            end = f"<Conclusion>{prose(rng, 200)}</Conclusion>" if conclusion else ""
            parts.append(f"<Parallel>\n<{plan}>\n{outlines}</{plan}>\n{paths}{end}</Parallel>{prose(rng, 250)}")
        return "".join(parts) + f"</{think}>\nAnswer: \\boxed{{42}}"

    return make


def in_threads(rng):
    organizer, workers = asyncthink(rng)
    return {"organizer": organizer, "workers": workers}


FORMATS = {
    "asyncthink": (in_threads, "asyncthink"),
    "threadweaver": (in_blocks("Thread", "Outlines", False, "think"), "threadweaver"),
    "multiverse": (in_blocks("Path", "Goal", True, "Think"), "asyncthink"),
}


def rollouts(name, n=ROLLOUTS):
    rng = random.Random(1)
    return [FORMATS[name][0](rng) for _ in range(n)]


def size(rollout):
    return (
        len(rollout)
        if isinstance(rollout, str)
        else len(rollout["organizer"]) + sum(map(len, rollout["workers"].values()))
    )


def median(function, clock=process_time, repeats=7):
    times = []
    for _ in range(repeats):
        gc.collect()
        start = clock()
        function()
        times.append(clock() - start)
    return statistics.median(times)


def speed():
    verdicts = [i % 2 == 0 for i in range(ROLLOUTS)]
    print(f"{ROLLOUTS:,} rollouts, text in, all columns out, one process")
    for name, (_, reward) in FORMATS.items():
        texts = rollouts(name)
        spec, reader = REWARDS[reward](), Reader(format=name)
        options = {"reward": spec, "protocol": RULES, "outcomes": verdicts, "reader": reader}
        seconds = median(lambda: score_batch(texts, **options))  # noqa: B023
        characters = statistics.mean(map(size, texts))
        print(
            f"  {name:<13} {characters:5.0f} characters  {seconds:6.3f} s  {seconds / ROLLOUTS * 1e6:5.1f} us/rollout"
        )


def cores():
    texts = rollouts("asyncthink")
    print(f"the same {ROLLOUTS:,} AsyncThink rollouts in a warm pool; this machine has {os.cpu_count()} cores")
    alone = median(lambda: score_batch(texts, protocol=RULES), perf_counter, 5)
    print(f"  1 process    {alone:6.3f} s of the wall")
    for n in (n for n in (2, 4, 8, 16) if n <= (os.cpu_count() or 1)):
        with process_pool(n) as pool:
            score_batch(texts, protocol=RULES, workers=pool)  # starts it
            shared = median(lambda: score_batch(texts, protocol=RULES, workers=pool), perf_counter, 5)
            own = median(lambda: score_batch(texts, protocol=RULES, workers=pool), process_time, 5)
        print(f"  {n} processes  {shared:6.3f} s of the wall  {alone / shared:5.2f} x; {own:.3f} s of CPU to hand over")


def where():
    texts = rollouts("asyncthink", 2048)
    reader, spec = Reader(), REWARDS["asyncthink"]()
    traces = [reader.trace(text) for text in texts]
    done = [Rollout(trace, RULES) for trace in traces]
    parts = {
        "text to Trace": lambda: [reader.trace(text) for text in texts],
        "decode-step clock and violations": lambda: [decode_clock(trace, RULES) for trace in traces],
        "terms": lambda: [spec.score(rollout) for rollout in done],
    }
    parts["all"] = lambda: score_batch(texts, protocol=RULES)
    # In turn, so that what else the machine does falls on all of them.
    rounds = [{name: median(part, repeats=1) / len(texts) * 1e6 for name, part in parts.items()} for _ in range(11)]
    for each in rounds:
        each["rows and columns"] = 2 * each["all"] - sum(each.values())
    times = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    total = times.pop("all")
    print("where the time of an AsyncThink rollout goes")
    for name, taken in times.items():
        # Parts alone keep all they make, so they may add up to a little more than the whole.
        print(f"  {name:<33} {taken:5.1f} us  {taken / total:4.0%}" if taken >= 1 else f"  {name:<33}  <1   us")
    profile = cProfile.Profile()
    profile.runcall(score_batch, texts, protocol=RULES)
    stats = pstats.Stats(profile).stats
    print("functions by their own time, under a profiler (which makes all calls dearer)")
    own = sorted(stats.items(), key=lambda item: -item[1][2])[:6]
    whole = sum(entry[2] for entry in stats.values())
    for (file, _, function), entry in own:
        print(f"  {entry[2] / whole:4.0%}  {os.path.basename(file)} {function}")


def memory():
    """Print the peak memory of processes that score more and more rollouts, made one at a time."""
    for how, what in (("batch", "into one ScoreBatch"), ("file", "a chunk at a time into a file")):
        for n in (ROLLOUTS, 16 * ROLLOUTS):
            command = [sys.executable, __file__, "--memory", how, str(n)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            print(f"{n:,} AsyncThink rollouts from a generator {what}: peak {done.stdout.strip()} MiB")


def stream(how, n):
    few = rollouts("asyncthink", 512)
    items = (dict(few[i % 512]) for i in range(n))
    if how == "batch":
        assert len(score_batch(items, protocol=RULES)) == n
    else:
        with tempfile.TemporaryDirectory() as folder, score_file(f"{folder}/scores.jsonl") as add:
            while chunk := list(islice(items, CHUNK)):
                add(score_batch(chunk, protocol=RULES).columns())
    with open("/proc/self/status") as status:  # not getrusage: a child's begins at its parent's
        print(int(re.search(r"VmHWM:\s+(\d+) kB", status.read())[1]) // 1024)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        stream(sys.argv[2], int(sys.argv[3]))
    else:
        for part in (speed, where, memory, cores):
            part()
