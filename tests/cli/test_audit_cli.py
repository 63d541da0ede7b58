"""`forksim audit`: what it prints and writes, and what it says of bad input."""

import json
import re
from pathlib import Path

import msgspec
import pytest

from simulator import Answer, Outcome, Protocol, Think, Thread, Trace, dump, parse, read, score_batch
from simulator.audit import EXPLOITS, Judge, audit
from simulator.cli import _run
from simulator.rewards import REWARDS, load_reward
from tests.audit.test_audit_search import CLOSED, OPEN

ROOT = Path(__file__).parents[2]
QUICK = ("--budget", "40", "--exploits", "staggered,late_forks")


@pytest.fixture
def forksim(capsys, monkeypatch, tmp_path):
    """Runs `forksim audit` in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = _run(["audit", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def records(out):
    return [json.loads(line) for line in out.splitlines()]


def test_json_says_what_the_library_says(forksim):
    code, out, err = forksim("leverage", *QUICK, "--json")
    corpus, staggered, late, summary = records(out)
    judge = Judge(reward=load_reward("leverage"), protocol=Protocol(capacity=4))
    found = audit(judge, exploits=["staggered", "late_forks"], budget=40)
    pair = found.pairs["staggered"]
    assert (code, err) == (0, "")
    assert corpus == {"corpus": json.loads(msgspec.json.encode(found.corpus))}
    assert (staggered["exploit"], staggered["gain"], staggered["slowdown"]) == ("staggered", pair.gain, pair.slowdown)
    assert staggered["a"]["terms"] == pair.a.score.terms and staggered["reason"] == found.searches[0].reason
    assert msgspec.convert(staggered["b"]["trace"], Trace) == pair.b.trace
    assert late == {"exploit": "late_forks", "tried": found.searches[1].tried, "found": 0}
    assert summary["summary"]["searched"] == 2 and summary["summary"]["open"] == 1


def test_the_table_and_the_files(forksim, tmp_path):
    code, out, err = forksim("leverage", *QUICK, "-o", "found")
    assert (code, err) == (0, "")
    assert "leverage, c = 4, times on h100-qwen3-8b-database under a load of 1" in out
    assert "256 rollouts: 135 right, 0 at the gate" in out
    assert "staggered: A earns 0.25 more because leverage pays 0.25 instead of 0" in out
    assert "open to 1 of 2 exploits" in out and out.endswith("wrote found\n")
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == [
        "audit.jsonl",
        "pairs.jsonl",
        "staggered.png",
    ]
    a, b = read("found/pairs.jsonl")
    batch = score_batch([a, b], reward="leverage", protocol=Protocol(capacity=4))
    assert [a.id, b.id] == ["staggered-A", "staggered-B"] and batch.total.tolist() == [1.25, 1.0]
    assert len(records(Path("found/audit.jsonl").read_text(encoding="utf-8"))) == 4


def test_two_rewards_are_compared(forksim):
    options = ("--exploits", "full_pool,overflow,late_thought", "--budget", "30")
    code, out, err = forksim("kimi_parl", *options, "--against", "asyncthink", "--fail")
    assert (code, err) == (1, "")  # overflow costs nothing there
    assert "kimi_parl against asyncthink: how often each was found, and the most it gains" in out
    assert re.search(r"overflow +\d+ of 30 +0\.\d+ +0 of 30", out) and "open only here: overflow" in out
    code, out, err = forksim("asyncthink", *options, "--against", "kimi_parl", "--fail")
    assert (code, err) == (0, "") and "open to nothing that the other is not open to" in out
    code, out, err = forksim("asyncthink", *options, "--against", "kimi_parl", "--json")
    other, compared = records(out)[-4:-1], records(out)[-1]
    assert [each["exploit"] for each in other] == ["full_pool", "overflow", "late_thought"]
    assert compared == {"compared": {"against": "kimi_parl", "worse": []}}
    code, out, err = forksim("asyncthink", *options, "--against", "kimi")
    assert code == 2 and "no reward is called 'kimi'; did you mean kimi_parl?" in err


def test_a_corpus_of_files(forksim):
    traces = [
        Trace(name, (Thread("organizer", (Answer(tokens),)),), Outcome(correct=correct))
        for name, tokens, correct in (("a", 10, True), ("b", 30, True), ("c", 20, False))
    ]
    with open("corpus.jsonl", "w", encoding="utf-8") as file:
        dump(traces, file)
    Path("brief.toml").write_text("gate = false\n[terms.accuracy]\n[terms.latency]\n", encoding="utf-8")
    code, out, err = forksim("brief.toml", "corpus.jsonl", "--exploits", "none", "--json", "--group-size", "3")
    (corpus, summary) = records(out)
    assert (code, err, summary["summary"]["searched"]) == (0, "", 0)
    assert (
        corpus["corpus"]["follows"]["seconds"]["right"] == pytest.approx(-1)
        and corpus["corpus"]["groups"]["groups"] == 1
    )
    assert corpus["corpus"]["follows"]["correctness"]["right"] is None
    code, out, _ = forksim("brief.toml", "corpus.jsonl", "--exploits", "none", "--group-size", "3")
    assert "3 rollouts: 2 right, 0 at the gate" in out and "exploit" not in out


def test_a_corpus_of_shipped_texts(forksim):
    """Nobody has judged them: they count as wrong, and that is said."""
    files = sorted((ROOT / "traces" / "siblings").glob("*.txt"))
    code, out, err = forksim("parallel_r1", *files, "--exploits", "none")
    assert (code, err) == (0, "") and "0 right, 0 at the gate, " in out and "not judged" in out


def test_bad_records_are_told_and_the_rest_is_audited(forksim):
    with open("mixed.jsonl", "w", encoding="utf-8") as file:
        dump([parse("x <ANSWER>9</ANSWER>", id="good")], file)
        file.write("{half\n")
        file.write('{"output": 3}\n')
    code, out, err = forksim("leverage", "mixed.jsonl", "missing.jsonl", "--exploits", "none", "--json")
    assert code == 2 and records(out)[0]["corpus"]["traces"] == 1
    told = err.splitlines()
    assert [line.split(": ")[1] for line in told] == ["mixed.jsonl:2", "mixed.jsonl:3", "missing.jsonl"]


def test_what_cannot_be_run_is_told_by_name(forksim):
    Path("small.toml").write_text(
        '[provenance]\nkind = "measured"\nsource = "a desk"\ndate = 2026-11-22\n[cost]\ntype = "linear"\na = 0.02\n'
        "[engine]\nnum_kv_blocks = 8\nblock_size = 16\n",
        encoding="utf-8",
    )
    with open("two.jsonl", "w", encoding="utf-8") as file:
        dump([Trace(n, (Thread("organizer", (Think(t), Answer(1))),)) for n, t in (("fits", 50), ("large", 900))], file)
    code, out, err = forksim("leverage", "two.jsonl", "--gpu", "small.toml", "--exploits", "none", "--json")
    assert code == 2 and records(out)[0]["corpus"]["unscored"] == ["large"]
    assert err == "forksim: trace 'large' cannot be scored, or not be run on small.toml\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("levrage",), "no reward is called 'levrage'; did you mean leverage?"),
        (("none.toml",), "reward none.toml: cannot be read"),
        (("leverage", "--exploits", "padng"), "--exploits takes all, none, or some of padding,"),
        (("leverage", "--exploits", ""), "--exploits takes all, none, or some of padding,"),
        (("leverage", "--budget", "0"), "budget must be a whole number from 1"),
        (("leverage", "--budget", "x"), "Invalid value for '--budget'"),
        (("leverage", "--seed", "-1"), "seed must be a whole number from 0"),
        (("leverage", "--gain", "nan"), "gain must be a number above 0, got nan"),
        (("leverage", "--slower", "1"), "slower must be a number above 1, got 1.0"),
        (("leverage", "--clocks", "T"), "clocks must be one of both, seconds; got 'T'"),
        (("leverage", "--gpu", "h101"), "h101"),
        (("leverage", "--load", "0"), "load must be a whole number from 1"),
        (("leverage", "--capacity", "0"), "capacity must be a whole number from 1"),
        (("leverage", "--group-size", "0"), "size must be a whole number from 1"),
        (("leverage", "missing.jsonl"), "missing.jsonl: "),
        ((), "Missing argument 'REWARD'"),
    ],
)
def test_what_is_asked_for_wrongly(forksim, arguments, said):
    code, out, err = forksim(*arguments)
    assert (code, out) == (2, "") and all(line.startswith("forksim: ") for line in err.splitlines())
    assert said in err.splitlines()[0]


def test_a_folder_that_cannot_be_written(forksim):
    Path("file").write_text("", encoding="utf-8")
    code, _, err = forksim("leverage", *QUICK, "-o", "file/found")
    assert code == 2 and err.count("\n") == 1 and "cannot be written" in err


def test_the_page_says_what_the_tests_find():
    """The table of docs/training.md: which exploits each reward is open to, in the order in which they are searched."""
    lines = (ROOT / "docs" / "training.md").read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| reward |"))
    table = {}
    for line in lines[start + 2 : start + 2 + len(REWARDS)]:
        reward, _, _, exploits, _ = line.strip("|").split("|")
        table[reward.strip(" `")] = re.findall(r"`(\w+)`", exploits)
    assert list(table) == list(REWARDS)
    for name, found in table.items():
        assert found == [exploit for exploit in EXPLOITS if exploit in found]
        assert OPEN[name] <= set(found) and not CLOSED[name].intersection(found)
