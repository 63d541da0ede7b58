"""Ctrl-C and SIGTERM at chosen moments: one line, an exit code that says which, and no file half written."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Runs the command in a process that sends itself a signal at one of its imports, or at one of the lines it reads.
HIT = """
import io, os, signal, sys
what, moment, number = sys.argv[1], int(sys.argv[2]), getattr(signal, sys.argv[3])
sys.argv = ["forksim", *sys.argv[4:]]
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored in what runs the tests
count = 0

def hit():
    global count
    count += 1
    if count == moment:
        os.kill(os.getpid(), number)

class Importing:
    def find_spec(self, name, *_):
        guard = sys.modules.get("simulator.support.interrupts")
        if hasattr(guard, "raised") and what == "import":  # its last name: it is loaded
            hit()

class Lines(io.RawIOBase):
    def readable(self):
        return True
    def readinto(self, buffer):
        hit()
        line = b'{"output": "I think. <ANSWER>9</ANSWER>", "outcome": "correct"}\\n' if count < 5 else b""
        buffer[: len(line)] = line
        return len(line)

sys.meta_path.insert(0, Importing())
if what == "read":
    sys.stdin = io.TextIOWrapper(io.BufferedReader(Lines()))
from simulator.cli import main
main()
"""


def forksim(what, moment, number, *arguments):
    command = [sys.executable, "-c", HIT, what, str(moment), number, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def imports():
    """Return how many modules the command asks for once it answers Ctrl-C."""
    code = HIT.replace("from simulator.cli import main\nmain()\n", "from simulator.cli import main\nprint(count)\n")
    command = [sys.executable, "-c", code, "import", "0", "SIGINT"]
    return int(subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout)


def files(folder):
    """What is there but for pictures, each of which is whole."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".png")


@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_ctrl_c_while_modules_load(part):
    done = forksim("import", 1 + int(part * (imports() - 1)), "SIGINT", "gpus")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "forksim: interrupted\n")


@pytest.mark.slow
def test_ctrl_c_at_every_tenth_import():
    for moment in range(1, imports(), 10):
        done = forksim("import", moment, "SIGINT", "gpus")
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "forksim: interrupted\n"), moment


def test_a_program_that_imports_the_package_keeps_its_own_ctrl_c():
    code = "import signal, simulator; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); " + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "True\n"


@pytest.mark.parametrize("number, code, said", [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")])
@pytest.mark.parametrize("command", ["convert", "run", "score"])
def test_what_is_ended_while_it_writes_leaves_what_was_there(tmp_path, command, number, code, said):
    out = tmp_path / "out" / {"convert": "traces.jsonl", "run": "folder", "score": "scores.csv"}[command]
    out.parent.mkdir()
    if command != "run":
        out.write_text("what was there")
    before = files(out.parent)
    done = forksim("read", 3, number, command, "-", "--out", out)
    assert (done.returncode, done.stderr) == (code, f"forksim: {said}\n")
    assert files(out.parent) == before
    assert command == "run" or out.read_text() == "what was there"
    whole = forksim("read", 99, number, command, "-", "--out", out)
    assert whole.returncode == 0, whole.stderr
    assert files(out.parent) != before or out.read_text() != "what was there"
