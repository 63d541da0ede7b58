"""Fills a result folder, for the tests that kill it: `python -m tests.support.fill_folder PATH RUNS [POINT]`.

With POINT it kills itself at that file operation, halfway through if it is a write. Each run that was added is printed.
With `each` a child does so at each operation in turn, in a folder of its own, until one survives.
"""

import errno
import os
import signal
import sys
from contextlib import contextmanager

import numpy as np

from simulator.study.store import folder, journal
from simulator.study.store.folder import ResultFolder
from simulator.support import files

IDENTITY = {"name": "knee", "protocol": {"capacity": 4}}
TEXTS = ["plain", "2", 'say "a, b"', "two\nlines", "ü\udc80", "", None]


def row(key):
    return {
        "point": key // 2,
        "replication": key % 2,
        "routing": TEXTS[key % len(TEXTS)],
        "latency": np.float64(1 / (key + 1)) if key % 3 else float("nan"),
        "answered": key,
    }


def queries(key):
    count = key % 4
    return {
        "trace": np.array([TEXTS[(key + i) % len(TEXTS)] for i in range(count)], dtype=object),
        "latency": np.arange(count) / (key + 1),
        "tokens": np.arange(count) * key,
    }


def fill(path, runs, *, keys=None, **options):
    """Add the runs that are missing, of `keys` in their order, and finish if that is all of them."""
    with ResultFolder(path, IDENTITY, keys=runs, **options) as results:
        for key in range(runs) if keys is None else keys:
            if key not in results.done:
                results.add(key, row(key), queries(key))
                yield key
        if len(results.done) == runs:
            results.finish(("point", "replication"), tags=("point",))


def filled(path, runs, **options):
    """Fill a folder, and return what its files hold, by name."""
    for _ in fill(path, runs, **options):
        pass
    return content(path)


def content(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir()) if file.name != ".lock"}


class Saboteur:
    """Stands in for `os` and `open` in the modules that write, and calls `act` at operation number `point`."""

    OPERATIONS = ("write", "fsync", "ftruncate", "replace", "unlink", "open", "makedirs", "listdir", "chmod", "lseek")

    def __init__(self, point, act):
        self.point = point
        self.act = act
        self.count = 0

    def __getattr__(self, name):
        actual = getattr(os, name)
        if name not in self.OPERATIONS:
            return actual

        def operation(*given, **named):
            self.step(lambda: name == "write" and actual(given[0], bytes(given[1])[: len(given[1]) // 2]))
            return actual(*given, **named)

        return operation

    def step(self, halfway=lambda: None):
        self.count += 1
        if self.count == self.point:
            halfway()
            self.act()

    def opened(self, *given, **named):
        self.step()
        return Sabotaged(open(*given, **named), self)

    @contextmanager
    def at_work(self):
        journal.os, files.os, folder.os, files.open = self, self, self, self.opened
        try:
            yield self
        finally:
            journal.os, files.os, folder.os = os, os, os
            del files.open


class Sabotaged:
    """A file whose writes and flushes are operations too."""

    def __init__(self, file, saboteur):
        self.file = file
        self.saboteur = saboteur

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def write(self, data):
        self.saboteur.step(lambda: self.file.write(data[: len(data) // 2]) and self.file.flush())
        return self.file.write(data)

    def flush(self):
        self.saboteur.step()
        self.file.flush()

    def close(self):
        if not self.file.closed:
            try:
                self.saboteur.step()  # what was not flushed is written here
            finally:
                self.file.close()


def full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def filling(path, runs, point, **options):
    with Saboteur(point, die).at_work():
        for key in fill(path, runs, queries=True, **options):
            print(key, flush=True)


def each_point(path, runs):
    """Return how many children were killed."""
    os.fsync = lambda handle: None  # it outlives a killed process anyhow
    point = 0
    while True:
        point += 1
        child = os.fork()
        if child == 0:
            filling(
                os.path.join(path, str(point)), runs, point, parquet=False
            )  # pyarrow has threads, which do not fork
            os._exit(0)
        if os.WIFEXITED(os.waitpid(child, 0)[1]):
            return point - 1


if __name__ == "__main__":
    path, runs, point = sys.argv[1:]
    try:
        if point == "each":
            print("killed", each_point(path, int(runs)))
        else:
            filling(path, int(runs), int(point))
    except ValueError as error:
        sys.exit(str(error))
