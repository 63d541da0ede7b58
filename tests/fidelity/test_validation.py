"""Validation: a simulation of its own record has no error, errors are found by hand, and bad records are told."""

import json

import msgspec
import numpy as np
import pytest

from simulator import GPU, Answer, ConfigError, Fork, Join, LinearBatch, Return, Think, Thread, Trace, compile_trace
from simulator.errors import TraceError
from simulator.fidelity import CLASSES, validate
from simulator.fidelity.recorded import recorded_latency, recorded_times
from simulator.formats.native import encode
from tests.fidelity.test_calibration import asked
from tests.support.recorded import record

MACHINE = GPU(cost=LinearBatch(a=5e-3, b=2e-3, c=1e-6, p=5e-4, q=2e-7), max_prefill_tokens=64)


def answer(seconds, tokens=100, arrival=0.0, **meta):
    """Return a recorded query without a Fork."""
    thread = Thread("organizer", (Answer(tokens, start=arrival, finish=arrival + seconds),))
    return Trace(f"t{seconds}", (thread,), arrival=arrival, meta=meta)


TENTH = GPU(cost=LinearBatch(a=0.01))  # 100 tokens take a second


# ---------------------------------------------------------------- what is exact


@pytest.mark.parametrize("max_workers", [None, 1, 3])
def test_a_simulation_of_its_own_record_has_no_error(max_workers):
    rng = np.random.default_rng(8)
    traces = []
    for run in range(4):
        together = [asked(f"{run}/{query}", rng) for query in range(3)]
        traces += record(together, MACHINE, [0.0, 0.3, 0.5], {"run": run, "rep": 0, "spec": run}, max_workers)
    found = validate(traces, gpu=MACHINE)
    assert len(found.queries) == 12 and found.errors().max < 1e-9 and found.runs.max < 1e-9
    for each in found.classes():
        assert each.predicted == pytest.approx(each.measured, abs=1e-6) and each.mean < 1e-6
    busy = sum(query.measured_times["prefill+decode"] for query in found.queries)
    assert busy > 1 and all(query.kind == "multi" for query in found.queries)


def test_the_limits_are_those_of_the_record():
    rng = np.random.default_rng(3)
    traces = record([asked("a", rng)], MACHINE, [0.0], max_workers=1)
    assert validate(traces, gpu=MACHINE).errors().max < 1e-9
    assert validate(traces, gpu=MACHINE, max_workers=9).errors().max > 0.01
    bare = [msgspec.structs.replace(trace, meta={"cap": 1, "max_prefill": 64}) for trace in traces]
    assert validate(bare, gpu=GPU(cost=MACHINE.cost)).errors().max < 1e-9
    assert validate(bare, gpu=GPU(cost=MACHINE.cost), max_prefill_tokens=2).errors().max > 0.01


def test_queries_of_a_run_are_simulated_together():
    traces = [answer(2.0, run="r"), answer(2.0, arrival=0.5, run="r")]
    two = GPU(cost=LinearBatch(a=0.0, b=0.01))  # a step takes as much as it has sequences
    apart = validate([answer(2.0), answer(2.0)], gpu=two)
    assert [query.predicted for query in apart.queries] == pytest.approx([1.0, 1.0])
    found = validate(traces, gpu=two)
    assert [query.predicted for query in found.queries] == pytest.approx([1.5, 1.5], abs=0.02)
    assert found.spans[0].measured == 2.5 and found.spans[0].predicted == pytest.approx(2.0, abs=0.02)


# ---------------------------------------------------------------- by hand


def test_errors_by_hand():
    found = validate([answer(1.0, kind="a"), answer(0.8, kind="a"), answer(2.0, kind="b")], gpu=TENTH)
    assert [query.error for query in found.queries] == pytest.approx([0.0, 0.25, -0.5])
    every = found.errors()
    assert (every.mean, every.bias, every.max, every.number) == pytest.approx((0.25, -0.25 / 3, 0.5, 3))
    assert every.p50 == pytest.approx(0.25) and every.p90 == pytest.approx(0.45) and every.p95 == pytest.approx(0.475)
    assert found.errors("b").bias == pytest.approx(-0.5) and found.kinds() == ("a", "b")
    with pytest.raises(ConfigError, match="no query is of the kind 'c'; there are a, b"):
        found.errors("c")


def test_repeats_by_hand():
    asked_for = {"spec": 1, "model": "m"}
    traces = [answer(1.0, rep=0, **asked_for), answer(1.2, rep=1, **asked_for), answer(5.0, rep=0, spec=2)]
    repeats = validate(traces, gpu=TENTH).repeats()
    assert repeats.number == 1 and repeats.mean == pytest.approx(0.2 / 1.1)
    assert validate(traces[::2], gpu=TENTH).repeats() is None


def test_errors_against_means_of_repeats_by_hand():
    """Predicted 1.0 both times; measured 0.9 and 1.3, mean 1.1: one spec, off by 1 - 1 / 1.1."""
    traces = [answer(0.9, spec="s", rep=0, run=0), answer(1.3, spec="s", rep=1, run=1), answer(5.0, run=2)]
    found = validate(traces, gpu=TENTH)
    errors = found.errors_of_means()
    assert errors.number == 1 and errors.mean == pytest.approx(1 - 1 / 1.1)
    assert found.errors_of_means("none of that kind") is None


def forked(seconds, **meta):
    """Return a recorded query of 1 + 99 tokens with a Fork that starts nobody."""
    actions = (Think(1, start=0.0, finish=0.0), Fork(1, start=0.0, finish=0.0), Answer(99, start=0.0, finish=seconds))
    return Trace(f"f{seconds}", (Thread("organizer", actions),), arrival=0.0, meta=meta)


def test_speed_ups_by_hand():
    traces = [
        forked(1.0, kind="single", spec="s", rep=0),
        forked(3.0, kind="single", spec="s", rep=1),
        answer(8.0, tokens=400, kind="seq", spec="any", twin="s"),
        answer(9.0, tokens=400, kind="seq", spec="other", twin="other"),
        answer(5.0, tokens=300, kind="seq", spec="s"),  # other work: not a twin
    ]
    (speedup,) = validate(traces, gpu=TENTH).speedups()
    assert (speedup.measured, speedup.predicted) == pytest.approx((4.0, 4.0)) and speedup.error == pytest.approx(0)
    (speedup,) = validate([*traces[:2], answer(6.0, kind="seq", spec="s")], gpu=TENTH).speedups()
    assert (speedup.measured, speedup.predicted) == pytest.approx((3.0, 1.0))
    assert speedup.error == pytest.approx(-2 / 3)


def test_classes_by_hand():
    """The organizer decodes for 3 s, waits for the worker until 6, and half a second to go on, and answers for 2 s."""
    organizer = (
        *(Think(4, start=0, finish=2), Fork(1, start=2, finish=2), Think(2, start=2, finish=3)),
        *(Join(1, inserted_tokens=5, start=3, finish=6), Answer(4, start=6.5, finish=8.5)),
    )
    worker = Thread("1", (Think(9, start=3, finish=6), Return(start=6, finish=6)), 10, 4)
    trace = Trace("t", (Thread("organizer", organizer), worker), arrival=0.0)
    times = recorded_times(trace, compile_trace(trace))
    assert times == {"decode": 3.0, "prefill+decode": 5.0, "wait_join": 3.0, "wait_batch+wait_pool": 1.5}
    assert recorded_latency(trace) == 8.5 and tuple(times) == CLASSES


# ---------------------------------------------------------------- refused


def bare(**change):
    return Trace("bad", (Thread("organizer", (Answer(5, **change),)),))


@pytest.mark.parametrize(
    ("trace", "message"),
    [
        (bare(), "trace 'bad': no recorded answer"),
        (bare(start=2.0, finish=1.0), "trace 'bad': the answer is recorded -1 seconds after the arrival"),
        (Trace("bad", (Thread("organizer", (Think(5, start=0, finish=1),)),)), "trace 'bad': no recorded answer"),
        (
            Trace("bad", (Thread("organizer", (Think(5), Answer(1, start=0.0, finish=1.0))),)),
            "thread organizer, action 0: no recorded start and finish",
        ),
        (answer(1.0, cap=0), r"meta.cap must be a whole number from 1, got 0"),
        (answer(1.0, max_workers="four"), r"meta.max_workers must be a whole number from 1, got 'four'"),
    ],
)
def test_records_that_cannot_be_used(trace, message):
    with pytest.raises(ConfigError, match=f"there is no recorded query to compare with: .*{message}"):
        validate([trace], gpu=TENTH)
    found = validate([trace, answer(1.0)], gpu=TENTH)
    assert len(found.queries) == 1 and isinstance(found.refused[0], TraceError) and found.errors().max < 1e-9


def test_nothing_to_compare():
    with pytest.raises(ConfigError, match="the decode-step clock has no seconds to compare with"):
        validate([answer(1.0)], gpu=GPU())
    with pytest.raises(ConfigError, match="there is no recorded query to compare with"):
        validate([], gpu=TENTH)


# ---------------------------------------------------------------- the commands


@pytest.fixture
def files(tmp_path):
    traces = tmp_path / "runs.jsonl"
    lines = [encode(answer(1.1, kind="single", run=f"r{i}", spec="s", rep=i)) for i in range(2)]
    traces.write_bytes(b"\n".join([*lines, encode(bare()), b"{}"]) + b"\n")
    steps = tmp_path / "steps.csv"
    rows = [(n, n * c, 0, 0, 0.005 + 0.001 * n + 1e-6 * n * c) for n in (1, 2, 4, 8) for c in (50, 200, 900)]
    header = "decodes,decode_context,prefill_tokens,prefill_context,seconds,run\n"
    steps.write_text(header + "".join(f"{','.join(map(str, row))},r{i % 4}\n" for i, row in enumerate(rows)))
    return tmp_path


def forksim(capsys, *words):
    from simulator.cli import main

    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    captured = capsys.readouterr()
    return end.value.code, captured.out, captured.err


def test_calibrate_then_run_on_it(files, capsys):
    profile, plot = files / "out" / "desk.toml", files / "fit.png"
    words = ("calibrate", files / "steps.csv", "--law", "linear", "-o", profile, "--plot", plot, "--source", "a desk")
    code, out, err = forksim(capsys, *words)
    assert code == 0 and "a              0.005" in out and "12 engine steps of 4 runs" in out
    assert not err and out.splitlines()[-2:] == [f"wrote {profile}", f"wrote {plot}"]
    assert plot.read_bytes()[:4] == b"\x89PNG"
    code, out, _ = forksim(capsys, "run", "traces/asyncthink/countdown.txt", "--gpu", profile, "--json")
    assert code == 0 and json.loads(out.splitlines()[0])["unit"] == "seconds"


def test_calibrate_for_machines(files, capsys):
    code, out, err = forksim(capsys, "calibrate", files / "steps.csv", "--law", "linear", "--json")
    found = json.loads(out)
    assert code == 0 and not err and found["steps"] == 12 and found["runs"] == 4
    assert [p["name"] for p in found["parameters"]] == ["a", "b", "c"] and found["held_out_runs"]["mean"] < 1e-6


def test_calibrate_tells_bad_rows_and_goes_on(files, capsys):
    path = files / "steps.csv"
    path.write_text(path.read_text() + "1,1,0,0,-3,r0\n")
    code, out, err = forksim(capsys, "calibrate", path, "--law", "linear")
    assert code == 2 and "12 engine steps" in out
    assert err == f"forksim: {path}:14: seconds must be a number above 0, got '-3'\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("calibrate", "{}/steps.csv", "--law", "cubic"), "no law is called 'cubic'; accepted: linear, split, table"),
        (
            ("calibrate", "{}/steps.csv", "-o", "x.json"),
            "--out writes a profile, whose name ends in .toml; got 'x.json'",
        ),
        (("calibrate", "{}/steps.csv", "--kind", "guessed"), "--kind takes measured or fitted; got 'guessed'"),
        (("calibrate", "{}/steps.csv", "--law", "linear", "--folds", "1"), "folds must be a whole number from 2"),
        (("calibrate", "{}/absent.csv"), "cannot be read"),
        (("calibrate", "{}/steps.csv", "{}/runs.jsonl"), "steps and traces cannot be fitted together"),
        (("calibrate", "{}/steps.csv", "--where", "kind=x"), "of steps, --where knows run=PATTERN only"),
        (("calibrate", "{}/steps.csv", "--where", "run=x"), "no step matches --where"),
        (("validate", "{}/runs.jsonl"), "Missing option '--gpu'"),
        (("validate", "{}/runs.jsonl", "--gpu", "nothing"), "no GPU profile is called 'nothing'"),
        (("validate", "{}/absent.jsonl", "--gpu", "linear:0.01"), "absent.jsonl"),
        (("validate", "{}/runs.jsonl", "--gpu", "linear:0.01", "--where", "run"), "--where takes KEY=PATTERN"),
        (("validate", "{}/runs.jsonl", "--gpu", "linear:0.01", "-o", "x.gif"), "a picture is saved as"),
    ],
)
def test_commands_asked_wrongly(files, capsys, words, message):
    code, _, err = forksim(capsys, *(word.format(files) for word in words))
    assert code == 2 and message in err.splitlines()[-1] and "Traceback" not in err


GOLDEN = """\
 trace     kind   measured s   predicted s    error
 ──────────────────────────────────────────────────
 t1.1    single        1.100         1.000   -9.1 %
 t1.1    single        1.100         1.000   -9.1 %
 latency       n    mean     bias     p50     p90     p95     max   repeats differ by
 ────────────────────────────────────────────────────────────────────────────────────
 all queries   2   9.1 %   -9.1 %   9.1 %   9.1 %   9.1 %   9.1 %       0.0 % (0.0 %)
 time of all threads    measured s   predicted s     bias   mean error / latency
 ───────────────────────────────────────────────────────────────────────────────
 decode                      2.200         2.000   -9.1 %                  9.1 %
 prefill+decode              0.000         0.000        -                  0.0 %
 wait_join                   0.000         0.000        -                  0.0 %
 wait_batch+wait_pool        0.000         0.000        -                  0.0 %
""".splitlines()


def test_validate_prints(files, capsys):
    picture = files / "v.svg"
    code, out, err = forksim(capsys, "validate", files / "runs.jsonl", "--gpu", "linear:0.01", "-o", picture)
    assert code == 2  # two bad records; the good ones were compared
    printed = [line.rstrip() for line in out.splitlines() if line.strip()]
    assert printed[: len(GOLDEN)] == GOLDEN
    assert f"{files}/runs.jsonl:4: has nothing to parse" in err and "trace 'bad': no recorded answer" in err
    assert "<svg" in picture.read_text()


def test_validate_for_machines(files, capsys):
    words = ("--gpu", "linear:0.01", "--json", "--where", "run=r1")
    code, out, _ = forksim(capsys, "validate", files / "runs.jsonl", *words)
    *queries, last = map(json.loads, out.splitlines())
    assert code == 2 and [query["trace"] for query in queries] == ["t1.1"]  # the line that is no record was told
    assert queries[0]["error"] == pytest.approx(-1 / 11) and last["summary"]["latency"]["number"] == 1
    assert last["summary"]["runs"] is None and last["summary"]["repeats"] is None


def test_the_shipped_record_against_its_profiles(capsys):
    for model, profile in (("random", "cpu-random-250m-q8"), ("gemma", "cpu-gemma3-270m-q4")):
        words = ("traces/recorded/llamacpp.jsonl", "--gpu", profile, "--where", f"run={model}-*", "--json")
        code, out, err = forksim(capsys, "validate", *words)
        summary = json.loads(out.splitlines()[-1])["summary"]
        assert code == 0 and not err and summary["latency"]["number"] == {"random": 23, "gemma": 17}[model]
        assert summary["latency"]["mean"] < 0.07 and abs(summary["latency"]["bias"]) < 0.03
