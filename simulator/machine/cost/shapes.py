"""What a roofline is computed from: the shape of a model, and the datasheet of a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.errors import ConfigError
from simulator.support.checks import real, whole


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A decoder-only transformer with grouped-query attention and a gated MLP, as its config.json states it.

    Norms, biases and the router of a mixture of experts are left out: a thousandth of the weights or less.

    >>> qwen = ModelShape(layers=36, hidden=4096, heads=32, kv_heads=8, head_dim=128, intermediate=12288, vocab=151936)
    >>> round(qwen.parameters / 1e9, 2), qwen.kv_bytes_per_token
    (8.19, 147456.0)
    """

    layers: int
    hidden: int
    """Width of the residual stream (``hidden_size``)."""
    heads: int
    """Query heads (``num_attention_heads``)."""
    kv_heads: int
    """Key and value heads (``num_key_value_heads``)."""
    head_dim: int
    intermediate: int
    """Width of the MLP, or of one expert (``intermediate_size``, ``moe_intermediate_size``)."""
    vocab: int
    tied_embeddings: bool = False
    """Whether input and output embeddings are one matrix."""
    weight_bytes: float = 2.0
    """Bytes of a weight: 2 for bf16."""
    kv_bytes: float = 2.0
    """Bytes of an element of the KV cache."""
    experts: int = 1
    """Experts of a layer; 1: an ordinary MLP."""
    experts_per_token: int = 1
    """Experts that a token goes through."""

    def __post_init__(self) -> None:
        for name in ("layers", "hidden", "heads", "kv_heads", "head_dim", "intermediate", "vocab", "experts"):
            whole(f"ModelShape: {name}", getattr(self, name), "from 1 to 100,000,000")
        whole("ModelShape: experts_per_token", self.experts_per_token, f"from 1 to {self.experts}")
        for name in ("weight_bytes", "kv_bytes"):
            real(f"ModelShape: {name}", getattr(self, name), "from 0.125 to 8")
        if self.heads % self.kv_heads:
            raise ConfigError(f"ModelShape: heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")

    @property
    def attention_parameters(self) -> int:
        """Weights of the four projections, all layers."""
        return self.layers * self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)

    @property
    def expert_parameters(self) -> int:
        """Weights of one expert (or of the MLP), all layers: gate, up and down."""
        return self.layers * 3 * self.hidden * self.intermediate

    @property
    def head_parameters(self) -> int:
        """Weights of the output layer."""
        return self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All weights."""
        embeddings = self.head_parameters * (1 if self.tied_embeddings else 2)
        return self.attention_parameters + self.experts * self.expert_parameters + embeddings

    @property
    def kv_bytes_per_token(self) -> float:
        """Bytes that a token takes in the KV cache: a key and a value in every layer."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.kv_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Datasheet:
    """What the maker of a GPU promises for one of them.

    >>> h100 = Datasheet(memory_bandwidth=3.35e12, flops=989e12, memory=80e9, link_bandwidth=450e9)
    >>> round(h100.flops / h100.memory_bandwidth)   # operations per byte at which both take equally long
    295
    """

    memory_bandwidth: float
    """Bytes a second."""
    flops: float
    """Floating-point operations a second of dense bf16, without sparsity. A multiply and an add are two."""
    memory: float
    """Bytes."""
    link_bandwidth: float
    """Bytes a second that it sends to its neighbours, in one direction: half of what is printed for NVLink."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("memory_bandwidth", 1e6, 1e18),
            ("flops", 1e6, 1e21),
            ("memory", 1e6, 1e15),
            ("link_bandwidth", 1e6, 1e18),
        ):
            real(f"Datasheet: {name}", getattr(self, name), f"from {low:g} to {high:g}")
