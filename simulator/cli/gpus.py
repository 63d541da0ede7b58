"""``forksim gpus``: the profiles, what fits on them, how fast they are, and who says so."""

from __future__ import annotations

from typing import Any

from simulator.cli.common import Json, picked, print_json, screen_width, show, table, tell
from simulator.cli.layout import NARROW
from simulator.errors import ConfigError
from simulator.machine.profiles import Profile, profiles, read_profile

CONTEXT = 2048
BATCHES = (1, 8, 64)
PROMPT = 2048


def _legend(narrow: bool) -> str:
    kv = "" if narrow else ", and KV the KiB of cache that a token takes"
    fit = "2k is the number" if narrow else "2k and 8k are the numbers"
    more = " A wider terminal shows more columns, and" if narrow else ""
    return (
        f"TP is the tensor-parallel degree, which is the number of GPUs; GB is their memory{kv}. {fit} of "
        "sequences of so many tokens that fit into the cache, which is 0.9 of the memory less the weights. b=1,"
        f" 8 and 64 are the milliseconds of a decode step of so many sequences of {CONTEXT} tokens, and prompt "
        f"those of a step that reads {PROMPT} tokens; a dash says that prompts are free on that profile. "
        "The end of a name says where the times come from: -roofline is a bound from the peak numbers "
        "of a datasheet, faster than any engine; -database adds up operators that were timed one by one; "
        "-engine is the same, held against runs of an engine; without an ending, a simple law was fitted to "
        "such times. ± % is the mean error of the law against what it was fitted to, or, for -engine, against "
        f"the runs.{more or ' Option'} --json has everything, with the sources."
    )


def gpus(json: Json = False) -> int:
    """List the GPU profiles."""
    found = [read_profile(name) for name in profiles()]
    if json:
        for profile in found:
            print_json(_record(profile))
        return 0
    narrow = screen_width() < NARROW
    titles = ("TP", "GB", "KV", "2k", "8k", *(f"b={batch}" for batch in BATCHES), "prompt", "kind", "± %")
    shown = [title for title in titles if not narrow or title not in ("KV", "8k", "kind")]
    lines = table("profile", *shown, padding=(0, int(not narrow), 0, 1))
    for column in lines.columns:
        column.justify = "left" if column.header in ("profile", "kind") else "right"
        column.no_wrap = True
    for profile, after in zip(found, [*found[1:], None], strict=True):
        fits = (profile.concurrency(context) for context in (2048, 8192))
        cells = (
            str(profile.tensor_parallel),
            "-" if profile.memory is None else f"{profile.memory / 1e9:.0f}",
            "-" if profile.kv_bytes_per_token is None else f"{profile.kv_bytes_per_token / 1024:.0f}",
            *("-" if count is None else f"{count:,}" for count in fits),
            *(_milliseconds(step) for step in (*_steps(profile).values(), _prompt(profile))),
            profile.kind,
            "" if profile.mean_error is None else f"{100 * profile.mean_error:.1f}",
        )
        last = after is not None and after.model != profile.model
        row = (cell for title, cell in zip(titles, cells, strict=True) if title in shown)
        lines.add_row(profile.name, *row, end_section=last)
    show(lines)
    tell(_legend(narrow))
    return 0


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:#.3g}".rstrip(".")


def _steps(profile: Profile) -> dict[str, float | None]:
    """Return the seconds of a step for each of `BATCHES`; None where the profile refuses."""
    most = profile.gpu.max_num_seqs or BATCHES[-1]
    return {str(b): _seconds(profile, b, b * CONTEXT) if b <= most else None for b in BATCHES}


def _prompt(profile: Profile) -> float | None:
    if profile.gpu.cost.prefill_is_free:
        return None
    return _seconds(profile, 0, 0, PROMPT, PROMPT * (PROMPT + 1) // 2)


def _seconds(profile: Profile, *step: int) -> float | None:
    try:
        return profile.gpu.cost.step_seconds(*step)
    except ConfigError:
        return None


def _record(profile: Profile) -> dict[str, Any]:
    return {
        "profile": profile.name,
        "memory_bytes": profile.memory,
        "hardware": profile.hardware or None,
        "model": profile.model or None,
        **picked(profile, "kind", "tensor_parallel", "kv_bytes_per_token", "mean_error", "max_error"),
        **picked(profile, "source", "date", "measured"),
        **picked(profile.gpu, "num_kv_blocks", "block_size", "max_num_seqs", "max_num_batched_tokens"),
        "concurrency": {str(context): profile.concurrency(context) for context in (2048, 8192)},
        "step_seconds": _steps(profile),
        "prompt_seconds": _prompt(profile),
    }
