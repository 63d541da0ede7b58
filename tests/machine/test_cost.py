"""The laws of all cost models: k steps at once are k steps one by one; more work never takes less time."""

import importlib.util
import math
import pickle
import sys
import types
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import (
    GPU,
    Answer,
    ConfigError,
    Fork,
    Join,
    Return,
    Think,
    Thread,
    Trace,
    compile_trace,
    simulate,
)
from simulator.fidelity import LAWS
from simulator.machine.cost import (
    COSTS,
    AIConfigurator,
    ConstantRate,
    Datasheet,
    DecodeSteps,
    LinearBatch,
    MeasuredTable,
    ModelShape,
    Roofline,
    SplitTable,
    cost_from_text,
    is_monotone,
    unit_of,
    usage,
)
from simulator.machine.profiles import gpu_from_text, load_profile, parse_profile, profiles
from simulator.metrics import QueryView
from simulator.metrics.bounds import lower_bound
from simulator.study import Hardware

QWEN = ModelShape(layers=36, hidden=4096, heads=32, kv_heads=8, head_dim=128, intermediate=12288, vocab=151936)
MIXTURE = replace(QWEN, intermediate=768, experts=128, experts_per_token=8)
H100 = Datasheet(memory_bandwidth=3.35e12, flops=989e12, memory=80e9, link_bandwidth=450e9)
SLOW = replace(H100, flops=3e12)  # so slow that attention is bound by arithmetic before long
GRID = dict(
    sequences=(1, 8, 32, 128),
    contexts=(16, 100, 512, 2048),
    seconds=(
        (5.0e-3, 6e-3, 6.1e-3, 7e-3),
        (6.0e-3, 7e-3, 8.0e-3, 9e-3),
        (6.5e-3, 8e-3, 9.0e-3, 2e-2),
        (7.5e-3, 9e-3, 2.0e-2, 6e-2),
    ),
)
PROMPTS = dict(
    prefill_tokens=(16, 512, 2048), prefill_cached=(0, 4096), prefill_seconds=((7e-3, 8e-3), (1e-2, 2e-2), (4e-2, 7e-2))
)

MODELS = {
    "steps": DecodeSteps(),
    "rate": ConstantRate(50, overhead=1e-3),
    "linear": LinearBatch(6e-3, 1e-5, 5e-8, 2e-5, 1e-9, overhead=5e-4),
    "roofline": Roofline(QWEN, H100),
    "roofline corrected": Roofline(QWEN, H100, alpha=0.9, beta=0.6, overhead=1e-3),
    "roofline bound by arithmetic": Roofline(QWEN, SLOW),
    "roofline on 4": Roofline(QWEN, H100, tensor_parallel=4, allreduce_seconds=1e-5),
    "roofline of a mixture": Roofline(MIXTURE, H100),
    "roofline, more GPUs than KV heads": Roofline(QWEN, H100, tensor_parallel=16),
    "table": MeasuredTable(**GRID, extrapolate="linear"),
    "split": SplitTable(
        (1, 2, 8, 64), (5e-3, 9e-3, 2e-2, 0.1), b=1e-3, c=5e-8, q=1e-9, extrapolate="linear", overhead=5e-4
    ),
    "table with prompts": MeasuredTable(**GRID, **PROMPTS, extrapolate="linear", overhead=5e-4),
}
each_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)

batches = st.integers(1, 300)
each_context = st.integers(0, 5000)  # tokens that each sequence attends to
steps = st.integers(1, 300)


def one_by_one(model, n, context, k):
    return math.fsum(model.step_seconds(n, context + i * n) for i in range(k))


# ---------------------------------------------------------------- laws


@each_model
@given(n=batches, each=each_context, rest=st.integers(0, 200), k=steps)
def test_a_leap_is_its_steps(model, n, each, rest, k):
    context = n * each + rest % n
    assert model.decode_seconds(n, context, k) == pytest.approx(one_by_one(model, n, context, k), rel=1e-9)


@each_model
def test_a_long_leap_is_its_steps(model):
    """Across every line of the tables, and from one roof to the other."""
    for n, context in ((1, 0), (7, 33), (130, 999)):
        assert model.decode_seconds(n, context, 6000) == pytest.approx(one_by_one(model, n, context, 6000), rel=1e-9)


@each_model
@given(n=batches, each=each_context, k=steps)
def test_no_step_is_free_and_leaps_add_up(model, n, each, k):
    context = n * each
    whole, first = model.decode_seconds(n, context, k + 1), model.decode_seconds(n, context, k)
    assert 0 < first < whole < math.inf
    assert whole == pytest.approx(first + model.step_seconds(n, context + k * n), rel=1e-9)
    assert model.decode_seconds(n, context, 0) == 0


@each_model
@given(
    n=batches, each=each_context, more=st.integers(1, 3000), prompt=st.integers(1, 4000), cached=st.integers(0, 4000)
)
def test_more_work_takes_no_less_time(model, n, each, more, prompt, cached):
    def no_less(after, before):
        return after >= before * (1 - 1e-12)

    attended = prompt * cached + prompt * (prompt + 1) // 2
    step = model.step_seconds
    alone = step(n, n * each)
    assert no_less(step(n, n * each + more), alone)
    assert no_less(step(n + more, (n + more) * each), alone)
    assert no_less(step(n, n * each, prompt, attended), alone)
    assert no_less(step(n, n * each, prompt, attended), step(0, 0, prompt, attended))
    assert no_less(step(n, n * each, prompt, attended + more * prompt), step(n, n * each, prompt, attended))
    longer = attended + more * cached + sum(range(prompt + 1, prompt + more + 1))
    assert no_less(step(n, n * each, prompt + more, longer), step(n, n * each, prompt, attended))
    if model.prefill_is_free:
        assert step(n, n * each, prompt, attended) == alone
    assert step(0, 0, prompt, attended) > 0


@pytest.mark.parametrize("name", profiles())
def test_profiles_keep_the_law(name):
    gpu = load_profile(name)
    cost = gpu.cost
    for n, context, k in ((1, 1, 900), (3, 5000, 50), (64, 64 * 1000, 300), (256, 256 * 500, 40)):
        n = min(n, gpu.max_num_seqs)
        assert cost.decode_seconds(n, context, k) == pytest.approx(one_by_one(cost, n, context, k), rel=1e-9)


@each_model
def test_models_are_values(model):
    model.decode_seconds(3, 100, 7)
    again = pickle.loads(pickle.dumps(model))
    assert again == model and hash(again) == hash(model)
    assert again.decode_seconds(3, 100, 7) == model.decode_seconds(3, 100, 7)


# ---------------------------------------------------------------- nonsense is refused

NUMBERS = [-1.0, math.nan, math.inf, 1e30, "5", None, True]


@pytest.mark.parametrize("bad", NUMBERS, ids=repr)
@pytest.mark.parametrize(
    ("make", "field"),
    [
        (ConstantRate, "tokens_per_second"),
        (lambda **bad: ConstantRate(50, **bad), "overhead"),
        (LinearBatch, "a"),
        *((lambda **bad: LinearBatch(1e-3, **bad), field) for field in ("b", "c", "p", "q", "overhead")),
        *((lambda **bad: replace(H100, **bad), field) for field in ("memory_bandwidth", "flops", "memory")),
        (lambda **bad: replace(H100, **bad), "link_bandwidth"),
        *((lambda **bad: replace(QWEN, **bad), field) for field in ("layers", "hidden", "heads", "kv_heads", "vocab")),
        *((lambda **bad: replace(QWEN, **bad), field) for field in ("weight_bytes", "kv_bytes", "experts_per_token")),
        *((lambda **bad: Roofline(QWEN, H100, **bad), field) for field in ("alpha", "beta", "overhead")),
        (lambda **bad: Roofline(QWEN, H100, **bad), "tensor_parallel"),
        (lambda **bad: Roofline(QWEN, H100, **bad), "allreduce_seconds"),
        (lambda **bad: MeasuredTable(**GRID, **bad), "overhead"),
    ],
)
def test_numbers_that_make_no_sense(make, field, bad):
    if field == "tensor_parallel" and bad is None:
        bad = 0
    with pytest.raises(ConfigError, match=f"{field} must be") as raised:
        make(**{field: bad})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConstantRate(0), "must be above 0"),
        (lambda: LinearBatch(0), "a step must take time"),
        (lambda: replace(QWEN, kv_heads=5), "multiple of kv_heads"),
        (lambda: replace(QWEN, layers=0), "layers must be a whole number from 1"),
        (lambda: Roofline(QWEN, H100, alpha=0), "alpha must be a number from 0.001 to 1, got 0"),
        (lambda: Roofline(QWEN, H100, beta=1.5), "beta must be a number from 0.001 to 1, got 1.5"),
        (lambda: Roofline(QWEN, H100, tensor_parallel=3), "must divide the 32 heads"),
        (lambda: Roofline("qwen", H100), "model must be a ModelShape"),
        (lambda: Roofline(QWEN, "h100"), "gpu must be a Datasheet"),
        (lambda: MeasuredTable(**GRID, extrapolate="yes"), "extrapolate must be"),
        (lambda: MeasuredTable(**GRID | {"sequences": (1, 8)}), "must be 2 rows of 4"),
        (lambda: MeasuredTable(**GRID | {"sequences": (1, 8, 8, 9)}), "increasing"),
        (lambda: MeasuredTable(**GRID | {"sequences": (0, 8, 9, 10)}), "whole numbers from 1"),
        (lambda: MeasuredTable(**GRID | {"contexts": 5}), "contexts must be whole numbers"),
        (lambda: MeasuredTable(**GRID | {"seconds": 5}), "seconds must be rows"),
        (lambda: MeasuredTable((1,), (0, 1), ((1.0, 1.0),)), "two or more"),
        (lambda: MeasuredTable((1, 2), (0, 1), ((1.0, math.nan), (1.0, 1.0))), r"seconds at \(1, 1\).*nan"),
        (lambda: MeasuredTable((1, 2), (0, 1), ((1.0, 0.0), (1.0, 1.0))), r"must be above 0"),
        (lambda: MeasuredTable((1, 2), (0, 1), ((1.0, 1.0), (1.0,))), r"rows of \[2, 1\]"),
        (lambda: MeasuredTable(**GRID, prefill_tokens=(1, 2)), "prefill_cached must be two or more"),
        (lambda: MeasuredTable.from_rows([(1, 0, 1.0), (2, 0, 1.0), (1, 9, 1.0)]), "a hole: .*sequences=2, contexts=9"),
        (lambda: MeasuredTable.from_rows([(1, 0, 1.0), (1, 0, 1.0)]), "there twice"),
        (lambda: MeasuredTable((1, 2), (9, 10), ((1.0, 2.0), (2.0, 3.0)), extrapolate="linear"), "smallest step"),
        (lambda: MeasuredTable((1, 2), (0, 9), ((1.0, 2.0), (2.0, 1.0)), extrapolate="linear"), "shrink towards"),
        (lambda: AIConfigurator("", "h100_sxm"), "model must be a name"),
        (lambda: AIConfigurator("a", "b", tensor_parallel=0), "tensor_parallel must be"),
        (lambda: cost_from_text("magic:1"), "no cost model is called 'magic'"),
        (lambda: cost_from_text("linear:1,x"), "is not rate:"),
        (lambda: cost_from_text("linear:1,1,1,1,1,1,1"), "is not rate:"),
        (lambda: cost_from_text("aiconfigurator:one"), "is not rate:"),
    ],
)
def test_what_else_makes_no_sense(make, message):
    with pytest.raises(ConfigError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_what_the_command_line_names_is_made_from_numbers():
    named = [name for name in COSTS if usage(name)]
    assert {"rate", "linear"} <= set(named) and not {"split", "table", "roofline"} & set(named)
    assert [cost_from_text(f"{name}:0.5") for name in ("rate", "linear")] == [ConstantRate(0.5), LinearBatch(0.5)]


@dataclass(frozen=True)
class Twofold:
    """A stranger's model, as docs/extending.md has it."""

    monotone = True
    memory: float
    compute: float
    label: str = "mine"
    prefill_is_free = False

    def step_seconds(self, n, context, prefill_tokens=0, prefill_context=0):
        return max(self.memory, self.compute * (n + prefill_tokens))

    def decode_seconds(self, n, context, k):
        return k * self.step_seconds(n, context)


def test_a_model_that_is_listed_is_known_everywhere_at_once(monkeypatch):
    monkeypatch.setitem(COSTS, "twofold", Twofold)
    assert usage("twofold") == "twofold:MEMORY,COMPUTE[,LABEL]"
    assert gpu_from_text("twofold:8e-3,5e-3").cost == Twofold(8e-3, 5e-3)
    assert gpu_from_text("twofold:8e-3,5e-3,yours").cost.label == "yours"
    assert load_study_cluster("twofold:8e-3,5e-3").cost == Twofold(8e-3, 5e-3)
    text = 'provenance = {kind = "measured", source = "a desk", date = 2026-11-22}\n'
    assert parse_profile(text + 'cost = {type = "twofold", memory = 8e-3, compute = 5e-3}', "t").gpu.cost.memory == 8e-3
    for wrong in ("twofold:8e-3", "twofold:8e-3,x", "twofold:1,2,3,4", "twofold:nan,1"):
        with pytest.raises(ConfigError, match=r"is not rate:.* or twofold:MEMORY,COMPUTE\[,LABEL\]"):
            gpu_from_text(wrong)
    with pytest.raises(ConfigError, match=r"type must be one of rate, .*twofold; got 'threefold'"):
        parse_profile(text + 'cost = {type = "threefold"}', "t")
    with pytest.raises(ConfigError, match="split is made of more than a line can say: write a profile"):
        gpu_from_text("split:1,2")


def load_study_cluster(name):
    return Hardware(gpu=name).cluster("").replicas[0]


def test_what_says_that_it_is_monotone_has_a_lower_bound():
    organizer = Thread("organizer", (Think(5), Fork(1, 2), Join(1, 1), Answer(3)))
    graph = compile_trace(Trace("t", (organizer, Thread("1", (Return(20),)))))
    silent = type("Silent", (Twofold,), {"monotone": False})
    for model, known in ((Twofold, True), (silent, False)):
        timeline = simulate(graph, gpu=GPU(cost=model(8e-3, 5e-3)))
        bound = lower_bound(QueryView(timeline, 0))
        assert math.isnan(bound) != known
        assert not known or 0 < bound <= timeline.latency[0]


@each_model
def test_the_unit_and_what_is_monotone_are_the_model_s_own(model):
    assert unit_of(model) == ("steps" if isinstance(model, DecodeSteps) else "seconds")
    assert is_monotone(model) != isinstance(model, (MeasuredTable, SplitTable))


def test_every_listed_model_is_held_to_the_laws():
    assert {*COSTS.values()} <= {type(model) for model in MODELS.values()} | {AIConfigurator}
    assert set(LAWS) <= set(COSTS)


# ---------------------------------------------------------------- roofline


def test_a_roofline_by_hand():
    model = ModelShape(layers=2, hidden=8, heads=4, kv_heads=2, head_dim=2, intermediate=16, vocab=10)
    card = Datasheet(memory_bandwidth=1e6, flops=1e7, memory=1e6, link_bandwidth=1e6)
    weights = 2 * (8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16)
    assert model.parameters == weights + 2 * 80
    assert model.kv_bytes_per_token == 2 * 2 * 4 * 2
    step = Roofline(model, card).step_seconds
    read = 2 * (weights + 80) / 1e6
    assert step(1, 10) == pytest.approx(read + 32 * 11 / 1e6)
    assert step(100, 500) == pytest.approx((2 * weights * 100 + 2 * 80 * 100) / 1e7 + 32 * 600 / 1e6)
    assert step(0, 0, 300, 45150) == pytest.approx(2 * weights * 300 / 1e7 + 4 * 2 * 4 * 2 * 45150 / 1e7)
    assert Roofline(model, card, alpha=0.5).step_seconds(1, 10) == pytest.approx(2 * step(1, 10))
    on_two = Roofline(model, card, 2, overhead=1.0, allreduce_seconds=0.1).step_seconds(1, 10)
    assert on_two == pytest.approx(step(1, 10) / 2 + 2 * 2 * (1 * 8 * 2 / 1e6 + 0.1) + 1.0)


def test_experts_are_read_as_tokens_choose_them():
    dense = replace(MIXTURE, experts=1, experts_per_token=1)
    one, all_of_them = (Roofline(MIXTURE, H100).step_seconds(n, 0) for n in (1, 250))
    assert one == pytest.approx(Roofline(replace(dense, intermediate=8 * 768), H100).step_seconds(1, 0))
    assert all_of_them == pytest.approx(
        Roofline(replace(dense, intermediate=128 * 768), H100).step_seconds(250, 0), 1e-3
    )


# ---------------------------------------------------------------- tables


def test_a_table_is_exact_where_it_was_measured():
    table = MeasuredTable(**GRID, **PROMPTS, overhead=1e-3)
    for n, row in zip(GRID["sequences"], GRID["seconds"], strict=True):
        for each, seconds in zip(GRID["contexts"], row, strict=True):
            assert table.step_seconds(n, n * each) == pytest.approx(seconds + 1e-3)
    for m, row in zip(PROMPTS["prefill_tokens"], PROMPTS["prefill_seconds"], strict=True):
        for cached, seconds in zip(PROMPTS["prefill_cached"], row, strict=True):
            assert table.step_seconds(0, 0, m, m * cached + m * (m + 1) // 2) == pytest.approx(seconds + 1e-3)


@given(n=batches, each=each_context, k=steps)
def test_a_table_of_a_linear_law_is_that_law(n, each, k):
    law = LinearBatch(6e-3, 1e-5, 5e-8)
    axes = (2, 8, 100), (5, 60, 700)
    table = MeasuredTable.from_rows([(i, j, law.step_seconds(i, i * j)) for i in axes[0] for j in axes[1]])
    extended = replace(table, extrapolate="linear")
    assert extended.decode_seconds(n, n * each, k) == pytest.approx(law.decode_seconds(n, n * each, k))
    if 2 <= n <= 100 and each >= 5 and each + k - 1 <= 700:
        assert table.decode_seconds(n, n * each, k) == pytest.approx(law.decode_seconds(n, n * each, k))
    else:
        with pytest.raises(ConfigError, match=r"outside the \d+ to \d+ measured"):
            table.decode_seconds(n, n * each, k)


def test_a_table_refuses_what_was_not_measured():
    table = MeasuredTable(**GRID, **PROMPTS)
    for batch, message in [
        ((129, 129 * 100), "129 sequences are outside the 1 to 128 measured"),
        ((2, 30), "15 tokens of context each are outside the 16 to 2,048 measured"),
        ((2, 5000), "2,500 tokens of context each are outside"),
        ((0, 0, 15, 120), "15 prompt tokens are outside the 16 to 2,048 measured"),
        ((0, 0, 16, 16 * 5000), "tokens in the cache are outside the 0 to 4,096 measured"),
    ]:
        with pytest.raises(ConfigError, match=message):
            table.step_seconds(*batch)


# ---------------------------------------------------------------- the operator database


def test_without_the_package_one_is_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs aiconfigurator-core: pip install forksim\[aiconfigurator\]"):
        AIConfigurator("Qwen/Qwen3-8B", "h100_sxm")


@pytest.fixture
def database(monkeypatch):
    """Put an operator database in place that follows a linear law, and count how often it is asked."""
    asked = []

    class EngineHandle:
        @staticmethod
        def compile(model, system, backend, *, tp_size):
            if system != "card":
                raise KeyError(f"no such system:\n{system}")
            asked.append((model, backend, tp_size))
            return EngineHandle()

        def predict_decode_latency(self, n, context, _):
            return 6 + 0.01 * n + 5e-5 * n * context

        def predict_prefill_latency(self, n, isl, prefix):
            return 7 + 0.02 * (isl - prefix) + 1e-3 * prefix

    names = ("aiconfigurator_core", "aiconfigurator_core.sdk", "aiconfigurator_core.sdk.engine")
    for name in names:
        module = types.ModuleType(name)
        module.__spec__ = importlib.util.spec_from_loader(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules[names[-1]].EngineHandle = EngineHandle
    return asked


def test_the_database_is_asked_once(database):
    model = AIConfigurator("m", "card", "trtllm", 2, overhead=1e-3)
    assert not model.prefill_is_free and not database
    law = LinearBatch(7e-3, 1e-5, 5e-8)
    for n, context, k in ((1, 0, 10), (30, 30 * 700, 900), (512, 512 * 4000, 3)):
        assert model.decode_seconds(n, context, k) == pytest.approx(law.decode_seconds(n, context, k))
    assert model.step_seconds(0, 0, 100, 100 * 50 + 5050) == pytest.approx(8e-3 + 100 * 2e-5 + 50e-6)
    assert AIConfigurator("m", "card", "trtllm", 2, overhead=1e-3).table is model.table
    assert database == [("m", "trtllm", 2)]
    assert cost_from_text("aiconfigurator:m,card,trtllm,2") == AIConfigurator("m", "card", "trtllm", 2)
    assert cost_from_text("aiconfigurator:m,card") == AIConfigurator("m", "card")


def test_what_the_database_does_not_know(database):
    with pytest.raises(ConfigError, match="no step times for 'm' on 'cart' with 'vllm': 'no such system:") as raised:
        AIConfigurator("m", "cart").step_seconds(1, 1)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_the_real_database():
    pytest.importorskip("aiconfigurator_core", reason="needs the extra aiconfigurator")
    model = AIConfigurator("Qwen/Qwen3-8B", "h100_sxm")
    table = load_profile("h100-qwen3-8b-database").cost
    for n, context in ((1, 2048), (32, 32 * 2048), (128, 128 * 8192)):
        assert model.step_seconds(n, context) == pytest.approx(table.step_seconds(n, context), rel=1e-3)
    assert one_by_one(model, 7, 5000, 300) == pytest.approx(model.decode_seconds(7, 5000, 300), rel=1e-9)
    with pytest.raises(ConfigError, match="no step times for"):
        AIConfigurator("Qwen/Qwen3-8B", "no_such_card").step_seconds(1, 1)
