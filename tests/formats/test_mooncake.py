"""Mooncake request logs: prefixes, what is refused, and the published log."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.engine.simulation import simulate
from simulator.errors import ConfigError, FormatError
from simulator.formats.logs.mooncake import Log
from simulator.formats.reading import read
from simulator.graph.compiler import compile_trace
from simulator.machine.cost import LinearBatch
from simulator.machine.gpu import GPU
from simulator.trace import Answer, Thread, Trace

FIRST = {"timestamp": 500, "input_length": 100, "output_length": 7, "hash_ids": [0, 1]}


def traces_of(*requests, block_size=64):
    log = Log(block_size)
    return [log.trace(json.dumps(FIRST | request), f"r{i}") for i, request in enumerate(requests)]


def shared(*requests, **options):
    return [(trace.prefix_of, trace.organizer.shared_tokens) for trace in traces_of(*requests, **options)]


def test_a_request_is_a_query_of_one_thread():
    [trace] = traces_of({})
    assert trace == Trace("r0", (Thread("organizer", (Answer(7),), 100),), arrival=0.5)


def test_the_longest_prefix_and_the_latest_of_several():
    whole = {"input_length": 256}
    requests = [
        whole | {"hash_ids": [0, 1, 2, 3]},
        whole | {"hash_ids": [0, 1, 4, 5]},
        whole | {"hash_ids": [0, 1, 2, 6]},  # three blocks with the first, two with the second
        whole | {"hash_ids": [0, 7, 8, 9]},  # one with all: the latest
        whole | {"hash_ids": [7, 0, 1, 2]},  # the same blocks behind another beginning
        whole | {"hash_ids": []},  # nothing is known
    ]
    assert shared(*requests) == [(None, 0), ("r0", 128), ("r0", 192), ("r2", 64), (None, 0), (None, 0)]


def test_never_more_than_is_shared_and_less_than_the_prompt():
    # The first holds 36 tokens of block 1, and so do both surely; the second is no shorter than what it shares.
    assert shared({}, {"input_length": 128})[1] == ("r0", 100)
    assert shared({"input_length": 128}, {})[1] == ("r0", 99)
    assert shared({}, {})[1] == ("r0", 99)
    assert shared({"input_length": 1, "hash_ids": [0]}, {"input_length": 1, "hash_ids": [0]})[1] == (None, 0)


_requests = st.lists(st.tuples(st.lists(st.integers(0, 2), max_size=4), st.integers(0, 3)), max_size=12)


@given(drawn=_requests)
def test_prefixes_are_those_of_a_search_through_all(drawn):
    requests = [
        {"hash_ids": blocks, "input_length": max(0, 4 * len(blocks) - short)} if blocks else FIRST | {"hash_ids": []}
        for blocks, short in drawn
    ]
    seen = []
    for (earlier, tokens), request in zip(shared(*requests, block_size=4), requests, strict=True):
        depths = [
            next(
                (i for i, (a, b) in enumerate(zip(blocks, request["hash_ids"], strict=False)) if a != b),
                min(len(blocks), len(request["hash_ids"])),
            )
            for blocks, _ in seen
        ]
        best = max(depths, default=0)
        wanted = (None, 0)
        if best:
            index = max(i for i, depth in enumerate(depths) if depth == best)
            length = min(4 * best, seen[index][1], request["input_length"] - 1)
            wanted = (f"r{index}", length) if length > 0 else (None, 0)
        assert (earlier, tokens) == wanted
        seen.append((request["hash_ids"], request["input_length"]))


BAD = {
    "no timestamp": ({"timestamp": None}, "not a request of a Mooncake log: Expected `float`, got `null`"),
    "a negative length": ({"input_length": -1}, "input_length must be from 0 to 10^12, got -1"),
    "a huge length": ({"output_length": 10**13}, "output_length must be from 0 to 10^12, got 10000000000000"),
    "half a token": ({"output_length": 1.5}, "Expected `int`, got `float`"),
    "before time": ({"timestamp": -5}, "timestamp must be from 0 to 10^12 milliseconds, got -5.0"),
    "the end of time": ({"timestamp": 1e300}, "timestamp must be from 0 to 10^12 milliseconds, got 1e+300"),
    "another block size": (
        {"input_length": 1000},
        "an input_length of 1000 is 16 blocks of 64 tokens, but there are 2 hash_ids; is the block size another?",
    ),
    "words for blocks": ({"hash_ids": ["a", "b"]}, "Expected `int`, got `str` - at `$.hash_ids[0]`"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_a_bad_request_is_reported_and_forgotten(tmp_path, change, message):
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(json.dumps(each) for each in (FIRST, FIRST | change, FIRST)))
    first, error, last = read(path, block_size=64)
    assert message in error.message and error.line == 2 and "\n" not in str(error)
    assert (first.id, last.id, last.prefix_of) == ("log:1", "log:3", "log:1")


def test_files(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(FIRST | {"hash_ids": [5], "request_id": "q7", "session_id": "s"}))
    [trace] = read(path)
    assert (trace.id, trace.organizer.prompt_tokens) == ("q7", 100)
    assert [trace] == list(read(path, format="mooncake"))
    path.write_text('{"text": "x"}')
    [error] = read(path, format="mooncake")
    assert "not a request of a Mooncake log: Object missing required field" in error.message
    for size in (0, -1, True, 1.5):
        with pytest.raises(ConfigError, match="the block size is a number of tokens from 1 on"):
            read(path, block_size=size)


def test_a_shared_prefix_is_not_prefilled_again():
    first, second = traces_of({"timestamp": 0}, {"timestamp": 60_000})
    assert second.prefix_of == first.id
    gpu = GPU(
        cost=LinearBatch(a=1.0, p=1.0), num_kv_blocks=100, block_size=16, max_num_batched_tokens=1000, max_num_seqs=8
    )
    timeline = simulate([compile_trace(first), compile_trace(second)], gpu=gpu, arrivals=[0.0, 60_000.0])
    prefill = timeline.column("decode_start") - timeline.column("start")
    assert prefill.tolist() == [101.0, 5.0]  # of 99 tokens, six blocks of 16 are there


@pytest.mark.corpus
@pytest.mark.skipif("FORKSIM_CORPUS" not in os.environ, reason="FORKSIM_CORPUS does not name the recorded traces")
def test_the_published_log():
    path = Path(os.environ["FORKSIM_CORPUS"]) / "mooncake_conversation.jsonl"
    traces = list(read(path))
    assert [type(trace) for trace in traces] == [Trace] * 1500
    assert traces[-1].arrival == 509.999
    prompts = sum(trace.organizer.prompt_tokens for trace in traces)
    common = sum(trace.organizer.shared_tokens for trace in traces)
    assert (prompts, common, sum(trace.prefix_of is not None for trace in traces)) == (20_981_721, 5_663_972, 1499)
    assert all(isinstance(item, FormatError) for item in list(read(path, block_size=256)))
