"""Executors on Ray: a real cluster of one machine. Run by tools/ray.sh, which installs ray; skipped without it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from simulator.errors import ConfigError
from simulator.study.executors import Ray, Serial
from simulator.support import own
from simulator.support.crew.failure import Failure
from tests.study.test_executors import alive, until
from tests.support import errands

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Ray's workers are started by its own processes: what they can import, they know from the environment."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield
    assert not ray.is_initialized()


@pytest.fixture
def cluster():
    """A cluster that the caller is connected to."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    assert ray.is_initialized()
    ray.shutdown()


def test_results_are_those_of_one_process():
    assert sorted(Ray(cpus=2).imap(errands.square, range(20))) == list(Serial().imap(errands.square, range(20)))


@pytest.mark.usefixtures("cluster")
def test_a_task_that_raises_is_the_failure_it_is_elsewhere():
    tasks = ["deadlock", "exit", "division"]
    assert sorted(Ray().imap(errands.fail, tasks)) == sorted(Serial().imap(errands.fail, tasks))


@pytest.mark.usefixtures("cluster")
def test_what_cannot_be_sent_is_a_failure_of_that_task():
    tasks = [errands.Unreadable(), iter_forever(), "unreadable", "unpicklable", "division"]
    reasons = {tasks.index(task): result.reason for task, result in Ray().imap(errands.fail, tasks)}
    assert reasons[0] == "the task cannot be read in another process: RuntimeError: not today"
    assert reasons[1].startswith("the task cannot be sent to another process: ")
    assert reasons[2] == "its result cannot be read: RuntimeError: not today"
    assert reasons[3].startswith("its result cannot be sent to another process: ")
    assert reasons[4] == "ZeroDivisionError: division by zero"


@pytest.mark.usefixtures("cluster")
def test_a_function_that_cannot_be_loaded_is_refused():
    with pytest.raises(ConfigError, match=r"^what is to run cannot be started on the Ray cluster: .*not today"):
        list(Ray().imap(errands.Absent(), [1, 2]))


@pytest.mark.usefixtures("cluster")
def test_tasks_that_kill_their_process_fail_and_all_others_complete():
    found = dict(Ray().imap(errands.kill_odd, range(5)))
    assert {task: result for task, result in found.items() if task % 2 == 0} == {0: 0, 2: 4, 4: 16}
    for task in (1, 3):
        assert found[task] == Failure("its process died, twice: ActorDiedError", died=True)


@pytest.mark.usefixtures("cluster")
def test_a_task_whose_process_died_once_is_tried_again_in_another(tmp_path):
    [(_, pids)] = Ray().imap(errands.kill_once, [str(tmp_path / "runs")])
    assert len(set(pids)) == len(pids) == 2


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(("cpus", "most"), [(None, 2), (1, 1)])
def test_tasks_are_taken_as_there_is_room(cpus, most):
    taken = 0

    def forever():
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = Ray(cpus=cpus, address="auto").imap(errands.square, forever())
    for seen in range(20):
        task, result = next(results)
        assert result == task * task
        assert taken - seen <= 2 * most + 1
    results.close()


QUIET = """
import sys
from simulator.study.executors import Ray
from tests.support.errands import kill_odd
for task, result in sorted(Ray(cpus=2).imap(kill_odd, range(4)), key=str):
    print(task, result if isinstance(result, int) else result.died)
"""


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT)}


def test_ray_says_nothing_of_its_own():
    done = subprocess.run(
        [sys.executable, "-c", QUIET], env=environment(), capture_output=True, encoding="utf-8", timeout=120
    )
    assert (done.stdout, done.stderr) == ("0 0\n1 True\n2 4\n3 True\n", "")


PARENT = """
import sys
from pathlib import Path
from simulator.study.executors import Ray
from tests.support.errands import note
folder = Path(sys.argv[1])
try:
    list(Ray(cpus=2).imap(note, [(folder, name) for name in "ab"]))
except KeyboardInterrupt:
    print("stopped")
    sys.exit(130)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_everything_ends_with_its_parent(tmp_path, how):
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
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
        if how == signal.SIGINT:
            os.killpg(process.pid, how)
            assert process.communicate(timeout=60) == ("stopped\n", "")
            assert process.returncode == 130
        else:
            process.kill()
        until(lambda: not any(map(alive, pids)))
    finally:
        process.kill()
        process.communicate()


def test_a_cluster_that_is_not_there_is_told_in_one_line():
    for address in ("auto", "127.0.0.1:1", "ray://[::1]:1", "127.0.0.1:99999"):
        with pytest.raises(ConfigError, match=r"^no Ray cluster at '") as caught:
            next(Ray(address).imap(errands.square, [1]))
        assert address in str(caught.value) and "\n" not in str(caught.value)


def iter_forever():
    yield


@pytest.mark.usefixtures("cluster")
def test_another_version_there_is_refused(monkeypatch):
    monkeypatch.setattr("simulator.support.crew.ray.VERSION", "9.9")
    with pytest.raises(ConfigError, match=r"forksim is 9\.9 here and 0\.1\.0 on the Ray cluster: install the same"):
        next(Ray("auto").imap(errands.square, [1]))


def test_own_pieces_are_sent_to_the_cluster(tmp_path, monkeypatch):
    monkeypatch.setattr(own, "_LOADED", {})
    (tmp_path / "mine.py").write_text("def triple(x):\n    return 3 * x\n")
    function = own.load_pieces(str(tmp_path / "mine.py")).triple
    (tmp_path / "mine.py").unlink()  # as on another machine
    assert sorted(Ray(cpus=1).imap(function, range(3))) == [(0, 0), (1, 3), (2, 6)]
