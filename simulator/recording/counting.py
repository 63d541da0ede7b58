"""How many tokens a server makes of a text: asked of its tokenizer, or of a request for one token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Ask = Callable[[str, str, dict[str, Any] | None], Any]


def counter(
    ask: Ask, model: str, one: Callable[[str], tuple[str, dict[str, Any]]], *, chat: bool
) -> Callable[[str], int] | None:
    """Return what counts the tokens of a prompt, or None if nothing does.

    Parameters
    ----------
    ask : callable
        Sends a method, a path and a body; returns the answer, or None if there is none.
    model : str
    one : callable
        Path and body of a request that decodes one token after a text.
    chat : bool
        Whether only such a request knows, for the template adds tokens.

    >>> count = counter(lambda method, path, body: {"count": 3}, "m", lambda text: ("/v1/completions", {}), chat=False)
    >>> count("the of")
    3
    """

    def by_tokenizer(text: str) -> int | None:  # vLLM and SGLang take `prompt`, llama.cpp's server `content`
        answer = ask("POST", "/tokenize", {"model": model, "prompt": text, "content": text})
        return _whole(answer, "count") or (len(answer["tokens"]) if _has(answer, "tokens", list) else None)

    def by_count(text: str) -> int | None:  # llama-cpp-python's server
        return _whole(ask("POST", "/extras/tokenize/count", {"input": text}), "count")

    def by_usage(text: str) -> int | None:
        answer = ask("POST", *one(text))
        return _whole(answer["usage"], "prompt_tokens") if _has(answer, "usage", dict) else None

    for way in (by_usage,) if chat else (by_tokenizer, by_count, by_usage):
        if way("the of and") is not None:
            return lambda text, way=way: way(text) or 0  # type: ignore[misc]
    return None


def _has(answer: Any, key: str, kind: type) -> bool:
    return isinstance(answer, dict) and isinstance(answer.get(key), kind)


def _whole(answer: Any, key: str) -> int | None:
    return answer[key] if _has(answer, key, int) and 0 < answer[key] <= 10**9 else None
