"""Every key of every kind of TOML file with every kind of value, and files that are none: one line, no traceback."""

from __future__ import annotations

import os

import pytest

from simulator.errors import MAX_MESSAGE, ConfigError
from simulator.machine.profiles import gpu_from_text
from simulator.rewards import load_reward
from simulator.study import Source, Study, load_study, run_one

VALUES = (
    "[" * 5000 + "]" * 5000,
    "[" * 200 + "]" * 200,
    "9" * 5000,
    "-" + "9" * 4000,
    "0x7fffffffffffffffffff",
    "nan",
    "-inf",
    "1e400",
    "0",
    "-1",
    "true",
    "''",
    "'\\u0000'",
    '"\\u0000"',
    "'" + "x" * 100_000 + "'",
    "2026-01-01",
    "07:32:00",
    "1979-05-27T07:32:00Z",
    "{}",
    "[]",
    "{name = 'x'}",
    "{a = {b = {c = 1}}}",
    "[{a = 1}]",
    "[[1]]",
    "[1, 'a']",
    "[nan]",
    "[true]",
    "[2026-01-01]",
)
FILES = {
    "study": (load_study, "[traces.a]\ngenerate = 'batch'\n"),
    "reward": (load_reward, "reward = 'threadweaver'\n"),
    "profile": (
        gpu_from_text,
        "provenance = {kind = 'measured', source = 'desk', date = 2026-11-22}\ncost = {type = 'linear', a = 0.02}\n",
    ),
}
KEYS = {
    "study": """queries samples replications seed metrics percentiles confidence baseline name base axes traces arrivals
        cluster protocol window nothing arrivals.kind arrivals.rate arrivals.users cluster.gpu cluster.replicas
        cluster.routing cluster.policy cluster.max_num_seqs cluster.prefix_caching cluster.name protocol.capacity
        protocol.when_full protocol.nested_forks window.warmup axes.x axes.queries axes.'protocol.capacity'
        axes.'cluster.gpu' axes.cluster traces.b traces.b.generate traces.b.options traces.b.files traces.b.weight
        traces.b.tokens traces.b.format""",
    "reward": """reward options options.clip options.name terms terms.x terms.x.term terms.accuracy.weight
        terms.latency.weight terms.latency.nothing terms.name gate gate.kinds gate.reward protocol protocol.capacity
        protocol.eta_weight protocol.when_full nothing""",
    "profile": """hardware model tensor_parallel provenance provenance.kind provenance.source provenance.date
        provenance.measured provenance.mean_error cost cost.type cost.a cost.b cost.nothing engine engine.max_num_seqs
        engine.block_size engine.num_kv_blocks engine.nothing nothing""",
}


@pytest.mark.parametrize("kind", FILES)
def test_every_key_with_every_value(kind, tmp_path):
    load, text = FILES[kind]
    path = tmp_path / "file.toml"
    refused = 0
    for key in KEYS[kind].split():
        rest = [line for line in text.splitlines() if not line.startswith(key.partition(".")[0] + " =")]
        for value in VALUES:
            path.write_text("\n".join([f"{key} = {value}", *rest]))
            try:
                load(str(path))
            except ConfigError as error:
                refused += 1
                assert len(str(error)) <= MAX_MESSAGE
                assert "\n" not in str(error)
    assert refused > len(KEYS[kind].split()) * len(VALUES) / 2


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", ["a\0b.toml", "x" * 300 + ".toml", "\udc80.toml", "none.toml", "folder.toml"])
def test_names_of_no_file(kind, name, tmp_path):
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        FILES[kind][0](f"{tmp_path}/{name}")


@pytest.mark.parametrize("kind", FILES)
def test_files_that_never_end(kind, tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    for name in ("pipe.toml", "zero.toml"):
        with pytest.raises(ConfigError, match=r"cannot be read \(it is no plain file\)"):
            FILES[kind][0](str(tmp_path / name))


@pytest.mark.parametrize("name", ["pipe", "zero"])
def test_a_study_reads_plain_files_only(name, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "a.jsonl").write_text('{"output": "I think. <ANSWER>9</ANSWER>"}\n')
    for source in (Source(files=(name,)), Source(files=("a.jsonl",), tokens=name)):
        study = Study(traces={"a": source}, base=str(tmp_path))
        with pytest.raises(ConfigError, match=r"cannot be read \(it is no plain file\)"):
            run_one(study, 0)
    assert run_one(Study(traces={"a": Source(files=("*.jsonl",))}, base=str(tmp_path)), 0).metrics["unanswered"] == 0
