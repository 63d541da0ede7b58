"""GPUs by name: small data files, each with where its numbers come from.

``hardware.toml`` has the GPUs, ``models.toml`` the shapes of models, ``rooflines.toml`` which of them are combined.
Every other TOML file of this folder is one profile, and so is any file like it elsewhere: see docs/machine.md.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from dataclasses import replace
from functools import partial

from simulator.errors import ConfigError
from simulator.machine.cost import COSTS, cost_from_text, usages
from simulator.machine.gpu import GPU, STEP_CLOCK
from simulator.machine.profiles.reading import KINDS, MEMORY_SHARE, Profile, parse_profile, profile_of, shipped
from simulator.support.toml import load_toml

__all__ = [
    "DEFAULT_GPU",
    "KINDS",
    "MEMORY_SHARE",
    "Profile",
    "gpu_from_text",
    "load_profile",
    "parse_profile",
    "profiles",
    "read_profile",
]

DEFAULT_GPU = "h100-qwen3-8b-database"
"""The machine of what needs one and is not told which: the wall-clock reward, and the audit. It charges for prompts."""


def profiles() -> tuple[str, ...]:
    """Return the names of all profiles that come with forksim.

    >>> "h100-qwen3-8b" in profiles()
    True
    """
    return tuple(shipped())


def read_profile(name: str | os.PathLike[str]) -> Profile:
    """Return a profile with its provenance: one of `profiles`, or a TOML file of your own.

    Raises
    ------
    ConfigError
        If there is no such profile, or the file is none.

    >>> profile = read_profile("h100-llama3.1-8b")
    >>> profile.kind, profile.mean_error, profile.kv_bytes_per_token, profile.concurrency(8192)
    ('fitted', 0.016, 131072.0, 52)
    """
    text = os.fspath(name)
    if text in shipped():
        return shipped()[text]
    if not isinstance(text, str) or not text.endswith(".toml"):
        near = _near(str(text).lower())
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise ConfigError(f"no GPU profile is called {text!r}; {hint}`forksim gpus` lists all")
    profile = load_toml("profile", text, partial(profile_of, name=text))
    stem = os.path.basename(text).removesuffix(".toml")
    return replace(profile, name=stem, gpu=replace(profile.gpu, name=stem))


def _near(text: str) -> list[str]:
    """Return names of profiles that somebody may have meant: the smallest models first, on the fewest GPUs."""
    inside = [name for name in profiles() if text and text in name]
    smallest = sorted(inside, key=lambda name: (_weights(name), shipped()[name].tensor_parallel))
    return smallest[:4] or difflib.get_close_matches(text, profiles(), n=4, cutoff=0.5)


def _weights(name: str) -> float:
    """Return the billions of parameters of a profile's model, as its name says them."""
    size = re.search(r"(\d+(?:\.\d+)?)(b|m)\b", shipped()[name].model)
    return math.inf if size is None else float(size[1]) / (1000 if size[2] == "m" else 1)


def load_profile(name: str | os.PathLike[str]) -> GPU:
    """Return the GPU of a profile; see `read_profile`.

    >>> gpu = load_profile("h100-qwen3-8b-roofline")
    >>> gpu.max_num_seqs, gpu.max_num_batched_tokens, gpu.num_kv_blocks
    (256, 8192, 23574)
    >>> load_profile("h100-qwen3-8")
    Traceback (most recent call last):
    simulator.errors.ConfigError: no GPU profile is called 'h100-qwen3-8'; did you mean h100-qwen3-8b, ...
    >>> load_profile("h100")
    Traceback (most recent call last):
    simulator.errors.ConfigError: no GPU profile is called 'h100'; did you mean h100-qwen3-4b-database, ...
    """
    return read_profile(name).gpu


def gpu_from_text(text: str) -> GPU:
    """Return the GPU that `text` names, as the command line takes it.

    ``steps`` is the decode-step clock; otherwise the name or file of a profile, or a cost model without limits (see
    `simulator.machine.cost.cost_from_text`).

    >>> gpu_from_text("steps") is STEP_CLOCK, gpu_from_text("rate:50").cost.tokens_per_second
    (True, 50.0)
    """
    if text == "steps":
        return STEP_CLOCK
    if text.partition(":")[0] in COSTS:
        return GPU(cost=cost_from_text(text), name=text)
    try:
        return load_profile(text)
    except ConfigError as error:
        if text.endswith(".toml"):
            raise
        raise ConfigError(f"{error}; accepted besides: steps, a profile's .toml file, {usages()}") from None
