"""The modelled GPU, and several of them: what the hardware and its engine can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from simulator.errors import ConfigError
from simulator.machine.cost import CostModel, DecodeSteps, unit_of
from simulator.machine.routing import ROUTINGS, Routing, least_loaded
from simulator.support.checks import choose, whole

_ASKED = ("prefill_is_free", "step_seconds", "decode_seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class GPU:
    """What the hardware and its engine can do.

    >>> from simulator.machine.cost import LinearBatch
    >>> GPU(cost=LinearBatch(6e-3, 1e-5, 5e-8), max_num_seqs=256).max_num_seqs
    256
    """

    cost: CostModel = field(default_factory=DecodeSteps)
    """Seconds of a step. Default: the decode-step clock."""
    max_num_seqs: int | None = None
    """Works in a batch at most; more wait. None: no limit."""
    max_num_batched_tokens: int | None = None
    """Tokens in a step at most: one for each decoding request, the rest prompt tokens. None: no limit."""
    max_prefill_tokens: int | None = None
    """Prompt tokens in a step at most, beside the decodes: SGLang's ``chunked_prefill_size``. None: no limit."""
    num_kv_blocks: int | None = None
    """Blocks of KV memory. None: memory never runs out, and nothing in it is lost."""
    block_size: int = 16
    """Tokens in a block of KV memory."""
    prefix_caching: bool = True
    """Whether KV stays in memory, while there is room, for the next request with the same prefix."""
    name: str = ""

    def __post_init__(self) -> None:
        lacks = [name for name in _ASKED if not hasattr(self.cost, name)]
        if isinstance(self.cost, type) or lacks:
            what = "is a class, not one of its objects" if isinstance(self.cost, type) else f"lacks {', '.join(lacks)}"
            raise ConfigError(
                f"cost must be a cost model, such as LinearBatch(a=6e-3); {self.cost!r:.80} {what} (see CostModel)"
            )
        for name in ("max_num_seqs", "max_num_batched_tokens", "max_prefill_tokens", "num_kv_blocks"):
            whole(name, getattr(self, name), "from 1, or None for no limit")
        whole("block_size", self.block_size, "from 1 to 1,000,000", kind="a whole number of tokens")
        if self.num_kv_blocks and getattr(self.cost, "cache_seconds", None):
            raise ConfigError(
                "a cost with r counts all tokens in memory, and num_kv_blocks bounds them: give one of both"
            )
        if self.max_num_batched_tokens and (self.max_num_seqs or 1) > self.max_num_batched_tokens:
            raise ConfigError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) must be at least max_num_seqs"
                f" ({self.max_num_seqs}): each request needs a token a step"
            )


LONG_PROMPT = 1000
"""Prompt tokens of a query from which on it matters whether they are free: some 25 ms on an H100 with a model of 8B."""


def free_prompts(replicas: Sequence[GPU]) -> str | None:
    """Return what to say of long prompts where they take no time, and seconds are counted; None where they take some.

    >>> from simulator.machine.cost import LinearBatch
    >>> free_prompts([STEP_CLOCK]) is free_prompts([GPU(cost=LinearBatch(6e-3, p=1e-5))]) is None
    True
    >>> free_prompts([GPU(cost=LinearBatch(6e-3), name="mine")])
    'mine takes no time for prompts, and there are queries with more than 1,000 prompt tokens: a profile ...'
    """
    for gpu in replicas:
        if gpu.cost.prefill_is_free and unit_of(gpu.cost) == "seconds":
            return (
                f"{gpu.name or 'the cost model'} takes no time for prompts, and there are queries with more than"
                f" {LONG_PROMPT:,} prompt tokens: a profile whose name ends in -database or -engine charges for them"
            )
    return None


STEP_CLOCK = GPU(name="decode-step clock")
"""One token, one step, one second, any number of sequences: the paper's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Replicas of a model, and who goes where. A replica may be several GPUs in tensor parallel: see its profile.

    >>> from simulator.machine.cost import ConstantRate
    >>> Cluster(replicas=[GPU(cost=ConstantRate(50))] * 2 + [GPU(cost=ConstantRate(80))]).replicas[2].cost
    ConstantRate(tokens_per_second=80, overhead=0.0)
    """

    replicas: Sequence[GPU]
    """They need not be alike."""
    routing: Routing | str = least_loaded
    """Which replica a request goes to: a function, or the name of one of `ROUTINGS`."""

    def __post_init__(self) -> None:
        replicas = tuple(self.replicas) if isinstance(self.replicas, Sequence) else ()
        if not replicas or not all(isinstance(gpu, GPU) for gpu in replicas):
            raise ConfigError(f"replicas must be GPUs, at least one; got {self.replicas!r:.80}")
        if len({unit_of(gpu.cost) for gpu in replicas}) > 1:
            raise ConfigError("replicas must all take steps (DecodeSteps) or all take seconds")
        if len(replicas) > 1 and any(getattr(gpu.cost, "cache_seconds", None) for gpu in replicas):
            raise ConfigError("a cost with r counts all tokens in memory: it is for a single replica")
        if isinstance(self.routing, str):
            object.__setattr__(self, "routing", ROUTINGS[choose(self.routing, ROUTINGS, "routing")])
        if not callable(self.routing):
            raise ConfigError(f"routing must be a function or one of {', '.join(ROUTINGS)}; got {self.routing!r:.80}")
        object.__setattr__(self, "replicas", replicas)
