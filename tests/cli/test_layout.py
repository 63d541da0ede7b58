"""Tables and sentences fit on the screen, and nothing of a value is lost."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from simulator.cli import _run, common
from simulator.cli.layout import FIRST, fitted, prose

WORDS = st.text("abcdefg0123456789%.", min_size=1, max_size=12)
CELLS = st.one_of(WORDS, st.just(""), WORDS.map(Text))


def printed(table, width):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    for part in fitted(table, width):
        console.print(part)
    return console.file.getvalue()


@st.composite
def tables(draw):
    padding = draw(st.sampled_from([(0, 1), (0, 0, 0, 1), (0, 1, 0, 1)]))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=draw(st.booleans()), padding=padding)
    titles = draw(st.lists(st.lists(WORDS, min_size=1, max_size=3).map(" ".join), min_size=1, max_size=9))
    for place, title in enumerate(titles):
        table.add_column(title, justify="right" if place else "left", no_wrap=bool(place))
    for _ in range(draw(st.integers(0, 4))):
        first = draw(st.text("XYZ", min_size=1, max_size=70))
        table.add_row(first, *(draw(CELLS) for _ in titles[1:]), end_section=draw(st.booleans()))
    return table


@given(table=tables(), width=st.integers(44, 160))
def test_no_line_is_wider_and_no_value_is_cut(table, width):
    text = printed(table, width)
    assert max((cell_len(line) for line in text.splitlines()), default=0) <= width
    assert "…" not in text
    words = text.split()
    for column in table.columns[1:]:
        for cell in column.cells:
            assert not str(cell) or str(cell) in words
        assert all(word in words for word in str(column.header).split())
    names = "".join(letter for letter in text if letter in "XYZ")
    assert "".join(map(str, table.columns[0].cells)) in names  # folded, perhaps, but all there


@given(table=tables())
def test_where_there_is_room_nothing_changes(table):
    assert fitted(table, 1000) == [table]


def test_parts_repeat_the_first_column_and_keep_every_row():
    table = Table("thread", "tokens", "saved", "bound by", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_row("organizer", "1,234", "98,765", "organizer")
    table.add_row("1", "5", "6", "worker 1")
    assert [[column.header for column in part.columns] for part in fitted(table, 36)] == [
        ["thread", "tokens", "saved"],
        ["thread", "bound by"],
    ]


def test_a_long_name_is_folded_before_columns_go_elsewhere():
    table = Table("trace", "a", "b", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_row("x" * 100, "1", "2")
    [part] = fitted(table, 60)
    assert len(part.columns) == 3
    assert FIRST < 60


COMMANDS = {
    "run": ["run", "traces/asyncthink/countdown.txt", "traces/asyncthink/geometry.txt"],
    "run-gpu": ["run", "traces/synthetic.jsonl", "--gpu", "h100-qwen3-8b-database", "--rows", "5"],
    "score": ["score", "traces/judged.jsonl"],
    "whatif": ["whatif", "traces/asyncthink/countdown.txt", "--gpu", "h100-qwen3-8b-database"],
    "gpus": ["gpus"],
    "audit": ["audit", "threadweaver", "--budget", "20"],
    "validate": ["validate", "traces/recorded/own-gemma.jsonl", "--gpu", "cpu-gemma3-270m-q4", "--rows", "3"],
    "calibrate": ["calibrate", "traces/recorded/own-gemma-steps.csv"],
}


@pytest.mark.parametrize("width", [60, 80, 100, 140])
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_fit(name, width, monkeypatch, capsys):
    for module in list(__import__("sys").modules.values()):
        if getattr(module, "screen_width", None) is common.screen_width and module.__name__.startswith("simulator.cli"):
            monkeypatch.setattr(module, "screen_width", lambda: width)
    assert _run(COMMANDS[name]) == 0
    out = capsys.readouterr().out
    assert out and "…" not in out
    for line in out.splitlines():
        assert cell_len(line.rstrip()) <= width, line


def test_prose_is_one_paragraph():
    assert prose("a\nb   c", 80) == "a b c"
    assert max(map(len, prose("word " * 100, 300).splitlines())) <= 120
