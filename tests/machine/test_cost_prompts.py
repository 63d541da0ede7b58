"""Steps with prompts: several at once, and beside sequences that decode."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import ConfigError
from simulator.machine.cost import AIConfigurator, LinearBatch, MeasuredTable
from tests.machine.test_cost import each_context, each_model


@each_model
@given(
    n=st.integers(0, 300),
    each=each_context,
    lengths=st.lists(st.integers(1, 330), min_size=1, max_size=6),
    cached=st.integers(0, 4000),
)
def test_several_prompts_take_no_longer_than_one_of_their_length(model, n, each, lengths, cached):
    """Each attends to its own tokens only; one that long would attend to more. And a prompt more is never a gain."""

    def seconds(tokens, attended):
        return model.step_seconds(n, n * each, tokens, attended)

    attended = [m * cached + m * (m + 1) // 2 for m in lengths]
    total = sum(lengths)
    assert seconds(total, sum(attended)) <= seconds(total, total * cached + total * (total + 1) // 2) * (1 + 1e-12)
    if len(lengths) > 1:
        fewer = seconds(total - lengths[-1], sum(attended[:-1]))
        assert seconds(total, sum(attended)) >= fewer * (1 - 1e-12)


LAW = LinearBatch(6e-3, 1e-5, 5e-8, p=1e-5, q=2e-8)
LAWFUL = MeasuredTable.from_rows(
    [(i, j, LAW.step_seconds(i, i * j)) for i in (1, 8, 100) for j in (0, 60, 800)],
    # Attention is quadratic in the length of a prompt, and a table is linear between its rows: so it has them all.
    [(m, c, LAW.step_seconds(0, 0, m, m * c + m * (m + 1) // 2)) for m in range(1, 702) for c in (0, 1000)],
)


@given(
    n=st.integers(0, 100),
    each=st.integers(0, 700),
    lengths=st.lists(st.integers(1, 150), min_size=1, max_size=4),
    cached=st.integers(0, 400),
)
def test_a_table_of_a_linear_law_is_that_law_in_steps_with_prompts(n, each, lengths, cached):
    """Of a law in which a token costs the same wherever it is from, as tokens in the same matrix products do."""
    attended = sum(m * cached + m * (m + 1) // 2 for m in lengths)
    expected = LAW.step_seconds(n, n * each, sum(lengths), attended)
    assert LAWFUL.step_seconds(n, n * each, sum(lengths), attended) == pytest.approx(expected, rel=1e-9)


def test_several_prompts_by_hand():
    table = MeasuredTable(
        *((1, 8), (0, 1000), ((5e-3, 5.1e-3), (5.2e-3, 6e-3))),
        prefill_tokens=(100, 200),
        prefill_cached=(0, 100),
        prefill_seconds=((1.0e-2, 1.1e-2), (2.0e-2, 2.4e-2)),
    )
    # Two prompts of 100 tokens attend to 50.5 each on average, one of 200 to 100.5: half a column less than alone.
    assert table.step_seconds(0, 0, 200, 2 * 5050) == pytest.approx(2.0e-2 - 0.5 * 0.4e-2)
    assert table.step_seconds(0, 0, 200, 200 * 201 // 2) == pytest.approx(2.0e-2)
    # Eight sequences of 500 tokens beside a prompt of 100: 108 tokens go through the matrix products, which attend to
    # 5050 in all, 7.7407 less each than alone; the attention of the eight is 0.4 ms beyond the 5.2 ms of a bare step.
    below = (109 / 2 - 5050 / 108) / 100
    prompt = 1.0e-2 + 0.08 * 1.0e-2 - (0.1e-2 + 0.08 * 0.3e-2) * below
    assert table.step_seconds(8, 8 * 500, 100, 5050) == pytest.approx(prompt + 0.4e-3)
    # The decoding sequences may lead beyond the grid, prompts may not.
    assert table.step_seconds(8, 0, 200, 200 * 201 // 2) > table.step_seconds(0, 0, 200, 200 * 201 // 2)
    with pytest.raises(ConfigError, match="201 prompt tokens are outside the 100 to 200 measured"):
        table.step_seconds(0, 0, 201, 201 * 101)


@pytest.mark.slow
def test_steps_with_prompts_against_the_real_database():
    """It has its own estimates of several prompts in a step, and of prompts beside decoding sequences."""
    package = pytest.importorskip("aiconfigurator_core.sdk.engine", reason="needs the extra aiconfigurator")
    for name, backend in (("Qwen/Qwen3-8B", "vllm"), ("meta-llama/Meta-Llama-3.1-8B", "trtllm")):
        model = AIConfigurator(name, "h100_sxm", backend)
        engine = package.EngineHandle.compile(name, "h100_sxm", backend, tp_size=1)
        several = []
        for prompt, count in ((64, 8), (200, 3), (512, 16), (700, 6), (1024, 8), (2048, 8)):
            found = model.step_seconds(0, 0, count * prompt, count * prompt * (prompt + 1) // 2)
            several.append(abs(1000 * found / engine.predict_prefill_latency(count, prompt, 0) - 1))
        assert sum(several) / len(several) < 0.015 and max(several) < 0.04
        mixed = []
        for n, prompt in ((7, 1024), (15, 2048), (31, 1024), (63, 4096), (127, 2048), (255, 1024)):
            found = model.step_seconds(n, n * (prompt + 128), prompt, prompt * (prompt + 1) // 2)
            mixed.append(abs(1000 * found / engine.mixed_step_latency(prompt, n, prompt, 256, 0) - 1))
        assert sum(mixed) / len(mixed) < 0.03 and max(mixed) < 0.08
