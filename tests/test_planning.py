"""Plans of studies: answers that queueing theory, or paper, knows."""

import math

import numpy as np
import pytest

from simulator.errors import ConfigError
from simulator.planning import Rules, Verdict, cheapest, compare, ladder, parse_objectives, plan
from simulator.planning.questions import backlog_growth
from simulator.planning.verdicts import BACKLOG
from simulator.protocol import Protocol
from simulator.study import Arrivals, Hardware, Processes, Source, Study, Window

BARE = {"tag": "constant:0", "answer": "constant:0", "query": "constant:0"}
SECOND = Source(generate="sequential", options={**BARE, "work": "constant:100"})  # at 100 tokens a second
RANDOM = Source(generate="sequential", options={**BARE, "work": "geometric:100"})


def one_server(source=RANDOM, **changes):
    return Study(
        **{
            "traces": {"a": source},
            "queries": 2000,
            "arrivals": Arrivals(kind="poisson", rate=0.5),
            "cluster": Hardware(gpu="rate:100", max_num_seqs=1),
            "window": Window(warmup=300.0),
            **changes,
        }
    )


def sojourn(rate):
    """Mean sojourn of M/G/1 with a geometric service of mean 100 steps of 10 ms: Pollaczek and Khinchine."""
    return 1 + rate * (2 - 0.01) / (2 * (1 - rate))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_highest_rate_of_one_server_is_that_of_theory(seed):
    """Below mean sojourn x = 4, theory carries mu - 1/x = 0.75 (0.751 in whole steps): within the answer's bracket."""
    limit = 4.0
    true = next(rate for rate in np.arange(0.74, 0.77, 1e-5) if sojourn(rate) >= limit)
    assert abs(true - 0.75) < 0.002
    found = plan(one_server(seed=seed), "highest", "arrivals.rate", ladder(0.2, 0.95, 0.05), parse_objectives(["mean < 4 s"]))
    assert found.value <= true < found.beyond
    assert found.value > 0.6 and found.beyond < 0.95
    for trial in found.trials:  # every interval, not only the answer's
        [sojourns, _] = trial.estimates
        assert sojourns.low < sojourn(trial.value) < sojourns.high or trial.value > 0.9
    assert found.monotone
