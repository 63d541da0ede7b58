"""Synthetic traces: legal, seeded, of the stated distributions."""

import os
import subprocess
import sys
import tracemalloc
from itertools import islice, pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.errors import ConfigError
from simulator.graph.clock import check, decode_clock
from simulator.trace import ORGANIZER, Delay, Fork, Join, Return, ViolationKind
from simulator.trace.protocol import Protocol
from simulator.workload import (
    DISTRIBUTIONS,
    FAMILIES,
    PRESETS,
    Constant,
    Empirical,
    Geometric,
    LogNormal,
    Sizes,
    Uniform,
    distribution,
    gamma_arrivals,
    generate,
    nested,
    poisson_arrivals,
)

NAMES = [*FAMILIES, *PRESETS]
SEEDS = st.integers(0, 2**63 - 1)


def rng(seed=0):
    return np.random.default_rng(seed)


# Families


@pytest.mark.parametrize("family", NAMES)
@given(seed=SEEDS)
def test_every_trace_is_legal_in_its_own_pool(family, seed):
    trace = next(generate(family, 1, seed=seed))
    assert check(trace, Protocol(capacity=trace.meta["capacity"])) == ()
    assert check(trace, Protocol(capacity=trace.meta["capacity"], release="join")) == ()


@pytest.mark.parametrize("family", NAMES)
@given(seed=SEEDS)
def test_prompts_and_insertions_are_what_a_runtime_makes(family, seed):
    trace = next(generate(family, 1, seed=seed))
    threads = {thread.id: thread for thread in trace.threads}
    query = trace.organizer.prompt_tokens
    assert query > 0
    for thread in trace.threads[1:]:
        assert thread.shared_tokens == query
        assert thread.prompt_tokens >= query
    for thread, _, action in trace.actions():
        if isinstance(action, Join):
            prefix = "" if thread.id == ORGANIZER else f"{thread.id}."
            returned = threads[f"{prefix}{action.index}"].actions[-1]
            assert isinstance(returned, Return)
            # The closing tag takes the place of two Return tags.
            assert 0 < action.inserted_tokens < returned.tokens


@pytest.mark.parametrize("family", NAMES)
def test_a_trace_can_be_made_again_alone(family):
    series = list(generate(family, 5, seed=11))
    assert len({trace.id for trace in series}) == 5
    assert len(set(series[0].threads[0].actions)) > 1
    for trace in series:
        assert next(generate(family, 1, seed=trace.meta["seed"], start=trace.meta["index"])) == trace
    assert all(a.threads != b.threads for a, b in pairwise(series)) or "2k" in family
    assert [t.threads for t in generate(family, 5, seed=12)] != [t.threads for t in series]


def test_options_are_recorded_so_that_the_trace_can_be_made_again():
    options = {"workers": 2, "work": "lognormal:100:0.5:max=120", "unjoined": 0.5}
    trace = next(generate("random_organizer", 1, seed=3, start=9, **options))
    meta = trace.meta
    again = {key: value for key, value in meta.items() if key not in ("family", "capacity", "seed", "index")}
    assert again == options
    assert next(generate(meta["family"], 1, seed=meta["seed"], start=meta["index"], **again)) == trace


def test_generation_is_lazy():
    assert len(list(islice(generate("batch", 10**12), 3))) == 3


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_output_is_the_same_bytes_in_every_process(hash_seed):
    script = (
        "import sys, msgspec; from simulator.workload import FAMILIES, generate;"
        "sys.stdout.buffer.write(b''.join(msgspec.json.encode(t) for f in FAMILIES for t in generate(f, 3, seed=5)))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True)
    assert done.stdout == b"".join(msgspec.json.encode(t) for f in FAMILIES for t in generate(f, 3, seed=5))


def lives(trace):
    """The largest number of workers forked and not yet joined by the organizer."""
    live = peak = 0
    for action in trace.organizer.actions:
        live += isinstance(action, Fork) - isinstance(action, Join)
        peak = max(peak, live)
    return peak


@given(seed=SEEDS, workers=st.integers(1, 5), forks=st.integers(1, 12))
def test_interleaved_staggers_its_workers(seed, workers, forks):
    trace = next(generate("interleaved", 1, seed=seed, workers=workers, forks=forks))
    assert len(trace.threads) == forks + 1
    assert lives(trace) == min(workers, forks)
    starts = [decode_clock(trace).intervals[str(i)][0] for i in range(1, forks + 1)]
    assert starts == sorted(set(starts))


@given(seed=SEEDS, workers=st.integers(1, 5), rounds=st.integers(1, 5))
def test_batch_forks_all_then_joins_all(seed, workers, rounds):
    trace = next(generate("batch", 1, seed=seed, workers=workers, rounds=rounds))
    kinds = "".join(type(action).__name__[0] for action in trace.organizer.actions)
    assert kinds == "T" + ("F" * workers + "T" + "J" * workers + "T") * rounds + "A"


@given(seed=SEEDS, workers=st.integers(1, 4))
def test_random_organizer_may_delay_and_leave_workers(seed, workers):
    options = {"workers": workers, "actions": 40, "unjoined": 1.0, "delay": 0.3}
    trace = next(generate("random_organizer", 1, seed=seed, **options))
    joins = sum(isinstance(action, Join) for action in trace.organizer.actions)
    found = check(trace, Protocol(capacity=workers + 1))
    assert [v.kind for v in found] == [ViolationKind.UNJOINED_WORKER] * (len(trace.threads) - 1 - joins)
    assert lives(trace) <= workers


def test_random_organizer_uses_every_action():
    traces = list(generate("random_organizer", 200, delay=0.2))
    actions = [action for trace in traces for action in trace.organizer.actions]
    assert {type(action).__name__ for action in actions} == {"Think", "Fork", "Join", "Delay", "Answer"}
    assert np.mean([a.seconds for a in actions if isinstance(a, Delay)]) == pytest.approx(1.0, rel=0.2)
    orders = {tuple(a.index for a in trace.organizer.actions if isinstance(a, Join)) for trace in traces}
    assert any(list(order) != sorted(order) for order in orders)


@given(seed=SEEDS, workers=st.integers(1, 3), depth=st.integers(1, 4))
def test_nested_makes_the_whole_tree(seed, workers, depth):
    trace = nested(rng(seed), workers=workers, depth=depth)
    assert len(trace.threads) == sum(workers**level for level in range(depth + 1))
    assert trace.meta["capacity"] == len(trace.threads)


def test_latency_of_parallel_is_its_longest_worker():
    for trace in generate("parallel", 20, workers=7):
        assert decode_clock(trace).latency == max(thread.tokens for thread in trace.threads[1:])


def test_presets_come_near_the_published_latencies():
    """arXiv 2510.26658, AIME-24: 2048.0 sequential, 2048.0 parallel, 1468.0 AsyncThink (c = 4, workers cut at 512)."""
    clocks = {name: [decode_clock(t, Protocol(capacity=4)) for t in generate(name, 400)] for name in PRESETS}
    assert {clock.latency for clock in clocks["sequential_2k"] + clocks["parallel_2k"]} == {2048}
    assert np.mean([clock.latency for clock in clocks["asyncthink_math"]]) == pytest.approx(1468, rel=0.02)
    assert all(clock.violations == () for name in PRESETS for clock in clocks[name])
    assert all(t.tokens <= 512 for trace in generate("asyncthink_math", 400) for t in trace.threads[1:])


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("batches", {}, "'batches' is no family; accepted: sequential, parallel"),
        ("batch", {"depth": 2}, "batch has no option 'depth'; accepted: workers, rounds, query"),
        ("batch", {"workers": 0}, "workers must be a whole number from 1 to 100000, got 0"),
        ("batch", {"workers": True}, "workers must be a whole number"),
        ("batch", {"workers": "many"}, "workers must be a number, got 'many'"),
        ("batch", {"workers": 10**5, "rounds": 2}, "rounds must be a whole number from 1 to 1, got 2"),
        ("batch", {"work": "normal:3"}, "'normal:3' names no distribution"),
        ("nested", {"workers": 10, "depth": 6}, "10 workers to depth 6 are 1111111 threads"),
        ("nested", {"depth": 40}, "depth must be a whole number from 1 to 32, got 40"),
        ("random_organizer", {"delay": float("nan")}, "delay must be a number from 0 to 1, got nan"),
        ("random_organizer", {"delay_seconds": "-1"}, "delay_seconds must be a number from 0 to 1e\\+06, got -1.0"),
        ("batch", {"seed": -1}, "seed must be a whole number from 0"),
        ("batch", {"seed": 0.5}, "seed must be a whole number from 0"),
    ],
)
def test_bad_options_are_refused_before_the_first_trace(family, options, message):
    with pytest.raises(ConfigError, match=message):
        generate(family, 1, **options)


def test_sizes_are_distributions():
    with pytest.raises(ConfigError, match="think must be a distribution, got 'constant:3'"):
        Sizes(think="constant:3")


def test_options_may_be_text():
    given_text = next(generate("batch", 1, workers="5", work="constant:7"))
    assert given_text.threads == next(generate("batch", 1, workers=5, work=Constant(7))).threads


# Distributions

EXAMPLES = [
    (Constant(0), "constant:0", 0),
    (Constant(128), "constant:128", 128),
    (Uniform(64, 512), "uniform:64:512", 288),
    (LogNormal(256, 0.6), "lognormal:256:0.6", 256 * np.exp(0.18)),
    (LogNormal(256.5, 0), "lognormal:256.5:0", 256),
    (Geometric(37.5), "geometric:37.5", 37.5),
    (Geometric(1), "geometric:1", 1),
    (Empirical(1, 2, 2, 1000), "empirical:1:2:2:1000", 251.25),
]


@pytest.mark.parametrize(("made", "text", "mean"), EXAMPLES, ids=str)
def test_distribution_text_and_mean(made, text, mean):
    assert str(made) == text
    assert distribution(text) == made
    sample = made.sample(rng(), 200_000)
    assert sample.dtype == np.int64
    assert sample.mean() == pytest.approx(mean, rel=0.02)
    assert len(made.sample(rng(), 0)) == 0


def test_every_distribution_has_an_example():
    assert {type(made) for made, _, _ in EXAMPLES} == set(DISTRIBUTIONS.values())


@pytest.mark.parametrize("text", ["lognormal:256:2:min=100:max=300", "geometric:200:min=100:max=300"])
def test_limits_hold_and_gather_what_is_beyond(text):
    made = distribution(text)
    assert str(made) == text
    sample = made.sample(rng(), 10_000)
    assert (sample.min(), sample.max()) == (100, 300)
    assert (sample == 300).mean() > 0.1


@given(
    st.one_of(
        st.builds(Constant, st.integers(0, 10**12)),
        st.tuples(st.integers(0, 10**12), st.integers(0, 10**12)).map(lambda ab: Uniform(*sorted(ab))),
        st.builds(LogNormal, st.floats(0, 1e12), st.floats(0, 10), minimum=st.integers(0, 9), maximum=st.just(10**9)),
        st.builds(Geometric, st.floats(1, 1e12), minimum=st.integers(0, 9)),
        st.lists(st.integers(0, 10**12), min_size=1).map(lambda values: Empirical(*values)),
    ),
    SEEDS,
)
def test_text_round_trip_and_samples_are_token_counts(made, seed):
    assert distribution(str(made)) == made
    sample = made.sample(rng(seed), 20)
    assert ((sample >= 0) & (sample <= 10**12)).all()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "normal:3",
        "-3",
        "1.5",
        "constant",
        "constant:1:2",
        "constant:-1",
        "constant:1.5",
        "constant:inf",
        "constant:nan",
        "constant:1:max=3",
        "constant:99999999999999",
        "uniform:5:4",
        "uniform:5",
        "lognormal:256",
        "lognormal:nan:1",
        "lognormal:1:inf",
        "lognormal:1:-1",
        "lognormal:256:0.6:max=x",
        "lognormal:256:0.6:most=3",
        "lognormal:256:0.6:max=3:max=4",
        "lognormal:256:0.6:min=5:max=4",
        "geometric:0.5",
        "empirical",
        "empirical:1:x",
    ],
)
def test_bad_distribution_text_is_refused(text):
    with pytest.raises(ConfigError):
        distribution(text)


def test_sizes_are_all_used():
    """Each field of Sizes changes some family."""
    for field in Sizes.__dataclass_fields__:
        plain = next(generate("nested", 1)).threads, next(generate("sequential", 1)).threads
        changed = {field: Constant(7777)}
        assert (
            next(generate("nested", 1, **changed)).threads,
            next(generate("sequential", 1, **changed)).threads,
        ) != plain


# Arrivals


def test_poisson_arrivals():
    times = poisson_arrivals(100_000, 4.0, rng())
    gaps = np.diff(times, prepend=0)
    assert (gaps >= 0).all()
    assert gaps.mean() == pytest.approx(0.25, rel=0.02)
    assert gaps.std() / gaps.mean() == pytest.approx(1, rel=0.02)
    assert len(poisson_arrivals(0, 1.0, rng())) == 0


@pytest.mark.parametrize("variation", [0, 0.25, 3])
def test_gamma_arrivals(variation):
    gaps = np.diff(gamma_arrivals(200_000, 0.5, rng(), variation=variation), prepend=0)
    assert gaps.mean() == pytest.approx(2.0, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(variation, rel=0.03, abs=1e-9)


@pytest.mark.parametrize(
    "arguments", [(-1, 1.0), (1.5, 1.0), (3, 0.0), (3, -1.0), (3, float("nan")), (3, float("inf")), (3, "1")]
)
def test_bad_arrivals_are_refused(arguments):
    with pytest.raises(ConfigError):
        poisson_arrivals(*arguments, rng())


@pytest.mark.slow
def test_a_long_series_keeps_nothing():
    series = generate("batch", 10**9)
    peaks = []
    tracemalloc.start()
    try:
        for _ in range(3):
            tracemalloc.reset_peak()
            for trace in islice(series, 4000):
                assert trace.threads
            peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    assert max(peaks) < 2**20
    assert peaks[-1] < 1.1 * peaks[0]
