"""The search among texts: what a reward gives a rollout that lies about time, over what it gives the honest one."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from simulator.audit.exploits import Tosses
from simulator.audit.forgeries import FORGERIES, Written
from simulator.errors import ConfigError, why
from simulator.support.checks import choose, real, whole

TextReward = Callable[[Written], float]
"""From a rollout as a trainer hands it over to what it earns."""


@dataclass(frozen=True, kw_only=True)
class TextSearch:
    """What became of the search for one forgery."""

    forgery: str
    """A key of `FORGERIES`."""
    tried: int
    """Pairs that were drawn and that the reward priced."""
    found: int
    """In how many of them A earns more than its honest twin."""
    pair: tuple[Written, Written] | None
    """The shortest of those."""
    earns: tuple[float, float]
    """What A and B of that pair earn; NaN where none was found."""
    largest_gain: float
    """The most that A earned more than B; 0 where none was found."""
    raised: str
    """What the reward raised for one of the texts; empty if it never did. Such a pair shows nothing."""


def search_texts(
    reward: TextReward,
    forgeries: Iterable[str] | None = None,
    *,
    budget: int = 300,
    seed: int = 0,
    gain: float = 0.01,
) -> list[TextSearch]:
    """Search for texts with which a reward can be lied to.

    Parameters
    ----------
    reward : callable
        See `text_reward`.
    forgeries : iterable of str, optional
        Keys of `FORGERIES`. Default: all.
    budget : int
        Pairs to draw for each, from 1 to 1,000,000.
    seed : int
        The same seed gives the same result.
    gain : float
        How much more A must earn at least.

    Raises
    ------
    ConfigError
        If a forgery is unknown, or a number out of range.

    Examples
    --------
    A reward that prices the length of the text without what stands in Joins:

    >>> import re
    >>> def brief(rollout):
    ...     text = re.sub("<JOIN-1>.*?</JOIN-1>", "", rollout.text)
    ...     return 1.0 - len(text) / 100_000
    >>> [found] = search_texts(brief, ["join_text"], budget=20)
    >>> found.found, round(found.largest_gain, 2)
    (11, 0.07)
    """
    names = list(FORGERIES) if forgeries is None else list(forgeries)
    for name in names:
        choose(name, FORGERIES, "forgery")
    whole("budget", budget, "from 1 to 1,000,000")
    real("gain", gain, "above 0")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="some rollouts Fork")  # some of these are meant to
        return [_search(reward, name, budget, seed, gain) for name in names]


def _search(reward: TextReward, name: str, budget: int, seed: int, gain: float) -> TextSearch:
    chance = Random(f"{seed} {name}")
    tried, found, largest, raised = 0, 0, 0.0, ""
    smallest: tuple[int, tuple[Written, Written], tuple[float, float]] | None = None
    for _ in range(budget):
        pair = FORGERIES[name].draw(Tosses(lambda: chance.random() < 0.5))
        earned = []
        for each in pair:
            try:
                value = float(reward(each))
            except Exception as error:  # of any kind, as of somebody's parser
                raised, value = raised or why(error, limit=200), math.nan
            earned.append(value)
        worse, better = earned
        tried += not (math.isnan(worse) or math.isnan(better))
        if not worse - better >= gain:  # also where one of them is no number
            continue
        found += 1
        largest = max(largest, worse - better)
        size = len(pair[0].text) + len(pair[1].text)
        if smallest is None or size < smallest[0]:
            smallest = size, pair, (worse, better)
    return TextSearch(
        forgery=name,
        tried=tried,
        found=found,
        pair=smallest and smallest[1],
        earns=smallest[2] if smallest else (math.nan, math.nan),
        largest_gain=largest,
        raised=raised,
    )


def text_reward(function: Callable[..., Any]) -> TextReward:
    """Return a function of yours as one of a written rollout, called as its parameters ask for.

    - ``completions``: as TRL calls it, with lists, the columns ``workers`` and ``answer`` among them;
    - ``solution_str``: as verl calls it, with the workers in ``extra_info``;
    - ``queries``: as OpenRLHF calls it;
    - else with the text, its workers' texts by id, and what is right: as many of these as it takes.

    What it returns may be a number, a list of one, or a mapping with a ``score``, ``reward`` or ``rewards``.

    Raises
    ------
    ConfigError
        If it is no function.

    >>> from simulator.audit.forgeries import Written
    >>> text_reward(lambda text: -len(text))(Written("nine"))
    -4.0
    >>> text_reward(lambda completions, answer, **columns: [3.0 for _ in completions])(Written("nine"))
    3.0
    """
    if not callable(function):
        raise ConfigError(f"a reward must be a function of a text, got {function!r:.80}")
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        parameters = {}  # type: ignore[assignment]  # of a function in C: it gets all three
    call = _calling(function, parameters)
    return lambda written: _number(call(written))


def _calling(function: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]) -> Callable[[Written], Any]:
    if "completions" in parameters:
        return lambda each: function(
            prompts=[""], completions=[each.text], workers=[each.workers or None], answer=[each.truth]
        )
    if "solution_str" in parameters:
        return lambda each: function(
            data_source="audit",
            solution_str=each.text,
            ground_truth=each.truth,
            extra_info={"workers": each.workers or None},
        )
    if "queries" in parameters:
        return lambda each: function([each.text], [""], [each.truth], workers=[each.workers or None])
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    takes = sum(each.kind in kinds for each in parameters.values())
    if not parameters or any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in parameters.values()):
        takes = 3
    return lambda each: function(*(each.text, each.workers, each.truth)[:takes])


def _number(value: Any) -> float:
    if isinstance(value, Mapping):
        value = next((value[key] for key in ("score", "reward", "rewards") if key in value), None)
    if hasattr(value, "tolist"):  # of numpy and torch
        value = value.tolist()
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"the reward returned no number but {value!r:.80}") from None
