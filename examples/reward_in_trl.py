"""A reward for TRL's GRPOTrainer, called as the trainer does.

Covers: simulator.integrations.trl

In earnest: ``GRPOTrainer(..., reward_funcs=reward, rollout_func=...)``. The rollout function runs organizer and
workers; what it returns beside ids and log-probabilities comes back as columns, here ``workers``.
"""

from simulator.integrations.trl import make_reward_func

reward = make_reward_func(protocol={"capacity": 2})  # with tokenizer=... where the tags are special tokens

completions = [
    "Halves. <FORK-1>odd numbers below 6</FORK-1> 2 + 4 = 6. <JOIN-1>9</JOIN-1> <ANSWER>15</ANSWER><|im_end|>",
    "1 + 2 + 3 + 4 + 5 = 15 <ANSWER>15</ANSWER><|im_end|>",
    "Halves. <JOIN-1> <ANSWER>15</ANSWER><|im_end|>",
    "",
]
metrics = {}
rewards = reward(
    prompts=["Sum the numbers below 6."] * 4,
    completions=completions,
    completion_ids=[[0]] * 4,
    workers=[{"1": "1 + 3 + 5 = 9 <RETURN>9</RETURN>"}, None, None, None],
    answer=["15"] * 4,
    trainer_state=None,
    log_metric=metrics.__setitem__,
)
print("rewards", [round(each, 3) for each in rewards])
for name in ("forksim/accuracy", "forksim/eta", "forksim/latency", "forksim/n_unknown_join"):
    print(f"{name:24} {metrics[name]:.3f}")
