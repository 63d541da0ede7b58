"""Rewards: terms that add up, published rewards by name, and scoring at training speed.

A reward needs no simulation, only the decode-step clock in closed form; the one exception is the term `wallclock`.
"""

from simulator.rewards.batch import ScoreBatch, process_pool, score, score_batch
from simulator.rewards.credit import credit, token_weights, utilities, without_worker
from simulator.rewards.grouped import Grouped, Ramp
from simulator.rewards.library import REWARDS, make_reward
from simulator.rewards.loading import load_reward, parse_reward
from simulator.rewards.result import Phase, Rollout, Score
from simulator.rewards.rollouts import Reader
from simulator.rewards.spec import FORMAT_ERROR, Gate, Reward, Term
from simulator.rewards.terms import TERMS
from simulator.rewards.wallclock import simulated_seconds

__all__ = [
    "FORMAT_ERROR",
    "REWARDS",
    "TERMS",
    "Gate",
    "Grouped",
    "Phase",
    "Ramp",
    "Reader",
    "Reward",
    "Rollout",
    "Score",
    "ScoreBatch",
    "Term",
    "credit",
    "load_reward",
    "make_reward",
    "parse_reward",
    "process_pool",
    "score",
    "score_batch",
    "simulated_seconds",
    "token_weights",
    "utilities",
    "without_worker",
]
