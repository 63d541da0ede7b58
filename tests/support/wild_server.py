"""A server that misbehaves at random: no request is sure of an answer, and no answer of an end."""

from __future__ import annotations

import json
import random
import socket
import struct
import threading

HEAD = "HTTP/1.1 {status} X\r\nContent-Type: text/event-stream\r\nConnection: close\r\n{more}\r\n"
EVENT = {"choices": [{"index": 0, "text": "word", "delta": {"content": "word"}, "finish_reason": None}]}
END = {"choices": [{"index": 0, "text": "", "delta": {}, "finish_reason": "length"}]}
NASTY = [
    b"data: {no json\n\n",
    b'data: {"error": {"message": "\\u202e' + b"x" * 5000 + b'"}}\n\n',
    b"data: null\n\n",
    b'data: {"choices": 5}\n\n',
    b'data: {"choices": [{"text": 7}]}\n\n',
    b'data: {"choices": [], "usage": {"completion_tokens": -5, "prompt_tokens": 1e400}}\n\n',
    b'data: {"choices": [], "usage": {"completion_tokens": 99999999999999999999}}\n\n',
    b"data: " + b"[" * 100_000 + b"\n\n",
    b"\xff\xfe\x00\n\n",
    b"event: ping\r\rid: 3\n\n: comment\n\n",
    b"data: [DONE]\n\n",
    b"x" * 300_000,
    b'data: {"choices": [{"index": 0, "text": "\\ud800<FORK-1>q</FORK-1><JOIN-7>", "finish_reason": "stop"}]}\n\n',
]


class WildServer:
    """Answers as `random.Random(seed)` says; `answers` counts them."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.answers = 0
        self.closed = threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"

    def __enter__(self) -> WildServer:
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        self.socket.close()

    def _listen(self) -> None:
        while not self.closed.is_set():
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            seed = self.chance.random()
            self.answers += 1
            threading.Thread(target=self._quietly, args=(connection, random.Random(seed)), daemon=True).start()

    def _quietly(self, connection: socket.socket, chance: random.Random) -> None:
        try:
            self._answer(connection, chance)
        except (OSError, ValueError):
            pass  # the client has gone
        finally:
            connection.close()

    def _answer(self, connection: socket.socket, chance: random.Random) -> None:
        connection.settimeout(30)
        head, _, rest = self._until(connection, b"\r\n\r\n").partition(b"\r\n\r\n")
        path = head.split(b" ")[1].decode()
        sizes = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
        while sizes and len(rest) < sizes[0]:
            rest += connection.recv(1 << 16)
        mood = chance.random()
        if mood < 0.03:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset
            return
        if mood < 0.05:
            connection.sendall(chance.randbytes(chance.choice([1, 100, 100_000])))
            return
        if mood < 0.07:
            self.closed.wait(20)  # says nothing
            return
        if path == "/v1/models" or path == "/tokenize" or not json.loads(rest).get("stream"):
            good = {"data": [{"id": "wild"}], "count": 3, "choices": [], "usage": {"prompt_tokens": 3}}
            value = chance.choice([good] * 40 + [None, [], {"data": "x"}, {"data": [{}]}, {"count": "many"}, 7])
            self._send(connection, 200, json.dumps(value).encode(), chance)
            return
        if mood < 0.1:
            self._send(connection, chance.choice([400, 404, 429, 500, 503, 302, 204]), b'{"error": "no"}', chance)
            return
        self._stream(connection, chance, json.loads(rest).get("max_tokens", 5))

    def _stream(self, connection: socket.socket, chance: random.Random, wanted: int) -> None:
        connection.sendall(HEAD.format(status=200, more="").encode())
        count = chance.choice([wanted] * 12 + [0, 1, wanted * 3, 200_000])
        for _ in range(count):
            if chance.random() < 0.02:
                connection.sendall(chance.choice(NASTY))
            event = b"data: " + json.dumps(EVENT).encode() + b"\n\n"
            connection.sendall(event)
            if chance.random() < 0.01:
                self.closed.wait(chance.choice([0.01, 0.1, 10]))
        if chance.random() < 0.9:
            usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": count}}
            for value in (END, usage):
                connection.sendall(b"data: " + json.dumps(value).encode() + b"\n\n")
            connection.sendall(b"data: [DONE]\n\n")

    @staticmethod
    def _send(connection: socket.socket, status: int, data: bytes, chance: random.Random) -> None:
        size = len(data) + chance.choice([0] * 40 + [1, -1, 10**12])
        connection.sendall(HEAD.format(status=status, more=f"Content-Length: {size}\r\n").encode() + data)

    @staticmethod
    def _until(connection: socket.socket, end: bytes) -> bytes:
        data = b""
        while end not in data:
            got = connection.recv(1 << 16)
            if not got:
                raise ValueError("gone")
            data += got
        return data
