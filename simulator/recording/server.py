"""Any OpenAI-compatible server: vLLM, SGLang, llama.cpp's own and others, over streaming HTTP.

A thread is a text that grows. Each generation sends all of it and streams what comes; the server's prefix cache, if it
has one, spares it the work. A burst is what one event holds, and its time is when it was received. The requests run on
an event loop in a thread of their own, so that no time is taken late because the protocol is at work.

Needs ``pip install 'forksim[record]'``.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Sequence
from queue import Empty, SimpleQueue
from typing import Any

import msgspec

from simulator.errors import ConfigError
from simulator.recording.answers import beginning, most_bytes, whole_answer
from simulator.recording.counting import counter
from simulator.recording.engine import Began, Burst, Ended, Event, Failed, Generate, Key
from simulator.recording.filler import Filler
from simulator.recording.sse import BadStream, Chunk, Events, chunk
from simulator.recording.texts import Text
from simulator.trace.tokens import by_characters

ASK_SECONDS = 60.0
"""How long a server may take to answer a question, from the request to its last byte."""
MAX_AT_ONCE = 1000
"""Events that are handled before deadlines are looked at again."""


class ServerEngine:
    """An OpenAI-compatible server.

    Parameters
    ----------
    url : str
        Such as ``http://127.0.0.1:8000``, with or without ``/v1``.
    model : str, optional
        As the server calls it; by default the first that it lists.
    chat : bool
        Whether to use ``/v1/chat/completions``. Then a thread's first text is the user's message, and the rest the
        beginning of the assistant's, which the server must be able to continue.
    api_key : str, optional
        Sent as a bearer token. It is in no message and no trace.
    body : dict
        More keys for each request. None takes one out that would be sent.
    temperature : float
        Of sampling.
    seed : int
        Of sampling, and of the words that scripted prompts are made of.

    Raises
    ------
    ConfigError
        If httpx is not installed, the URL is none, or the server cannot be asked for its models.
    """

    counts_prompts = False
    ends_at_stops = True

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        chat: bool = False,
        api_key: str | None = None,
        body: dict[str, Any] | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> None:
        try:
            import httpx
        except ImportError:
            raise ConfigError("recording from a server needs: pip install 'forksim[record]'") from None
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"a server is an address such as http://127.0.0.1:8000, got {url!r}")
        self._httpx = httpx
        self._root = url.rstrip("/").removesuffix("/v1")
        self._path = "/v1/chat/completions" if chat else "/v1/completions"
        self._chat, self._key, self._seed = chat, api_key, seed
        self._body = {"temperature": temperature, "seed": seed} | (body or {})
        self._events: SimpleQueue[tuple[int, Event]] = SimpleQueue()
        self._contexts: dict[Key, Text] = {}
        self._count = 0
        self._filler: Filler | None = None
        self._zero = time.perf_counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="forksim record", daemon=True)
        self._thread.start()
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
        try:
            self._client = httpx.AsyncClient(
                base_url=self._root,
                headers=headers,
                timeout=httpx.Timeout(None, connect=10.0),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
                trust_env=False,
                verify=url.startswith("https"),  # certificates take long to load, and http has none
            )
            self.model = model or self._first_model()
        except (httpx.InvalidURL, UnicodeError) as error:
            self._stop_loop()
            raise ConfigError(self._clean(f"{url!r} is no address of a server ({error})")) from None
        except BaseException:
            self.shut()
            raise
        self.description: dict[str, Any] = {
            "engine": f"OpenAI-compatible server, {self._path}",
            "model": self.model,
        }

    # ------------------------------------------------------------------ the engine's contract

    @property
    def busy(self) -> bool:
        """Whether an event will come."""
        return any(context.live for context in self._contexts.values())

    def reset(self, free: bool) -> None:
        """Begin a run: forget all threads, start the clock."""
        for key in list(self._contexts):
            self.close(key)
        if not free and self._filler is None:
            one = self._request(Generate(1, exact=True)) | {"stream": False}
            one.pop("stream_options", None)
            count = counter(
                self._ask, self.model, lambda text: (self._path, one | self._prompt([text])), chat=self._chat
            )
            if count is None:
                raise ConfigError(f"{self._root} counts no tokens: no /tokenize, and no usage in its completions")
            self._filler = Filler(count, self._seed)
        self._zero = time.perf_counter()

    def now(self) -> float:
        """Return the time."""
        return round(time.perf_counter() - self._zero, 6)

    def open(self, key: Key, parent: Key | None, shared: int) -> int:
        """Begin a thread on a prefix of its parent's text. Whether its keys and values are shared is the server's."""
        above = self._contexts.get(parent) if parent is not None else None
        self._contexts[key] = context = above.prefix(shared) if above is not None else Text()
        return context.tokens

    def context(self, key: Key) -> int:
        """Return the tokens in a thread's text."""
        return self._contexts[key].tokens

    def give(self, key: Key, tokens: int, text: str | None) -> int:
        """Append text, or words of so many tokens."""
        context = self._contexts[key]
        if text is None:
            assert self._filler is not None
            text, count = self._filler.text(tokens, first=not context.parts)
        else:
            count = by_characters(text)
        context.add(text, count)
        return count

    def generate(self, key: Key, asked: Generate) -> None:
        """Send a request."""
        context = self._contexts[key]
        self._count += 1
        context.live, context.said = self._count, []
        self._events.put((self._count, Began(key, self.now())))
        texts = [text for text, _ in context.parts]
        context.task = self._run(self._generation(key, self._count, asked, texts))

    def stop(self, key: Key, keep: int | None = None) -> str:
        """Close the request. Its text is cut off after `keep` characters, so nothing is left over."""
        context = self._contexts[key]
        if context.live:
            context.task.cancel()
            self._said(context, keep, len(context.said))
        elif context.fresh and keep is not None:
            text, tokens = context.parts[-1]
            context.parts[-1] = (text[:keep], tokens)
        return ""

    def close(self, key: Key) -> None:
        """End a thread."""
        context = self._contexts.pop(key, None)
        if context is not None and context.live:
            context.task.cancel()

    def poll(self, until: float | None) -> Sequence[Event]:
        """Wait for what the server says."""
        if until is None and not self.busy:
            return ()
        found: list[Event] = []
        try:
            item = self._events.get(timeout=None if until is None else max(until - self.now(), 0.0))
            for _ in range(MAX_AT_ONCE):
                found += self._current(*item)
                item = self._events.get_nowait()
            found += self._current(*item)
        except Empty:
            pass
        return found

    def shut(self) -> None:
        """Close all connections."""
        if self._loop.is_closed():
            return
        for key in list(self._contexts):
            self.close(key)
        self._run(self._end()).result(timeout=10)
        self._stop_loop()

    # ------------------------------------------------------------------ bookkeeping, in the caller's thread

    def _current(self, number: int, event: Event) -> list[Event]:
        """Return an event, unless its generation was stopped; keep the thread's text."""
        context = self._contexts.get(event.key)
        if context is None or context.live != number:
            return []
        if isinstance(event, Burst):
            context.said.append(event.text)
        elif isinstance(event, Ended):
            prompt = event.prompt_tokens
            if prompt is not None:
                event = Ended(event.key, event.at, event.reason, event.tokens, prompt, prompt - context.tokens)
                context.tokens = prompt
            self._said(context, None, len(context.said) if event.tokens is None else event.tokens)
        elif isinstance(event, Failed):
            self._said(context, None, len(context.said))
        return [event]

    def _said(self, context: Text, keep: int | None, tokens: int) -> None:
        text = "".join(context.said)[:keep]
        context.add(text, tokens)
        context.live, context.task, context.said, context.fresh = 0, None, [], True

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    def _clean(self, text: str) -> str:
        """Return a message without the key, in one line of bounded length."""
        text = text.replace(self._key, "***") if self._key else text
        return " ".join(text.split())[:300]

    # ------------------------------------------------------------------ requests, in the loop's thread

    async def _end(self) -> None:
        """End what runs in the loop."""
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.aclose()
        await self._loop.shutdown_asyncgens()

    async def _generation(self, key: Key, number: int, asked: Generate, texts: list[str]) -> None:
        """Stream one generation, and hand over what comes."""
        try:
            event = await self._streamed(key, number, asked, texts)
        except BadStream as error:
            event = Failed(key, self.now(), self._clean(str(error)))
        except self._httpx.HTTPError as error:
            what = type(error).__name__ + (f": {error}" if str(error) else "")
            event = Failed(key, self.now(), self._clean(f"the connection failed ({what})"))
        except Exception as error:  # nothing may be lost in another thread
            event = Failed(key, self.now(), self._clean(f"{type(error).__name__}: {error}"))
        self._events.put((number, event))

    async def _streamed(self, key: Key, number: int, asked: Generate, texts: list[str]) -> Event:
        said, counted, asked_which = "", 0, False
        prompt: int | None = None
        total: int | None = 0
        body = self._request(asked)
        while True:
            last = await self._stream(key, number, most_bytes(asked.tokens), body | self._prompt([*texts, said]))
            said += last.text
            prompt = last.prompt_tokens if prompt is None else prompt
            counted += 1
            total = None if total is None or last.completion_tokens is None else total + last.completion_tokens
            reason = last.finish_reason or "stop"
            if reason != "stop" or asked.missing is None:
                break
            stop = ">" if asked_which else last.stop or asked.missing(said)
            if said.endswith(stop):
                break
            # What its bursts do not account for is what it kept to itself.
            hidden = None if last.completion_tokens is None else max(last.completion_tokens - last.bursts, 0)
            self._events.put((number, Burst(key, self.now(), stop, hidden)))
            said += stop
            if stop.endswith(">"):
                break
            # Several Joins could have ended it: ask which. The answer is the index and the bracket.
            body, asked_which = body | {"max_tokens": 8, "stop": [">"]}, True
        if total is None and reason == "length" and counted == 1:
            total = asked.tokens  # as many as were asked for: it says so, though without a number
        kind = "length" if reason == "length" else "stop" if said.endswith(">") else "eos"
        return Ended(key, self.now(), kind, total, prompt)

    async def _stream(self, key: Key, number: int, most: int, body: dict[str, Any]) -> Chunk:
        """Stream one request, of `most` bytes at most; return its end, with all of its text."""
        events, texts, room = Events(), list[str](), most
        reason = stop = prompt = tokens = None
        before = 0
        async with self._client.stream("POST", self._path, json=body) as response:
            if response.status_code != 200:
                raise BadStream(f"HTTP {response.status_code}: {await beginning(response)}")
            async for received in response.aiter_bytes():
                at = self.now()
                room -= len(received)
                if room < 0:
                    raise BadStream(f"the server streams more than {most:,} bytes, and does not end")
                for data in events.feed(received):
                    if data == b"[DONE]":
                        if reason is None:
                            raise BadStream("the stream ended without a finish_reason")
                        return Chunk("".join(texts), reason, stop, prompt, tokens, len(texts))
                    part = chunk(data)
                    prompt = part.prompt_tokens if part.prompt_tokens is not None else prompt
                    tokens = part.completion_tokens if part.completion_tokens is not None else tokens
                    reason, stop = part.finish_reason or reason, part.stop or stop
                    if part.text:
                        count = None
                        if part.completion_tokens is not None:
                            count, before = max(part.completion_tokens - before, 0), part.completion_tokens
                        texts.append(part.text)
                        self._events.put((number, Burst(key, at, part.text, count)))
        if reason is None:
            raise BadStream("the server closed the stream before its end")
        return Chunk("".join(texts), reason, stop, prompt, tokens, len(texts))

    def _request(self, asked: Generate) -> dict[str, Any]:
        """Return a request but for its prompt."""
        body: dict[str, Any] = {"model": self.model, "max_tokens": asked.tokens, "stream": True}
        body["stream_options"] = {"include_usage": True}
        if asked.exact:
            body |= {"ignore_eos": True, "min_tokens": asked.tokens}
        elif asked.stops:
            # The first is what vLLM calls it, the second SGLang: a stop string stays in the text.
            body |= {"stop": list(asked.stops), "include_stop_str_in_output": True, "no_stop_trim": True}
        return {name: value for name, value in (body | self._body).items() if value is not None}

    def _prompt(self, texts: list[str]) -> dict[str, Any]:
        if not self._chat:
            return {"prompt": "".join(texts)}
        messages = [{"role": "user", "content": texts[0]}]
        said = "".join(texts[1:])
        if not said:
            return {"messages": messages}
        messages.append({"role": "assistant", "content": said})
        return {"messages": messages, "continue_final_message": True, "add_generation_prompt": False}

    # ------------------------------------------------------------------ questions to the server

    def _first_model(self) -> str:
        answer = self._ask("GET", "/v1/models", None)
        try:
            return str(answer["data"][0]["id"])
        except (KeyError, IndexError, TypeError):
            raise ConfigError(f"{self._root} lists no model; give --model NAME") from None

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        """Return a short answer, None where the server knows no such path."""
        try:
            answer = self._run(asyncio.wait_for(whole_answer(self._client, method, path, body), ASK_SECONDS)).result()
            return None if answer is None else msgspec.json.decode(answer)
        except (TimeoutError, BadStream) as error:
            what = str(error) or f"no whole answer within {ASK_SECONDS:g} s"
            raise ConfigError(self._clean(f"{self._root}{path}: {what}")) from None
        except self._httpx.HTTPError as error:
            message = f"{self._root} cannot be reached ({type(error).__name__}: {error})"
            raise ConfigError(self._clean(message)) from None
        except (ValueError, RecursionError):
            return None
