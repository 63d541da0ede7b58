"""Rewards inside trainers: verl, TRL, OpenRLHF, verifiers, slime.

A module each, and none imports its framework: it only has the shape that the framework calls. All of them are thin over
`Scorer`, which is thin over `simulator.score_batch`. What is wrong with a rollout is a matter of its row; what is wrong
with the set-up raises `ConfigError` when the function is made, before any training.
"""

from simulator.integrations.scorer import Scorer, exact

__all__ = ["Scorer", "exact"]
