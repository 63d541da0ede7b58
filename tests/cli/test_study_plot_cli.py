"""`forksim study plot`: which picture it draws, and what it says of bad input."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from simulator import plots
from simulator.cli import _run
from simulator.study import Arrivals, Hardware, Source, Study, run_in_folder

RATE, C = "arrivals.rate", "protocol.capacity"
STUDY = Study(
    traces={"a": Source(generate="batch", options={"workers": 2})},
    queries=6,
    replications=2,
    arrivals=Arrivals(kind="poisson", rate=1.0),
    cluster=Hardware(gpu="rate:100", max_num_seqs=4, dollars_per_gpu_hour=2.0),
    axes={C: [2, 4], RATE: [0.5, 1.0, 2.0]},
    metrics=("latency", "throughput", "cost_per_1000_queries", "makespan"),
    percentiles=(95.0,),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "out"
    run_in_folder(STUDY, path, parquet=False)
    return path


@pytest.fixture
def forksim(capsys, monkeypatch, tmp_path):
    """Runs `forksim study plot` in an empty folder; returns exit code, stdout, stderr and the axes that were saved."""
    monkeypatch.chdir(tmp_path)
    saved = []
    real = plots.save
    monkeypatch.setattr(plots, "save", lambda ax, path: saved.append(ax) or real(ax, path))

    def run(*arguments):
        saved.clear()
        code = _run(["study", "plot", *map(str, arguments)])
        return code, *capsys.readouterr(), saved[0] if saved else None

    return run


def title(ax):
    return ax.get_title(loc="left")


def lines(ax):
    return [artist for artist in ax.lines if artist.get_gid() == "line"]


def test_capacity_is_drawn_by_default(forksim, folder, tmp_path):
    code, out, err, ax = forksim(folder, "-o", "new/a.png")
    assert (code, out, err) == (0, "wrote new/a.png\n", "")
    assert (tmp_path / "new" / "a.png").read_bytes().startswith(b"\x89PNG")
    assert title(ax) == "mean latency by pool capacity c" and len(lines(ax)) == 3
    *_, ax = forksim(folder, "-o", "a.svg", "-x", RATE, "-m", "makespan", "--by", C)
    assert title(ax) == "makespan by arrival rate" and len(lines(ax)) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--kind", "knee"], "p95 latency against throughput"),
        (["--kind", "knee", "-x", RATE, "-m", "latency_mean", "--by", C], "mean latency against throughput"),
        (["-k", "heatmap"], "mean latency by pool capacity c and arrival rate"),
        (["-k", "heatmap", "-x", RATE, "-y", C, "-m", "throughput"], "throughput by arrival rate and pool capacity c"),
        (["-k", "pareto"], "p95 latency against cost per 1,000 queries"),
        (["-k", "pareto", "-x", "makespan", "-m", "latency_mean", "--by", C], "mean latency against makespan"),
    ],
)
def test_each_kind_of_picture(forksim, folder, options, said):
    code, _, err, ax = forksim(folder, "-o", "a.png", *options)
    assert (code, err, title(ax)) == (0, "", said)
    assert isinstance(ax.figure, Figure)


def test_points_are_chosen_by_their_values(forksim, folder):
    code, _, _, ax = forksim(folder, "-o", "a.png", "--where", f"{RATE}=2", "-x", C)
    assert code == 0 and len(lines(ax)) == 1
    *_, ax = forksim(folder, "-o", "a.png", "--where", f"{RATE}=0.5", "--where", f"{C}=4", "-x", C)
    assert lines(ax)[0].get_xdata().tolist() == [4]


def test_an_unfinished_study_is_drawn_and_told(forksim, tmp_path):
    def stop(task, outcome):
        if task.replication:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in_folder(STUDY, tmp_path / "half", parquet=False, each=stop)
    code, out, err, ax = forksim("half", "-o", "a.png")
    assert (code, out) == (0, "wrote a.png\n") and ax is not None
    assert err.startswith("forksim: 5 runs have not ended and are not in the picture")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-k", "knees"], "no kind of picture is called 'knees'; did you mean knee"),
        (["-x", "protocol.capcity"], "called 'protocol.capcity'; did you mean protocol.capacity"),
        (["-m", "latency"], "no metric of the table is called 'latency'; did you mean latency_"),
        (["-y", C], "-y is not for --kind capacity"),
        (["-k", "pareto", "--by", C, "--by", RATE], "--by takes one axis for pareto, got protocol.capacity, a"),
        (["-k", "heatmap", "--by", C], "--by is not for --kind heatmap"),
        (["-k", "heatmap", "-x", C], "a heat map needs -x and -y; the axes are protocol.capacity, arrivals.rate"),
        (["--where", C], "--where takes AXIS=VALUE; got 'protocol.capacity'"),
        (["--where", f"{C}=3"], "--where: protocol.capacity is never 3; it is 2, 4"),
        (["--where", "capacity=2"], "no axis of the study is called 'capacity'"),
        (["-o", "a.bmp"], "a picture is saved as .png, .svg, .pdf; got 'a.bmp'"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_said_in_one_line(forksim, folder, tmp_path, options, said):
    code, out, err, _ = forksim(folder, "-o", "a.png", *options)
    assert (code, out) == (2, "") and err.startswith("forksim: ") and said in err and err.count("\n") == 1
    assert not list(tmp_path.glob("a.*"))


def test_a_folder_without_results_is_said(forksim, tmp_path):
    code, _, err, _ = forksim(tmp_path, "-o", "a.png")
    assert code == 2 and "is no result folder" in err and err.count("\n") == 1
