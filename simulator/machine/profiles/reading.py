"""Profile files: TOML to `Profile`, with every number checked."""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from importlib import resources
from typing import Any

from simulator.errors import ConfigError
from simulator.machine.cost import (
    COSTS,
    CostModel,
    Datasheet,
    ModelShape,
    Roofline,
)
from simulator.machine.gpu import GPU
from simulator.support.checks import one_of, whole
from simulator.support.toml import parse_toml

KINDS = ("datasheet", "database", "fitted", "measured")
"""What the numbers of a profile are: the maker's promises; operators timed one by one and added up; a law fitted to
either; steps of a real engine."""

MEMORY_SHARE = 0.9
"""Share of the memory that weights and KV cache may take: vLLM's default ``gpu_memory_utilization`` for long."""

ENGINE = {"max_num_seqs": 256, "max_num_batched_tokens": 8192, "block_size": 16}

_FIXED = ("hardware.toml", "models.toml", "rooflines.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A `GPU` and where its numbers come from."""

    name: str
    gpu: GPU
    kind: str
    """One of `KINDS`."""
    source: str
    date: str
    """When the source was looked up or measured, year-month-day."""
    measured: str = ""
    """What was measured, and what is left out."""
    mean_error: float | None = None
    """Mean absolute relative error against what was measured; None where it is not known."""
    max_error: float | None = None
    hardware: str = ""
    model: str = ""
    tensor_parallel: int = 1
    memory: float | None = None
    """Bytes of all its GPUs."""
    kv_bytes_per_token: float | None = None
    """Bytes of KV cache a token takes on all of them."""

    @property
    def kv_tokens(self) -> int | None:
        """Tokens that the KV cache holds; None where that is not known."""
        blocks = self.gpu.num_kv_blocks
        return None if blocks is None else blocks * self.gpu.block_size

    def concurrency(self, context: int) -> int | None:
        """Return how many sequences of `context` tokens the KV cache holds; None where that is not known."""
        blocks = self.gpu.num_kv_blocks
        return None if blocks is None else blocks // -(-context // self.gpu.block_size)


def parse_profile(text: str, name: str) -> Profile:
    """Return the profile that a file's text describes.

    Raises
    ------
    ConfigError
        If it is no TOML, a key is unknown or missing, or a number makes no sense.

    >>> text = '''
    ... provenance = {kind = "measured", source = "my desk", date = 2026-11-22}
    ... cost = {type = "linear", a = 0.02}
    ... '''
    >>> parse_profile(text, "mine").gpu.cost.a
    0.02
    """
    return parse_toml(f"profile {name}", text, partial(profile_of, name=name))


def profile_of(table: dict[str, Any], name: str) -> Profile:
    """Return the profile that the table of a file describes; see `parse_profile`."""
    _only(table, "the file", ("hardware", "model", "tensor_parallel", "provenance", "cost", "engine"))
    provenance, cost, engine = (_section(table, key) for key in ("provenance", "cost", "engine"))
    _only(provenance, "[provenance]", ("kind", "source", "date", "measured", "mean_error", "max_error"))
    _only(engine, "[engine]", (*ENGINE, "max_prefill_tokens", "num_kv_blocks"))
    for key in ("kind", "source", "date"):
        if key not in provenance:
            raise ConfigError(f"[provenance] must say {key}")
    one_of("kind", provenance["kind"], KINDS)
    source = provenance["source"]
    if not isinstance(source, str) or not source.strip():
        raise ConfigError(f"source must say where the numbers come from; got {source!r}")
    if not isinstance(provenance["date"], datetime.date):
        raise ConfigError(f"date must be a date such as 2026-11-22; got {provenance['date']!r}")
    for key in ("mean_error", "max_error"):
        value = provenance.get(key)
        if value is not None and (not isinstance(value, float) or not 0 <= value <= 10):
            raise ConfigError(f"{key} must be a number from 0 to 10 (0.05 is 5 %); got {value!r}")
    hardware, model, gpus = (table.get(key, default) for key, default in _WHERE.items())
    datasheet = None if hardware is None else _known(hardware, "hardware", _hardware())
    shape = None if model is None else _known(model, "model", _models())
    whole("tensor_parallel", gpus, "from 1 to 1,024")
    gpu = GPU(cost=_cost(cost, shape, datasheet, gpus), name=name, **(ENGINE | engine))
    kv = memory = None
    if datasheet and shape:
        memory = gpus * datasheet.memory
        kv = -(-shape.kv_heads // gpus) * gpus / shape.kv_heads * shape.kv_bytes_per_token
        room = MEMORY_SHARE * memory - shape.parameters * shape.weight_bytes
        if gpu.num_kv_blocks is None:
            blocks = int(room // (kv * gpu.block_size))
            if blocks < 1:
                raise ConfigError(f"the weights of {model} leave no room for a KV cache on {gpus} {hardware}")
            gpu = replace(gpu, num_kv_blocks=blocks)
    return Profile(
        name=name,
        gpu=gpu,
        kind=provenance["kind"],
        source=source,
        date=provenance["date"].isoformat(),
        measured=str(provenance.get("measured", "")),
        mean_error=provenance.get("mean_error"),
        max_error=provenance.get("max_error"),
        hardware=hardware or "",
        model=model or "",
        tensor_parallel=gpus,
        memory=memory,
        kv_bytes_per_token=kv,
    )


_WHERE: dict[str, Any] = {"hardware": None, "model": None, "tensor_parallel": 1}


def _cost(table: dict[str, Any], shape: ModelShape | None, datasheet: Datasheet | None, gpus: int) -> CostModel:
    numbers = dict(table)
    kind = numbers.pop("type", None)
    if not isinstance(kind, str) or kind not in COSTS:
        raise ConfigError(f"[cost] type must be one of {', '.join(COSTS)}; got {kind!r}")
    maker: Any = COSTS[kind]
    known = [item.name for item in fields(maker) if item.init]
    if maker is Roofline:
        if shape is None or datasheet is None:
            raise ConfigError("a roofline needs hardware and model")
        known = known[3:]
        numbers |= {"model": shape, "gpu": datasheet, "tensor_parallel": gpus}
    _only(table, "[cost]", ("type", *known))
    try:
        return COSTS[kind](**numbers)
    except TypeError as error:
        raise ConfigError(f"[cost] of type {kind}: {str(error).partition('() ')[2] or error}") from None


def _section(table: dict[str, Any], key: str) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise ConfigError(f"{key} must be a table: [{key}]")
    return value


def _only(table: Mapping[str, Any], where: str, known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(f"{where} has no key {key!r}; accepted: {', '.join(known)}")


def _known(name: Any, what: str, there: Mapping[str, Any]) -> Any:
    if not isinstance(name, str) or name not in there:
        raise ConfigError(f"no {what} is called {name!r}; accepted: {', '.join(there)}")
    return there[name]


def _data(file: str) -> str:
    return resources.files("simulator.machine.profiles").joinpath(file).read_text(encoding="utf-8")


@cache
def _hardware() -> dict[str, Datasheet]:
    tables = tomllib.loads(_data("hardware.toml"))
    names = [item.name for item in fields(Datasheet)]
    return {
        key: Datasheet(**{name: table[name] for name in names})
        for key, table in tables.items()
        if isinstance(table, dict)
    }


@cache
def _models() -> dict[str, ModelShape]:
    tables = tomllib.loads(_data("models.toml"))
    names = [item.name for item in fields(ModelShape)]
    return {
        key: ModelShape(**{name: table[name] for name in names if name in table})
        for key, table in tables.items()
        if isinstance(table, dict)
    }


@cache
def shipped() -> dict[str, Profile]:
    """Return all profiles that come with forksim, by name, in order."""
    found = {}
    for file in resources.files("simulator.machine.profiles").iterdir():
        name = file.name
        if name.endswith(".toml") and name not in _FIXED:
            found[name.removesuffix(".toml")] = parse_profile(
                file.read_text(encoding="utf-8"), name.removesuffix(".toml")
            )
    rooflines = tomllib.loads(_data("rooflines.toml"))
    sheets = tomllib.loads(_data("hardware.toml"))
    models = tomllib.loads(_data("models.toml"))
    for model, machines in rooflines["gpus"].items():
        for hardware, counts in machines.items():
            for count in counts:
                provenance = {
                    "kind": "datasheet",
                    "source": f"{sheets[hardware]['source']}; {models[model]['source']}",
                    "date": rooflines["date"],
                    "measured": rooflines["measured"],
                }
                name = f"{hardware}{f'x{count}' if count > 1 else ''}-{model}-roofline"
                where = {"hardware": hardware, "model": model, "tensor_parallel": count}
                found[name] = profile_of({**where, "provenance": provenance, "cost": {"type": "roofline"}}, name)
    order = sorted(found, key=lambda name: (found[name].model, found[name].hardware, found[name].tensor_parallel, name))
    return {name: found[name] for name in order}
