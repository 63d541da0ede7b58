"""What mkdocstrings reads in place of our docstrings: doctests under a heading, links for names, fields in a table."""

import re
import textwrap
from collections.abc import Iterator

import griffe

_DOCTEST = re.compile(r"^>>> ", re.MULTILINE)
_EXAMPLES = re.compile(r"^Examples\n-+$", re.MULTILINE)
_PARAMETERS = re.compile(r"^Parameters\n-+$", re.MULTILINE)
_LITERAL = re.compile(r"^ *::\n|(?<=:):$", re.MULTILINE)
_TYPED = re.compile(r"^(\w+(?:, \w+)*) : (?!.*(?:shape|length)).*$", re.MULTILINE)
_RETURNED = re.compile(r"^Returns\n-+\n\S.*\n(?=\n|\Z)", re.MULTILINE)
_NAME = re.compile(r"(?<![`\w])`([A-Za-z_][\w.]*)`(?!`)")


class Docstrings(griffe.Extension):
    """Goes over all docstrings of a package when it is loaded."""

    def on_package(self, *, pkg: griffe.Module, **others: object) -> None:
        """Change the docstrings."""
        for each in list(_objects(pkg)):
            if each.docstring is not None:
                each.docstring.value = _rewritten(each, each.docstring.value)
        for each in list(_objects(pkg)):
            if isinstance(each, griffe.Class):
                _tabulate(each)


def _objects(parent: griffe.Object) -> Iterator[griffe.Object]:
    yield parent
    for member in parent.members.values():
        if isinstance(member, griffe.Object):
            yield from _objects(member)


def _rewritten(where: griffe.Object, text: str) -> str:
    text = _RETURNED.sub("", _LITERAL.sub("", text) + "\n")
    text = _TYPED.sub(lambda entry: _untyped(where, entry), text)
    if not _EXAMPLES.search(text):
        text = _DOCTEST.sub("Examples\n--------\n>>> ", text, count=1)
    return _NAME.sub(lambda name: _linked(where, name[1]), text)


def _untyped(where: griffe.Object, entry: re.Match[str]) -> str:
    """Return names of parameters without their type in words, where annotations say as much: those are links."""
    known = where.parameters if isinstance(where, griffe.Function) else where.members
    for name in entry[1].split(", "):
        annotation = str(getattr(known[name], "annotation", None) or "Any") if name in known else "Any"
        if annotation == "Any" or ("{" in entry[0] and "Literal" not in annotation):
            return entry[0]
    return entry[1]


def _linked(where: griffe.Object, name: str) -> str:
    """Return `name`, as `where` says it in backticks, with a link if it is on one of the pages."""
    if name in getattr(where, "parameters", ()):
        return f"`{name}`"
    try:
        path = name if name.startswith("simulator.") else where.resolve(name)
        meant = where.modules_collection[path]
    except (griffe.NameResolutionError, KeyError):
        return f"`{name}`"
    if isinstance(meant, griffe.Module) and meant.name in meant.members:  # a function called as its file
        path += f".{meant.name}"
    return f'<autoref identifier="{path}" optional><code>{name}</code></autoref>'


def _tabulate(one: griffe.Class) -> None:
    """Put the fields that the parameters of a class do not explain into its docstring."""
    fields = [
        each
        for name, each in one.members.items()
        if isinstance(each, griffe.Attribute) and "property" not in each.labels and not name.startswith("_")
    ]
    told = one.docstring.value if one.docstring else ""
    lines = []
    for field in fields:
        said = field.docstring.value if field.docstring else ""
        field.docstring = None
        if not said and _PARAMETERS.search(told) and re.search(rf"^(?:\w+, )*{field.name}\b", told, re.MULTILINE):
            continue
        if field.annotation is None:  # of an enumeration
            said = f"`{field.value}` {said}"
        lines += [field.name, textwrap.indent(said, "    ")]
    if lines:
        section = "\n".join(["Attributes", "----------", *lines])
        before, heading, after = told.partition("Examples\n--------\n")
        text = "\n\n".join([before.rstrip(), section, *([heading + after] if heading else [])])
        one.docstring = griffe.Docstring(text, parent=one, parser="numpy")
    if {str(base).rpartition(".")[2] for base in one.bases} & {"Struct", "NamedTuple", "_Action"}:
        _initialize(one, fields)


def _initialize(one: griffe.Class, fields: list[griffe.Attribute]) -> None:
    """Give a class the signature that its fields stand for. griffe does that for dataclasses."""
    parameters = [
        griffe.Parameter(
            each.name,
            annotation=each.annotation,
            default=each.value,
            kind=griffe.ParameterKind.positional_or_keyword,
        )
        for each in fields
    ]
    one.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(*parameters), parent=one))
