"""``forksim record``: queries played on a real engine, and a trace of each."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Annotated, Any

import msgspec
import numpy as np
import typer

from simulator.support.interrupts import Terminated
from simulator.cli.common import Paths, complain, stdout, wrote
from simulator.cli.load import poisson_rate
from simulator.cli.options import PoolOptions, ReadOptions, grouped
from simulator.cli.pieces import with_imports
from simulator.errors import ConfigError, FormatError
from simulator.formats import native
from simulator.recording import Prompts, Question, Setup
from simulator.recording import record as play
from simulator.recording.questions import questions
from simulator.recording.writing import Lines, StepLines, burst_row
from simulator.trace import Trace
from simulator.workload import poisson_arrivals

Query = Trace | Question


class OneOf(typer.core.TyperGroup):
    """The two commands. Whatever else stands in their place is told which there are."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is asked for."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise ConfigError(
                "record is two commands: forksim record server URL TRACE..., and forksim record llama FILE.gguf"
                f" TRACE...; got {args[0]!r}"
            )
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=OneOf,
    help="Play queries on a real engine, organizer and workers, and record a trace of each.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@dataclass(frozen=True)
class Plan:
    """What is played, when, and where it is written."""

    mode: Annotated[
        str, typer.Option(help="scripted: structure and token counts of traces; free: the model is asked questions.")
    ] = "scripted"
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE", help="Where to write; standard output if not given.")
    ] = None
    append: Annotated[bool, typer.Option("--append", help="Add to files that are there.")] = False
    arrivals: Annotated[
        str, typer.Option(help="closed: when another is over; together: all at 0; recorded; poisson:PER_SECOND.")
    ] = "closed"
    concurrency: Annotated[int, typer.Option(help="Queries open at once, with closed arrivals.")] = 1
    max_workers: Annotated[int | None, typer.Option(help="Workers that run at once, over all queries.")] = None
    timeout: Annotated[float, typer.Option(help="Seconds that a query may take.")] = 600.0
    repeat: Annotated[int, typer.Option(min=1, help="How often each run is recorded.")] = 1
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="Put in front of the names of runs and traces.")] = ""
    seed: Annotated[int, typer.Option(min=0, help="Of Poisson arrivals, sampling and filler.")] = 0
    bursts: Annotated[str | None, typer.Option(metavar="FILE", help="Write when each burst of tokens came.")] = None


@dataclass(frozen=True)
class Asking:
    """What the model is asked in free mode."""

    temperature: Annotated[float, typer.Option(help="Of sampling in free mode.")] = 0.0
    max_tokens: Annotated[int, typer.Option(help="Free mode: tokens that an organizer decodes at most.")] = 2048
    worker_tokens: Annotated[int, typer.Option(help="Free mode: tokens that a worker decodes at most.")] = 512
    organizer_prompt: Annotated[
        str | None, typer.Option(metavar="FILE", help="Free mode: a prompt with {question} in it.")
    ] = None
    worker_prompt: Annotated[
        str | None, typer.Option(metavar="FILE", help="Free mode: a prompt with {question} in it.")
    ] = None
    nested_forks: Annotated[bool, typer.Option(help="Free mode: may a worker Fork?")] = False

    def prompts(self) -> Prompts:
        """Return the prompts, with the files read.

        Raises
        ------
        ConfigError
            If a file cannot be read, or a number is out of range.
        """
        if not 0 <= self.temperature <= 100:
            raise ConfigError(f"--temperature takes a number from 0 to 100, got {self.temperature!r}")
        prompts = Prompts(organizer_tokens=self.max_tokens, worker_tokens=self.worker_tokens)
        if self.organizer_prompt is not None:
            prompts = replace(prompts, organizer=_file(self.organizer_prompt))
        return prompts if self.worker_prompt is None else replace(prompts, worker=_file(self.worker_prompt))


@app.command("server")
@with_imports
@grouped
def server(
    url: Annotated[str, typer.Argument(metavar="URL", help="An OpenAI-compatible server.")],
    traces: Paths,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="The model, as the server calls it.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Use /v1/chat/completions.")] = False,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="The environment variable that holds the server's key.")
    ] = None,
    body: Annotated[
        str | None, typer.Option(metavar="JSON", help="More keys for each request; null takes one out.")
    ] = None,
    *,
    plan: Plan,
    asking: Asking,
    pool: PoolOptions,
    reading: ReadOptions,
) -> int:
    """Record on an OpenAI-compatible server."""

    def engine(stack: ExitStack) -> tuple[Any, None]:
        from simulator.recording.server import ServerEngine

        sampling: Any = {"temperature": asking.temperature, "seed": plan.seed}
        return ServerEngine(url, model, chat=chat, api_key=_key(api_key_env), body=_body(body), **sampling), None

    return _record(traces, engine, plan, asking, pool, reading)


@app.command("llama", short_help="Record on llama.cpp in this process, every step timed.")
@with_imports
@grouped
def llama(
    file: Annotated[str, typer.Argument(metavar="FILE.gguf", help="A model for llama.cpp in this process.")],
    traces: Paths,
    context: Annotated[int, typer.Option(help="Tokens that the KV cache holds.")] = 8192,
    max_prefill: Annotated[int, typer.Option(help="Prompt tokens in a step.")] = 128,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    steps: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write every engine step, CSV or JSON lines.")
    ] = None,
    *,
    plan: Plan,
    asking: Asking,
    pool: PoolOptions,
    reading: ReadOptions,
) -> int:
    """Record on llama.cpp in this process, where every engine step can be timed."""

    def engine(stack: ExitStack) -> tuple[Any, StepLines | None]:
        from simulator.recording.llamacpp import LlamaEngine

        lines = StepLines(stack.enter_context(Lines(steps, append=plan.append))) if steps is not None else None
        limits: Any = {"context": context, "max_prefill": max_prefill, "threads": threads}
        sampling: Any = {"temperature": asking.temperature, "seed": plan.seed}
        return LlamaEngine(file, on_step=lines.add if lines else None, **limits, **sampling), lines

    return _record(traces, engine, plan, asking, pool, reading)


def _record(
    traces: list[str],
    make_engine: Callable[[ExitStack], tuple[Any, StepLines | None]],
    plan: Plan,
    asking: Asking,
    pool: PoolOptions,
    reading: ReadOptions,
) -> int:
    """Play the queries on the engine that `make_engine` gives; return the exit code."""
    if plan.mode not in ("scripted", "free"):
        raise ConfigError(f"--mode takes scripted or free, got {plan.mode!r}")
    kind, rate = _arrivals(plan.arrivals)
    if plan.concurrency != 1 and kind != "closed":
        raise ConfigError("--concurrency goes with --arrivals closed; other arrivals say themselves who is open when")
    setup = Setup(
        protocol=pool.protocol(nested_forks=asking.nested_forks or plan.mode == "scripted"),
        users=plan.concurrency,
        max_workers=plan.max_workers,
        timeout=plan.timeout,
        prompts=asking.prompts(),
    )
    source = _Source(traces, plan.mode, reading)
    queries = list(source)
    if not queries:
        return source.exit_code
    with ExitStack() as stack:
        burst_lines = stack.enter_context(Lines(plan.bursts, append=plan.append)) if plan.bursts is not None else None
        lines = stack.enter_context(Lines(plan.out, append=plan.append)) if plan.out not in (None, "-") else None
        engine, step_lines = make_engine(stack)
        stack.callback(engine.shut)
        writer = _Writer(lines.write if lines else lambda line: (stdout.write(line + "\n"), stdout.flush()))
        with writer:
            for number, (rep, name, group) in enumerate(_runs(queries, plan.repeat, plan.prefix, kind)):
                if step_lines:
                    step_lines.run = name
                times = _times(group, kind, rate, plan.seed + number)
                meta: dict[str, Any] = {"rep": rep, "load": round(os.getloadavg()[0], 2)}
                on_generation = _bursts(burst_lines, name)
                play(
                    group,
                    engine,
                    writer.emit,
                    replace(setup, run=name, meta=meta, on_generation=on_generation),
                    arrivals=times,
                )
    if plan.out not in (None, "-"):  # else the traces are on standard output, and nothing else belongs there
        for path in filter(None, (plan.out, plan.bursts)):
            wrote(path)
    return max(source.exit_code, 2 if writer.failed else 0)


def _arrivals(text: str) -> tuple[str, float]:
    kind, colon, rate = text.partition(":")
    if kind not in ("closed", "together", "recorded", "poisson") or (kind == "poisson") != bool(colon):
        raise ConfigError(f"--arrivals takes closed, together, recorded or poisson:PER_SECOND; got {text!r}")
    return kind, poisson_rate(rate) if colon else 0.0


def _times(group: list[Query], kind: str, rate: float, seed: int) -> list[float] | None:
    """Return when each query of a run arrives; None where that is when another is over."""
    if kind == "closed":
        return None
    if kind == "together":
        return [0.0] * len(group)
    if kind == "poisson":
        return [float(time) for time in poisson_arrivals(len(group), rate, np.random.default_rng(seed))]
    times = []
    for query in group:
        arrival = query.arrival if isinstance(query, Trace) else None
        if arrival is None:
            raise ConfigError(
                f"query {query.id!r} has no recorded arrival; use --arrivals together or poisson:PER_SECOND"
            )
        times.append(arrival)
    return times


def _runs(queries: list[Query], repeat: int, prefix: str, arrivals: str) -> Iterator[tuple[int, str, list[Query]]]:
    """Yield each run with the number of its repeat and its name: the traces with one ``meta["run"]``, or all.

    What is asked again in just the same way has the same ``meta["spec"]``, by which ``forksim validate`` knows repeats.
    """

    def run(query: Query) -> str:
        return str(query.meta.get("run", "run")) if isinstance(query, Trace) else "run"

    groups = [(name, list(group)) for name, group in groupby(queries, key=run)]
    for _, members in groups:
        if all(query.arrival is not None for query in members if isinstance(query, Trace)):
            members.sort(key=lambda query: query.arrival or 0.0 if isinstance(query, Trace) else 0.0)
    for rep in range(repeat):  # all once, then all again: what differs between repeats includes the time of day
        mark = "" if repeat == 1 else f"#{rep}"
        for name, members in groups:
            spec = {} if arrivals == "poisson" else {"spec": f"{prefix}{name} {arrivals}"}
            named = [_named(each, f"{prefix}{each.id}{mark}", spec) for each in members]
            yield rep, prefix + (name if repeat == 1 else f"{name}-{rep}"), named


def _named(query: Query, name: str, meta: dict[str, str]) -> Query:
    if isinstance(query, Trace):  # the answer to a question is another one each time
        return msgspec.structs.replace(query, id=name, meta={**meta, **query.meta})
    return msgspec.structs.replace(query, id=name)


class _Source:
    """The queries of some files."""

    def __init__(self, paths: list[str], mode: str, reading: ReadOptions) -> None:
        self.paths = paths
        self.input = reading.input(paths, streams=True)
        self.free = mode == "free"

    def __iter__(self) -> Iterator[Query]:
        if not self.free:
            yield from self.input
            return
        for path in self.paths:
            for item in questions(path):
                if isinstance(item, FormatError):
                    self.input.refuse(item)
                else:
                    yield item

    @property
    def exit_code(self) -> int:
        return self.input.exit_code


class _Writer:
    """Writes traces as they come. Ctrl-C ends the recording between two lines; a second one waits for the writing."""

    def __init__(self, write: Callable[[str], Any]) -> None:
        self.write = write
        self.failed = 0
        self.told: type[KeyboardInterrupt] | None = None
        self.writing = False
        self.old: list[tuple[int, Any]] = []

    def __enter__(self) -> _Writer:
        if threading.current_thread() is threading.main_thread():
            self.old = [(number, signal.signal(number, self._hit)) for number in (signal.SIGINT, signal.SIGTERM)]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.old:
            signal.signal(number, handler)

    def _hit(self, number: int, _: object) -> None:
        if not self.told:
            self.told = Terminated if number == signal.SIGTERM else KeyboardInterrupt
            if not self.writing:
                raise self.told

    def emit(self, trace: Trace) -> None:
        """Write a trace, and say on stderr what went wrong with it."""
        told, self.writing = self.told, True
        self.write(native.render(trace))
        self.writing = False
        if trace.meta.get("error"):
            self.failed += 1
            complain(f"{trace.id}: {trace.meta['ended']}: {trace.meta['error']}")
        for key, what in (("short_tokens", "fewer"), ("extra_tokens", "more")):
            if trace.meta.get(key):
                complain(f"{trace.id}: the engine decoded {trace.meta[key]} tokens {what} than were asked for")
        if self.told and not told:
            raise self.told


def _bursts(lines: Lines | None, run: str) -> Callable[..., None] | None:
    if lines is None:
        return None
    return lambda agent, generation: lines.write(burst_row(run, agent.query.id, agent.name, generation))


def _file(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path!r}: cannot be read ({error})") from None


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise ConfigError(f"--api-key-env: the environment variable {variable} is not set")
    return key


def _body(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ConfigError(f"--body takes a JSON object: {error}") from None
