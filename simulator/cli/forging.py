"""The part of ``forksim audit`` that looks at texts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from rich.text import Text

from simulator.audit import FORGERIES, TextSearch, Written, load_own, text_reward
from simulator.cli.common import say, screen_width, show, table, tell
from simulator.cli.layout import NARROW
from simulator.cli.report import number, printable
from simulator.errors import ConfigError
from simulator.integrations import Scorer
from simulator.rewards import Reward, load_reward
from simulator.trace.protocol import Protocol

LEGEND = """\
A and B hold the same thoughts and end in the same answer, but A says something about them that is not true, and
earns more. "found" counts the pairs that are like this, "most" is the largest gain, and the pair that is shown is
the shortest."""


def reward_of(name: str) -> Reward | Scorer | Callable[..., Any]:
    """Return the reward that ``forksim audit`` is given: one of the library, a file, or MODULE:NAME."""
    if ":" not in name or name.endswith(".toml"):
        return load_reward(name)
    found = load_own(name)
    if isinstance(found, (Reward, Scorer)):
        return found
    if inspect.isclass(found) or not callable(found):
        raise ConfigError(f"{name}: a reward is a function of a text, a Reward or a Scorer; got {found!r:.80}")
    return text_reward(found)


def of_texts(reward: Reward | Scorer | Callable[..., Any], protocol: Protocol) -> Callable[[Written], float]:
    """Return a reward as one of a written rollout."""
    if not isinstance(reward, (Reward, Scorer)):
        return reward
    scorer = reward if isinstance(reward, Scorer) else Scorer(reward=reward, protocol=protocol)

    def earned(each: Written) -> float:
        return float(scorer.score([each.text], None, [each.workers or None], [each.truth]).total[0])

    return earned


def records(found: Sequence[TextSearch]) -> list[dict[str, Any]]:
    """Return all figures, as JSON lines have them."""
    lines = []
    for each in found:
        record: dict[str, Any] = {"forgery": each.forgery, "tried": each.tried, "found": each.found}
        if each.pair is not None:
            a, b = each.pair
            record |= {"gain": each.earns[0] - each.earns[1], "largest_gain": each.largest_gain}
            record |= {"a": {**asdict(a), "reward": each.earns[0]}, "b": {**asdict(b), "reward": each.earns[1]}}
        if each.raised:
            record["raised"] = each.raised
        lines.append(record)
    return lines


def print_texts(found: Sequence[TextSearch]) -> None:
    """Print a table, and the beginning of each text that earns too much."""
    narrow = screen_width() < NARROW
    lines = table("forgery: A ...", "found", "A earns", "B earns", "most" if narrow else "largest gain")
    for each in found:
        cells = [f"{each.found:,} of {each.tried:,}"]
        if each.pair is not None:
            cells += [number(each.earns[0]), number(each.earns[1]), number(each.largest_gain)]
        lines.add_row(Text(f"{each.forgery}: {FORGERIES[each.forgery].what}"), *cells)
    show(lines)
    for each in found:
        if each.pair is not None:
            say(f"{each.forgery}: {printable(_brief(each.pair[0].text), 200)}")
        if each.raised:
            say(f"{each.forgery}: the reward raised {printable(each.raised, 200)}")
    open_to = sum(each.pair is not None for each in found)
    tried = sum(each.tried for each in found)
    if open_to:
        say(f"\nopen to {open_to} of {len(found)} forgeries")
        tell(LEGEND)
    else:
        say(f"\nno forgery found in {tried:,} pairs of texts, {len(found)} {'kind' if len(found) == 1 else 'kinds'}")


def _brief(text: str) -> str:
    """Return a text with its long thoughts shortened."""
    while "and so on and so on and so on " in text:
        text = text.replace("and so on and so on and so on ", "and so on and so on ")
    return text.replace("and so on and so on ", "and so on ... ")
