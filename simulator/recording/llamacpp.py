"""llama.cpp in this process: many sequences, one engine loop with continuous batching, every step timed.

A step decodes a token of each sequence that decodes, and beside that processes at most `max_prefill` prompt tokens,
first come first served. The step that processes a prompt's last token also yields a token. A worker shares the stored
context of its parent by reference (``llama_memory_seq_cp`` with a unified KV cache), so a Fork costs nothing.

Needs ``pip install 'forksim[llama]'``.
"""

from __future__ import annotations

import codecs
import ctypes
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from simulator.errors import ConfigError
from simulator.recording.engine import Began, Burst, Ended, Event, Failed, Generate, Key

__all__ = ["LlamaEngine", "Step"]

MAX_SEQUENCES = 256  # of llama.cpp


class Step(msgspec.Struct, frozen=True):
    """One engine step, and what it cost."""

    start: float
    """Seconds from the start of the run."""
    seconds: float
    """To the end of the step. Steps that follow each other leave no time between them."""
    wall: float
    """Seconds inside ``llama_decode``."""
    cpu: float
    """Seconds of CPU time of this process in it. Much less than `wall`: the machine was busy with something else."""
    decodes: int
    """Sequences that decoded a token."""
    decode_context: int
    """Tokens that these attended to, their own included."""
    prefill_tokens: int
    """Prompt tokens processed."""
    prefill_context: int
    """Tokens that these attended to, their own included."""
    kv_tokens: int
    """Tokens in the KV cache after the step, those that several sequences share counted once."""


@dataclass(eq=False)
class _Sequence:
    key: Key
    number: int
    parent: _Sequence | None
    shared: int
    tokens: list[int]
    """All of its context."""
    stored: int
    """How many of these have their keys and values in the cache."""
    given: int = 0
    """How many of the others were given, not sampled."""
    asked: Generate | None = None
    got: int = 0
    began: bool = False
    prompt: int = 0
    """Tokens of the context that the generation began with."""
    said: str = ""
    """Text of the generation."""
    text: Any = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))


class LlamaEngine:
    """A GGUF model in this process.

    Parameters
    ----------
    path : str
        The GGUF file.
    context : int
        Tokens that the KV cache holds, over all sequences.
    max_prefill : int
        Prompt tokens in a step at most, over all sequences.
    threads : int
        CPU threads.
    sequences : int
        Threads that may be open at once, at most 256.
    temperature : float
        Of sampling in free mode; 0 takes the likeliest token.
    seed : int
        Of sampling, and of the tokens that scripted prompts are made of.
    on_step : callable, optional
        Is handed each `Step`.

    Raises
    ------
    ConfigError
        If llama-cpp-python is not installed, or the model cannot be loaded.
    """

    counts_prompts = True

    def __init__(
        self,
        path: str,
        *,
        context: int = 8192,
        max_prefill: int = 128,
        threads: int = 1,
        sequences: int = 64,
        temperature: float = 0.0,
        seed: int = 0,
        on_step: Callable[[Step], None] | None = None,
    ) -> None:
        try:
            import llama_cpp
        except ImportError:
            raise ConfigError("recording in-process llama.cpp needs: pip install 'forksim[llama]'") from None
        for name, value, high in (
            ("context", context, 2**24),
            ("max_prefill", max_prefill, 2**16),
            ("threads", threads, 1024),
            ("sequences", sequences, MAX_SEQUENCES),
        ):
            if not 1 <= value <= high:
                raise ConfigError(f"{name} must be from 1 to {high}, got {value!r}")
        if not os.path.isfile(path):
            raise ConfigError(f"{path!r}: there is no such file; accepted is a GGUF file")
        self.on_step = on_step
        self.limit, self.max_prefill, self.temperature, self.seed = context, max_prefill, temperature, seed
        self._lib: Any = llama_cpp
        self._quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        if not self._model:
            raise ConfigError(f"{path!r}: llama.cpp cannot load it; accepted is a GGUF file of a model it knows")
        parameters = llama_cpp.llama_context_default_params()
        self._most = max_prefill + sequences  # tokens in a step
        parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = context, self._most, self._most
        parameters.n_seq_max, parameters.kv_unified, parameters.swa_full = sequences, True, True
        parameters.n_threads = parameters.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise ConfigError(f"{path!r}: llama.cpp cannot make a context of {context} tokens for it")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._words = llama_cpp.llama_vocab_n_tokens(self._vocabulary)
        self._batch = llama_cpp.llama_batch_init(self._most, 0, 1)
        self._all_numbers = sequences
        self.description: dict[str, Any] = {
            "engine": f"llama.cpp in-process (llama-cpp-python {llama_cpp.__version__}), {threads} CPU thread"
            + ("s" if threads > 1 else ""),
            "model": os.path.basename(path),
            "max_prefill": max_prefill,
        }
        self._warm_up()

    # ------------------------------------------------------------------ the engine's contract

    def reset(self, free: bool) -> None:
        """Begin a run: forget all threads, start the clock."""
        self._lib.llama_memory_clear(self._memory, True)
        self._sequences: dict[Key, _Sequence] = {}
        self._numbers = list(range(self._all_numbers - 1, -1, -1))
        self._active: list[_Sequence] = []  # those with a generation, in order of asking
        self._failed: list[Event] = []
        self._edge: float | None = None
        self._random = np.random.default_rng(self.seed)
        self._zero = time.perf_counter()

    def now(self) -> float:
        """Return the time."""
        return round(time.perf_counter() - self._zero, 6)

    @property
    def busy(self) -> bool:
        """Whether an event will come."""
        return bool(self._active or self._failed)

    def open(self, key: Key, parent: Key | None, shared: int) -> int:
        """Begin a thread on the first `shared` tokens of its parent's context."""
        above = self._sequences.get(parent) if parent is not None else None
        shared = min(shared, above.stored) if above is not None else 0
        if not self._numbers:
            # Without a number it cannot run; its first generation says so.
            self._sequences[key] = _Sequence(key, -1, None, 0, [], 0)
            return 0
        number = self._numbers.pop()
        tokens = above.tokens[:shared] if above is not None else []
        self._sequences[key] = _Sequence(key, number, above if shared else None, shared, tokens, shared)
        if shared and above is not None:
            self._lib.llama_memory_seq_cp(self._memory, above.number, number, 0, shared)
        return shared

    def context(self, key: Key) -> int:
        """Return the tokens of a thread that are stored: the one sampled last is not."""
        return self._sequences[key].stored

    def give(self, key: Key, tokens: int, text: str | None) -> int:
        """Append text, or so many tokens of no meaning."""
        one = self._sequences[key]
        new = self._any(tokens, not one.tokens) if text is None else self._tokenize(text, not one.tokens)
        one.tokens += new
        one.given += len(new)
        return len(new)

    def generate(self, key: Key, asked: Generate) -> None:
        """Begin a generation."""
        one = self._sequences[key]
        if one.number < 0:
            why = f"the engine has only {self._all_numbers} sequences; more threads were open at once"
            self._failed.append(Failed(key, self.now(), why))
            return
        if one.stored == len(one.tokens) and one.stored:
            # Nothing is new, as for a worker that shares all its prompt: the last token is processed again.
            one.stored -= 1
            one.shared = min(one.shared, one.stored)
            one.given = 1
            self._lib.llama_memory_seq_rm(self._memory, one.number, one.stored, -1)
        one.asked, one.got, one.began, one.said, one.prompt = asked, 0, False, "", len(one.tokens)
        self._active.append(one)

    def stop(self, key: Key, keep: int | None = None) -> str:
        """End the thread's generation. Tokens cannot be cut: what follows `keep` stays in the context."""
        one = self._sequences[key]
        if one.asked is not None:
            one.asked = None
            self._active.remove(one)
        return "" if keep is None else one.said[keep:]

    def close(self, key: Key) -> None:
        """End a thread."""
        one = self._sequences.pop(key, None)
        if one is None or one.number < 0:
            return
        if one.asked is not None:
            self._active.remove(one)
            one.asked = None
        self._lib.llama_memory_seq_rm(self._memory, one.number, -1, -1)
        self._numbers.append(one.number)

    def poll(self, until: float | None) -> Sequence[Event]:
        """Run one step if there is work, else wait."""
        if self._failed:
            events, self._failed = self._failed, []
            return events
        if self._active:
            return self._step()
        self._edge = None
        if until is not None:
            time.sleep(max(until - self.now(), 0.0))
        return ()

    def shut(self) -> None:
        """Free the model."""
        if self._context:
            self._lib.llama_batch_free(self._batch)
            self._lib.llama_free(self._context)
            self._lib.llama_model_free(self._model)
            self._context = self._model = None

    # ------------------------------------------------------------------ a step

    def _step(self) -> list[Event]:
        start = self.now() if self._edge is None else self._edge
        events: list[Event] = []
        while (short := self._kv() + sum(chunk for _, chunk in self._plan()) - self.limit) > 0:
            one = self._active.pop()  # the last come
            one.asked = None
            events.append(Failed(one.key, start, f"the KV cache of {self.limit} tokens is {short} tokens too small"))
        plan = self._plan()
        if not plan:
            return events
        decodes = [one for one, _ in plan if not one.given]
        decode_context = sum(one.stored + 1 for one in decodes)
        prefills = [(one, chunk) for one, chunk in plan if one.given]
        rows = self._fill(plan)
        wall, cpu = time.perf_counter(), time.process_time()
        status = self._lib.llama_decode(self._context, self._batch)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        if status:
            raise ConfigError(f"llama_decode failed with status {status}")
        sampled = []
        for one, chunk in plan:
            one.stored += chunk
            one.given = max(len(one.tokens) - one.stored, 0) if one.given else 0
            if not one.began:
                one.began = True
                events.append(Began(one.key, start))
            if one.stored == len(one.tokens):
                sampled.append((one, self._sample(one, rows[one.key])))
        self._edge = end = self.now()
        for one, token in sampled:
            events += self._took(one, token, end)
        if self.on_step:
            tokens = sum(chunk for _, chunk in prefills)
            attended = sum(m * (one.stored - m) + m * (m + 1) // 2 for one, m in prefills)
            self.on_step(
                Step(
                    start,
                    round(end - start, 6),
                    round(wall, 6),
                    round(cpu, 6),
                    len(decodes),
                    decode_context,
                    tokens,
                    attended,
                    self._kv(),
                )
            )
        return sorted(events, key=lambda event: event.key)

    def _plan(self) -> list[tuple[_Sequence, int]]:
        """Return which sequences the step works on, and on how many tokens of each."""
        plan = [(one, 1) for one in self._active if not one.given]
        left = self.max_prefill
        for one in self._active:
            if one.given and left:
                chunk = min(left, len(one.tokens) - one.stored)
                left -= chunk
                plan.append((one, chunk))
        return plan

    def _fill(self, plan: list[tuple[_Sequence, int]]) -> dict[Key, int]:
        """Write the batch; return the row of each sequence that yields a token."""
        batch, rows, row = self._batch, {}, 0
        for one, chunk in plan:
            for place in range(one.stored, one.stored + chunk):
                batch.token[row], batch.pos[row] = one.tokens[place], place
                batch.n_seq_id[row], batch.seq_id[row][0] = 1, one.number
                batch.logits[row] = place == len(one.tokens) - 1
                row += 1
            rows[one.key] = row - 1
        batch.n_tokens = row
        return rows

    def _sample(self, one: _Sequence, row: int) -> int:
        pointer = self._lib.llama_get_logits_ith(self._context, row)
        logits = np.ctypeslib.as_array(pointer, shape=(self._words,))
        assert one.asked is not None
        if one.asked.exact or not self.temperature:
            return int(logits.argmax())
        odds = np.exp((logits - logits.max()).astype(np.float64) / self.temperature)
        return int(self._random.choice(self._words, p=odds / odds.sum()))

    def _took(self, one: _Sequence, token: int, at: float) -> list[Event]:
        """Take in a sampled token."""
        asked = one.asked
        assert asked is not None
        one.tokens.append(token)
        one.got += 1
        over = None
        text = ""
        if not asked.exact:
            if self._lib.llama_vocab_is_eog(self._vocabulary, token):
                over = "eos"
            else:
                text = one.text.decode(self._piece(token))
        if one.got == asked.tokens:
            over = over or "length"
        one.said += text
        events: list[Event] = [Burst(one.key, at, text, 1)]
        if over:
            one.asked = None
            self._active.remove(one)
            events.append(Ended(one.key, at, over, one.got, one.prompt))
        return events

    def _kv(self) -> int:
        """Return how many tokens the cache holds."""
        needed: dict[_Sequence, int] = {}
        for one in self._sequences.values():
            at: _Sequence | None = one
            upto = one.stored
            while at is not None:
                needed[at] = max(needed.get(at, 0), upto)
                upto = min(upto, at.shared)
                at = at.parent
        return sum(max(upto - one.shared, 0) for one, upto in needed.items())

    def _warm_up(self) -> None:
        """Run a few steps that nobody sees: the first ones read the model from the disk."""
        on_step, self.on_step = self.on_step, None
        self.reset(free=False)
        self.open((0, 0), None, 0)
        self.give((0, 0), min(self.max_prefill, self.limit // 2), None)
        self.generate((0, 0), Generate(4, exact=True))
        while self.busy:
            self.poll(None)
        self.on_step = on_step
        self.reset(free=False)

    # ------------------------------------------------------------------ tokens

    def _any(self, tokens: int, first: bool) -> list[int]:
        """Return ordinary tokens, and first of all the one that begins a text where the model wants it."""
        lib, vocabulary = self._lib, self._vocabulary
        found: list[int] = []
        if first and tokens and lib.llama_vocab_get_add_bos(vocabulary):
            found.append(lib.llama_vocab_bos(vocabulary))
        while len(found) < tokens:
            token = int(self._random.integers(self._words))
            if not (lib.llama_vocab_is_control(vocabulary, token) or lib.llama_vocab_is_eog(vocabulary, token)):
                found.append(token)
        return found

    def _tokenize(self, text: str, first: bool) -> list[int]:
        data = text.encode(errors="replace")
        room = (ctypes.c_int32 * (len(data) + 8))()
        count = self._lib.llama_tokenize(self._vocabulary, data, len(data), room, len(room), first, False)
        return list(room[:count])

    def _piece(self, token: int) -> bytes:
        room = ctypes.create_string_buffer(256)
        count = self._lib.llama_token_to_piece(self._vocabulary, token, room, len(room), 0, False)
        return room.raw[: max(count, 0)]
