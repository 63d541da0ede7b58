"""Audit of rewards: does a reward follow what it is meant to reward, and can it be gamed?"""

from simulator.audit.adversary import Search, search
from simulator.audit.exploits import EXPLOITS
from simulator.audit.truth import Judge, Pair, Trial

__all__ = ["EXPLOITS", "Judge", "Pair", "Search", "Trial", "search"]
