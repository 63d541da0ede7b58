"""A speed-up of 1.53 in tokens and of 1.14 by the clock: where does the difference go?

Covers: Cluster, inserted_tokens, load_profile

ThreadWeaver (github.com/facebookresearch/threadweaver) reports speed-ups in tokens, the sequential model's over the
longest way, as the mean over the problems of a benchmark: 1.53 on Minerva, 1.23 on MATH500. By the clock it is 1.14,
for 50 problems of MATH500. Mean latencies there are 7.2k and 6.4k tokens. Fifty problems are made up here with these
three numbers, and long ones that gain less; each is thought once in one thread, and once with part of it in threads.
The seconds are those of a model of an H100; how the 50 were sent to the GPUs is not reported.
"""

import numpy as np

from simulator import Cluster, compile_trace, decode_clock, simulate
from simulator.machine.profiles import load_profile
from simulator.trace import Answer, Fork, Join, Return, Think, Thread, Trace

PROMPT, MEAN = 120, 7200
rng = np.random.default_rng(12)
lengths = rng.lognormal(0, 0.8, 50)
lengths *= MEAN / lengths.mean()
gains = np.clip(1 + 0.13 * (MEAN / lengths) ** 1.1, 1, 3.05)


def alone(tokens):
    return Trace("alone", (Thread("organizer", (Think(tokens - 10), Answer(10)), PROMPT),))


def threaded(tokens, gain):
    """The same tokens, of which all but 1/gain are hidden beside the longest of equally long threads."""
    longest = int(tokens / gain)
    hidden = tokens - longest
    beside = max(1, int(np.ceil(hidden / (0.6 * longest))))
    each = hidden // beside
    before = (longest - each - 10) // 2
    after = longest - each - 10 - before
    names = range(1, beside + 2)
    context = PROMPT + before
    # The text goes on behind all threads. The first of them is in the cache where it stands; the others are read again.
    joins = [Join(name, 0, 0 if name == 1 else each) for name in names]
    organizer = (Think(before), *map(Fork, names), *joins, Think(after), Answer(10))
    workers = [Thread(str(name), (Return(each),), context, context) for name in names]
    return Trace("threaded", (Thread("organizer", organizer, PROMPT), *workers))


one = [alone(int(tokens)) for tokens in lengths]
many = [threaded(int(tokens), gain) for tokens, gain in zip(lengths, gains, strict=True)]
steps = np.array([[decode_clock(trace).latency for trace in traces] for traces in (one, many)])
graphs = [[compile_trace(trace) for trace in traces] for traces in (one, many)]

print(f"tokens: {steps[0].mean():,.0f} in one thread, {steps[1].mean():,.0f} on the longest way")
print()
print("speed-up                                              one thread    threads")
rows = [
    ("in tokens, mean over the problems", None, (steps[0] / steps[1]).mean()),
    ("in tokens, of the means", steps.mean(axis=1), steps[0].mean() / steps[1].mean()),
]
for name, said in (("h100-qwen3-8b", "prompts cost nothing"), ("h100-qwen3-8b-database", "prompts are charged")):
    gpu = load_profile(name)
    means = [np.mean([simulate(graph, gpu=gpu).latency[0] for graph in kind]) for kind in graphs]
    rows.append((f"in seconds, one at a time, {said}", means, means[0] / means[1]))
four = Cluster(replicas=[load_profile("h100-qwen3-8b-database")] * 4)
runs = [simulate(kind, gpu=four) for kind in graphs]
means = [float(run.latency.mean()) for run in runs]
rows.append(("in seconds, all at once on four GPUs", means, means[0] / means[1]))
tenfold = [float(simulate(kind * 10, gpu=four).latency.mean()) for kind in graphs]
rows.append(("in seconds, ten times as many on them", tenfold, tenfold[0] / tenfold[1]))
ends = [float(run.latency.max()) for run in runs]
rows.append(("in seconds, all at once, until the last is done", ends, ends[0] / ends[1]))
for what, pair, ratio in rows:
    numbers = "" if pair is None else f"{pair[0]:8,.1f} {pair[1]:10,.1f}"
    print(f"{ratio:.2f}  {what:47} {numbers}".rstrip())
