"""Files of traces: what is accepted, what is refused and how, and that memory holds one record at a time."""

import io
import json
import os
import sys
import tracemalloc
from pathlib import Path

import pytest

from simulator.errors import ConfigError, FormatError
from simulator.formats import FORMATS, asyncthink, native, parse, reading, render
from simulator.formats.groups import multiverse, parallel_r1
from simulator.formats.reading import dump, read
from simulator.trace import Answer, Delay, Fork, Join, Outcome, Return, Think, Thread, Trace
from simulator.trace.tokens import by_words

TRACE = Trace("a", (Thread("organizer", (Think(5, "x"), Answer(1))),), Outcome(correct=True))
FORK_JOIN = Trace(
    "q",
    (
        Thread("organizer", (Think(9, "plan"), Fork(1), Fork(2), Join(1), Join(2), Answer(9, "9"))),
        Thread("1", (Return(9, "odd"),)),
        Thread("2", (Return(9, "even"),)),
    ),
    Outcome(found=1, wanted=4),
)
LINE = native.render(TRACE)
ACCEPTED = "accepted is a file of JSON lines or of plain text, or -"


@pytest.fixture
def write(tmp_path):
    def write(content, name="t.jsonl"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def only(path, **options):
    [item] = read(path, **options)
    return item


# ---------------------------------------------------------------- JSON lines


def test_native_lines(write):
    assert list(read(write(f"{LINE}\n\n  \n{LINE}"))) == [TRACE, TRACE]
    assert only(write(LINE + "\r\n")) == TRACE
    assert only(write(b"\xef\xbb\xbf" + LINE.encode())) == TRACE
    assert only(write(LINE), keep_text=False) == native.without_text(TRACE)
    assert only(write(LINE), format="native") == TRACE


@pytest.mark.parametrize("key", ["output", "text", "completion", "response"])
def test_lines_with_a_text(write, key):
    record = {key: "<Think>x</Think>9", "id": 7, "index": 3, "correct": False, "prompt": ["any", {"thing": 1}]}
    trace = only(write(json.dumps(record)), count=by_words)
    assert trace == multiverse.parse(record[key], id="7", count=by_words, outcome=Outcome(correct=False))


def test_a_record_is_named_by_id_or_index_or_place(write):
    records = [{"text": "x", "id": "q"}, {"text": "x", "index": 0}, {"text": "x", "id": None}]
    path = write("\n".join(map(json.dumps, records)), name="run.jsonl")
    assert [trace.id for trace in read(path)] == ["q", "0", "run:3"]


def test_outcomes(write):
    outcome = only(write('{"text": "x", "found": 3, "wanted": 4}')).outcome
    assert outcome == Outcome(found=3, wanted=4)
    error = only(write('{"text": "x", "found": 3}'))
    assert error.message == "an outcome counts solutions with both `found` and `wanted`"


def test_an_organizer_and_its_workers(write):
    record = {"organizer": "<FORK-1>odd</FORK-1><JOIN-1>", "workers": {"1": "so <RETURN>9</RETURN>"}}
    trace = only(write(json.dumps(record)))
    assert trace == asyncthink.parse(record["organizer"], workers=record["workers"], id="t:1")
    assert len(trace.threads) == 2
    record["output"] = record.pop("organizer")
    assert only(write(json.dumps(record))) == trace
    assert "accepted is the asyncthink format" in only(write(json.dumps(record)), format="multiverse").message
    record["workers"] = {"one": "x"}
    assert "called by its Fork index" in only(write(json.dumps(record))).message


def test_the_format_can_be_given(write):
    path = write('{"text": "<Think>x</Think>9\\nFinal Answer: 9"}')
    assert only(path, format="parallel_r1") == parallel_r1.parse("<Think>x</Think>9\nFinal Answer: 9", id="t:1")
    with pytest.raises(ConfigError, match="no format is called 'yaml'"):
        read(path, format="yaml")


def test_somebody_elses_schema(write):
    trace = only(write('{"text": "x", "schema": 3}'))
    assert trace.organizer.actions == (Think(1, "x"),)


BAD_LINES = {
    "half a line": (LINE[:30], "not one complete JSON object"),
    "half a line of another kind": ('{"text": "x', "not one complete JSON object"),
    "not JSON": ("hello", "not one complete JSON object"),
    "a list": ("[1, 2]", "Expected `object`, got `array`"),
    "no text": ('{"prompt": "x"}', 'accepted are native records ("schema": "forksim.trace/1") and objects with a text'),
    "a text that is none": ('{"text": 3}', "Expected `str | null`, got `int` - at `$.text`"),
    "no schema": (LINE.replace('"schema":"forksim.trace/1",', ""), 'accepted are native records ("schema": "forksim'),
    "a later schema": (LINE.replace("trace/1", "trace/2"), 'accepted is "schema": "forksim.trace/1"'),
    "a native record with a bad id": (LINE.replace('"a"', "[]"), "not a native record: Expected `str`, got `array`"),
    "an unknown key": (LINE.replace('"id"', '"colour":"red","id"', 1), "unknown field `colour`"),
    "negative tokens": (LINE.replace("5", "-5"), "got -5 - at `$.threads[0].actions[0]`"),
    "NaN tokens": (LINE.replace("5", "NaN"), "not one complete JSON object"),
    "invalid UTF-8": (b'{"text": "\xff"}', "not one complete JSON object"),
    "a NUL": (b'{"text": "' + b"x" * 70_000 + b'\0"}', "not one complete JSON object"),
    "deep nesting": ('{"x": ' + "[" * 100_000, "not one complete JSON object"),
}


@pytest.mark.parametrize(("line", "message"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_an_error_among_the_traces(write, line, message):
    line = line if isinstance(line, bytes) else line.encode()
    path = write(b"\n".join([LINE.encode(), line, LINE.encode()]))
    first, error, last = read(path)
    assert first == last == TRACE
    assert isinstance(error, FormatError)
    assert message in error.message
    assert (error.path, error.line) == (str(path), 2)
    assert str(error).startswith(f"{path}:2: ") and "\n" not in str(error)


def test_a_line_that_is_too_long_is_skipped(write, monkeypatch):
    monkeypatch.setattr(reading, "MAX_RECORD", 1000)
    long = json.dumps({"text": "x" * 3_000_000})
    for end in ("", "\n", "\n" + LINE):
        first, error, *rest = read(write(f"{LINE}\n{long}{end}"))
        assert first == TRACE
        assert rest == [TRACE] * (len(end) > 1)
        assert str(error).endswith(":2: a record of more than 1000 bytes is not read")


def test_a_line_of_the_greatest_length_is_read(write, monkeypatch):
    for slack, kind in ((0, Trace), (1, FormatError)):
        monkeypatch.setattr(reading, "MAX_RECORD", len(LINE) - slack)
        assert [type(item) for item in read(write(f"{LINE}\n{LINE}"))] == [kind, kind]


# ---------------------------------------------------------------- plain text


def test_a_text_file_is_one_trace(write):
    text = "so <FORK-1>odd\r\nhalf</FORK-1><JOIN-1>\n<WORKER-1>x <RETURN>9</RETURN></WORKER-1>\n"
    for name in ("run.txt", "run", "run.md"):
        assert only(write(text, name)) == asyncthink.parse_file(text, id="run")
    assert only(write("<Goal>{", "run")) == multiverse.parse("<Goal>{", id="run")
    assert only(write("plain", "run.txt"), format="multiverse") == multiverse.parse("plain", id="run")
    assert only(write("plain", "run.txt"), keep_text=False, count=by_words).organizer.actions == (Think(1),)


def test_json_lines_are_known_by_name_or_by_their_first_character(write):
    assert only(write(LINE, "run.log")) == TRACE
    assert only(write("\n " + LINE, "run")) == TRACE
    assert only(write(LINE, "run.txt")) == native.parse(LINE)  # one native record is a text as well
    assert isinstance(only(write("plain", "run.jsonl")), FormatError)
    assert only(write("{1, 2} is a set", "run.txt")).organizer.actions == (Think(4, "{1, 2} is a set"),)


def test_bad_texts(write, monkeypatch):
    error = only(write(b"plain \xff", "run.txt"))
    assert error.message == "is no UTF-8 text: invalid start byte at byte 6"
    error = only(write(b"x" * 70_000 + b"\0", "run.txt"))
    assert error.message == "holds NUL characters, so it is no text"
    monkeypatch.setattr(reading, "MAX_RECORD", 5)
    assert only(write("12345", "run.txt")).tokens == 2
    assert only(write("123456", "run.txt")).message == "a text of more than 5 bytes is not read"


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("name", ["t.jsonl", "t.txt", "t"])
def test_files_that_hold_nothing_to_read(write, name):
    assert only(write("", name)).message == f"is empty; {ACCEPTED}"
    binary = only(write(b"\x89PNG\0\0\n{}\n", name))
    assert binary.message == f"holds NUL bytes, so it is binary or UTF-16; {ACCEPTED}, in UTF-8"
    assert "binary or UTF-16" in only(write(LINE.encode("utf-16"), name)).message


def test_blank_lines_only(write):
    message = "has no records, only blank lines; accepted is one JSON object a line"
    assert only(write("\n \n")).message == message


def test_a_directory_and_a_missing_file(tmp_path):
    error = only(tmp_path)
    assert str(error) == f"{tmp_path}: cannot be read (Is a directory); {ACCEPTED}"
    assert "No such file" in only(tmp_path / "none.jsonl").message


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(write):
    path = write(LINE)
    path.chmod(0)
    assert "Permission denied" in only(path).message


@pytest.mark.parametrize("wrap", [io.BytesIO, lambda data: io.BufferedReader(io.BytesIO(data))])
def test_standard_input(monkeypatch, wrap):
    def feed(data):
        monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": wrap(data)})())

    feed(f"{LINE}\n{LINE}\n".encode())
    assert list(read("-")) == [TRACE, TRACE]
    feed(b"<Think>x</Think>9")
    assert only("-") == multiverse.parse("<Think>x</Think>9", id="stdin")
    feed(LINE.encode() + b"\n{")
    assert str(list(read("-"))[1]).startswith("<stdin>:2: ")
    feed(b"")
    assert only("-").message == f"is empty; {ACCEPTED}"


def test_a_file_is_read_one_record_at_a_time(write):
    line = native.render(Trace("a", (Thread("organizer", (Think(5, "x" * 1000),)),))) + "\n"
    path = write(line * 20_000)
    tracemalloc.start()
    try:
        assert sum(isinstance(item, Trace) for item in read(path)) == 20_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000  # of 21 MB


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.render])
def test_what_is_dumped_is_read(tmp_path, name):
    path = tmp_path / "t.jsonl"
    with path.open("w", encoding="utf-8", newline="") as file:
        assert dump([FORK_JOIN, FORK_JOIN], file, name) == 2
    items = list(read(path))
    assert len(items) == 2
    for item in items:
        assert (item.id, item.outcome, len(item.threads)) == ("q", FORK_JOIN.outcome, 3)
        assert name != "native" or item == FORK_JOIN
        assert name == "native" or item.token_source == parse(render(FORK_JOIN, name), format=name).token_source


def test_what_cannot_be_dumped():
    file = io.StringIO()
    with pytest.raises(FormatError, match="Delay"):
        dump([FORK_JOIN, Trace("t", (Thread("organizer", (Delay(1),)),))], file, "multiverse")
    assert file.getvalue().count("\n") == 1
    with pytest.raises(FormatError, match="cannot be written as JSON"):
        dump([Trace("t", (Thread("organizer", (Think(1, "\ud800"),)),))], file, "asyncthink")
    with pytest.raises(ConfigError, match="no format is called"):
        dump([], file, "yaml")


# ---------------------------------------------------------------- real files


@pytest.mark.corpus
@pytest.mark.skipif("FORKSIM_CORPUS" not in os.environ, reason="FORKSIM_CORPUS does not name the recorded traces")
@pytest.mark.parametrize(("name", "records"), [("multiverse", 50), ("parallel_r1", 100)])
def test_every_record_of_the_corpus_is_accounted_for(name, records):
    path = Path(os.environ["FORKSIM_CORPUS"]) / f"{name}.jsonl"
    items = list(read(path))
    assert [type(item) for item in items] == [Trace] * records
    assert items == list(read(path, format=name))
    with path.open(encoding="utf-8") as file:
        first = json.loads(file.readline())
    assert items[0].id == str(first.get("id", first.get("index")))
    assert items[0].outcome == (Outcome(correct=False) if "correct" in first else None)


@pytest.mark.corpus
@pytest.mark.skipif("FORKSIM_CORPUS" not in os.environ, reason="FORKSIM_CORPUS does not name the recorded traces")
def test_records_of_no_format_are_errors():
    path = Path(os.environ["FORKSIM_CORPUS"]) / "llamacpp_random.jsonl"
    items = list(read(path))
    assert items and all(isinstance(item, FormatError) for item in items)


def test_recorded_token_totals_are_spread_over_the_text(write):
    text = "a" * 40 + "<FORK-1>" + "b" * 23 + "</FORK-1>" + "c" * 20 + "<ANSWER>d</ANSWER>"
    assert len(text) == 118
    records = [{"output": text, "tokens": 59, "prompt_tokens": 7}, {"output": text, "tokens": list(range(59))}]
    first, second = read(write("\n".join(map(json.dumps, records))))
    # Two characters a token.
    assert [action.tokens for action in first.organizer.actions] == [20, 20, 10, 9]
    assert first.organizer.actions == second.organizer.actions
    assert (first.organizer.prompt_tokens, second.organizer.prompt_tokens) == (7, 0)
    assert first.token_source == "record, spread by characters"


@pytest.mark.parametrize("tokens", [-1, 10**13])
def test_impossible_token_totals_are_refused(write, tokens):
    [error] = read(write(json.dumps({"output": "x", "tokens": tokens})))
    assert "tokens must be a number from 0 to 10^12" in error.message


def test_a_query_is_in_front_of_every_context(write):
    record = {"output": "ab<Parallel><Path>c</Path></Parallel>", "prompt_tokens": 100}
    [trace] = read(write(json.dumps(record)))
    organizer, path = trace.threads
    assert organizer.prompt_tokens == 100 and path.prompt_tokens == path.shared_tokens > 100


@pytest.mark.parametrize(
    "text", ['{\n  "id": "a",\n  "output": "x"\n}\n', '[\n {"output": "x"}\n]\n', '[{"output": "x"}]', "\n[]"]
)
def test_json_over_several_lines_or_an_array_is_told_once(tmp_path, text):
    path = tmp_path / "pretty.json"
    path.write_text(text, encoding="utf-8")
    [error] = read(path)
    assert isinstance(error, FormatError)
    assert "jq -c" in str(error) and str(error).startswith(f"{path}:{2 if text[0] == chr(10) else 1}: ")
