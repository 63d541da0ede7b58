"""The pages of the documentation site that are made from the repository, whenever mkdocs builds it (see mkdocs.yml).

- Home is README.md.
- A notebook is a page: its text, its code, and the output that is committed with it.
- The command line comes from the commands, the Python API from `ROOMS`: a page each.
- What a page links to outside docs/ is published under files/, so that no link leaves the site.
"""

import inspect
import json
import posixpath
import re
from base64 import b64decode
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import griffe
import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from simulator.cli import app

ROOT = Path(__file__).parents[1]
ROOMS = {
    "trace": ["tokens"],
    "formats": ["reading"],
    "workload": [],
    "graph": [],
    "machine": ["cost", "profiles", "policy", "routing"],
    "engine": [],
    "timeline": ["export"],
    "metrics": [],
    "rewards": [],
    "audit": [],
    "sensitivity": [],
    "study": [],
    "planning": [],
    "plots": [],
    "fidelity": [],
    "recording": ["engine", "server", "llamacpp", "llama_model"],
    "integrations": ["verl", "trl", "openrlhf", "verifiers", "slime"],
    "errors": [],
}
"""Packages that users import from, each with those of its modules that they import from too."""

LARGEST = 100_000
"""Characters of a file that is shown as a page. A larger one is only there to be opened."""

_LINK = re.compile(r"""(\]\(|^\[[^\]]+\]:\s+|\b(?:src|href)=")([^)\s"#]+)""", re.MULTILINE)
_DOCS = re.compile(r"(?:<code>)?\bdocs/([\w-]+\.md)\b(?:</code>)?")
_NAME = re.compile(r"<(?:list\[)?(\w+)[^>]*>|[^\s,]+")  # of an option, or of its type: "<list[str]>", "<int range>"
_log = get_plugin_logger("site")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Enter the pages of the Python API into the navigation."""
    pages = [{"Python API": "api/index.md"}, *({f"simulator.{room}": f"api/{room}.md"} for room in ROOMS)]
    for group in config.nav or []:
        for entries in group.values():
            for entry in entries if isinstance(entries, list) else []:
                entry.update({title: pages for title, page in entry.items() if page == "api/"})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and what any page links to."""
    site = _Site(config, files)
    for file in files.documentation_pages():
        site.page(file.src_uri, file.content_string, f"docs/{file.src_uri}")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    site.page("index.md", f"---\nhide: [navigation]\n---\n\n{readme}", "README.md")
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        site.notebook(path)
    site.page("cli.md", "\n".join(_command_line()))
    for uri, text in _api():
        site.page(uri, f"---\nsearch: {{boost: 0.5}}\n---\n\n{text}")
    while site.wanted:
        site.publish(site.wanted.pop())
    return files


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Link what docstrings, help texts and notebooks call docs/NAME.md, but in blocks of code."""

    def link(match: re.Match[str]) -> str:
        file = files.get_file_from_path(match[1])
        if file is None:
            _log.warning("%s speaks of docs/%s, which is not there", page.file.src_uri, match[1])
            return match[0]
        return f'<a href="{file.url_relative_to(page.file)}">{file.page.title if file.page else match[1]}</a>'

    parts = re.split(r"(<pre.*?</pre>)", html, flags=re.DOTALL)
    return "".join(part if part.startswith("<pre") else _DOCS.sub(link, part) for part in parts)


class _Site:
    """The files of the site while pages are added."""

    def __init__(self, config: MkDocsConfig, files: Files) -> None:
        self.config = config
        self.files = files
        self.wanted: set[str] = set()

    def add(self, uri: str, content: str | bytes) -> None:
        if (there := self.files.get_file_from_path(uri)) is not None:
            self.files.remove(there)
        self.files.append(File.generated(self.config, uri, content=content))

    def page(self, uri: str, text: str, source: str = "") -> None:
        """Add a page of Markdown; `source` is the file of the repository that its links start from."""
        if source:
            text, targets = relinked(text, uri, source)
            self.wanted |= targets
        self.add(uri, text)

    def publish(self, name: str) -> None:
        """Add a file or a folder of the repository."""
        path, uri = ROOT / name, _uri(name)
        if self.files.get_file_from_path(uri) is not None:
            return
        if path.is_dir():
            inside = sorted(each for each in path.rglob("[!._]*") if each.is_file())
            links = (each.relative_to(path).as_posix() for each in inside)
            self.page(uri, f"# {name}/\n\n" + "\n".join(f"- [{link}]({link})" for link in links), f"{name}/")
        elif path.suffix == ".md":
            self.page(uri, path.read_text(encoding="utf-8"), name)
        elif uri.endswith(".md"):
            language = path.suffix[1:] if path.suffix in (".py", ".toml", ".sh") else "text"
            code = f"~~~~~~ {language}\n{path.read_text(encoding='utf-8').rstrip()}\n~~~~~~\n"
            self.page(uri, f"---\nsearch: {{exclude: true}}\n---\n\n# {path.name}\n\n{code}")
        else:
            self.add(uri, path.read_bytes())

    def notebook(self, path: Path) -> None:
        """Add a notebook as a page, and its pictures."""
        source = path.relative_to(ROOT).as_posix()
        lines: list[str] = []
        pictures = 0
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            text = "".join(cell["source"])
            lines += [text, ""] if cell["cell_type"] == "markdown" else ["~~~~~~ python", text, "~~~~~~", ""]
            for output in cell.get("outputs", ()):
                data = output.get("data", {})
                if "image/png" in data:
                    pictures += 1
                    picture = f"{path.stem}-{pictures}.png"
                    self.add(f"notebooks/{picture}", b64decode("".join(data["image/png"])))
                    lines += [f"![Picture drawn by the code above]({picture})", ""]
                elif "text/html" in data:
                    lines += [f'<div class="output">{"".join(data["text/html"])}</div>', ""]
                else:
                    said = "".join(output.get("text") or data.get("text/plain", ""))
                    lines += ["~~~~~~ { .text .output }", said.rstrip(), "~~~~~~", ""]
        self.add(f"files/{source}", path.read_bytes())
        lines.append(f"This page is a notebook that you can run: [{path.name}](../files/{source}).")
        self.page(_uri(source), "\n".join(lines), source)


def relinked(text: str, uri: str, source: str) -> tuple[str, set[str]]:
    """Return Markdown with the links of file `source` turned into those of page `uri`, and which files they are to."""
    targets = set()

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        if target.startswith("..") or not (ROOT / target).exists():
            return match[0]  # elsewhere, or nowhere: mkdocs says so
        targets.add(target)
        return match[1] + posixpath.relpath(_uri(target), posixpath.dirname(uri) or ".")

    return _LINK.sub(link, text), targets


def _uri(name: str) -> str:
    """Return where the site has a file of the repository."""
    path = ROOT / name
    if name == "README.md":
        return "index.md"
    if path.parent == ROOT / "notebooks" and path.suffix == ".ipynb":
        return name.removesuffix(".ipynb") + ".md"
    if path.is_dir():
        return f"files/{name}/" + ("README.md" if (path / "README.md").exists() else "index.md")
    if name.startswith("docs/") and path.suffix != ".py":
        return name.removeprefix("docs/")
    if path.suffix == ".md" or path.stat().st_size > LARGEST:
        return f"files/{name}"
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return f"files/{name}"
    return f"files/{name}.md"


def _command_line() -> Iterator[str]:
    """Yield the lines of the page on the command line."""
    yield from ["# Command line", ""]
    yield from _command(typer.main.get_command(app), "forksim", None)


def _command(command: Any, name: str, parent: Any) -> Iterator[str]:
    context = command.context_class(command, info_name=name, parent=parent, **command.context_settings)
    anchor = context.command_path.replace(" ", "-")
    level = "##" + "#" * (context.command_path.count(" ") > 1)
    yield from [f"{level} {context.command_path} {{ #{anchor} }}", ""]
    yield from [inspect.cleandoc(command.help or ""), ""]
    yield from ["```text", command.get_usage(context).removeprefix("Usage: "), "```", ""]
    yield from ["| option | meaning |", "|---|---|"]
    for each in command.get_params(context):
        record = each.get_help_record(context)
        if record is not None:
            yield f"| {_NAME.sub(_whole, record[0])} | {_escaped(record[1])} |"
    yield ""
    for name, each in getattr(command, "commands", {}).items():
        if not each.hidden:
            yield from _command(each, name, context)


def _whole(name: re.Match[str]) -> str:
    said = f"<{name[1]}>" if name[1] else name[0]
    return f"`{said}`{{ .whole }}"  # a bar in code does not end a cell


def _escaped(text: str) -> str:
    return re.sub(r"([|*_`\[\]\\])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))


def _api() -> Iterator[tuple[str, str]]:
    """Yield name and text of each page of the Python API."""
    package: Any = griffe.load("simulator", search_paths=[ROOT], resolve_aliases=True)
    anchors: dict[str, str] = {}
    for room, modules in ROOMS.items():
        text = _module(package[room], 1, anchors)
        for module in modules:
            text += _module(package[f"{room}.{module}"], 2, anchors)
        yield f"api/{room}.md", "\n".join(text)
    exported = _sorted({str(name): _meant(package, str(name)) for name in package.exports or ()})
    lines = _block("simulator", {"heading_level": 1, "members": False})
    lines += _table(
        (f'<a id="simulator.{name}"></a>[`{name}`][{anchors[one.path]}]', one) for name, one in exported.items()
    )
    yield "api/index.md", "\n".join(lines)


def _sorted(members: dict[str, griffe.Object]) -> dict[str, griffe.Object]:
    """Return functions, classes and constants, in this order."""
    order = (griffe.Kind.FUNCTION, griffe.Kind.CLASS, griffe.Kind.ATTRIBUTE)
    return dict(sorted(members.items(), key=lambda item: order.index(item[1].kind)))


def _meant(module: griffe.Module, name: str) -> griffe.Object:
    """Return what `name` is in a module, where a function may be called as the file that it is in."""
    one = module[name]
    while isinstance(one, griffe.Module) and name in one.members:
        one = one[name]
    return one.final_target if isinstance(one, griffe.Alias) else one


def _module(module: griffe.Module, level: int, anchors: dict[str, str]) -> list[str]:
    """Return the lines on one module, and enter into `anchors` where its members are explained."""
    names = [str(name) for name in module.exports or ()] or [
        name for name, one in module.members.items() if not one.is_alias and one.is_public and one.has_docstring
    ]
    members = _sorted({name: _meant(module, name) for name in names})
    options = {"heading_level": level, "members": False, "show_root_full_path": True}
    lines = _block(module.path, options)
    shadowed = {name for name in members if module.members[name].is_module}
    here = {name: one.path if name in shadowed else f"{module.path}.{name}" for name, one in members.items()}
    lines += _table((f"[`{name}`][{here[name]}]", one) for name, one in members.items())
    for name, one in members.items():
        anchors.setdefault(one.path, here[name])
        if name in shadowed:
            lines += [f'<a id="{module.path}.{name}"></a>', ""]
        lines += _block(here[name], {"heading_level": level + 1, "show_bases": module.name == "errors"})
    return lines


def _block(path: str, options: dict[str, Any]) -> list[str]:
    return [f"::: {path}", "    options:", *(f"      {key}: {json.dumps(value)}" for key, value in options.items()), ""]


def _table(rows: Iterable[tuple[str, griffe.Object]]) -> Iterator[str]:
    """Yield the lines of a table of names and what they are."""
    yield from ["| name | what it is |", "|---|---|"]
    for name, one in rows:
        summary = one.docstring.value.partition("\n\n")[0].replace("\n", " ") if one.docstring else ""
        yield f"| {name} | {summary} |"
    yield ""
