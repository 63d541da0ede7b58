"""The engine without its leaps: what they are compared with, in tests and benchmarks."""

from __future__ import annotations

from simulator.engine.server import BatchServer


def step_by_step(server: type[BatchServer]) -> type[BatchServer]:
    """Return a server like `server`, with an event for every engine step."""

    class StepByStep(server):  # type: ignore[misc,valid-type]
        def plan(self) -> None:
            super().plan()
            if self.boundary is not None and self.leap_steps > 1:
                self.leap_steps = 1
                end = self.leap_start + self._decode_seconds(1)
                self.boundary = self.clock.call_at(max(end, self.clock.now), self._arrive)

    return StepByStep
