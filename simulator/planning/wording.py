"""What a search found, in sentences."""

from __future__ import annotations

from typing import Any

from simulator.planning.objectives import Objective
from simulator.planning.search import MOST_SCANNED, Found
from simulator.planning.verdicts import TREND, Estimate, Trial, Verdict
from simulator.study.study import label

__all__ = ["figure", "sentences"]


def figure(value: float) -> str:
    """Return a number to three digits or, from 1000 on, to the whole.

    >>> figure(8.9134), figure(0.00213), figure(12345.6)
    ('8.91', '0.00213', '12,346')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def sentences(found: Found, name: str, unit: str = "seconds") -> list[str]:
    """Return the answer in one sentence, and in further ones what it rests on.

    >>> from simulator.planning import Objective, in_turn, search
    >>> latency = in_turn(lambda servers, replication: {"latency_mean": 60 / servers + replication % 2})
    >>> found = search("smallest", range(1, 65), latency, [Objective("latency_mean", "<", 10)])
    >>> for line in sentences(found, "cluster.replicas"):
    ...     print(line)
    cluster.replicas = 7 is the smallest of 1..64 that meets latency_mean < 10 s: 9.07 s (8.39 to 9.75 at 32
    replications); 6 fails.
    All 9 verdicts hold together with 95 % confidence.
    A higher cluster.replicas never did worse: seen at neighbours and at values spread over the range, not proved.
    """
    return [_answer(found, name, unit), *_support(found, name)]


def _answer(found: Found, name: str, unit: str) -> str:
    wanted = " and ".join(_objective(each, unit) for each in found.objectives)
    ends = _ends(found)
    if found.value is None:
        which = found.trials[-1] if found.question == "smallest" else found.trials[0]
        most = "largest" if found.question == "smallest" else "lowest"
        return f"No value of {name} in {ends} is shown to meet {wanted}: {_said(which)}, the {most}, {_why(which, unit)}."
    trial = found.trial(found.value)
    means = ", ".join(_estimate(each, trial, unit) for each in trial.estimates if each.objective.metric != TREND)
    kind = "the smallest" if found.question == "smallest" else "the highest"
    text = f"{name} = {_said(trial)} is {kind} of {ends} that meets {wanted}: {means}"
    if found.beyond is not None:
        text += f"; {_said(found.trial(found.beyond))} {_why(found.trial(found.beyond), unit)}"
    elif not found.undecided:
        edge = "lowest" if found.question == "smallest" else "highest"
        text += f"; it is the {edge} value asked about, so the limit may lie beyond"
    return f"{text}."


def _support(found: Found, name: str) -> list[str]:
    lines = []
    if found.undecided:
        said = ", ".join(figure_or_text(value) for value in found.undecided)
        lines.append(
            f"Not settled after {found.rules.replications} replications, and taken for not met: {said}."
            " More replications would tell."
        )
    lines.append(f"All {len(found.trials)} verdicts hold together with {found.rules.confidence:.4g} confidence.")
    lines[-1] = lines[-1].replace(f"{found.rules.confidence:.4g}", f"{100 * found.rules.confidence:.4g} %")
    if any(trial.verdict is Verdict.UNSTABLE for trial in found.trials):
        lines.append("Unstable: latency grows over the run, so its mean depends on how long the run is; or the warm-up is too short.")
    if found.monotone:
        way, effect = ("higher", "did worse") if found.question == "smallest" else ("higher", "did better")
        lines.append(f"A {way} {name} never {effect}: seen at neighbours and at values spread over the range, not proved.")
    else:
        said = ", ".join(figure_or_text(value) for value in found.exceptions)
        count = "every value" if len(found.trials) == len(found.values) else f"{MOST_SCANNED} values at even distances"
        what = "do worse though they are higher" if found.question == "smallest" else "do though lower ones do not"
        lines.append(f"Not monotone: {said} {what}. So {count} had to be tried.")
    return lines


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
    return f"{figure_or_text(values[0])}..{figure_or_text(values[-1])}"


def _unit(objective: Objective, unit: str) -> str:
    return "" if not objective.is_time else " steps" if unit == "steps" else " s"


def _objective(objective: Objective, unit: str) -> str:
    return f"{objective}{_unit(objective, unit)}"


def _estimate(each: Estimate, trial: Trial, unit: str) -> str:
    return (
        f"{figure(each.mean)}{_unit(each.objective, unit)}"
        f" ({figure(each.low)} to {figure(each.high)} at {trial.replications} replications)"
    )


def _why(trial: Trial, unit: str) -> str:
    """Return a verdict as a verb, and what it rests on."""
    if trial.verdict is Verdict.CANNOT_RUN:
        return f"cannot run ({trial.why})"
    if trial.verdict is Verdict.UNSTABLE:
        return "is unstable"
    if trial.verdict is Verdict.MEETS:
        return "does"
    return "fails" if trial.verdict is Verdict.FAILS else "is undecided"
