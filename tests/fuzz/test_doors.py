"""Whatever comes in through a door, it is taken or refused in one line. `make fuzz` tries for as long as one likes.

Each target has texts that are right, and words that mean something to it; what it gets is these, cut, doubled, spliced
and with bytes changed. `FORKSIM_FUZZ_EXAMPLES` says how many of them.
"""

from __future__ import annotations

import io
import json
import os
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator import Protocol, check, compile_trace, decode_clock, dump, measure, read, render, score_batch, simulate
from simulator.errors import MAX_MESSAGE, FormatError, SimulatorError
from simulator.formats import FORMATS, LOGS, parse, writable
from simulator.machine.profiles import parse_profile
from simulator.recording.sse import BadStream, Events, chunk
from simulator.rewards.loading import parse_reward
from simulator.study import parse_study
from simulator.study.store.journal import open_line, seal
from simulator.support.toml import parse_toml
from simulator.workload import generate

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("FORKSIM_FUZZ_EXAMPLES", "1000"))
FUZZ = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

TRACES = [*generate("asyncthink_math", 3, seed=1), *generate("nested", 1, seed=1), *generate("batch", 1, seed=1)]
ASYNC = "think <FORK-1>q</FORK-1> on <FORK2>r</FORK2><JOIN-1>a</JOIN-1><ANSWER>\\boxed{9}</ANSWER>"
GROUP = "<Parallel><Goal><Outline>1: a</Outline></Goal><Path>1: x</Path><Conclusion>y</Conclusion></Parallel> z"
WEAVE = "<Parallel><Outlines><Outline>1: a</Outline></Outlines><Thread>1: x</Thread></Parallel> so \\boxed{9}"
PATHS = "<Parallel><Path>odd</Path><Path>even</Path></Parallel><Summary>s</Summary> Final Answer: 9"
STEPS = (
    "<guideline><plan>1: a</plan><plan>2: b</plan></guideline><step>1: x</step><step>2: y</step><takeaway>z</takeaway>"
)
LABELS = (
    "<Goal><Outline>1: a</Outline><Outline>2: b</Outline></Goal><Path>1: x<Conclusion>c</Parallel>y</Path>z<Path>2: w"
)
SEARCH = {
    "main_calls": [
        "a\n<Calling Sub Searches>\n<Start Sub Search 0 at level 1> b\n<End Calling Sub Searches>\n",
        "a\n<Sub Searches>\n<No Solution in Sub Search 0 at level 1>\n<End Sub Searches>\nno\n",
    ],
    "sub_calls": [[{"main_calls": ["b\nc\n"], "sub_calls": []}]],
}
TAGS = """guideline plan step takeaway
FORK-1 FORK2 JOIN-1 WORKER-1 RETURN ANSWER Parallel Path Thread Goal Outline Outlines Conclusion Summary"""
WORDS = [
    *(f"{left}{tag}>" for tag in TAGS.split() for left in ("<", "</")),
    *(
        "1:",
        "2.1:",
        "\\boxed{",
        "}",
        "\0",
        "\ud800",
        "\u202e",
        "9" * 5000,
        " " * 999,
        "-1",
        "1e400",
        "NaN",
        "null",
        "{}",
    ),
    *(
        "1e400",
        "NaN",
        "null",
        "{}",
        "[",
        "]",
        "{",
        '"',
        ",",
        ":",
        "\n",
        "true",
        "[[]]",
        '{"a":',
        "10" * 9,
        "= =",
        "''",
        "[x]",
        "\r\n",
        "data: ",
    ),
]


def mutated(seeds: list[str], rng: random.Random) -> str:
    """Return one of the texts, with a few things done to it."""
    text = rng.choice(seeds)
    for _ in range(rng.choice((0, 1, 1, 2, 3, 8))):
        i, j = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        match rng.randrange(7):
            case 0:
                text = text[:i] + text[j:]
            case 1:
                text = text[:j] + text[i:]
            case 2:
                text = text[:i] + rng.choice(WORDS) + text[i:]
            case 3:
                text = text[:i] + chr(rng.choice((rng.randrange(128), rng.randrange(0x11000)))) + text[i + 1 :]
            case 4:
                text = text[:i] + rng.choice(seeds)[: rng.randrange(200)] + text[j:]
            case 5:
                text = text[:i] + text[i:j] * rng.randrange(1, 4) + text[j:]
            case 6:
                text = text[:i] + str(rng.choice((0, -1, 1.5, 2**63, 10**12 + 1, 10**30))) + text[i + 1 :]
        text = text[:20_000]
    return text


def refused(work: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """Do something that may be refused, in one line."""
    try:
        return work(*given, **options)
    except SimulatorError as error:
        assert len(str(error)) <= MAX_MESSAGE
        return None


rngs = st.integers(0, 2**63).map(random.Random)


@pytest.mark.parametrize("format", [*FORMATS, None])
@FUZZ
@given(rngs)
def test_texts(format, rng):
    seeds = [
        ASYNC,
        GROUP,
        WEAVE,
        PATHS,
        STEPS,
        LABELS,
        json.dumps(SEARCH),
        *(render(trace, "native") for trace in TRACES),
    ]
    text = mutated(seeds, rng)
    trace = refused(parse, text, format=format)
    if trace is None:
        return
    check(trace)
    decode_clock(trace, Protocol(capacity=4))
    timeline = refused(simulate, compile_trace(trace, Protocol(capacity=3)), on_deadlock="record")
    if timeline is not None:
        measure(timeline)
    for form in writable():
        if form in FORMATS:
            refused(render, trace, form)


@FUZZ
@given(rngs)
def test_rewards(rng):
    texts = [mutated([ASYNC, GROUP, WEAVE, PATHS, STEPS, LABELS], rng) for _ in range(2)]
    batch = score_batch(texts, protocol=Protocol(capacity=4), outcomes=[True, False])
    assert len(batch.total) == 2


def logs() -> dict[str, str]:
    said = {"native": "".join(render(trace, "native") + "\n" for trace in TRACES[:2])}
    file = io.StringIO()
    dump(TRACES[:2], file, "agentic_mooncake")
    said["agentic_mooncake"] = file.getvalue()
    rows = [
        {"timestamp": k, "input_length": 600 * k + 1, "output_length": 3, "hash_ids": [0, k][: k + 1]} for k in range(3)
    ]
    said["mooncake"] = "".join(json.dumps(row) + "\n" for row in rows)
    nodes = [{"message": {"content": "x"}, "sampled": True, "parent": k - 1 if k else None} for k in range(3)]
    calls = [
        {"node": k, "usage": {"prompt_tokens": 9, "completion_tokens": 3}, "time": {"start": k, "end": k + 1}}
        for k in range(3)
    ]
    said["apr"] = json.dumps({"target": 3, "trace_dict": SEARCH}) + "\n"
    said["verifiers"] = json.dumps({"task": {}, "nodes": nodes, "calls": calls}) + "\n"
    return said


@pytest.mark.parametrize("format", LOGS)
@FUZZ
@given(rngs)
def test_files(tmp_path_factory, format, rng):
    path = tmp_path_factory.getbasetemp() / f"fuzz-{format}.jsonl"
    path.write_text(mutated([logs()[format]], rng), encoding="utf-8", errors="surrogatepass")
    for item in read(path):
        if not isinstance(item, FormatError):
            compile_trace(item)
    list(read(path, format=format))


TOML = {
    "study": (
        "seed = 3\nqueries = 4\nmetrics = ['latency']\n[traces.a]\ngenerate = 'batch'\n"
        "[axes]\n'protocol.capacity' = [2, 3]\n",
        lambda text: parse_toml("study", text, parse_study),
    ),
    "reward": (
        "reward = 'threadweaver'\noptions = {clip = 0.3}\n[terms.brief]\nterm = 'latency'\nweight = -1e-4\n",
        parse_reward,
    ),
    "profile": (
        "provenance = {kind = 'measured', source = 's', date = 2026-11-22}\ncost = {type = 'linear', a = 0.02}\n"
        "[engine]\nmax_num_seqs = 8\n",
        lambda text: parse_profile(text, "p"),
    ),
}


@pytest.mark.parametrize("kind", TOML)
@FUZZ
@given(rngs)
def test_toml(kind, rng):
    text, load = TOML[kind]
    refused(load, mutated([text], rng))


@FUZZ
@given(rngs)
def test_streams(rng):
    event = (
        'data: {"choices":[{"text":"a","finish_reason":null}],"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n'
    )
    data = mutated([event * 3 + "data: [DONE]\n\n"], rng).encode(errors="surrogatepass")
    events = Events()
    try:
        for at in range(0, len(data), 7):
            for each in events.feed(data[at : at + 7]):
                chunk(each)
    except BadStream:
        pass


@FUZZ
@given(rngs)
def test_journals(rng):
    body = mutated(['{"run":1,"row":{"latency":2.5,"error":null},"part":[0,3,4]}', '{"finished":4,"tables":{}}'], rng)
    for line in (body.encode(errors="surrogatepass") + b"\n", seal({"run": 1, "row": {"text": body}})):
        record = open_line(line, 4)
        assert record is None or record["run"] == 1
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return
    record = open_line(seal(value), 4)
    assert record is None or record == value or value != value or "NaN" in body
