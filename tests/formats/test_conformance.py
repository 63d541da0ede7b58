"""The laws that every entry of FORMATS and of LOGS keeps. A new entry needs a sample here, and no other test."""

import doctest
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.cli import _run
from simulator.errors import ConfigError, FormatError
from simulator.formats import (
    FORMATS,
    LOGS,
    Format,
    LogFormat,
    asyncthink,
    detect,
    lookup,
    native,
    parse,
    readable,
    reading,
    render,
    writable,
)
from simulator.formats.logs.base import Reading
from simulator.formats.reading import _items, dump, read, writer
from simulator.study import Source
from simulator.trace import Answer, Fork, Join, Outcome, Return, Think, Thread, Trace
from simulator.trace.tokens import by_words
from tests.support.strategies import any_traces

formats = pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
rendered = pytest.mark.parametrize(
    "form", [form for form in FORMATS.values() if form.render], ids=[name for name in FORMATS if FORMATS[name].render]
)
logs = pytest.mark.parametrize("log", LOGS.values(), ids=LOGS)

# ---------------------------------------------------------------- FORMATS, of a text

SAMPLES = {  # of each, a text that no other format knows
    "native": '{"schema": "forksim.trace/1", "id": "a", "threads": [{"id": "organizer", "actions": []}]}',
    "verifiers": '{"task": {}, "nodes": [{"message": {"role": "assistant", "content": "9"}, "sampled": true}]}',
    "apr": '{"main_calls": ["so"], "sub_calls": []}',
    "asyncthink": "so <FORK-1>odd</FORK-1>",
    "npr": "<guideline>",
    "multiverse": "<Think>so",
    "threadweaver": "<think>so",
    "parallel_r1": "so <Parallel>",
}


TAGGED = ("asyncthink", "multiverse", "threadweaver", "npr", "parallel_r1")
"""Any text is a trace in these."""


def test_formats_are_listed_under_their_names():
    assert {name: form.name for name, form in FORMATS.items()} == {name: name for name in SAMPLES}
    assert list(FORMATS) == list(SAMPLES)


@formats
def test_a_format_knows_its_own(form):
    assert form.detect(SAMPLES[form.name])
    assert detect(SAMPLES[form.name]) == form.name
    assert parse(SAMPLES[form.name]) == form.parse(SAMPLES[form.name])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "asyncthink"),
        ("no tags, \\boxed{9}", "asyncthink"),
        ("<think><Parallel><Path>", "parallel_r1"),
        ("<think><Parallel><Outlines>", "threadweaver"),
        ("<Parallel><Path>x</Path><Conclusion>", "multiverse"),
        ("<Parallel><Goal>", "multiverse"),
        ("no block\n\nFinal Answer: 9", "parallel_r1"),
        ("{1, 2} is a set", "asyncthink"),
        ("<FORK-1> <Parallel>", "asyncthink"),
    ],
)
def test_detection(text, name):
    assert detect(text) == name


def test_an_unknown_format_is_named_with_those_there_are():
    message = f"no format is called 'yaml'; accepted are {', '.join(FORMATS)}"
    assert message.startswith(
        "no format is called 'yaml'; accepted are native, verifiers, apr, asyncthink, npr, multiverse, "
    )
    for call in (lambda: lookup("yaml"), lambda: parse("", format="yaml")):
        with pytest.raises(ConfigError) as caught:
            call()
        assert str(caught.value) == message
    with pytest.raises(ConfigError) as caught:
        render(FORK_JOIN, "yaml")
    assert str(caught.value) == message.replace("verifiers, apr, ", "")


@formats
@given(text=st.text(max_size=200) | st.sampled_from([*SAMPLES.values(), "\ud800", "[" * 5000, "\0"]))
def test_no_text_raises_anything_but_a_format_error(form, text):
    form.detect(text)
    for keep in (True, False):
        try:
            trace = form.parse(text, id="q", count=by_words, keep_text=keep, outcome=Outcome(correct=True))
        except FormatError as error:
            assert form.name not in TAGGED and "\n" not in str(error)
        else:
            assert keep or all(action.text is None or isinstance(action, Answer) for _, _, action in trace.actions())
            assert form.name not in TAGGED or (trace.id, trace.token_source) == ("q", "words")
            assert trace.outcome == Outcome(correct=True)


@rendered
@given(trace=any_traces())
def test_no_trace_makes_render_raise_anything_but_a_format_error(form, trace):
    try:
        text = form.render(trace)
    except FormatError as error:
        assert "\n" not in str(error)
        assert form.name != "native"
    else:
        assert form.parse(text).id


FORK_JOIN = Trace(
    "t",
    (
        Thread("organizer", (Think(9, "plan"), Fork(1), Fork(2), Join(1), Join(2), Think(9, "so"), Answer(9, "9"))),
        Thread("1", (Return(9, "odd half"),)),
        Thread("2", (Return(9, "even half"),)),
    ),
)


@rendered
def test_every_format_can_say_fork_join(form):
    for trace in (FORK_JOIN, native.without_text(FORK_JOIN)):
        text = form.render(trace)
        assert detect(text) == form.name
        again = (form.parse_file or form.parse)(text, id="t")
        assert again.faults == ()
        kinds = [
            (thread.id, [type(act) for act in thread.actions if type(act) is not Think]) for thread in trace.threads
        ]
        assert kinds == [
            (thread.id, [type(act) for act in thread.actions if type(act) is not Think]) for thread in again.threads
        ]


@formats
def test_detection_of_ten_megabytes(form):
    for unit in ("<", "{", " ", "<Parallel>", "a ", '"schem'):
        form.detect(unit * (10_000_000 // len(unit)))


@formats
def test_a_format_without_render_is_refused_as_a_target(form):
    if form.render:
        assert form.name in writable()
        return
    for call in (lambda: render(FORK_JOIN, form.name), lambda: writer(form.name), lambda: dump([], None, form.name)):
        with pytest.raises(ConfigError, match=f"^{form.name} is read, not written; accepted are native, asyncthink, "):
            call()


# ---------------------------------------------------------------- LOGS, of a file

HEADER = {"schema": "dynamo.agentic_mooncake", "version": 2, "block_size": 64, "hash_id_scope": "local"}
REQUEST = {"input_length": 100, "output_length": 9, "hash_ids": [0, 1]}
ROW = REQUEST | {"request_id": "r", "play_id": "q7", "session_id": "main", "model": "m", "not_before_ms": 0}
FILES = {  # of each, the bytes of a file
    "native": SAMPLES["native"].encode() + b"\n",
    "verifiers": SAMPLES["verifiers"].encode() + b"\n",
    "apr": SAMPLES["apr"].encode() + b"\n",
    "mooncake": json.dumps({"timestamp": 27482} | REQUEST).encode() + b"\n",
    "agentic_mooncake": f"{json.dumps(HEADER)}\n{json.dumps(ROW)}\n".encode(),
}
BLOCKS = {"block_size": 64}
ONE = Trace("q", (Thread("organizer", (Answer(9),), 100),), arrival=1.5)


def first(name):
    return FILES[name] if LOGS[name].unit == "document" else FILES[name].partition(b"\n")[0]


def items_of(data, format=None, ending=".jsonl"):
    """Return what is read from the bytes of a file."""
    file = io.BufferedReader(io.BytesIO(data))
    return list(_items(file, ending, format, Reading("x", block_size=64)))


def test_logs_are_listed_under_their_names():
    assert {name: log.name for name, log in LOGS.items()} == {name: name for name in FILES}
    assert list(LOGS) == list(FILES)


@logs
@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.log", "x"])
def test_a_log_is_found_by_its_content(log, name, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"\xef\xbb\xbf\n" + FILES[log.name])
    traces = list(read(path, **BLOCKS))
    assert traces and all(isinstance(trace, Trace) for trace in traces)
    assert traces == list(read(path, format=log.name, **BLOCKS))


@logs
def test_no_other_format_claims_a_log_and_it_claims_no_other(log):
    assert [other.name for other in LOGS.values() if other.sniff(first(log.name))] == [log.name]
    texts = [text for name, text in SAMPLES.items() if name not in LOGS]
    for text in (*texts, "", "{", "plain", '{"output": "schema, hash_ids, input_length, task, nodes, sampled"}'):
        assert not log.sniff(text.encode())


@logs
@given(data=st.data())
def test_no_file_raises(log, data):
    sample = FILES[log.name]
    start, stop = (data.draw(st.integers(0, len(sample))) for _ in range(2))
    noise = data.draw(st.binary(max_size=20) | st.sampled_from([b"\n", b"{}", b"[" * 5000, b'"\\ud800"', b"9" * 400]))
    hostile = sample[:start] + noise + sample[stop:]
    log.sniff(hostile)
    for format in (log.name, None):
        for item in items_of(hostile, format):
            assert isinstance(item, Trace | FormatError)
            assert isinstance(item, Trace) or "\n" not in str(item)


@logs
def test_a_bad_line_costs_no_other(log):
    if log.unit == "document":
        return
    items = items_of(FILES[log.name] + b'{"half": \n')
    [error] = [item for item in items if isinstance(item, FormatError)]
    assert [item for item in items if isinstance(item, Trace)] == items_of(FILES[log.name])
    assert error.line == FILES[log.name].count(b"\n") + 1


@logs
def test_sniffing_ten_megabytes(log):
    for unit in (b"<", b"{", b" ", b'{"schema": ', b'"hash_ids"', b"a,"):
        log.sniff(unit * (10_000_000 // len(unit)))


@logs
def test_what_a_log_writes_it_reads(log):
    if log.write is None:
        return
    for trace in (ONE, FORK_JOIN):
        file = io.StringIO()
        refused = []
        if dump([trace, trace], file, log.name, block_size=64, refused=refused.append):
            assert trace is FORK_JOIN or not refused
            data = file.getvalue().encode()
            again = items_of(data)
            assert [item.arrival or 0.0 for item in again] == [trace.arrival or 0.0] * 2
            assert [item.tokens for item in again] == [trace.tokens] * 2
            assert [len(item.threads) for item in again] == [len(trace.threads)] * 2
            assert again == items_of(data, log.name)
        else:
            assert trace is FORK_JOIN and all("\n" not in str(error) for error in refused)


@logs
@given(trace=any_traces())
def test_no_trace_makes_a_log_raise_anything_but_a_format_error(log, trace):
    if log.write is None:
        return
    try:
        lines = list(log.write(None)(trace))
    except FormatError as error:
        assert "\n" not in str(error)
    else:
        assert all("\n" not in line for line in lines)
        assert all(isinstance(item, Trace | FormatError) for item in items_of("\n".join(lines).encode(), log.name))


@logs
def test_a_log_that_cannot_be_written_is_refused_as_a_target(log, capsys):
    if log.write:
        assert log.name in writable()
        return
    message = f"{log.name} is read, not written; accepted are {', '.join(writable())}"
    with pytest.raises(ConfigError) as caught:
        writer(log.name)
    assert str(caught.value) == message
    assert _run(["convert", "no/such/file", "--to", log.name]) == 2
    assert capsys.readouterr().err == f"forksim: {message}\n"


# ---------------------------------------------------------------- live, as docs/extending.md says


@pytest.fixture
def table():
    """The log format of docs/extending.md, while it is registered."""
    page = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
    section = page[page.index("## A log format") : page.index("Now such files are found by their content")]
    names = {"Answer": Answer, "FormatError": FormatError, "Thread": Thread, "Trace": Trace}
    before = dict(LOGS)
    for example in doctest.DocTestParser().get_examples(section):
        exec(example.source, names)
    yield
    LOGS.clear()
    LOGS.update(before)


TABLE = "id,arrival,prompt,output\nq1,0.5,100,20\nq2,soon,80,9\nq3,2.0,80,9\n"


def test_a_log_that_was_just_registered_is_run_and_converted(table, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("requests.csv").write_text(TABLE)
    assert _run(["run", "requests.csv", "--arrivals", "recorded", "--json"]) == 2
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row.get("trace") for row in rows] == ["q1", "q3", None]
    assert err.startswith("forksim: requests.csv:3: is no request: could not convert string to float: 'soon'; accepted")
    assert len(err.splitlines()) == 1
    assert _run(["convert", "requests.csv", "--format", "table", "--to", "table", "-o", "copy.csv"]) == 2
    assert Path("copy.csv").read_text() == TABLE.replace("q2,soon,80,9\n", "")
    Path("fork.txt").write_text("<FORK-1>x</FORK-1><ANSWER>9</ANSWER>\n<WORKER-1>y</WORKER-1>")
    capsys.readouterr()
    assert _run(["convert", "fork.txt", "--to", "table"]) == 2
    assert capsys.readouterr() == ("", "forksim: trace 'fork' is no single request with a plain name\n")


def test_studies_accept_what_is_registered_and_no_more(table):
    assert Source(files=("requests.csv",), format="table").format == "table"
    with pytest.raises(
        ConfigError, match=r"no format is called 'tabel'; did you mean table\? there are native, .*table$"
    ):
        Source(files=("requests.csv",), format="tabel")


def test_what_is_no_longer_registered_is_unknown(table):
    del LOGS["table"]
    for call in (lambda: read("x", format="table"), lambda: writer("table")):
        with pytest.raises(ConfigError, match="no format is called 'table'; accepted are native, "):
            call()
    with pytest.raises(ConfigError, match="no format is called 'table'"):
        Source(files=("x",), format="table")
    assert "table" not in readable() + writable()


def test_a_text_format_that_was_just_registered_is_known_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shout = Format(
        "shout",
        "upper case",
        lambda text, **options: asyncthink.parse(text.lower(), **options),
        None,
        lambda text: text.startswith("SHOUT"),
    )
    monkeypatch.setitem(FORMATS, "shout", shout)
    Path("x.txt").write_text("SHOUT")
    assert [trace.organizer.actions for trace in read("x.txt")] == [(Think(2, "shout"),)]
    assert "shout" in readable() and "shout" not in writable()
    with pytest.raises(ConfigError, match="shout is read, not written"):
        writer("shout")
    monkeypatch.setitem(FORMATS, "shout", replace(shout, render=lambda trace: "SHOUT"))
    assert writer("shout")(ONE) == ['{"id":"q","output":"SHOUT"}']


@pytest.fixture
def document(monkeypatch):
    """A log that is one JSON object over many lines."""

    def read_spans(lines, reading):
        for number, whole in lines:
            try:
                spans = json.loads(whole)["spans"]
            except (ValueError, LookupError, TypeError, RecursionError) as error:
                raise FormatError(f"is no document of spans: {error}") from None
            for i, span in enumerate(spans, number):
                yield Trace(reading.id(i), (Thread("organizer", (Answer(len(str(span))),)),))

    log = LogFormat("spans", "a document", lambda begin: b'"spans"' in begin, read_spans, unit="document")
    monkeypatch.setitem(LOGS, "spans", log)


@pytest.mark.parametrize("name", ["x.json", "x"])
def test_a_whole_document_is_a_log_of_one_line(document, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"spans": [1, 22]}, indent=1).encode())
    assert [(trace.id, trace.tokens) for trace in read(path)] == [("x:1", 1), ("x:2", 2)]
    assert list(read(path, format="spans")) == list(read(path))
    path.write_text('{\n"spans": \n')
    [error] = read(path)
    assert str(error).startswith(f"{path}: is no document of spans: ")


def test_a_document_that_is_too_long_is_not_read(document, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_RECORD", 50)
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"spans": ["x" * 60]}, indent=1))
    [error] = read(path)
    assert error.message == "a document of more than 50 bytes is not read"


def test_the_help_says_what_can_be_read_and_written(capsys):
    assert _run(["convert", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("-\n", "-").split())
    assert f"Format of all traces: {', '.join(readable())}; by default" in said
    assert f"Format to write: {', '.join(writable())}." in said


# ---------------------------------------------------------------- files that mix


def test_records_of_several_logs_stand_in_one_file():
    mixed = (
        FILES["native"] + FILES["mooncake"] + b'{"output": "9"}\n{"half": \n' + FILES["verifiers"] + FILES["mooncake"]
    )
    *traces, last = items_of(mixed)
    assert [item.id if isinstance(item, Trace) else item.line for item in traces] == ["a", "x:2", "x:3", 4, "x:5"]
    assert last.prefix_of == "x:2"  # what a log remembers outlasts lines of others


def test_the_logs_of_a_line_are_asked_in_order():
    """A native trace may have any keys in its notes."""
    noted = json.loads(SAMPLES["native"]) | {"meta": {"hash_ids": 1, "input_length": 2, "task": 3}}
    [trace] = items_of(json.dumps(noted).encode())
    assert trace.id == "a"
