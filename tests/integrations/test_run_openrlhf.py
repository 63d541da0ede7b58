"""OpenRLHF for real: its executor generates with an engine of ours and asks our reward, from a file it loads.

Needs openrlhf and what its executor imports; `tools/trainers.sh` installs them.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

REASON = "openrlhf is not installed; tools/trainers.sh makes an environment with it"
torch = pytest.importorskip("torch", reason=REASON)
agent = pytest.importorskip("openrlhf.utils.agent", reason=REASON, exc_type=ImportError)

from simulator import Protocol, score_batch  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

PROMPT, TEXT = "4 + 5? ", "so <FORK-1>half?</FORK-1> hm <JOIN-1>5</JOIN-1> <ANSWER>9</ANSWER>"
FILE = """
from simulator.integrations.openrlhf import make_reward_func
reward_func = make_reward_func(reward="asyncthink", protocol={"capacity": 4})
"""


class Bytes:
    """A tokenizer of a token a byte."""

    def __call__(self, text, **options):
        return {"input_ids": torch.tensor([list(text.encode())])}

    def decode(self, ids, skip_special_tokens=False):
        return bytes(int(id) for id in ids).decode()


class Engine:
    """What generates: always the same."""

    async def generate(self, prompt, params, multi_modal_data=None):
        said = SimpleNamespace(token_ids=list(TEXT.encode()), finish_reason="stop", logprobs=None)
        return SimpleNamespace(outputs=[said])


@pytest.mark.parametrize(("label", "right"), [("9", True), ("8", False)])
def test_its_executor_gets_the_reward(tmp_path, label, right):
    file = tmp_path / "reward.py"
    file.write_text(FILE, encoding="utf-8")
    executor = agent.SingleTurnAgentExecutor(str(file))
    params = SimpleNamespace(max_tokens=200, logprobs=None)
    output = asyncio.run(executor.execute(PROMPT, label, params, 400, Bytes(), Engine()))
    expected = score_batch([TEXT], protocol=Protocol(capacity=4), outcomes=[right])
    assert output["reward"] == pytest.approx(expected.total[0])
    assert output["scores"] == float(right)
    assert output["extra_logs"]["latency"] == expected.latency[0]
    assert output["extra_logs"]["without_workers"] == 1
