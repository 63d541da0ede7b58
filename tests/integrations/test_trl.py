"""TRL for real: a GRPOTrainer on the CPU trains a tiny model, made from a config, for a few steps with our reward.

Needs torch, trl, transformers, accelerate and datasets; `tools/trainers.sh` installs them.
"""

from __future__ import annotations

import math
import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
REASON = "{} is not installed; tools/trainers.sh makes an environment with it"
torch = pytest.importorskip("torch", reason=REASON.format("torch"))
grpo = pytest.importorskip("trl", reason=REASON.format("trl"))
transformers = pytest.importorskip("transformers", reason=REASON.format("transformers"))
datasets = pytest.importorskip("datasets", reason=REASON.format("datasets"))
tokenizers = pytest.importorskip("tokenizers", reason=REASON.format("tokenizers"))

from simulator import Protocol, Reader, score_batch  # noqa: E402
from simulator.integrations.trl import make_reward_func  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

TAGS = ("<FORK-1>", "</FORK-1>", "<JOIN-1>", "</JOIN-1>", "<ANSWER>", "</ANSWER>")
SPECIAL = (*TAGS, "<pad>", "<eos>", "<unk>")
STEPS, GENERATIONS = 3, 4


def tokenizer():
    """Make a tokenizer of a token a character, in which the tags are special tokens."""
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *"abcd0123456789 "))}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    model.add_special_tokens(list(SPECIAL))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=model, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )


def trained(tmp_path, reward, tok, columns, **options):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tok),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=tok.pad_token_id,
        eos_token_id=tok.eos_token_id,
        bos_token_id=None,
    )
    trainer = grpo.GRPOTrainer(
        model=transformers.LlamaForCausalLM(config),
        reward_funcs=reward,
        args=grpo.GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=GENERATIONS,
            num_generations=GENERATIONS,
            max_completion_length=16,
            max_steps=STEPS,
            logging_steps=1,
            report_to=[],
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=datasets.Dataset.from_dict({"prompt": ["a b", "c d"] * 4, **columns}),
        processing_class=tok,
        **options,
    )
    trainer.train()
    return [line for line in trainer.state.log_history if "reward" in line]


class Watched:
    """A reward function that keeps what it was called with and what it said."""

    def __init__(self, function):
        self.function, self.seen = function, []

    def __call__(self, **given):
        rewards = self.function(**given)
        self.seen.append((given, rewards))
        return rewards


def test_a_trainer_trains_with_tags_that_are_special_tokens(tmp_path):
    tok = tokenizer()
    reward = Watched(make_reward_func(protocol={"capacity": 2}, tokenizer=tok))
    log = trained(tmp_path, reward, tok, {"answer": ["9"] * 8})
    assert len(log) == STEPS and len(reward.seen) == STEPS
    for line, (given, rewards) in zip(log, reward.seen, strict=True):
        assert not any("<" in text for text in given["completions"])  # as TRL skips special tokens
        cut = [ids[:-1] if ids[-1] == tok.eos_token_id else ids for ids in given["completion_ids"]]
        alone = score_batch(
            cut, protocol=Protocol(capacity=2), reader=Reader(decode=tok.decode), outcomes=[False] * GENERATIONS
        )
        assert rewards == alone.total.tolist()
        assert math.isclose(line["reward"], sum(rewards) / len(rewards), abs_tol=1e-6)
        assert math.isclose(line["forksim/latency"], alone.latency.mean(), abs_tol=1e-6)
    assert sum(line["forksim/n_stray_tag"] for line in log) > 0  # so the tags were seen


def test_workers_come_from_a_rollout_function(tmp_path):
    tok = tokenizer()
    text = "a<FORK-1>b</FORK-1>c<JOIN-1>9</JOIN-1><ANSWER>9</ANSWER><eos>"
    ids, own = (tok.encode(each, add_special_tokens=False) for each in (text, "b b b b 9 9"))

    def rollout(prompts, trainer):
        n = len(prompts)
        return {
            "prompt_ids": [tok.encode(prompt) for prompt in prompts],
            "completion_ids": [list(ids) for _ in range(n)],
            "logprobs": [[-1.0] * len(ids) for _ in range(n)],
            "workers": [{"1": list(own)} if i % 2 else None for i in range(n)],
        }

    reward = Watched(make_reward_func(protocol={"capacity": 2}, tokenizer=tok))
    log = trained(tmp_path, reward, tok, {"answer": ["9"] * 8}, rollout_func=rollout)
    assert len(log) == STEPS
    for _, rewards in reward.seen:
        without, with_worker = rewards[0], rewards[1]
        assert rewards == [without, with_worker] * (GENERATIONS // 2)
        assert 1 < without < with_worker
    assert all(line["forksim/workers"] == 0.5 for line in log)
