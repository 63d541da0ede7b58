"""The trace of a graph that was made by hand, so that every graph has one and there is one clock for all."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from simulator.graph.task import GraphThread, Task
from simulator.trace import ORGANIZER, Action, Answer, Delay, Fork, Join, Return, Think, Thread, Trace, child_id


def spell(
    tasks: Sequence[Task], threads: Sequence[GraphThread], name: str, prefix_of: str | None, charge: bool
) -> tuple[tuple[Task, ...], tuple[GraphThread, ...], Trace]:
    """Return tasks, threads and the trace that says the same, each task with its actions.

    A trace calls a worker by its Fork's index. A thread whose id is no such name gets one, and keeps its id as its
    label. Prefill that neither a prompt nor a Join brings in is not in the trace; no clock of traces counts it.

    >>> tasks = (Task(0, 5, forks=(1,)), Task(1, 10), Task(0, 2, joins=(1,)))
    >>> _, threads, trace = spell(tasks, (GraphThread("a"), GraphThread("b", parent=0)), "t", None, False)
    >>> threads[1].id, trace.threads[1].label, [type(action).__name__ for action in trace.organizer.actions]
    ('1', 'b', ['Think', 'Fork', 'Join', 'Answer'])
    """
    ids, index = _named(threads)
    actions: list[list[Action]] = [[] for _ in threads]
    unread = [0] * len(threads)  # inserted tokens that a later task of the thread decodes, where they are charged
    spelled = []
    for task in tasks:
        own = actions[task.thread]
        begin = len(own)
        inserted = [threads[child].inserted for child in task.joins]
        if charge and inserted:  # a task decodes them when it has made all its Joins; a trace, right behind each
            inserted = [0] * (len(inserted) - 1) + [sum(inserted)]
            unread[task.thread] += inserted[-1]
        own += (Join(index[child], inserted_tokens=each) for child, each in zip(task.joins, inserted, strict=True))
        tokens = task.tokens
        if charge and tokens:
            tokens, unread[task.thread] = tokens - unread[task.thread], 0
        if task.seconds:
            own.append(Delay(task.seconds))
        elif tokens > 0:
            own.append(Think(tokens))
        own += (Fork(index[child]) for child in task.forks)
        spelled.append(task._replace(actions=(begin, len(own))))
    renamed = tuple(thread._replace(id=ids[number]) for number, thread in enumerate(threads))
    said = []
    for number, thread in enumerate(renamed):
        given = threads[number].id
        ended = _ended(actions[number], Return if number else Answer)
        label = given if given != thread.id else None
        prompt = thread.shared + thread.prompt
        said.append(Thread(thread.id, ended, prompt, thread.shared, label))
    for number, task in enumerate(spelled):  # the end may be an action more, which belongs to what it ends
        if task.actions[1] == len(actions[task.thread]) and not task.seconds:
            spelled[number] = task._replace(actions=(task.actions[0], len(said[task.thread].actions)))
    return tuple(spelled), renamed, Trace(name, tuple(said), prefix_of=prefix_of)


def _named(threads: Sequence[GraphThread]) -> tuple[list[str], list[int]]:
    """Return what each thread is called in a trace, and the index of the Fork that starts it."""
    ids, index = [ORGANIZER], [0]
    taken: list[set[int]] = [set() for _ in threads]
    for thread in threads[1:]:
        above, used = ids[thread.parent], taken[thread.parent]
        last = thread.id.rpartition(".")[2]
        wanted = int(last) if last.isascii() and last.isdecimal() and len(last) < 10 else 0
        if wanted in used or child_id(above, wanted) != thread.id:
            wanted = next(number for number in count(len(used) + 1) if number not in used)
        used.add(wanted)
        index.append(wanted)
        ids.append(child_id(above, wanted))
    return ids, index


def _ended(actions: list[Action], end: type[Answer] | type[Return]) -> tuple[Action, ...]:
    """Return a thread's actions with its end: the last that it thinks, or no token at all."""
    if actions and isinstance(actions[-1], Think):
        return (*actions[:-1], end(actions[-1].tokens))
    return (*actions, end(0))
