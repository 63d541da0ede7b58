"""Recording from an OpenAI-compatible server: a fake one, in every way that one can be good or bad."""

import threading
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import Answer, ConfigError, Fork, Join, Return, Think, Thread, Trace, check
from simulator.formats import native
from simulator.recording import Question, Setup, record
from simulator.recording.filler import Filler
from simulator.recording.sse import MAX_EVENT, BadStream, Events, chunk
from simulator.trace import ORGANIZER, ViolationKind
from tests.recording.test_recording import BOOK, PROMPTS, TWO, model
from tests.support.fake_server import FakeServer

pytest.importorskip("httpx", reason="needs forksim[record]")

from simulator.recording.answers import most_bytes
from simulator.recording.server import ServerEngine


def play(queries, fake, arrivals=None, engine=None, **setup):
    found = []
    one = ServerEngine(fake.url, **(engine or {}))
    try:
        record(queries, one, found.append, Setup(**({"timeout": 30.0} | setup)), arrivals=arrivals)
    finally:
        one.shut()
    for trace in found:
        assert native.decode(native.encode(trace)) == trace
    return found


def counts(trace):
    return {thread.id: [getattr(action, "tokens", 0) for action in thread.actions] for thread in trace.threads}


# ---------------------------------------------------------------- scripted


@pytest.mark.parametrize(("chat", "usage"), [(False, False), (False, True), (True, True)])
def test_counts_are_as_asked_for(chat, usage):
    with FakeServer(usage=usage) as fake:
        found = play([TWO, TWO], fake, arrivals=[0.0, 0.0], engine={"chat": chat})
    for trace in found:
        assert counts(trace) == counts(TWO)
        assert trace.meta["ended"] == "answer" and "error" not in trace.meta
        assert check(trace) == ()
        assert trace.meta["model"] == "fake-model"
        assert ("prompt_counts" in trace.meta) == (not usage)
        assert trace.token_source == "record"
        assert trace.organizer.prompt_tokens == 10
        assert trace.organizer.actions[4].inserted_tokens == 5
        for thread in trace.threads:
            times = [time for action in thread.actions for time in (action.start, action.finish)]
            assert times == sorted(times)
    assert len(fake.requests) == 2 * 6  # the organizer's four stretches and one of each worker
    for request in fake.requests:
        assert request["max_tokens"] == request["min_tokens"] and request["ignore_eos"] is True
        assert request["stream_options"] == {"include_usage": True}
    if chat:
        roles = [[message["role"] for message in request["messages"]] for request in fake.requests]
        assert ["user"] in roles and ["user", "assistant"] in roles
        assert all(len(r) == 1 or q["continue_final_message"] for r, q in zip(roles, fake.requests, strict=True))


def test_a_thread_goes_on_from_what_it_said_and_a_worker_from_what_it_shares():
    shared = Trace(
        "shared",
        (
            Thread(ORGANIZER, (Think(3), Fork(1, 2), Join(1, 1, 4), Answer(2)), 10),
            Thread("1", (Return(5),), 10 + 5 + 3, 10 + 5),
        ),
    )
    with FakeServer() as fake:
        play([shared], fake)
    prompts = [request["prompt"] for request in fake.requests]
    forked = prompts[0] + "wörd" * 5
    assert len(prompts[0].split()) == 9  # and one that begins it
    by_tokens = {request["max_tokens"]: request["prompt"] for request in fake.requests[1:]}
    assert by_tokens[1] == forked  # the organizer asks for the Join
    assert by_tokens[5].startswith(forked) and len(by_tokens[5][len(forked) :].split()) == 3
    assert by_tokens[2].startswith(forked + "wörd") and len(by_tokens[2][len(forked) + 4 :].split()) == 4


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_the_network_may_cut_anywhere(size):
    """In the middle of tags, of JSON, of a character of two bytes, of line ends."""
    with FakeServer(slice=size) as fake:
        [trace] = play([TWO], fake)
    assert counts(trace) == counts(TWO)


def test_an_early_end_of_sequence_is_told():
    with FakeServer(ignores_eos=False) as fake:
        [trace] = play([TWO], fake)
    assert trace.meta["short_tokens"] == (5 - 3) + (4 - 3) + (8 - 3) + (4 - 3)
    assert counts(trace) == {ORGANIZER: [3, 0, 1, 2, 1, 0, 3], "1": [3, 0], "2": [3]}


def test_without_usage_an_early_end_is_counted_by_chunks():
    with FakeServer(ignores_eos=False, usage=False) as fake:
        [trace] = play([TWO], fake)
    assert trace.token_source == "chunks" and trace.meta["short_tokens"] == 9


def test_body_adds_and_takes_out_keys():
    with FakeServer() as fake:
        play([TWO], fake, engine={"body": {"ignore_eos": None, "logit_bias": {"2": -100}}, "model": "mine"})
    for request in fake.requests:
        assert "ignore_eos" not in request and request["logit_bias"] == {"2": -100} and request["model"] == "mine"


# ---------------------------------------------------------------- failures

FAULTS = {
    "status": (500, "thread organizer: HTTP 500: "),
    "too many": (429, "thread organizer: HTTP 429: "),
    "garbage": (("garbage", 2), "the server sent what is no chunk of a completion"),
    "error": (("error", 2), "the server says: out of memory"),
    "disconnect": (("disconnect", 2), "the server closed the stream before its end"),
    "no finish": ("no finish", "the stream ended without a finish_reason"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_failure_ends_in_a_valid_partial_trace_and_the_others_go_on(name):
    """The second query's first request goes wrong; the third query is as if nothing had been."""
    fault, why = FAULTS[name]
    slow = [Trace(f"q{i}", (Thread(ORGANIZER, (Think(4 + i), Answer(2)), 5),)) for i in range(3)]
    with FakeServer(fault=lambda request, _: fault if request["max_tokens"] == 7 else None) as fake:
        found = play(slow, fake, arrivals=[0.0, 0.0, 0.0])
    ended = {trace.id: trace for trace in found}
    assert sorted(ended) == ["q0", "q1", "q2"]
    assert ended["q0"].meta["ended"] == ended["q2"].meta["ended"] == "answer"
    broken = ended["q1"]
    assert broken.meta["ended"] == "error" and why in broken.meta["error"]
    if fault != "no finish":  # then all was there but the word that it is
        assert {violation.kind for violation in check(broken)} == {ViolationKind.MISSING_ANSWER}
    if fault == ("disconnect", 2):
        assert counts(broken) == {ORGANIZER: [2]}


def test_done_may_be_missing_where_all_else_is_there():
    with FakeServer(fault=lambda *_: "no done") as fake:
        [trace] = play([TWO], fake)
    assert counts(trace) == counts(TWO) and trace.meta["ended"] == "answer"


def test_a_server_that_hangs_runs_into_the_timeout_and_its_connection_is_closed():
    with FakeServer(fault=lambda request, _: ("hang", 2) if request["max_tokens"] == 8 else None) as fake:
        [trace] = play([TWO], fake, timeout=0.5)
        assert fake.hanging.is_set()
    assert trace.meta["ended"] == "timeout" and trace.meta["error"] == "not over within 0.5 seconds"
    assert counts(trace)["1"] == [2] and trace.thread("1").label == "cancelled"
    assert trace.token_source == "chunks"
    assert trace.thread("2").actions[-1] == trace.thread("2").actions[0]


# ---------------------------------------------------------------- a server that does not end

EVENT = b'data: {"choices":[{"text":"a","index":0}]}\n\n'
"""One of many small ones."""


def without_end(data, first=b""):
    """What sends `data` over and over, until nobody listens."""

    def send(handler):
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        handler.wfile.write(first)
        while True:
            handler.wfile.write(data)

    return send


def silent(fake):
    """What answers only when all is over."""
    return lambda handler: fake.released.wait()


def test_a_stream_without_end_ends_with_its_timeout():
    """Small events come faster than they are handled, and a million tokens were asked for."""
    asked = Trace("much", (Thread(ORGANIZER, (Answer(10**6),), 3),))
    with FakeServer(raw={"/v1/completions": without_end(EVENT * 200)}) as fake:
        [trace] = play([asked], fake, timeout=0.5, engine={"model": "fake-model"})
    assert trace.meta["ended"] == "timeout"
    assert 0 < trace.tokens < 10**6


@pytest.mark.parametrize("data", [EVENT * 200, b": nothing\n" * 500, b"data: more\n" * 500, b"x" * 4096])
def test_a_stream_of_more_bytes_than_its_tokens_can_be_is_left(data):
    asked = Trace("few", (Thread(ORGANIZER, (Answer(9),), 3),))
    with FakeServer(raw={"/v1/completions": without_end(data)}) as fake:
        [trace] = play([asked], fake, engine={"model": "fake-model"})
        assert fake.gone.wait(30)
    assert trace.meta["ended"] == "error"
    assert (
        trace.meta["error"]
        == f"thread organizer: the server streams more than {most_bytes(9):,} bytes, and does not end"
    )


@pytest.mark.parametrize("path", ["/v1/models", "/tokenize"])
@pytest.mark.parametrize("first", [b"", b'{"data": [{"id": "'])
def test_an_answer_without_end_is_left(path, first):
    with FakeServer(raw={path: without_end(b" " * 65_536, first)}) as fake:
        with pytest.raises(ConfigError, match=f"{path}: an answer of more than 16,777,216 bytes"):
            play([TWO], fake)
        assert fake.gone.wait(30)


@pytest.mark.parametrize("path", ["/v1/models", "/tokenize"])
@pytest.mark.parametrize("how", ["silent", "drop by drop"])
def test_an_answer_has_one_time_for_all_of_it(monkeypatch, path, how):
    monkeypatch.setattr("simulator.recording.server.ASK_SECONDS", 0.3)
    with FakeServer() as fake:
        wait = threading.Event()

        def drops(handler):
            handler.send_response(200)
            handler.end_headers()
            while not wait.wait(0.02):  # each is in time
                handler.wfile.write(b" ")

        fake.raw[path] = silent(fake) if how == "silent" else drops
        with pytest.raises(ConfigError, match=rf"{path}: no whole answer within 0\.3 s"):
            play([TWO], fake)
        wait.set()


def test_an_answer_cancels_what_still_runs():
    lost = Trace("lost", (Thread(ORGANIZER, (Fork(1, 1), Answer(2)), 3), Thread("1", (Return(9),), 4)))
    with FakeServer(fault=lambda request, _: ("hang", 5) if request["max_tokens"] == 9 else None) as fake:
        [trace] = play([lost], fake)
    assert trace.meta["ended"] == "answer" and trace.thread("1").label == "cancelled"
    assert counts(trace)["1"] in ([], [5])  # whether its tokens were there before the answer


def test_a_server_that_is_not_there():
    with pytest.raises(ConfigError, match="cannot be reached"):
        ServerEngine("http://127.0.0.1:9")
    with FakeServer() as fake:
        url = fake.url
    engine = ServerEngine(url, "model")
    with pytest.raises(ConfigError, match="cannot be reached"):
        record([TWO], engine, print)
    found = []
    record([Question("q", "?")], engine, found.append, Setup(prompts=PROMPTS))
    engine.shut()
    engine.shut()  # twice is once
    assert found[0].meta["ended"] == "error" and "the connection failed" in found[0].meta["error"]


@pytest.mark.parametrize("url", ["ftp://x", "127.0.0.1:8000", "", "http://[", "http://\x00"])
def test_what_is_no_address(url):
    with pytest.raises(ConfigError):
        ServerEngine(url, "model").reset(False)


@pytest.mark.parametrize("chat", [False, True])
def test_a_server_that_counts_nothing_is_refused(chat):
    """A chat's prompt can only be counted by its usage: the template adds tokens."""
    with FakeServer(usage=False, tokenize=chat) as fake:
        engine = ServerEngine(fake.url, chat=chat)
        with pytest.raises(ConfigError, match="counts no tokens"):
            engine.reset(False)
        engine.shut()


def test_prompts_are_counted_by_usage_where_nothing_else_counts():
    with FakeServer(tokenize=False) as fake:
        [trace] = play([TWO], fake)
    assert trace.organizer.prompt_tokens == 10


def test_the_key_is_sent_and_never_told():
    key = "sk-very-secret"
    with FakeServer(fault=lambda *_: 401) as fake:
        [trace] = play([TWO], fake, engine={"api_key": key})
        assert {headers["Authorization"] for headers in fake.headers} == {f"Bearer {key}"}
    assert "HTTP 401" in trace.meta["error"] and "Bearer ***" in trace.meta["error"]
    assert key.encode() not in native.encode(trace)


# ---------------------------------------------------------------- free


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("obeys", [True, False])
@pytest.mark.parametrize(("size", "slice"), [(1, None), (3, 5), (11, 1), (1000, None)])
def test_a_model_writes_the_tags(tells, obeys, size, slice):
    """Servers end at stop strings or do not, and tell which it was or do not: the trace is the same."""
    with FakeServer(says=model(BOOK), size=size, slice=slice, tells_stop=tells, obeys_stop=obeys) as fake:
        [trace] = play([Question("q", "sum")], fake, prompts=PROMPTS)
    organizer = trace.organizer.actions
    assert check(trace) == ()
    assert [type(action).__name__ for action in organizer] == ["Think", "Fork", "Think", "Join", "Think", "Answer"]
    assert [organizer[i].text for i in (0, 1, 2, 3, 5)] == [" Split. ", "odd half", " Even: 6. ", "9", "15"]
    assert [action.text for action in trace.thread("1").actions] == [" 1+3+5 ", "9"]
    assert any("<JOIN-1>9</JOIN-1>" in request["prompt"] for request in fake.requests)
    if obeys:
        assert trace.token_source == "record" and "prompt_counts" not in trace.meta
        if size == 1:
            assert organizer[3].inserted_tokens == len("9</JOIN-1>")
            assert trace.organizer.prompt_tokens == 1 + len("sum: LAST Question")
            assert trace.thread("1").prompt_tokens == 1 + len("odd half: LAST Sub-query")
            assert organizer[1].tokens == len("<FORK-1>odd half</FORK-1>")
        assert "</FORK-1>" in fake.requests[0]["stop"] and "</ANSWER>" in fake.requests[0]["stop"]
        assert trace.meta.get("assumed_stops", 0) == (0 if tells else 1)


def test_a_server_that_does_not_say_which_join_is_asked_again():
    book = {
        "Question": "<FORK-1>a</FORK-1><FORK-2>b</FORK-2> or <JOIN-2> then <JOIN-1> so <ANSWER>c</ANSWER>",
        "Sub-query": " x <RETURN>r</RETURN>",
    }
    with FakeServer(says=model(book), tells_stop=False) as fake:
        [trace] = play([Question("q", "sum")], fake, prompts=PROMPTS)
    joins = [action.index for action in trace.organizer.actions if isinstance(action, Join)]
    assert joins == [2, 1] and check(trace) == ()
    assert [request["stop"] for request in fake.requests].count([">"]) == 1


def test_an_end_of_sequence_without_a_tag_is_no_tag():
    book = {"Question": " just thinking"}
    with FakeServer(says=model(book), tells_stop=False) as fake:
        [trace] = play([Question("q", "sum")], fake, prompts=PROMPTS)
    assert [action.text for action in trace.organizer.actions] == [" just thinking"]
    assert [violation.kind for violation in check(trace)] == [ViolationKind.MISSING_ANSWER]


# ---------------------------------------------------------------- pieces


@given(st.lists(st.binary(max_size=20).filter(lambda b: b"\n" not in b and b"\r" not in b), max_size=5), st.data())
def test_events_do_not_depend_on_how_they_are_cut(datas, data):
    end = data.draw(st.sampled_from([b"\n", b"\r\n"]))
    stream = b"".join(b"data: " + each + end + end for each in datas)
    events, found, at = Events(), [], 0
    while at < len(stream):
        size = data.draw(st.integers(1, 9))
        found += events.feed(stream[at : at + size])
        at += size
    assert found == datas


def test_an_event_without_end_is_refused():
    events = Events()
    with pytest.raises(BadStream, match="more than"):
        for _ in range(20):
            events.feed(b"x" * (MAX_EVENT // 16))


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(data):
    with suppress(BadStream):
        chunk(data)


@pytest.mark.parametrize("per_word", [1, 2, 0.5])
@given(st.integers(2, 500))
def test_filler_measures_out(per_word, tokens):
    filler = Filler(lambda text: 1 + int(per_word * len(text.split())), 0)
    text, count = filler.text(tokens, first=True)
    assert abs(1 + per_word * len(text.split()) - tokens) <= max(per_word, 1)
    assert abs(count - tokens) <= max(per_word, 1)


def test_filler_refuses_what_does_not_count():
    with pytest.raises(ConfigError, match="cannot be measured out"):
        Filler(lambda text: 7, 0)
