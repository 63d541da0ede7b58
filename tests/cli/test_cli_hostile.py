"""The command line on bad input: one clear line a problem on stderr, exit code 2, no traceback, good records used."""

import csv
import errno
import json
import os
import pty
import signal
import stat
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

import simulator.formats.reading
from simulator import Answer, Fork, Join, Return, Think, Thread, Trace
from simulator.cli import _run, main
from simulator.formats import native
from simulator.formats.asyncthink import parse
from tests.timeline.test_export import FullDisk

ROOT = Path(__file__).parents[2]
GOOD = native.render(
    parse("<FORK-1>a</FORK-1><JOIN-1>x</JOIN-1><ANSWER>9</ANSWER>", workers={"1": "<RETURN>x</RETURN>"}, id="good")
)
READERS = ("run", "score", "check", "convert")

each_reader = pytest.mark.parametrize("command", READERS)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with one good file."""
    monkeypatch.chdir(tmp_path)
    Path("good.jsonl").write_text(GOOD + "\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def forksim(capsys):
    """Runs a command; returns exit code, stdout and the lines of stderr, each of which begins as it should."""

    def run(*arguments):
        code = _run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        lines = err.splitlines()
        assert err == "".join(f"{line}\n" for line in lines)
        assert all(line.startswith("forksim: ") and line.isprintable() for line in lines)
        return code, out, [line.removeprefix("forksim: ") for line in lines]

    return run


def ids(command, out):
    """The traces that a command with --json, or convert, has processed."""
    if command == "check":
        return json.loads(out.splitlines()[-1])["summary"]["traces"]
    records = [json.loads(line) for line in out.splitlines()]
    return sum("summary" not in record for record in records)


def options(command):
    return () if command == "convert" else ("--json",)


# ---------------------------------------------------------------- records


def with_tokens(tokens):
    return GOOD.replace('"tokens":5', f'"tokens":{tokens}', 1)


def changed(**keys):
    return json.dumps({**json.loads(GOOD), **keys})


def with_threads(*names):
    record = json.loads(GOOD)
    return json.dumps({**record, "threads": [*record["threads"], *({"id": name, "actions": []} for name in names)]})


NOT_JSON = "not one complete JSON object on one line"
NOT_NATIVE = "not a native record"
BAD_RECORDS = {
    "half a line": (GOOD[:60], f"{NOT_JSON}: "),
    "two on one line": (GOOD + GOOD, f"{NOT_JSON}: "),
    "no JSON": ("hello", f"{NOT_JSON}: "),
    "a list": (f"[{GOOD}]", "Expected `object`, got `array`"),
    "a number": ("3", "Expected `object`, got `int`"),
    "null": ("null", "Expected `object`, got `null`"),
    "nothing to parse": ('{"prompt": "x"}', "has nothing to parse; accepted are native records"),
    "negative tokens": (
        with_tokens(-1),
        "tokens must be an int from 0 to 10^12, got -1 - at `$.threads[0].actions[0]`",
    ),
    "NaN tokens": (with_tokens("NaN"), f"{NOT_JSON}: "),
    "infinite tokens": (with_tokens("1e400"), f"{NOT_NATIVE}: Number out of range"),
    "half a token": (with_tokens(0.5), f"{NOT_NATIVE}: Expected `int`, got `float`"),
    "tokens as text": (with_tokens('"5"'), f"{NOT_NATIVE}: Expected `int`, got `str`"),
    "true tokens": (with_tokens("true"), f"{NOT_NATIVE}: Expected `int`, got `bool`"),
    "too many tokens": (with_tokens(10**12 + 1), "tokens must be an int from 0 to 10^12, got 1000000000001"),
    "tokens of 5000 digits": (with_tokens("9" * 5000), f"{NOT_NATIVE}: Integer value out of range"),
    "index 10^30": (GOOD.replace('"index":1', f'"index":{10**30}', 1), f"from 0 to 10^9, got {10**30}"),
    "negative index": (GOOD.replace('"index":1', '"index":-1', 1), "must be an int from 0 to 10^9, got -1"),
    "unknown key": (changed(extra=1), f"{NOT_NATIVE}: Object contains unknown field `extra`"),
    "unknown key within": (GOOD.replace('"index"', '"indx"', 1), "Object contains unknown field `indx`"),
    "unknown action": (
        GOOD.replace('"do":"fork"', '"do":"spawn"', 1),
        "Invalid value 'spawn' - at `$.threads[0].actions[0].do`",
    ),
    "no action": (GOOD.replace('"do":"fork",', "", 1), "missing required field `do`"),
    "another version": (changed(schema="forksim.trace/2"), 'accepted is "schema": "forksim.trace/1"'),
    "no threads": (changed(threads=[]), "trace 'good': the first thread must be 'organizer'"),
    "no organizer": (changed(threads=[{"id": "1", "actions": []}]), "the first thread must be 'organizer'"),
    "threads of one name": (with_threads("2", "2"), "trace 'good': two threads are called '2'"),
    "a missing parent": (with_threads("2.1"), "trace 'good': thread '2.1' comes before its parent"),
    "a parent too late": (with_threads("2.1", "2"), "trace 'good': thread '2.1' comes before its parent"),
    "its own parent": (with_threads("organizer"), "trace 'good': two threads are called 'organizer'"),
    "no path of indices": (with_threads("a"), "a worker is called by its Fork indices, like '2.1', not 'a'"),
    "a very deep thread": (with_threads(*(".".join("1" * depth) for depth in range(2, 40))), "nested deeper than 32"),
    "negative delay": (GOOD.replace('{"do":"fork",', '{"do":"delay","seconds":-1},{"do":"fork",'), "seconds must be"),
    "endless delay": (GOOD.replace('{"do":"fork",', '{"do":"delay","seconds":1e300},{"do":"fork",'), "from 0 to 10^9"),
    "negative arrival": (changed(arrival=-1), "arrival must be from 0 to 10^9 seconds, got -1"),
    "none wanted": (changed(outcome={"found": 1, "wanted": 0}), "needs found >= 0 and wanted >= 1, got 1 of 0"),
    "found without wanted": (changed(outcome={"found": 1}), "with both `found` and `wanted`"),
    "a fault of no kind": (changed(faults=[{"kind": "x", "thread": "1", "message": ""}]), "Invalid enum value 'x'"),
    "half a surrogate": (GOOD.replace("good", "\\ud800"), f"{NOT_JSON}: "),
    "text of another type": ('{"output": 3}', "Expected `str | null`, got `int` - at `$.output`"),
    "worker of a bad name": ('{"output": "x", "workers": {"../1": "y"}}', "a worker is called by its Fork index"),
    "deep lists": ("[" * 200_000, "Expected `object`, got `array`"),
    "deep lists in a text": ('{"output":' + "[" * 200_000, "Expected `str | null`, got `array`"),
    "deep lists beside a text": ('{"output":"x","other":' + "[" * 200_000 + "]" * 200_000 + "}", f"{NOT_JSON}: "),
    "deep objects": (
        GOOD.replace('"id":"good"', '"meta":' + '{"a":' * 200_000 + "1" + "}" * 200_000 + ',"id":"good"'),
        "",
    ),
}


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_a_bad_record_between_good_ones(here, forksim, name):
    record, message = BAD_RECORDS[name]
    assert record != GOOD
    Path("bad.jsonl").write_text(f"{GOOD}\n{record}\n{GOOD}\n", encoding="utf-8")
    for command in READERS:
        code, out, err = forksim(command, "bad.jsonl", *options(command))
        assert code == 2
        assert len(err) == 1
        assert err[0].startswith("bad.jsonl:2: ")
        assert message in err[0]
        assert len(err[0]) <= 1000
        assert ids(command, out) == 2


@each_reader
def test_many_bad_records_are_a_line_each(here, forksim, command):
    records = [record for record, _ in BAD_RECORDS.values()]
    Path("bad.jsonl").write_text("\n".join([GOOD, *records, GOOD]), encoding="utf-8")
    code, out, err = forksim(command, "bad.jsonl", *options(command))
    assert code == 2
    assert [int(line.split(":")[1]) for line in err] == list(range(2, 2 + len(records)))
    assert ids(command, out) == 2


def test_unreadable_records_are_counted(here, forksim):
    Path("bad.jsonl").write_text(f"{GOOD}\nx\n{GOOD}\ny\n", encoding="utf-8")
    for command in ("run", "score", "check"):
        assert "2 traces: 2 ok, 0 with violations, 2 unreadable\n" in forksim(command, "bad.jsonl")[1]
        _, out, _ = forksim(command, "bad.jsonl", "--json")
        assert json.loads(out.splitlines()[-1])["summary"]["unreadable"] == 2


def test_an_unreadable_record_goes_before_a_violation(here, forksim):
    Path("bad.jsonl").write_text('{"output": "no answer"}\n', encoding="utf-8")
    assert forksim("check", "bad.jsonl")[0] == 1
    Path("bad.jsonl").write_text('{"output": "no answer"}\nx\n', encoding="utf-8")
    assert forksim("check", "bad.jsonl")[0] == 2


def test_files_are_written_of_what_was_good(here, forksim):
    Path("bad.jsonl").write_text(f"{GOOD}\nx\n{GOOD}\n", encoding="utf-8")
    code, _, err = forksim("run", "bad.jsonl", "--out", "out", "--plots", 0)
    assert (code, len(err)) == (2, 1)
    assert len(Path("out/metrics.csv").read_text(encoding="utf-8").splitlines()) == 3
    assert forksim("convert", "bad.jsonl", "-o", "converted.jsonl")[0] == 2
    assert Path("converted.jsonl").read_text(encoding="utf-8") == f"{GOOD}\n{GOOD}\n"


# ---------------------------------------------------------------- files

BINARY = bytes(range(256)) * 20
ACCEPTED = "; accepted is a file of JSON lines or of plain text, or -"
BAD_FILES = {
    "empty.jsonl": (b"", f"is empty{ACCEPTED}"),
    "empty.txt": (b"", f"is empty{ACCEPTED}"),
    "blank.jsonl": (b"\n  \n\t\r\n", "has no records, only blank lines; accepted is one JSON object a line"),
    "binary.jsonl": (BINARY, "holds NUL bytes, so it is binary or UTF-16"),
    "binary.txt": (BINARY, "holds NUL bytes, so it is binary or UTF-16"),
    "binary": (BINARY, "holds NUL bytes, so it is binary or UTF-16"),
    "utf16.txt": ("<FORK-1>".encode("utf-16"), "holds NUL bytes, so it is binary or UTF-16"),
    "latin1.txt": ("é".encode("latin-1"), "is no UTF-8 text: unexpected end of data at byte 0"),
    "latin1.jsonl": ('{"output": "é"}'.encode("latin-1"), f"1: {NOT_JSON}: "),
}


@pytest.mark.parametrize("name", BAD_FILES)
@each_reader
def test_a_bad_file_between_good_ones(here, forksim, command, name):
    content, message = BAD_FILES[name]
    Path(name).write_bytes(content)
    code, out, err = forksim(command, "good.jsonl", name, "good.jsonl", *options(command))
    assert code == 2
    assert len(err) == 1
    assert err[0].startswith(f"{name}:")
    assert message in err[0]
    assert ids(command, out) == 2


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.jsonl", "missing.jsonl: cannot be read (No such file or directory)"),
        ("good.jsonl/x", "good.jsonl/x: cannot be read (Not a directory)"),
        (".", ".: cannot be read (Is a directory)"),
        (os.devnull, f"{os.devnull}: is empty"),
        ("x" * 300, f"{'x' * 300}: cannot be read (File name too long)"),
        ("loop", "loop: cannot be read (Too many levels of symbolic links)"),
        ("gone", "gone: cannot be read (No such file or directory)"),
        ("new\nline", "new line: cannot be read (No such file or directory)"),
    ],
)
@each_reader
def test_a_path_to_nothing_readable(here, forksim, command, path, message):
    Path("loop").symlink_to("loop")
    Path("gone").symlink_to("nowhere")
    code, out, err = forksim(command, path, "good.jsonl", *options(command))
    assert code == 2
    assert err == [f"{message}{ACCEPTED}"]
    assert ids(command, out) == 1


@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(here, forksim):
    Path("secret.jsonl").write_text(GOOD, encoding="utf-8")
    Path("secret.jsonl").chmod(0)
    assert forksim("run", "secret.jsonl")[2] == [f"secret.jsonl: cannot be read (Permission denied){ACCEPTED}"]


class Vanishing:
    """A file whose disk goes away after the first line."""

    def __init__(self, file):
        self.file = file
        self.lines = 0

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def readline(self, *limit):
        self.lines += 1
        if self.lines > 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self.file.readline(*limit)


@each_reader
def test_a_disk_that_vanishes_in_the_middle(here, forksim, monkeypatch, command):
    Path("two.jsonl").write_text(f"{GOOD}\n{GOOD}\n", encoding="utf-8")

    def vanishing(path, *mode):
        file = open(path, *mode)  # noqa: SIM115
        return Vanishing(file) if path == "two.jsonl" else file

    monkeypatch.setattr(simulator.formats.reading, "open", vanishing, raising=False)
    code, out, err = forksim(command, "two.jsonl", "good.jsonl", *options(command))
    assert code == 2
    assert err == [f"two.jsonl: cannot be read (Input/output error){ACCEPTED}"]
    assert ids(command, out) == 2


@each_reader
def test_a_file_that_is_deleted_before_its_turn(here, forksim, command):
    """Files are opened one after another: what has vanished by then is reported, the rest is used."""
    Path("later.jsonl").write_text(GOOD, encoding="utf-8")

    real = simulator.formats.reading._lines

    def deleting(*arguments):
        Path("later.jsonl").unlink(missing_ok=True)
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulator.formats.reading, "_lines", deleting)
        code, out, err = forksim(command, "good.jsonl", "later.jsonl", "good.jsonl", *options(command))
    assert code == 2
    assert err == [f"later.jsonl: cannot be read (No such file or directory){ACCEPTED}"]
    assert ids(command, out) == 2


@each_reader
def test_a_pipe_is_read(here, forksim, command):
    os.mkfifo("pipe")

    def feed():
        with open("pipe", "w", encoding="utf-8") as pipe:
            pipe.write(f"{GOOD}\nx\n{GOOD}\n")

    writer = threading.Thread(target=feed)
    writer.start()
    code, out, err = forksim(command, "pipe", *options(command))
    writer.join()
    assert code == 2
    assert [line[:7] for line in err] == ["pipe:2:"]
    assert ids(command, out) == 2


PROSE = ["hostile.txt: holds no tag of any format, so it is one thought, without Forks or an answer"]


@pytest.mark.parametrize("unit", ["<FORK-1>", "<JOIN-1>", "<", "<WORKER-1>", "<Path>", "\ud7ff"])
def test_a_megabyte_of_hostile_text_is_a_trace_with_violations(here, forksim, unit):
    Path("hostile.txt").write_text(unit * (2**20 // len(unit)), encoding="utf-8")
    told = PROSE if len(unit) == 1 else []
    for command in ("run", "score"):
        code, out, err = forksim(command, "hostile.txt")
        assert (code, err) == (0, told)
        assert "1 trace: 0 ok, 1 with violations" in out
        assert max(map(len, out.splitlines())) <= 200
    code, out, err = forksim("check", "hostile.txt")
    assert (code, err) == (1, told)
    assert max(map(len, out.splitlines()[:-1])) <= 1000


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["<FORK-1>", "<JOIN-1>", "<FORK-1></FORK-1>", "<WORKER-1>", "<Path>"])
def test_ten_megabytes_of_hostile_text(here, forksim, unit):
    Path("hostile.txt").write_text(unit * (10 * 2**20 // len(unit)), encoding="utf-8")
    for command in ("run", "score"):
        assert forksim(command, "hostile.txt")[0] == 0
    assert forksim("check", "hostile.txt")[0] == 1
    assert forksim("convert", "hostile.txt", "-o", "out.jsonl")[0] == 0


@each_reader
def test_hostile_names_do_nothing_to_a_terminal(here, forksim, command):
    name = "a\x1b[2J\x07\r\n\u202e[red]" + "x" * 10_000
    Path("names.jsonl").write_text(changed(id=name) + '\n{"output": "no answer"}\n', encoding="utf-8")
    _, out, err = forksim(command, "names.jsonl")
    assert err == []
    if command == "convert":
        assert json.loads(out.splitlines()[0])["id"] == name
        return
    assert not set(out) & set("\x1b\x07\r\u202e")
    assert max(map(len, out.splitlines())) <= 300
    if command != "check":
        assert "a\\x1b[2J\\x07\\r\\n\\u202e[red]xxx" in out.replace("\n", "")


# ---------------------------------------------------------------- options

HUGE = 10**12
BAD_OPTIONS = [
    (("--capacity", 0), "capacity must be a whole number from 1"),
    (("--capacity", -1), "capacity must be a whole number from 1"),
    (("--capacity", HUGE), "capacity must be a whole number from 1"),
    (("--capacity", "x"), "Invalid value for '--capacity'"),
    (("--capacity", "1.5"), "Invalid value for '--capacity'"),
    (("--capacity", ""), "Invalid value for '--capacity'"),
    (("--gpu", "bogus"), "no GPU profile is called 'bogus'; `forksim gpus` lists all"),
    (("--gpu", ""), "no GPU profile is called ''; `forksim gpus` lists all"),
    (("--gpu", "rate:0"), "tokens_per_second must be above 0, got 0.0"),
    (("--gpu", "rate:nan"), "'rate:nan' is not rate:TOKENS_PER_SECOND, linear:A[,B,C,P,Q] or aiconfigurator:"),
    (("--gpu", "rate:-1"), "tokens_per_second must be a number from 0 to 10^9, got -1.0"),
    (("--gpu", "rate:inf"), "'rate:inf' is not rate:TOKENS_PER_SECOND"),
    (("--gpu", "rate:1e300"), "must be a number from 0 to 10^9"),
    (("--gpu", "rate:"), "'rate:' is not rate:TOKENS_PER_SECOND"),
    (("--gpu", "rate:1,2"), "'rate:1,2' is not rate:TOKENS_PER_SECOND"),
    (("--gpu", "linear:-1"), "LinearBatch: a must be a number from 0 to 10^9, got -1.0"),
    (("--gpu", "linear:0"), "a step must take time; a + b is 0"),
    (("--gpu", "linear:x"), "'linear:x' is not"),
    (("--gpu", "linear:1,2,3,4,5,6"), "'linear:1,2,3,4,5,6' is not"),
    (("--max-num-seqs", 0), "max_num_seqs must be a whole number from 1"),
    (("--max-num-seqs", -3), "max_num_seqs must be a whole number from 1"),
    (("--max-num-batched-tokens", 0), "max_num_batched_tokens must be a whole number from 1"),
    (
        ("--max-num-seqs", 9, "--max-num-batched-tokens", 3),
        "max_num_batched_tokens (3) must be at least max_num_seqs (9)",
    ),
    (("--num-kv-blocks", 0), "num_kv_blocks must be a whole number from 1"),
    (("--num-kv-blocks", "x"), "Invalid value for '--num-kv-blocks'"),
    (("--gpu", "missing.toml"), "profile missing.toml: cannot be read (No such file or directory)"),
    (("--gpu", "good.jsonl.toml/x.toml"), "cannot be read ("),
    (("--full-pool", "bogus"), "--full-pool takes queue, block, inline, drop, allow; got 'bogus'"),
    (("--policy", "bogus"), "no policy is called 'bogus'; accepted: fcfs, "),
    (("--arrivals", "poisson:-1"), "--arrivals poisson:PER_SECOND takes a number from 10^-9 to 10^9; got '-1'"),
    (("--arrivals", "poisson:0"), "takes a number from 10^-9 to 10^9; got '0'"),
    (("--arrivals", "poisson:nan"), "takes a number from 10^-9 to 10^9; got 'nan'"),
    (("--arrivals", "poisson:x"), "takes a number from 10^-9 to 10^9; got 'x'"),
    (("--arrivals", "poisson:"), "takes a number from 10^-9 to 10^9; got ''"),
    (
        ("--arrivals", "poisson"),
        "--arrivals takes alone, together, recorded, poisson:PER_SECOND or closed:USERS; got 'poisson'",
    ),
    (
        ("--arrivals", "together:1"),
        "--arrivals takes alone, together, recorded, poisson:PER_SECOND or closed:USERS; got 'together:1'",
    ),
    (
        ("--arrivals", "bogus"),
        "--arrivals takes alone, together, recorded, poisson:PER_SECOND or closed:USERS; got 'bogus'",
    ),
    (("--arrivals", "recorded"), "trace 'good' has no recorded arrival; use --arrivals together or poisson:PER_SECOND"),
    *(
        (
            ("--arrivals", f"closed:{users}"),
            f"--arrivals closed:USERS takes a whole number from 1 to 10^9; got '{users}'",
        )
        for users in ("0", "-1", "", "1.5", "nan", "1e3", "3:4", "1_0", " 4", "٣", "9" * 40)
    ),
    (("--arrivals", "poisson:1_0"), "takes a number from 10^-9 to 10^9; got '1_0'"),
    (("--max-workers", 0), "Invalid value for '--max-workers'"),
    (("--max-workers", "1.5"), "Invalid value for '--max-workers'"),
    (("--max-prefill-tokens", 0), "max_prefill_tokens must be a whole number from 1"),
    (("--replicas", 0), "Invalid value for '--replicas'"),
    (("--replicas", 10**12), "Invalid value for '--replicas'"),
    (("--routing", "bogus"), "no routing is called 'bogus'; accepted: round-robin, least-loaded, prefix-affinity"),
    (("--gpu", "steps", "--gpu", "rate:9"), "replicas must all take steps"),
    (("--seed", -1), "Invalid value for '--seed'"),
    (("--format", "bogus"), "no format is called 'bogus'; accepted are native, verifiers, apr, asyncthink, npr"),
    (("--tokens", "bogus"), "--tokens takes characters, words or a tokenizer.json; "),
    (("--tokens", ""), "--tokens takes characters, words or a tokenizer.json; "),
    (("--rows", -1), "Invalid value for '--rows'"),
    (("--plots", -1), "Invalid value for '--plots'"),
    (("--bogus",), "No such option: --bogus"),
    (("--out", ""), "--out takes the name of a folder, got ''"),
    (("--out", "good.jsonl"), "'good.jsonl/metrics.csv': cannot be written (File exists)"),
    (("--out", "good.jsonl/x"), "'good.jsonl/x/metrics.csv': cannot be written (Not a directory)"),
    (("--out", "/proc/nowhere"), "'/proc/nowhere/metrics.csv': cannot be written (No such file or directory)"),
    (("--out", os.devnull), "cannot be written (File exists)"),
]


@pytest.mark.parametrize(
    ("given", "message"), BAD_OPTIONS, ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else ""
)
def test_bad_options_of_run(here, forksim, given, message):
    before = sorted(os.listdir())
    code, out, err = forksim("run", "good.jsonl", *given)
    assert (code, out) == (2, "")
    assert len(err) == 1
    assert message in err[0]
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("score", "good.jsonl", "-c", 0), "capacity must be a whole number from 1"),
        (("score", "good.jsonl", "--eta-weight", "nan"), "eta_weight must be a finite number, got nan"),
        (("score", "good.jsonl", "--eta-weight", "x"), "Invalid value for '--eta-weight'"),
        (("score", "good.jsonl", "--eta-threshold", "0"), "eta_threshold must be above 0 and at most 1, got 0.0"),
        (("score", "good.jsonl", "--eta-threshold", "2"), "eta_threshold must be above 0 and at most 1, got 2.0"),
        (("score", "good.jsonl", "--format-error-reward", "inf"), "format_error_reward must be a finite number"),
        (("score", "good.jsonl", "--reward", "asyncthnk"), "no reward is called 'asyncthnk'; did you mean asyncthink?"),
        (("score", "good.jsonl", "--reward", "no.toml"), "reward no.toml: cannot be read (No such file or directory)"),
        (("score", "good.jsonl", "--reward", "threadweaver", "--eta-weight", 1), "--eta-weight is of the asyncthink"),
        (("score", "good.jsonl", "-o", "scores.npz"), "columns are written to .jsonl, .ndjson, .csv or .parquet files"),
        (("score", "good.jsonl", "-o", "good.jsonl/x.jsonl"), "'good.jsonl/x.jsonl': cannot be written (File exists)"),
        (("check", "good.jsonl", "--nested-forks=maybe"), "--nested-forks"),
        (("generate", "bogus"), "'bogus' is no family; accepted: sequential, parallel, batch"),
        (("generate",), "Missing argument 'FAMILY'; see forksim generate --help"),
        (("generate", "batch", "-n", -1), "Invalid value for '-n'"),
        (("generate", "batch", "-n", 10**30), "n must be a whole number from 0"),
        (("generate", "batch", "--seed", -1), "Invalid value for '--seed'"),
        (("generate", "batch", "workers"), "'workers' is no OPTION=VALUE, such as workers=4"),
        (("generate", "batch", "workers=x"), "workers must be a number, got 'x'"),
        (("generate", "batch", "workers=-1"), "workers must be a whole number from 1"),
        (("generate", "batch", "workers=1e400"), "workers must be a number, got '1e400'"),
        (("generate", "batch", "bogus=1"), "batch has no option 'bogus'; accepted: workers, rounds"),
        (("generate", "batch", "=1"), "batch has no option ''"),
        (("generate", "batch", "work=bogus"), "'bogus' names no distribution; accepted: a number, constant:N"),
        (("generate", "batch", "n=3"), "n is no option of a family: see forksim generate --help; got 'n=3'"),
        (("generate", "batch", "seed=3"), "seed is no option of a family"),
        (("generate", "batch", "start=3"), "start is no option of a family"),
        (("generate", "batch", "family=3"), "family is no option of a family"),
        (("generate", "batch", "--to", "bogus"), "no format is called 'bogus'"),
        (("convert", "good.jsonl", "--to", "bogus"), "no format is called 'bogus'"),
        (("convert", "good.jsonl", "-o", "."), "'.': cannot be written (Is a directory)"),
        (("convert", "good.jsonl", "-o", ""), "'': cannot be written ("),
        (("convert", "good.jsonl", "-o", "good.jsonl/x"), "'good.jsonl/x': cannot be written (File exists)"),
        (("convert", "good.jsonl", "-o", "/dev/full"), "'/dev/full': cannot be written (No space left on device)"),
        (("gantt", "good.jsonl"), "Missing option '--out'"),
        (("gantt", "good.jsonl", "-o", "x.bmp"), "a picture is saved as .png, .svg, .pdf; got 'x.bmp'"),
        (("gantt", "good.jsonl", "-o", "x"), "a picture is saved as .png, .svg, .pdf; got 'x'"),
        (("gantt", "good.jsonl", "-o", "x.png", "-n", 0), "Invalid value for '--number'"),
        (
            ("gantt", "good.jsonl", "-o", "x.png", "-n", 2),
            "good.jsonl: there is no trace 2; --number is from 1 to 1 here",
        ),
        (("gantt", "missing", "-o", "x.png"), "missing: cannot be read (No such file or directory)"),
        (("gantt", "good.jsonl", "-o", "good.jsonl/x.png"), "good.jsonl/x.png"),
        (("bogus",), "No such command 'bogus'"),
        (("run",), "Missing argument 'TRACE...'; see forksim run --help"),
    ],
)
def test_bad_options_of_others(here, forksim, given, message):
    code, out, err = forksim(*given)
    assert (code, out) == (2, "")
    assert len(err) == 1
    assert message in err[0]
    assert os.listdir() == ["good.jsonl"]


def test_a_bad_option_is_told_before_anything_is_read(here, forksim):
    """A million traces later would be late."""
    for command, *given in (
        ("run", "--arrivals", "poisson:x"),
        ("run", "--policy", "bogus"),
        ("run", "--format", "bogus"),
        ("score", "-c", 0),
        ("check", "-c", 0),
        ("convert", "--to", "bogus"),
    ):
        code, out, err = forksim(command, "missing.jsonl", *given)
        assert (code, out, len(err)) == (2, "", 1)
        assert "missing.jsonl" not in err[0]


# ---------------------------------------------------------------- full disks


def listing():
    return sorted(str(path) for path in Path().rglob("*"))


@pytest.mark.parametrize("at", ["write", "close"])
def test_a_full_disk(here, forksim, monkeypatch, at):
    def full(*given, **named):
        return FullDisk(open(*given, **named), at)

    Path("out").mkdir()
    for name in ("out/metrics.csv", "out/spans.csv", "converted.jsonl"):
        Path(name).write_text("old", encoding="utf-8")
    before = listing()
    monkeypatch.setattr("simulator.support.files.open", full, raising=False)
    for given in (
        ("run", "good.jsonl", "--out", "out", "--plots", 0),
        ("convert", "good.jsonl", "-o", "converted.jsonl"),
        ("generate", "batch", "-o", "converted.jsonl"),
    ):
        code, out, err = forksim(*given)
        assert (code, out) == (2, "") or at == "close"
        assert len(err) == 1
        assert err[0].endswith(": cannot be written (No space left on device)")
        assert listing() == before
    assert Path("out/metrics.csv").read_text(encoding="utf-8") == "old"
    assert Path("converted.jsonl").read_text(encoding="utf-8") == "old"


class FullStdout:
    """Standard output on a full disk."""

    encoding = "utf-8"

    def write(self, _):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def flush(self):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def isatty(self):
        return False


@pytest.mark.parametrize(
    "given",
    [
        ("run", "good.jsonl", "--json", "--out", "out"),  # whose files are not to blame
        ("run", "good.jsonl"),
        ("score", "good.jsonl"),
        ("check", "good.jsonl"),
        ("convert", "good.jsonl"),
        ("generate", "batch"),
    ],
    ids=lambda given: given[0],
)
def test_standard_output_on_a_full_disk(here, forksim, monkeypatch, given):
    monkeypatch.setattr("sys.stdout", FullStdout())
    code, _, err = forksim(*given)
    assert code == 2
    assert err == ["standard output: cannot be written (No space left on device)"]


class Gone(FullStdout):
    """Standard output that nobody reads any more, with something still to be flushed."""

    def __init__(self, descriptor):
        self.descriptor = descriptor

    def write(self, text):
        return len(text)

    def flush(self):
        raise BrokenPipeError

    def fileno(self):
        return self.descriptor


def test_at_exit_nothing_is_left_to_be_flushed(here, monkeypatch, capsys):
    """Or the interpreter would complain, and exit with 120."""
    descriptor = os.open("good.jsonl", os.O_RDONLY)
    monkeypatch.setattr("sys.stdout", Gone(descriptor))
    with pytest.raises(SystemExit) as caught:
        main(["check", "good.jsonl", "-c", "0"])
    assert caught.value.code == 2
    assert os.fstat(descriptor).st_rdev == os.stat(os.devnull).st_rdev
    os.close(descriptor)
    assert capsys.readouterr().err.startswith("forksim: capacity must be")


# ---------------------------------------------------------------- real processes: streams, signals, pipes


def start(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "simulator", *arguments],
        **{
            "env": {**os.environ, "PYTHONPATH": str(ROOT)},
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            **options,
        },
    )


def finish(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out.decode("utf-8") if out else "", err.decode("utf-8") if err else ""


def shell(script, *arguments, **options):
    """Run ``forksim ARGUMENTS`` with a redirection that only a shell can do."""
    process = subprocess.run(
        ["sh", "-c", f'exec "$@" {script}', "sh", sys.executable, "-m", "simulator", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **options},
        capture_output=True,
        timeout=60,
    )
    return process.returncode, process.stdout.decode("utf-8"), process.stderr.decode("utf-8")


def test_a_real_process(here):
    Path("bad.jsonl").write_text(f"{GOOD}\nx\n", encoding="utf-8")
    code, out, err = finish(start("check", "bad.jsonl"))
    assert (code, out) == (2, "1 trace: 1 ok, 0 with violations, 1 unreadable\n")
    assert err == f"forksim: bad.jsonl:2: {NOT_JSON}: JSON is malformed: invalid character (byte 0)\n"


def test_a_closed_stdin(here):
    assert shell("<&-", "run", "-") == (2, "", f"forksim: <stdin>: is empty{ACCEPTED}\n")


@pytest.mark.parametrize("command", ["run", "convert"])
def test_a_closed_stdout(here, command):
    assert shell(">&-", command, "good.jsonl") == (0, "", "")


def test_a_closed_stderr_says_nothing_on_stdout(here):
    assert shell("2>&-", "check", "missing", "good.jsonl") == (
        2,
        "1 trace: 1 ok, 0 with violations, 1 unreadable\n",
        "",
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("given", [("run", "good.jsonl"), ("convert", "good.jsonl")], ids=["run", "convert"])
def test_a_full_stdout(here, given):
    message = "forksim: standard output: cannot be written (No space left on device)\n"
    assert shell(">/dev/full", *given) == (2, "", message)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_stderr(here):
    assert shell("2>/dev/full", "check", "missing")[:2] == (2, "0 traces: 0 ok, 0 with violations, 1 unreadable\n")


@pytest.mark.parametrize(
    "given",
    [("run", "-", "--json"), ("convert", "-"), ("check", "-", "-c", "1"), ("generate", "batch", "-n", "10000000")],
    ids=lambda given: given[0],
)
def test_a_reader_that_has_seen_enough(here, given):
    """Like ``forksim ... | head -1``: no complaint, no traceback, not even at exit."""
    process = start(*given, stdin=subprocess.PIPE)
    feeding = threading.Thread(target=feed_for_ever, args=(process.stdin,))
    feeding.start()
    assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    feeding.join()


def feed_for_ever(pipe):
    """Write good records until nobody reads them any more."""
    chunk = (GOOD + "\n").encode() * 100
    with suppress(BrokenPipeError), pipe:
        while True:
            pipe.write(chunk)


def test_a_reader_that_left_before_a_table(here):
    process = start("run", "-", stdin=subprocess.PIPE)
    process.stdout.close()
    process.stdin.write(GOOD.encode())
    process.stdin.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 0


def interruptible():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored in what runs the tests


def test_ctrl_c_in_the_middle_of_a_stream(here):
    process = start("run", "-", "--json", "--out", "out", stdin=subprocess.PIPE, preexec_fn=interruptible)
    process.stdin.write((GOOD + "\n").encode() * 100)
    process.stdin.flush()
    first = process.stdout.readline()  # it is at work
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert (code, err) == (130, "forksim: interrupted\n")
    assert json.loads(first)["trace"] == "good"
    assert [name for name in os.listdir("out") if not name.endswith(".png")] == []


@pytest.mark.parametrize(
    "given", [("convert", "pipe", "-o", "new.jsonl"), ("run", "pipe", "--out", "new", "--plots", "0")]
)
def test_ctrl_c_leaves_no_half_files(here, given):
    os.mkfifo("pipe")
    process = start(*given, preexec_fn=interruptible)
    with open("pipe", "wb", buffering=0) as pipe:  # waits until the other end is open: then so is the output
        pipe.write((GOOD + "\n").encode() * 10)
        process.send_signal(signal.SIGINT)
        assert finish(process) == (130, "", "forksim: interrupted\n")
    assert [path for path in listing() if not stat.S_ISDIR(os.stat(path).st_mode)] == ["good.jsonl", "pipe"]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_other_encodings(here, encoding):
    """Results are UTF-8 wherever they are not shown on a terminal."""
    Path("euro.jsonl").write_text(changed(id="€"), encoding="utf-8")
    code, out, err = finish(
        start("convert", "euro.jsonl", env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding})
    )
    assert (code, json.loads(out)["id"], err) == (0, "€", "")
    code, out, err = finish(
        start("score", "euro.jsonl", env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding})
    )
    assert (code, err) == (0, "")
    assert "€" in out


@pytest.mark.skipif(sys.platform != "linux", reason="file names that are no text")
def test_a_file_name_that_is_no_text(here):
    name = b"\xff.txt"
    Path(os.fsdecode(name)).write_text("x <ANSWER>9</ANSWER>", encoding="utf-8")
    process = start("run", os.fsdecode(name), "--json", "--out", "out")
    code, out, err = finish(process)
    assert (code, err) == (0, "")
    assert json.loads(out.splitlines()[0])["trace"] == "\\udcff"
    assert sorted(os.listdir("out"))[1:] == ["metrics.csv", "spans.csv"]


def test_progress_shows_on_a_terminal_and_results_stay_on_stdout(here):
    Path("many.jsonl").write_text((GOOD + "\n") * 500, encoding="utf-8")
    parent, child = pty.openpty()
    shown = []

    def read():
        try:
            while data := os.read(parent, 2**16):
                shown.append(data)
        except OSError:  # how a terminal says that nobody holds it any more
            pass

    watching = threading.Thread(target=read)
    watching.start()
    process = start("run", "many.jsonl", "missing", "--json", stderr=child)
    os.close(child)
    out, _ = process.communicate(timeout=60)
    watching.join()
    os.close(parent)
    assert process.returncode == 2
    assert len(out.splitlines()) == 501
    terminal = b"".join(shown).decode("utf-8")
    assert "traces" in terminal
    assert "missing: cannot be read" in terminal
    assert '"trace"' not in terminal


# ---------------------------------------------------------------- memory

PEAK = """
import resource, sys
from simulator.cli import _run
code = _run(sys.argv[1:])
sys.stdout.flush()
print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def peak(*arguments):
    """Kilobytes at the peak."""
    result = subprocess.run(
        [sys.executable, "-c", PEAK, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=True,
        timeout=600,
    )
    code, kilobytes = map(int, result.stderr.split())
    assert code == 0
    return kilobytes


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        ("run",),
        ("run", "--json"),
        ("run", "--out", "out", "--plots", "0"),
        ("score",),
        ("check",),
        ("convert",),
        ("convert", "-o", "out.jsonl"),
    ],
    ids=" ".join,
)
def test_memory_is_flat(here, given):
    """Not even a byte a trace more, past the sample that percentiles are taken of."""
    n = 130_000 if given == ("score",) else 15_000
    sizes = []
    for i in (1, 2):
        with open("stream.jsonl", "w", encoding="utf-8") as file:
            for _ in range(i * n):
                file.write(GOOD + "\n")
        sizes.append(peak(given[0], "stream.jsonl", *given[1:]))
    per_trace = 8 * 10 if n < 100_000 else 1  # bytes: 8 for each number of the summary, while the sample fills
    assert (sizes[1] - sizes[0]) * 1024 < per_trace * n + 4 * 2**20


# What a trace is called, in files and on a terminal.


def hostile(tmp_path, name):
    path = tmp_path / "traces.jsonl"
    path.write_text(json.dumps({"id": name, "output": "I think. <ANSWER>9</ANSWER>", "outcome": "correct"}) + "\n")
    return path


def test_json_lines_say_nothing_to_a_terminal(forksim, tmp_path):
    name = "a\u009b31m\u202egpj.\u2066\x85\u2028b"
    for command in ("run", "score", "check"):
        code, out, _ = forksim(command, hostile(tmp_path, name), "--json")
        assert code == 0
        assert out.replace("\n", "").isprintable(), command
        assert command == "check" or json.loads(out.splitlines()[0])["trace"] == name


@pytest.mark.parametrize("raw", [True, False])
def test_csv_files_hold_formulas_only_if_asked(forksim, tmp_path, raw):
    path = hostile(tmp_path, "=1+1")
    option = ["--formulas"] if raw else []
    assert forksim("run", path, "--out", tmp_path / "run", *option)[0] == 0
    assert forksim("score", path, "--out", tmp_path / "scores.csv", *option)[0] == 0
    for name in ("run/metrics.csv", "run/spans.csv", "scores.csv"):
        with open(tmp_path / name, newline="") as file:
            assert list(csv.reader(file))[1][0] == ("=1+1" if raw else "'=1+1"), name


def huge(tmp_path):
    """Two traces of a million million tokens, each with one behind it that is like others."""
    think = Trace("think", (Thread("organizer", (Think(10**12), Answer(1))),))
    insert = Trace("insert", (Thread("organizer", (Fork(1), Join(1, 0, 10**12), Answer(1))), Thread("1", (Return(3),))))
    path = tmp_path / "huge.jsonl"
    path.write_text("".join(native.render(each) + "\n" for each in (think, SMALL, insert, SMALL)))
    return path


SMALL = Trace("small", (Thread("organizer", (Think(9), Answer(1))),))


@pytest.mark.parametrize("form", ["asyncthink", "multiverse", "threadweaver", "parallel_r1", "agentic_mooncake"])
def test_a_trace_of_more_tokens_than_are_written_is_refused_by_name(forksim, tmp_path, form):
    code, out, err = forksim("convert", huge(tmp_path), "--to", form)
    names = ["insert"] if form == "agentic_mooncake" else ["think", "insert"]  # a request says a number, and its blocks
    assert code == 2
    assert len(out.splitlines()) == 2 + 2 * (form == "agentic_mooncake")
    assert [line.partition(":")[0] for line in err] == [f"trace {name!r}" for name in names]


def test_a_prompt_that_would_take_days_is_refused_by_name(forksim, tmp_path):
    path = tmp_path / "long.jsonl"
    long = Trace("long", (Thread("organizer", (Answer(1),), 10**12),))
    path.write_text(f"{native.render(long)}\n{native.render(SMALL)}\n")
    code, out, err = forksim(
        "run", path, "--gpu", "linear:1e-3,1e-5,1e-8,1e-6", "--max-num-batched-tokens", 64, "--json"
    )
    assert code == 2
    assert [json.loads(line).get("trace") for line in out.splitlines()] == ["small", None]
    assert len(err) == 1 and "long: thread organizer has 1,000,000,000,000 prompt tokens" in err[0]
