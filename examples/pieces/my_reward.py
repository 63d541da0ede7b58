"""A reward of one's own: a right answer earns 1, and up to 0.2 more the fewer decode steps it takes."""

from simulator import Protocol, Reward
from simulator.rewards import TERMS, Term


def quick(rollout, *, weight: float = 0.2, steps: float = 2000.0):
    """Pay a right answer for every decode step that it stays below `steps`."""
    return weight * max(0.0, 1 - rollout.latency / steps) if rollout.correct else 0.0


reward = Reward(
    terms={"accuracy": Term(TERMS["accuracy"]), "quick": Term(quick, {"weight": 0.2})},
    protocol=Protocol(capacity=4),
)
