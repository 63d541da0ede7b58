"""Options that several commands take: each group is a frozen record, and is said once.

A command decorated with `grouped` may have such a record for a parameter. On the command line the record's fields stand
in its place, so an option that is added to a record is an option of every command that takes the record.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from typing import Annotated, Any, get_type_hints

import typer

from simulator.cli.common import Input
from simulator.errors import ConfigError
from simulator.formats import readable
from simulator.machine.cost import COSTS, usage
from simulator.machine.gpu import Cluster
from simulator.machine.policy import POLICIES
from simulator.machine.profiles import gpu_from_text
from simulator.machine.routing import ROUTINGS
from simulator.trace.full_pool import WHEN_FULL
from simulator.trace.protocol import Protocol

_MODELS = ", ".join(f"{name}:..." for name in COSTS if usage(name))
LIMITS = ("max_num_seqs", "max_num_batched_tokens", "max_prefill_tokens", "num_kv_blocks")


def grouped(command: Callable[..., int]) -> Callable[..., int]:
    """Return `command` with the fields of each record among its parameters in the place of the record.

    >>> @dataclass(frozen=True)
    ... class Size:
    ...     width: int = 3
    ...     height: int = 4
    >>> @grouped
    ... def area(name: str, size: Size) -> int:
    ...     return size.width * size.height
    >>> list(inspect.signature(area).parameters), area(name="a", width=5, height=2)
    (['name', 'width', 'height'], 10)
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        if is_dataclass(kind):
            groups[parameter.name] = kind
            parameters += _options(kind)
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=kind))

    def flat(**given: Any) -> int:
        records = {
            name: kind(**{item.name: given.pop(item.name) for item in fields(kind)}) for name, kind in groups.items()
        }
        return command(**given, **records)

    flat.__name__, flat.__doc__ = command.__name__, command.__doc__
    flat.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": int}
    return flat


def _options(record: Any) -> Iterator[inspect.Parameter]:
    """Yield the fields of a record as parameters."""
    kinds = get_type_hints(record, include_extras=True)
    for item in fields(record):
        default = item.default if item.default_factory is MISSING else item.default_factory()
        given = inspect.Parameter.empty if default is MISSING else default
        yield inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=given, annotation=kinds[item.name])


@dataclass(frozen=True)
class ReadOptions:
    """How files of traces are read."""

    format: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT", help=f"Format of all traces: {', '.join(readable())}; by default found from each."
        ),
    ] = None
    tokens: Annotated[
        str,
        typer.Option(
            help="How to count tokens where no count is recorded: characters, words, or a path to a tokenizer.json."
        ),
    ] = "characters"
    block_size: Annotated[
        int | None, typer.Option(help="Tokens in a block of a Mooncake log's hash_ids.", show_default="512")
    ] = None

    def input(self, paths: list[str], *, keep_text: bool = False, streams: bool = False) -> Input:
        """Return the traces of some files."""
        block_size = self.block_size
        return Input(paths, self.format, self.tokens, keep_text=keep_text, streams=streams, block_size=block_size)


Capacity = Annotated[
    int | None,
    typer.Option("--capacity", "-c", help="Pool capacity c: the organizer and c - 1 workers.", show_default="no limit"),
]


def _known_behaviour(mode: str) -> str:
    if mode not in WHEN_FULL:
        raise ConfigError(f"--full-pool takes {', '.join(WHEN_FULL)}; got {mode!r}")
    return mode


@dataclass(frozen=True)
class PoolOptions:
    """The pool of agents of each query."""

    capacity: Capacity = None
    full_pool: Annotated[
        str,
        typer.Option(
            metavar="MODE",
            callback=_known_behaviour,
            help=f"What a Fork on a full pool does: {', '.join(WHEN_FULL)}.",
        ),
    ] = "queue"

    def protocol(self, **more: Any) -> Protocol:
        """Return the protocol with this pool, and what else is given."""
        return Protocol(capacity=self.capacity, when_full=self.full_pool, **more)


@dataclass(frozen=True)
class MachineOptions:
    """The machine that queries are simulated on, and in which order it takes them."""

    gpu: Annotated[
        list[str],
        typer.Option(
            help="steps (the decode-step clock), a profile (see forksim gpus) or its .toml file, or a cost model with"
            f" its numbers: {_MODELS}. Several make a cluster."
        ),
    ] = field(default_factory=lambda: ["steps"])
    replicas: Annotated[int, typer.Option(min=1, max=10_000, help="How many of each --gpu.")] = 1
    routing: Annotated[str, typer.Option(help=f"In a cluster, by request: {', '.join(ROUTINGS)}.")] = "least-loaded"
    max_num_seqs: Annotated[int | None, typer.Option(help="Most sequences in a batch.")] = None
    max_num_batched_tokens: Annotated[int | None, typer.Option(help="Most tokens in an engine step.")] = None
    max_prefill_tokens: Annotated[int | None, typer.Option(help="Most prompt tokens in an engine step.")] = None
    num_kv_blocks: Annotated[int | None, typer.Option(help="Blocks of KV memory, of 16 tokens each.")] = None
    max_workers: Annotated[int | None, typer.Option(min=1, help="Most workers of all queries at once.")] = None
    policy: Annotated[str, typer.Option(help=f"Admission to a full batch: {', '.join(POLICIES)}.")] = "fcfs"

    def run(self) -> dict[str, Any]:
        """Return what `simulate` takes of it.

        Raises
        ------
        ConfigError
            If there is no such GPU, routing or policy, or a limit makes no sense.
        """
        given = {name: getattr(self, name) for name in LIMITS if getattr(self, name) is not None}
        machines = [replace(gpu_from_text(name), **given) for name in self.gpu] * self.replicas
        if self.routing not in ROUTINGS:
            raise ConfigError(f"no routing is called {self.routing!r}; accepted: {', '.join(ROUTINGS)}")
        if self.policy not in POLICIES:
            raise ConfigError(f"no policy is called {self.policy!r}; accepted: {', '.join(POLICIES)}")
        cluster = Cluster(replicas=machines, routing=ROUTINGS[self.routing])
        return {"gpu": cluster, "policy": POLICIES[self.policy], "max_workers": self.max_workers}
