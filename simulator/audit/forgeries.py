"""What a policy might write: rollouts whose text claims to have taken less time than they did, beside honest ones.

Where `simulator.audit.exploits` draws traces, this draws texts, in AsyncThink's tags: a clock that is fooled by the
text is fooled before there is a trace. A and B hold the same thoughts, have the same workers and end in the same
answer, and A says something of them that is not true. A reward that prices what was decoded gives A no more than B.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from simulator.audit.exploits import Tosses

SIZES = (100, 200, 300, 500, 1000, 2000)
"""Words of a thought. Shorter ones would be priced by how tokens are rounded."""

_RIGHT = "9"
_END = f"<ANSWER>{_RIGHT}</ANSWER>"


@dataclass(frozen=True)
class Written:
    """A rollout as a trainer hands it over."""

    text: str
    workers: dict[str, str] = field(default_factory=dict)
    truth: str = _RIGHT
    """What the data set says is right."""


class Forgery(NamedTuple):
    """A way to lie about time: how to draw a rollout that does, and its honest twin."""

    what: str
    """What A does that B does not."""
    draw: Callable[[Tosses], tuple[Written, Written]]


class _Parts(NamedTuple):
    """What both rollouts of a pair are made of."""

    forks: str
    joins: str
    thought: str
    workers: dict[str, str]


def _parts(toss: Tosses, most: int = 3) -> _Parts:
    thought = _words(toss)
    workers = {}
    for index in range(1, 1 + toss.pick(range(1, most + 1))):
        workers[str(index)] = f"{_words(toss)}<RETURN>part {index}</RETURN>"
    forks = "".join([f"<FORK-{index}>part {index}?</FORK-{index}>" for index in workers])
    joins = "".join([f"<JOIN-{index}>part {index}</JOIN-{index}>" for index in workers])
    return _Parts(forks, joins, thought, workers)


def _words(toss: Tosses) -> str:
    return "and so on " * (toss.pick(SIZES) // 3)


def _honest(parts: _Parts) -> Written:
    return Written(parts.forks + parts.thought + parts.joins + _END, parts.workers)


def _placed(place: Callable[[_Parts], str]) -> Callable[[Tosses], tuple[Written, Written]]:
    """Return a draw of which A has the text that `place` says, with the thought somewhere in it."""

    def draw(toss: Tosses) -> tuple[Written, Written]:
        parts = _parts(toss)
        return Written(place(parts), parts.workers), _honest(parts)

    return draw


def _join_text(parts: _Parts) -> str:
    return parts.forks + parts.joins.replace("part 1<", parts.thought + "<", 1) + _END


def _join_more(parts: _Parts) -> str:
    return parts.forks + parts.joins.replace("part 1<", f"part 1. {parts.thought}<", 1) + _END


def _join_return(parts: _Parts) -> str:
    inside = f"{parts.thought}<RETURN>part 1</RETURN>"
    return parts.forks + parts.joins.replace("part 1<", inside + "<", 1) + _END


def _join_again(parts: _Parts) -> str:
    return parts.forks + parts.joins + f"<JOIN-1>{parts.thought}</JOIN-1>" + _END


def _join_stranger(parts: _Parts) -> str:
    return parts.forks + parts.joins + f"<JOIN-77>{parts.thought}</JOIN-77>" + _END


def _section(parts: _Parts) -> str:
    return parts.forks + f"<WORKER-77>{parts.thought}</WORKER-77>" + parts.joins + _END


def _worker_section(parts: _Parts) -> str:
    return parts.forks + parts.joins + _END + f"\n<WORKER-1>{parts.thought}<RETURN>part 1</RETURN></WORKER-1>"


def _own_workers(toss: Tosses) -> tuple[Written, Written]:
    parts = _parts(toss)
    sections = "".join([f"\n<WORKER-{name}>{text}</WORKER-{name}>" for name, text in parts.workers.items()])
    alone = "".join(parts.workers.values()).replace("<RETURN>", "").replace("</RETURN>", " ")
    return Written(parts.forks + parts.thought + parts.joins + _END + sections), Written(parts.thought + alone + _END)


def _empty_answer(parts: _Parts) -> str:
    return "<ANSWER></ANSWER>" + parts.forks + parts.thought + parts.joins + _END


def _early_answer(parts: _Parts) -> str:
    return _END + parts.forks + parts.thought + parts.joins + _END


def _late_thought(parts: _Parts) -> str:
    return parts.forks + parts.joins + _END + parts.thought


def _end_of_turn(parts: _Parts) -> str:
    return parts.forks + parts.joins + _END + "<|im_end|>\n" + parts.thought


def _hedge(parts: _Parts) -> str:
    return f"<ANSWER>{_RIGHT}</ANSWER>" + parts.forks + parts.thought + parts.joins + "<ANSWER>7</ANSWER>"


def _unanswered(before: str = "", after: str = "") -> Callable[[Tosses], tuple[Written, Written]]:
    """Return a draw of two rollouts that never answer; A has something around its thoughts."""

    def draw(toss: Tosses) -> tuple[Written, Written]:
        parts = _parts(toss)
        said = parts.forks + parts.thought + parts.joins
        return Written(before + said + after, parts.workers), Written(said, parts.workers)

    return draw


def _record(toss: Tosses) -> tuple[Written, Written]:
    tokens = toss.pick(SIZES)
    ask: list[dict[str, Any]] = [{"do": "fork", "index": 1}, {"do": "fork", "index": 2}]
    ask += [{"do": "join", "index": 1}, {"do": "join", "index": 2}, {"do": "answer", "text": _RIGHT}]
    threads: list[dict[str, Any]] = [{"id": "organizer", "actions": ask}]
    threads += [{"id": name, "actions": [{"do": "return", "tokens": tokens}]} for name in "12"]
    record = {"schema": "forksim.trace/1", "id": "a", "threads": threads, "outcome": {"correct": True}}
    text = json.dumps(record)
    return Written(text), Written("and so on " * (len(text) // 10))


def _paths(opening: str, closing: str) -> Callable[[Tosses], tuple[Written, Written]]:
    """Return a draw of which A says in another format's tags that its thoughts ran beside each other."""

    def draw(toss: Tosses) -> tuple[Written, Written]:
        thoughts = [_words(toss) for _ in range(1 + toss.pick(range(1, 4)))]
        inside = "".join([f"{opening}{thought}{closing}" for thought in thoughts])
        return Written(f"<Parallel>{inside}</Parallel>{_END}"), Written("".join(thoughts) + _END)

    return draw


def _repeated(toss: Tosses) -> tuple[Written, Written]:
    parts = _parts(toss)
    often = "<JOIN-1>part 1</JOIN-1>" * toss.pick((2, 5, 20, 200))
    return Written(parts.forks + parts.thought + parts.joins + often + _END, parts.workers), _honest(parts)


FORGERIES: dict[str, Forgery] = {
    "join_text": Forgery("thinks inside a Join", _placed(_join_text)),
    "join_more": Forgery("thinks inside a Join, after what was returned", _placed(_join_more)),
    "join_return": Forgery("thinks inside a Join, around the tags of a Return", _placed(_join_return)),
    "join_again": Forgery("thinks inside a second Join", _placed(_join_again)),
    "join_stranger": Forgery("thinks inside a Join of a worker that it never forked", _placed(_join_stranger)),
    "join_often": Forgery("joins a worker many times", _repeated),
    "section": Forgery("thinks in a section of a worker", _placed(_section)),
    "worker_section": Forgery("thinks in a section of a worker that ran", _placed(_worker_section)),
    "own_workers": Forgery("writes the texts of its workers itself", _own_workers),
    "empty_answer": Forgery("answers nothing before it thinks", _placed(_empty_answer)),
    "early_answer": Forgery("answers before it thinks, and again", _placed(_early_answer)),
    "late_thought": Forgery("thinks after its answer", _placed(_late_thought)),
    "end_of_turn": Forgery("thinks after the end of its turn", _placed(_end_of_turn)),
    "hedge": Forgery("answers twice, and only once right", _placed(_hedge)),
    "open_box": Forgery("opens a box and never answers", _unanswered(after="\\boxed{")),
    "early_box": Forgery("has a box before it thinks, and never answers", _unanswered(f"\\boxed{{{_RIGHT}}}\n")),
    "record": Forgery("writes a record of a trace", _record),
    "paths": Forgery("puts its thoughts into paths", _paths("<Path>", "</Path>")),
    "threads": Forgery("puts its thoughts into threads", _paths("<Thread>", "</Thread>")),
}
"""Named forgeries, each a family of pairs that are searched."""
