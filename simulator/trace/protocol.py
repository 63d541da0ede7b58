"""Every choice the AsyncThink paper leaves open, in one frozen object."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from simulator.errors import ConfigError
from simulator.support.checks import one_of, real, whole
from simulator.trace.full_pool import WHEN_FULL
from simulator.trace.model import ViolationKind

SlotRelease = Literal["return", "join"]
AfterAnswer = Literal["cancel", "finish"]
AfterEnd = Literal["count", "ignore"]

FORMAT_ERRORS = frozenset(
    {
        ViolationKind.DUPLICATE_INDEX,
        ViolationKind.POOL_OVERFLOW,
        ViolationKind.UNKNOWN_JOIN,
        ViolationKind.MISSING_ANSWER,
    }
)
"""The format errors of the AsyncThink paper."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """The rules of one organizer-worker run.

    >>> Protocol(capacity=4).with_(when_full="block")
    Protocol(capacity=4, when_full='block')
    """

    capacity: int | None = None
    """Pool capacity c: the organizer plus at most c - 1 live workers. None: no limit, and no eta/c. The paper uses 4
    for mathematics and 2 for Countdown."""

    when_full: str = "queue"
    """What a runtime does with a Fork on a full pool. ``queue``: the worker waits, its parent goes on (default: nothing
    of the trace is lost). ``block``: the parent waits. ``inline``: the parent does the sub-query itself. ``drop``: the
    worker never runs, its Join returns nothing. ``allow``: it runs all the same. Whatever is chosen here, the logical
    clock counts the Fork as a pool overflow. These are the behaviours of `simulator.trace.full_pool.WHEN_FULL`."""

    release: SlotRelease = "return"
    """When a worker frees its slot: at its Return (default: a finished agent decodes nothing) or when it is joined."""

    after_answer: AfterAnswer = "cancel"
    """What becomes of workers still running when the query is answered: cancelled, their later tokens not counted
    (default: nobody can read them), or left to finish."""

    after_end: AfterEnd = "count"
    """What a thread does after its Answer or Return. ``count`` (default): it was decoded, so the thread ends where its
    actions do, and the last Answer is the one that counts: where the tag stands, the policy decides. ``ignore``: the
    runtime stops at the tag, so nothing after the first is played. Either way it is a violation."""

    count_organizer: bool = True
    """Does the number of active agents include a decoding organizer? Default yes: then a trace without a Fork has
    eta/c = 1/c, as the paper's tables do."""

    charge_inserted: bool = False
    """Do tokens inserted at a Join cost decode steps? Default no: on a GPU they are prefill, many in one step."""

    nested_forks: bool = True
    """May a worker Fork? The paper's runs have none; its future work and its sibling dialects do (default yes)."""

    delay_steps_per_second: float = 0.0
    """Decode steps one second of Delay is worth on the decode-step clock. Default 0: the paper's unit counts tokens."""

    format_errors: frozenset[ViolationKind] = FORMAT_ERRORS
    """Which violations earn the format-error reward. Default: the paper's four."""

    format_error_reward: float = -1.0
    """R_FE. The paper gives no value; below any legal reward, so that a malformed answer is never the better one."""

    eta_weight: float = 0.5
    """Lambda, the weight of the concurrency term. The paper gives no value; at one half a wrong but parallel answer
    never earns more than half of a right one."""

    eta_threshold: float = 1.0
    """Tau: eta/c earns nothing more beyond it. The paper caps eta to stop concurrency for its own sake but gives no
    value; at 1 (default) the cap is the pool itself."""

    def __post_init__(self) -> None:
        whole("capacity", self.capacity, "from 1 to 10^9, or None for no limit")
        one_of("when_full", self.when_full, WHEN_FULL)
        one_of("release", self.release, get_args(SlotRelease))
        one_of("after_answer", self.after_answer, get_args(AfterAnswer))
        one_of("after_end", self.after_end, get_args(AfterEnd))
        if not 0 <= self.delay_steps_per_second <= 1e6:
            raise ConfigError(f"delay_steps_per_second must be from 0 to 10^6, got {self.delay_steps_per_second!r}")
        if not 0 < self.eta_threshold <= 1:
            raise ConfigError(f"eta_threshold must be above 0 and at most 1, got {self.eta_threshold!r}")
        real("format_error_reward", self.format_error_reward)
        real("eta_weight", self.eta_weight)
        if self.format_errors is not FORMAT_ERRORS:
            try:
                object.__setattr__(self, "format_errors", frozenset(map(ViolationKind, self.format_errors)))
            except ValueError as error:
                raise ConfigError(f"format_errors: {error}; there are {', '.join(ViolationKind)}") from None

    def with_(self, **changes: Any) -> Protocol:
        """Return a copy with `changes` made."""
        return replace(self, **changes)

    def delay_steps(self, seconds: float) -> int:
        """Decode steps that `seconds` of Delay take on the decode-step clock, rounded up."""
        return math.ceil(seconds * self.delay_steps_per_second)

    def __repr__(self) -> str:
        changed = (
            f"{name}={value!r}"
            for name, value in ((name, getattr(self, name)) for name in self.__dataclass_fields__)
            if value != self.__dataclass_fields__[name].default
        )
        return f"Protocol({', '.join(changed)})"
