"""A metric, an admission policy and a reward of one's own. Every command runs this file with --import."""

from simulator import Reward, SpanKind
from simulator.machine.policy import POLICIES
from simulator.metrics import METRICS, TIME, Metric
from simulator.rewards import REWARDS, TERMS, Term


def organizer_idle(view):
    """Time in which the organizer waits for workers."""
    spans = view.timeline.spans(view.query)
    return sum(span.finish - span.start for span in spans if span.thread == 0 and span.kind == SpanKind.WAIT_JOIN)


def longest_first(graph):
    """Admit the task with the most tokens first: the smallest key goes first."""
    return [-task.tokens for task in graph.tasks]


def brevity(rollout, *, weight: float = 0.001):
    """Pay for few tokens."""
    return -weight * rollout.work


def brief():
    """Return a reward: right answers, in few tokens."""
    return Reward(terms={"accuracy": Term(TERMS["accuracy"]), "brevity": Term(brevity)})


METRICS["organizer_idle"] = Metric(organizer_idle, TIME, "lower", "idle organizer")
POLICIES["longest-first"] = longest_first
REWARDS["brief"] = brief
