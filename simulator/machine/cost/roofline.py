"""The roofline: the time to move the bytes, or the time of the arithmetic, whichever is longer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from simulator.errors import ConfigError
from simulator.machine.cost.shapes import Datasheet, ModelShape
from simulator.support.checks import real, whole

TILE = 128
"""Prompt tokens for which an attention kernel reads the keys and values once (FlashAttention's block of queries)."""


@dataclass(frozen=True, slots=True)
class Roofline:
    """Seconds of a step from the model's shape and the GPU's datasheet.

    The roofline of Williams, Waterman and Patterson (2009, doi:10.1145/1498765.1498785), for each kind of kernel. A
    step is two kinds, and they run one after another, so their times add and each has a roof of its own::

        linear    = max(W / (alpha * B),  (2 * P * t + 2 * H * n) / (beta * F))
        attention = max(K * (context + t + prefill_context / 128) / (alpha * B),
                        4 * layers * heads * head_dim * (context + prefill_context) / (beta * F))
        network   = 2 * layers * (2 * (g - 1) / g * t * hidden * 2 / link + allreduce_seconds)
        seconds   = linear + attention + network + overhead

    with g GPUs of tensor parallelism, t = n + prefill_tokens, and per GPU: W bytes of weights that are read, P weights
    that each token is multiplied with, H those of the output layer, K bytes of KV cache a token; B bytes and F
    operations a second. One maximum over the whole step would let the arithmetic of a matrix product hide behind the
    KV reads of the attention that waits for its result, which is too optimistic. Prompt tokens go through the same
    kernels as decoding ones and so have no maximum of their own: they use the arithmetic that decoding leaves idle.

    W has all experts that some token chose: ``1 - (1 - k/E)**t`` of E if each token chooses k by chance. The network
    term is a ring all-reduce of bf16 activations after attention and after the MLP of each layer. The bytes of
    activations are not counted, nor the input embedding, of which a step reads one row per token.

    From the datasheet alone (`alpha` = `beta` = 1) this is a bound that no engine reaches: see docs/machine.md.

    >>> shape = ModelShape(layers=36, hidden=4096, heads=32, kv_heads=8, head_dim=128, intermediate=12288, vocab=151936)
    >>> h100 = Datasheet(memory_bandwidth=3.35e12, flops=989e12, memory=80e9, link_bandwidth=450e9)
    >>> [round(1000 * Roofline(shape, h100).step_seconds(n, n * 2048), 2) for n in (1, 8, 64, 512)]
    [4.61, 5.24, 10.29, 54.01]
    """

    monotone: ClassVar[bool] = True

    model: ModelShape
    gpu: Datasheet
    tensor_parallel: int = 1
    """GPUs that hold the model together."""
    alpha: float = 1.0
    """Share of the memory bandwidth that kernels reach."""
    beta: float = 1.0
    """Share of the arithmetic that kernels reach."""
    overhead: float = field(default=0.0, kw_only=True)
    """Seconds of the host per step: scheduling, sampling, launching."""
    allreduce_seconds: float = 0.0
    """Seconds that an all-reduce takes however little it sends. Not on any datasheet; 5 to 20 microseconds."""

    _weights: float = field(init=False, repr=False, compare=False)
    """Seconds to read what every step reads."""
    _experts: float = field(init=False, repr=False, compare=False)
    """Seconds to read all experts, if there are several."""
    _skipped: float = field(init=False, repr=False, compare=False)
    """Share of the experts that one token does not choose."""
    _token: float = field(init=False, repr=False, compare=False)
    """Seconds of arithmetic of a token."""
    _head: float = field(init=False, repr=False, compare=False)
    """Seconds of arithmetic of a token in the output layer."""
    _read: float = field(init=False, repr=False, compare=False)
    """Seconds to read or write a token of KV."""
    _attend: float = field(init=False, repr=False, compare=False)
    """Seconds of arithmetic for a token attended to."""
    _send: float = field(init=False, repr=False, compare=False)
    """Seconds on the network for a token."""
    _fixed: float = field(init=False, repr=False, compare=False)
    """Seconds of every step."""

    def __post_init__(self) -> None:
        if not isinstance(self.model, ModelShape):
            raise ConfigError(f"Roofline: model must be a ModelShape, got {self.model!r:.80}")
        if not isinstance(self.gpu, Datasheet):
            raise ConfigError(f"Roofline: gpu must be a Datasheet, got {self.gpu!r:.80}")
        whole("Roofline: tensor_parallel", self.tensor_parallel, "from 1 to 1,024")
        for name in ("alpha", "beta"):
            real(f"Roofline: {name}", getattr(self, name), "from 0.001 to 1")
        for name in ("overhead", "allreduce_seconds"):
            real(f"Roofline: {name}", getattr(self, name), "from 0 to 3600 seconds")
        model, g = self.model, self.tensor_parallel
        if model.heads % g:
            raise ConfigError(f"Roofline: tensor_parallel ({g}) must divide the {model.heads} heads")
        memory, flops = self.alpha * self.gpu.memory_bandwidth, self.beta * self.gpu.flops
        mixture = model.experts > 1
        expert = model.expert_parameters
        always = model.attention_parameters + model.head_parameters + (0 if mixture else expert)
        kv = -(-model.kv_heads // g) / model.kv_heads * model.kv_bytes_per_token  # whole heads, repeated if too few
        values = {
            "_weights": always * model.weight_bytes / g / memory,
            "_experts": expert * model.experts * model.weight_bytes / g / memory if mixture else 0.0,
            "_skipped": 1 - model.experts_per_token / model.experts,
            "_token": 2 * (model.attention_parameters + expert * model.experts_per_token) / g / flops,
            "_head": 2 * model.head_parameters / g / flops,
            "_read": kv / memory,
            "_attend": 4 * model.layers * model.heads * model.head_dim / g / flops,
            "_send": 2 * model.layers * 2 * (g - 1) / g * model.hidden * 2 / self.gpu.link_bandwidth,
            "_fixed": self.overhead + (2 * model.layers * self.allreduce_seconds if g > 1 else 0.0),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def prefill_is_free(self) -> bool:
        """False."""
        return False

    def _but_attention(self, n: int, tokens: int) -> float:
        memory = self._weights
        if self._experts:
            memory += self._experts * (1 - self._skipped**tokens)
        compute = self._token * tokens + self._head * n
        return (memory if memory > compute else compute) + self._send * tokens + self._fixed

    def step_seconds(self, n: int, context: int, prefill_tokens: int = 0, prefill_context: int = 0) -> float:
        """The formula."""
        tokens = n + prefill_tokens
        memory = self._read * (context + tokens + prefill_context / TILE)
        compute = self._attend * (context + prefill_context)
        return self._but_attention(n, tokens) + (memory if memory > compute else compute)

    def decode_seconds(self, n: int, context: int, k: int) -> float:
        """The formula summed. Context grows by `n` a step, so attention changes its roof at most once.

        The bound by memory starts higher, as it has the step's own tokens written too.
        """
        read, attend = self._read, self._attend
        steps = n * (k * (k - 1) // 2)
        memory = read * (k * (context + n) + steps)
        if attend <= read:  # all GPUs we know of: attention of a few tokens is bound by memory
            return k * self._but_attention(n, n) + memory
        # Arithmetic takes longer once (attend - read) * context exceeds read * n: after j steps.
        beyond = read * n / (attend - read) - context
        j = 0 if beyond < 0 else k if not n or beyond >= n * k else min(k, int(beyond / n) + 1)
        early = read * (j * (context + n) + n * (j * (j - 1) // 2))
        late = k - j
        attention = early + attend * (late * (context + j * n) + n * (late * (late - 1) // 2))
        return k * self._but_attention(n, n) + attention
