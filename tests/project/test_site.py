"""The documentation site: built without a warning, complete, and whole without a network."""

import importlib
import importlib.util
import os
import posixpath
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
import typer

import simulator
from simulator.cli import app

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in ("material", "mkdocstrings_handlers")),
        reason="needs the extra docs: `make docs` installs it",
    ),
]
ROOT = Path(__file__).parents[2]
ROOMS = [
    path.parent.name
    for path in ROOT.glob("simulator/*/__init__.py")
    if path.parent.name != "cli" and "__all__" in path.read_text(encoding="utf-8")
]
LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "audio": "src"}


class Parsed(HTMLParser):
    """What a page loads, links to, and can be linked at."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.links, self.ids = set(), set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.add(given["href"])
        elif given.get(LOADED.get(tag)) and given.get("rel") not in ("prev", "next", "canonical"):
            self.loads.add(given[LOADED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Documentation built" in done.stderr  # where mkdocs is quiet, no warning is an error
    return folder


@pytest.fixture(scope="module")
def pages(site):
    """All pages by their place in the site."""
    return {
        path.relative_to(site).as_posix(): Parsed(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")
    }


@pytest.fixture(scope="module")
def hook():
    spec = importlib.util.spec_from_file_location("site_hook", ROOT / "tools" / "site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_nothing_is_loaded_from_elsewhere(site, pages):
    loaded = {address for page in pages.values() for address in page.loads}
    assert "site.css" in loaded and "iframe-worker.js" in loaded
    assert [address for address in loaded if address.startswith(("http:", "https:", "//"))] == []
    for path in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import\s)[\"']?(?:https?:)?//", path.read_text(encoding="utf-8")), path


def test_every_link_arrives(site, pages):
    for name, page in pages.items():
        if name == "404.html":  # its addresses begin at the root of a server
            continue
        for address in page.links | page.loads:
            target, anchor = urldefrag(unquote(address))
            if ":" in target:
                continue
            there = posixpath.normpath(posixpath.join(posixpath.dirname(name), target)) if target else name
            there += "/index.html" if (site / there).is_dir() else ""
            assert not there.startswith("..") and (site / there).is_file(), (name, address)
            assert not anchor or there not in pages or anchor in pages[there].ids, (name, address)


def test_every_group_is_there(site):
    home = (site / "index.html").read_text(encoding="utf-8")
    tabs = re.findall(r'class="md-tabs__link"[^>]*>(.*?)</a>', home, re.DOTALL)
    assert [re.sub(r"<[^>]*>", "", tab).strip() for tab in tabs] == ["Home", "Learn", "Do", "Reference", "Evidence"]


def test_every_exported_name_is_explained(pages, hook):
    assert set(hook.ROOMS) == {*ROOMS, "errors"}
    assert {f"simulator.{name}" for name in simulator.__all__} <= pages["api/index.html"].ids
    for room in ROOMS:
        names = importlib.import_module(f"simulator.{room}").__all__
        assert {f"simulator.{room}.{name}" for name in names} <= pages[f"api/{room}.html"].ids


def test_every_command_and_option_is_explained(site, pages):
    sections = re.split(r'<h[23] id="([^"]+)"', (site / "cli.html").read_text(encoding="utf-8"))
    said = dict(zip(sections[1::2], sections[2::2], strict=True))

    def check(command, path):
        names = {name for each in command.params if not each.hidden for name in each.opts if name.startswith("-")}
        assert names <= set(re.findall(r"<code[^>]*>(-[^<]*)</code>", said["-".join(path)])), path
        for name, each in getattr(command, "commands", {}).items():
            check(each, [*path, name])

    check(typer.main.get_command(app), ["forksim"])
    assert len(said) > 15 and "\\|" not in (site / "cli.html").read_text(encoding="utf-8")


def test_links_that_leave_docs_lead_to_pages_of_the_site(hook):
    text = (
        "[a](../traces/README.md#x) ![b](images/countdown.png) [c](https://x.org) [d](gone.md) [e](../studies) [f](#g)"
    )
    turned, targets = hook.relinked(text, "page.md", "docs/page.md")
    assert turned == (
        "[a](files/traces/README.md#x) ![b](images/countdown.png) [c](https://x.org) [d](gone.md)"
        " [e](files/studies/index.md) [f](#g)"
    )
    assert targets == {"traces/README.md", "docs/images/countdown.png", "studies"}
    turned, targets = hook.relinked(
        "[h](../docs/design.md) [i](../examples/capacity.py)", "notebooks/x.md", "notebooks/x.ipynb"
    )
    assert turned == "[h](../design.md) [i](../files/examples/capacity.py.md)"
    assert hook.relinked("[j](../../../../etc/passwd)", "page.md", "docs/page.md")[1] == set()
