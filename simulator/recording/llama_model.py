"""The part of llama.cpp that a multi-sequence engine needs, through llama-cpp-python's low-level API."""

from __future__ import annotations

import ctypes
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.errors import ConfigError

MAX_SEQUENCES = 256
"""The most sequences of llama.cpp."""
_quiet: list[Any] = []  # what llama.cpp calls instead of writing to stderr; it may do so as long as the process lives


class LlamaModel:
    """A model with a KV cache that all its sequences share.

    Parameters
    ----------
    path : str
        The GGUF file.
    context : int
        Tokens of the cache.
    batch : int
        Tokens of a step at most.
    sequences : int
    threads : int
        CPU threads.

    Raises
    ------
    ConfigError
        If llama-cpp-python is not installed, or the model cannot be loaded.
    """

    def __init__(self, path: str, *, context: int, batch: int, sequences: int, threads: int) -> None:
        try:
            import llama_cpp
        except ImportError:
            raise ConfigError("recording in-process llama.cpp needs: pip install 'forksim[llama]'") from None
        if not os.path.isfile(path):
            raise ConfigError(f"{path!r}: there is no such file; accepted is a GGUF file")
        lib: Any = llama_cpp
        self._lib = lib
        self.version = str(lib.__version__)
        if not _quiet:
            _quiet.append(lib.llama_log_callback(lambda *_: None))
            lib.llama_log_set(_quiet[0], ctypes.c_void_p(0))
        lib.llama_backend_init()
        self._model = lib.llama_model_load_from_file(os.fsencode(path), lib.llama_model_default_params())
        if not self._model:
            raise ConfigError(f"{path!r}: llama.cpp cannot load it; accepted is a GGUF file of a model it knows")
        parameters = lib.llama_context_default_params()
        parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = context, batch, batch
        parameters.n_seq_max, parameters.kv_unified, parameters.swa_full = sequences, True, True
        parameters.n_threads = parameters.n_threads_batch = threads
        self._context = lib.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise ConfigError(f"{path!r}: llama.cpp cannot make a context of {context} tokens for it")
        self._memory = lib.llama_get_memory(self._context)
        self._vocabulary = lib.llama_model_get_vocab(self._model)
        self._words = int(lib.llama_vocab_n_tokens(self._vocabulary))
        self._batch = lib.llama_batch_init(batch, 0, 1)

    def clear(self) -> None:
        """Empty the cache."""
        self._lib.llama_memory_clear(self._memory, True)

    def share(self, source: int, target: int, tokens: int) -> None:
        """Let a sequence begin with the first tokens of another one, by reference."""
        self._lib.llama_memory_seq_cp(self._memory, source, target, 0, tokens)

    def forget(self, sequence: int, start: int) -> None:
        """Drop a sequence's tokens from `start` on."""
        self._lib.llama_memory_seq_rm(self._memory, sequence, start, -1)

    def fill(self, rows: list[tuple[int, int, int, bool]]) -> None:
        """Write the batch: token, position, sequence, and whether logits are wanted behind it."""
        batch = self._batch
        for row, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[row], batch.pos[row], batch.logits[row] = token, position, wanted
            batch.n_seq_id[row], batch.seq_id[row][0] = 1, sequence
        batch.n_tokens = len(rows)

    def decode(self) -> int:
        """Run the batch; return 0 if all went well."""
        return int(self._lib.llama_decode(self._context, self._batch))

    def logits(self, row: int) -> NDArray[np.float32]:
        """Return the logits behind a row of the batch."""
        pointer = self._lib.llama_get_logits_ith(self._context, row)
        return np.ctypeslib.as_array(pointer, shape=(self._words,))

    def ends(self, token: int) -> bool:
        """Whether a token ends a text."""
        return bool(self._lib.llama_vocab_is_eog(self._vocabulary, token))

    def any(self, tokens: int, random: np.random.Generator, first: bool) -> list[int]:
        """Return ordinary tokens; the `first` of a context is what the model wants there."""
        lib, vocabulary = self._lib, self._vocabulary
        found: list[int] = []
        if first and tokens and lib.llama_vocab_get_add_bos(vocabulary):
            found.append(int(lib.llama_vocab_bos(vocabulary)))
        while len(found) < tokens:
            token = int(random.integers(self._words))
            if not (lib.llama_vocab_is_control(vocabulary, token) or lib.llama_vocab_is_eog(vocabulary, token)):
                found.append(token)
        return found

    def tokenize(self, text: str, first: bool) -> list[int]:
        """Return the tokens of a text; the `first` of a context begins as the model wants it."""
        data = text.encode(errors="replace")
        size = len(data) + 8
        while True:
            room = (ctypes.c_int32 * size)()
            count = self._lib.llama_tokenize(self._vocabulary, data, len(data), room, size, first, False)
            if count >= 0:
                return list(room[:count])
            size = -count  # as many as it needs

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token."""
        room = ctypes.create_string_buffer(256)
        count = self._lib.llama_token_to_piece(self._vocabulary, token, room, len(room), 0, False)
        return room.raw[: max(count, 0)]

    def free(self) -> None:
        """Give back its memory. Twice is once."""
        if self._context:
            self._lib.llama_batch_free(self._batch)
            self._lib.llama_free(self._context)
            self._lib.llama_model_free(self._model)
            self._context = self._model = None
