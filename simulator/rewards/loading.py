"""Reward files: TOML to `Reward`, with every key checked."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import Any

from simulator.errors import ConfigError
from simulator.rewards.grouped import Grouped, Ramp
from simulator.rewards.library import REWARDS, make_reward
from simulator.rewards.spec import Gate, Reward, Term
from simulator.rewards.terms import TERMS
from simulator.support.checks import check_options, choose
from simulator.support.own import load_own
from simulator.support.toml import load_toml, parse_toml
from simulator.trace.protocol import Protocol

_KEYS = ("reward", "options", "terms", "gate", "protocol", "format", "group", "ramps")


def load_reward(name: str | os.PathLike[str] | Reward) -> Reward:
    """Return the reward that `name` says: one of `REWARDS`, a TOML file (see docs/rewards.md), or ``FILE.py:NAME``.

    Raises
    ------
    ConfigError
        If there is no such reward, or the file is none.

    >>> load_reward("parallel_r1").names
    ('format_error', 'correct', 'efficiency')
    >>> load_reward("asyncthnk")
    Traceback (most recent call last):
    simulator.errors.ConfigError: no reward is called 'asyncthnk'; did you mean asyncthink? there are asyncthink, ...
    """
    if isinstance(name, Reward):
        return name
    if not isinstance(name, str | os.PathLike):
        way = "; a function is a term: Reward(terms={'mine': function})" if callable(name) else ""
        raise ConfigError(f"reward must be a Reward, a name or a file; got {name!r:.80}{way}")
    text = os.fspath(name)
    if ".py:" in text:
        return load_reward(load_own(text))
    if not text.endswith(".toml"):
        try:
            return make_reward(text)
        except ConfigError as error:
            raise ConfigError(f"{error}, files that end in .toml, and FILE.py:NAME") from None
    return load_toml("reward", text, _reward)


def parse_reward(text: str, name: str = "reward") -> Reward:
    """Return the reward that a file's text describes.

    Raises
    ------
    ConfigError
        If it is no TOML, or a key or a value is not what is accepted.

    >>> reward = parse_reward('''
    ... reward = "threadweaver"
    ... options = {clip = 0.3}
    ... protocol = {capacity = 4}
    ... [terms.brief]
    ... term = "latency"
    ... weight = -0.0001
    ... ''')
    >>> reward.names, reward.protocol
    (('format_error', 'correct', 'acceleration', 'brief'), Protocol(capacity=4))
    """
    return parse_toml(f"reward {name}", text, _reward)


def _reward(table: dict[str, Any]) -> Reward:
    for key in table:
        choose(key, _KEYS, "key of a reward file")
    options, terms, protocol = (_table(table, key) for key in ("options", "terms", "protocol"))
    if "reward" in table:
        base = make_reward(choose(table["reward"], REWARDS, "reward"), **options)
    elif options:
        raise ConfigError("[options] are those of a reward of the library: say which with reward = ...")
    elif not terms:
        raise ConfigError("says neither a reward of the library (reward = ...) nor any [terms.NAME]")
    else:
        base = Reward(terms={})
    added = {name: _term(name, _table(terms, name)) for name in terms}
    gate = _gate(table["gate"]) if "gate" in table else base.gate
    ramps = _table(table, "ramps")
    reward = Reward(
        terms={**base.terms, **added},
        gate=gate,
        protocol=_protocol(protocol) if protocol else None,
        format=table.get("format", base.format),
        schedule=None if terms or "gate" in table else base.schedule,
        grouped=_grouped(_table(table, "group")) if "group" in table else base.grouped,
    )
    return reward.ramped(**{name: _ramp(name, _table(ramps, name)) for name in ramps}) if ramps else reward


def _table(table: dict[str, Any], key: str) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise ConfigError(f"{key} must be a table, got {value!r:.80}")
    return value


def _term(name: str, table: dict[str, Any]) -> Term:
    options = dict(table)
    called = options.pop("term", name)
    return Term(TERMS[choose(called, TERMS, "term")], options)


def _gate(value: Any) -> Gate | None:
    if value is False:
        return None
    if value is True:
        return Gate()
    if not isinstance(value, dict):
        raise ConfigError(f"gate must be a table of kinds and reward, true or false; got {value!r:.80}")
    for key in value:
        choose(key, ("kinds", "reward"), "key of [gate]")
    kinds = value.get("kinds")
    if kinds is not None and not (isinstance(kinds, list) and all(isinstance(kind, str) for kind in kinds)):
        raise ConfigError(f"[gate] kinds must be a list of kinds of violation, got {kinds!r:.80}")
    return Gate(kinds=None if kinds is None else frozenset(kinds), reward=value.get("reward"))


def _grouped(table: dict[str, Any]) -> Grouped:
    for key in table:
        choose(key, ("terms", "how"), "key of [group]")
    if "terms" not in table or not isinstance(table["terms"], list):
        raise ConfigError("[group] says which terms count within a group: terms = [...]")
    return Grouped(**table)


def _ramp(name: str, table: dict[str, Any]) -> Ramp:
    for key in table:
        choose(key, [each.name for each in fields(Ramp)], f"key of [ramps.{name}]")
    if "finish" not in table:
        raise ConfigError(f"[ramps.{name}] says at which step it is over: finish = ...")
    return Ramp(**table)


def _protocol(table: dict[str, Any]) -> Protocol:
    for key in table:
        choose(key, [each.name for each in fields(Protocol)], "key of [protocol]")
    check_options(Protocol, table, "[protocol]")
    return Protocol(**table)
