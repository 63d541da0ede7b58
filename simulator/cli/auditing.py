"""``forksim audit``: what a reward follows, and how it can be gamed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.text import Text

from simulator.audit import (
    EXPLOITS,
    FORGERIES,
    Audit,
    Corpus,
    Judge,
    Scored,
    Search,
    TextSearch,
    as_written,
    reward_of_texts,
    search_texts,
)
from simulator.audit import audit as run
from simulator.cli.against import Compared
from simulator.cli.common import Input, Json, print_json, say, screen_width, show, table, tell, wrote
from simulator.cli.forging import of_texts, print_texts, reward_of
from simulator.cli.forging import records as text_records
from simulator.cli.layout import NARROW
from simulator.cli.options import ReadOptions, grouped
from simulator.cli.report import number, printable
from simulator.engine.simulation import simulate
from simulator.errors import ConfigError, FormatError
from simulator.formats.reading import dump
from simulator.graph.compiler import compile_trace
from simulator.integrations import Scorer
from simulator.machine.gpu import GPU
from simulator.machine.profiles import DEFAULT_GPU
from simulator.rewards import FORMAT_ERROR, REWARDS, Reward
from simulator.support.files import atomic
from simulator.trace import Trace
from simulator.trace.protocol import Protocol

_CAPACITY = 4

LEGEND = """\
In each pair, A earns more than B although A is no more correct and takes longer: at least --slower times as many
simulated seconds, and more decode steps T as well (see --clocks). Only in wrong_first A may be quicker. "found"
counts the pairs that are like this, "most" is the largest gain, and the pair that is shown is the smallest; "actions"
are those of A and of B."""
CORPUS_LEGEND = """\
"of variance" is the share of the reward's variance that a term accounts for, negative where it works against the
others; "in groups" is the same within the groups. "at its most" is the share of the rollouts for which the term pays
its maximum. Rollouts "at the gate" earn what a format error costs, and nothing else."""


@dataclass(frozen=True)
class Hunt:
    """What is searched, and what counts as a find."""

    exploits: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help=f"What to search: all, none, or some of {', '.join(EXPLOITS)}; among texts {', '.join(FORGERIES)}.",
        ),
    ] = "all"
    budget: Annotated[int, typer.Option(help="Pairs to try for each exploit.")] = 300
    seed: Annotated[int, typer.Option(help="Seed of synthetic traces and of the search.")] = 0
    gain: Annotated[float, typer.Option(help="How much more A must earn at least.")] = 0.01
    slower: Annotated[float, typer.Option(help="How many times as long A must take at least.")] = 1.1
    clocks: Annotated[
        str, typer.Option(help="By which A must be slower: both (simulated seconds and T), or seconds.")
    ] = "both"
    group_size: Annotated[int, typer.Option(help="Rollouts a query: so many in a row, or by meta.group.")] = 8


@grouped
def audit(
    reward: Annotated[
        str,
        typer.Argument(
            metavar="REWARD",
            help=f"One of {', '.join(REWARDS)}, a .toml file, or MODULE:NAME or FILE.py:NAME for one in Python.",
        ),
    ],
    traces: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TRACE]...", help="Files of judged traces; by default synthetic ones."),
    ] = None,
    gpu: Annotated[str, typer.Option(help="Machine that times are simulated on; as for forksim run.")] = DEFAULT_GPU,
    load: Annotated[int, typer.Option(help="Queries alike that arrive at it at once.")] = 1,
    capacity: Annotated[
        int | None, typer.Option("--capacity", "-c", help="Pool capacity c.", show_default="the reward file's, or 4")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="DIR", help="Write pictures and traces of the pairs, and all figures."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="REWARD", help="Another reward, to compare with: how much each is open to.")
    ] = None,
    fail: Annotated[
        bool,
        typer.Option(
            "--fail",
            help="Exit with 1 if anything is found; with --against, if anything that the other is not open to.",
        ),
    ] = False,
    json: Json = False,
    *,
    hunt: Hunt,
    reading: ReadOptions,
) -> int:
    """Audit a reward: what it follows over a corpus, and the smallest rollouts that game it.

    One in Python is any function of a text, as its trainer calls it.
    """
    spec = reward_of(reward)
    if traces and not isinstance(spec, Reward):
        raise ConfigError(f"{reward} is a function of texts, and a TRACE is none: it is for a Reward")
    machine: Any = {"gpu": gpu, "load": load}
    judge = _judge(spec, capacity, machine, hunt)
    other = None if against is None else reward_of(against)
    second = None if other is None else _judge(other, capacity, machine, hunt)
    search: Any = {"budget": hunt.budget, "seed": hunt.seed}
    about = {"reward": reward, **machine, "capacity": judge.protocol.capacity, **search}
    source = reading.input(traces) if traces else None
    found, texts = _audited(spec, judge, source, hunt)
    compared = None
    if other is not None and second is not None:
        compared = Compared(found, texts, *_audited(other, second, None, hunt))
    if source is not None:
        for name in found.corpus.unscored:
            source.refuse(FormatError(f"trace {name!r} cannot be scored, or not be run on {gpu}"))
    records = _records(found, texts, about)
    if compared is not None:
        records += compared.records(str(against))
    if out is not None:
        _write(found, records, Path(out))
    if json:
        for record in records:
            print_json(record)
    else:
        _print(found, about)
        if texts:
            say()
            print_texts(texts)
        if compared is not None:
            compared.print(reward, str(against))
    if out is not None:
        wrote(out, json)
    code = source.exit_code if source else 0
    is_open = bool(found.pairs or any(each.found for each in texts)) if compared is None else bool(compared.worse)
    return code or (1 if fail and is_open else 0)


def _judge(spec: Reward | Scorer | Callable[..., Any], capacity: int | None, machine: Any, hunt: Hunt) -> Judge:
    """Return what a reward is held against."""
    rules = (spec.protocol if isinstance(spec, Reward) else None) or Protocol()
    if capacity is not None or rules.capacity is None:
        rules = rules.with_(capacity=_CAPACITY if capacity is None else capacity)
    wanted: Any = {"gain": hunt.gain, "slower": hunt.slower, "clocks": hunt.clocks}  # it refuses what it does not know
    if isinstance(spec, Reward):
        return Judge(reward=spec, protocol=rules, **machine, **wanted)
    return Judge(reward=reward_of_texts(of_texts(spec, rules)), protocol=rules, form=as_written, **machine, **wanted)


def _audited(
    spec: Reward | Scorer | Callable[..., Any], judge: Judge, source: Input | None, hunt: Hunt
) -> tuple[Audit, list[TextSearch]]:
    """Return what is found of a reward, and among texts."""
    exploits, forgeries = _names(hunt.exploits)
    if isinstance(spec, Reward) and spec.format not in (None, "asyncthink"):
        forgeries = []  # which are written in AsyncThink's tags
    search: Any = {"budget": hunt.budget, "seed": hunt.seed}
    texts = search_texts(of_texts(spec, judge.protocol), forgeries, gain=hunt.gain, **search)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="some rollouts Fork")  # as some of these are meant to
        return run(judge, source, exploits=exploits, group_size=hunt.group_size, **search), texts


def _names(text: str) -> tuple[list[str], list[str]]:
    """Return the exploits and the forgeries that ``--exploits`` names."""
    if text in ("all", "none"):
        return (list(EXPLOITS), list(FORGERIES)) if text == "all" else ([], [])
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in EXPLOITS and name not in FORGERIES:
            accepted = ", ".join((*EXPLOITS, *FORGERIES))
            raise ConfigError(f"--exploits takes all, none, or some of {accepted}; got {name!r}")
    return [name for name in names if name in EXPLOITS], [name for name in names if name in FORGERIES]


def _records(found: Audit, texts: list[TextSearch], about: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all figures, as JSON lines have them."""
    records: list[dict[str, Any]] = [{"corpus": found.corpus}]
    for each in found.searches:
        record: dict[str, Any] = {"exploit": each.exploit, "tried": each.tried, "found": each.found}
        if each.pair is not None:
            record |= {"gain": each.pair.gain, "largest_gain": each.largest_gain, "slowdown": each.pair.slowdown}
            record |= {"reason": each.reason, "a": _trial(each.pair.a), "b": _trial(each.pair.b)}
        records.append(record)
    open_to = len(found.pairs) + sum(each.pair is not None for each in texts)
    summary = {**about, "searched": len(found.searches) + len(texts), "open": open_to}
    return [*records, *text_records(texts), {"summary": summary}]


def _trial(trial: Scored) -> dict[str, Any]:
    score = trial.score
    figures = {"reward": score.total, "terms": score.terms, "accuracy": score.accuracy, "T_steps": score.latency}
    kinds = sorted({violation.kind.value for violation in score.violations})
    return {**figures, "seconds": trial.seconds, "eta": score.eta, "kinds": kinds, "trace": trial.trace}


def _write(found: Audit, records: list[dict[str, Any]], folder: Path) -> None:
    """Write a picture a pair, the pairs as traces, and the figures."""
    from simulator import plots

    judge = found.judge
    gpu = judge.gpu if isinstance(judge.gpu, GPU) else None
    for name, each in ((each.exploit, each) for each in found.searches):
        if each.pair is None or gpu is None:
            continue
        timelines = [
            simulate([compile_trace(trial.trace, judge.protocol)] * judge.load, gpu=gpu, on_deadlock="record")
            for trial in each.pair
        ]
        notes = [f"earns {number(trial.score.total)}" for trial in each.pair]
        plots.save(plots.side_by_side(timelines, notes=notes, caption=f"{name}: {each.reason}"), folder / f"{name}.png")
    with atomic(folder / "pairs.jsonl") as file:
        dump(_pairs(found), file, "native")
    with atomic(folder / "audit.jsonl", "wb") as file:
        for record in records:
            file.write(msgspec.json.encode(record) + b"\n")


def _pairs(found: Audit) -> list[Trace]:
    return [
        msgspec.structs.replace(trial.trace, id=f"{name}-{trial.trace.id}")
        for name, pair in found.pairs.items()
        for trial in pair
    ]


def _print(found: Audit, about: dict[str, Any]) -> None:
    tell(f"{about['reward']}, c = {about['capacity']}, times on {about['gpu']} under a load of {about['load']}")
    say()
    _print_corpus(found.corpus)
    if found.searches:
        _print_searches(found.searches)


def _print_corpus(corpus: Corpus) -> None:
    sizes = f"{corpus.traces:,} rollouts: {corpus.right:,} right, {corpus.gated:,} at the gate"
    unjudged = corpus.traces - corpus.judged
    sizes += f", {unjudged:,} not judged" if unjudged else ""
    sizes += f", {len(corpus.unscored):,} cannot be scored" if corpus.unscored else ""
    tell(sizes)
    lines = table("rank correlation with", "all", "right ones")
    for name, follows in corpus.follows.items():
        lines.add_row(name, _signed(follows.all), _signed(follows.right))
    show(lines)
    if (about := _pointless(corpus)) is not None:
        tell(about)
    lines = table("term", "mean", "std", "of variance", "in groups", "at its most", "with correctness")
    for name, term in corpus.terms.items():
        if name == FORMAT_ERROR and not corpus.gated:
            continue
        shares = (_percent(term.share), _percent(corpus.groups.shares[name]), _percent(term.at_most))
        lines.add_row(
            Text(printable(name)), number(term.mean), number(term.std), *shares, _signed(term.follows_correctness)
        )
    show(lines)
    tell(CORPUS_LEGEND)
    groups = corpus.groups
    tell(f"{groups.groups:,} groups, {groups.mixed:,} of them with right and wrong answers")
    tell(f"the wrong answer earns as much as the right one: {_percent(groups.wrong_first)} of pairs in a group")
    tell(f"of two equally correct the slower earns more: {_percent(groups.slow_first)} of pairs in a group")
    other = f"; most of the rest is {groups.loudest}" if groups.loudest else ""
    tell(
        f"correctness explains {_percent(groups.explained)} of advantages,"
        f" {_percent(groups.explained_std)} if divided by the deviation{other}"
    )
    tell(
        f"advantages in groups all right or all wrong, over those in the other groups: {number(groups.even)},"
        f" {number(groups.even_std)} if divided by the deviation"
    )
    say()


_FOLLOWS = 0.1
"""A rank correlation with correctness below which a reward does not follow it."""


def _pointless(corpus: Corpus) -> str | None:
    """Return what to say of a reward that has nothing to do with correctness; None where it has."""
    follows = corpus.follows["correctness"].all
    if math.isnan(follows):
        return "All these rollouts earn the same, or all are equally right: what follows says little about this reward."
    if follows < _FOLLOWS:
        return (
            f"This reward does not follow correctness (rank correlation {follows:+.2f}): what follows says little. Does"
            " it get the text, the workers and the truth in the right order?"
        )
    return None


def _print_searches(searches: tuple[Search, ...]) -> None:
    narrow = screen_width() < NARROW
    columns = ("found", "A earns", "B earns", "gain", "most", "slower", "actions")
    lines = table("exploit: A ...", *columns[: 6 if narrow else 7])
    for each in searches:
        what = Text(f"{each.exploit}: {EXPLOITS[each.exploit].what}")
        pair = each.pair
        cells = [f"{each.found:,} of {each.tried:,}"]
        if pair is not None:
            cells += [number(pair.a.score.total), number(pair.b.score.total), number(pair.gain)]
            cells += [number(each.largest_gain), f"{pair.slowdown:.2f} x", f"{pair.a.actions} + {pair.b.actions}"]
        lines.add_row(what, *cells[: 6 if narrow else 7])
    show(lines)
    for each in searches:
        if each.reason:
            tell(f"{each.exploit}: {each.reason}")
    open_to = sum(each.pair is not None for each in searches)
    if open_to:
        say(f"\nopen to {open_to} of {len(searches)} exploits")
        tell(LEGEND)
        return
    kinds = "kind" if len(searches) == 1 else "kinds"
    climbed = sum(each.tried for each in searches if EXPLOITS[each.exploit].guided)
    pairs = sum(each.tried for each in searches) - climbed
    tried = [f"{pairs:,} pairs of rollouts"] if pairs else []
    tried += [f"{climbed:,} rollouts of a guided search"] if climbed else []
    say(f"\nnone found in {' and '.join(tried)}, {len(searches)} {kinds}")


def _percent(value: float) -> str:
    return "-" if value != value else f"{value:.0%}"


def _signed(value: float) -> str:
    return "-" if value != value else f"{value:+.2f}"
