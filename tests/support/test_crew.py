"""The supervisor alone, with workers that live and die by lot: every task comes to one end, and to the right one."""

import os
import pickle
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import ConfigError
from simulator.support.crew import supervisor
from simulator.support.crew.backlog import Backlog
from simulator.support.crew.supervisor import Crew, Limit, Lost


class Worker:
    """Starts, works, gives signs of life and dies as `lot`, a function of what it is about to do, says."""

    def __init__(self):
        self.started, self.gone, self.task, self.signs = False, False, None, 0


class Transport:
    def __init__(self, data, room, lot):
        self.data, self.most, self.lot, self.hired = data, room, lot, []

    dumps = staticmethod(pickle.dumps)

    def room(self):
        return self.most

    def hire(self):
        assert sum(not worker.gone for worker in self.hired) < self.most
        self.hired.append(Worker())
        return self.hired[-1]

    def die(self, worker, how):
        worker.gone = True
        raise Lost(how, "no worker starts")

    def give(self, worker, message):
        assert worker.started and not worker.gone and worker.task is None
        if self.lot("idle"):
            self.die(worker, "lost while idle")
        worker.task, worker.signs = pickle.loads(message), 0

    def hear(self, worker):
        assert not worker.gone
        if not worker.started:
            if self.lot("start"):
                self.die(worker, "lost at the start")
            worker.started = True
            return b""
        task = worker.task
        if isinstance(task, tuple) and worker.signs < len(task[1]):  # a list of parts
            if task[1][worker.signs] == "bad":
                self.die(worker, "lost over a part")
            worker.signs += 1
            return b""
        if self.lot(task):
            self.die(worker, "lost at work")
        worker.task = None
        return pickle.dumps(("done", task))

    def wait(self, workers, seconds):
        assert workers, "nobody to wait for"
        return self.data.draw(st.lists(st.sampled_from(workers), min_size=1, unique=True))

    def end(self, workers, *, kill):
        for worker in workers:
            assert not worker.gone
            worker.gone = True


@settings(max_examples=200, deadline=None)
@given(data=st.data(), room=st.integers(1, 3), count=st.integers(0, 8), alone=st.booleans())
def test_each_task_comes_to_one_end(data, room, count, alone):
    killers = data.draw(st.dictionaries(st.integers(0, 7), st.integers(1, 2)))  # tasks, and how often each kills
    left = dict(killers)
    unlucky = data.draw(st.integers(0, 2))  # starts in all, and workers that die while idle

    def lot(what):
        nonlocal unlucky
        if what in ("start", "idle"):
            unlucky -= (strikes := unlucky > 0 and data.draw(st.booleans()))
            return strikes
        left[what] = left.get(what, 0) - 1
        return left[what] >= 0

    transport = Transport(data, room, lot)
    found = list(Crew(transport, Backlog(iter(range(count))), alone).results())
    assert sorted(task for task, _ in found) == list(range(count))
    for task, result in found:
        if killers.get(task, 0) >= 2:
            assert (result.died, result.reason) == (True, "its process died, twice: lost at work")
        else:
            assert result == ("done", task)
    assert all(worker.gone for worker in transport.hired)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), room=st.integers(1, 3), count=st.integers(0, 5))
def test_with_a_limit_the_culprit_is_taken_out_of_its_task(data, room, count):
    chunks = [[*data.draw(st.lists(st.sampled_from(["good", "bad"]), max_size=5))] for _ in range(count)]
    wanted = [["good" if part == "good" else "struck" for part in chunk] for chunk in chunks]

    def strike(task, row, cause):
        assert cause == "lost over a part"
        task[1][row] = "struck"

    transport = Transport(data, room, lambda what: False)
    crew = Crew(transport, Backlog(iter(enumerate(chunks))), limit=Limit(60, strike))
    assert sorted(result for _, result in crew.results()) == [("done", each) for each in enumerate(wanted)]


def test_a_crew_that_never_starts_gives_up():
    transport = Transport(None, 2, lambda what: True)
    transport.wait = lambda workers, seconds: workers[:1]
    with pytest.raises(ConfigError, match="no worker starts"):
        list(Crew(transport, Backlog(iter("ab"))).results())
    assert len(transport.hired) == supervisor._STARTS + 1


def test_silence_and_late_starts():
    late = Transport(None, 1, lambda what: False)
    late.wait = lambda workers, seconds: []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervisor, "_START_SECONDS", 0.0)
        with pytest.raises(ConfigError, match="did not start within"):
            list(Crew(late, Backlog(iter("a")), limit=Limit(60, print)).results())

    struck = []

    def strike(task, row, cause):
        struck.append((row, cause))
        task[1][row] = "struck"

    silent = Transport(None, 1, lambda what: False)
    silent.wait = lambda workers, seconds: [
        each for each in workers if each.task is None or each.task[1][each.signs : each.signs + 1] != ["hangs"]
    ]
    crew = Crew(silent, Backlog(iter([(0, ["good", "hangs", "good"])])), limit=Limit(0.01, strike))
    assert [result for _, result in crew.results()] == [("done", (0, ["good", "struck", "good"]))]
    assert struck == [(1, None)]


HELD_BACK = """
from multiprocessing import get_context
from simulator.support.crew.processes import _no_interrupts
see = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []), flush=True)"
if __name__ == "__main__":
    for _ in range(2):
        process = get_context("spawn").Process(target=exec, args=(see,))
        with _no_interrupts():
            process.start()
        process.join()
    exec(see)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_is_held_back_while_the_first_process_starts_too(tmp_path):
    """Python's resource tracker, which starts with the first, lets signals through that it was not told to."""
    path = tmp_path / "held_back.py"
    path.write_text(HELD_BACK)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=120, env=environment)
    assert (done.stdout.split(), done.stderr) == (["True", "True", "False"], "")
