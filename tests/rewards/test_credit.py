"""Credit by thread: answers computed on paper, and laws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import (
    Answer,
    ConfigError,
    Fork,
    Join,
    Outcome,
    Protocol,
    Return,
    Think,
    Thread,
    Trace,
    decode_clock,
    make_reward,
    score,
)
from simulator.rewards import credit, token_weights, utilities, without_worker
from simulator.rewards.credit import MAX_THREADS
from tests.support.strategies import any_traces, protocols, traces

RIGHT = Outcome(correct=True)
NESTED = Trace(
    "t",
    (
        Thread("organizer", (Think(4), Fork(1, 1), Fork(2, 1), Join(1), Join(2), Answer(2))),
        Thread("1", (Fork(1, 1), Think(2), Join(1), Return(3))),
        Thread("1.1", (Return(10),)),
        Thread("2", (Return(9),)),
    ),
    RIGHT,
)
# organizer |4 F1 F2|...................|A2|     5: worker 1, 6: worker 2
# 1              |F1 2|........|R3|              6: worker 1.1, waits from 8 to 16, ends at 19
# 1.1               |---10----|                  6 to 16
# 2                 |---9----|                   6 to 15
# T = 21; the path: 5 of the organizer up to Fork 1, 1 of worker 1, 10 of 1.1, 3 of worker 1, 2 of the organizer


def test_shares_of_the_path_by_hand():
    assert decode_clock(NESTED).latency == 21
    shares = {name: share * 21 for name, share in credit(NESTED).items()}
    assert shares == pytest.approx({"organizer": 7, "1": 4, "1.1": 10, "2": 0})


def test_drag_by_hand():
    # without the organizer's steps: 1 + 10 + 3 = 14; without worker 1's: 1.1 runs from 5 to 15, as does 2 from 6;
    # without 1.1's: worker 1 from 5 takes 6, worker 2 ends at 15; without 2's nothing changes
    assert credit(NESTED, how="drag") == {"organizer": 21 - 14, "1": 21 - 17, "1.1": 21 - 17, "2": 0}


def test_without_by_hand():
    reward = make_reward("kimi_parl")  # 0.025 a worker up to 4, 0.1 for all finished, 1 for being right
    found = credit(NESTED, Protocol(capacity=4), how="without", reward=reward)
    assert found == pytest.approx({"organizer": 1.1, "1": 0.025, "1.1": 0.025, "2": 0.025})
    assert sum(found.values()) == pytest.approx(score(NESTED, Protocol(capacity=4), reward=reward).total)


def test_without_a_worker_all_that_is_its_is_gone():
    rest = without_worker(NESTED, "1")
    assert [thread.id for thread in rest.threads] == ["organizer", "2"]
    assert rest.organizer.actions == (Think(4), Fork(2, 1), Join(2), Answer(2))
    inner = without_worker(NESTED, "1.1")
    assert [thread.id for thread in inner.threads] == ["organizer", "1", "2"]
    assert inner.threads[1].actions == (Think(2), Return(3))
    assert without_worker(NESTED, "7") == NESTED


@given(st.one_of(traces(nested=True), any_traces()), protocols(capacity=3))
def test_what_credit_adds_up_to(trace, protocol):
    clock = decode_clock(trace, protocol)
    path = credit(trace, protocol)
    assert path.keys() == clock.intervals.keys()
    assert sum(path.values()) == pytest.approx(1 if clock.latency else 0)
    drag = credit(trace, protocol, how="drag")
    assert 0 <= sum(drag.values()) <= clock.latency + 1e-9
    assert all(0 <= drag[name] <= path[name] * clock.latency + 1e-9 for name in path)
    without = credit(trace, protocol, how="without")
    assert sum(without.values()) == pytest.approx(score(trace, protocol).total)
    assert without.keys() == path.keys()
    weights = token_weights(trace, path)
    tokens = {thread.id: thread.tokens for thread in trace.threads if thread.id in path}
    paid = sum(path[name] for name in path if tokens[name])
    assert sum(weights[name] * tokens[name] for name in tokens) == pytest.approx(paid * sum(tokens.values()))


def test_what_is_refused():
    with pytest.raises(ConfigError, match="how"):
        credit(NESTED, how="luck")
    with pytest.raises(ConfigError, match="capacity"):
        credit(NESTED, how="without")
    n = MAX_THREADS
    forks, joins = [Fork(k, 1) for k in range(1, n + 1)], [Join(k) for k in range(1, n + 1)]
    workers = [Thread(str(k), (Return(3),)) for k in range(1, n + 1)]
    many = Trace("many", (Thread("organizer", (*forks, *joins, Answer(1))), *workers))
    assert sum(credit(many).values()) == pytest.approx(1)
    for how in ("drag", "without"):
        with pytest.raises(ConfigError, match="at most 1000 threads, got 1,001"):
            credit(many, Protocol(capacity=n + 2), how=how)


# ---------------------------------------------------------------- LAMaS


def test_only_the_critical_path_pays_for_latency():
    """Of the organizer 8 tokens; of its longest worker, with what is nested in it, 16: 24 tokens, 0.01 each."""
    reward = make_reward("lamas", token_weight=0.5, price=0.0)
    assert score(NESTED, reward=reward).total == pytest.approx(1 - 0.01 * 24)
    found = utilities(NESTED, reward=reward)
    assert found == pytest.approx({"organizer": 0.76, "1": 0.76, "1.1": 0.76, "2": 1.0})
    dear = make_reward("lamas", token_weight=0.0, price=1e6 / 33, cost_weight=2.0)  # 33 tokens cost a dollar
    assert utilities(NESTED, reward=dear) == pytest.approx(dict.fromkeys(found, 1 - 2.0))
    with pytest.raises(ConfigError, match="no term of the reward is called 'critical_tokens'"):
        utilities(NESTED, reward="kimi_parl")


@given(
    layers=st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=4), min_size=1, max_size=4),
    correct=st.booleans(),
)
def test_layers_as_in_its_code(layers, correct):
    """Operators in layers, each waited for: of each layer the one with the most tokens pays, as LAMaS has it."""
    actions, workers, index = [], [], 0
    for layer in layers:
        names = range(index + 1, index + len(layer) + 1)
        actions += [*map(Fork, names), *map(Join, names)]
        workers += [Thread(str(name), (Return(tokens),)) for name, tokens in zip(names, layer, strict=True)]
        index += len(layer)
    trace = Trace("t", (Thread("organizer", tuple(actions)), *workers), Outcome(correct=correct))
    found = utilities(trace, reward="lamas")
    place = 0
    penalty = 1e-5 / 50 * sum(map(max, layers))
    for layer in layers:
        payers = 0
        for tokens in layer:
            place += 1
            pays = found[str(place)] < float(correct)
            payers += pays
            assert found[str(place)] == pytest.approx(float(correct) - penalty * pays, abs=1e-15)
            assert not pays or tokens == max(layer)
        assert payers == 1
