"""verl for real: its reward managers are run on batches of token ids with our reward, and its agent loop's outputs.

Needs verl and what its managers import; `tools/trainers.sh` installs them.
"""

from __future__ import annotations

import asyncio

import pytest

REASON = "verl is not installed; tools/trainers.sh makes an environment with it"
torch = pytest.importorskip("torch", reason=REASON)
pytest.importorskip("verl.workers.reward_manager.batch", reason=REASON, exc_type=ImportError)

import numpy as np  # noqa: E402
from verl import DataProto  # noqa: E402
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput  # noqa: E402
from verl.experimental.reward_loop.reward_manager.dapo import DAPORewardManager  # noqa: E402
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager  # noqa: E402
from verl.workers.reward_manager.batch import BatchRewardManager  # noqa: E402

from simulator import Protocol, make_reward, score_batch  # noqa: E402
from simulator.integrations import Scorer, verl  # noqa: E402
from simulator.rewards import Grouped  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

RULES = Protocol(capacity=4)
TEXT = "so <FORK-1>half?</FORK-1> hm hm hm <JOIN-1>5</JOIN-1> <ANSWER>9</ANSWER>"
WORKER = "let me see <RETURN>5</RETURN>"
EXPECTED = score_batch([{"text": TEXT, "workers": {"1": WORKER}}], protocol=RULES, outcomes=[True]).total[0]


class Bytes:
    """A tokenizer of a token a byte."""

    eos_token_id = pad_token_id = None

    def decode(self, ids, skip_special_tokens=False):
        return bytes(int(id) for id in ids).decode()

    def encode(self, text):
        return list(text.encode())


TOKENIZER = Bytes()


def batch(texts, infos, truths=None):
    """Return a batch as verl's trainer hands it to a reward manager, padded on the right."""
    ids = [TOKENIZER.encode(text) for text in texts]
    length = max(map(len, ids))
    responses = torch.tensor([each + [0] * (length - len(each)) for each in ids])
    mask = torch.tensor([[1] * 3 + [1] * len(each) + [0] * (length - len(each)) for each in ids])
    return DataProto.from_dict(
        tensors={"prompts": torch.full((len(ids), 3), 63), "responses": responses, "attention_mask": mask},
        non_tensors={
            "data_source": np.array(["sums"] * len(ids), dtype=object),
            "reward_model": np.array([{"ground_truth": truth} for truth in truths or ["9"] * len(ids)], dtype=object),
            "extra_info": np.array(infos, dtype=object),
        },
    )


def in_the_loop(manager, data, fields=None):
    """Run a manager of the reward loop on a row; `fields` are the ``extra_fields`` of the agent loop's output."""

    async def run():
        made = manager(SETTINGS, TOKENIZER, verl.make_compute_score(Scorer(protocol=RULES)))
        if fields is not None:
            data.non_tensor_batch["tool_extra_fields"] = np.array([fields], dtype=object)
        return await made.run_single(data)

    return asyncio.run(run())


class Settings(dict):
    """What the managers look at of the configuration."""

    __getattr__ = dict.get


SETTINGS = Settings(reward=Settings(reward_kwargs=Settings()), reward_model=Settings(), data=Settings())


def test_the_reward_loop_hands_over_what_the_agent_loop_returned():
    found = in_the_loop(NaiveRewardManager, batch([TEXT], [{}]), {"workers": {"1": WORKER}})
    assert found["reward_score"] == pytest.approx(EXPECTED)
    assert found["reward_extra_info"]["workers"] == 1 and found["reward_extra_info"]["acc"] == 1


def test_dapo_does_not():
    """As docs/training.md warns: the workers are lost on the way, and the logs say so."""
    found = in_the_loop(DAPORewardManager, batch([TEXT], [{}]), {"workers": {"1": WORKER}})
    assert found["reward_extra_info"]["without_workers"] == 1 and found["reward_score"] < EXPECTED


def test_of_several_outputs_the_reward_loop_looks_at_the_last():
    """Which is why the organizer's comes last, with its workers, or `reward_outputs` sets them all."""
    outputs = [
        AgentLoopOutput(
            prompt_ids=[1],
            response_ids=TOKENIZER.encode(text),
            response_mask=[1] * len(text),
            metrics=AgentLoopMetrics(),
            extra_fields={"thread": thread, "text": text},
        )
        for thread, text in (("1", WORKER), ("organizer", TEXT))
    ]
    rewards = verl.reward_outputs(outputs, "9", scorer=Scorer(protocol=RULES))
    assert rewards == pytest.approx([EXPECTED] * 2)
    for output in outputs:  # as the trainer takes them up
        scores = output.as_dict()["rm_scores"]
        assert scores[-1] == pytest.approx(EXPECTED) and not scores[:-1].any()


def test_the_manager_of_batches():
    infos = [{"workers": {"1": WORKER}}, {}, {"thread": "organizer", "rollout": "r"}, {"thread": "1", "rollout": "r"}]
    texts = [TEXT, "<JOIN-1>", TEXT, WORKER]
    manager = BatchRewardManager(TOKENIZER, 0, verl.make_compute_score(Scorer(protocol=RULES), batch=True))
    data = batch(texts, infos)
    found = manager(data, return_dict=True)
    rewards = found["reward_tensor"].sum(dim=1).tolist()
    assert rewards == pytest.approx([EXPECTED, -1.0, EXPECTED, EXPECTED])
    ends = found["reward_tensor"].ne(0).int().argmax(dim=1).tolist()
    assert ends == [len(text) - 1 for text in texts]
    assert found["reward_extra_info"]["workers"] == [1, 0, 1, 1]


def test_groups_in_the_manager_of_batches():
    reward = make_reward("asyncthink").with_(grouped=Grouped(["concurrency"], "rate"))
    scorer = Scorer(reward=reward, protocol=RULES)
    infos = [{"workers": {"1": WORKER}, "index": index} for index in (0, 0, 1, 1)]
    data = batch([TEXT] * 4, infos, truths=["9", "8", "9", "9"])
    manager = BatchRewardManager(TOKENIZER, 0, verl.make_compute_score(scorer, batch=True))
    rewards = manager(data).sum(dim=1).tolist()
    bonus = EXPECTED - 1
    assert rewards == pytest.approx([1 + bonus / 2, bonus / 2, 1 + bonus, 1 + bonus], abs=1e-6)
