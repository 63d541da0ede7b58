"""One query of a timeline, as the functions of `simulator.metrics.METRICS` see it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from simulator.graph import ExecutionGraph
from simulator.graph.clock import DecodeClock, decode_clock
from simulator.metrics.realised import breakdown
from simulator.metrics.uncontended import seconds_alone
from simulator.timeline import Span, SpanKind, Timeline


@dataclass(frozen=True)
class QueryView:
    """One query of a timeline, and what several metrics need of it, computed once."""

    timeline: Timeline
    query: int

    @property
    def graph(self) -> ExecutionGraph:
        """Its execution graph."""
        return self.timeline.graphs[self.query]

    @property
    def capacity(self) -> int | None:
        """Its pool capacity."""
        return self.timeline.protocol_of(self.query).capacity

    @cached_property
    def clock(self) -> DecodeClock:
        """Its decode-step clock."""
        protocol = self.timeline.protocol_of(self.query)
        return decode_clock(self.graph.trace, protocol)

    @cached_property
    def stretches(self) -> tuple[Span, ...]:
        """What its threads did, and waited for."""
        return tuple(self.timeline.spans(self.query))

    @cached_property
    def spans(self) -> dict[SpanKind, float]:
        """Time of all its threads by kind, in the timeline's unit."""
        seconds = dict.fromkeys(SpanKind, 0.0)
        for span in self.stretches:
            seconds[span.kind] += span.finish - span.start
        return seconds

    @cached_property
    def breakdown(self) -> dict[str, float]:
        """What its latency was spent on, in shares; see `simulator.metrics.breakdown`. Empty without an answer."""
        return breakdown(self.timeline, self.query) if not math.isnan(self.latency) else {}

    @cached_property
    def alone(self) -> list[float]:
        """Time of each task alone in the batch, in the timeline's unit."""
        return seconds_alone(self.timeline, self.query)

    @property
    def latency(self) -> float:
        """Time from arrival to answer, in the timeline's unit; NaN without an answer."""
        return float(self.timeline.latency[self.query])
