"""A reward for OpenRLHF, called as its executor does: one query at a time.

Covers: simulator.integrations.openrlhf

In earnest this file has only the import and the second line; OpenRLHF loads it by its path, and calls `reward_func`.
"""

from simulator.integrations.openrlhf import make_reward_func

reward_func = make_reward_func(protocol={"capacity": 2})

PROMPT = "Sum the numbers below 6."
for response in ("1 + 2 + 3 + 4 + 5 <ANSWER>15</ANSWER></s>", "<ANSWER>16</ANSWER></s>", "<JOIN-1></s>"):
    found = reward_func([PROMPT + response], [PROMPT], ["15"])
    print(
        f"rewards {found['rewards']:6.3f}  scores {found['scores']:.0f}  latency {found['extra_logs']['latency']:.0f}"
    )
