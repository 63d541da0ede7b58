"""NVIDIA's measured operator database, asked once and tabulated."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import Any

from simulator.errors import ConfigError
from simulator.machine.cost.table import MeasuredTable
from simulator.support.checks import real, whole

SEQUENCES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
CONTEXTS = (0, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
# Matrix products come in tiles of 256 tokens: one token more than a multiple takes up to a tenth longer.
TILES = tuple(256 * i + more for i in range(1, 17) for more in (0, 1))
PROMPTS = (
    1,
    16,
    32,
    48,
    64,
    80,
    96,
    112,
    128,
    160,
    192,
    224,
    *TILES,
    4608,
    5120,
    6144,
    7168,
    8192,
    10240,
    12288,
    16384,
)
CACHED = (0, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)


@dataclass(frozen=True, slots=True)
class AIConfigurator:
    """Step times from the operator database of ``aiconfigurator-core``, as a `MeasuredTable` made at first use.

    1 to 512 sequences of up to 131,072 tokens, prompts of up to 16,384 tokens a step; outside that it refuses. The
    database leaves out the host: 0.1 to 0.3 ms a step on an H100, more on several (see docs/validation.md).

    Needs ``pip install forksim[aiconfigurator]`` (x86-64 Linux). Making the table takes a second or a few, once a
    process.

    Examples
    --------
    ``AIConfigurator("Qwen/Qwen3-8B", "h100_sxm", overhead=5e-4).step_seconds(32, 32 * 2048)`` is 10.7 ms.
    """

    model: str
    """As on Hugging Face; one of those that come with the package."""
    system: str
    """Such as h100_sxm, h200_sxm, b200_sxm, a100_sxm, l40s."""
    backend: str = "vllm"
    """vllm, sglang or trtllm."""
    tensor_parallel: int = 1
    overhead: float = field(default=0.0, kw_only=True)
    """Seconds of the host per step, on top."""

    _table: MeasuredTable | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("model", "system", "backend"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise ConfigError(f"AIConfigurator: {name} must be a name, got {value!r}")
        whole("AIConfigurator: tensor_parallel", self.tensor_parallel, "from 1 to 1,024")
        real("AIConfigurator: overhead", self.overhead, "from 0 to 3600 seconds")
        if importlib.util.find_spec("aiconfigurator_core") is None:
            raise ConfigError("AIConfigurator needs aiconfigurator-core: pip install forksim[aiconfigurator]")

    @property
    def table(self) -> MeasuredTable:
        """The table itself."""
        if self._table is None:
            object.__setattr__(
                self, "_table", _tabulate(self.model, self.system, self.backend, self.tensor_parallel, self.overhead)
            )
        assert self._table is not None
        return self._table

    @property
    def prefill_is_free(self) -> bool:
        """False."""
        return False

    def step_seconds(self, n: int, context: int, prefill_tokens: int = 0, prefill_context: int = 0) -> float:
        """Look it up."""
        return self.table.step_seconds(n, context, prefill_tokens, prefill_context)

    def decode_seconds(self, n: int, context: int, k: int) -> float:
        """Look it up, summed."""
        return (self._table or self.table).decode_seconds(n, context, k)


@lru_cache(maxsize=64)
def _tabulate(model: str, system: str, backend: str, tensor_parallel: int, overhead: float) -> MeasuredTable:
    from aiconfigurator_core.sdk.engine import EngineHandle

    try:
        engine: Any = EngineHandle.compile(model, system, backend, tp_size=tensor_parallel)
        decode = [(n, c, engine.predict_decode_latency(n, c, 2) / 1000) for n, c in product(SEQUENCES, CONTEXTS)]
        prefill = [(m, c, engine.predict_prefill_latency(1, m + c, c) / 1000) for m, c in product(PROMPTS, CACHED)]
    except Exception as error:  # whatever its many layers raise: unknown names, and files that are not there
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"aiconfigurator-core has no step times for {model!r} on {system!r} with {backend!r}: {reason}"
        ) from error
    return MeasuredTable.from_rows(decode, prefill, overhead=overhead)
