"""``forksim score``: the reward of each trace. No simulation: parse, decode-step clock, reward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Annotated, Any

import typer

from simulator.cli.common import Formulas, Input, Json, Paths, print_json, say, screen_width, show, tell, wrote
from simulator.cli.layout import NARROW
from simulator.cli.options import ReadOptions, grouped
from simulator.cli.report import REWARD_LEGEND, Tally, number, rewards_table, summary_table
from simulator.errors import ConfigError, FormatError, SimulatorError
from simulator.rewards import FORMAT_ERROR, REWARDS, Reward, Rollout, Score, load_reward, score_batch
from simulator.rewards.batch import CHUNK
from simulator.support.tables import Columns
from simulator.timeline.export import score_file
from simulator.trace.protocol import Protocol

ScoreFile = AbstractContextManager[Callable[[Columns], None]]
_DEFAULT = Protocol(capacity=4)


@dataclass(frozen=True)
class Constants:
    """What of the AsyncThink reward the command line can say."""

    capacity: Annotated[
        int | None, typer.Option("--capacity", "-c", help="Pool capacity c, the c of eta/c.", show_default="4")
    ] = None
    eta_weight: Annotated[
        float | None, typer.Option(help="Lambda: weight of the concurrency term.", show_default="0.5")
    ] = None
    eta_threshold: Annotated[
        float | None, typer.Option(help="Tau: eta/c earns nothing beyond it.", show_default="1.0")
    ] = None
    format_error_reward: Annotated[
        float | None, typer.Option(help="R_FE: what a format error earns.", show_default="-1.0")
    ] = None


@grouped
def score(
    traces: Paths,
    reward: Annotated[
        str,
        typer.Option(metavar="REWARD", help=f"One of {', '.join(REWARDS)}, or a .toml file that says one."),
    ] = "asyncthink",
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Write one row per rollout to a .jsonl, .csv or .parquet file."
        ),
    ] = None,
    *,
    constants: Constants,
    reading: ReadOptions,
    rows: Annotated[int, typer.Option(min=0, help="Lines of the table at most.")] = 40,
    formulas: Formulas = False,
    json: Json = False,
) -> int:
    """Score traces, by default with the AsyncThink reward: accuracy + lambda * min(eta/c, tau) / tau, or R_FE."""
    spec = load_reward(reward)
    if spec.grouped is not None:
        raise ConfigError(
            f"{reward} compares the rollouts of one query, and each trace is scored alone here; in Python"
            " simulator.score_batch(groups=...) takes them together"
        )
    given = {name: value for name, value in asdict(constants).items() if value is not None}
    own = [name for name in given if name != "capacity"]
    if own and reward != "asyncthink":
        option = own[0].replace("_", "-")
        raise ConfigError(f"--{option} is of the asyncthink reward; other rewards have their constants in a .toml file")
    rules = (spec.protocol or _DEFAULT).with_(**given)
    if rules.capacity is None:
        rules = rules.with_(capacity=_DEFAULT.capacity)
    spec.check(rules)
    source = reading.input(traces, streams=json)
    names = [name for name in spec.names if name not in (FORMAT_ERROR, "accuracy")]
    tally = Tally(("reward", "accuracy", *names, "T_steps", "eta", "eta_over_c"))
    if out is None:
        shown = _print(source, spec, rules, tally, 0 if json else rows, json)
    else:
        shown = []
        _write(source, spec, rules, tally, score_file(out, formulas=formulas))
    tally.unreadable = source.unreadable
    if json:
        print_json({"summary": tally.summary()})
    elif tally.traces:
        if shown:
            show(rewards_table(shown, narrow=screen_width() < NARROW))
        if out is None and tally.traces > len(shown):
            say(f"and {tally.traces - len(shown):,} more (--rows or --json show all)\n")
        if tally.traces > 1:
            show(summary_table(tally))
        tell(tally.sentence())
        _say_constants(reward, rules)
        if shown and reward == "asyncthink":
            tell(REWARD_LEGEND)
    if out is not None:
        wrote(out, json)
    return source.exit_code


def _say_constants(reward: str, rules: Protocol) -> None:
    if reward == "asyncthink":
        weight, tau, error = map(number, (rules.eta_weight, rules.eta_threshold, rules.format_error_reward))
        tell(f"scored with c = {rules.capacity}, lambda = {weight}, tau = {tau}, R_FE = {error}")
    else:
        tell(f"scored with {reward}, c = {rules.capacity}")


def _print(
    source: Input, reward: Reward, rules: Protocol, tally: Tally, rows: int, json: bool
) -> list[tuple[str, Score]]:
    """Score one trace at a time; return the first `rows` scores."""
    shown: list[tuple[str, Score]] = []
    for trace in source:
        try:
            result = reward.score(Rollout(trace, rules))
        except (SimulatorError, ArithmeticError, ValueError) as error:
            source.refuse(FormatError(f"trace {trace.id!r} cannot be scored: {error}"))
            continue
        values = {
            **result.terms,
            "reward": result.total,
            "accuracy": float("nan") if result.accuracy is None else result.accuracy,
            "T_steps": float(result.latency),
            "eta": result.eta,
            "eta_over_c": result.eta_over_c,
        }
        tally.add(values.__getitem__, (violation.kind.value for violation in result.violations))
        if json:
            kinds = sorted({violation.kind.value for violation in result.violations})
            record = {name: values[name] for name in tally.values}
            print_json({"trace": trace.id, **record, "terms": result.terms, "kinds": kinds})
        elif len(shown) < rows:
            shown.append((trace.id, result))
    return shown


def _write(source: Input, reward: Reward, rules: Protocol, tally: Tally, file: ScoreFile) -> None:
    """Score a chunk at a time into a file, a row for each record, also for one that cannot be read."""
    items = source.all()
    titles = {"reward": "total", "T_steps": "latency", "eta": "eta", "eta_over_c": "eta_over_c", "accuracy": "accuracy"}
    with file as write:
        for chunk in _chunks(items):
            batch = score_batch(chunk, reward=reward, protocol=rules)
            ids = [f"{item.path}:{item.line}" if isinstance(item, FormatError) else item.id for item in chunk]
            columns: dict[str, Any] = {"trace": ids, **batch.columns()}
            write(columns)
            values = {name: columns[titles.get(name, f"term_{name}")] for name in tally.values}
            kinds = {kind: column for kind, column in batch.violations.items() if column.any()}
            for row, item in enumerate(chunk):
                if batch.failed[row]:
                    if not isinstance(item, FormatError):
                        source.refuse(FormatError(f"trace {item.id!r} cannot be scored: {batch.reason[row]}"))
                    continue
                tally.add(
                    {name: float(column[row]) for name, column in values.items()}.__getitem__,
                    (kind for kind, column in kinds.items() for _ in range(column[row])),
                )


def _chunks(items: Iterator[Any]) -> Iterator[list[Any]]:
    while chunk := list(islice(items, CHUNK)):
        yield chunk
