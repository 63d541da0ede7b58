"""Print a profile of step times from NVIDIA's operator database; needs the extra `aiconfigurator`.

python tools/tabulate_profile.py h100 qwen3-8b h100_sxm Qwen/Qwen3-8B > simulator/machine/profiles/h100-qwen3-8b-database.toml

The -engine profile was made with `trtllm` after that; its overhead and errors are those that
`python benchmarks/fidelity_silicon.py` prints, entered by hand.
"""

import datetime
import logging
import random
import sys
from importlib.metadata import version

SEQUENCES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
CONTEXTS = (0, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
CACHED = (0, 1024, 4096, 16384, 65536, 131072)


def rows(cells):
    return "[\n" + "".join(f"  [{', '.join(f'{cell:.4g}' for cell in row)}],\n" for row in cells) + "]"


def main(hardware, model, system, repository, backend="vllm"):
    logging.disable(logging.CRITICAL)
    from aiconfigurator_core.sdk.engine import EngineHandle

    from simulator.machine.cost import MeasuredTable
    from simulator.machine.cost.aiconfigurator import PROMPTS

    prompts = [tokens for tokens in PROMPTS if tokens <= 8192]
    engine = EngineHandle.compile(repository, system, backend, tp_size=1)
    decode = [[engine.predict_decode_latency(n, c, 2) / 1000 for c in CONTEXTS] for n in SEQUENCES]
    prefill = [[engine.predict_prefill_latency(1, m + c, c) / 1000 for c in CACHED] for m in prompts]
    table = MeasuredTable(SEQUENCES, CONTEXTS, decode, prompts, CACHED, prefill)
    generator = random.Random(0)
    errors = []
    for _ in range(1000):  # what interpolation loses, where the KV cache of one GPU could hold it
        n = generator.randint(1, 256)
        context = generator.randint(16, min(32768, 600_000 // n))
        errors.append(abs(table.step_seconds(n, n * context) * 1000 / engine.predict_decode_latency(n, context, 2) - 1))
    print(f"""\
hardware = "{hardware}"
model = "{model}"

[provenance]
kind = "database"
source = "operator database of NVIDIA aiconfigurator-core {version("aiconfigurator-core")} (Apache-2.0), {repository} on {system}, {backend} backend, bf16; made by tools/tabulate_profile.py"
date = {datetime.date.today()}
measured = "operators one by one, added up to decode steps and to prompts after a cached prefix; the host is not in it; errors are those of interpolating the database"
mean_error = {sum(errors) / len(errors):.3f}
max_error = {max(errors):.3f}

[cost]
type = "table"
sequences = {list(SEQUENCES)}
contexts = {list(CONTEXTS)}
seconds = {rows(decode)}
prefill_tokens = {prompts}
prefill_cached = {list(CACHED)}
prefill_seconds = {rows(prefill)}""")


if __name__ == "__main__":
    main(*sys.argv[1:])
