"""``forksim score``: the reward of each trace. No simulation: parse, decode-step clock, reward."""

from __future__ import annotations

from typing import Annotated

import typer

from simulator.cli.common import Format, Input, Json, Paths, TokenCount, print_json, say, screen_width, show
from simulator.protocol import Protocol
from simulator.report import REWARD_LEGEND, Tally, number, rewards_table, summary_table
from simulator.rewards import Score
from simulator.rewards import score as reward_of

__all__ = ["score"]

_DEFAULT = Protocol()


def score(
    traces: Paths,
    capacity: Annotated[int, typer.Option("--capacity", "-c", help="Pool capacity c, the c of eta/c.")] = 4,
    eta_weight: Annotated[float, typer.Option(help="Lambda: weight of the concurrency term.")] = _DEFAULT.eta_weight,
    eta_threshold: Annotated[float, typer.Option(help="Tau: eta/c earns nothing beyond it.")] = _DEFAULT.eta_threshold,
    format_error_reward: Annotated[
        float, typer.Option(help="R_FE: what a format error earns.")
    ] = _DEFAULT.format_error_reward,
    format: Format = None,
    tokens: TokenCount = "characters",
    rows: Annotated[int, typer.Option(min=0, help="Lines of the table at most.")] = 40,
    json: Json = False,
) -> int:
    """Score traces with the AsyncThink reward: accuracy + lambda * min(eta/c, tau) / tau, or R_FE."""
    rules = Protocol(
        capacity=capacity,
        eta_weight=eta_weight,
        eta_threshold=eta_threshold,
        format_error_reward=format_error_reward,
    )
    source = Input(traces, format, tokens, streams=json)
    tally = Tally(("reward", "accuracy", "concurrency", "T_steps", "eta", "eta_over_c"))
    shown: list[tuple[str, Score]] = []
    for trace in source:
        result = reward_of(trace, rules)
        values = {
            "reward": result.total,
            "accuracy": float("nan") if result.accuracy is None else result.accuracy,
            "concurrency": result.terms["concurrency"],
            "T_steps": float(result.latency),
            "eta": result.eta,
            "eta_over_c": result.eta_over_c,
        }
        tally.add(values.__getitem__, (violation.kind.value for violation in result.violations))
        if json:
            kinds = sorted({violation.kind.value for violation in result.violations})
            print_json({"trace": trace.id, **values, "terms": result.terms, "kinds": kinds})
        elif len(shown) < rows:
            shown.append((trace.id, result))
    tally.unreadable = source.unreadable
    if json:
        print_json({"summary": tally.summary()})
    elif tally.traces:
        if shown:
            show(rewards_table(shown, narrow=screen_width() < 110))
        if tally.traces > len(shown):
            say(f"and {tally.traces - len(shown):,} more (--rows or --json show all)\n")
        if tally.traces > 1:
            show(summary_table(tally))
        say(tally.sentence())
        say(
            f"scored with c = {capacity}, lambda = {number(eta_weight)}, tau = {number(eta_threshold)},"
            f" R_FE = {number(format_error_reward)}"
        )
        if shown:
            say(REWARD_LEGEND)
    return source.exit_code
