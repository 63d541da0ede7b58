"""The engine as Python runs it, and as `make compiled` makes it; turn by turn.

    python benchmarks/bench_compiled.py [CHECKOUT...]

Copies this checkout into build/compiled and compiles it there. Other checkouts, such as an older version, take their
turns too. Prints tasks a CPU second of the workloads of `bench_simulation.py` and `bench_engine.py`, best of the turns,
and ratios to the first checkout.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TURNS = 5

WORK = """
import gc, sys
root = sys.argv[1]
others = [path for path in sys.path if "site-packages" in path or "lib/python" in path]
sys.path[:] = [root, root + "/benchmarks", *others]
from time import process_time
import numpy as np
import bench_engine as engine, bench_simulation as simulation
from simulator import GPU, ClosedLoop, simulate
assert simulate.__code__.co_filename.startswith(root)
plain = simulation.compiled(simulation.queries(1428))
graphs = [engine.graph(i, query) for i, query in enumerate(engine.queries(1200))]
times = engine.poisson_arrivals(len(plain), simulation.RATE, np.random.default_rng(2))
runs = {("workload of bench_simulation", ""): (plain, GPU(cost=simulation.COST, max_num_seqs=simulation.LIMIT), times)}
for name, gpu in engine.VARIANTS:
    runs |= {(name, f"{users:,} at once"): (graphs, gpu, ClosedLoop(users)) for users in (64, 1024)}
for (name, load), (queries, gpu, arrivals) in runs.items():
    seconds = []
    for _ in range(3):
        gc.collect()
        start = process_time()
        simulate(queries, gpu=gpu, arrivals=arrivals)
        seconds.append(process_time() - start)
    print(name, load, sum(map(len, queries)) / min(seconds), sep=";")
"""


def compiled() -> Path:
    copy = ROOT / "build" / "compiled"
    shutil.rmtree(copy, ignore_errors=True)
    for folder in ("simulator", "benchmarks", "tests", "tools"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    subprocess.run([sys.executable, copy / "tools" / "compiled.py"], check=True, capture_output=True)
    return copy


def main() -> None:
    checkouts = {path: Path(path).resolve() for path in sys.argv[1:]} | {"this": ROOT, "compiled": compiled()}
    best: dict[tuple[str, str], dict[str, float]] = {}
    for _ in range(TURNS):
        for name, path in checkouts.items():
            command = [sys.executable, "-c", WORK, str(path)]
            lines = subprocess.run(command, check=True, capture_output=True, text=True, cwd=os.sep).stdout.splitlines()
            for what, load, speed in (line.split(";") for line in lines):
                speeds = best.setdefault((what, load), {})
                speeds[name] = max(speeds.get(name, 0.0), float(speed))
    print(f"{'tasks a second':<44}" + "".join(f"{name[-12:]:>18}" for name in checkouts))
    for (what, load), speeds in best.items():
        first = next(iter(speeds.values()))
        row = "".join(f"{speeds[name]:>10,.0f} ({speeds[name] / first:4.2f})" for name in checkouts)
        print(f"{what:<30}{load:<14}{row}")


if __name__ == "__main__":
    main()
