"""llama.cpp in this process: many sequences, one engine loop with continuous batching, every step timed.

A step decodes a token of each sequence that decodes, and beside that processes at most `max_prefill` prompt tokens,
first come first served. The step that processes a prompt's last token also yields a token. A worker shares the stored
context of its parent by reference (``llama_memory_seq_cp`` with a unified KV cache), so a Fork costs nothing.

Needs ``pip install 'forksim[llama]'``.
"""

from __future__ import annotations

import codecs
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from simulator.errors import ConfigError
from simulator.recording.engine import Began, Burst, Ended, Event, Failed, Generate, Key
from simulator.recording.llama_model import MAX_SEQUENCES, LlamaModel


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
    ends_at_stops = False

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
        for name, value, high in (
            ("context", context, 2**24),
            ("max_prefill", max_prefill, 2**16),
            ("threads", threads, 1024),
            ("sequences", sequences, MAX_SEQUENCES),
        ):
            if not 1 <= value <= high:
                raise ConfigError(f"{name} must be from 1 to {high}, got {value!r}")
        self.on_step = on_step
        self.limit, self.max_prefill, self.temperature, self.seed = context, max_prefill, temperature, seed
        self._model = LlamaModel(
            path, context=context, batch=max_prefill + sequences, sequences=sequences, threads=threads
        )
        self._all_numbers = sequences
        self.description: dict[str, Any] = {
            "engine": f"llama.cpp in-process (llama-cpp-python {self._model.version}), {threads} CPU thread"
            + ("s" if threads > 1 else ""),
            "model": os.path.basename(path),
            "max_prefill": max_prefill,
        }
        self._warm_up()

    # ------------------------------------------------------------------ the engine's contract

    def reset(self, free: bool) -> None:
        """Begin a run: forget all threads, start the clock."""
        self._model.clear()
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
            self._model.share(above.number, number, shared)
        return shared

    def context(self, key: Key) -> int:
        """Return the tokens of a thread that are stored: the one sampled last is not."""
        return self._sequences[key].stored

    def give(self, key: Key, tokens: int, text: str | None) -> int:
        """Append text, or so many tokens of no meaning."""
        one = self._sequences[key]
        first = not one.tokens
        new = self._model.any(tokens, self._random, first) if text is None else self._model.tokenize(text, first)
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
            self._model.forget(one.number, one.stored)
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
        self._model.forget(one.number, 0)
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
        self._model.free()

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
        status = self._model.decode()
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
        rows, batch = {}, []
        for one, chunk in plan:
            last = len(one.tokens) - 1
            batch += [(one.tokens[at], at, one.number, at == last) for at in range(one.stored, one.stored + chunk)]
            rows[one.key] = len(batch) - 1
        self._model.fill(batch)
        return rows

    def _sample(self, one: _Sequence, row: int) -> int:
        logits = self._model.logits(row)
        assert one.asked is not None
        if one.asked.exact or not self.temperature:
            return int(logits.argmax())
        odds = np.exp((logits - logits.max()).astype(np.float64) / self.temperature)
        return int(self._random.choice(len(odds), p=odds / odds.sum()))

    def _took(self, one: _Sequence, token: int, at: float) -> list[Event]:
        """Take in a sampled token."""
        asked = one.asked
        assert asked is not None
        one.tokens.append(token)
        one.got += 1
        over = None
        text = ""
        if not asked.exact:
            if self._model.ends(token):
                over = "eos"
            else:
                text = one.text.decode(self._model.piece(token))
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
