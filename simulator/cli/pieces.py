"""``--import``: one's own metrics, cost models, formats, policies and rewards, in every command."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from simulator.support.own import load_pieces

_ASKED: list[str] = []


def asked(base: str) -> list[str]:
    """Return what the command at hand was told to import, paths of files as seen from the folder `base`."""
    return [os.path.relpath(name, base) if name.endswith(".py") else name for name in _ASKED]


def _import(names: list[str] | None) -> list[str]:
    _ASKED[:] = names or []
    for name in _ASKED:
        load_pieces(name)
    return _ASKED


_OPTION = typer.Option(
    "--import",
    metavar="FILE.py|MODULE",
    is_eager=True,  # before other options are looked at, which may name what is imported
    callback=_import,
    show_default=False,
    help="Run Python code of yours first, which lists own pieces (docs/extending.md).",
)


def with_imports(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command that also takes ``--import``.

    >>> def shout(word: str) -> None:
    ...     print(word.upper())
    >>> [*inspect.signature(with_imports(shout)).parameters]
    ['word', 'own_pieces']
    """

    @wraps(command)
    def importing(*arguments: Any, own_pieces: Any = None, **named: Any) -> Any:
        return command(*arguments, **named)

    signature = inspect.signature(command, eval_str=True)
    kind = Annotated[list[str] | None, _OPTION]
    added = inspect.Parameter("own_pieces", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
    importing.__signature__ = signature.replace(parameters=[*signature.parameters.values(), added])  # type: ignore[attr-defined]
    importing.__annotations__ = {**inspect.get_annotations(command, eval_str=True), "own_pieces": kind}
    return importing
