"""Write a GGUF model of the Llama shape with random weights: an engine to time, free of any licence.

    python tools/random_gguf.py FILE.gguf [LAYERS WIDTH VOCABULARY SEED]

Needs `pip install gguf`. The default is 12 layers of width 768 and 8,192 tokens: 98 million weights in Q8_0. What such
a model says means nothing; how long it takes is real.
"""

from __future__ import annotations

import sys

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from gguf.quants import quantize

HEAD = 64  # width of an attention head
WORDS = (
    "the of and to in is that it was for on are as with his they at be this from have or by one had not but what all"
)


def main(path: str, layers: int = 12, width: int = 768, vocabulary: int = 8192, seed: int = 0) -> None:
    """Write the file."""
    random = np.random.default_rng(seed)
    heads, kv_heads, inner = width // HEAD, width // HEAD // 3, (width * 8 // 3 + 63) // 64 * 64
    writer = GGUFWriter(path, "llama")
    writer.add_name("random weights")
    writer.add_context_length(32768)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HEAD)
    writer.add_vocab_size(vocabulary)

    tokens: list[bytes] = [b"<unk>", b"<s>", b"</s>", *(f"<0x{i:02X}>".encode() for i in range(256))]
    types = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.BYTE] * 256]
    pieces = [f"\u2581{word}" for word in WORDS.split()] + [chr(i) for i in range(33, 127)]
    pieces += [f"\u2581w{i}" for i in range(vocabulary)]
    pieces = list(dict.fromkeys(pieces))[: vocabulary - len(tokens)]
    tokens += [piece.encode() for piece in pieces]
    types += [TokenType.NORMAL] * len(pieces)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + [float(len(piece)) for piece in pieces])
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)

    def matrix(name: str, rows: int, columns: int) -> None:
        weights = random.standard_normal((rows, columns), dtype=np.float32) / np.sqrt(columns)
        kind = GGMLQuantizationType.Q8_0
        writer.add_tensor(name, quantize(weights, kind), raw_dtype=kind)

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(width, dtype=np.float32))

    matrix("token_embd.weight", vocabulary, width)
    for layer in range(layers):
        block = f"blk.{layer}"
        ones(f"{block}.attn_norm.weight")
        matrix(f"{block}.attn_q.weight", width, width)
        matrix(f"{block}.attn_k.weight", kv_heads * HEAD, width)
        matrix(f"{block}.attn_v.weight", kv_heads * HEAD, width)
        matrix(f"{block}.attn_output.weight", width, width)
        ones(f"{block}.ffn_norm.weight")
        matrix(f"{block}.ffn_gate.weight", inner, width)
        matrix(f"{block}.ffn_up.weight", inner, width)
        matrix(f"{block}.ffn_down.weight", width, inner)
    ones("output_norm.weight")
    matrix("output.weight", vocabulary, width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 6:
        sys.exit(__doc__)
    main(sys.argv[1], *map(int, sys.argv[2:]))
