"""verifiers for real: a task scores its traces with our reward, and an episode of several traces is one rollout.

Needs verifiers; `tools/trainers.sh` installs it.
"""

from __future__ import annotations

import asyncio

import pytest

REASON = "verifiers is not installed; tools/trainers.sh makes an environment with it"
vf = pytest.importorskip("verifiers.v1", reason=REASON, exc_type=ImportError)

from verifiers.v1.graph import MessageNode  # noqa: E402
from verifiers.v1.trace import Trace, TraceTask  # noqa: E402

from simulator import Protocol, score_batch  # noqa: E402
from simulator.integrations import Scorer, verifiers  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

TEXT = "so <FORK-1>half?</FORK-1> hm hm hm <JOIN-1>5</JOIN-1> <ANSWER>9</ANSWER>"
WORKER = "let me see <RETURN>5</RETURN>"
SCORER = Scorer(protocol={"capacity": 4})
EXPECTED = score_batch(
    [{"text": TEXT, "workers": {"1": WORKER}}], protocol=Protocol(capacity=4), outcomes=[True]
).total[0]


class Sum(vf.TaskData):
    answer: str = "9"


class Sums(vf.Task[Sum, vf.State, vf.TaskConfig]):
    """A task as its users write it: one reward, which is ours."""

    @vf.reward
    async def forksim(self, task, trace) -> float:
        return await verifiers.forksim_reward(trace=trace, task=task, scorer=SCORER)


def trace_of(text, info):
    """Return a trace of one turn."""
    data = Sum(prompt="4 + 5?")
    nodes = [
        MessageNode(message=vf.UserMessage(content="4 + 5?")),
        MessageNode(parent=0, message=vf.AssistantMessage(content=text), sampled=True),
    ]
    task = TraceTask(type="Sums", data=data)
    return Trace.model_construct(task=task, nodes=nodes, calls=[], info=info, metrics={}, rewards={}, root_reply=None)


def test_a_task_scores_its_trace():
    trace = trace_of(TEXT, {"workers": {"1": WORKER}})
    asyncio.run(Sums(Sum(prompt="4 + 5?")).score(trace))
    assert trace.rewards["forksim"].value == pytest.approx(EXPECTED)
    assert trace.metrics["forksim_workers"] == 1 and trace.metrics["forksim_accuracy"] == 1


def test_an_episode_of_several_traces():
    traces = [trace_of(WORKER, {"thread": "1"}), trace_of(TEXT, {"thread": "organizer"})]
    rewards = asyncio.run(verifiers.forksim_episode(traces, traces[0].task.data, scorer=SCORER))
    assert rewards == pytest.approx([EXPECTED] * 2)
    assert traces[0].metrics["forksim_share"] == pytest.approx(EXPECTED)
