"""Predict our own recorded runs from what was asked; the first three tables that it prints are in docs/validation.md.

    python benchmarks/fidelity_own.py [PICTURES [FOLDER]]

FOLDER (traces/recorded) holds own-random.jsonl, own-gemma.jsonl and the engine steps of both, own-*-steps.csv. The law
is fitted to the runs of even specs and predicts those of odd ones, and the other way round. With PICTURES, a folder, it
draws.
"""

import sys
from pathlib import Path

import numpy as np
from fidelity_llamacpp import (
    KINDS,
    MODELS,
    ON_THE_PAGE,
    SUMMARY,
    error_row,
    header,
    joined,
    numbers,
    page_rows,
    row,
    summary_row,
)

from simulator import GPU, plots, read
from simulator.fidelity import Errors, calibrate, read_steps, validate

RECORDED = Path(__file__).parent.parent / "traces" / "recorded"


def parity(run):
    """Return whether the spec of a run, such as random-single-3-0, is odd."""
    return int(run.split("-")[2]) % 2


def evaluate(folder=RECORDED, law="split"):
    """Return, for each model, what the law predicts of all runs, each by a law that has not seen its spec."""
    found = {}
    for model in MODELS:
        steps = list(read_steps(Path(folder) / f"own-{model}-steps.csv"))
        traces = list(read(Path(folder) / f"own-{model}.jsonl"))
        halves = []
        for half in (0, 1):
            cost = calibrate([step for step in steps if parity(step["run"]) == half], law=law).cost
            others = [trace for trace in traces if parity(trace.meta["run"]) != half]
            halves.append(validate(others, gpu=GPU(cost=cost, max_prefill_tokens=others[0].meta["max_prefill"])))
        found[model] = joined(*halves)
    return found


def speedups(found):
    """Return the errors of the speed-ups over sequential twins, both models together."""
    pairs = [(each.predicted, each.measured) for both in found.values() for each in both.speedups()]
    return Errors.of(*np.array(pairs).T)


def main(pictures=None, folder=RECORDED):
    laws = {law: evaluate(folder, law) for law in ("linear", "split")}
    latency = {law: joined(*found.values()).errors() for law, found in laws.items()}
    speedup = {law: speedups(found) for law, found in laws.items()}
    header(*SUMMARY)
    summary_row("72 runs recorded with forksim, llama.cpp on a CPU", "latency of a query", latency["split"])
    summary_row("the same", "speed-up over the sequential twin", speedup["split"])
    header(*ON_THE_PAGE)
    for model, both in laws["split"].items():
        page_rows("72", model, both, {"single": "one alone", "multi": "several at once", "seq": "sequential twin"})
    header("law", "latency: mean, %", "max, %", "speed-up: mean, %", "max, %")
    for law in laws:
        row(law, *numbers(latency[law].mean, latency[law].max, speedup[law].mean, speedup[law].max))
    header("law", "model", "what", "n", "mean", "bias", "p50", "p90", "p95", "max", "repeats: mean, max")
    for law, found in laws.items():
        for model, both in found.items():
            for kind in KINDS:
                error_row(f"{law} | {model}", f"latency, {kind}", both.errors(kind), both.repeats(kind))
            error_row(f"{law} | {model}", "last answer, multi", both.runs, both.run_repeats)
    header("speed-up over the fork-free twin", "measured", "predicted", "error", "by the linear law")
    for model, both in laws["split"].items():
        others = {each.trace: each for each in laws["linear"][model].speedups()}
        for each in sorted(both.speedups()):
            signed = (f"{100 * error:+.1f} %" for error in (each.error, others[each.trace].error))
            row(each.trace, f"{each.measured:.3f}", f"{each.predicted:.3f}", *signed)
    if pictures:
        plots.save(plots.validation(joined(*laws["split"].values())), Path(pictures) / "fidelity_own.png", dpi=100)


if __name__ == "__main__":
    if len(sys.argv) > 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
