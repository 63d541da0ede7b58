"""The one exception family. Violations of the thinking protocol are data, not exceptions: see `trace`."""

from __future__ import annotations

MAX_MESSAGE = 2000
"""Characters of an error's text: it may quote what it refuses."""


class SimulatorError(Exception):
    """Base of everything forksim raises on purpose.

    >>> len(str(ConfigError("seed must be a number, got " + "9" * 10_000))) == MAX_MESSAGE
    True
    """

    def __init__(self, message: str) -> None:
        # What was refused stands in the middle, and what is accepted mostly at the end.
        end = MAX_MESSAGE // 4
        super().__init__(
            message if len(message) <= MAX_MESSAGE else f"{message[: MAX_MESSAGE - end - 3]} … {message[-end:]}"
        )


class FreePromptWarning(UserWarning):
    """Long prompts were simulated on a machine that takes no time for them."""


class TraceError(SimulatorError, ValueError):
    """A value no trace can hold, such as a negative token count."""


class FormatError(SimulatorError, ValueError):
    """A record no Trace can be built from.

    Parameters
    ----------
    message : str
        What was wrong and what would be accepted.
    path : str, optional
        The file it came from.
    line, column : int, optional
        1-based place in that file.
    """

    def __init__(
        self, message: str, *, path: str | None = None, line: int | None = None, column: int | None = None
    ) -> None:
        where = ":".join(str(part) for part in (path, line, column) if part is not None)
        super().__init__(f"{where}: {message}" if where else message)
        self.message = message[:MAX_MESSAGE]
        self.path = path
        self.line = line
        self.column = column

    def at(self, path: str | None = None, line: int | None = None) -> FormatError:
        """Return the same error placed at `path` and `line`."""
        return FormatError(self.message, path=path or self.path, line=line or self.line, column=self.column)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.message, self.path, self.line, self.column)


def _rebuild(message: str, path: str | None, line: int | None, column: int | None) -> FormatError:
    return FormatError(message, path=path, line=line, column=column)


class GraphError(SimulatorError, ValueError):
    """A graph that is not an execution graph: a cycle, a thread out of order, an edge to nowhere."""


class ConfigError(SimulatorError, ValueError):
    """An option outside what is accepted."""


class DeadlockError(SimulatorError, RuntimeError):
    """Threads wait for each other for ever; the message names the cycle."""


_MAKES = {
    "Trace": "simulator.parse(text) makes a Trace, and simulator.read(path) reads a file of them",
    "ExecutionGraph": "compile_trace(trace) makes the graph",
    "Timeline": "simulate(graph) makes the Timeline",
}
_WAYS = {
    ("Trace", "Timeline"): "simulate(compile_trace(trace)) makes the Timeline",
    ("str", "ExecutionGraph"): "compile_trace(simulator.parse(text)) makes the graph",
    ("str", "Timeline"): "simulate(compile_trace(simulator.parse(text))) makes the Timeline",
    ("ExecutionGraph", "Trace"): "graph.trace is the Trace it was made from",
    ("Timeline", "ExecutionGraph"): "timeline.graphs are the graphs that were simulated",
    ("Timeline", "Trace"): "timeline.graphs[0].trace is the Trace of its first query",
}


def mistaken(verb: str, wanted: str, given: object) -> str:
    """Return what to say where a function was given a thing of another stage of the pipeline: and how to get there.

    >>> print(mistaken("compile_trace", "Trace", "<FORK-1>"))
    compile_trace() takes a Trace, and this is a str: simulator.parse(text) makes a Trace, and simulator.read(path) ...
    """
    kind = type(given).__name__
    article = "an" if wanted[0] in "AEIO" else "a"
    if isinstance(given, SimulatorError):  # `read` gives what it cannot read in the place of a trace
        return f"{verb}() takes {article} {wanted}, and this is an error: {given}"
    way = _WAYS.get((kind, wanted), _MAKES.get(wanted, ""))
    this = "an" if kind[0] in "AEIO" else "a"
    return f"{verb}() takes {article} {wanted}, and this is {this} {kind}" + (f": {way}" if way else "")


def why(error: BaseException, *, limit: int = 1000) -> str:
    """Return one line on an exception, of at most `limit` characters: its text, after its type where it is not ours.

    >>> why(ConfigError("rate must be above 0")), why(KeyError("rate")), why(MemoryError())
    ('rate must be above 0', "KeyError: 'rate'", 'MemoryError')
    """
    try:
        text = str(error)
    except Exception:  # of somebody else's
        text = ""
    name = "" if isinstance(error, SimulatorError) else type(error).__name__
    said = ": ".join(part for part in (name, text) if part)
    notes = " ".join(str(note) for note in getattr(error, "__notes__", ()) if isinstance(note, str))
    return " ".join((said + (f" ({notes})" if notes else ""))[:limit].split())
