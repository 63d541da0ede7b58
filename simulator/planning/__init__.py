"""Capacity planning: the smallest cluster that keeps objectives, the highest load, and what a step wastes."""

from simulator.planning.objectives import Objective, parse_objective, parse_objectives
from simulator.planning.search import Found, ladder, search
from simulator.planning.verdicts import Estimate, Rules, Trial, Verdict, in_turn, settle

__all__ = [
    "Estimate",
    "Found",
    "Objective",
    "Rules",
    "Trial",
    "Verdict",
    "in_turn",
    "ladder",
    "parse_objective",
    "parse_objectives",
    "search",
    "settle",
]
