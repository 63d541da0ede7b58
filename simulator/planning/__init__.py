"""Capacity planning: the smallest cluster that keeps objectives, the highest load, and what a step wastes."""

from simulator.planning.changes import Change, Saving, StepPlan, changes_of, plan_step
from simulator.planning.objectives import Objective, parse_objective, parse_objectives
from simulator.planning.questions import Alternative, Gap, cheapest, compare, plan
from simulator.planning.search import Found, ladder, search
from simulator.planning.steps import RolloutStep, rollout_step
from simulator.planning.verdicts import Estimate, Rules, Trial, Verdict, in_turn, settle

__all__ = [
    "Alternative",
    "Change",
    "Estimate",
    "Found",
    "Gap",
    "Objective",
    "RolloutStep",
    "Rules",
    "Saving",
    "StepPlan",
    "Trial",
    "Verdict",
    "changes_of",
    "cheapest",
    "compare",
    "in_turn",
    "ladder",
    "parse_objective",
    "parse_objectives",
    "plan",
    "plan_step",
    "rollout_step",
    "search",
    "settle",
]
