"""Rollouts of the search as texts: so a reward that is any function of a text is held against all that is drawn."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from simulator.audit.forgeries import Written
from simulator.errors import why
from simulator.formats import asyncthink
from simulator.rewards import Reward, Rollout
from simulator.trace import Action, Answer, Delay, Return, Think, Thread, Trace

_RIGHT, _WRONG = "9", "7"
_ANSWER = 5  # tokens of an Answer of one digit with its tags, by characters
_TAKEAWAY = 20  # tokens of a Return at most: what a worker found, not all that it thought


def reward_of_texts(function: Callable[[Written], float]) -> Reward:
    """Return a reward of one term, ``reward``: what a function gives the text of a rollout.

    Meant for a `Judge` whose `Judge.form` is `as_written`, so that what is timed is what the text says.

    >>> from simulator.audit.exploits import Draft
    >>> from simulator.trace.protocol import Protocol
    >>> reward = reward_of_texts(lambda written: float(written.text.count("<JOIN-1>")))
    >>> trace = as_written(Draft().fork(100).join(1).join(1).trace("t", correct=True))
    >>> reward.score(Rollout(trace, Protocol())).total
    2.0
    """

    def earned(rollout: Rollout) -> float:
        try:
            return float(function(_written(rollout)))
        except Exception as error:  # of any kind: it is somebody's code
            raise ValueError(why(error, limit=200)) from error

    return Reward(terms={"reward": earned}, gate=None)


def _written(rollout: Rollout) -> Written:
    text, workers = asyncthink.render_threads(_worded(rollout.trace))
    return Written(text, workers, _RIGHT)


def as_written(trace: Trace) -> Trace:
    """Return the rollout that the text of a drawn rollout says: with the tokens of its tags, and without Delays.

    Its own texts do not matter, only what it does and for how long. A right answer is ``9``, as the data set says. What
    comes out goes through unchanged, but for how what Joins insert is rounded.

    >>> from simulator.audit.exploits import Draft
    >>> trace = as_written(Draft().think(50).fork(200, 3).join(1).trace("t", correct=True, answer=8))
    >>> [(type(action).__name__, action.tokens) for action in trace.organizer.actions]
    [('Think', 50), ('Fork', 5), ('Join', 2), ('Think', 3), ('Answer', 5)]
    >>> as_written(trace) == trace
    True
    """
    text, workers = asyncthink.render_threads(_worded(trace))
    said = asyncthink.parse(text, workers=workers, id=trace.id, keep_text=False, outcome=trace.outcome)
    prompts = {thread.id: thread for thread in trace.threads}
    threads = tuple(
        replace(each, prompt_tokens=prompts[each.id].prompt_tokens, shared_tokens=prompts[each.id].shared_tokens)
        for each in said.threads
    )
    return replace(said, threads=threads)


def _worded(trace: Trace) -> Trace:
    right = trace.outcome is not None and trace.outcome.accuracy == 1
    threads = [
        Thread(thread.id, tuple(each for action in thread.actions for each in _said(action, right)), 0, 0)
        for thread in trace.threads
    ]
    return Trace(trace.id, tuple(threads), trace.outcome)


def _said(action: Action, right: bool) -> tuple[Action, ...]:
    """Return what says an action."""
    if isinstance(action, Delay):
        return ()
    if isinstance(action, Answer):
        answer = Answer(_ANSWER, _RIGHT if right else _WRONG)
        return (Think(action.tokens - _ANSWER), answer) if action.tokens > _ANSWER else (answer,)
    if isinstance(action, Return) and action.tokens > _TAKEAWAY:
        return Think(action.tokens - _TAKEAWAY), Return(_TAKEAWAY)
    return (replace(action, text=None, start=None, finish=None),)
