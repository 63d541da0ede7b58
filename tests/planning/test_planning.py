"""Plans of studies: answers that queueing theory, or paper, knows."""

import numpy as np
import pytest

from simulator.errors import ConfigError
from simulator.planning import Rules, Verdict, cheapest, compare, ladder, parse_objectives, plan
from simulator.planning.questions import backlog_growth
from simulator.planning.verdicts import BACKLOG
from simulator.planning.wording import sentences
from simulator.study import Arrivals, Hardware, Processes, Source, Study, Window
from simulator.trace.protocol import Protocol

BARE = {"tag": "constant:0", "answer": "constant:0", "query": "constant:0"}
SECOND = Source(generate="sequential", options={**BARE, "work": "constant:100"})  # at 100 tokens a second
RANDOM = Source(generate="sequential", options={**BARE, "work": "geometric:100"})


def one_server(source=RANDOM, **changes):
    study = {
        "traces": {"a": source},
        "queries": 2000,
        "arrivals": Arrivals(kind="poisson", rate=0.5),
        "cluster": Hardware(gpu="rate:100", max_num_seqs=1),
        "window": Window(warmup=300.0),
    }
    return Study(**{**study, **changes})


def sojourn(rate):
    """Mean sojourn of M/G/1 with a geometric service of mean 100 steps of 10 ms: Pollaczek and Khinchine."""
    return 1 + rate * (2 - 0.01) / (2 * (1 - rate))


def highest_rate(study, values, **options):
    """Search the highest rate of a mean sojourn below 4 s, and hold it against theory."""
    true = next(rate for rate in np.arange(0.74, 0.77, 1e-5) if sojourn(rate) >= 4)
    assert abs(true - (1 - 1 / 4)) < 0.002  # M/M/1: mu - 1 / x
    found = plan(study, "highest", "arrivals.rate", values, parse_objectives(["mean < 4 s"]), **options)
    assert found.value <= true < found.beyond
    assert found.monotone
    for trial in found.trials:
        assert trial.verdict is Verdict.UNDECIDED or (trial.verdict is Verdict.MEETS) == (trial.value < true)
        [measured, backlog] = trial.estimates
        if trial.value < 0.9:  # beyond, a run of this length has not come to its mean
            assert measured.low < sojourn(trial.value) < measured.high
        assert backlog.objective.metric == BACKLOG and backlog.met
    return found


def test_the_highest_rate_of_one_server_is_that_of_theory():
    found = highest_rate(one_server(queries=1000), (0.3, 0.5, 0.6, 0.7, 0.8, 0.9), rules=Rules(replications=16))
    assert found.value >= 0.5 and found.beyond <= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_the_highest_rate_is_that_of_theory_whatever_the_seed(seed):
    found = highest_rate(one_server(seed=seed), ladder(0.2, 0.95, 0.05))
    assert found.value >= 0.67 and found.beyond <= 0.83


def test_servers_of_fixed_work_at_fixed_intervals_are_counted_on_paper():
    """A query takes a second and one comes every 0.4 s: 2.5 at a time, so three servers, and then nobody waits."""
    study = one_server(
        SECOND,
        queries=200,
        arrivals=Arrivals(kind="gamma", rate=2.5, variation=0),
        window=Window(warmup=5.0),
    )
    found = plan(study, "smallest", "cluster.replicas", range(1, 9), parse_objectives(["p99 <= 1.000001 s"]))
    assert (found.value, found.beyond) == (3, 2)
    assert found.trial(2).verdict is found.trial(1).verdict is Verdict.UNSTABLE
    assert abs(found.trial(2).mean(BACKLOG) - (1 - 2 / 2.5)) < 0.02
    assert abs(found.trial(1).mean(BACKLOG) - (1 - 1 / 2.5)) < 0.02
    assert all(trial.replications == 4 for trial in found.trials)  # all alike: the first look settles it
    [first, *more] = sentences(found, "cluster.replicas")
    assert first == (
        "cluster.replicas = 3 is the smallest of 1..8 that meets latency_p99 <= 1 s: 1.00 s (1.00 to 1.00,"
        " 4 replications); 2 is unstable."
    )
    assert any(line.startswith("Unstable: queries arrive faster") for line in more)


def test_a_closed_loop_carries_as_many_users_as_there_are_servers():
    study = one_server(SECOND, queries=60, arrivals=Arrivals(kind="closed", users=1), window=Window()).at(
        {"cluster.replicas": 3}
    )
    found = plan(study, "highest", "arrivals.users", range(1, 21), parse_objectives(["p95 <= 1.5 s"]))
    assert (found.value, found.beyond) == (3, 4)


def test_several_objectives_of_several_kinds():
    """20 at once, a second each: a makespan of 5 s takes 4 servers; at most 10 GPUs."""
    study = one_server(SECOND, queries=20, arrivals=Arrivals(), window=Window())
    objectives = parse_objectives(["makespan <= 5.001 s", "gpus <= 10", "utilization >= 90 %"])
    found = plan(study, "smallest", "cluster.replicas", range(1, 21), objectives)
    assert found.value == 4


def test_more_of_a_resource_can_be_worse_and_then_all_is_tried():
    """7 servers leave the last round of 20 queries nearly empty; 5 and 10 do not."""
    study = one_server(SECOND, queries=20, arrivals=Arrivals(), window=Window())
    found = plan(study, "smallest", "cluster.replicas", range(1, 11), parse_objectives(["utilization <= 96 %"]))
    assert not found.monotone
    assert found.value == 3 and 4 in found.exceptions and 10 in found.exceptions
    assert len(found.trials) == 10
    assert any(line.startswith("Not monotone: 4, 5, 10 do not") for line in sentences(found, "cluster.replicas"))


def test_a_percentile_of_few_queries_is_said_to_be_one():
    study = one_server(SECOND, queries=20, arrivals=Arrivals(), window=Window())
    [_, *more] = (
        sentences(plan(study, "smallest", "cluster.replicas", [1, 2], parse_objectives([text])), "cluster.replicas")
        for text in ("p50 < 100 s", "p99 < 100 s")
    )
    assert any(line.startswith("latency_p99 of 20 queries a run is about the largest") for line in more[0])


# ---------------------------------------------------------------- alternatives


def clusters(**changes):
    axis = [
        {"name": "slow", "gpu": "rate:100", "dollars_per_gpu_hour": 3.6},
        {"name": "fast", "gpu": "rate:300", "dollars_per_gpu_hour": 7.2},
    ]
    return one_server(SECOND, queries=24, arrivals=Arrivals(), window=Window(), axes={"cluster": axis}, **changes)


def test_the_cheapest_of_several_clusters():
    """24 s of work within 4.1 s: 6 slow servers, at 6 * 3.6 $/h for 4 s; or 2 fast ones, 2 * 7.2 $/h for 4 s."""
    found = compare(
        clusters(), "smallest", "cluster.replicas", range(1, 13), lambda each: parse_objectives(["makespan < 4.1 s"])
    )
    assert [(each.label, each.found.value) for each in found] == [("slow", 6), ("fast", 2)]
    assert all(each.found.rules.confidence == pytest.approx(0.975) for each in found)
    first, second = cheapest(found)
    assert (first.alternative.label, second.alternative.label) == ("fast", "slow")
    assert first.alternative.price == pytest.approx(1000 * 2 * 7.2 / 3600 * 4 / 24)
    assert second.mean == pytest.approx(1000 * (6 * 3.6 - 2 * 7.2) / 3600 * 4 / 24) == second.low == second.high


def test_none_of_several_clusters():
    found = compare(clusters(), "smallest", "cluster.replicas", (1, 2), lambda each: parse_objectives(["p95 < 1 ms"]))
    assert [each.found.value for each in found] == [None, None]
    assert cheapest(found) == []


def test_without_a_price_gpus_are_compared():
    study = one_server(
        SECOND, queries=24, arrivals=Arrivals(), window=Window(), axes={"cluster.gpu": ["rate:100", "rate:300"]}
    )
    found = compare(
        study, "smallest", "cluster.replicas", range(1, 13), lambda each: parse_objectives(["makespan < 4.1"])
    )
    assert [(gap.alternative.label, gap.alternative.gpus) for gap in cheapest(found)] == [
        ("rate:300", 2),
        ("rate:100", 6),
    ]


def test_gpus_are_compared_unless_all_have_a_price():
    """Dollars a query of one beside GPUs of the other would say nothing, whatever the price."""
    for price in (1e-6, 1e6):
        axis = [
            {"name": "priced", "gpu": "rate:100", "dollars_per_gpu_hour": price},
            {"name": "not", "gpu": "rate:300"},
        ]
        study = one_server(SECOND, queries=24, arrivals=Arrivals(), window=Window(), axes={"cluster": axis})
        found = compare(
            study, "smallest", "cluster.replicas", range(1, 13), lambda each: parse_objectives(["makespan < 4.1"])
        )
        first, second = cheapest(found)
        assert (first.alternative.label, first.alternative.gpus) == ("not", 2)
        assert (second.alternative.label, second.mean) == ("priced", 4)


# ---------------------------------------------------------------- what is refused, and what cannot run


def test_a_name_or_value_that_does_not_fit_is_refused_before_anything_runs():
    objectives = parse_objectives(["p95 < 10"])
    with pytest.raises(ConfigError, match="did you mean replicas"):
        plan(one_server(), "smallest", "cluster.replica", range(1, 4), objectives)
    with pytest.raises(ConfigError, match="replicas must be"):
        plan(one_server(), "smallest", "cluster.replicas", range(4), objectives)
    with pytest.raises(ConfigError, match="have no users"):
        plan(one_server(), "highest", "arrivals.users", range(1, 4), objectives)
    with pytest.raises(ConfigError, match="axes"):
        plan(clusters(), "smallest", "cluster.replicas", range(1, 4), objectives)
    with pytest.raises(ConfigError, match="cannot be an axis as well"):
        compare(clusters(), "smallest", "cluster", [{}], lambda each: objectives)
    for backlog in (0, 1, True, float("nan")):
        with pytest.raises(ConfigError, match="backlog must be a share"):
            plan(one_server(), "smallest", "cluster.replicas", range(1, 4), objectives, backlog=backlog)


def test_queries_that_are_never_answered_meet_nothing():
    """Workers that wait for their own workers: a pool of 2 stands still for ever, and what is answered looks fast."""
    nested = Source(generate="nested", options={"depth": 2, "work": "constant:10"})
    study = Study(traces={"a": nested}, queries=4, protocol=Protocol(capacity=2))
    found = plan(study, "smallest", "protocol.capacity", range(2, 9), parse_objectives(["p95 < 100000 steps"], "steps"))
    assert found.value > 2
    trial = found.trial(2)
    assert trial.verdict is Verdict.CANNOT_RUN and "never answered: they wait for each other" in trial.why


def test_memory_too_small_cannot_run():
    study = Study(traces={"a": SECOND}, queries=4, cluster=Hardware(gpu="rate:100", num_kv_blocks=1))
    found = plan(study, "smallest", "cluster.num_kv_blocks", range(1, 33), parse_objectives(["p95 < 100 s"]))
    assert found.value == 7  # 100 tokens and one of prefill
    assert found.trial(6).verdict is Verdict.CANNOT_RUN


def test_processes_find_the_same():
    study = one_server(queries=50, window=Window())
    asked = ("smallest", "cluster.replicas", range(1, 3), parse_objectives(["p95 < 3 s"]))
    alone, several = (
        plan(study, *asked, rules=Rules(replications=4), **options) for options in ({}, {"executor": Processes(jobs=2)})
    )
    assert repr([trial.rows for trial in alone.trials]) == repr([trial.rows for trial in several.trials])


# ---------------------------------------------------------------- backlog


def column(arrival, latency, counted=None):
    arrival = np.asarray(arrival, dtype=np.float64)
    return {
        "arrival": arrival,
        "answered": arrival + latency,
        "counted": np.ones(len(arrival)) if counted is None else counted,
    }


@pytest.mark.parametrize("overload", [1.25, 2, 4])
def test_the_backlog_of_an_overload_is_what_is_left_over(overload):
    arrival = np.arange(2000) / overload
    growth = backlog_growth(column(arrival, np.arange(2000) + 1 - arrival))
    assert growth == pytest.approx(1 - 1 / overload, abs=0.002)


def test_a_steady_load_has_no_backlog_however_slow_it_is():
    assert backlog_growth(column(np.arange(1000.0), 300.0, np.arange(1000) >= 300)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("arrivals", [[], [3.0], [2.0, 2.0, 2.0]])
def test_too_little_to_see_a_backlog(arrivals):
    assert backlog_growth(column(arrivals, 1.0)) == 0
