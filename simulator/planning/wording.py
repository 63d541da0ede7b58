"""What a search found, in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from simulator.planning.objectives import Objective
from simulator.planning.search import MOST_SCANNED, Found
from simulator.planning.verdicts import BACKLOG, Estimate, Trial, Verdict
from simulator.study.documents import label


def figure(value: float) -> str:
    """Return a number to three digits or, from 1000 on, to the whole.

    >>> figure(8.9134), figure(0.00213), figure(12345.6)
    ('8.91', '0.00213', '12,346')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".removesuffix(".")


def sentences(found: Found, name: str, unit: str = "seconds", warmup: float | None = None) -> list[str]:
    """Return the answer in one sentence, and in further ones what it rests on.

    `warmup` is that of the study's window: one that is too short looks like a load without a steady state.

    >>> from simulator.planning import Objective, in_turn, search
    >>> latency = in_turn(lambda servers, replication: {"latency_mean": 60 / servers + replication % 2})
    >>> found = search("smallest", range(1, 65), latency, [Objective("latency_mean", "<", 10)])
    >>> for line in sentences(found, "cluster.replicas"):
    ...     print(line)
    cluster.replicas = 7 is the smallest of 1..64 that meets latency_mean < 10 s: 9.07 s (8.49 to 9.66,
    16 replications); 6 fails.
    All 9 verdicts hold together with 95 % confidence.
    A higher cluster.replicas never did worse: seen at neighbours and at values all over the range, not proved.
    """
    return [_answer(found, name, unit), *_support(found, name, unit, warmup)]


def _answer(found: Found, name: str, unit: str) -> str:
    wanted = " and ".join(_objective(each, unit) for each in found.objectives)
    ends = _ends(found)
    if found.value is None:
        which = found.trials[-1] if found.question == "smallest" else found.trials[0]
        most = "largest" if found.question == "smallest" else "lowest"
        if met := [trial for trial in found.trials if trial.verdict is Verdict.MEETS]:  # of a load; see `read`
            wanted += " is" if len(found.objectives) == 1 else " are"
            here = f"{_said(which)} {_why(which)}; {_said(met[0])} meets"
            return f"{wanted} not met from the lowest {name} on: {here}."
        return f"No value of {name} in {ends} is shown to meet {wanted}: {_said(which)}, the {most}, {_why(which)}."
    trial = found.trial(found.value)
    means = ", ".join(_estimate(each, trial, unit) for each in trial.estimates if each.objective.metric != BACKLOG)
    kind = "the smallest" if found.question == "smallest" else "the highest"
    later = found.trials[found.trials.index(trial) + 1 :]
    gap = found.question == "highest" and any(each.verdict is Verdict.MEETS for each in later)
    does = "up to which all that were tried meet" if gap else "that meets"
    text = f"{name} = {_said(trial)} is {kind} of {ends} {does} {wanted}: {means}"
    if found.beyond is not None:
        text += f"; {_said(found.trial(found.beyond))} {_why(found.trial(found.beyond))}"
    elif not found.undecided:
        text += f"; nothing {'lower' if found.question == 'smallest' else 'higher'} was asked about"
    return f"{text}."


def _support(found: Found, name: str, unit: str, warmup: float | None) -> list[str]:
    one = len(found.trials) == 1
    verdicts = "The verdict holds" if one else f"All {len(found.trials)} verdicts hold together"
    lines = [f"{verdicts} with {100 * found.rules.confidence:.4g} % confidence."]
    if found.undecided:
        lines.append(
            f"Not settled by {found.rules.replications} replications, and taken for not met:"
            f" {_list(found.undecided)}. More replications would tell{_or_queries(found)}."
        )
    if any(trial.verdict is Verdict.UNSTABLE for trial in found.trials):
        lines.append("Unstable: queries arrive faster than they are answered, so latency depends on the run's length.")
    best = found.trials[-1] if found.question == "smallest" else found.trials[0]
    fills = any(each.objective.metric == BACKLOG and not each.met for each in best.estimates)
    if fills and warmup is not None and warmup < 2 * best.mean("latency_mean"):
        so = "Even {} looks so" if best.verdict is Verdict.UNSTABLE else "Whether {} is steady is open"
        of = "steps" if unit == "steps" else "s"
        lines.append(
            f"{so.format(_said(best))}, and the warm-up of {figure(warmup)} {of} is short beside its mean latency of"
            f" {figure(best.mean('latency_mean'))} {of}: a cluster that fills for the first time looks unstable."
            " A longer warm-up, and more queries, would tell."
        )
    lines += _thin(found)
    resource = found.question == "smallest"
    if one:
        return lines
    if found.monotone:
        never = "did worse" if resource else "did better"
        lines.append(f"A higher {name} never {never}: seen at neighbours and at values all over the range, not proved.")
    else:
        tried = len(found.trials) == len(found.values)
        count = "every value" if tried else f"{MOST_SCANNED} values at even distances"
        what = "do not, though they are higher" if resource else "do, though lower ones do not"
        lines.append(f"Not monotone: {_list(found.exceptions)} {what}. So {count} had to be tried.")
    return lines


def _thin(found: Found) -> list[str]:
    """Return which percentiles lie beyond all but a query or two of a run."""
    measured = [trial.mean("counted") for trial in found.trials if trial.rows and "counted" in trial.rows[0]]
    least = min(measured, default=math.inf)
    return [
        f"{each.metric} of {least:.0f} queries a run is about the largest of them; take more queries."
        for each in found.objectives
        if (percentile := each.column.percentile) is not None and percentile < 100 and least * (100 - percentile) < 100
    ]


def _or_queries(found: Found) -> str:
    """Return what else would settle values of which only the backlog is not settled."""
    estimates = [each for value in found.undecided for each in found.trial(value).estimates]
    only = all(each.objective.metric == BACKLOG for each in estimates if each.met is None)
    return ", and so would more queries: only whether the load is steady is open" if only else ""


def _list(values: Sequence[Any]) -> str:
    return ", ".join(figure_or_text(value) for value in values)


def figure_or_text(value: Any) -> str:
    """Return an axis value as text; real numbers to four digits."""
    value = label(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _said(trial: Trial) -> str:
    return figure_or_text(trial.value)


def _ends(found: Found) -> str:
    values = found.values
    if len(values) <= 3:
        return ", ".join(figure_or_text(value) for value in values)
    text = f"{figure_or_text(values[0])}..{figure_or_text(values[-1])}"
    each = all(isinstance(value, int) for value in values) and values[-1] - values[0] == len(values) - 1
    return text if each else f"{len(values)} values in {text}"


def _unit(objective: Objective, unit: str) -> str:
    said = objective.column.metric.unit_on(unit)
    return f" {'s' if said == 'seconds' else said}" if said else ""


def _objective(objective: Objective, unit: str) -> str:
    return f"{objective}{_unit(objective, unit)}"


def _estimate(each: Estimate, trial: Trial, unit: str) -> str:
    return (
        f"{figure(each.mean)}{_unit(each.objective, unit)}"
        f" ({figure(each.low)} to {figure(each.high)}, {trial.replications} replications)"
    )


def _why(trial: Trial) -> str:
    """Return a verdict as a verb, and what it rests on."""
    if trial.verdict is Verdict.CANNOT_RUN:
        return f"cannot run ({trial.why})"
    if trial.verdict is Verdict.UNSTABLE:
        return "is unstable"
    if trial.verdict is Verdict.MEETS:
        return "meets"
    return "fails" if trial.verdict is Verdict.FAILS else "is undecided"
