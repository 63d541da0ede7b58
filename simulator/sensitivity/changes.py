"""A graph with other weights: some threads or tasks longer, shorter, or capped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from simulator.errors import ConfigError
from simulator.graph import ExecutionGraph
from simulator.graph.compiler import compile_trace
from simulator.support.checks import choose, is_whole, real, whole
from simulator.trace import Action, Delay, Join, Thread, Trace
from simulator.workload.cuts import Contexts


class _Change(NamedTuple):
    """Tasks of one thread that change together."""

    tasks: tuple[int, ...]
    scale: float
    cap: int | None


def what_if(
    graph: ExecutionGraph,
    *,
    thread: str | Sequence[str] | Mapping[str, float] | None = None,
    task: int | Sequence[int] | Mapping[int, float] | None = None,
    scale: float | None = None,
    max_tokens: int | None = None,
) -> ExecutionGraph:
    """Return `graph` with the work of some threads, or of some tasks, scaled or capped.

    What a thread decodes (its Forks, Joins and Return included) and the seconds of its Delays are scaled. Tokens are
    rounded so that the sum over a thread is right to half a token: its k-th token becomes number ``scale * k``. So no
    task gets longer by a scale below 1, nor shorter by one above. At 0 the thread does all that it did, in no time.

    All else stays: who Forks and Joins what and in which order, the pool, and the tokens that a Join inserts. A prompt
    of which a prefix is shared with the parent follows the parent's context: if what is shared gets shorter, so does
    the prompt.

    The graph is compiled again from the changed trace, so that whatever reads the trace (the decode-step clock,
    violations) describes the changed graph. The changed trace has no text where tokens have changed, and no recorded
    times. Tasks without tokens in between may become one, so tasks may be numbered otherwise than in `graph`.

    Parameters
    ----------
    graph : ExecutionGraph
    thread : str, sequence of str, or mapping
        Names of threads, such as ``"3"`` or ``"1.2"``; or a scale for each of several.
    task : int, sequence of int, or mapping
        Tasks instead of threads. Each is rounded, and capped, by itself.
    scale : float
        Factor of tokens and of seconds, from 0 to 10^6. Default: 1, where `max_tokens` is given.
    max_tokens : int
        Of each thread (or task), decode this many tokens at most, the first ones, after scaling. What comes later is
        done in no time. Delays stay.

    Returns
    -------
    ExecutionGraph
        `graph` itself if nothing changes.

    Raises
    ------
    ConfigError
        If there is no such thread or task, or a number is out of range.

    Examples
    --------
    >>> from simulator import Answer, Fork, Join, Return, Think, Thread, Trace, compile_trace, critical_path
    >>> organizer = Thread("organizer", (Think(5), Fork(1), Think(3), Join(1), Answer(2)))
    >>> graph = compile_trace(Trace("t", (organizer, Thread("1", (Return(10),)))))
    >>> [critical_path(what_if(graph, thread="1", scale=scale)).latency for scale in (2, 1, 0.5, 0)]
    [27, 17, 12, 10]
    >>> critical_path(what_if(graph, thread={"1": 0.5, "organizer": 2})).latency
    20
    >>> what_if(graph, thread="1", max_tokens=4).tokens
    14
    """
    trace = _changed_trace(graph, _changes(graph, thread, task, scale, max_tokens))
    return graph if trace is graph.trace else compile_trace(trace, graph.protocol)


def check_scale(scale: float) -> None:
    """Raise `ConfigError` if `scale` is no factor."""
    real("scale", scale, "from 0 to 10^6")


def _changes(
    graph: ExecutionGraph,
    thread: str | Sequence[str] | Mapping[str, float] | None,
    task: int | Sequence[int] | Mapping[int, float] | None,
    scale: float | None,
    cap: int | None,
) -> list[_Change]:
    """Check what is asked for, and return what is to be changed."""
    if (thread is None) == (task is None):
        raise ConfigError("what_if() changes threads or tasks: give one of thread= and task=")
    if cap is not None:
        whole("max_tokens", cap, "from 0 to 10^12")
    chosen = thread if thread is not None else task
    if isinstance(chosen, Mapping):
        if scale is not None:
            raise ConfigError("a mapping has a scale for each: leave out scale=")
    elif scale is None and cap is None:
        raise ConfigError("what_if() needs a scale=, such as 0.5, or max_tokens=")
    scales: Mapping[str | int, float]
    if isinstance(chosen, Mapping):
        scales = {key: each for key, each in chosen.items()}  # dict() would want keys of one type
    elif isinstance(chosen, Iterable) and not isinstance(chosen, str):
        scales = dict.fromkeys(chosen, 1.0 if scale is None else scale)
    else:
        scales = {chosen: 1.0 if scale is None else scale}  # type: ignore[dict-item]  # one of them is given
    for each in scales.values():
        check_scale(each)
    if thread is None:
        return [_Change((_task(graph, number),), each, cap) for number, each in scales.items()]
    of: dict[int, list[int]] = {}
    for number, node in enumerate(graph.tasks):
        of.setdefault(node.thread, []).append(number)
    names = {thread.id: i for i, thread in enumerate(graph.threads)}
    return [_Change(tuple(of[names[choose(name, names, "thread")]]), each, cap) for name, each in scales.items()]


def _task(graph: ExecutionGraph, number: object) -> int:
    if not (is_whole(number) and 0 <= number < len(graph)):
        raise ConfigError(f"there is no task {number!r}; the graph has tasks 0 to {len(graph) - 1}")
    return number


def _shortened(tokens: Sequence[int], scale: float, cap: int | None) -> list[int]:
    """Return what becomes of runs of tokens, one after the other.

    >>> _shortened([1, 1, 1, 1], 0.5, None), _shortened([3, 3, 3], 1, 5)
    ([1, 0, 1, 0], [3, 2, 0])
    """
    result = []
    before = after = 0
    for each in tokens:
        before += each
        now = math.floor(before * scale + 0.5)
        if cap is not None:
            now = min(now, cap)
        result.append(now - after)
        after = now
    return result


def _changed_trace(graph: ExecutionGraph, changes: Sequence[_Change]) -> Trace:
    """Return the graph's trace with changed actions, or itself if all stay."""
    trace = graph.trace
    new: dict[str, list[Action]] = {thread.id: list(thread.actions) for thread in trace.threads}
    changed = False
    for tasks, scale, cap in changes:
        actions = new[graph.threads[graph.tasks[tasks[0]].thread].id]
        places = [place for number in tasks for place in range(*graph.tasks[number].actions) if place < len(actions)]
        lengths = _shortened([_tokens(actions[place]) for place in places], scale, cap)
        for place, length in zip(places, lengths, strict=True):
            action = actions[place]
            if isinstance(action, Delay):
                other: Action = msgspec.structs.replace(action, seconds=action.seconds * scale)
            elif length == action.tokens:
                continue
            elif isinstance(action, Join):  # its text is what is inserted, which stays
                other = msgspec.structs.replace(action, tokens=length)
            else:
                other = msgspec.structs.replace(action, tokens=length, text=None)
            changed |= other != action
            actions[place] = other
    if not changed:
        return trace
    contexts = Contexts()
    threads = []
    for thread in trace.threads:
        name, own = thread.id, thread.prompt_tokens - thread.shared_tokens
        runs = [(own, own)]
        for before, after in zip(thread.actions, new[name], strict=True):
            runs.append((_tokens(before), _tokens(after)))
            if isinstance(before, Join):
                runs.append((before.inserted_tokens, before.inserted_tokens))
        shared = contexts.add(name, thread.shared_tokens, runs)
        threads.append(Thread(name, tuple(map(_unrecorded, new[name])), shared + own, shared, thread.label))
    return msgspec.structs.replace(trace, threads=tuple(threads))


def _tokens(action: Action) -> int:
    return 0 if isinstance(action, Delay) else action.tokens


def _unrecorded(action: Action) -> Action:
    """Return `action` without recorded times: what is changed has not been measured."""
    if action.start is None and action.finish is None:
        return action
    return msgspec.structs.replace(action, start=None, finish=None)
