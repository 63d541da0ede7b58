"""How far the rooflines are from step times that others measured; the first table is in docs/machine.md.

The numbers and their sources are in step_times.toml.
"""

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np

from simulator.machine.cost import ModelShape
from simulator.machine.profiles import load_profile

DATA = tomllib.loads((Path(__file__).parent / "step_times.toml").read_text(encoding="utf-8"))


def triangle(tokens, cached=0):
    return tokens * cached + tokens * (tokens + 1) // 2


def decode_points(grid):
    for n, row in grid["decode"].items():
        for context, ms in zip(grid["contexts"], row, strict=True):
            yield int(n), int(n) * context, ms / 1000


def errors(model, points):
    return np.array([model.step_seconds(n, context) / seconds - 1 for n, context, seconds in points])


def prefill_errors(model, points):
    return np.array([model.step_seconds(0, 0, m, triangle(m, c)) / (ms / 1000) - 1 for m, c, ms in points])


def fit(sheet, points, prefill):
    """Return the roofline with alpha and overhead fitted to decode steps, and beta to prefill, by relative squares."""
    memory = np.array([sheet.step_seconds(n, context) for n, context, _ in points])  # all of them are bound by memory
    measured = np.array([seconds for *_, seconds in points])
    slowdown, overhead = np.linalg.lstsq(
        np.column_stack([memory / measured, 1 / measured]), np.ones(len(points)), rcond=None
    )[0]
    found = replace(sheet, alpha=float(min(1 / slowdown, 1)), overhead=float(max(overhead, 0)))
    if not prefill:
        return found
    betas = np.linspace(0.3, 1, 141)
    squares = [float((prefill_errors(replace(found, beta=float(beta)), prefill) ** 2).sum()) for beta in betas]
    return replace(found, beta=float(betas[int(np.argmin(squares))]))


def percent(value, signed=True):
    return f"{100 * value:{'+' if signed else ''}.0f} %"


def table(header, rows):
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def grids():
    """Print the errors on the decode grids, and what would correct them; return the corrected rooflines."""
    rows, fits, corrected = [], [], {}
    for grid in DATA["grid"]:
        name = f"{grid['hardware']}-{grid['model']}-roofline"
        sheet, points = load_profile(name).cost, list(decode_points(grid))
        error = errors(sheet, points)
        by_batch = error.reshape(-1, len(grid["contexts"]))
        rows.append(
            [f"`{name}`", *(f"{percent(e.min())} to {percent(e.max())}" for e in by_batch), percent(error.mean())]
        )
        prefill = grid.get("prefill", ())
        model = corrected[grid["hardware"], grid["model"]] = fit(sheet, points, prefill)
        error = np.abs(errors(model, points))
        prompt = [
            f"{percent(np.abs(prefill_errors(m, prefill)).mean(), False)}" if prefill else "-" for m in (sheet, model)
        ]
        fits.append(
            [
                f"`{name}`",
                f"{model.alpha:.2f}",
                f"{1000 * model.overhead:.2f} ms",
                f"{model.beta:.2f}" if prefill else "-",
                f"{percent(error.mean(), False)}, {percent(error.max(), False)}",
                " -> ".join(prompt),
            ]
        )
    batches = [f"batch {n}" for n in DATA["grid"][0]["decode"]]
    table(["decode step, datasheet / database - 1", *batches, "mean"], rows)
    table(["fitted to the database", "alpha", "overhead", "beta", "mean, max error left", "prefill error"], fits)
    return corrected


def held_out(corrected):
    """Print the error on Qwen3-4B of what was fitted on Qwen3-8B."""
    beta = corrected["h100", "qwen3-8b"].beta
    rows = []
    for hardware in ("h100", "h200"):
        sheet, database = (load_profile(f"{hardware}-qwen3-4b-{kind}").cost for kind in ("roofline", "database"))
        found = corrected[hardware, "qwen3-8b"]
        model = replace(sheet, alpha=found.alpha, overhead=found.overhead, beta=beta)
        batches = [(n, n * c) for n in (1, 8, 32, 128) for c in (512, 2048, 8192)]
        points = [(n, context, database.step_seconds(n, context)) for n, context in batches]
        prompts = [(m, 0, 1000 * database.step_seconds(0, 0, m, triangle(m))) for m in (512, 2048, 8192)]
        for title, each in (("datasheet", sheet), ("corrected", model)):
            decode, prefill = np.abs(errors(each, points)), np.abs(prefill_errors(each, prompts))
            sizes = [f"{percent(e.mean(), False)}, {percent(e.max(), False)}" for e in (decode, prefill)]
            rows.append([f"`{hardware}-qwen3-4b-roofline`", title, *sizes])
    table(["held out: Qwen3-4B", "with", "decode: mean, max error", "prefill: mean, max error"], rows)


def closed_loop(corrected):
    """Print time per output token of a closed loop: a decode step, and the other clients' prompts spread over steps."""
    data = DATA["closed_loop"]
    prompt, output = data["prompt"], data["output"]
    key = data["hardware"], data["model"]
    name = "-".join(key)
    models = {
        "datasheet": load_profile(f"{name}-roofline").cost,
        "corrected": replace(corrected[key], beta=corrected["h100", "qwen3-8b"].beta),
        "database": load_profile(f"{name}-database").cost,
    }
    rows = []
    for clients, measured in data["tpot"].items():
        n = int(clients)
        context = n * (prompt + output // 2)
        cells = []
        for model in models.values():
            step = model.step_seconds(n, context)
            extra = model.step_seconds(n, context, prompt, triangle(prompt)) - step
            tpot = 1000 * (step + (n - 1) / output * extra)
            cells.append(f"{tpot:.2f} ({percent(tpot / measured - 1)})")
        rows.append([clients, f"{measured:.2f}", *cells])
    table(["clients", "measured TPOT, ms", *models], rows)


def splitwise():
    """Print token times of Llama-2-70B on eight H100."""
    data = DATA["splitwise"]
    sheet = load_profile("h100x8-llama3.1-70b-roofline").cost
    sheet = replace(sheet, model=ModelShape(**data["shape"]), tensor_parallel=data["tensor_parallel"])
    slow = replace(sheet, allreduce_seconds=20e-6)
    rows = []
    for batch, measured in data["token"].items():
        n = int(batch)
        values = [1000 * model.step_seconds(n, n * data["prompt"]) for model in (sheet, slow)]
        rows.append([batch, f"{measured:.1f}", *(f"{v:.1f} ({percent(v / measured - 1)})" for v in values)])
    table(["batch", "measured, ms", "datasheet", "with 20 us an all-reduce"], rows)


if __name__ == "__main__":
    corrected = grids()
    held_out(corrected)
    closed_loop(corrected)
    splitwise()
