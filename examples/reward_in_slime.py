"""A reward for slime, for a sample and for a group.

Covers: simulator.integrations.slime

In earnest: ``--custom-rm-path your_module.custom_rm``. A custom generate function puts the workers into the metadata.
"""

import asyncio
from types import SimpleNamespace

from simulator.integrations.slime import make_custom_rm

custom_rm = make_custom_rm(protocol={"capacity": 2})

args = SimpleNamespace(reward_key=None)
text = "Halves. <FORK-1>odd numbers below 6</FORK-1> 2 + 4 = 6. <JOIN-1>9</JOIN-1> <ANSWER>15</ANSWER>"
workers = {"1": "1 + 3 + 5 = 9 <RETURN>9</RETURN>"}
group = [
    SimpleNamespace(response=text, label="15", tokens=[], response_length=0, metadata={"workers": workers}),
    SimpleNamespace(response="<ANSWER>15</ANSWER>", label="15", tokens=[], response_length=0, metadata={}),
    SimpleNamespace(response=None, label="15", tokens=[], response_length=0, metadata=None),
]
print("a sample:", round(asyncio.run(custom_rm(args, group[0])), 3))
print("a group: ", [round(each, 3) for each in asyncio.run(custom_rm(args, group))])
