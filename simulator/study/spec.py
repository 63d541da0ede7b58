"""The parts of a study, frozen and checked: where traces come from, when they arrive, on what they run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Annotated, Any, Literal

from simulator.errors import ConfigError
from simulator.formats import readable
from simulator.machine.gpu import GPU, Cluster
from simulator.machine.policy import POLICIES
from simulator.machine.profiles import gpu_from_text, profiles, read_profile
from simulator.machine.routing import ROUTINGS
from simulator.support.checks import NonNegative, Positive, check_fields, choose
from simulator.workload import generate

Limit = Annotated[int, "from 1 to 10^12"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where traces come from: a generator, or files. ``[traces.NAME]`` in a study file.

    >>> Source(generate="asyncthink_math", options={"workers": 5}).weight
    1.0
    """

    generate: str | None = None
    """A family or preset, see `simulator.workload.generate`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the family."""
    files: tuple[str, ...] = ()
    """Paths or patterns such as ``traces/*.jsonl``; relative ones start at the study file's folder."""
    format: str | None = None
    """Format of the files. Default: found from each."""
    tokens: str = "characters"
    """How to count tokens where no count is recorded, as ``forksim run --tokens``."""
    block_size: int | None = None
    """Tokens in a block of a Mooncake log's hash_ids."""
    weight: Positive = 1.0
    """The source's share of the queries, relative to the weights of the others."""

    def __post_init__(self) -> None:
        check_fields(self, "a source's")
        if (self.generate is None) == (not self.files):
            raise ConfigError("a source says either generate or files")
        if self.generate is not None:
            for name in ("format", "block_size"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"{name} is for files, and this source generates")
            generate(self.generate, 0, **self.options)  # it checks them
        elif self.options:
            raise ConfigError("options are for generate, and this source reads files")
        if self.format is not None:
            choose(self.format, readable(), "format")


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """When queries arrive: ``[arrivals]`` in a study file.

    >>> Arrivals(kind="poisson", rate=2.5).is_open
    True
    """

    kind: Literal["together", "poisson", "gamma", "recorded", "closed"] = "together"
    """``together``: all at 0, as in a rollout step of RL. ``poisson``: independently, `rate` a second. ``gamma``: the
    same with bursts. ``recorded``: as the traces say. ``closed``: `users`, each with one query at a time."""
    rate: Positive | None = None
    """Queries a second (a step, on the decode-step clock), of ``poisson`` and ``gamma``."""
    variation: NonNegative | None = None
    """Coefficient of variation of the intervals of ``gamma``: 1 is Poisson, more is burstier, 0 a fixed interval."""
    users: Annotated[int, "from 1 to 10^9"] | None = None
    """Users of ``closed``."""
    think: NonNegative | None = None
    """Seconds from an answer to the user's next query, of ``closed``. Default 0."""
    speed: Positive | None = None
    """By what ``recorded`` times are divided. Default 1."""

    def __post_init__(self) -> None:
        check_fields(self, "arrivals")
        takes = _TAKES[self.kind]
        for each in fields(self)[1:]:
            given = getattr(self, each.name) is not None
            if given and each.name not in takes:
                raise ConfigError(f"arrivals of kind {self.kind} have no {each.name}")
            if not given and takes.get(each.name):
                raise ConfigError(f"arrivals of kind {self.kind} must say {each.name}")

    @property
    def is_open(self) -> bool:
        """Whether queries arrive however many are still open."""
        return self.kind in ("poisson", "gamma", "recorded")


_TAKES: dict[str, dict[str, bool]] = {  # and whether it must be given
    "together": {},
    "poisson": {"rate": True},
    "gamma": {"rate": True, "variation": True},
    "recorded": {"speed": False},
    "closed": {"users": True, "think": False},
}


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What the queries run on: ``[cluster]`` in a study file.

    >>> hardware = Hardware(gpu="h100x2-qwen3-32b", replicas=3, dollars_per_gpu_hour=2.5)
    >>> len(hardware.cluster().replicas), hardware.gpus()
    (3, 6)
    """

    gpu: str | tuple[str, ...] = "steps"
    """What ``forksim run --gpu`` takes: ``steps``, a profile, its .toml file, ``rate:...``, ``linear:...``. Several
    names make a cluster of unlike replicas."""
    replicas: Annotated[int, "from 1 to 10,000"] = 1
    """How many replicas there are of each."""
    routing: str = "least-loaded"
    policy: str = "fcfs"
    max_workers: Limit | None = None
    """Most workers of all queries at once."""
    max_num_seqs: Limit | None = None
    """This and the next four: instead of what the profile says."""
    max_num_batched_tokens: Limit | None = None
    max_prefill_tokens: Limit | None = None
    num_kv_blocks: Limit | None = None
    prefix_caching: bool | None = None
    dollars_per_gpu_hour: NonNegative | None = None
    """Price of one GPU; a replica of a tensor-parallel profile has several."""
    name: str = ""
    """What a table calls it, where whole clusters are compared."""

    def __post_init__(self) -> None:
        check_fields(self, "cluster")
        if not self.gpu:
            raise ConfigError("cluster gpu must say at least one GPU")
        choose(self.routing, ROUTINGS, "routing")
        choose(self.policy, POLICIES, "policy")

    @property
    def names(self) -> tuple[str, ...]:
        """The GPUs as they are written."""
        return (self.gpu,) if isinstance(self.gpu, str) else self.gpu

    def cluster(self, base: str = "") -> Cluster:
        """Return the modelled cluster; `base` is the folder where relative paths of .toml files start.

        Raises
        ------
        ConfigError
            If there is no such GPU, or its limits do not go together.
        """
        limits = {name: getattr(self, name) for name in _LIMITS if getattr(self, name) is not None}
        gpus = [replace(_gpu(_found(name, base)), **limits) for name in self.names]
        return Cluster(replicas=gpus * self.replicas, routing=ROUTINGS[self.routing])

    def gpus(self, base: str = "") -> int:
        """Return how many GPUs it has in all."""
        return self.replicas * sum(_tensor_parallel(_found(name, base)) for name in self.names)


_LIMITS = ("max_num_seqs", "max_num_batched_tokens", "max_prefill_tokens", "num_kv_blocks", "prefix_caching")


def _found(name: str, base: str) -> str:
    return os.path.join(base, name) if name.endswith(".toml") else name


@lru_cache(maxsize=64)
def _gpu(name: str) -> GPU:
    return gpu_from_text(name)


@lru_cache(maxsize=64)
def _tensor_parallel(name: str) -> int:
    return read_profile(name).tensor_parallel if name.endswith(".toml") or name in profiles() else 1


@dataclass(frozen=True, kw_only=True)
class Window:
    """Which queries are measured, by when they arrive: ``[window]`` in a study file. For open arrivals.

    What arrives in the first `warmup` seconds meets a GPU that is emptier than it will be, and what arrives in the last
    `cooldown` seconds one that nobody follows to. They run, and are not measured.
    """

    warmup: NonNegative = 0.0
    """Seconds from 0 on."""
    cooldown: NonNegative = 0.0
    """Seconds up to the last arrival."""

    def __post_init__(self) -> None:
        check_fields(self, "window")
