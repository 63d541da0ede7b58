"""``forksim study``: what-if studies, run into a folder, shown, and checked row by row."""

from __future__ import annotations

import os
import re
from typing import Annotated

import numpy as np
import typer
from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn, TimeRemainingColumn

from simulator.cli.common import Json, complain, on_stderr, print_json, say, screen_width, show, tell, wrote
from simulator.cli.pieces import asked, with_imports
from simulator.cli.study_tables import Shown, comparison_table, study_table
from simulator.cli.studying_plot import plot
from simulator.errors import ConfigError
from simulator.study import Failure, Stored, Table, executor_from, load_results, load_study, rerun, run_in_folder
from simulator.study.inputs import unreadable
from simulator.study.store.folder import ResultFolder

app = typer.Typer(
    help="What-if studies: points of a parameter space, replications of each, one row per run.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Folder = Annotated[str, typer.Argument(metavar="DIR", help="A folder of results.")]
Metric = Annotated[
    list[str] | None, typer.Option("--metric", "-m", help="Columns to show, such as latency_p95. Default: what fits.")
]

_BAR = (
    "{task.description}",
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    "ETA",
    TimeRemainingColumn(),
)
"""How far a study is, and how long it will take."""


@app.command("run", short_help="Run a study into a folder.")
@with_imports
def run(
    study: Annotated[str, typer.Argument(metavar="STUDY.toml", help="A study file, see docs/studies.md.")],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder of results.",
            show_default="results/NAME",
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Processes that share the runs.", show_default="1")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="[ADDRESS]", help="Run on Ray: local, auto, HOST:PORT or ray://HOST:PORT; alone: local."),
    ] = None,
    queries: Annotated[bool, typer.Option("--queries", help="Keep one row per query as well.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Write CSV files, not Parquet.")] = False,
    metric: Metric = None,
    json: Json = False,
) -> int:
    """Run a study into a folder. Interrupted, in whatever way, the same command goes on where it ended."""
    if out == "":
        raise ConfigError("--out takes the name of a folder, got ''")
    given = load_study(study)
    given = given.with_(imports=tuple(dict.fromkeys((*given.imports, *asked(given.base)))))
    faults = unreadable(given)
    for fault in faults:
        complain(str(fault))
    path = out or os.path.join("results", _folder_name(given.name) or os.path.splitext(os.path.basename(study))[0])
    runs = given.n_points * given.replications
    ended = 0
    try:
        # What is done already says nothing of the speed: `reset` begins to count after it.
        with on_stderr(*_BAR) as progress:
            task = progress.add_task("runs", total=runs)

            def begun(folder: ResultFolder) -> None:
                nonlocal ended
                ended = len(folder.done)
                for note in folder.notes:
                    complain(note)
                if ended:
                    complain(f"{path}: {ended:,} of {runs:,} runs are done already")
                progress.reset(task, total=runs, completed=ended)

            def each(key: object, outcome: object) -> None:
                nonlocal ended
                ended += not isinstance(outcome, Failure)
                progress.advance(task)

            table = run_in_folder(
                given,
                path,
                executor=executor_from(jobs, ray),
                queries=queries,
                parquet=not csv,
                begun=begun,
                each=each,
            )
    except KeyboardInterrupt as end:
        raise type(end)(f"{ended:,} of {runs:,} runs are in {path}, the same command goes on") from None
    failed = _print(Stored(given, table, 0), metric, json)
    wrote(path, json)
    return 2 if failed or faults else 0


def _folder_name(name: str) -> str:
    """Return a study's name as a folder can have it.

    >>> _folder_name("which GPU?"), _folder_name("../x")
    ('which_GPU', 'x')
    """
    return "_".join(re.findall(r"[\w-]+", name))[:80]


@app.command("show", short_help="Show the results of a study.")
@with_imports
def show_results(folder: Folder, metric: Metric = None, json: Json = False) -> int:
    """Show the results of a study, also of one that is not finished."""
    stored = load_results(folder)
    failed = _print(stored, metric, json)
    if stored.damage:
        complain(f"{stored.damage}; forksim study run STUDY.toml -o {folder} does the missing runs again")
    return 2 if failed or stored.damage else 0


@app.command("rerun", short_help="Do one run again, and compare.")
@with_imports
def rerun_row(
    folder: Folder,
    point: Annotated[int, typer.Option(min=0, help="The row's point.")] = 0,
    replication: Annotated[int, typer.Option(min=0, help="The row's replication.")] = 0,
) -> int:
    """Do one run again, from what its row records, print its row, and compare."""
    stored = load_results(folder)
    rows = stored.table.where({"point": point, "replication": replication})
    if not len(rows):
        known = f"points 0 to {stored.study.n_points - 1}, replications 0 to {stored.study.replications - 1}"
        raise ConfigError(f"{folder} has no row of point {point}, replication {replication}; a whole one has {known}")
    before = next(rows.rows())
    after = rerun(before, stored.study)
    print_json(after)
    different = [name for name in before if repr(before[name]) != repr(after[name])]  # repr: NaN is NaN
    if after["error"] is not None and "error" in different:
        complain(str(after["error"]))
    if different:
        complain(f"{folder} has other values of {', '.join(different)}")
        return 2
    complain("the row is the same")
    return 0


app.command("plot", short_help="Draw the results of a study.")(with_imports(plot))


def _print(stored: Stored, metrics: list[str] | None, json: bool) -> int:
    """Print the tables of a study, and return how many runs failed."""
    study, table = stored.study, stored.table
    summary = table.summary()
    compared = None
    if study.baseline and len(table):
        try:
            compared = table.compare(study.baseline)
        except ConfigError:  # its runs have not ended
            if not stored.missing:
                raise
    metrics = [column for metric in metrics or () for column in _columns_of(table, metric)]
    if json:
        for row in summary.rows():
            print_json(row)
        for row in compared.rows() if compared else ():
            print_json({"compared_with": dict(study.baseline or {}), **row})
    elif len(table):
        _show(study_table(summary, study.name, metrics, screen_width()))
        if compared:
            _show(comparison_table(compared, study.baseline or {}, metrics, screen_width()))
    errors = [(row["point"], row["replication"], row["error"]) for row in table.rows() if row["error"] is not None]
    for point, replication, reason in errors[:20]:
        complain(f"point {point}, replication {replication} failed: {reason}")
    if len(errors) > 20:
        complain(f"and {len(errors) - 20:,} more failed: see the column error")
    for point, rows in table.points():
        lost = table["unanswered"][rows]
        if np.nansum(lost):
            low, high = np.nanmin(lost), np.nanmax(lost)
            each = f"{low:g} to {high:g}" if low < high else f"{low:g}"
            complain(f"point {point}: {each} queries of a run are never answered, and in no mean")
    if stored.missing:
        complain(f"{stored.missing:,} runs have not ended; forksim study run goes on")
    return len(errors)


def _columns_of(table: Table, metric: str) -> list[str]:
    """Return the columns that a name stands for: one of them, or all of a metric that has several, as ``latency``."""
    if metric in table.metrics:
        return [metric]
    if all_of_it := [name for name in table.metrics if name.rpartition("_")[0] == metric]:
        return all_of_it
    table[metric]  # which says what there is
    raise ConfigError(f"{metric} is no metric; there are {', '.join(table.metrics)}")


def _show(shown: Shown) -> None:
    tell(shown.title)
    show(shown.table)
    if shown.note:
        tell(shown.note)
        say()
