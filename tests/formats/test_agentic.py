"""Agentic Mooncake: traces to requests and back, the requests of others, and what is refused."""

import io
import json
import tracemalloc

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulator.engine.simulation import simulate
from simulator.errors import ConfigError, FormatError
from simulator.formats.logs.agentic import PlayReader, Writer
from simulator.formats.reading import dump, read
from simulator.graph.compiler import compile_trace
from simulator.machine.cost import LinearBatch
from simulator.machine.gpu import GPU
from simulator.trace import Answer, Delay, Fork, Join, Return, Think, Thread, Trace
from simulator.workload import FAMILIES, generate
from tests.support.strategies import TICK, any_traces, traces

replace = msgspec.structs.replace


def back(lines):
    """Read a file from its lines."""
    header, *rows = lines
    reader = PlayReader(header)
    items = []
    for number, row in enumerate(rows, 2):
        items += reader.feed(row, number)
    return [*items, *reader.close()]


def file(*rows, **header):
    """Return the lines of a file: rows are (session, id, input, output, hash_ids, dependencies)."""
    lines = [{"schema": "dynamo.agentic_mooncake", "version": 2, "block_size": 64, "hash_id_scope": "local"} | header]
    for session, id, length, output, blocks, *after in rows:
        dependencies = [
            {"request_id": name, "relation": relation, "trigger": "completion", "delay_ms": delay}
            for name, relation, delay in after
        ]
        lines.append(
            {"request_id": id, "play_id": "p", "session_id": session, "model": "m", "input_length": length}
            | {"output_length": output, "hash_ids": blocks, "not_before_ms": 0, "dependencies": dependencies}
        )
    return [json.dumps(line) for line in lines]


def acts(trace):
    """Return what each thread does, in short."""
    said = {}
    for thread in trace.threads:
        parts = []
        for action in thread.actions:
            name = type(action).__name__.lower()
            if isinstance(action, Delay):
                parts.append(f"delay {action.seconds:g}")
            elif isinstance(action, Fork | Join):
                parts.append(
                    f"{name} {action.index}" + (f"+{getattr(action, 'inserted_tokens', 0)}" * (name == "join"))
                )
            else:
                parts.append(f"{name} {action.tokens}")
        said[thread.id] = ", ".join(parts)
    return said


# ---------------------------------------------------------------- there


QUERY = Trace(
    "q7",
    (
        Thread(
            "organizer",
            (Think(28), Fork(1), Fork(2), Think(5), Delay(0.5), Join(1, 0, 4), Join(2, 0, 6), Answer(2)),
            100,
        ),
        Thread("1", (Return(9),), 150, 128),
        Thread("2", (Delay(0.25), Think(3), Return(4)), 150, 100),
    ),
    arrival=1.5,
    meta={"model": "a-model"},
)


def test_by_hand():
    header, *rows = map(json.loads, Writer(64).lines(QUERY))
    assert header == {
        "schema": "dynamo.agentic_mooncake",
        "version": 2,
        "block_size": 64,
        "hash_id_scope": "local",
        "source": {"format": "forksim.trace/1", "digest": "none"},
    }
    assert rows[0] == {
        "request_id": "00000000.0000.0000",
        "play_id": "q7",
        "source_play_ordinal": 0,
        "session_id": "organizer",
        "model": "a-model",
        "input_length": 100,
        "output_length": 28,
        "hash_ids": [0, 1],
        "not_before_ms": 1500.0,
        "dependencies": [],
    }
    short = [
        (
            *(row[key] for key in ("session_id", "input_length", "output_length", "hash_ids")),
            *((each["request_id"][9:], each["relation"], each["delay_ms"]) for each in row["dependencies"]),
        )
        for row in rows
    ]
    assert short == [
        ("organizer", 100, 28, [0, 1]),
        ("organizer", 128, 5, [0, 1], ("0000.0000", "sequence", 0)),
        (
            "organizer",
            143,
            2,
            [0, 1, 5],
            ("0000.0001", "sequence", 500),
            ("0001.0000", "join", 0),
            ("0002.0000", "join", 0),
        ),
        ("1", 150, 9, [0, 1, 2], ("0000.0000", "spawn", 0)),
        ("2", 150, 7, [0, 3, 4], ("0000.0000", "spawn", 250)),
    ]
    assert {row["not_before_ms"] for row in rows} == {1500.0}


def test_names_and_ids_are_of_one_play_only():
    trace = Trace("a", (Thread("organizer", (Answer(2),), 100),))
    writer = Writer(64)
    rows = [json.loads(line) for each in (trace, replace(trace, id=" "), trace, trace) for line in writer.lines(each)][
        1:
    ]
    assert [row["play_id"] for row in rows] == ["a", "trace", "a#2", "a#3"]
    assert [row["source_play_ordinal"] for row in rows] == [0, 1, 2, 3]
    assert [row["hash_ids"] for row in rows] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert len({row["request_id"] for row in rows}) == 4


CANNOT = {
    "nothing": ((Answer(0),), "decodes nothing"),
    "a Delay at the end": ((Think(3), Delay(1.0)), "ends with a Delay"),
    "a Delay before the end": ((Think(3), Delay(1.0), Answer(0)), "ends with a Delay"),
    "more than a request may have": (
        (Think(10**9), Fork(1), Think(1), Join(1), Answer(1)),
        "at most 1048576 are written",
    ),
    "no JSON": ((Answer(1),), "cannot be written as JSON"),
}


@pytest.mark.parametrize(("actions", "message"), CANNOT.values(), ids=CANNOT)
def test_what_requests_cannot_say(actions, message):
    name = "\ud800" if "JSON" in message else "t"
    trace = Trace(name, (Thread("organizer", actions), Thread("1", (Return(1),))))
    written = io.StringIO()
    refused = []
    good = Trace("good", (Thread("organizer", (Answer(2),)),))
    assert dump([good, trace, good], written, "agentic_mooncake", refused=refused.append) == 2
    [error] = refused
    assert message in str(error) and "\n" not in str(error)
    assert [item.id for item in back(written.getvalue().splitlines())] == ["good", "good#2"]
    with pytest.raises(FormatError):
        dump([trace], io.StringIO(), "agentic_mooncake")


@given(trace=any_traces())
def test_no_trace_raises_anything_but_a_format_error(trace):
    try:
        lines = list(Writer(16).lines(trace))
    except FormatError as error:
        assert "\n" not in str(error)
    else:
        [item] = back(lines)
        assert isinstance(item, Trace | FormatError)


# ---------------------------------------------------------------- and back


def grounded(trace):
    """Give each thread a context of its own: nothing is decoded from nothing, and nothing shared that is not there."""
    threads = [replace(each, prompt_tokens=each.prompt_tokens + 10) for each in trace.threads]
    threads[0] = replace(threads[0], shared_tokens=0)
    return replace(trace, threads=tuple(threads))


def decoding(trace):
    """Let each action decode, so that every task is a request."""
    threads = tuple(
        replace(
            thread,
            actions=tuple(
                each if isinstance(each, Delay) else replace(each, tokens=max(1, each.tokens))
                for each in thread.actions
            ),
        )
        for thread in trace.threads
    )
    return replace(trace, threads=threads)


def shape(graph):
    tasks = [(task.thread, task.tokens, task.prefill, sorted(task.forks), sorted(task.joins)) for task in graph.tasks]
    return [thread[:3] for thread in graph.threads], tasks, set(graph.edges())


@given(trace=traces(nested=True, prompts=True, min_tokens=1).map(decoding).map(grounded))
def test_the_graph_comes_back(trace):
    [again] = back(Writer(1).lines(trace))
    assert shape(compile_trace(again)) == shape(compile_trace(trace))
    assert (again.id, again.arrival) == (trace.id, 0.0)


@given(trace=traces(nested=True, prompts=True, unjoined=True, min_tokens=1).map(grounded), block_size=st.integers(1, 5))
def test_the_requests_come_back(trace, block_size):
    lines = list(Writer(block_size).lines(trace))
    [again] = back(lines)
    assert list(Writer(block_size).lines(again)) == lines


@given(
    trace=traces(nested=True, prompts=True, min_tokens=1, delays=(0.5, 1.0, TICK)).map(grounded),
    arrival=st.sampled_from((0.0, 1.5, 1000.0)),
)
def test_delays_keep_their_effect(trace, arrival):
    lines = list(Writer(1).lines(replace(trace, arrival=arrival)))
    [again] = back(lines)
    # A few lay a Delay where only a zero-token task had been: these are refused, never misread.
    assume(isinstance(again, Trace))
    assert list(Writer(1).lines(again)) == lines
    gpu = GPU(cost=LinearBatch(a=0.5))
    before, after = (simulate(compile_trace(each), gpu=gpu).latency[0] for each in (trace, again))
    assert after == before - (again.arrival - arrival)  # a Delay at the beginning is a later arrival


@pytest.mark.parametrize("family", FAMILIES)
def test_synthetic_queries_take_the_same_time(family):
    made = list(generate(family, 12, seed=8))
    text = io.StringIO()
    assert dump(made, text, "agentic_mooncake") == 12
    items = back(text.getvalue().splitlines())
    assert [item.id for item in items] == [trace.id for trace in made]
    gpu = GPU(cost=LinearBatch(a=6e-3, b=1e-5), max_num_seqs=16)
    before, after = (simulate([compile_trace(each) for each in these], gpu=gpu) for these in (made, items))
    assert after.makespan == before.makespan
    assert sorted(after.column("finish")) == pytest.approx(sorted(before.column("finish")))


def test_a_prefix_is_said_in_whole_blocks():
    for block_size, shared in ((1, 100), (50, 100), (64, 64), (128, 0)):
        trace = Trace(
            "t",
            (
                Thread("organizer", (Think(28), Fork(1), Join(1, 0, 4), Answer(2)), 100),
                Thread("1", (Return(9),), 150, 100),
            ),
        )
        [again] = back(Writer(block_size).lines(trace))
        assert again.threads[1].prompt_tokens == 150
        assert again.threads[1].shared_tokens == shared


def test_an_organizer_without_requests_is_what_its_workers_share():
    workers = tuple(Thread(str(k), (Return(10 * k),), 150, 128) for k in (1, 2, 3))
    forks = (*map(Fork, (1, 2, 3)), *map(Join, (1, 2, 3)))
    trace = Trace("t", (Thread("organizer", (*forks, Answer(0)), 128), *workers), arrival=0.0)
    [again] = back(Writer(64).lines(trace))
    assert again.threads == (Thread("organizer", (*forks, Answer(0)), 128), *workers)


# ---------------------------------------------------------------- the requests of others


def test_an_agent_that_calls_tools_and_spawns_another():
    lines = file(
        ("main", "a", 100, 20, [1, 2]),
        ("main", "b", 150, 10, [1, 2, 3], ("a", "sequence", 2000)),
        ("sub", "s", 64, 30, [9], ("b", "spawn", 5)),
        ("sub", "t", 94, 6, [9, 8], ("s", "sequence", 0)),
        ("main", "c", 200, 7, [1, 2, 3, 4], ("b", "sequence", 0), ("t", "join", 0)),
    )
    [trace] = back(lines)
    assert acts(trace) == {
        # What the tool said, 30 tokens, is inserted by the Join of a worker that only lets two seconds pass.
        "organizer": "think 20, fork 2, join 2+30, think 10, fork 1, join 1+40, answer 7",
        "2": "delay 2, return 0",
        # Two requests of a thread stay two.
        "1": "delay 0.005, think 30, fork 1, join 1+0, return 6",
        "1.1": "return 0",
    }
    assert [thread.prompt_tokens for thread in trace.threads] == [100, 0, 64, 0]
    assert trace.meta == {"model": "m"}


def test_a_spawn_at_dispatch_is_a_fork_before_the_request():
    lines = file(
        ("main", "a", 64, 9, [1]), ("main", "b", 73, 5, [1, 2], ("a", "sequence", 0)), ("sub", "s", 64, 3, [7])
    )
    row = json.loads(lines[3])
    row["dependencies"] = [{"request_id": "b", "relation": "spawn", "trigger": "dispatch", "delay_ms": 250}]
    [trace] = back([*lines[:3], json.dumps(row)])
    assert acts(trace) == {"organizer": "think 9, fork 1, think 5, join 1+0, answer 0", "1": "delay 0.25, return 3"}
    row["dependencies"][0]["request_id"] = "a"
    [trace] = back([*lines[:3], json.dumps(row)])
    assert acts(trace)["1"] == "delay 0.25, return 3"


def test_the_order_of_rows_does_not_matter():
    lines = file(
        ("sub", "s", 64, 30, [9], ("a", "spawn", 0)),
        ("main", "c", 164, 7, [1, 2, 3], ("a", "sequence", 0), ("s", "join", 0)),
        ("main", "a", 100, 20, [1, 2]),
    )
    [trace] = back(lines)
    assert acts(trace) == {"organizer": "think 20, fork 1, join 1+44, answer 7", "1": "return 30"}


def test_whom_nobody_waits_for_is_joined_at_the_end():
    lines = file(
        ("main", "a", 64, 9, [1]),
        ("sub", "s", 64, 3, [7], ("a", "spawn", 0)),
        ("main", "b", 73, 5, [1, 2], ("a", "sequence", 0)),
    )
    [trace] = back(lines)
    assert acts(trace) == {"organizer": "think 9, fork 1, think 5, join 1+0, answer 0", "1": "return 3"}


def test_recorded_times_of_later_requests_hold_nothing_back():
    lines = [
        json.loads(line) for line in file(("main", "a", 64, 9, [1]), ("main", "b", 80, 5, [1, 2], ("a", "sequence", 0)))
    ]
    lines[1]["not_before_ms"], lines[2]["not_before_ms"] = 1000, 2500
    [trace] = back(map(json.dumps, lines))
    assert trace.arrival == 1.0
    assert trace.organizer.actions[-1] == Answer(5, start=2.5)


NO_TRACES = {
    "a shrinking context": (
        [("main", "a", 100, 20, [1, 2]), ("main", "b", 110, 10, [1, 2], ("a", "sequence", 0))],
        (3, "request 'b' reads 110 tokens, but its session had 120 after 'a'; the context of a thread only grows"),
    ),
    "a rewritten context": (
        [("main", "a", 100, 20, [1, 2]), ("main", "b", 120, 10, [3, 2], ("a", "sequence", 0))],
        (3, "request 'b' has other hash_ids than 'a' before it; a thread's context only grows"),
    ),
    "two next": (
        [
            ("main", "a", 64, 1, [1]),
            ("main", "b", 65, 1, [1, 2], ("a", "sequence", 0)),
            ("main", "c", 65, 1, [1, 3], ("a", "sequence", 0)),
        ],
        (4, "request 'c' follows 'a', and so does 'b'"),
    ),
    "two beginnings": (
        [("main", "a", 64, 1, [1]), ("main", "b", 65, 1, [1, 2])],
        (3, "request 'b' follows nothing in its session, and so does 'a'"),
    ),
    "a circle": (
        [("x", "a", 64, 1, [1], ("b", "join", 0)), ("y", "b", 64, 1, [2], ("a", "join", 0))],
        (2, "waits for itself: a -> b -> a"),
    ),
    "itself": ([("x", "a", 64, 1, [1], ("a", "join", 0))], (2, "request 'a' waits for itself: a -> a")),
    "nobody": (
        [("x", "a", 64, 1, [1], ("z", "join", 0))],
        (2, "waits for 'z', which is not among the rows of its play"),
    ),
    "two parents": (
        [
            ("x", "a", 64, 1, [1]),
            ("y", "b", 64, 1, [2], ("a", "spawn", 0)),
            ("z", "c", 64, 1, [3], ("a", "spawn", 0), ("b", "spawn", 0)),
        ],
        (4, "request 'c' begins session 'z', which is spawned by sessions 'x' and 'y'; accepted is one"),
    ),
    "a stranger's worker": (
        [
            ("x", "a", 64, 1, [1]),
            ("y", "b", 64, 1, [2], ("a", "spawn", 0)),
            ("z", "c", 64, 1, [3], ("a", "spawn", 0)),
            ("y", "d", 65, 1, [2, 4], ("b", "sequence", 0), ("c", "join", 0)),
            ("x", "e", 65, 1, [1, 5], ("a", "sequence", 0), ("d", "join", 0)),
        ],
        (
            5,
            "request 'd' waits for request 0 of 1, request 0 of 2; as a part of threads it would wait for request 0",
        ),
    ),
}


@pytest.mark.parametrize(("rows", "wanted"), NO_TRACES.values(), ids=NO_TRACES)
def test_a_play_that_is_no_trace_is_refused_in_one_line(rows, wanted):
    good = file(("main", "g", 64, 1, [1]))[1].replace('"p"', '"good"')
    error, trace = back([*file(*rows), good])
    assert trace.id == "good"
    line, message = wanted
    assert message in error.message and error.line == line
    assert "\n" not in str(error)
    assert error.message.startswith("play 'p' is no fork/join trace: request ")


def changed(**changes):
    row = json.loads(file(("main", "a", 64, 9, [1]))[1]) | changes
    return json.dumps({key: value for key, value in row.items() if value is not ...})


def depending(**changes):
    each = {"request_id": "a", "relation": "sequence", "trigger": "completion", "delay_ms": 0} | changes
    return changed(request_id="b", dependencies=[each])


BAD_ROWS = {
    "no id": (changed(request_id=...), "missing required field `request_id`"),
    "no prompt": (changed(input_length=0, hash_ids=[]), "input_length must be from 1 to 10^12, got 0"),
    "no output": (changed(output_length=0), "output_length must be from 1 to 10^12, got 0"),
    "a negative length": (changed(input_length=-64), "input_length must be from 1 to 10^12, got -64"),
    "a huge length": (changed(output_length=10**30), "output_length must be from 1 to 10^12, got 1000"),
    "half a token": (changed(output_length=1.5), "Expected `int`, got `float`"),
    "too few blocks": (changed(input_length=65), "65 tokens are 2 blocks of 64, but there are 1 hash_ids"),
    "too many blocks": (changed(hash_ids=[1, 2]), "64 tokens are 1 blocks of 64, but there are 2 hash_ids"),
    "before time": (changed(not_before_ms=-1), "not_before_ms must be from 0 to 10^12 milliseconds, got -1.0"),
    "NaN": (changed(not_before_ms=float("nan")), "not one complete JSON object on one line"),
    "a negative delay": (depending(delay_ms=-5), "delay_ms must be from 0 to 10^12 milliseconds, got -5.0"),
    "an unknown relation": (
        depending(relation="replay_barrier"),
        "relation 'replay_barrier' is none of sequence, spawn, join",
    ),
    "an unknown trigger": (depending(trigger="dispatch"), "trigger 'dispatch' is not accepted with sequence"),
    "there twice": (changed(output_length=3), "request 'a' is there twice in play 'p'"),
    "half a row": (changed()[:40], "not one complete JSON object on one line"),
    "a list": ("[1]", "not a request of agentic Mooncake: Expected `object`, got `array`"),
    "deep nesting": ('{"x": ' + "[" * 100_000, "not one complete JSON object on one line"),
}


@pytest.mark.parametrize(("row", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_reported_and_other_plays_are_read(tmp_path, row, message):
    path = tmp_path / "x.jsonl"
    header, first = file(("main", "a", 64, 9, [1]))
    other = first.replace('"p"', '"q"')
    path.write_text("\n".join([header, first, "", row, other]) + "\n")
    items = list(read(path))
    errors = [item for item in items if isinstance(item, FormatError)]
    assert [error.line for error in errors] == [4] and message in errors[0].message
    assert str(errors[0]).startswith(f"{path}:4: ") and "\n" not in str(errors[0])
    assert items[-1].id == "q"


BAD_HEADERS = {
    "another version": ({"version": 3}, "version 3 of agentic Mooncake is not read"),
    "another scope": ({"hash_id_scope": "global"}, "Invalid enum value 'global'"),
    "no block size": ({"block_size": None}, "Expected `int`, got `null`"),
    "a block of nothing": ({"block_size": 0}, "block_size must be a number of tokens from 1 on, got 0"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_a_bad_header_ends_it(tmp_path, changes, message):
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(file(("main", "a", 64, 9, [1]), **changes)))
    [error] = read(path)
    assert message in error.message and error.line == 1
    assert 'accepted is "schema": "dynamo.agentic_mooncake", "version": 2' in error.message


def test_files(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("\n\n" + "\n".join(Writer(64).lines(QUERY)))
    [trace] = read(path)
    assert list(read(path, format="agentic_mooncake")) == [trace]
    path.write_text(next(Writer(64).lines(QUERY)))
    [error] = read(path)
    assert error.message == "has a header of agentic Mooncake, but no requests"
    path.write_text(changed())
    [error] = read(path)
    assert "rows with a play_id are agentic Mooncake, and need its header as the first line" in error.message
    [error] = read(path, format="agentic_mooncake")
    assert "not a header of agentic Mooncake" in error.message


def test_rows_of_a_play_stand_together():
    header, row = file(("main", "a", 64, 9, [1]))
    for numbers in ((0, 1, 0), (..., ..., ...)):
        rows = []
        for play, ordinal in zip("pqp", numbers, strict=True):
            record = json.loads(row) | {"play_id": play, "request_id": play + str(len(rows))}
            rows.append(json.dumps(record if ordinal is ... else record | {"source_play_ordinal": ordinal}))
        first, second, error = back([header, *rows])
        assert (first.id, second.id, error.line) == ("p", "q", 4)
        assert "play 'p' was over before this line" in error.message


def test_memory_holds_one_play(tmp_path):
    path = tmp_path / "x.jsonl"
    with path.open("w") as out:
        dump((replace(QUERY, id=f"q{i}") for i in range(800)), out, "agentic_mooncake")
    tracemalloc.start()
    try:
        assert sum(isinstance(item, Trace) for item in read(path)) == 800
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 1_000_000
    assert peak < 400_000


def test_time_is_linear_in_the_requests_of_a_play():
    # Thousands of sessions, all spawned by one request and joined by another.
    n = 5000
    workers = [(f"w{i}", f"r{i}", 64, 1, [i + 2], ("root", "spawn", 0)) for i in range(n)]
    ends = [(f"r{i}", "join", 0) for i in range(n)]
    [trace] = back(
        file(("main", "root", 64, 1, [1]), *workers, ("main", "end", 65, 1, [1, 0], ("root", "sequence", 0), *ends))
    )
    assert len(trace.threads) == n + 1


def test_a_session_too_deep_is_refused():
    rows = [("s0", "r0", 64, 1, [0])]
    rows += [(f"s{i}", f"r{i}", 64, 1, [i], (f"r{i - 1}", "spawn", 0)) for i in range(1, 2000)]
    [error] = back(file(*rows))
    assert "is of a session that is spawned deeper than 32" in error.message


_names = st.sampled_from(["a", "b", "c", "d"])
_rows = st.builds(
    lambda session, id, length, output, more, after: (
        session,
        id,
        length,
        output,
        list(range(-(-length // 64))) or more,
        *after,
    ),
    st.sampled_from(["organizer", "1", "1.1", "2", "x", "01"]),
    _names,
    st.integers(0, 200),
    st.integers(0, 9),
    st.just([]),
    st.lists(st.tuples(_names, st.sampled_from(["sequence", "spawn", "join"]), st.sampled_from([0, 250])), max_size=3),
)


@settings(max_examples=150)
@given(rows=st.lists(_rows, max_size=7))
def test_no_rows_raise_and_what_is_read_says_the_same_again(rows):
    for item in back(file(*rows)):
        if isinstance(item, FormatError):
            assert "\n" not in str(item)
        else:
            first, second = (
                [json.loads(line) for line in Writer(64).lines(each)] for each in (item, *back(Writer(64).lines(item)))
            )
            for row in first + second:
                row.pop("hash_ids", None)  # blocks may be counted in another order
            assert first == second


# ---------------------------------------------------------------- options


def test_wrong_options():
    for call in (lambda: read("x", block_size=0), lambda: dump([], io.StringIO(), "agentic_mooncake", block_size=-1)):
        with pytest.raises(ConfigError, match="the block size is a number of tokens from 1 on"):
            call()
    with pytest.raises(ConfigError, match="mooncake is read, not written"):
        dump([], io.StringIO(), "mooncake")


# ---------------------------------------------------------------- bounds


def barrier(n):
    """n workers that are all joined, and n more forked after that, with nothing decoded in between."""
    first, second = range(1, n + 1), range(n + 1, 2 * n + 1)
    actions = [*map(Fork, first), *map(Join, first), *map(Fork, second), *map(Join, second), Answer(1)]
    workers = [Thread(str(k), (Return(2),)) for k in (*first, *second)]
    return Trace("barrier", (Thread("organizer", (Think(1), *actions)), *workers))


def test_a_barrier_is_said_up_to_a_bound():
    assert len(list(Writer().lines(barrier(200)))) == 1 + 1 + 400 + 1
    with pytest.raises(FormatError, match=r"trace 'barrier': its .* tasks wait for each other in more than .* ways"):
        list(Writer().lines(barrier(600)))


def test_requests_that_name_too_many_blocks_in_all_are_refused():
    long = Trace("long", (Thread("organizer", (*(Think(1), Delay(1.0)) * 50, Answer(1)), 10**5),))
    assert (
        sum(len(json.loads(row)["hash_ids"]) for row in list(Writer(64).lines(long))[1:]) == 51 * 1563 + 18
    )  # those after 100,032 tokens
    with pytest.raises(FormatError, match="name more than 4,194,304 blocks of 1 tokens; larger blocks are fewer"):
        list(Writer(1).lines(long))


def test_dispatches_in_a_row_are_read_up_to_a_bound():
    def rows(n):
        lines = file(*((f"s{k}", f"r{k}", 64, 3, [k]) for k in range(n)))
        said = [json.loads(line) for line in lines]
        for k in range(1, n):
            said[k + 1]["dependencies"] = [
                {"request_id": f"r{k - 1}", "relation": "spawn", "trigger": "dispatch", "delay_ms": 0},
                {"request_id": "r0", "relation": "spawn", "trigger": "completion", "delay_ms": 0},
            ]
            if k > 1:
                said[k + 1]["dependencies"][1]["request_id"] = f"r{k - 2}"
        return [json.dumps(each) for each in said]

    [error] = back(rows(1000))
    assert "and others wait for more than 129,536 requests in all, by way of dispatches" in error.message
