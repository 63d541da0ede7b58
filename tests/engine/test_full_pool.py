"""Every behaviour of a full pool, those that ship and those that a newcomer may write: oracle, laws, recording, CLI."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulator import Answer, ConfigError, Fork, Join, Protocol, Return, Think, Thread, Trace, compile_trace, simulate
from simulator.cli import main
from simulator.formats import native
from simulator.metrics import QueryView, measure
from simulator.metrics.bounds import lower_bound, upper_bound
from simulator.recording import Setup, record
from simulator.study import parse_study
from simulator.timeline import BLOCKED, INLINE
from simulator.trace.full_pool import WHEN_FULL, Admission, Behaviour, FullPool, admit
from tests.support.engine_scenarios import QUIET, agree, scenarios
from tests.support.fake_engine import StepEngine
from tests.support.strategies import gpus, graphs, protocols

START, QUEUE, BLOCK, INLINE_, DROP = Admission

NEWCOMERS = {
    "queue-two-then-inline": Behaviour(lambda pool: QUEUE if pool.waiting < 2 else INLINE_, {QUEUE, INLINE_}),
    "queue-one-then-block": Behaviour(lambda pool: QUEUE if pool.waiting < 1 else BLOCK, {QUEUE, BLOCK}),
    "allow-two-then-drop": Behaviour(lambda pool: START if pool.taken < pool.slots + 2 else DROP, {START, DROP}),
    "all-in-turn": Behaviour(lambda pool: (QUEUE, BLOCK, INLINE_, DROP, START)[pool.waiting % 5], set(Admission)),
}

each_behaviour = pytest.mark.parametrize("name", [*WHEN_FULL, *NEWCOMERS])


@pytest.fixture(autouse=True, scope="module")
def registered():
    with pytest.MonkeyPatch.context() as patch:
        for name, behaviour in NEWCOMERS.items():
            patch.setitem(WHEN_FULL, name, behaviour)
        yield


@each_behaviour
def test_two_programs_agree(name):
    @settings(max_examples=80, **QUIET)
    @given(st.sampled_from((1, 2, 2, 3)).flatmap(lambda c: scenarios(when_full=name, capacity=c)))
    def check(scenario):
        agree(scenario)

    check()


@pytest.mark.slow
@each_behaviour
def test_two_programs_agree_many(name):
    @settings(max_examples=1_000, **QUIET)
    @given(st.sampled_from((1, 2, 2, 3)).flatmap(lambda c: scenarios(when_full=name, capacity=c)))
    def check(scenario):
        agree(scenario)

    check()


@each_behaviour
def test_laws(name):
    """Slots are kept to, nothing is lost that is not dropped, and every moment of a latency has one reason."""
    may = WHEN_FULL[name].may
    rules = st.sampled_from((1, 2, 3)).flatmap(
        lambda c: protocols(when_full=name, capacity=c, release="return", charge_inserted=False)
    )

    @settings(max_examples=60, **QUIET)
    @given(graphs(nested=True, unjoined=True, min_tokens=1), rules, gpus())
    def check(graph, protocol, gpu):
        timeline = simulate(graph, gpu=gpu, protocol=protocol, on_deadlock="record")
        rows = list(timeline.stays())
        flags = {row.thread: row.flags for row in rows}
        assert (INLINE_ in may) or not any(each & INLINE for each in flags.values())
        assert (BLOCK in may) or not any(each & BLOCKED for each in flags.values())
        if START not in may:
            lives = {}
            for row in rows:
                if row.thread and not row.flags & INLINE:
                    granted, ended = lives.get(row.thread, (row.granted, row.finish))
                    lives[row.thread] = min(granted, row.granted), max(ended, row.finish)
            for granted, _ in lives.values():
                assert sum(begin <= granted < end for begin, end in lives.values()) <= protocol.capacity - 1
        assume(not timeline.deadlocks)
        if protocol.after_answer == "finish" and DROP not in may:
            assert timeline.column("tokens").sum() == graph.tokens
        measured = measure(timeline)
        shares = [value for key, value in measured.values.items() if key.startswith("bound_")]
        assert sum(shares) == pytest.approx(1) and min(shares) >= 0
        run = QueryView(timeline, 0)
        assert not lower_bound(run) > run.latency * (1 + 1e-9)  # NaN where there is none
        assert not upper_bound(run) < run.latency * (1 - 1e-9)

    check()


PAIR = (Thread("1", (Return(9),)), Thread("2", (Return(4),)), Thread("3", (Return(4),)), Thread("4", (Return(4),)))
FOUR = Trace(
    "four",
    (Thread("organizer", (*(Fork(i, 1) for i in (1, 2, 3, 4)), Think(2), *map(Join, (1, 2, 3, 4)), Answer(1))), *PAIR),
)


@each_behaviour
def test_a_recording_does_what_a_simulation_does(name):
    protocol = Protocol(capacity=2, when_full=name)
    traces = []
    record([FOUR], StepEngine(), traces.append, Setup(timeout=1e9, protocol=protocol))
    timeline = simulate(compile_trace(FOUR, protocol))
    assert traces[0].meta["latency"] == timeline.latency[0]
    assert traces[0].meta["overflows"] == timeline.overflows[0] > 0
    assert traces[0].thread("4").label == "inline" if name == "queue-two-then-inline" else True


@each_behaviour
def test_the_command_line_and_studies_know_it(name, tmp_path, capsys):
    path = tmp_path / "four.json"
    path.write_bytes(native.encode(FOUR))
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["run", str(path), "-c", "2", "--full-pool", name, "--json"])
    latency = simulate(compile_trace(FOUR, Protocol(capacity=2, when_full=name))).latency[0]
    assert f'"latency":{latency}' in capsys.readouterr().out
    study = parse_study(
        {"traces": {"a": {"files": [str(path)]}}, "queries": 1, "protocol": {"capacity": 2, "when_full": name}}
    )
    assert study.protocol.when_full == name


def test_what_is_not_in_the_registry_is_not_known():
    with pytest.raises(ConfigError, match=r"when_full must be one of queue, block, .*queue-two-then-inline"):
        Protocol(when_full="wait")
    with pytest.raises(ConfigError, match="when_full must be one of"):
        Protocol(when_full=["queue"])


def test_what_a_behaviour_may_not_say_is_refused(monkeypatch):
    monkeypatch.setitem(WHEN_FULL, "sly", Behaviour(lambda pool: DROP, {QUEUE, BLOCK}))
    with pytest.raises(ConfigError, match="when_full 'sly' may say BLOCK, QUEUE; it said 'DROP'"):
        admit("sly", FullPool(1, 1, 0))
    monkeypatch.setitem(WHEN_FULL, "odd", Behaviour(lambda pool: "queue", {QUEUE}))
    with pytest.raises(ConfigError, match="it said 'queue'"):
        simulate(compile_trace(FOUR, Protocol(capacity=1, when_full="odd")))
