"""The library of rewards, worked by hand; terms, gates and reward files."""

import contextlib
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import (
    GPU,
    Answer,
    ConfigError,
    ConstantRate,
    Delay,
    Fork,
    Join,
    Outcome,
    Protocol,
    Return,
    Reward,
    Think,
    Thread,
    Trace,
    ViolationKind,
    load_reward,
    make_reward,
    score,
    score_batch,
)
from simulator.formats import parse
from simulator.rewards import FORMAT_ERROR, REWARDS, TERMS, Gate, Phase, Rollout, Term, parse_reward, simulated_seconds
from simulator.rewards.terms import sum_of_phases
from tests.support.strategies import SECONDS, any_traces, traces

RIGHT, WRONG = Outcome(correct=True), Outcome(correct=False)
RULES = Protocol(capacity=6)


def trace(*organizer, outcome=RIGHT, **workers):
    """A trace with workers w1=(...), w2=(...), w1_1=(...)."""
    threads = [
        Thread("organizer", organizer),
        *(Thread(name[1:].replace("_", "."), actions) for name, actions in workers.items()),
    ]
    return Trace("t", tuple(threads), outcome)


def judged(each, outcome):
    return Trace(each.id, each.threads, outcome, faults=each.faults)


def terms(each, reward, protocol=RULES):
    return score(each, protocol, reward=reward).terms


# Two blocks:  10 | 30, 20 | 5 | 12, 40, 8 | 15       organizer 30, workers 50 + 60, in all 140
BLOCKS = trace(
    Think(10),
    Fork(1),
    Fork(2),
    Join(1),
    Join(2),
    Think(5),
    Fork(3),
    Fork(4),
    Fork(5),
    Join(3),
    Join(4),
    Join(5),
    Answer(15),
    w1=(Return(30),),
    w2=(Return(20),),
    w3=(Return(12),),
    w4=(Return(40),),
    w5=(Return(8),),
)


def test_phases_of_the_two_blocks():
    rollout = Rollout(BLOCKS, RULES)
    assert rollout.phases == (Phase(10, ("1", "2")), Phase(5, ("3", "4", "5")), Phase(15, ()))
    assert (rollout.work, rollout.latency) == (140, 10 + 30 + 5 + 40 + 15)


@pytest.mark.parametrize(
    ("each", "phases"),
    [
        (trace(), ()),
        (trace(Think(3), Answer(2)), (Phase(5, ()),)),
        # the organizer thinks on; a Fork while another worker runs belongs to the same phase
        (
            trace(Think(1), Fork(1, 2), Think(4), Fork(2, 8), Join(1, 16), Join(2), Answer(32), w1=(), w2=()),
            (Phase(31, ("1", "2")), Phase(32, ())),
        ),
        (trace(Fork(1, 2), Answer(3), w1=(Return(9),)), (Phase(5, ("1",)),)),  # never joined
        (trace(Fork(1, 2), Fork(2, 2), Join(1), Answer(3), w2=(Return(9),)), (Phase(7, ("2",)),)),  # 1 has no worker
        (trace(Fork(1, 1), Join(1), Fork(1, 1), Answer(1), w1=(Return(2),)), (Phase(1, ("1",)), Phase(2, ()))),
        (trace(Join(4, 1), Answer(2), Think(9)), (Phase(12, ()),)),  # what follows the Answer is counted
        (trace(Delay(2.0), Answer(2)), (Phase(2, ()),)),
    ],
)
def test_phases(each, phases):
    assert Rollout(each, RULES).phases == phases


def test_phases_end_where_a_runtime_stops():
    late = trace(Join(4, 1), Answer(2), Think(9))
    assert Rollout(late, RULES.with_(after_end="ignore")).phases == (Phase(3, ()),)


def test_tokens_of_a_worker_are_those_of_all_below_it_and_steps_are_its_own_path():
    nested = trace(
        Fork(1, 1),
        Join(1),
        Answer(1),
        w1=(Think(5), Fork(1), Fork(2), Join(1), Join(2), Return(2)),
        w1_1=(Return(10),),
        w1_2=(Return(30),),
    )
    rollout = Rollout(nested, RULES)
    assert (rollout.tokens("1"), rollout.steps("1"), rollout.tokens("1.2"), rollout.work) == (47, 37, 30, 49)


# ---------------------------------------------------------------- ThreadWeaver


@pytest.mark.parametrize(
    ("options", "correct", "acceleration"),
    [
        # code: longest = 30 + (2*2 + 28) + (3*2 + 38) = 106 of 140; ratio 0.242857, clipped at 0.2
        ({}, 1, 0.5 * 0.2),
        ({"clip": 1.0}, 1, 0.5 * (1 - 106 / 140)),
        ({"clip": 1.0, "factor": 1.0}, 1, 1 - 106 / 140),
        # script: wrappers are part of the thread: 30 + 30 + 40 = 100
        ({"reading": "script", "clip": 1.0}, 1, 0.5 * (1 - 100 / 140)),
        ({"reading": "script"}, 1, 0.1),
        # readme: total / longest - 1 = 140 / 106 - 1 = 0.320755
        ({"reading": "readme"}, 1, 0.1),
        ({"reading": "readme", "clip": 1.0}, 1, 0.5 * (140 / 106 - 1)),
        ({"reading": "readme", "clip": 1.0, "wrappers": "thread"}, 1, 0.5 * 0.4),
        ({"wrapper_tokens": 0, "clip": 1.0}, 1, 0.5 * (1 - 100 / 140)),
        ({"wrapper_tokens": 10, "clip": 1.0}, 1, 0.5 * (1 - (30 + 20 + 20 + 28 + 30) / 140)),
        ({"right": 2.0}, 2, 0.1),
    ],
)
def test_threadweaver(options, correct, acceleration):
    got = terms(BLOCKS, make_reward("threadweaver", **options))
    assert got == pytest.approx({FORMAT_ERROR: 0, "correct": correct, "acceleration": acceleration})


@pytest.mark.parametrize(
    ("options", "total"),
    [({}, -1.0), ({"reading": "script"}, -1.0), ({"reading": "readme"}, 0.1), ({"wrong": 0.0}, 0.0)],
)
@pytest.mark.parametrize("outcome", [WRONG, None, Outcome(found=3, wanted=4)])
def test_threadweaver_of_a_wrong_answer(options, total, outcome):
    assert score(judged(BLOCKS, outcome), RULES, reward=make_reward("threadweaver", **options)).total == total


def test_threadweaver_on_its_own_text_with_every_tag_one_token():
    """Counted by hand as its code does: 5 sequential tokens and 4 wrappers, and threads of 3 and 1."""
    tags = ("<Parallel>", "</Parallel>", "<Thread>", "</Thread>", "</think>")

    def count(piece):
        for tag in tags:
            piece = piece.replace(tag, " . ")
        return len(piece.split())

    text = "so <Parallel><Thread>a b c</Thread><Thread>d</Thread></Parallel></think>9"
    each = parse(text, format="threadweaver", count=count, outcome=RIGHT)
    assert each.tokens == 5 + 4 + 4
    got = terms(each, make_reward("threadweaver", clip=1.0, factor=1.0))
    assert got["acceleration"] == pytest.approx(1 - (5 + 4 + 3) / 13)


def test_without_threads_there_is_no_acceleration():
    for reading in ("code", "script", "readme"):
        plain = trace(Think(5), Answer(3))
        assert score(plain, RULES, reward=make_reward("threadweaver", reading=reading)).total == 1.0
        assert score(trace(Answer(0)), RULES, reward=make_reward("threadweaver", reading=reading)).total == 1.0


# ---------------------------------------------------------------- Parallel-R1


@pytest.mark.parametrize(
    ("options", "outcome", "total"),
    [
        # traversed 30 + 30 + 40 = 100 of 140
        ({}, RIGHT, 1 + 0.4 * 40 / 140),
        ({}, WRONG, -1 + 0.1 * 40 / 140),
        ({}, None, -1 + 0.1 * 40 / 140),
        ({"path": "min"}, RIGHT, 1 + 0.4 * (140 - 30 - 20 - 8) / 140),
        ({"path": "mean"}, RIGHT, 1 + 0.4 * (140 - 30 - 25 - 20) / 140),
        ({"right": 2.0, "right_gain": 1.0}, RIGHT, 2 + 40 / 140),
        ({"wrong": 0.0, "wrong_gain": 0.0}, WRONG, 0.0),
    ],
)
def test_parallel_r1(options, outcome, total):
    assert score(judged(BLOCKS, outcome), RULES, reward=make_reward("parallel_r1", **options)).total == pytest.approx(
        total
    )


# ---------------------------------------------------------------- Kimi K2.5


def test_critical_steps_of_the_published_example():
    assert sum_of_phases([1, 1, 1], [[3, 2], [0], [4, 1, 2]]) == 10
    stages = trace(
        Fork(1, 1),
        Fork(2),
        Join(1),
        Join(2),
        Fork(3, 1),
        Join(3),
        Fork(4, 1),
        Fork(5),
        Fork(6),
        Join(4),
        Join(5),
        Join(6),
        Answer(),
        w1=(Return(3),),
        w2=(Return(2),),
        w3=(Return(),),
        w4=(Return(4),),
        w5=(Return(1),),
        w6=(Return(2),),
    )
    steps = Reward(terms={"steps": Term(TERMS["critical_steps"], {"weight": 1.0})})
    assert terms(stages, steps)["steps"] == 10


def test_kimi_parl():
    # 5 of 4 workers; all finished; right
    assert terms(BLOCKS, "kimi_parl") == {FORMAT_ERROR: 0, "parallel": 0.1, "finish": 0.1, "performance": 1.0}
    assert terms(BLOCKS, make_reward("kimi_parl", full=10))["parallel"] == pytest.approx(0.05)
    annealed = terms(BLOCKS, make_reward("kimi_parl", anneal=0.0, performance_weight=2.0))
    assert annealed == {FORMAT_ERROR: 0, "parallel": 0, "finish": 0, "performance": 2.0}
    # critical steps: 10 + 30 + 5 + 40 + 15 = 100
    assert terms(BLOCKS, make_reward("kimi_parl", budget=100))["performance"] == 1.0
    assert terms(BLOCKS, make_reward("kimi_parl", budget=99))["performance"] == 0.0
    assert score(trace(Answer(3), outcome=WRONG), RULES, reward="kimi_parl").total == 0


def test_finished_sub_queries():
    # 1 returns; 2 has no worker; 3 ends without a Return; 4 is still running at the Answer
    each = trace(
        *(Fork(i, 1) for i in (1, 2, 3, 4)),
        Join(1),
        Join(3),
        Answer(1),
        w1=(Return(2),),
        w3=(Think(2),),
        w4=(Return(99),),
    )
    finish = make_reward("kimi_parl", finish_weight=1.0)
    assert terms(each, finish)["finish"] == 1 / 4
    assert terms(each, finish, RULES.with_(after_answer="finish"))["finish"] == 2 / 4


# ---------------------------------------------------------------- wall clock


def test_wallclock_takes_simulated_minutes_of_right_answers():
    # 100 steps at 50 tokens a second are 2 s
    reward = make_reward("wallclock", gpu="rate:50", per_minute=3.0)
    assert terms(BLOCKS, reward) == pytest.approx({FORMAT_ERROR: 0, "accuracy": 1, "wallclock": -3 * 2 / 60})
    assert terms(judged(BLOCKS, WRONG), reward) == {FORMAT_ERROR: 0, "accuracy": 0, "wallclock": 0}
    always = make_reward("wallclock", gpu="rate:50", only_if_correct=False)
    assert terms(judged(BLOCKS, WRONG), always)["wallclock"] == pytest.approx(-2 / 60)


def test_seconds_under_load():
    """At a tenth of a second a sequence, four workers' steps cost what their number is; and copies share the GPU."""
    rollout = Rollout(trace(Fork(1), Fork(2), Join(1), Join(2), Answer(), w1=(Return(10),), w2=(Return(10),)), RULES)
    assert simulated_seconds(rollout, gpu="linear:0.01,0.1") == pytest.approx(10 * 0.21)
    assert simulated_seconds(rollout, gpu="linear:0.01,0.1", load=3) == pytest.approx(10 * 0.61)
    one_at_a_time = GPU(cost=ConstantRate(10), max_num_seqs=1)
    assert simulated_seconds(rollout, gpu=one_at_a_time) == pytest.approx(2.0)
    assert simulated_seconds(rollout, gpu=GPU(cost=ConstantRate(10)), load=1) == pytest.approx(1.0)


def test_the_gpu_decides_where_a_text_cannot():
    """The same tokens in workers are quicker, but not where the batch is 1."""
    alone = trace(Think(60), Answer(1))
    shared = trace(Fork(1, 1), Fork(2, 1), Join(1), Join(2), Answer(1), w1=(Return(30),), w2=(Return(30),))
    for gpu, better in (("rate:50", shared), (GPU(cost=ConstantRate(50), max_num_seqs=1), alone)):
        reward = make_reward("wallclock", gpu=gpu)
        assert max((alone, shared), key=lambda each: score(each, RULES, reward=reward).total) is better


# ---------------------------------------------------------------- leverage


@pytest.mark.parametrize(
    ("each", "share"),
    [
        (trace(Fork(1), Join(1), Fork(2), Join(2), Answer(1), w1=(Return(1),), w2=(Return(1),)), 1 / 2),
        (trace(Fork(1), Fork(2), Join(1), Join(2), Answer(1), w1=(Return(1),), w2=(Return(1),)), 0),
        (trace(Answer(1)), 0),
    ],
)
def test_leverage(each, share):
    assert terms(each, make_reward("leverage", weight=0.8)) == {FORMAT_ERROR: 0, "accuracy": 1, "leverage": 0.8 * share}


# ---------------------------------------------------------------- the laws of all of them


@pytest.mark.parametrize("name", REWARDS)
@given(
    each=st.one_of(traces(nested=True, delays=SECONDS, prompts=True), any_traces()),
    outcome=st.sampled_from((None, RIGHT, WRONG, Outcome(found=1, wanted=3))),
)
def test_every_reward_scores_everything_and_its_terms_add_up(name, each, outcome):
    reward = make_reward(name, **({"gpu": "rate:50"} if name == "wallclock" else {}))
    result = score(judged(each, outcome), Protocol(capacity=3), reward=reward)
    assert result.total == sum(result.terms.values())
    assert tuple(result.terms) == reward.names
    assert math.isfinite(result.total)
    assert score(judged(each, outcome), Protocol(capacity=3), reward=pickle.loads(pickle.dumps(reward))) == result


@given(each=traces(nested=True, prompts=True))
def test_acceleration_is_a_share_and_the_three_readings_keep_their_order(each):
    def ratio(**options):
        value = make_reward("threadweaver", factor=1.0, clip=None, **options)
        return score(judged(each, RIGHT), RULES, reward=value).terms["acceleration"]

    code, script, readme = (ratio(reading=reading) for reading in ("code", "script", "readme"))
    assert 0 <= code <= script < 1
    assert readme == pytest.approx(1 / (1 - code) - 1)


def linear(name):
    """Every term is proportional to its weights."""
    weights = {"weight", "right", "wrong", "per_minute"}
    return weights & set(Term(TERMS[name]).function.__kwdefaults__)


@pytest.mark.parametrize("name", TERMS)
@given(each=traces(nested=True), outcome=st.sampled_from((RIGHT, WRONG)))
def test_twice_the_weight_is_twice_the_term(name, each, outcome):
    fixed = {"gpu": "rate:50"} if name == "wallclock" else {}
    weights = {option: 0.75 for option in linear(name)}
    assert weights
    once, twice = (
        Term(TERMS[name], {**fixed, **{option: factor * value for option, value in weights.items()}})
        for factor in (1, 2)
    )
    rollout = Rollout(judged(each, outcome), RULES)
    assert twice(rollout) == 2 * once(rollout)


# ---------------------------------------------------------------- gates


def test_gate():
    broken = trace(Join(7), Answer(1))
    assert score(broken, RULES).terms == {FORMAT_ERROR: -1, "accuracy": 0, "concurrency": 0}
    assert score(broken, RULES.with_(format_error_reward=-3.0)).total == -3
    assert score(broken, RULES, reward=make_reward("asyncthink", format_error_reward=-5.0)).total == -5
    assert score(broken, RULES, reward=Reward(terms={}, gate=None)).terms == {FORMAT_ERROR: 0}
    strict = Reward(terms={}, gate=Gate(kinds=frozenset({"unjoined_worker"}), reward=-2.0))
    assert score(broken, RULES, reward=strict).total == 0
    assert score(trace(Fork(1), Answer(1), w1=(Return(1),)), RULES, reward=strict).total == -2
    assert strict.gate.kinds == {ViolationKind.UNJOINED_WORKER}


def test_constants_of_the_asyncthink_reward_go_before_the_protocol():
    own = make_reward("asyncthink", eta_weight=0.3, eta_threshold=0.2)
    assert score(trace(Answer(9)), Protocol(capacity=2), reward=own).terms["concurrency"] == 0.3
    assert score(trace(Answer(9)), Protocol(capacity=2, eta_weight=0.8)).terms["concurrency"] == 0.8 / 2


# ---------------------------------------------------------------- reward files


def test_a_file_says_what_python_says(tmp_path):
    path = tmp_path / "reward.toml"
    path.write_text(
        """
        [terms.accuracy]
        [terms.concurrency]
        weight = 0.3
        threshold = 0.5
        [terms.late]
        term = "leverage"
        weight = -1
        [gate]
        kinds = ["missing_answer", "pool_overflow"]
        reward = -2.0
        [protocol]
        capacity = 3
        format_errors = ["unjoined_worker"]
        """
    )
    built = Reward(
        terms={
            "accuracy": Term(TERMS["accuracy"]),
            "concurrency": Term(TERMS["concurrency"], {"weight": 0.3, "threshold": 0.5}),
            "late": Term(TERMS["leverage"], {"weight": -1}),
        },
        gate=Gate(kinds=frozenset({ViolationKind.MISSING_ANSWER, ViolationKind.POOL_OVERFLOW}), reward=-2.0),
        protocol=Protocol(capacity=3, format_errors=frozenset({ViolationKind.UNJOINED_WORKER})),
    )
    assert load_reward(path) == built
    assert score(BLOCKS, reward=str(path)) == score(BLOCKS, built.protocol, reward=built)


@pytest.mark.parametrize("name", REWARDS)
def test_every_reward_of_the_library_can_be_said_in_a_file(name):
    assert parse_reward(f'reward = "{name}"') == make_reward(name)


def test_terms_join_or_replace_those_of_the_library():
    text = 'reward = "parallel_r1"\n[options]\nwrong = 0\n[terms.efficiency]\nright = 1.0\n[terms.latency]\n'
    reward = parse_reward(text)
    assert reward.names == (FORMAT_ERROR, "correct", "efficiency", "latency")
    assert reward.terms["correct"] == Term(TERMS["correctness"], {"right": 1.0, "wrong": 0})
    assert reward.terms["efficiency"] == Term(TERMS["efficiency"], {"right": 1.0})
    assert reward.gate is None
    assert parse_reward("gate = true\n" + text).gate == Gate()
    assert parse_reward('gate = false\nreward = "asyncthink"').gate is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("reward = ", "reward f: not TOML: "),
        ("", "reward f: says neither a reward of the library (reward = ...) nor any [terms.NAME]"),
        ("rewrad = 1", "no key of a reward file is called 'rewrad'; did you mean reward? there are reward, options"),
        ('reward = "thread_weaver"', "no reward is called 'thread_weaver'; did you mean threadweaver? there are"),
        ("reward = 3", "no reward is called 3; there are"),
        ("[options]\nclip = 1.0", "[options] are those of a reward of the library"),
        ('reward = "threadweaver"\noptions = {klip = 1}', "no option of reward threadweaver is called 'klip'; did you"),
        (
            'reward = "threadweaver"\noptions = {clip = "a"}',
            "reward threadweaver: clip must be a finite number, or left",
        ),
        ('reward = "threadweaver"\noptions = {reading = "b"}', "reading must be one of code, readme, script, got 'b'"),
        ('reward = "threadweaver"\noptions = {wrapper_tokens = -1}', "wrapper_tokens must be a whole number from 0"),
        ('reward = "threadweaver"\noptions = {only_if_correct = 1}', "only_if_correct must be true or false"),
        (
            'reward = "asyncthink"\noptions = {eta_threshold = 2}',
            "eta_threshold must be a number above 0 and at most 1",
        ),
        ('reward = "kimi_parl"\noptions = {full = 0}', "full must be a number above 0, got 0"),
        ('reward = "wallclock"\noptions = {per_minute = -1}', "per_minute must be a number from 0, got -1"),
        ('reward = "wallclock"\noptions = {gpu = 1}', "gpu must be "),
        ("terms = 3", "terms must be a table, got 3"),
        ("[terms]\nleverage = 3", "leverage must be a table, got 3"),
        ("[terms.speed]", "no term is called 'speed'; "),
        ("[terms.leverage]\nweigth = 1", "no option of term leverage is called 'weigth'; did you mean weight?"),
        ("[terms.leverage]\nweight = nan", "term leverage: weight must be a finite number, got nan"),
        ("[terms.leverage]\nweight = true", "term leverage: weight must be a finite number, got True"),
        ('[terms."a b"]\nterm = "leverage"', "a term is called by a name that is not format_error; got 'a b'"),
        ('[terms.format_error]\nterm = "leverage"', "a term is called by a name that is not format_error"),
        ('gate = 3\nreward = "leverage"', "gate must be a table of kinds and reward, true or false; got 3"),
        ('gate = {kind = 1}\nreward = "leverage"', "no key of [gate] is called 'kind'; did you mean kinds?"),
        ('gate = {kinds = "x"}\nreward = "leverage"', "[gate] kinds must be a list of kinds of violation, got 'x'"),
        ('gate = {kinds = ["x"]}\nreward = "leverage"', "no kind of violation is called 'x'; "),
        ('gate = {reward = inf}\nreward = "leverage"', "gate: reward must be a finite number, or left out, got inf"),
        ('protocol = {capcity = 1}\nreward = "leverage"', "no key of [protocol] is called 'capcity'; did you mean cap"),
        ('protocol = {capacity = 0}\nreward = "leverage"', "capacity must be a whole number from 1"),
        ('protocol = {capacity = "4"}\nreward = "leverage"', "capacity must be "),
        ('protocol = {format_errors = 3}\nreward = "leverage"', "format_errors must be a list of names, got 3"),
    ],
)
def test_wrong_files(text, message):
    with pytest.raises(ConfigError) as caught:
        parse_reward(text, "f")
    assert str(caught.value).startswith("reward f: ")
    assert message in str(caught.value)


@given(st.text(max_size=200))
def test_no_text_raises_anything_but_our_error(text):
    with contextlib.suppress(ConfigError):
        parse_reward(text)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file"):
        load_reward(tmp_path / "no.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_reward(tmp_path / "latin.toml")
    with pytest.raises(ConfigError, match=r"no reward is called 'nothing'.*files that end in \.toml"):
        load_reward("nothing")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Reward(terms=[]), "terms must be a mapping"),
        (lambda: Reward(terms={"a": 3}), "term a must be a function of a rollout, got 3"),
        (lambda: Reward(terms={3: len}), "got 3"),
        (lambda: Reward(terms={}, gate=3), "gate must be a Gate or None, got 3"),
        (lambda: Term(TERMS["latency"], {"x": 1}), "no option of term latency is called 'x'"),
        (lambda: Gate(kinds=frozenset({"x"})), "no kind of violation is called 'x'"),
        (lambda: make_reward("wallclock", gpu="h100"), None),
        (
            lambda: simulated_seconds(Rollout(BLOCKS, RULES), gpu="rate:50", load=0),
            "load must be a whole number from 1",
        ),
    ],
)
def test_wrong_specs(build, message):
    if message is None:
        with pytest.raises(ConfigError, match="no GPU profile is called"):
            build().check(RULES)
        return
    with pytest.raises(ConfigError) as caught:
        build()
    assert message in str(caught.value)


def test_a_term_that_cannot_even_score_an_answer_is_refused_before_the_first_rollout():
    def broken(rollout):
        return 1 / 0

    with pytest.raises(ConfigError, match="cannot score a plain answer: ZeroDivisionError"):
        Reward(terms={"broken": broken}).check(RULES)
    with pytest.raises(ConfigError, match="ValueError: term bad is nan"):
        Reward(terms={"bad": lambda rollout: math.nan}).check(RULES)


# ---------------------------------------------------------------- rewards that change with the training step

FORMED = "<Parallel><Path>odd</Path><Path>even</Path></Parallel><Summary>s</Summary>9"


@pytest.mark.parametrize(
    ("text", "right", "earned"),
    [
        (FORMED, True, 1.2),
        (FORMED, False, -1.0),
        ("9", True, 1.0),  # no block
        (FORMED.replace("</Path></Parallel>", "</Parallel>"), True, 1.0),  # a path that is never closed
        (FORMED + "</Path>", True, 1.0),
    ],
)
def test_parallel_r1_pays_for_blocks_in_two_of_ten_steps(text, right, earned):
    reward = make_reward("parallel_r1", variant="alternating")
    totals = [score_batch([text], reward=reward.at(step), outcomes=[right]).total[0] for step in range(20)]
    plain = 1.0 if right else -1.0
    assert totals == ([plain] * 8 + [earned] * 2) * 2
    assert score_batch([text], reward=reward, outcomes=[right]).total[0] == earned


def test_kimi_anneals_what_is_no_performance():
    reward = make_reward("kimi_parl", anneal_steps=4, anneal=0.5, budget=1000)
    weights = [
        (each.terms["parallel"].options["weight"], each.terms["finish"].options["weight"])
        for each in map(reward.at, (0, 1, 4, 99))
    ]
    assert weights == [pytest.approx(pair) for pair in [(0.05, 0.05), (0.0375, 0.0375), (0.0, 0.0), (0.0, 0.0)]]
    assert reward.at(2).terms["performance"] == reward.terms["performance"]
    assert reward.at(3).at(0) == reward == reward.at(0)


def test_a_schedule_can_be_compared_pickled_and_put_into_a_file():
    reward = make_reward("parallel_r1", variant="alternating", bonus=0.3)
    assert pickle.loads(pickle.dumps(reward)) == reward != make_reward("parallel_r1", variant="alternating")
    said = parse_reward('reward = "parallel_r1"\noptions = {variant = "alternating", bonus = 0.3}')
    assert said == reward and said.at(0) == reward.at(0)
    for plain in ("asyncthink", "threadweaver", "parallel_r1", "kimi_parl"):
        assert make_reward(plain).at(7) == make_reward(plain)
    for step in (-1, 1.5, "7", None, True):
        with pytest.raises(ConfigError, match="step must be a whole number"):
            reward.at(step)
