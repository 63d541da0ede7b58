"""What a server may send: so many bytes, and no more."""

from __future__ import annotations

from typing import Any

from simulator.recording.sse import BadStream

MAX_ANSWER = 16 * 2**20
"""Bytes of an answer to a question, such as which models there are."""


def most_bytes(tokens: int) -> int:
    """Return how many bytes a server may stream for so many tokens: ten times what a wordy one needs.

    >>> most_bytes(100)
    1458176
    """
    return 2**20 + 4096 * tokens


async def whole_answer(client: Any, method: str, path: str, body: dict[str, Any] | None) -> bytes | None:
    """Return the bytes of an answer, None where it is not that all is well; `BadStream` where there are too many."""
    data = bytearray()
    async with client.stream(method, path, json=body) as response:
        if response.status_code != 200:
            return None
        async for received in response.aiter_bytes():
            data += received
            if len(data) > MAX_ANSWER:
                raise BadStream(f"an answer of more than {MAX_ANSWER:,} bytes")
    return bytes(data)


async def beginning(response: Any) -> str:
    """Return the beginning of an answer that is an error."""
    data = b""
    async for received in response.aiter_bytes():
        data += received
        if len(data) >= 1000:
            break
    return data[:1000].decode(errors="replace")
