"""``forksim calibrate`` and ``forksim validate``: how true the clock is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from typing import Annotated, Any

import typer
from rich.table import Table

from simulator.cli.common import Input, Json, Paths, complain, picked, print_json, say, show, table, tell, wrote
from simulator.cli.options import Capacity, grouped
from simulator.cli.report import number, printable
from simulator.errors import ConfigError, FormatError
from simulator.fidelity import LAWS, Calibration, Errors, Validation, read_steps
from simulator.fidelity import calibrate as fit
from simulator.fidelity import calibrate_traces as fit_traces
from simulator.fidelity import validate as compare
from simulator.formats.native import detect
from simulator.machine.profiles import gpu_from_text
from simulator.support.files import atomic
from simulator.trace import Trace
from simulator.trace.protocol import Protocol

Where = Annotated[
    list[str] | None, typer.Option(metavar="KEY=PATTERN", help="Only runs whose meta matches, such as run=gemma-*.")
]

HELD_OUT = 'What is "held out" is predicted by a fit to the other runs. The 95 % are of what resampled runs give.'

VALIDATE_LEGEND = """\
An error is predicted / measured - 1, and the bias is its mean; mean, p50, p90, p95 and max are of its absolute
value. "repeats differ by" is the mean (and the largest) difference between recorded repeats of one query, relative
to their mean: no simulation can be expected to come closer than that."""


@dataclass(frozen=True)
class RecordedRuns:
    """Which recorded runs are looked at, and what ran them."""

    max_workers: Annotated[
        int | None,
        typer.Option(min=1, help="Of traces: workers of all queries that ran at once. Default: as recorded."),
    ] = None
    max_prefill_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Prompt tokens in a step at most. Default: as recorded, or as a profile says."),
    ] = None
    where: Where = None

    def chosen(self, records: Input) -> list[Trace]:
        """Return the traces that match ``--where``, at least one unless there is a fault to tell."""
        patterns = self.patterns()
        chosen = [trace for trace in records if all(_matches(trace, key, pattern) for key, pattern in patterns)]
        if not chosen and not records.unreadable:
            raise ConfigError("no trace matches --where" if patterns else "there is no trace")
        return chosen

    def patterns(self) -> list[tuple[str, str]]:
        """Return what ``--where`` says, as pairs."""
        return [_pattern(text) for text in self.where or ()]


@dataclass(frozen=True)
class Fitted:
    """The profile that a fit is written as."""

    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE", help="Profile to write, for --gpu: .toml.")
    ] = None
    source: Annotated[str, typer.Option(help="What was measured, and where; for the profile.")] = ""
    kind: Annotated[str, typer.Option(help="For the profile: measured (a real engine) or fitted.")] = "measured"
    max_num_seqs: Annotated[int | None, typer.Option(min=1, help="For the profile: most sequences in a batch.")] = None


@grouped
def calibrate(
    data: Annotated[
        list[str],
        typer.Argument(metavar="DATA...", help="Engine steps (CSV or JSON lines), or native traces with times."),
    ],
    law: Annotated[str, typer.Option(help=f"One of {', '.join(LAWS)}.")] = "split",
    *,
    profile: Fitted,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE", help="Picture of the fit to write: .png, .svg or .pdf.")
    ] = None,
    folds: Annotated[int, typer.Option(help="Parts that the runs are dealt into, for the held-out error.")] = 5,
    runs: RecordedRuns,
    json: Json = False,
) -> int:
    """Fit a cost model to timed engine steps or to recorded traces, and write it as a GPU profile."""
    out = profile.out
    if out is not None and not out.endswith(".toml"):
        raise ConfigError(f"--out writes a profile, whose name ends in .toml; got {out!r}")
    if profile.kind not in ("measured", "fitted"):
        raise ConfigError(f"--kind takes measured or fitted; got {profile.kind!r}")
    recorded = [_holds_traces(path) for path in data]
    if any(recorded):
        if not all(recorded):
            raise ConfigError("steps and traces cannot be fitted together")
        records = Input(data, None, "characters")
        limits: Any = {"max_workers": runs.max_workers, "max_prefill_tokens": runs.max_prefill_tokens}
        found = fit_traces(runs.chosen(records), law=law, folds=folds, **limits)
        for error in found.refused:
            records.refuse(error)
        code = records.exit_code
    else:
        rows: list[dict[str, Any]] = []
        code = 0
        patterns = runs.patterns()
        if any(key != "run" for key, _ in patterns):
            raise ConfigError("of steps, --where knows run=PATTERN only")
        for path in data:
            for row in read_steps(path):
                if isinstance(row, FormatError):
                    code = 2
                    complain(str(row))
                elif all(fnmatchcase(str(row["run"] or ""), pattern) for _, pattern in patterns):
                    rows.append(row if row["run"] is not None or len(data) == 1 else row | {"run": path})
        if not rows and code:  # which has been told
            return code
        if not rows and patterns:
            raise ConfigError("no step matches --where")
        found = fit(rows, law=law, folds=folds)
    if json:
        print_json(_calibration_record(found))
    else:
        _show_calibration(found)
    if out is not None:
        said = {"max_num_seqs": profile.max_num_seqs, "max_prefill_tokens": runs.max_prefill_tokens}
        engine = {name: limit for name, limit in said.items() if limit is not None}
        source = profile.source or ", ".join(data)
        text = found.profile(source=source, date=date.today(), kind=profile.kind, engine=engine)
        with atomic(out) as file:
            file.write(text)
        wrote(out, json)
    if plot is not None:
        from simulator import plots

        plots.save(plots.calibration(found), plot)
        wrote(plot, json)
    return code


def _holds_traces(path: str) -> bool:
    """Whether the first line of a file is a native trace. What cannot be read is told by whoever reads it."""
    if path == "-" or path.lower().endswith(".csv"):
        return False
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return detect(file.readline(1 << 16))
    except OSError:
        return False


def _show_calibration(found: Calibration) -> None:
    lines = table(f"{found.law} law", "seconds", "95 % from", "to")
    for each in found.parameters:
        lines.add_row(each.name, *(f"{value:.4g}" for value in each[1:]))
    show(lines)
    lines = table("error", *_ERRORS)
    what = found.what.removeprefix("engine ") + "s"
    _add(lines, f"{what}, held out", found.held_out_steps)
    if found.held_out_runs is not None:
        _add(lines, "runs, held out", found.held_out_runs)
    _add(lines, f"{what}, fitted", found.fitted_steps)
    show(lines)
    tell(found.describe())
    drift = f"; runs differ in speed by {_percent(found.drift)} (standard deviation)" if found.drift else ""
    tell(f"{_percent(found.outliers)} of the {what} count less, as something interrupted them{drift}")
    for note in found.notes:
        tell(note)
    tell(HELD_OUT)


def _calibration_record(found: Calibration) -> dict[str, Any]:
    return {
        "law": found.law,
        "steps": len(found.steps),
        "runs": len(found.steps.names),
        "parameters": [each._asdict() for each in found.parameters],
        "held_out_steps": found.held_out_steps._asdict(),
        "held_out_runs": found.held_out_runs and found.held_out_runs._asdict(),
        "fitted_steps": found.fitted_steps._asdict(),
        **picked(found, "folds", "outliers", "drift", "notes"),
    }


@grouped
def validate(
    traces: Paths,
    gpu: Annotated[str, typer.Option(help="A profile (see forksim gpus) or its .toml file; else as for forksim run.")],
    capacity: Capacity = None,
    *,
    runs: RecordedRuns,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE", help="Picture to write: .png, .svg or .pdf.")
    ] = None,
    rows: Annotated[int, typer.Option(min=0, help="Lines of the table of queries at most.")] = 40,
    json: Json = False,
) -> int:
    """Simulate recorded runs from what was asked, and compare with the recorded times."""
    source = Input(traces, None, "characters")
    chosen = runs.chosen(source)
    if not chosen:  # which has been told
        return source.exit_code
    found = compare(
        chosen,
        gpu=gpu_from_text(gpu),
        protocol=Protocol(capacity=capacity),
        max_workers=runs.max_workers,
        max_prefill_tokens=runs.max_prefill_tokens,
    )
    for error in found.refused:
        source.refuse(error)
    if json:
        for query in found.queries:
            print_json(query._asdict() | {"error": query.error})
        print_json({"summary": _validation_record(found)})
    else:
        _show_validation(found, rows)
    if out is not None:
        from simulator import plots

        plots.save(plots.validation(found), out)
        wrote(out, json)
    return source.exit_code


def _pattern(text: str) -> tuple[str, str]:
    key, equals, pattern = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--where takes KEY=PATTERN, such as run=gemma-*; got {text!r}")
    return key, pattern


def _matches(trace: Trace, key: str, pattern: str) -> bool:
    return key in trace.meta and fnmatchcase(str(trace.meta[key]), pattern)


def _show_validation(found: Validation, rows: int) -> None:
    if rows:
        lines = table("trace", "kind", "measured s", "predicted s", "error")
        lines.columns[0].overflow = "fold"
        for query in found.queries[:rows]:
            times = (number(query.measured), number(query.predicted))
            lines.add_row(printable(query.trace, 60), printable(query.kind, 20), *times, f"{100 * query.error:+.1f} %")
        show(lines)
    if len(found.queries) > rows:
        say(f"{len(found.queries) - rows:,} more (--rows and --json show all)\n")
    lines = table("latency", *_ERRORS, "repeats differ by")
    for kind in (*found.kinds()[:10], None) if len(found.kinds()) > 1 else (None,):
        _add(lines, printable(kind or "all queries", 20), found.errors(kind), _repeats(found.repeats(kind)))
    if found.runs is not None:
        _add(lines, "last answer of a run", found.runs, _repeats(found.run_repeats))
    show(lines)
    lines = table("time of all threads", "measured s", "predicted s", "bias", "mean error / latency")
    for each in found.classes():
        bias = f"{100 * (each.predicted / each.measured - 1):+.1f} %" if each.measured else "-"
        lines.add_row(each.name, number(each.measured), number(each.predicted), bias, _percent(each.mean))
    show(lines)
    if speedups := found.speedups():
        lines = table("speed-up over its sequential twin", "measured", "predicted", "error")
        for speedup in speedups:
            values = (number(speedup.measured), number(speedup.predicted), f"{100 * speedup.error:+.1f} %")
            lines.add_row(printable(speedup.trace, 60), *values)
        show(lines)
    tell(VALIDATE_LEGEND)


def _validation_record(found: Validation) -> dict[str, Any]:
    repeats, run_repeats = found.repeats(), found.run_repeats
    return {
        "latency": found.errors()._asdict(),
        "kinds": {kind: found.errors(kind)._asdict() for kind in found.kinds()},
        "repeats": repeats and repeats._asdict(),
        "runs": found.runs and found.runs._asdict(),
        "run_repeats": run_repeats and run_repeats._asdict(),
        "classes": [each._asdict() for each in found.classes()],
        "speedups": [each._asdict() | {"error": each.error} for each in found.speedups()],
        "refused": [str(error) for error in found.refused],
    }


_ERRORS = ("n", "mean", "bias", "p50", "p90", "p95", "max")


def _add(lines: Table, name: str, errors: Errors, *rest: str) -> None:
    sizes = (errors.p50, errors.p90, errors.p95, errors.max)
    signed = f"{100 * errors.bias:+.1f} %"
    lines.add_row(name, f"{errors.number:,}", _percent(errors.mean), signed, *map(_percent, sizes), *rest)


def _repeats(errors: Errors | None) -> str:
    return "-" if errors is None else f"{_percent(errors.mean)} ({_percent(errors.max)})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
