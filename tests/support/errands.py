"""What tests of executors run in other processes: small, and quickly imported."""

import os
import signal
import sys
import time
from pathlib import Path

from simulator.errors import DeadlockError


def square(x):
    return x * x


def kill_odd(x):
    """Every odd task kills its process, in one of several ways."""
    if x % 4 == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if x % 4 == 3:
        os._exit(3)
    return x * x


def kill_once(path):
    """Return the processes that ran this, of which the first died."""
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n")
    if len(Path(path).read_text().split()) == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    return [int(pid) for pid in Path(path).read_text().split()]


def fail(how):
    if how == "deadlock":
        raise DeadlockError("1 waits for 2,\n  2 waits for 1")
    if how == "exit":
        sys.exit("enough")
    if how == "stack":
        return fail(how)
    if how == "unpicklable":
        return lambda: None
    if how == "unreadable":
        return Unreadable()
    return 1 / 0


def rebuild():
    raise RuntimeError("not today")


class Unreadable:
    def __reduce__(self):
        return rebuild, ()


class Absent:
    """A function that cannot be loaded where it is sent."""

    def __call__(self, task):
        return task

    def __reduce__(self):
        return rebuild, ()


def note(task):
    """Leave the id of the process in a file, and wait for one called ``go``."""
    folder, name = task
    (folder / f"{name}.tmp").write_text(str(os.getpid()))
    (folder / f"{name}.tmp").rename(folder / f"{name}.pid")
    while not (folder / "go").exists():
        time.sleep(0.01)
    return name


def log_alone(task):
    """Log start and end; the task called ``dies`` kills its process when the other has started."""
    folder, name = task
    log = folder / "log"
    with log.open("a") as file:
        file.write(f"start {name}\n")
    while "start other" not in log.read_text():
        time.sleep(0.01)
    if name == "dies" and log.read_text().count("start dies") < 2:
        os.kill(os.getpid(), signal.SIGKILL)
    while name == "other" and not (folder / "dead").exists():
        time.sleep(0.01)
    with log.open("a") as file:
        file.write(f"end {name}\n")
    return name
