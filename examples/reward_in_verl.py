"""A reward for verl, called as its reward managers do.

Covers: simulator.integrations.verl

In earnest, in the configuration: ``reward.custom_reward_function.path=pkg://simulator.integrations.verl`` and
``reward.custom_reward_function.reward_kwargs={protocol: {capacity: 2}}``.
"""

from simulator.integrations.verl import compute_score, compute_score_batch

TEXT = "Halves. <FORK-1>odd numbers below 6</FORK-1> 2 + 4 = 6. <JOIN-1>9</JOIN-1> <ANSWER>15</ANSWER>"
row = compute_score(
    data_source="sums",
    solution_str=TEXT,
    ground_truth="15",
    extra_info={"index": 0, "num_turns": 2, "workers": {"1": "1 + 3 + 5 = 9 <RETURN>9</RETURN>"}},
    protocol={"capacity": 2},
)
for name in ("score", "acc", "term_format_error", "term_accuracy", "term_concurrency", "latency", "eta"):
    print(f"{name:18} {row[name]:.3f}")

print("A batch:")
infos = [{"workers": {"1": "<RETURN>9</RETURN>"}}, {}]
for row in compute_score_batch(["sums"] * 2, [TEXT, "<JOIN-1>"], ["15", "15"], infos, protocol={"capacity": 2}):
    print(f"{row['score']:6.3f} {row['reason']}")
