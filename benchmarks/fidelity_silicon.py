"""Closed-loop runs of real engines on H100s against their simulation. docs/validation.md has the picture and the
second, third and fourth table that this prints.

python benchmarks/fidelity_silicon.py [PICTURE.png]

Needs ``pip install forksim[aiconfigurator]``: the measured rows are `silicon_sample.csv` of that package, and the step
times are its operator database. Nothing of either is kept here.
"""

from __future__ import annotations

import csv
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources, util
from typing import NamedTuple

import numpy as np

from simulator import GPU, Answer, ClosedLoop, Thread, Trace, compile_trace, simulate
from simulator.machine.cost import AIConfigurator
from simulator.machine.profiles import load_profile
from simulator.plots import save

PICTURE = "docs/images/fidelity_silicon.png"
ROUNDS = 10  # requests a user sends
TEMPLATE = 35  # tokens that the chat template of Llama-3.1 adds to a prompt; that of Qwen3 adds 8
ROOM = 1500  # tokens that a step may have beyond one prompt and the batch


@dataclass(frozen=True)
class Group:
    """Rows of one file of measurements: a model, an engine, a number of GPUs."""

    title: str
    model: str
    version: str
    backend: str
    gpus: int
    known_as: str
    """The model's name in the operator database."""
    engine: Callable[[int, int], dict]
    """Limits of the engine for prompts of so many tokens and so many users."""
    template: int = TEMPLATE
    rounds: int = ROUNDS
    """Requests of a user."""
    counted: tuple[int, int] = (0, ROUNDS)
    """Those that count: from, to."""


class Row(NamedTuple):
    """A measured run."""

    prompt: int
    output: int
    users: int
    ttft: float
    tpot: float


def tensorrt(prompt, users, profile=None):
    """Whole prompts only, as many as fit; one place of the batch stays empty (docs/validation.md says why)."""
    blocks = load_profile(profile).num_kv_blocks if profile else None
    whole = max(1, (prompt + ROOM) // (prompt + TEMPLATE)) * (prompt + TEMPLATE)
    return {"max_num_seqs": max(1, users - 1), "max_prefill_tokens": whole, "num_kv_blocks": blocks}


def chunked(prompt, users):
    """Prompts in chunks."""
    blocks = load_profile("h100x2-qwen3-32b").num_kv_blocks
    return {"max_num_batched_tokens": users + prompt + ROOM, "num_kv_blocks": blocks}


LLAMA, QWEN = "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-32B"
BASE = "meta-llama/Meta-Llama-3.1-8B"
SCORED = Group(
    "Llama-3.1-8B, 1 H100, TensorRT-LLM",
    *(LLAMA, "1.0.0rc3", "trtllm", 1, BASE),
    lambda prompt, users: tensorrt(prompt, users, "h100-llama3.1-8b"),
)
TWO = replace(
    SCORED,
    title="Llama-3.1-8B, 2 H100, TensorRT-LLM",
    gpus=2,
    engine=lambda prompt, users: tensorrt(prompt, users, "h100x2-llama3.1-8b"),
)
OTHERS = (
    TWO,
    replace(SCORED, title="Llama-3.1-8B, 4 H100, TensorRT-LLM", gpus=4, engine=tensorrt),
    Group("Qwen3-32B, 2 H100, vLLM", QWEN, "0.12.0", "vllm", 2, QWEN, chunked, 8),
    Group("Qwen3-32B, 2 H100, SGLang", QWEN, "0.5.1.post1", "sglang", 2, QWEN, chunked, 8),
)
VARIANTS = (
    ("as above", SCORED),
    ("a full batch", replace(SCORED, engine=lambda p, users: SCORED.engine(p, users) | {"max_num_seqs": users})),
    (
        "8,192 tokens a step, prompts in chunks",
        replace(SCORED, engine=lambda p, users: {"max_num_seqs": max(1, users - 1), "max_num_batched_tokens": 8192}),
    ),
    ("no chat template", replace(SCORED, template=0)),
    ("an eleventh round after those that count", replace(SCORED, rounds=ROUNDS + 1)),
    ("20 rounds, the first not counted", replace(SCORED, rounds=20, counted=(1, 20))),
)


def measured(group: Group) -> list[Row]:
    """Return the rows of `group`: bf16, one engine for prompts and outputs."""
    wanted = {
        "model_path": group.model,
        "system": "h100_sxm",
        "backend": group.backend,
        "backend_version": group.version,
        "mode": "agg",
        "gemm_quant_mode": "",
    }
    rows = []
    path = resources.files("aiconfigurator_core") / "systems" / "silicon_sample.csv"
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            if all(line[key] == value for key, value in wanted.items()) and float(line["tp_size"] or 0) == group.gpus:
                users, ttft, tpot = (float(line[key]) for key in ("batch_size", "silicon_ttft_ms", "silicon_tpot_ms"))
                rows.append(Row(int(line["isl"]), int(line["osl"]), int(users), ttft, tpot))
    return sorted(rows, key=lambda row: (row.users, row.prompt, row.output))


def play(group: Group, row: Row, overhead: float) -> tuple[float, float]:
    """Return the mean time to the first token and per token after it, in ms, of the simulated run."""
    cost = AIConfigurator(group.known_as, "h100_sxm", group.backend, group.gpus, overhead=overhead)
    gpu = GPU(cost=cost, prefix_caching=False, **group.engine(row.prompt, row.users))
    organizer = Thread("organizer", (Answer(row.output),), row.prompt + group.template)
    n = group.rounds * row.users
    timeline = simulate([compile_trace(Trace("request", (organizer,)))] * n, gpu=gpu, arrivals=ClosedLoop(row.users))
    query = timeline.column("query").astype(int)
    first, last = np.full(n, np.inf), np.zeros(n)
    decoded = timeline.column("tokens") > 0  # a request that memory ran out for has several rows
    np.minimum.at(first, query[decoded], timeline.column("decode_start")[decoded])
    np.maximum.at(last, query, timeline.column("finish"))
    counts = slice(*(row.users * end for end in group.counted))
    ttft = (first - np.asarray(timeline.arrivals))[counts].mean()
    return 1000 * ttft, 1000 * ((last - first)[counts] / (row.output - 1)).mean()


def errors(group: Group, rows: list[Row], overhead: float) -> np.ndarray:
    """Return the relative errors of (TTFT, TPOT) of each row."""
    return np.array([play(group, row, overhead) for row in rows]) / [[row.ttft, row.tpot] for row in rows] - 1


def fit(group: Group, rows: list[Row], step: float = 5e-4) -> float:
    """Return the seconds of host a step with the least squares of relative TPOT errors; TPOT is as good as linear."""
    start, end = (errors(group, rows, overhead)[:, 1] for overhead in (0.0, step))
    slope = (end - start) / step
    return max(0.0, float(-(start @ slope) / (slope @ slope)))


def held_out(group: Group, rows: list[Row], key: Callable[[Row], int]) -> tuple[np.ndarray, list[float]]:
    """Return the errors of each row with the overhead fitted to the rows that differ in `key`, and those overheads."""
    found = np.empty((len(rows), 2))
    overheads = []
    for value in sorted({key(row) for row in rows}):
        inside = [i for i, row in enumerate(rows) if key(row) == value]
        overheads.append(fit(group, [row for row in rows if key(row) != value]))
        found[inside] = errors(group, [rows[i] for i in inside], overheads[-1])
    return found, overheads


def percent(value, digits=1):
    return f"{100 * value:+.{digits}f}"


def size(value, digits=1):
    return f"{100 * value:.{digits}f}"


def sizes(found):
    """Return cells: mean, 95th percentile and largest of the absolute errors."""
    return tuple(map(size, (abs(found).mean(), np.quantile(abs(found), 0.95), abs(found).max())))


def table(header, rows):
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    print()


def summary(rows, found, least=8):
    """Return cells: mean, max and signed error of TPOT, signed at the least users; mean and signed error of TTFT."""
    ttft, tpot = found.T
    few = np.array([row.users == least for row in rows])
    low = percent(tpot[few].mean()) if few.any() else "-"
    mean, most = size(abs(tpot).mean()), size(abs(tpot).max())
    return mean, most, percent(tpot.mean()), low, size(abs(ttft).mean(), 0), percent(ttft.mean(), 0)


SUMMARY = ("TPOT: mean, %", "max, %", "bias, %", "at 8 users, %", "TTFT: mean, %", "bias, %")


def draw(rows, found, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    tpot = np.array([row.tpot for row in rows])
    predicted = tpot * (1 + found[:, 1])
    ends = [0.9 * tpot.min(), 1.1 * tpot.max()]
    left.plot(ends, ends, color="#8C8C8C", linewidth=0.8)
    marks = {128: "o", 256: "s", 512: "^"}
    colours = {1024: "#0072B2", 2048: "#E69F00", 4096: "#111111"}
    counts = sorted({row.users for row in rows})
    for prompt, colour in colours.items():
        for output, mark in marks.items():
            chosen = [i for i, row in enumerate(rows) if (row.prompt, row.output) == (prompt, output)]
            style = {"linestyle": "none", "marker": mark, "color": colour, "markersize": 5, "fillstyle": "none"}
            left.plot(tpot[chosen], predicted[chosen], **style, label=f"{prompt:,} + {output}")
            shift = 0.16 * (list(colours).index(prompt) - 1) + 0.04 * (list(marks).index(output) - 1)
            places = [counts.index(rows[i].users) + shift for i in chosen]
            right.plot(places, 100 * found[chosen, 1], **style)
    left.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
    ticks = [8, 16, 32, 64]
    for axis in (left.xaxis, left.yaxis):
        axis.set_ticks(ticks, [str(tick) for tick in ticks])
        axis.set_ticks([], minor=True)
    left.set(xlabel="measured TPOT, ms", ylabel="predicted TPOT, ms")
    left.legend(title="prompt + output tokens", fontsize=7, title_fontsize=7, frameon=False)
    right.axhspan(-3, 3, color="#F0F0F0")
    right.axhline(0, color="#8C8C8C", linewidth=0.8)
    right.set_xticks(range(len(counts)), [str(count) for count in counts])
    right.set(xlabel="users in the closed loop", ylabel="error of TPOT, % (grey: within 3)", ylim=(-12, 12))
    save(figure, path)


def main():
    if util.find_spec("aiconfigurator_core") is None:
        sys.exit("this benchmark needs aiconfigurator-core: pip install forksim[aiconfigurator]")
    logging.disable(logging.CRITICAL)
    rows = measured(SCORED)
    plain = errors(SCORED, rows, 0.0)
    print(f"{SCORED.title}: {len(rows)} rows, no constant fitted\n")
    table(
        ("users", "prompt", "output", "TPOT measured, ms", "predicted", "error, %", "TTFT measured, ms", "error, %"),
        (
            (
                *(row.users, f"{row.prompt:,}", row.output),
                *(f"{row.tpot:.2f}", f"{row.tpot * (1 + error[1]):.2f}", percent(error[1])),
                *(f"{row.ttft:.0f}", percent(error[0], 0)),
            )
            for row, error in zip(rows, plain, strict=True)
        ),
    )
    others = []
    for group in OTHERS:
        there = measured(group)
        best = fit(group, there)
        others.append((group, there, best, errors(group, there, 0.0), errors(group, there, best)))
    table(
        ("compared with", "error of", "n", "mean, %", "p95, %", "max, %"),
        (
            (SCORED.title, "mean TPOT of a run", len(rows), *sizes(plain[:, 1])),
            ("the same", "mean TTFT of a run", len(rows), *sizes(plain[:, 0])),
            *(
                (group.title, "mean TPOT of a run", len(there), *sizes(found[:, 1]))
                for group, there, _, found, _ in others
            ),
        ),
    )
    table(
        ("changed", *(SUMMARY[i] for i in (0, 1, 4, 5))),
        ((title, *(summary(rows, errors(variant, rows, 0.0))[i] for i in (0, 1, 4, 5))) for title, variant in VARIANTS),
    )
    table(
        ("engine", "TPOT: bias, %", "TTFT: mean, %", "best overhead, ms", "TPOT with it: mean, %", "max, %"),
        (
            (
                group.title,
                *(summary(there, without)[i] for i in (2, 4)),
                f"{1000 * best:.2f}",
                *summary(there, with_it)[:2],
            )
            for group, there, best, without, with_it in others
        ),
    )

    found = []
    for users in sorted({row.users for row in rows}):
        chosen = np.array([row.users == users for row in rows])
        ttft, tpot = plain[chosen].T
        signed = percent(tpot.mean()), percent(ttft.mean(), 0)
        found.append((users, chosen.sum(), size(abs(tpot).mean()), size(abs(tpot).max()), *signed))
    table(("users", "rows", "TPOT: mean, %", "max, %", "bias, %", "TTFT: bias, %"), found)
    transferred = fit(TWO, measured(TWO))
    by_prompt, first = held_out(SCORED, rows, lambda row: row.prompt)
    by_users, second = held_out(SCORED, rows, lambda row: row.users)
    fitted = fit(SCORED, rows)

    def span(values):
        return f"{1000 * min(values):.2f} to {1000 * max(values):.2f}"

    table(
        ("host overhead a step", "ms", *SUMMARY),
        (
            ("none", 0, *summary(rows, plain)),
            ("fitted to the other prompt lengths", span(first), *summary(rows, by_prompt)),
            ("fitted to the other numbers of users", span(second), *summary(rows, by_users)),
            (
                "fitted to the rows of 2 GPUs",
                f"{1000 * transferred:.2f}",
                *summary(rows, errors(SCORED, rows, transferred)),
            ),
            ("fitted to these rows", f"{1000 * fitted:.2f}", *summary(rows, errors(SCORED, rows, fitted))),
        ),
    )
    path = sys.argv[1] if sys.argv[1:] else PICTURE
    draw(rows, plain, path)
    print(f"drew {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
