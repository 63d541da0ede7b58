"""Predict recorded llama.cpp runs from what was asked; the first two tables that it prints are in docs/validation.md.

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

from simulator import GPU, plots
from simulator.fidelity import Validation, calibrate, validate

MODELS = ("random", "gemma")
KINDS = ("single", "multi", "seq")
LAWS = ("linear", "split without r", "split")
SUMMARY = ("compared with", "error of", "n", "mean, %", "p95, %", "max, %")
ON_THE_PAGE = ("runs", "model", "queries", "n", "mean, %", "bias, %", "p95, %", "max, %", "repeats, %")


def load(folder, model):
    """Return the records of a model's runs."""
    lines = (Path(folder) / f"llamacpp_{model}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def fitted(model, records, parity, law="split"):
    """Return the law fitted to the steps of the runs whose seed has this parity."""
    chosen = [record for record in records if record["spec"]["seed"] % 2 == parity]
    rows = [row for record in chosen for row in convert_llamacpp.step_rows(model, record)]
    if law == "split without r":
        rows = [{name: value for name, value in row.items() if name != "kv_tokens"} for row in rows]
    return calibrate(rows, law=law.split()[0])


def traces(model, record):
    """Return the traces of a run; a fork-free one is marked as the twin of the fork/join run of the same seed."""
    for trace in convert_llamacpp.traces(model, record):
        twin = {"twin": trace.meta["spec"]} if trace.meta["kind"] == "seq" else {}
        yield msgspec.structs.replace(trace, meta=trace.meta | twin)


def predicted(model, records, parity, cost):
    """Return the validation of the runs whose seed has this parity."""
    chosen = [trace for record in records if record["spec"]["seed"] % 2 == parity for trace in traces(model, record)]
    return validate(chosen, gpu=GPU(cost=cost, max_prefill_tokens=convert_llamacpp.MAX_PREFILL))


def joined(first, second):
    """Return two validations as one."""
    return Validation(first.queries + second.queries, first.spans + second.spans)


def evaluate(folder, law="split"):
    """Return, for each model, what the law predicts: of odd seeds, of even ones, and both together."""
    found = {}
    for model in MODELS:
        records = load(folder, model)
        halves = [predicted(model, records, 1 - parity, fitted(model, records, parity, law).cost) for parity in (0, 1)]
        found[model] = (*halves, joined(*halves))
    return found


def percent(value):
    return f"{100 * value:.1f} %"


def row(*cells):
    print(f"| {' | '.join(cells)} |")


def header(*titles):
    print()
    row(*titles)
    row(*["---"] * len(titles))


def spread(errors):
    return "-" if errors is None else f"{percent(errors.mean)}, {percent(errors.max)}"


def error_row(name, what, errors, repeats):
    numbers = (errors.p50, errors.p90, errors.p95, errors.max)
    signed = f"{100 * errors.bias:+.1f} %"
    row(name, what, str(errors.number), percent(errors.mean), signed, *map(percent, numbers), spread(repeats))


def numbers(*values):
    return [f"{100 * value:.1f}" for value in values]


def summary_row(compared, what, errors):
    row(compared, what, str(errors.number), *numbers(errors.mean, errors.p95, errors.max))


def page_rows(runs, model, both, kinds):
    """Print a row of the page for each kind of query."""
    for kind, name in kinds.items():
        errors, repeats = both.errors(kind), both.repeats(kind)
        mean, p95, most = numbers(errors.mean, errors.p95, errors.max)
        off = "-" if repeats is None else numbers(repeats.mean)[0]
        row(runs, model, name, str(errors.number), mean, f"{100 * errors.bias:+.1f}", p95, most, off)


def main(folder, pictures=None):
    found = {law: evaluate(folder, law) for law in LAWS}
    header(*SUMMARY)
    together = joined(*(both for *_, both in found["split"].values()))
    summary_row("96 fork/join runs, llama.cpp on a CPU", "latency of a query", together.errors())
    header(*ON_THE_PAGE)
    for model, (*_, both) in found["split"].items():
        page_rows("96", model, both, {"single": "one alone", "multi": "several at once"})
    for model, three in found["split"].items():
        header("law from, predicts", model, "n", "mean", "bias", "p50", "p90", "p95", "max", "repeats: mean, max")
        for name, half in zip(("even, odd", "odd, even", "both"), three, strict=True):
            for kind in KINDS:
                error_row(name, f"latency, {kind}", half.errors(kind), half.repeats(kind))
            error_row(name, "last answer, multi", half.runs, half.run_repeats)
    header("mean of a spec's repeats", "random", "gemma", "both models")
    for kind in ("single", "multi"):
        halves = [both.errors_of_means(kind) for *_, both in found["split"].values()]
        row(f"latency, {kind}", *(percent(errors.mean) for errors in (*halves, together.errors_of_means(kind))))
    header("law", "model", *(f"latency, {kind}" for kind in KINDS), "last answer, multi")
    for law, models in found.items():
        for model, (*_, both) in models.items():
            row(law, model, *(percent(both.errors(kind).mean) for kind in KINDS), percent(both.runs.mean))
    header("model", "time of all threads", "measured s", "predicted s", "bias", "mean error / latency")
    for model, (*_, both) in found["split"].items():
        for each in both.classes():
            bias = f"{100 * (each.predicted / each.measured - 1):+.1f} %"
            row(model, each.name, f"{each.measured:.0f}", f"{each.predicted:.0f}", bias, percent(each.mean))
    header("fork-free over fork/join", "measured", "predicted", "error")
    for *_, both in found["split"].values():
        for each in sorted(both.speedups()):
            row(each.trace, f"{each.measured:.3f}", f"{each.predicted:.3f}", f"{100 * each.error:+.1f} %")
    if pictures:
        calibration = fitted("gemma", load(folder, "gemma"), 0)
        plots.save(plots.calibration(calibration), Path(pictures) / "fidelity_steps.png", dpi=100)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*sys.argv[1:])
