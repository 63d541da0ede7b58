"""Write traces/synthetic.jsonl to stdout: ten traces of each family, all from seed 20251.

python tools/synthetic.py > traces/synthetic.jsonl
"""

import sys

import msgspec

from simulator.workload import FAMILIES, generate

OPTIONS = {
    "sequential": {},
    "parallel": {"workers": 4},
    "batch": {"workers": 3, "rounds": 2},
    "interleaved": {"workers": 3, "forks": 6},
    "random_organizer": {"workers": 3, "actions": 20, "unjoined": 0.2, "delay": 0.1},
    "nested": {"workers": 2, "depth": 2},
}

for family in FAMILIES:
    for trace in generate(family, 10, seed=20251, **OPTIONS[family]):
        sys.stdout.write(msgspec.json.encode(trace).decode() + "\n")
