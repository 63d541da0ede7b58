"""``forksim gpus``: the profiles, what fits on them, how fast they are, and who says so."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from simulator.cli.common import Json, print_json, say, screen_width, show
from simulator.errors import ConfigError
from simulator.profiles import Profile, profiles, read_profile
from simulator.report import number

__all__ = ["gpus"]

CONTEXT = 2048
BATCHES = (1, 8, 64)
PROMPT = 2048

LEGEND = f"""\
KV: KiB of cache a token; fits: sequences of so many tokens in the cache, beside the weights in 0.9 of the memory.
step: ms of a decode step of 1, 8 and 64 sequences of {CONTEXT} tokens; prompt: ms of a step that reads {PROMPT} tokens.
datasheet: a bound from peak numbers, faster than any engine; database: operators timed one by one and added up;
fitted: a law fitted to such times; measured: steps of an engine. ±: mean error against what it was made from.
--json has the sources in full."""


def gpus(json: Json = False) -> int:
    """List the GPU profiles."""
    found = [read_profile(name) for name in profiles()]
    if json:
        for profile in found:
            print_json(_record(profile))
        return 0
    narrow = screen_width() < 110
    titles = ("GB", "KV", "fits 2k", "8k", *(f"step {batch}" for batch in BATCHES), "prompt")
    shown = [title for title in titles if not narrow or title not in ("KV", "8k", "step 8")]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, int(not narrow), 0, 1))
    table.add_column("profile", overflow="fold", min_width=12)
    for title in shown:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("what it is")
    for profile in found:
        fits = (profile.concurrency(context) for context in (2048, 8192))
        cells = (
            "-" if profile.memory is None else f"{profile.memory / 1e9:.0f}",
            "-" if profile.kv_bytes_per_token is None else f"{profile.kv_bytes_per_token / 1024:.0f}",
            *("-" if count is None else f"{count:,}" for count in fits),
            *("-" if step is None else number(1000 * step) for step in (*_steps(profile).values(), _prompt(profile))),
        )
        kind = profile.kind + ("" if profile.mean_error is None else f", ±{100 * profile.mean_error:.1f} %")
        table.add_row(profile.name, *(c for title, c in zip(titles, cells, strict=True) if title in shown), kind)
    show(table)
    say(LEGEND)
    return 0


def _steps(profile: Profile) -> dict[str, float | None]:
    """Return the seconds of a step for each of `BATCHES`; None where the profile refuses."""
    steps: dict[str, float | None] = {}
    for batch in BATCHES:
        try:
            steps[str(batch)] = profile.gpu.cost.step_seconds(batch, batch * CONTEXT)
        except ConfigError:
            steps[str(batch)] = None
    return steps


def _prompt(profile: Profile) -> float | None:
    cost = profile.gpu.cost
    if cost.prefill_is_free:
        return None
    try:
        return cost.step_seconds(0, 0, PROMPT, PROMPT * (PROMPT + 1) // 2)
    except ConfigError:
        return None


def _record(profile: Profile) -> dict[str, Any]:
    gpu = profile.gpu
    return {
        "profile": profile.name,
        "kind": profile.kind,
        "hardware": profile.hardware or None,
        "tensor_parallel": profile.tensor_parallel,
        "model": profile.model or None,
        "memory_bytes": profile.memory,
        "kv_bytes_per_token": profile.kv_bytes_per_token,
        "num_kv_blocks": gpu.num_kv_blocks,
        "block_size": gpu.block_size,
        "max_num_seqs": gpu.max_num_seqs,
        "max_num_batched_tokens": gpu.max_num_batched_tokens,
        "concurrency": {str(context): profile.concurrency(context) for context in (2048, 8192)},
        "step_seconds": _steps(profile),
        "prompt_seconds": _prompt(profile),
        "mean_error": profile.mean_error,
        "max_error": profile.max_error,
        "source": profile.source,
        "date": profile.date,
        "measured": profile.measured,
    }
