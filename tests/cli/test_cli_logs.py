"""Request logs on the command line: found from their content, run with their arrivals, converted, refused."""

import json

import pytest

from simulator.cli import _run
from simulator.formats import native, writable
from simulator.formats.reading import read
from simulator.trace import Answer, Delay, Fork, Join, Return, Think, Thread, Trace

LOG = [
    {"timestamp": 27482, "input_length": 100, "output_length": 20, "hash_ids": [0, 1]},
    {"timestamp": 28482, "input_length": 180, "output_length": 10, "hash_ids": [0, 1, 2]},
]
QUERY = Trace(
    "q7",
    (
        Thread("organizer", (Think(28), Fork(1), Think(5), Join(1, 0, 4), Answer(2)), 100),
        Thread("1", (Return(9),), 130, 128),
    ),
    arrival=0.5,
)


@pytest.fixture
def forksim(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(each) + "\n" for each in LOG))
    (tmp_path / "traces.jsonl").write_text(native.render(QUERY) + "\n")

    def run(*arguments):
        code = _run([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def test_a_log_runs_with_its_arrivals_and_its_prefixes(forksim):
    options = ("--arrivals", "recorded", "--gpu", "linear:0.01,0,0,0.001,0", "--num-kv-blocks", 64, "--json")
    code, out, err = forksim("run", "log.jsonl", "--block-size", 64, *options)
    first, second, last = map(json.loads, out.splitlines())
    assert (code, err) == (0, "")
    assert [first["trace"], second["trace"], last["summary"]["traces"]] == ["log:1", "log:2", 2]
    # 100 prompt tokens, then 20 steps. Of the 180, the 96 in whole blocks of 16 that were read before need no prefill.
    assert first["latency"] == pytest.approx(0.1 + 20 * 0.01)
    assert second["latency"] == pytest.approx(0.084 + 10 * 0.01)


def test_a_log_with_blocks_of_another_size_is_refused_line_by_line(forksim):
    code, out, err = forksim("run", "log.jsonl", "--json")
    assert code == 2
    assert err.splitlines() == [
        "forksim: log.jsonl:1: an input_length of 100 is 1 blocks of 512 tokens, but there are 2 hash_ids; is the block"
        " size another?",
        "forksim: log.jsonl:2: an input_length of 180 is 1 blocks of 512 tokens, but there are 3 hash_ids; is the block"
        " size another?",
    ]
    code, out, err = forksim("run", "log.jsonl", "--block-size", 0)
    assert (code, out) == (2, "")
    assert err == "forksim: the block size is a number of tokens from 1 on; got 0\n"


def test_there_and_back(forksim):
    code, out, err = forksim("convert", "traces.jsonl", "--to", "agentic_mooncake", "--out", "plays.jsonl")
    assert (code, out, err) == (0, "wrote plays.jsonl\n", "")
    [again] = read("plays.jsonl")
    assert (again.id, again.arrival, len(again.threads)) == ("q7", 0.5, 2)
    code, out, err = forksim("convert", "plays.jsonl")
    assert (code, err) == (0, "")
    assert native.decode(out) == again
    code, to_stdout, _ = forksim("convert", "traces.jsonl", "--to", "agentic_mooncake", "--to-block-size", 10)
    header, first, *_ = map(json.loads, to_stdout.splitlines())
    assert (code, header["block_size"], len(first["hash_ids"])) == (0, 10, 10)


def test_what_cannot_be_said_is_reported_and_the_rest_is_written(forksim, tmp_path):
    late = Trace("late", (Thread("organizer", (Think(3), Delay(1.0))),))
    (tmp_path / "more.jsonl").write_text(native.render(late) + "\n{\n" + native.render(QUERY) + "\n")
    code, out, err = forksim("convert", "more.jsonl", "--to", "agentic_mooncake", "-o", "plays.jsonl")
    assert (code, out) == (2, "wrote plays.jsonl\n")
    first, second = err.splitlines()
    assert first == "forksim: trace 'late' ends with a Delay, and no request is left to wait for it"
    assert second.startswith("forksim: more.jsonl:2: not one complete JSON object")
    assert [item.id for item in read("plays.jsonl")] == ["q7"]


@pytest.mark.parametrize("command", ["run", "convert", "check", "score"])
def test_an_unknown_format_is_named_with_all_there_are(forksim, command):
    code, out, err = forksim(command, "log.jsonl", "--format", "moonshine")
    assert (code, out) == (2, "")
    assert err.startswith("forksim: no format is called 'moonshine'; accepted are native, ")
    assert err.endswith(", mooncake, agentic_mooncake\n")


def test_a_log_cannot_be_written(forksim):
    code, out, err = forksim("convert", "traces.jsonl", "--to", "mooncake", "--out", "x.jsonl")
    assert (code, out) == (2, "")
    assert err == f"forksim: mooncake is read, not written; accepted are {', '.join(writable())}\n"
