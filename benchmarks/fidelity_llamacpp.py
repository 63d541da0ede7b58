"""Predict recorded llama.cpp runs from what was asked; prints the tables of docs/fidelity.md.

    python benchmarks/fidelity_llamacpp.py FOLDER [PICTURES]

FOLDER holds llamacpp_random.jsonl and llamacpp_gemma.jsonl (see traces/README.md). The law is fitted to the steps of
the runs with even seeds, and predicts those with odd seeds from their specs; then the other way round. Of a predicted
run nothing is used but its spec: tokens, Forks, Joins, arrivals, limits. With PICTURES, a folder, it also draws.
"""

import json
import sys
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
import convert_llamacpp

from simulator import GPU
from simulator.fidelity import Validation, calibrate, validate

MODELS = ("random", "gemma")
KINDS = ("single", "multi", "seq")


def load(folder, model):
    """Return the records of a model's runs."""
    lines = (Path(folder) / f"llamacpp_{model}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def fitted(model, records, parity, law="split"):
    """Return the law fitted to the steps of the runs whose seed has this parity."""
    chosen = [record for record in records if record["spec"]["seed"] % 2 == parity]
    return calibrate([row for record in chosen for row in convert_llamacpp.step_rows(model, record)], law=law)


def traces(model, record):
    """Return the traces of a run; a fork-free one is marked as the twin of the fork/join run of the same seed."""
    for trace in convert_llamacpp.traces(model, record):
        twin = {"twin": trace.meta["spec"]} if trace.meta["kind"] == "seq" else {}
        yield msgspec.structs.replace(trace, meta=trace.meta | twin)


def predicted(model, records, parity, cost):
    """Return the validation of the runs whose seed has this parity."""
    chosen = [trace for record in records if record["spec"]["seed"] % 2 == parity for trace in traces(model, record)]
    return validate(chosen, gpu=GPU(cost=cost, max_prefill_tokens=convert_llamacpp.MAX_PREFILL))


def percent(value):
    return f"{100 * value:.1f} %"


def row(*cells):
    print(f"| {' | '.join(cells)} |")


def line(name, what, errors, repeats):
    spread = "-" if repeats is None else f"{percent(repeats.mean)} ({percent(repeats.max)})"
    row(
        *(name, what, str(errors.number), percent(errors.mean), f"{100 * errors.bias:+.1f} %"),
        *(percent(errors.p50), percent(errors.p90), percent(errors.p95), percent(errors.max), spread),
    )


def joined(both):
    """Return two validations as one."""
    queries = both[0].queries + both[1].queries
    return Validation(queries, both[0].spans + both[1].spans)


def main(folder, pictures=None):
    titles = ("law from / predicted", "what", "n", "mean", "bias", "p50", "p90", "p95", "max", "repeats: mean (max)")
    for model in MODELS:
        records = load(folder, model)
        for law in ("split", "linear"):
            print(f"\n{model}, law: {law}\n")
            row(*titles)
            row(*["---"] * len(titles))
            both = []
            for parity, name in ((0, "even / odd"), (1, "odd / even")):
                calibration = fitted(model, records, parity, law)
                found = predicted(model, records, 1 - parity, calibration.cost)
                both.append(found)
                tell(name, found)
            tell("both", joined(both))
    return 0


def tell(name, found):
    for kind in KINDS:
        line(name, f"latency, {kind}", found.errors(kind), found.repeats(kind))
    line(name, "last answer, multi", found.runs, found.run_repeats)
    for each in found.speedups():
        print(each)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
