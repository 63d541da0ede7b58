"""Executors: the same results from all of them, whatever dies, and nothing left behind."""

import contextlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from simulator.errors import ConfigError
from simulator.study.executors import Processes, Ray, Serial, executor_from
from simulator.support.crew import processes, supervisor
from simulator.support.crew.failure import Failure
from tests.support import errands

ROOT = Path(__file__).parents[2]


def until(condition, seconds=60):
    """Wait for a condition, and fail if it does not come true; return it."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "in vain"
        time.sleep(0.01)
    return value


def alive(pid):
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


children = multiprocessing.active_children


@pytest.fixture(autouse=True)
def nothing_left_behind():
    yield
    assert children() == []


# ---------------------------------------------------------------- results


@pytest.mark.parametrize("jobs", [1, 3])
def test_results_are_those_of_one_process(jobs):
    tasks = range(20)
    assert sorted(Processes(jobs=jobs).imap(errands.square, tasks)) == list(Serial().imap(errands.square, tasks))


def test_no_more_processes_than_tasks():
    results = Processes(jobs=64).imap(os.getpgid, [0, 0])
    next(results)
    assert len(children()) <= 2
    assert len(list(results)) == 1


def test_no_task_is_no_work():
    assert list(Serial().imap(errands.square, [])) == list(Processes(jobs=2).imap(errands.square, [])) == []


@pytest.mark.parametrize("executor", [Serial(), Processes(jobs=2)], ids=str)
def test_a_task_that_raises_is_a_failure_of_one_line(executor):
    reasons = dict(executor.imap(errands.fail, ["deadlock", "exit", "division", "stack"]))
    assert reasons["deadlock"] == Failure("1 waits for 2, 2 waits for 1")
    assert reasons["exit"] == Failure("SystemExit: enough")
    assert reasons["division"] == Failure("ZeroDivisionError: division by zero")
    assert reasons["stack"].reason.startswith("RecursionError: maximum recursion depth exceeded")


def test_what_cannot_be_sent_is_a_failure_of_that_task():
    tasks = ["unpicklable", "unreadable", lambda: 0, errands.Unreadable(), "division"]
    reasons = {tasks.index(task): result.reason for task, result in Processes(jobs=2).imap(errands.fail, tasks)}
    assert reasons[0].startswith("its result cannot be sent to another process: ")
    assert reasons[1] == "its result cannot be read: RuntimeError: not today"
    assert reasons[2].startswith("the task cannot be sent to another process: ")
    assert reasons[3] == "the task cannot be read in another process: RuntimeError: not today"
    assert reasons[4] == "ZeroDivisionError: division by zero"


def test_a_function_that_cannot_be_sent_or_loaded_is_refused():
    with pytest.raises(ConfigError, match=r"^what is to run cannot be sent to another process: "):
        Processes(jobs=2).imap(lambda task: task, [1])
    with pytest.raises(ConfigError, match=r"^what is to run cannot be loaded in another process: RuntimeError: not to"):
        list(Processes(jobs=2).imap(errands.Absent(), [1, 2, 3]))


def test_large_tasks_and_results_do_not_block_each_other():
    tasks = [bytes([i]) * 3_000_000 for i in range(6)]
    assert sorted(Processes(jobs=2).imap(bytes.upper, tasks)) == [(task, task.upper()) for task in tasks]


# ---------------------------------------------------------------- bounds


@pytest.mark.parametrize(("jobs", "n"), [(1, 7), (3, 40)])
def test_tasks_are_taken_as_there_is_room(jobs, n):
    taken = 0

    def tasks():
        nonlocal taken
        for i in range(n):
            taken += 1
            yield i

    for seen, (task, result) in enumerate(Processes(jobs=jobs).imap(errands.square, tasks())):
        assert result == task * task
        assert taken - seen <= 2 * jobs
    assert taken == n


def test_tasks_that_never_end_are_taken_one_by_one():
    def forever():
        i = 0
        while True:
            yield i
            i += 1

    with contextlib.closing(Processes(jobs=2).imap(errands.square, forever())) as results:
        assert sorted(next(results) for _ in range(5))[0] == (0, 0)


def test_an_exception_of_the_tasks_goes_to_the_caller():
    def tasks():
        yield 1
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        list(Processes(jobs=1).imap(errands.square, tasks()))


# ---------------------------------------------------------------- deaths


def test_tasks_that_kill_their_process_fail_and_all_others_complete():
    found = dict(Processes(jobs=2).imap(errands.kill_odd, range(5)))
    assert {task: result for task, result in found.items() if task % 2 == 0} == {0: 0, 2: 4, 4: 16}
    assert found[1] == Failure("its process died, twice: SIGKILL, as when memory runs out", died=True)
    assert found[3] == Failure("its process died, twice: exit code 3", died=True)


def test_a_task_whose_process_died_once_is_tried_again_in_another(tmp_path):
    [(_, pids)] = Processes(jobs=2).imap(errands.kill_once, [str(tmp_path / "runs")])
    assert len(set(pids)) == len(pids) == 2


def test_a_task_is_tried_again_alone(tmp_path):
    results = Processes(jobs=2).imap(errands.log_alone, [(tmp_path, "dies"), (tmp_path, "other"), (tmp_path, "later")])
    log = tmp_path / "log"

    # The other task goes on until the death was seen.
    original = supervisor.Crew._collect

    def collect(self, worker, job):
        original(self, worker, job)
        if self.suspects:
            (tmp_path / "dead").touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervisor.Crew, "_collect", collect)
        assert sorted(name for _, name in results) == ["dies", "later", "other"]
    lines = log.read_text().splitlines()
    again = len(lines) - 1 - lines[::-1].index("start dies")
    assert lines[again + 1] == "end dies"
    assert lines.index("end other") < again < lines.index("start later")
    assert Counter(lines) == Counter(
        {"start dies": 2, "end dies": 1, "start other": 1, "end other": 1, "start later": 1, "end later": 1}
    )


def test_any_worker_may_be_killed_from_outside(tmp_path):
    tasks = [(tmp_path, name) for name in "ab"]
    results = Processes(jobs=2).imap(errands.note, tasks)

    def pids():
        return [int(path.read_text()) for path in sorted(tmp_path.glob("?.pid"))]

    def kill():
        for pid in until(lambda: len(pids()) == 2 and pids()):
            os.kill(pid, signal.SIGTERM)
        (tmp_path / "go").touch()

    with ThreadPoolExecutor(1) as thread:
        killed = thread.submit(kill)
        assert sorted(name for _, name in results) == ["a", "b"]
        killed.result()


def test_a_worker_that_dies_while_idle_costs_no_task():
    results = Processes(jobs=2).imap(errands.square, pause := iter_with_deaths())
    assert sorted(results) == [(i, i * i) for i in range(6)]
    assert pause.gi_frame is None


def iter_with_deaths():
    for i in range(6):
        if i == 4:  # all that are alive now are idle, or as good as done
            for each in children():
                each.kill()
        yield i


def test_processes_that_cannot_start_are_told_in_one_line():
    code = (
        "from simulator.study.executors import Processes\n"
        "from simulator.errors import ConfigError\n"
        "try:\n    print(list(Processes(jobs=2).imap(abs, [1, 2])))\n"
        "except ConfigError as error:\n    print('refused:', error)\n"
    )
    script = ROOT / "build" / f"unguarded{os.getpid()}.py"
    script.parent.mkdir(exist_ok=True)
    script.write_text(code)
    try:
        done = run_python(str(script))
    finally:
        script.unlink()
    assert done.returncode == 0
    assert done.stdout == (
        "refused: a process could not start (exit code 1); a script that uses processes does so under "
        "'if __name__ == \"__main__\":'\n"
    )


def test_starts_that_are_killed_are_tried_again(monkeypatch):
    killed = []

    def fragile(self):
        worker = hire(self)
        if len(killed) < limit:
            killed.append(worker.process.pid)
            worker.process.kill()
        return worker

    hire = processes._Processes.hire
    monkeypatch.setattr(processes._Processes, "hire", fragile)
    limit = 2
    assert list(Processes(jobs=1).imap(errands.square, [3])) == [(3, 9)]
    killed.clear()
    limit = 99
    with pytest.raises(ConfigError, match=r"a process could not start \(SIGKILL"):
        list(Processes(jobs=1).imap(errands.square, [3]))
    assert len(killed) == 3


# ---------------------------------------------------------------- ends


def test_a_caller_that_stops_early_ends_the_workers(tmp_path):
    results = Processes(jobs=2).imap(errands.note, [(tmp_path, name) for name in "ab"])
    (tmp_path / "go").touch()
    next(results)
    workers = [each.pid for each in children()]
    assert workers
    results.close()
    assert not any(map(alive, workers))


PARENT = """
import sys
from pathlib import Path
from simulator.study.executors import Processes
from tests.support.errands import note
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    try:
        list(Processes(jobs=2).imap(note, [(folder, name) for name in "ab"]))
    except KeyboardInterrupt:
        print("stopped")
        sys.exit(130)
"""


INTERRUPT = """
import os, signal
from simulator.support.crew import processes
wait = processes.wait
def interrupt(*given):  # the first time that anybody waits, workers have hardly started
    os.killpg(0, signal.SIGINT)
    return wait(*given)
processes.wait = interrupt
"""


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT)}


def run_python(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], env=environment(), capture_output=True, encoding="utf-8", timeout=120, **options
    )


@pytest.fixture
def parent(tmp_path):
    """A process with two workers that are at work, in a process group of their own, and their ids."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    try:
        until(lambda: len(list(tmp_path.glob("?.pid"))) == 2 or process.poll() is not None)
        pids = [int(path.read_text()) for path in tmp_path.glob("?.pid")]
        assert len(pids) == 2
        yield process, pids
    finally:
        process.kill()
        process.communicate()


def test_ctrl_c_ends_everything_quietly(parent):
    process, pids = parent
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == ("stopped\n", "", 130)
    assert not any(map(alive, pids))


def test_ctrl_c_while_processes_start_is_as_quiet(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(INTERRUPT + PARENT)
    done = run_python(str(script), str(tmp_path), start_new_session=True)
    assert (done.stdout, done.stderr, done.returncode) == ("stopped\n", "", 130)


def test_workers_end_with_a_parent_that_is_killed(parent):
    process, pids = parent
    assert all(map(alive, pids))
    everyone = [each.pid for each in psutil.Process(process.pid).children(recursive=True)]
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: not any(map(alive, everyone)))


# ---------------------------------------------------------------- options


@pytest.mark.parametrize("jobs", [0, -1, True, 1.5, "2", None])
def test_jobs_are_counted_from_one(jobs):
    with pytest.raises(ConfigError, match="jobs must be a whole number from 1, got "):
        Processes(jobs=jobs)


@pytest.mark.parametrize(
    ("jobs", "ray", "wanted"),
    [
        (None, None, Serial()),
        (1, None, Serial()),
        (3, None, Processes(jobs=3)),
        (None, "local", Ray()),
        (1, "h:1", Ray("h:1", 1)),
    ],
)
def test_options_of_the_command_line(jobs, ray, wanted):
    assert executor_from(jobs, ray) == wanted


def test_options_out_of_range():
    for jobs in (0, -2, True):
        with pytest.raises(ConfigError, match="must be a whole number from 1"):
            executor_from(jobs)
    for address in ("", "head", "head:", "http://head:80", None, "head:6379\n"):
        with pytest.raises(
            ConfigError, match="a Ray address is 'local', 'auto', 'HOST:PORT' or 'ray://HOST:PORT', got"
        ):
            Ray(address=address)


def test_ray_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"needs ray: pip install 'forksim\[ray\]'"):
        next(Ray().imap(errands.square, [1]))


def test_executors_can_be_sent_themselves():
    for executor in (Serial(), Processes(jobs=3), Ray("auto", 4)):
        assert pickle.loads(pickle.dumps(executor)) == executor
