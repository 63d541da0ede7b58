"""Studies on more than one core: what is gained, and what is spent on it.

    python benchmarks/bench_scale.py [--rounds N] [--runs N] [--queries N]

Runs one study in this process, in one and two processes, and on a local Ray cluster of one and two CPUs where ray is
installed. They take turns; of the rounds, the fastest of each counts, as on a machine that others use only that says
something. All tables must be the same. Then: what an empty task costs on each executor, what tasks and results weigh,
what the parent spends on a row, what a query leaves on the disk, what a worker takes to start and holds in memory.
"""

from __future__ import annotations

import argparse
import importlib.util
import pickle
import resource
import tempfile
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import psutil

from simulator.study import Arrivals, Hardware, Processes, Ray, Serial, Source, Study, run_in_folder, run_study
from simulator.study.inputs import compiled
from simulator.study.running import Result, RunKey, do_run, row_maker
from simulator.workload import generate

RATES = [0.5, 1.0, 2.0, 3.0]
EXECUTORS = {"this process": Serial(), "1 process": Processes(1), "2 processes": Processes(2)}
if importlib.util.find_spec("ray"):
    EXECUTORS |= {"Ray, 1 CPU": Ray(cpus=1), "Ray, 2 CPUs": Ray(cpus=2)}


def study_of(queries, runs):
    capacities = [2, 3, 4]
    return Study(
        traces={"math": Source(generate="asyncthink_math")},
        queries=queries,
        arrivals=Arrivals(kind="poisson", rate=1.0),
        cluster=Hardware(gpu="h100-qwen3-8b", max_num_seqs=64),
        metrics=("latency", "queueing_delay", "throughput", "utilization"),
        axes={"protocol.capacity": capacities, "arrivals.rate": RATES},
        replications=max(1, runs // (len(capacities) * len(RATES))),
        seed=1,
    )


def seconds_of(work):
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def speed(study, rounds):
    """Print the wall time of the study on each executor. A local Ray cluster is started before and kept."""
    best, tables = {}, {}
    for _ in range(rounds):
        for name, executor in EXECUTORS.items():
            with running(executor):
                taken, table = seconds_of(lambda executor=executor: run_study(study, executor=executor))
            best[name] = min(taken, best.get(name, taken))
            columns = {key: column.tolist() for key, column in table.columns.items()}
            tables[name] = repr(columns)
    runs = study.n_points * study.replications
    print(f"{runs} runs of {study.queries} queries, fastest of {rounds} rounds")
    for name, taken in best.items():
        base = best["Ray, 1 CPU" if name.startswith("Ray") else "1 process"]
        same = "same table" if tables[name] == tables["this process"] else "ANOTHER TABLE"
        print(f"  {name:<14}{taken:8.2f} s{runs / taken:8.2f} runs/s{base / taken:7.2f} x of one   {same}")


class running:
    """A Ray cluster that is there, so that its start, seconds, is not taken for work."""

    def __init__(self, executor):
        self.cpus = executor.cpus if isinstance(executor, Ray) else None

    def __enter__(self):
        if self.cpus:
            import ray

            ray.init(
                address="local", num_cpus=self.cpus, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
            )

    def __exit__(self, *_):
        if self.cpus:
            import ray

            ray.shutdown()


def overhead(count=2000):
    print(f"an empty task, of {count:,}; and the start, until the first result")
    for name, executor in EXECUTORS.items():
        with running(executor), closing(executor.imap(abs, range(count))) as results:
            start, _ = seconds_of(lambda results=results: next(results))
            taken, _ = seconds_of(lambda results=results: sum(1 for _ in results))
        print(f"  {name:<14}{taken / (count - 1) * 1e6:8.0f} us{start:10.2f} s")


def weights(study):
    task, point = RunKey(0, 0), study.point(0).study
    result = do_run(study, True, task)
    alone = Result(result.metrics, {})
    print("bytes to and from a worker")
    print(f"  the study, once {len(pickle.dumps(partial(do_run, study, False), 5)):10,}")
    print(f"  a task          {len(pickle.dumps(task, 5)):10,}")
    print(f"  a result        {len(pickle.dumps(alone, 5)):10,}")
    each = (len(pickle.dumps(result, 5)) - len(pickle.dumps(alone, 5))) / study.queries
    print(f"  and for each query that is kept {each:.1f}")

    prepare = fastest(lambda: (compiled.__globals__["_kept"].clear(), compiled(point, study.seed_of(0))))
    make = fastest(lambda: list(generate("asyncthink_math", study.queries, seed=1)))
    run = fastest(lambda: do_run(study, True, task))
    print("a run")
    print(f"  traces made and compiled {prepare:6.3f} s, {prepare / study.queries * 1e6:.0f} us a query")
    print(f"  of that, made            {make:6.3f} s, {make / study.queries * 1e6:.0f} us a query")
    print(f"  simulated and measured   {run:6.3f} s, {run / study.queries * 1e6:.0f} us a query")

    print("the parent, for each run")
    new = fastest(lambda: row_maker(study)(task, result))
    print(f"  making the row of a point that is new{new * 1e3:6.2f} ms")
    many = study.with_(replications=25)
    for queries in (False, True):
        with tempfile.TemporaryDirectory() as place:
            taken, journal, _ = in_folder(many, Path(place) / "out", queries)
        runs = many.n_points * many.replications
        kind = "rows and queries" if queries else "rows alone"
        print(f"  a row made and kept: {kind:<17}{taken * 1e3:6.2f} ms, journal {journal / runs:,.0f} bytes")


class Known:
    """An executor whose results are there at once: what remains is the parent's own work."""

    def __init__(self, result):
        self.result = result

    def imap(self, function, tasks, /, *, by=None):
        for task in tasks:
            yield task, self.result


def in_folder(study, place, queries):
    """Return seconds a row, bytes of the journal and seconds at the end, of a study whose runs cost nothing."""
    result = do_run(study, True, RunKey(0, 0))
    result = result if queries else Result(result.metrics, {})
    times, sizes = [], []

    def watch(task, outcome):
        times.append(time.perf_counter())
        sizes.append((place / "journal.jsonl").stat().st_size)

    run_in_folder(study, place, executor=Known(result), queries=queries, each=watch)
    end = time.perf_counter() - times[-1]
    return (times[-1] - times[0]) / (len(times) - 1), sizes[-1], end


def at_the_end(study):
    """Print what many rows take when the last run has ended."""
    peaks = []
    for replications in (250, 2500):
        many = study.with_(replications=replications)
        with tempfile.TemporaryDirectory() as place:
            end = in_folder(many, Path(place) / "out", False)[2]
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    runs = study.n_points * 2500
    print(f"tables of {runs:,} rows at the end")
    print(f"  {end / runs * 1e3:.2f} ms a row, {(peaks[1] - peaks[0]) / (runs * 0.9):,.0f} bytes of memory a row")


def on_disk(study):
    """Print what each query leaves on the disk, where queries are kept; these runs are real, and differ."""
    with tempfile.TemporaryDirectory() as place:
        table = run_in_folder(study.with_(replications=1), place, queries=True)
        kept = Path(place)
        parts = sum(path.stat().st_size for path in kept.glob("queries.*"))
    print(f"on the disk, where queries are kept: {parts / len(table) / study.queries:.1f} bytes a query")


def fastest(work, rounds=5):
    return min(seconds_of(work)[0] for _ in range(rounds))


def memory(study):
    """Print what a worker holds while it works."""
    work = partial(do_run, study, False)
    with closing(Processes(1).imap(work, [RunKey(0, 0), RunKey(1, 0)])) as results:
        next(results)
        [worker] = [each for each in psutil.Process().children() if "resource_tracker" not in " ".join(each.cmdline())]
        info = worker.memory_full_info()
        print("a worker that has run")
        print(f"  resident {info.rss / 2**20:.0f} MiB, of its own {info.uss / 2**20:.0f} MiB")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=24)
    parser.add_argument("--queries", type=int, default=300)
    options = parser.parse_args()
    study = study_of(options.queries, options.runs)
    speed(study, options.rounds)
    overhead()
    weights(study)
    at_the_end(study)
    on_disk(study)
    memory(study)


if __name__ == "__main__":
    main()
