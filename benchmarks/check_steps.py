"""How far a table of decode steps and lone prompts is from the operator database on what is in neither: several prompts
in a step, and prompts beside decoding sequences. Prints the table of docs/machine.md.

python benchmarks/check_steps.py

Needs ``pip install forksim[aiconfigurator]``.
"""

import logging
import random
import sys
from importlib import util

import numpy as np

from simulator.machine.cost import AIConfigurator

MODELS = (
    ("Qwen/Qwen3-8B", "h100_sxm", "vllm"),
    ("meta-llama/Meta-Llama-3.1-8B", "h100_sxm", "trtllm"),
    ("Qwen/Qwen3-32B", "h200_sxm", "vllm"),
)


def triangle(tokens):
    return tokens * (tokens + 1) // 2


def decodes(generator):
    """Sequences, and tokens that each attends to."""
    n = int(2 ** generator.uniform(0, 8))
    return n, generator.randint(16, min(16384, 600_000 // n))


def several(generator):
    """Prompts of one length, at most 16,384 tokens in all."""
    tokens = generator.randint(64, 2048)
    return tokens, generator.randint(2, min(16, 16384 // tokens))


def mixed(generator):
    """A prompt beside sequences whose prompts were as long, and which have decoded some more."""
    while True:
        n, tokens = int(2 ** generator.uniform(0, 8)), int(2 ** generator.uniform(4, 13))
        each = tokens + generator.randint(16, 2000)
        if tokens + n <= 8192 and n * each <= 600_000:
            return n, each, tokens


def main():
    if util.find_spec("aiconfigurator_core") is None:
        sys.exit("this benchmark needs aiconfigurator-core: pip install forksim[aiconfigurator]")
    logging.disable(logging.CRITICAL)
    from aiconfigurator_core.sdk.engine import EngineHandle

    print("| 300 steps each: mean, max error | decode | a prompt | several prompts | prompt and decode |")
    print("|---|---|---|---|---|")
    for name, system, backend in MODELS:
        engine = EngineHandle.compile(name, system, backend, tp_size=1)
        step = AIConfigurator(name, system, backend).step_seconds
        generator = random.Random(0)
        found = {"decode": [], "prompt": [], "several": [], "mixed": []}
        for _ in range(300):
            n, each = decodes(generator)
            found["decode"].append(step(n, n * each) / engine.predict_decode_latency(n, each, 2))
            tokens = int(2 ** generator.uniform(4, 14))
            found["prompt"].append(step(0, 0, tokens, triangle(tokens)) / engine.predict_prefill_latency(1, tokens, 0))
            tokens, count = several(generator)
            seconds = step(0, 0, count * tokens, count * triangle(tokens))
            found["several"].append(seconds / engine.predict_prefill_latency(count, tokens, 0))
            n, each, tokens = mixed(generator)
            seconds = step(n, n * each, tokens, triangle(tokens))
            output = 2 * (each - tokens)  # the database means sequences that are half way
            found["mixed"].append(seconds / engine.mixed_step_latency(tokens, n, tokens, output, 0))
        cells = []
        for ratios in found.values():
            errors = abs(1000 * np.array(ratios) - 1)
            cells.append(f"{100 * errors.mean():.1f} %, {100 * errors.max():.0f} %")
        print(f"| {name}, {system}, {backend} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
