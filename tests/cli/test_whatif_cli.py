"""``forksim whatif``: what it says, writes and refuses. Its tables are among the golden ones of test_cli.py."""

import json
import re
from pathlib import Path

import pytest

from simulator import Answer, Fork, Join, Protocol, Return, Think, compile_trace, sensitivity
from simulator.cli import _run
from simulator.formats import native
from simulator.machine.profiles import gpu_from_text
from tests.support.drawn import traced

# answered after 23 steps by way of worker 2; see test_sensitivity.py
DRAWN = traced(
    [Think(4), Fork(1, 1), Fork(2, 1), Think(6), Join(1), Join(2), Answer(3)], w1=[Return(12)], w2=[Return(14)]
)
PLAIN = traced([Answer(5)])
EMPTY = traced([])
NESTED = traced([Fork(1), Join(1), Answer(1)], w1=[Fork(1), Join(1), Return(1)], w1_1=[Return(1)])


@pytest.fixture
def forksim(tmp_path, monkeypatch, capsys):
    """Runs a command in a folder with traces; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    for name, trace in {"drawn": DRAWN, "plain": PLAIN, "empty": EMPTY, "nested": NESTED}.items():
        Path(f"{name}.jsonl").write_bytes(native.encode(trace).replace(b'"t"', f'"{name}"'.encode(), 1) + b"\n")

    def run(*arguments):
        code = _run(["whatif", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def test_the_question_is_answered_in_words(forksim):
    def sentence(*arguments):
        code, out, err = forksim(*arguments)
        assert (code, err) == (0, "")
        paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", out))
        return next(part for part in paragraphs if " times its length: " in part)

    assert sentence("drawn.jsonl") == (
        "The organizer at 0.5 times its length: the answer comes 4 steps (17%) earlier; if it took no time, 9. Of the"
        " workers, worker 2 at 0.5 times its length: the answer comes 3 steps (13%) earlier; if it took no time, 3, as"
        " the answer then waits for worker 1."
    )
    assert sentence("drawn.jsonl", "--gpu", "rate:10", "--thread", 1, "--scale", 2) == (
        "Worker 1 at 2 times its length: the answer comes 0.900 seconds (39%) later."
    )
    assert sentence("drawn.jsonl", "--thread", 1) == "Worker 1 at 0.5 times its length: the answer comes when it came."
    assert sentence("plain.jsonl") == (
        "The organizer at 0.5 times its length: the answer comes 2 steps (40%) earlier; if it took no time, 5."
    )
    assert sentence("empty.jsonl") == "The organizer at 0.5 times its length: the answer comes when it came."


def test_what_costs_most_is_told_where_threads_get_longer(forksim):
    """Worker 2 binds: 14 more steps. Worker 1 has 3 to spare of its 13, and the organizer has fewer tokens."""
    code, out, _ = forksim("drawn.jsonl", "--scale", 2)
    assert code == 0
    assert "Worker 2 at 2 times its length: the answer comes 14 steps (61%) later." in out
    rows = json.loads(forksim("drawn.jsonl", "--scale", 2, "--json")[1])["threads"]
    saved = [row["saved"] for row in rows]
    assert rows[0]["thread"] == "2" and saved == sorted(saved)


def test_json_is_what_the_api_says(forksim):
    code, out, err = forksim("drawn.jsonl", "plain.jsonl", "--json", "--gpu", "h100-qwen3-8b", "-c", 2, "--scale", 0.25)
    assert (code, err) == (0, "")
    first, second = map(json.loads, out.splitlines())
    result = sensitivity(compile_trace(DRAWN, Protocol(capacity=2)), gpu=gpu_from_text("h100-qwen3-8b"), scale=0.25)
    assert (first["trace"], first["unit"], first["scale"], second["trace"]) == ("drawn", "seconds", 0.25, "plain")
    assert (first["latency"], first["bound"]) == (result.latency, result.bound)
    assert first["threads"] == [row._asdict() for row in result.threads]


def test_a_picture_of_the_first_trace(forksim, tmp_path):
    code, out, err = forksim("drawn.jsonl", "plain.jsonl", "-o", "new.svg")
    assert (code, err) == (0, "")
    assert out.endswith("wrote new.svg\n")
    words = re.sub(r"<!--|-->", "", (tmp_path / "new.svg").read_text(encoding="utf-8"))
    assert "drawn: the organizer at 0.5 times its length" in words
    assert "the answer comes 4 steps (17%) earlier" in words
    forksim("drawn.jsonl", "-o", "again.svg", "--thread", "organizer")
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "new.svg").read_bytes()
    code, out, err = forksim("drawn.jsonl", "-o", "worker.svg", "--thread", 2, "--json")
    assert "worker 2 at 0.5 times" in (tmp_path / "worker.svg").read_text(encoding="utf-8")
    assert len(out.splitlines()) == 1


def test_what_cannot_be_used_is_told_and_the_rest_is_done(forksim):
    code, out, err = forksim("missing.jsonl", "plain.jsonl", "nested.jsonl", "drawn.jsonl", "--thread", "2", "--json")
    assert code == 2
    assert [json.loads(line)["trace"] for line in out.splitlines()] == ["drawn"]
    assert err.splitlines() == [
        "forksim: missing.jsonl: cannot be read (No such file or directory);"
        " accepted is a file of JSON lines or of plain text, or -",
        "forksim: trace 'plain': no thread is called '2'; there are organizer",
        "forksim: trace 'nested': no thread is called '2'; there are organizer, 1, 1.1",
    ]
    code, out, err = forksim("nested.jsonl", "drawn.jsonl", "-c", 2, "--json")
    assert (code, len(out.splitlines())) == (2, 1)
    assert err == "forksim: trace 'nested': query 0 is never answered: there is nothing to speed up\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--scale", -1), "scale must be a number from 0 to 10^6, got -1.0"),
        (("--scale", "nan"), "scale must be a number from 0 to 10^6, got nan"),
        (("--scale", "half"), "Invalid value for '--scale'"),
        (("--rows", 0), "Invalid value for '--rows'"),
        (("--gpu", "h100"), "h100"),
        (("--full-pool", "wait"), "--full-pool takes"),
        (("--capacity", 0), "capacity must be a whole number"),
        (("-o", "x.bmp"), "a picture is saved as .png, .svg, .pdf; got 'x.bmp'"),
        (("-o", "none/x"), "a picture is saved as .png, .svg, .pdf; got 'none/x'"),
    ],
)
def test_wrong_options_are_one_line(forksim, options, message):
    code, _, err = forksim("drawn.jsonl", *options)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1
