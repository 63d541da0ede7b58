"""Predictions of recorded llama.cpp runs from what was asked, and the page that tells of them."""

import importlib
import os
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
CORPUS = os.environ.get("FORKSIM_CORPUS")
needs_corpus = pytest.mark.skipif(CORPUS is None, reason="FORKSIM_CORPUS is not set")
needs_own = pytest.mark.skipif(
    not (ROOT / "traces" / "recorded" / "own-random.jsonl").exists(), reason="own recordings are not there"
)


def assert_on_the_page(tables):
    """Check that each row of these tables is on the page, which may have more rows in the same table."""
    page = (ROOT / "docs" / "validation.md").read_text(encoding="utf-8").splitlines()
    assert not {line for table in tables for line in table.splitlines()} - {*page}


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("fidelity_llamacpp")


@pytest.fixture(scope="module")
def found(benchmark):
    return {model: both for model, (*_, both) in benchmark.evaluate(CORPUS).items()}


@pytest.mark.slow
@pytest.mark.corpus
@needs_corpus
def test_latency_is_predicted(found):
    """Each model within what the page says; together 6.5 % for a query alone, 5.5 % for the last answer of several."""
    for model, single, last in (("random", 0.06, 0.06), ("gemma", 0.08, 0.04)):
        assert found[model].errors("single").mean < single and found[model].runs.mean < last
        assert abs(found[model].errors("multi").bias) < 0.02
        assert found[model].errors("multi").mean < found[model].repeats("multi").mean  # no further than repeats differ
    assert np.mean([both.errors("single").mean for both in found.values()]) <= 0.065
    assert np.mean([both.runs.mean for both in found.values()]) <= 0.055
    assert np.mean([both.errors_of_means("multi").mean for both in found.values()]) <= 0.055


@pytest.mark.slow
@pytest.mark.corpus
@needs_corpus
def test_the_page_has_the_rows_that_the_script_prints(benchmark, capsys):
    benchmark.main(CORPUS)
    tables = capsys.readouterr().out.strip().split("\n\n")
    assert len(tables) == 8
    assert_on_the_page(tables[:2])


@pytest.mark.corpus
@needs_corpus
def test_single_runs_take_the_recorded_steps(benchmark):
    """Batches are made up exactly as they were: a run of one query takes as many steps as were recorded."""
    from simulator import GPU, LinearBatch, compile_trace, simulate

    law = LinearBatch(a=0.01, b=0.01, p=0.004)
    checked = 0
    for record in benchmark.load(CORPUS, "random"):
        if record["spec"]["kind"] != "multi":
            gpu = GPU(cost=law, max_prefill_tokens=128)
            graphs = [compile_trace(trace) for trace in benchmark.traces("random", record)]
            timeline = simulate(graphs, gpu=gpu, max_workers=record["spec"]["cap"])
            assert timeline.steps == len(record["steps"])
            checked += 1
    assert checked == 32


@pytest.fixture(scope="module")
def own():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("fidelity_own")


@pytest.mark.slow
@needs_own
def test_our_own_runs_are_predicted(own, capsys):
    """Latency within 6.5 % and 5.5 %, the speed-up over the twin within 10 %; and the page says so."""
    for both in own.evaluate().values():
        assert both.errors("single").mean <= 0.065 and both.errors("multi").mean <= 0.055
        assert len(both.speedups()) == 7 and max(abs(each.error) for each in both.speedups()) <= 0.1
    own.main()
    tables = capsys.readouterr().out.strip().split("\n\n")
    assert len(tables) == 5
    assert_on_the_page(tables[:3])
