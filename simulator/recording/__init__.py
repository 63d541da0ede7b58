"""Recording real runs: the organizer-worker protocol played on a real engine, and what it did as traces."""

from __future__ import annotations

from simulator.recording.driver import Setup, record
from simulator.recording.free import Prompts, Question

__all__ = ["Prompts", "Question", "Setup", "record"]
