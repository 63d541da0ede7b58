"""How true a clock is: a law against the steps it was fitted to, simulations against records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simulator.fidelity import Calibration, Errors, Validation
from simulator.plots.style import FONT, INK, KINDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_KINDS = 5
_POINTS = 20_000

_Spread = tuple[str, NDArray[np.float64], str]
"""A label, relative errors, a colour."""


def calibration(found: Calibration, *, ax: Axes | None = None) -> Axes:
    """Draw measured steps and the fitted law over the tokens of a step.

    Without `ax`, a second panel shows how the relative errors of steps, and of the sums of held-out runs, are spread.

    Parameters
    ----------
    found : Calibration
    ax : Axes, optional
        Default: those of a new figure.

    Returns
    -------
    Axes
        Of the first panel.

    Examples
    --------
    >>> from simulator.fidelity import calibrate
    >>> sizes = [(n, c) for n in (1, 2, 4, 8) for c in (100, 500, 900)]
    >>> prompts = dict(prefill_tokens=0, prefill_context=0)
    >>> rows = [dict(decodes=n, decode_context=c, seconds=0.01 * n, **prompts) for n, c in sizes]
    >>> calibration(calibrate(rows, law="linear")).get_xlabel()
    'tokens in the step'
    """
    errors = None
    if ax is None:
        ax, errors = _two_panels()
    steps = found.steps
    tokens = steps.tokens
    shown = np.linspace(0, len(steps) - 1, min(len(steps), _POINTS)).astype(np.int64)
    prompts = steps.prefill_tokens > 0
    for which, color, label in ((~prompts, INK.curve, "without a prompt"), (prompts, INK.cut, "with prompt tokens")):
        some = shown[which[shown]]
        if len(some):
            style: dict[str, Any] = {"s": 5, "alpha": 0.25, "linewidths": 0, "rasterized": True}
            ax.scatter(tokens[some], 1000 * steps.seconds[some], color=color, label=label, **style)
    sizes, where = np.unique(tokens, return_inverse=True)
    middle = np.array([np.median(found.predicted[where.ravel() == i]) for i in range(len(sizes))])
    label = f"{found.law} law, median of each size"
    ax.scatter(sizes, 1000 * middle, marker="_", s=36, linewidths=1.2, color=INK.path, label=label, zorder=3)
    _log(ax)
    ax.set_xlabel(f"tokens in the {found.what.split()[-1]}", fontsize=FONT)
    ax.set_ylabel("ms", fontsize=FONT)
    _finish(ax, "upper left")
    if errors is not None:
        spread = [_spread(f"{found.what}s", found.held_out_steps, found.held_out / steps.seconds - 1, INK.curve)]
        if found.held_out_runs is not None:
            sums = np.bincount(steps.run, found.held_out) / np.bincount(steps.run, steps.seconds)
            spread.append(_spread("runs", found.held_out_runs, sums - 1, INK.cut))
        _histograms(errors, spread, share=True)
        errors.set_xlabel("predicted / measured - 1, %", fontsize=FONT)
        errors.set_ylabel("share", fontsize=FONT)
        _finish(errors, "upper left")
    return ax


def validation(found: Validation, *, ax: Axes | None = None) -> Axes:
    """Draw the predicted latency of each query over the measured one.

    Without `ax`, a second panel shows how the errors are spread, beside what repeats of one query differ by. Of more
    than five kinds of queries the first five are drawn.

    Parameters
    ----------
    found : Validation
    ax : Axes, optional
        Default: those of a new figure.

    Returns
    -------
    Axes
        Of the first panel.

    Examples
    --------
    >>> from simulator import GPU, Answer, LinearBatch, Thread, Trace
    >>> from simulator.fidelity import validate
    >>> traces = [Trace("t", (Thread("organizer", (Answer(100, start=0.0, finish=2.0),)),))]
    >>> validation(validate(traces, gpu=GPU(cost=LinearBatch(a=0.021)))).get_xlabel()
    'measured latency, s'
    """
    errors = None
    if ax is None:
        ax, errors = _two_panels()
    measured = np.array([query.measured for query in found.queries])
    ends = np.array([measured.min() / 1.3, measured.max() * 1.3])
    ax.fill_between(ends, 0.9 * ends, 1.1 * ends, color=INK.grid, lw=0, label="within 10 %")
    ax.plot(ends, ends, color=INK.quiet, lw=0.8)
    spread: list[_Spread] = []
    for (mark, color), kind in zip(KINDS[:_MOST_KINDS], found.kinds(), strict=False):
        some = [query for query in found.queries if query.kind == kind]
        held = found.errors(kind)
        style: dict[str, Any] = {"marker": mark, "s": 18, "color": color, "alpha": 0.7, "linewidths": 0}
        label = f"{kind}: mean error {100 * held.mean:.1f} %, bias {100 * held.bias:+.1f} %"
        ax.scatter([query.measured for query in some], [query.predicted for query in some], label=label, **style)
        spread.append((kind, np.array([query.error for query in some]), color))
    _log(ax)
    ax.set_xlabel("measured latency, s", fontsize=FONT)
    ax.set_ylabel("predicted latency, s", fontsize=FONT)
    _finish(ax, "upper left")
    if errors is not None:
        _histograms(errors, spread, share=False)
        repeats = found.repeats()
        if repeats is not None:
            width = 100 * repeats.mean
            errors.axvspan(-width, width, color=INK.grid, lw=0, zorder=0, label=f"repeats differ by {width:.1f} %")
        errors.axvline(0, color=INK.quiet, lw=0.8)
        errors.set_xlabel("predicted / measured - 1, %", fontsize=FONT)
        errors.yaxis.get_major_locator().set_params(integer=True)
        errors.set_ylabel("queries", fontsize=FONT)
        _finish(errors, "upper right")
    return ax


def _two_panels() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    first, second = Figure(figsize=(10, 4), layout="constrained").subplots(1, 2)
    return first, second


def _spread(what: str, held: Errors, values: NDArray[np.float64], color: str) -> _Spread:
    return f"{what}, held out: mean {100 * held.mean:.1f} %, max {100 * held.max:.0f} %", values, color


def _histograms(ax: Any, spread: list[_Spread], *, share: bool) -> None:
    """Draw how relative errors are spread, in equal bins; what is far out is in the outermost."""
    widest = max(float(np.abs(values).max()) for _, values, _ in spread)
    edge = 5 * float(np.ceil(min(max(widest, 0.1), 0.6) * 20))
    bins = np.linspace(-edge, edge, 25)
    inside = [np.clip(100 * values, -edge, edge) for _, values, _ in spread]
    colors, labels = [color for *_, color in spread], [label for label, *_ in spread]
    if share:
        for values, color, label in zip(inside, colors, labels, strict=True):
            weights = np.full(len(values), 1 / len(values))
            ax.hist(values, bins, weights=weights, histtype="stepfilled", color=color, alpha=0.2, lw=0)
            ax.hist(values, bins, weights=weights, histtype="step", color=color, lw=1.2, label=label)
    else:
        ax.hist(inside, bins, stacked=True, color=colors, label=labels, alpha=0.8, edgecolor="white", lw=0.5)
    ax.set_ylim(0, 1.3 * ax.get_ylim()[1])  # room for the legend


def _log(ax: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _finish(ax: Any, where: str) -> None:
    ax.tick_params(labelsize=FONT)
    ax.spines[["top", "right"]].set_visible(False)
    for text in ax.legend(fontsize=FONT - 1, frameon=False, loc=where).get_texts():
        text.set_parse_math(False)
