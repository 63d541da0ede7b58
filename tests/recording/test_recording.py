"""Recording: the protocol, on an engine whose clock is the decode-step clock. The simulation is the oracle."""

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import (
    Answer,
    ConfigError,
    Delay,
    Fork,
    Join,
    Protocol,
    Return,
    Think,
    Thread,
    Trace,
    check,
    compile_trace,
    simulate,
)
from simulator.formats import native
from simulator.recording import Prompts, Question, Setup, record
from simulator.recording.engine import Generate
from simulator.recording.generation import Generation
from simulator.recording.tags import Scanner
from simulator.trace import MAX_NESTING, ORGANIZER, ViolationKind
from tests.support.fake_engine import StepEngine
from tests.support.strategies import any_traces, protocols, traces


def play(queries, engine=None, arrivals=None, **setup):
    found = []
    engine = engine or StepEngine()
    record(queries, engine, found.append, Setup(timeout=1e9, **setup), arrivals=arrivals)
    for trace in found:
        assert native.decode(native.encode(trace)) == trace
    return found


def ends(trace):
    """When each thread's last action was over."""
    return {thread.id: thread.actions[-1].finish for thread in trace.threads if thread.actions}


# ---------------------------------------------------------------- the simulation says the same


def playable(trace):
    """The engine takes whole steps, so a Delay takes whole seconds. And every thread ends with a token of its own.

    A thread that ends with a Fork ends before its Fork in the simulation, which reads ahead, and after it when it is
    recorded.
    Nor may a worker Fork in the instant in which it was forked, or anyone in that in which a Delay ends: who is first
    then is nobody's business.
    """
    threads = []
    for thread in trace.threads:
        actions, waited = [], False
        last = Answer if thread.id == ORGANIZER else Return
        for action in thread.actions:
            if isinstance(action, last):
                break
            if isinstance(action, Delay):
                action = Delay(float(math.ceil(action.seconds)))
            elif isinstance(action, Fork) and (thread.id != ORGANIZER or waited):
                action = Fork(action.index, max(action.tokens, 1))
            waited = isinstance(action, Delay) or (waited and not action.tokens)
            actions.append(action)
        threads.append(msgspec.structs.replace(thread, actions=(*actions, last(1))))
    return msgspec.structs.replace(trace, threads=tuple(threads))


some_protocols = protocols(charge_inserted=False, delay_steps_per_second=1.0)


@settings(max_examples=150)
@given(
    st.lists(st.one_of(traces(nested=True, delays=(1.0, 3.0), unjoined=True), any_traces()), min_size=1, max_size=3),
    some_protocols,
    st.sampled_from((None, None, 1, 2, 3)),
    st.data(),
)
def test_a_recorded_run_is_what_the_simulation_says(queries, protocol, limit, data):
    queries = [playable(trace) for trace in queries]
    times = sorted(data.draw(st.lists(st.integers(0, 30), min_size=len(queries), max_size=len(queries))))
    engine = StepEngine()
    found = play(queries, engine, [float(time) for time in times], protocol=protocol, max_workers=limit)
    assert len(found) == len(queries)
    graphs = [compile_trace(trace, protocol) for trace in queries]
    timeline = simulate(graphs, arrivals=times, on_deadlock="record", max_workers=limit)
    stuck = {deadlock.query for deadlock in timeline.deadlocks}
    by_number = {trace.meta["query"]: trace for trace in found}
    decoded = 0
    for number, trace in by_number.items():
        decoded += trace.tokens
        if number in stuck:
            assert trace.meta["ended"] == "deadlock"
            continue
        assert trace.meta["ended"] == "answer"
        assert trace.meta["latency"] == pytest.approx(timeline.latency[number])
        assert trace.meta.get("overflows", 0) == timeline.overflows[number]
        finish = {}
        for span in timeline.spans(number):
            name = graphs[number].threads[span.thread].id
            if span.tokens and trace.thread(name).label != "cancelled":
                finish[name] = max(finish.get(name, 0.0), span.finish)
        last = {
            thread.id: max(
                (a.finish for a in thread.actions if getattr(a, "tokens", 0) and a.finish is not None), default=None
            )
            for thread in trace.threads
            if thread.label != "cancelled"
        }
        assert {name: time for name, time in last.items() if time is not None} == finish
    assert decoded == sum(engine.steps)


def by_id(thread):
    return thread.id


@settings(max_examples=50)
@given(traces(nested=True, prompts=True, min_tokens=1))
def test_what_was_recorded_says_the_same_when_it_is_recorded_again(trace):
    [once] = play([trace])
    [again] = play([once])
    # Threads are written as they are forked, and of those forked at one instant the first is who was listed first.
    assert sorted(once.threads, key=by_id) == sorted(again.threads, key=by_id)
    assert not set(check(once)) - set(check(trace))
    asked = {
        thread.id: [msgspec.structs.replace(a, start=None, finish=None) for a in thread.actions]
        for thread in trace.threads
    }
    there = {
        thread.id: [msgspec.structs.replace(a, start=None, finish=None) for a in thread.actions]
        for thread in once.threads
    }
    if once.meta["latency"] == sum(a.tokens for a in trace.organizer.actions):  # nobody was cancelled
        assert there[ORGANIZER] == asked[ORGANIZER]


# ---------------------------------------------------------------- by hand

PAIR = (Thread("1", (Think(6), Return(2))), Thread("2", (Return(4),)))
TWO = Trace(
    "two",
    (Thread(ORGANIZER, (Think(3), Fork(1, 2), Fork(2, 1), Think(2), Join(1, 1, 5), Join(2), Answer(4)), 10), *PAIR),
)


def test_times_by_hand():
    """organizer 0-3 think, -5 fork 1, -6 fork 2, -8 think, -9 ask; worker 1 5-13; worker 2 6-10; answer 13-17."""
    [trace] = play([TWO])
    assert [(a.start, a.finish) for a in trace.organizer.actions] == [
        (0, 3), (3, 5), (5, 6), (6, 8), (8, 13), (13, 13), (13, 17),
    ]  # fmt: skip
    assert [(a.start, a.finish) for a in trace.threads[1].actions] == [(5, 11), (11, 13)]
    assert [(a.start, a.finish) for a in trace.threads[2].actions] == [(6, 10)]
    assert trace.organizer.prompt_tokens == 10 and trace.organizer.actions[4].inserted_tokens == 5
    assert trace.arrival == 0.0 and trace.meta["latency"] == 17.0 and trace.meta["ended"] == "answer"
    assert check(trace) == ()


@pytest.mark.parametrize(
    ("when_full", "latency", "workers", "overflows"),
    [("queue", 21, ["1", "2"], 1), ("block", 21, ["1", "2"], 1), ("inline", 17, ["1", "2"], 1),
     ("drop", 17, ["1"], 1), ("allow", 17, ["1", "2"], 1)],
)  # fmt: skip
def test_a_full_pool(when_full, latency, workers, overflows):
    """Worker 1 has the slot until 13: the second waits until then, runs within its parent, never, or at once."""
    [trace] = play([TWO], protocol=Protocol(capacity=2, when_full=when_full))
    assert trace.meta["latency"] == latency
    assert [thread.id for thread in trace.threads[1:]] == workers
    assert trace.meta["overflows"] == overflows
    inline = trace.thread("2")
    if when_full == "inline":
        assert inline.label == "inline" and (inline.actions[0].start, inline.actions[0].finish) == (6, 10)
        assert inline.prompt_tokens == inline.shared_tokens
        assert trace.organizer.actions[3].start == 10


def test_the_limit_of_workers_is_over_all_queries_and_first_come_first_served():
    """Query 0 forks at 5 and 6, query 1 (arriving at 1) at 6 and 7: with one place they run one after another."""
    found = play([TWO, TWO], arrivals=[0.0, 1.0], max_workers=1)
    times = {(trace.meta["query"], name): time for trace in found for name, time in ends(trace).items()}
    assert times[0, "1"] == 13 and times[0, "2"] == 17 and times[1, "1"] == 25 and times[1, "2"] == 29
    assert all(trace.meta["max_workers"] == 1 for trace in found)


def test_users_wait_for_each_other():
    found = play([TWO] * 4, users=2)
    assert [(trace.arrival, trace.meta["latency"]) for trace in found] == [(0, 17), (0, 17), (17, 17), (17, 17)]


def test_workers_are_cancelled_at_the_answer_or_finish():
    one = Trace("one", (Thread(ORGANIZER, (Fork(1, 1), Answer(2))), Thread("1", (Think(4), Return(6)))))
    [cut] = play([one])
    assert cut.thread("1").actions == (Think(2, start=1.0, finish=3.0),)
    assert cut.thread("1").label == "cancelled"
    assert {v.kind for v in check(cut)} == {ViolationKind.MISSING_RETURN, ViolationKind.UNJOINED_WORKER}
    [whole] = play([one], protocol=Protocol(after_answer="finish"))
    assert ends(whole)["1"] == 11 and whole.meta["latency"] == 3


def test_a_partial_fork_is_thinking_and_starts_nobody():
    slow = Trace("slow", (Thread(ORGANIZER, (Think(2), Fork(1, 5), Answer(1))), Thread("1", (Return(9),))))
    found = []
    record([slow], StepEngine(), found.append, Setup(timeout=4.0))
    [trace] = found
    assert trace.organizer.actions == (Think(2, start=0.0, finish=2.0), Think(2, start=2.0, finish=4.0))
    assert trace.meta["ended"] == "timeout" and trace.meta["error"] == "not over within 4 seconds"
    assert trace.meta["latency"] == 4.0


def test_a_failure_ends_its_query_and_no_other():
    engine = StepEngine(fails={(0, 1): (9.0, "HTTP 500: out of memory")})
    found = play([TWO, TWO], engine, arrivals=[0.0, 0.0])
    assert [trace.meta["ended"] for trace in found] == ["error", "answer"]
    broken = found[0]
    assert broken.meta["error"] == "thread 1: HTTP 500: out of memory"
    assert broken.thread("1").actions == (Think(3, start=5.0, finish=8.0),)
    assert broken.thread("2").actions == (Think(3, start=6.0, finish=9.0),)
    join = broken.organizer.actions[-1]
    assert join == Join(1, 1, start=8.0)  # asked for at 9, and never made
    assert found[1].meta["latency"] == 17


@pytest.mark.parametrize("second", range(17))
def test_an_interrupt_at_any_time_leaves_a_valid_trace_of_each_open_query(second):
    found = []
    with pytest.raises(KeyboardInterrupt):
        record([TWO, TWO, TWO], StepEngine(interrupt_at=second), found.append, Setup(), arrivals=[0.0, 2.0, 99.0])
    assert len(found) == 1 + (second >= 2)
    for trace in found:
        assert trace.meta["ended"] == "interrupted"
        assert native.decode(native.encode(trace)) == trace
        assert trace.tokens == sum(
            a.tokens for thread in trace.threads for a in thread.actions if a.finish is None or a.finish <= second
        )
        assert ViolationKind.MISSING_ANSWER in {violation.kind for violation in check(trace)}


def test_whatever_ends_a_run_is_raised_after_the_traces_are_out():
    class Broken(StepEngine):
        def poll(self, until):
            if self.time >= 3:
                raise ConfigError("the engine is gone")
            return super().poll(until)

    found = []
    with pytest.raises(ConfigError, match="gone"):
        record([TWO], Broken(), found.append)
    assert found[0].meta["error"] == "the engine is gone" and found[0].tokens == 3


def test_one_trace_that_cannot_be_written_does_not_take_the_others_along():
    found = []

    def emit(trace):
        if trace.meta["query"] == 0:
            raise ConfigError("no place for this one")
        found.append(trace)

    with pytest.raises(ConfigError, match="no place"):
        record([TWO, TWO, TWO], StepEngine(), emit, arrivals=[0.0, 1.0, 2.0])
    assert [trace.meta["query"] for trace in found] == [1, 2]


def test_an_early_end_is_recorded_as_it_was():
    class Short(StepEngine):
        def generate(self, key, asked):
            super().generate(key, Generate(min(asked.tokens, 2), True))

    [trace] = play([TWO], Short())
    assert [a.tokens for a in trace.organizer.actions] == [2, 0, 1, 2, 0, 0, 2]
    assert trace.meta["short_tokens"] == (5 - 2) + (3 - 2) + (4 - 2) + (8 - 2) + (4 - 2)


@pytest.mark.parametrize(
    ("arrivals", "message"),
    [([0.0], "2 queries need as many arrivals, got 1"), ([1.0, 0.0], "in order"), ([0.0, math.nan], "in order"),
     ([-1.0, 0.0], "in order")],
)  # fmt: skip
def test_arrivals_that_make_no_sense(arrivals, message):
    with pytest.raises(ConfigError, match=message):
        record([TWO, TWO], StepEngine(), print, arrivals=arrivals)


@pytest.mark.parametrize(
    "wrong", [{"users": 0}, {"max_workers": 0}, {"timeout": 0.0}, {"timeout": math.nan}, {"users": True}]
)
def test_setups_that_make_no_sense(wrong):
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} must be"):
        Setup(**wrong)


# ---------------------------------------------------------------- free: the model writes the tags

BOOK = {
    "Question": " Split. <FORK-1>odd half</FORK-1> Even: 6. <JOIN-1> so 9 <ANSWER>15</ANSWER>",
    "Sub-query": " 1+3+5 <RETURN>9</RETURN>",
}


def model(book):
    """Goes on with a context where its thread's part of the book does."""

    def says(context):
        for name, script in book.items():
            head = f"LAST {name}"
            if head in context:
                done = context[context.index(head) + len(head) :]
                text = "".join(part for part in split_inserted(done))
                return script[len(text) :]
        raise AssertionError(context)

    return says


def split_inserted(done):
    """The text that the model itself wrote: without what Joins inserted."""
    rest = done
    while "<JOIN-" in rest:
        at = rest.find(">", rest.index("<JOIN-")) + 1
        if not at:
            break  # it is asked which
        yield rest[:at]
        rest = rest[at:]
        close = rest.find("</JOIN-")
        rest = rest[rest.index(">", close) + 1 :] if close >= 0 else rest
    yield rest


PROMPTS = Prompts(organizer="{question}: LAST Question", worker="{question}: LAST Sub-query")


@pytest.mark.parametrize("pieces", [1, 2, 3, 5, 7, 11, 1000])
def test_free_thinking_forks_and_joins(pieces):
    """Whatever the size of the tokens, tags cut anywhere are found, and each character is somebody's."""
    engine = StepEngine(model(BOOK), pieces)
    [trace] = play([Question("q", "sum")], engine, prompts=PROMPTS)
    assert check(trace) == ()
    organizer = trace.organizer.actions
    kinds = [type(action).__name__ for action in organizer]
    assert kinds == ["Think", "Fork", "Think", "Join", "Think", "Answer"]
    assert [organizer[i].text for i in (0, 1, 5)] == [" Split. ", "odd half", "15"]
    assert organizer[3].text == "9" and organizer[3].inserted_tokens == 1
    assert [action.text for action in trace.thread("1").actions] == [" 1+3+5 ", "9"]
    assert trace.tokens == sum(engine.steps)
    assert trace.meta["mode"] == "free" and trace.token_source == "record"
    times = [time for action in organizer for time in (action.start, action.finish)]
    assert times == sorted(times)


def test_free_times_by_hand():
    """One character a second: the worker starts when </FORK-1> is out, and the organizer goes on at once."""
    [trace] = play([Question("q", "sum")], StepEngine(model(BOOK)), prompts=PROMPTS)
    fork, join = trace.organizer.actions[1], trace.organizer.actions[3]
    forked = len(" Split. <FORK-1>odd half</FORK-1>")
    assert fork.finish == forked == trace.thread("1").actions[0].start
    returned = forked + len(" 1+3+5 <RETURN>9</RETURN>")
    assert trace.thread("1").actions[-1].finish == returned
    assert join.finish == max(returned, forked + len(" Even: 6. <JOIN-1>"))


def test_free_budget_and_unclosed_tags():
    book = {"Question": "a <FORK-1>never closed and on and on and on"}
    [trace] = play(
        [Question("q", "sum")],
        StepEngine(model(book)),
        prompts=Prompts(organizer="{question}: LAST Question", organizer_tokens=20),
    )
    assert trace.organizer.actions == (Think(20, "a <FORK-1>never clos", 0.0, 20.0),)
    assert [v.kind for v in check(trace)] == [ViolationKind.UNCLOSED_TAG, ViolationKind.MISSING_ANSWER]
    assert trace.meta["ended"] == "max_tokens"


def test_free_thinking_without_an_answer_does_not_say_answer():
    endings = {"so it goes": "no_answer", "<ANSWER>9</ANSWER>": "answer", "so \\boxed{9}": "answer"}
    for text, ended in endings.items():
        [trace] = play([Question("q", "sum")], StepEngine(model({"Question": text})), prompts=PROMPTS)
        assert trace.meta["ended"] == ended


def test_a_model_that_never_stops_forking():
    """Every worker forks another one, down to where a trace can say it."""
    book = {"Question": "<FORK-1>a</FORK-1>", "Sub-query": "<FORK-1>a</FORK-1>"}
    [trace] = play([Question("q", "sum")], StepEngine(model(book)), prompts=PROMPTS)
    assert len(trace.threads) == 1 + 1
    [trace] = play(
        [Question("q", "sum")], StepEngine(model(book)), prompts=PROMPTS, protocol=Protocol(after_answer="finish")
    )
    assert len(trace.threads) == 1 + MAX_NESTING
    assert ViolationKind.FORK_WITHOUT_WORKER in {violation.kind for violation in check(trace)}
    [trace] = play(
        [Question("q", "sum")],
        StepEngine(model(book)),
        prompts=PROMPTS,
        protocol=Protocol(after_answer="finish", nested_forks=False),
    )
    assert len(trace.threads) == 2


def test_free_joins_of_nobody_and_boxed_answers():
    book = {"Question": "<JOIN-3> hm \\boxed{4}"}
    [trace] = play([Question("q", "sum")], StepEngine(model(book)), prompts=PROMPTS)
    assert [type(action).__name__ for action in trace.organizer.actions] == ["Join", "Think", "Answer"]
    assert trace.organizer.actions[2].text == "\\boxed{4}"
    assert [v.kind for v in check(trace)] == [ViolationKind.UNKNOWN_JOIN]


@pytest.mark.parametrize("second", range(0, 70, 3))
def test_free_thinking_can_be_interrupted_anywhere(second):
    found = []
    engine = StepEngine(model(BOOK), interrupt_at=second)
    with pytest.raises(KeyboardInterrupt):
        record([Question("q", "sum")], engine, found.append, Setup(prompts=PROMPTS))
    [trace] = found
    assert native.decode(native.encode(trace)) == trace
    assert trace.tokens == sum(engine.steps)


def test_inline_makes_no_sense_for_a_model():
    with pytest.raises(ConfigError, match="accepted are queue, block, drop, allow"):
        record([Question("q", "?")], StepEngine(), print, Setup(protocol=Protocol(when_full="inline")))
    with pytest.raises(ConfigError, match="not of both"):
        record([Question("q", "?"), TWO], StepEngine(), print)


@pytest.mark.parametrize("wrong", [{"organizer": "no place"}, {"worker": ""}, {"worker_tokens": 0}, {"stops": -1}])
def test_prompts_that_make_no_sense(wrong):
    with pytest.raises(ConfigError):
        Prompts(**wrong)


# ---------------------------------------------------------------- tags

TEXT = st.text(alphabet="<>/-FORKJINETUSWA12 é\N{GRINNING FACE}", max_size=30)
TAGS = st.sampled_from(
    ["<FORK-1>", "</FORK-1>", "<FORK-2>", "</FORK-2>", "<JOIN-1>", "<RETURN>", "</RETURN>", "<ANSWER>", "</ANSWER>"]
)


@settings(max_examples=150)
@given(st.lists(st.one_of(TEXT, TAGS), max_size=8).map("".join), st.data(), st.booleans())
def test_where_a_segment_ends_does_not_depend_on_how_it_is_cut(text, data, organizer):
    whole = Scanner(organizer=organizer)
    end = whole.feed(text)
    pieces = Scanner(organizer=organizer)
    at, found = 0, None
    while at < len(text) and found is None:
        size = data.draw(st.integers(1, 9))
        found = pieces.feed(text[at : at + size])
        at += size
    assert found == end and pieces.effect == whole.effect
    if end is None:
        assert pieces.opened == whole.opened and pieces.unclosed == whole.unclosed


def test_scanning_is_linear():
    scanner = Scanner(organizer=True)
    for _ in range(20_000):
        assert scanner.feed("<FORK-1 " * 4) is None
    assert len(scanner.text) == 640_000


# ---------------------------------------------------------------- generations


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.integers(0, 60))
def test_known_totals_are_dealt_out_whole(bursts, total):
    generation = Generation(Generate(9, True))
    for at, size in enumerate(bursts):
        generation.add(float(at), "x" * size, None)
    assert not generation.exact
    generation.tokens = total
    assert sum(generation.per_burst()) == total == len(generation.token_times())
    assert generation.token_times() == sorted(generation.token_times())
    assert generation.upto([0, sum(bursts)]) == [0, total]
