"""How the frameworks call a reward, read off their installed sources, which are not imported.

Checked on 2026-11: trl 1.16.0, verl 0.9.1, openrlhf 0.11.2, verifiers 0.4.0 (from PyPI). slime is not on PyPI; its
`slime/rollout/rm_hub/__init__.py` (commit 0b420f1) and customization guide (commit 138eb42) were read.
`tools/trainers.sh` installs the four; where one is not installed, its tests are skipped.
"""

from __future__ import annotations

import ast
import inspect
from importlib import metadata

import pytest

from simulator.integrations import Scorer, openrlhf, slime, trl, verifiers, verl

SCORER = Scorer(protocol={"capacity": 2})


def source_of(package, path):
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed; tools/trainers.sh installs it")
    found = [file for file in files if str(file).endswith(path)]
    if not found:
        pytest.skip(f"{package} {metadata.version(package)} is installed, without {path}")
    return ast.parse(found[0].read_text(encoding="utf-8"))


def calls(tree, name):
    """Return the calls of a function called `name`, as whatever's attribute."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and name in (getattr(node.func, "attr", None), getattr(node.func, "id", None))
    ]


def keywords(call):
    return {each.arg for each in call.keywords if each.arg}


def bind(function, call):
    """Hold the call against the function's signature: TypeError if it does not fit."""
    inspect.signature(function).bind(*[0] * len(call.args), **dict.fromkeys(keywords(call)))


def test_trl():
    tree = source_of("trl", "trl/trainer/grpo_trainer.py")
    found = [call for call in calls(tree, "reward_func") if keywords(call)]
    assert [keywords(call) for call in found] == [{"prompts", "completions", "completion_ids"}]
    assert any(each.arg is None for each in found[0].keywords)  # the columns
    bind(trl.make_reward_func(SCORER), found[0])
    given = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Subscript)}
    assert {f"reward_kwargs['{name}']" for name in ("trainer_state", "log_extra", "log_metric")} <= given


@pytest.mark.parametrize("manager", ["naive", "dapo"])
def test_verl(manager):
    tree = source_of("verl", f"verl/experimental/reward_loop/reward_manager/{manager}.py")
    found = calls(tree, "compute_score")
    assert len(found) == 2  # async and not
    for call in found:
        assert keywords(call) == {"data_source", "solution_str", "ground_truth", "extra_info"}
        bind(verl.make_compute_score(SCORER), call)
    row = verl.compute_score(solution_str="", scorer=SCORER)
    assert 'result["score"]'.replace('"', "'") in ast.unparse(tree) and "score" in row


def test_verl_batch():
    [call] = calls(source_of("verl", "verl/workers/reward_manager/batch.py"), "compute_score")
    assert keywords(call) == {"data_sources", "solution_strs", "ground_truths", "extra_infos"}
    bind(verl.make_compute_score(SCORER, batch=True), call)


def test_openrlhf():
    tree = source_of("openrlhf", "openrlhf/utils/agent.py")
    [call] = [call for call in calls(tree, "to_thread") if ast.unparse(call.args[0]) == "self.reward_func"]
    assert [ast.unparse(each).partition("[")[0] for each in call.args[1:]] == [
        "queries_list",
        "prompts_list",
        "labels_list",
    ]
    inspect.signature(openrlhf.make_reward_func(SCORER)).bind([""], [""], [""])
    asked = {call.args[0].value for call in calls(tree, "get") if ast.unparse(call.func) == "rewards_info.get"}
    assert asked == set(openrlhf.make_reward_func(SCORER)([""], [""], [""]))


def test_verifiers():
    tree = source_of("verifiers", "verifiers/v1/task.py")
    [given] = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "available"
    ]
    names = {key.value for key in given.keys}
    assert names == {"task", "trace"}
    assert names <= set(inspect.signature(verifiers.make_reward(SCORER)).parameters)
    assert calls(tree, "invoke_all")  # which gathers: a reward must be a coroutine function
    assert inspect.iscoroutinefunction(verifiers.forksim_reward)


def test_verifiers_traces_have_what_is_read():
    tree = source_of("verifiers", "verifiers/v1/trace.py")
    fields = {
        node.name: {each.target.id for each in node.body if isinstance(each, ast.AnnAssign)}
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    assert {"id", "nodes", "calls", "rewards", "metrics", "info", "task"} <= fields["Trace"]
    assert {"node", "usage", "time", "finish_reason"} <= fields["ModelCall"]
    assert {"start", "end"} <= fields["TimeSpan"]


def test_slime():
    tree = source_of("slime", "slime/rollout/rm_hub/__init__.py")
    for call in calls(tree, "rm_function"):
        assert [ast.unparse(each) for each in call.args] in (["args", "sample"], ["args", "samples"])
        bind(slime.make_custom_rm(SCORER), call)
