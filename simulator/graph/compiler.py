"""From a trace to its execution graph.

A thread is cut where others can notice: after a Fork (its worker may start), at a Join (it waits), around a Delay.
"""

from __future__ import annotations

from simulator.errors import ConfigError, TraceError, mistaken
from simulator.graph.graph import ExecutionGraph
from simulator.graph.task import GraphThread, Task
from simulator.trace import ORGANIZER, Action, Answer, Delay, Fork, Join, Return, Think, Trace, child_id
from simulator.trace.protocol import Protocol

_DEFAULT = Protocol()


def compile_trace(trace: Trace, protocol: Protocol | None = None) -> ExecutionGraph:
    """Compile a trace into its execution graph.

    What cannot take effect starts and awaits nobody, but its tokens are decoded all the same: a second Fork of an
    index, a Fork without a recorded worker, a Join of an unknown or already joined sub-query. Actions after a thread's
    end and workers nobody forks are left out. So every trace compiles, and `simulator.check` says what was wrong
    with it.

    Parameters
    ----------
    trace : Trace
    protocol : Protocol, optional
        Only `charge_inserted` shapes the graph: inserted tokens then are decode tokens instead of prefill.

    Returns
    -------
    ExecutionGraph

    Examples
    --------
    ::

        organizer  5 fork --- 3 ------ join 2
                      `-- worker 10 --'

    >>> from simulator.trace import Answer, Fork, Join, Return, Think, Thread, Trace
    >>> organizer = Thread("organizer", (Think(5), Fork(1), Think(3), Join(1), Answer(2)))
    >>> graph = compile_trace(Trace("t", (organizer, Thread("1", (Return(10),)))))
    >>> [(graph.threads[task.thread].id, task.tokens) for task in graph.tasks]
    [('organizer', 5), ('1', 10), ('organizer', 3), ('organizer', 2)]
    >>> [(edge.source, edge.target, edge.kind.value) for edge in graph.edges()]
    [(0, 2, 'program'), (0, 1, 'fork'), (1, 3, 'join'), (2, 3, 'program')]
    """
    if not isinstance(trace, Trace):
        raise TraceError(mistaken("compile_trace", "Trace", trace))
    if protocol is not None and not isinstance(protocol, Protocol):
        raise ConfigError(f"compile_trace() takes a Protocol; got {protocol!r:.80}")
    return _Compiler(trace, protocol or _DEFAULT).graph()


class _Compiler:
    """Emits tasks depth first, each worker right after the task that forks it: that order is topological."""

    def __init__(self, trace: Trace, protocol: Protocol) -> None:
        self.trace = trace
        self.protocol = protocol
        self.recorded = {thread.id: thread for thread in trace.threads}
        self.names: dict[str, int] = {}
        self.tasks: list[Task] = []
        self.inserted: dict[str, int] = {}

    def graph(self) -> ExecutionGraph:
        reached = self._reachable()
        self.names = {thread.id: i for i, thread in enumerate(t for t in self.trace.threads if t.id in reached)}
        self.emit(ORGANIZER)
        threads = []
        trace, recorded, inserted = self.trace, self.recorded, self.inserted
        for name in self.names:
            thread = recorded[name]
            shared = thread.shared_tokens
            threads.append(GraphThread(name, shared, thread.prompt_tokens - shared, inserted.get(name, 0)))
        return ExecutionGraph(tuple(self.tasks), tuple(threads), self.protocol, trace.id, trace.prefix_of, trace)

    def _reachable(self) -> set[str]:
        """Threads that some Fork starts. Parents precede children in a trace, so one pass does."""
        reached = {ORGANIZER}
        for thread in self.trace.threads:
            if thread.id in reached:
                end = self._end(thread.id)
                for action in thread.actions:
                    if isinstance(action, Fork):
                        name = child_id(thread.id, action.index)
                        if name in self.recorded:
                            reached.add(name)
                    elif action.__class__ is end:
                        break
        return reached

    def _end(self, name: str) -> type[Action] | None:
        """Return the action behind which nothing of a thread is played, if there is one."""
        if self.protocol.after_end == "count":
            return None
        return Answer if name == ORGANIZER else Return

    def emit(self, name: str) -> None:
        """Append the tasks of one thread and of all that it forks."""
        thread = self.recorded[name]
        unjoined: dict[int, str] = {}
        forked: set[int] = set()
        task = _Draft(self.names[name])
        prefill = thread.prompt_tokens - thread.shared_tokens

        # Others can notice what a thread does only where it forks, joins or pauses: there, and nowhere else, it is cut.
        def close(end: int) -> None:
            nonlocal task, prefill
            if task.tokens:  # context waits for the next decode, which is what reads it
                task.prefill, prefill = prefill, 0
            self.tasks.append(task.done(end, self.names))
            forks = task.forks
            task = _Draft(task.thread, end)
            for child in forks:
                self.emit(child)

        place, end = 0, self._end(name)
        for place, action in enumerate(thread.actions):
            if action.__class__ is Think:  # by far the most
                if task.forks and action.tokens:
                    close(place)
                task.tokens += action.tokens
                continue
            if isinstance(action, Delay):
                if action.seconds:
                    if task.tokens or task.forks:
                        close(place)
                    task.seconds = action.seconds
                    close(place + 1)
                continue
            if task.forks and action.tokens:  # Forks in a row, without a token between them, end one task together
                close(place)
            task.tokens += action.tokens
            if isinstance(action, Fork):
                child = child_id(name, action.index)
                if action.index not in forked and child in self.names:
                    task.forks.append(child)
                    unjoined[action.index] = child
                forked.add(action.index)
            elif isinstance(action, Join):
                waits = action.index in unjoined
                # Its own tokens are decoded before it waits, so they end the task; what it inserts begins the next.
                if (waits or action.inserted_tokens) and (task.tokens or task.forks):
                    close(place + 1)
                if waits:
                    child = unjoined.pop(action.index)
                    task.joins.append(self.names[child])
                    self.inserted[child] = action.inserted_tokens
                if self.protocol.charge_inserted:
                    task.tokens += action.inserted_tokens
                else:
                    prefill += action.inserted_tokens
            elif action.__class__ is end:
                break
        if task.tokens or task.forks or task.joins or task.begin == 0:
            close(place + 1)


class _Draft:
    """A task being filled."""

    __slots__ = ("begin", "forks", "joins", "prefill", "seconds", "thread", "tokens")

    def __init__(self, thread: int, begin: int = 0) -> None:
        self.thread = thread
        self.begin = begin
        self.tokens = 0
        self.prefill = 0
        self.seconds = 0.0
        self.forks: list[str] = []
        self.joins: list[int] = []

    def done(self, end: int, names: dict[str, int]) -> Task:
        forks = tuple(names[child] for child in self.forks)
        return Task(self.thread, self.tokens, self.prefill, self.seconds, forks, tuple(self.joins), (self.begin, end))
