"""Microseconds a trace: parse + critical path + eta + violations + reward of 5 kB AsyncThink texts.

Prints the median over batches, beside one bare pass of the tag expression over the same texts in the same run (the
least any parser could cost), and the peak memory of streaming files of 10^5 and 10^6 traces through `read` and `score`.
"""

from __future__ import annotations

import gc
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from time import process_time

from simulator import Protocol, decode_clock, score
from simulator.formats.asyncthink import parse

WORDS = [
    "let",
    "us",
    "take",
    "the",
    "next",
    "case",
    "apart",
    "and",
    "see",
    "what",
    "is",
    "left",
    "of",
    "it",
    "when",
    "both",
    "sides",
    "are",
    "squared",
]
TAGS = re.compile(r"<(?:FORK-?(\d+)|/FORK-?(\d*)|JOIN-?(\d+)|/JOIN-?(\d*)|(RETURN)|(/RETURN)|(ANSWER)|(/ANSWER))>")
RULES = Protocol(capacity=5)


def prose(rng, characters):
    text = " ".join(rng.choices(WORDS, k=characters // 4))
    return text[:characters]


def trace(rng):
    """Return an organizer text and four worker texts, 5 kB in all: four Forks, four Joins, an Answer."""
    parts = [prose(rng, 300)]
    for i in range(1, 5):
        parts.append(f"<FORK-{i}>{prose(rng, 60)}</FORK-{i}>{prose(rng, 90)}")
    parts.append(prose(rng, 200))
    workers = {}
    for i in range(1, 5):
        takeaways = prose(rng, 60)
        workers[str(i)] = f"{prose(rng, 650)}<RETURN>{takeaways}</RETURN>"
        parts.append(f"<JOIN-{i}>{takeaways}</JOIN-{i}>{prose(rng, 120)}")
    parts.append("<ANSWER>42</ANSWER>")
    return "".join(parts), workers


def rounds(jobs, repeats=15):
    """Run the jobs in turn, several times; return each one's microseconds an item, a list by name."""
    times = {name: [] for name, _, _ in jobs}
    for _ in range(repeats):
        for name, function, items in jobs:
            gc.collect()
            start = process_time()
            for item in items:
                function(item)
            times[name].append((process_time() - start) / len(items) * 1e6)
    return times


def stream(n):
    """Write a file of n traces, score all of it in a fresh process, and return that process's peak memory in MiB."""
    organizer, workers = trace(random.Random(0))
    import msgspec

    line = msgspec.json.encode({"organizer": organizer, "workers": workers}) + b"\n"
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "traces.jsonl")
        with open(path, "wb") as file:
            for _ in range(n):
                file.write(line)
        done = subprocess.run([sys.executable, __file__, "--stream", path], check=True, capture_output=True, text=True)
    return done.stdout.split()


def main():
    rng = random.Random(1)
    texts = [trace(rng) for _ in range(2000)]
    size = statistics.mean(len(text) + sum(map(len, workers.values())) for text, workers in texts)
    traces = [parse(text, workers=workers, keep_text=False) for text, workers in texts]

    def whole(item):
        return score(parse(item[0], workers=item[1], keep_text=False), RULES)

    def tags(item):
        for text in (item[0], *item[1].values()):
            for match in TAGS.finditer(text):
                match.span()

    jobs = (
        ("the tag expression alone", tags, texts),
        ("parse", lambda item: parse(item[0], workers=item[1], keep_text=False), texts),
        ("decode-step clock and violations", lambda item: decode_clock(item, RULES), traces),
        ("parse to reward", whole, texts),
    )
    times = rounds(jobs)
    floor = times[jobs[0][0]]
    print(f"{len(texts)} traces of {size:.0f} characters, one process")
    for name, taken in times.items():
        ratio = statistics.median(mine / least for mine, least in zip(taken, floor, strict=True))
        print(f"{name:<34} {statistics.median(taken):6.1f} us/trace  {ratio:5.1f} x the tag expression")
    for n in [int(float(n)) for n in sys.argv[1:]] or (10**5, 10**6):
        mib, seconds = stream(n)
        print(f"streaming {n:,} traces from a file: peak {mib} MiB, {float(seconds) / n * 1e6:.1f} us/trace")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stream"]:
        from simulator import read

        began = process_time()
        for item in read(sys.argv[2], keep_text=False):
            score(item, RULES)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, process_time() - began)
    else:
        main()
