"""``forksim plan``: the smallest cluster that keeps objectives, the highest load, and what a rollout step wastes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Annotated, Any, Literal

import typer
from rich.progress import SpinnerColumn, TimeElapsedColumn
from rich.text import Text

from simulator.cli.common import Json, complain, on_stderr, picked, print_json, say, show, table, tell
from simulator.cli.options import grouped
from simulator.cli.ranges import named_values, searched
from simulator.cli.report import printable
from simulator.errors import ConfigError
from simulator.planning import (
    Alternative,
    Found,
    Objective,
    Rules,
    StepPlan,
    Trial,
    changes_of,
    cheapest,
    compare,
    parse_objectives,
    plan_step,
)
from simulator.planning.questions import MOST_BACKLOG, priced
from simulator.planning.verdicts import BACKLOG
from simulator.planning.wording import figure, figure_or_text, sentences
from simulator.study import Study, load_study
from simulator.study.executors import executor_from
from simulator.study.inputs import unreadable

LEGEND = """\
The brackets hold the interval that the verdict goes by. It is wide enough for all verdicts to hold together.
"occupancy" is how full the GPUs are on average: the share of the places in the batch, or of the KV memory, that is
taken, whichever is larger. "left over" is the share of the arrivals by which the number of open queries grows. The
answer is marked with "<"."""

STEP_LEGEND = """\
"tail after 90 %" is the share of the makespan that is left when nine tenths of the queries are answered. "idle" is
the share of the makespan in which a replica has no step under way. The intervals of "saved" are those of the paired
difference, each by itself. "tokens cut" are never decoded, because a worker was stopped at its cap; what its answer
would then have been is not known. "longest first" asks the queries in the order of their critical paths, which only
an oracle could do."""


@dataclass(frozen=True)
class Searched:
    """What is searched, and what must hold."""

    slo: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OBJECTIVE", help="What must hold, such as 'p95 < 10 s' or 'throughput >= 5'; repeatable."
        ),
    ] = None
    smallest: Annotated[
        str | None, typer.Option(metavar="NAME=RANGE", help="Find the smallest value, as cluster.replicas=1..64.")
    ] = None
    highest: Annotated[
        str | None, typer.Option(metavar="NAME=RANGE", help="Find the highest value, as arrivals.rate=0.1..50.")
    ] = None
    alternatives: Annotated[
        list[str] | None,
        typer.Option("--for", metavar="NAME=VALUES", help="Answer for each of these, as cluster.gpu=a,b; repeatable."),
    ] = None
    confidence: Annotated[float, typer.Option(help="Probability that all verdicts of the search are right.")] = 0.95
    tolerance: Annotated[float, typer.Option(help="Step between real values, as a share.")] = 0.02
    backlog: Annotated[
        float, typer.Option(help="Share of the arrivals left over from which on an open load is unstable; 0: no test.")
    ] = MOST_BACKLOG

    def axes(self) -> dict[str, tuple[Any, ...]]:
        """Return the values of ``--for``."""
        axes: dict[str, tuple[Any, ...]] = {}
        for text in self.alternatives or ():
            name, values = named_values(text, "--for")
            axes[name] = (*axes.get(name, ()), *values)
        return axes

    def rules(self, replications: int | None) -> Rules:
        """Return how sure the verdicts are to be, and what they may cost."""
        if replications is None:
            return Rules(confidence=self.confidence)
        if replications < 2:
            raise ConfigError(f"--replications must be a whole number from 2: one has no interval; got {replications}")
        return Rules(confidence=self.confidence, replications=replications, first=min(4, replications))


@dataclass(frozen=True)
class Stepped:
    """The changes to a rollout step."""

    step: Annotated[bool, typer.Option("--step", help="What a rollout step of RL takes, wastes and could save.")] = (
        False
    )
    caps: Annotated[str, typer.Option(metavar="TOKENS", help="With --step: caps on worker tokens, as 256,512.")] = ""
    capacities: Annotated[str, typer.Option(metavar="NUMBERS", help="With --step: other pool capacities.")] = ""
    replicas: Annotated[str, typer.Option(metavar="NUMBERS", help="With --step: other numbers of replicas.")] = ""

    def numbers(self) -> dict[str, list[int]]:
        """Return the values of each kind of change."""
        return {name: _numbers(getattr(self, name), f"--{name}") for name in _STEP}


_STEP = ("caps", "capacities", "replicas")


@grouped
def plan(
    study: Annotated[str, typer.Argument(metavar="STUDY.toml", help="A study file. Its axes are alternatives.")],
    *,
    search: Searched,
    changed: Stepped,
    replications: Annotated[
        int | None,
        typer.Option(help="Most replications of a value; with --step, how many.", show_default="32; the study's"),
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes that simulate.", show_default="this one")] = None,
    json: Json = False,
) -> int:
    """Plan capacity: the smallest value that meets objectives, the highest load, or what a rollout step wastes."""
    asked = load_study(study)
    axes = search.axes()
    asked = asked.with_(axes={**asked.axes, **axes}, baseline=None)
    question = _question(search, changed)
    faults = unreadable(asked)
    for fault in faults:
        complain(str(fault))
    if question == "step":
        asked = asked.with_(axes={})
        changes = changes_of(asked, **changed.numbers())
        with _progress(f"the step and {len(changes)} changes to it"):
            planned = plan_step(asked, changes, replications=replications, executor=executor_from(jobs))
        (_step_records if json else _tell_step)(planned)
        return 2 if faults else 0
    name, values = searched(getattr(search, question), f"--{question}", search.tolerance)
    if name in asked.axes and name not in axes:  # the file sweeps what is searched here
        asked = asked.with_(axes={axis: points for axis, points in asked.axes.items() if axis != name})
    rules = search.rules(replications)
    with _progress("first value") as watch:
        found = compare(
            asked,
            question,
            name,
            values,
            lambda each: parse_objectives(search.slo or (), each.unit),
            rules=rules,
            backlog=search.backlog or None,
            executor=executor_from(jobs),
            watch=watch,
        )
    if json:
        _records(found, name)
    else:
        _tell(asked, found, name, rules)
    return 2 if faults else 0


def _question(search: Searched, changed: Stepped) -> Literal["smallest", "highest", "step"]:
    """Return what is asked. Options of the other questions are refused."""
    given = {"smallest": search.smallest, "highest": search.highest, "step": changed.step}
    asked = [name for name, value in given.items() if value]
    if len(asked) != 1:
        raise ConfigError(
            f"say one of --smallest, --highest and --step; got {' and '.join(f'--{name}' for name in asked) or 'none'}"
        )
    if changed.step:
        if search.slo:
            raise ConfigError("--slo is for --smallest and --highest; --step has no objectives")
        if search.alternatives:
            raise ConfigError("--for is for --smallest and --highest; a step is planned at one point")
        return "step"
    if wrong := [name for name in _STEP if getattr(changed, name)]:
        raise ConfigError(f"--{wrong[0]} is for --step, not for --{asked[0]}")
    if not search.slo:
        raise ConfigError(f"--{asked[0]} needs an objective: --slo 'p95 < 10 s'")
    return "smallest" if search.smallest else "highest"


def _numbers(text: str, option: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(part.isascii() and part.isdecimal() and int(part[:16]) > 0 for part in parts):
        raise ConfigError(f"{option} takes whole numbers from 1, as 256,512; got {text!r:.80}")
    return [int(part) for part in dict.fromkeys(parts)]


@contextmanager
def _progress(what: str) -> Iterator[Callable[[Trial], None]]:
    """Say on stderr what was settled."""
    with on_stderr(SpinnerColumn(), "{task.description}", TimeElapsedColumn()) as progress:
        task = progress.add_task(what, total=None)
        tried = count(1)

        def watch(trial: Trial) -> None:
            said = f"{next(tried)} values tried; {figure_or_text(trial.value)} {trial.verdict.value}"
            progress.update(task, description=printable(said))

        yield watch


def _tell(asked: Study, alternatives: Sequence[Alternative], name: str, rules: Rules) -> None:
    for each in alternatives:
        point = asked.at(each.values) if each.values else asked
        if each.values:
            say(printable(", ".join(f"{key} = {figure_or_text(value)}" for key, value in each.values.items()), 1000))
        _trials(each.found, name, point.unit)
        for line in sentences(each.found, name, point.unit, point.window.warmup):
            _paragraph(line)
        say()
    if len(alternatives) > 1:
        _ranking(alternatives, name, rules)
        say()
    tell(LEGEND)


def _trials(found: Found, name: str, unit: str) -> None:
    """Print every value that was tried."""
    asked = [each for each in found.objectives]
    grows = any(estimate.objective.metric == BACKLOG for trial in found.trials for estimate in trial.estimates)
    columns = [each.column for each in asked]
    titles = [f"{each.statistic} {each.metric.heading_on(unit)}".strip() for each in columns]
    lines = table(name, "runs", *titles, *(["left over"] if grows else []), "occupancy", "verdict")
    for trial in found.trials:
        cells = []
        for place in range(len(asked) + grows):
            estimate = trial.estimates[place] if place < len(trial.estimates) else None
            if estimate is None or estimate.mean != estimate.mean:
                cells.append("-")
            elif estimate.objective.metric == BACKLOG:
                cells.append(_percent(estimate.mean))
            else:
                metric = columns[place].metric
                mean, low, high = (
                    figure(metric.shown_on(unit, value)) for value in (estimate.mean, estimate.low, estimate.high)
                )
                cells.append(f"{mean} ({low} to {high})")
        full = trial.mean("occupancy")
        shown = "-" if full != full else f"{full:.0%}"
        mark = " <" if trial.value == found.value else ""
        verdict = Text(trial.verdict.value + mark, style="bold" if mark else "")
        lines.add_row(figure_or_text(trial.value), str(trial.replications), *cells, shown, verdict)
    show(lines)


def _ranking(alternatives: Sequence[Alternative], name: str, rules: Rules) -> None:
    """Print which alternative is cheapest."""
    gaps = cheapest(alternatives, rules.confidence)
    if not gaps:
        say("None of them is shown to meet the objectives.")
        return
    best = gaps[0].alternative
    known = priced(alternatives)
    what = "$ per 1,000 queries" if known else "GPUs"
    sure = f"{100 * rules.confidence:.4g} %"
    lines = table("alternative", name, *(["GPUs"] if known else []), what, f"more than the cheapest ({sure})")
    for gap in gaps:
        each = gap.alternative
        trial = each.found.trial(each.found.value)
        gpus = [f"{each.gpus:g}"]
        price = [figure(each.price)] if known else []
        more = f"{figure(gap.mean)} ({figure(gap.low)} to {figure(gap.high)})"
        cells = (figure_or_text(trial.value), *gpus, *price, "" if gap is gaps[0] else more)
        lines.add_row(printable(each.label), *cells)
    for each in alternatives:
        if each.found.value is None:
            lines.add_row(printable(each.label), "none")
    show(lines)
    cost = f"{figure(best.price)} {what}" if known else _gpus(best.gpus)
    said = f"Cheapest: {best.label} with {name} = {figure_or_text(best.found.value)}, {cost}."
    close = [gap.alternative.label for gap in gaps[1:] if not gap.low > 0]
    if close:
        said += f" Not told apart from it: {', '.join(close)}."
    if not known and any(each.price == each.price for each in alternatives):
        said += " Not all of them have a price, so GPUs are counted."
    _paragraph(f"{said} All verdicts of all alternatives hold together with {sure} confidence.")


def _paragraph(text: str) -> None:
    """Print a sentence over as many lines as it needs."""
    tell(printable(text, 2000))


def _gpus(count: float) -> str:
    return "1 GPU" if count == 1 else f"{count:g} GPUs"


def _percent(value: float) -> str:
    return f"{round(value, 3) + 0.0:.1%}"  # no minus before nothing


def _records(alternatives: Sequence[Alternative], name: str) -> None:
    for each in alternatives:
        for trial in each.found.trials:
            record = picked(trial, "value", "verdict", "why", "replications")
            record["objectives"] = [
                _limit(estimate.objective) | picked(estimate, "mean", "low", "high", "met")
                for estimate in trial.estimates
            ]
            record["means"] = {metric: trial.mean(metric) for metric in (trial.rows[0] if trial.rows else ())}
            print_json({"alternative": dict(each.values), "name": name, **record})
    for each in alternatives:
        found = each.found
        answer = picked(found, "question", "value", "beyond", "undecided", "monotone", "exceptions", "runs")
        answer |= {"confidence": found.rules.confidence, "objectives": [_limit(each) for each in found.objectives]}
        print_json({"answer": {"alternative": dict(each.values), "name": name, **answer}})


def _limit(objective: Objective) -> dict[str, Any]:
    return picked(objective, "metric", "relation", "limit")


def _tell_step(planned: StepPlan) -> None:
    first = planned.steps[0]
    unit = "s" if first.unit == "seconds" else "steps"
    mean, low, high = planned.makespan
    within = "" if low != low else f" ({figure(low)} to {figure(high)})"
    runs = len(planned.steps)
    on = _gpus(planned.gpus)
    say(f"{first.queries:,} queries on {on}, {runs} {'replication' if runs == 1 else 'replications'}")
    say(f"makespan {figure(mean)} {unit}{within}; {figure(planned.gpus * mean)} GPU-{unit}")
    say(
        "tail after "
        + ", ".join(f"{share:.0%}: {planned.tail(share):.1%}" for share in first.tails)
        + " of the makespan"
    )
    last = f"{first.last}: {figure(first.last_latency)} {unit}, the median {figure(first.median_latency)} {unit}"
    say(printable(f"answered last, in the first replication: {last}"))
    idle = planned.idle
    spread = "" if len(idle) == 1 else f" ({idle.min():.1%} to {idle.max():.1%} by replica)"
    say(f"idle {idle.mean():.1%} of the makespan{spread}")
    say("batch over ten parts of the makespan: " + " ".join(figure(value) for value in planned.batch))
    saved = f"saved {unit} ({100 * planned.confidence:.4g} %)"
    lines = table("change", f"makespan {unit}", saved, "saved", "tokens cut", f"GPU-{unit}")
    for each in planned.savings:
        if each.why:
            lines.add_row(f"{each.change.name}: cannot run", *("-",) * 5)
            continue
        interval = "" if each.low != each.low else f" ({figure(each.low)} to {figure(each.high)})"
        saved = f"{figure(each.saved)}{interval}"
        cut = _percent(each.tokens_cut) if each.tokens_cut else ""
        lines.add_row(each.change.name, figure(each.makespan), saved, _percent(each.share), cut, figure(each.gpu_time))
    show(lines)
    for each in planned.savings:
        if each.why:
            say(printable(f"{each.change.name}: {each.why}", 1000))
    tell(STEP_LEGEND)


def _step_records(planned: StepPlan) -> None:
    for replication, step in enumerate(planned.steps):
        record = picked(step, *step.__dataclass_fields__)
        record |= {"idle": step.idle.tolist(), "batch": step.batch.tolist()}
        record["tails"] = {f"{share:g}": value for share, value in step.tails.items()}
        print_json({"replication": replication, **record})
    for each in planned.savings:
        figures = picked(each, *each.__dataclass_fields__) | {"change": each.change.name}
        print_json({"settings": dict(each.change.settings), **figures})
    mean, low, high = planned.makespan
    print_json({"step": {"makespan": mean, "low": low, "high": high, **picked(planned, "gpus", "confidence")}})
