"""A bound on the time of each rollout: processes that are watched, and ended when a row takes too long.

Nothing less will do: a decoder, a token counter or a term of the caller's may hang in C code, where no exception and no
signal gets through. A watched process says after each row that it is alive. One that has been silent for too long is
killed, its row is taken for a bad one, and the chunk is scored again without it: so all other rows come out as they
would without a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Any

from simulator.errors import ConfigError, FormatError

__all__ = ["map_watched"]

START_SECONDS = 120.0
"""How long a process may take to start."""

Work = Callable[..., Any]


def map_watched(
    work: Work, chunks: Iterable[list[tuple[Any, Any]]], *, seconds: float, workers: int, context: BaseContext
) -> list[Any]:
    """Return ``work(chunk)`` of each chunk, where no row may take more than `seconds`.

    `work` must be picklable, and call the function given as ``beat`` after each row.
    """
    spare: SimpleQueue[_Watched] = SimpleQueue()
    watched = [_Watched(work, context, seconds) for _ in range(workers)]
    for each in watched:
        spare.put(each)

    def one(chunk: list[tuple[Any, Any]]) -> Any:
        process = spare.get()
        try:
            return process.score(chunk)
        finally:
            spare.put(process)

    try:
        with ThreadPoolExecutor(workers) as threads:
            return list(threads.map(one, chunks))
    finally:
        for each in watched:
            each.stop()


class _Watched:
    """One process at a time, started when it is needed."""

    def __init__(self, work: Work, context: BaseContext, seconds: float) -> None:
        self.work = work
        self.context = context
        self.seconds = seconds
        self.process: BaseProcess | None = None
        self.pipe: Connection[Any, Any] | None = None

    def start(self) -> Connection[Any, Any]:
        self.stop()
        mine, theirs = self.context.Pipe()
        process = self.context.Process(target=_serve, args=(theirs, self.work), daemon=True)  # type: ignore[attr-defined]
        process.start()
        theirs.close()
        self.process, self.pipe = process, mine
        if not mine.poll(START_SECONDS):
            raise ConfigError(f"a scoring process did not start within {START_SECONDS:g} s")
        try:
            mine.recv_bytes()
        except EOFError:
            raise ConfigError("a scoring process could not start; can the reward and the reader be pickled?") from None
        return mine

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None
        if self.pipe is not None:
            self.pipe.close()
            self.pipe = None

    def score(self, chunk: list[tuple[Any, Any]]) -> Any:
        chunk = list(chunk)
        while True:
            pipe = self.pipe or self.start()
            done = 0
            why = f"took more than {self.seconds:g} s"
            try:
                pipe.send(chunk)
                while pipe.poll(self.seconds):
                    answer = pipe.recv()
                    if answer is not None:
                        return answer
                    done += 1
            except (EOFError, ConnectionError):
                why = "ended the process that scored it"
            self.stop()
            if done >= len(chunk):
                raise ConfigError(f"{len(chunk)} scored rows were not handed over within {self.seconds:g} s")
            chunk[done] = (FormatError(why), None)


def _serve(pipe: Connection[Any, Any], work: Work) -> None:
    pipe.send_bytes(b"ready")
    while True:
        try:
            chunk = pipe.recv()
        except EOFError:
            return
        pipe.send(work(chunk, beat=lambda: pipe.send(None)))
