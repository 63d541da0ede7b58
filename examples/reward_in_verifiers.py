"""A reward for verifiers, and one of its rollouts as a trace.

Covers: simulator.integrations.verifiers, simulator.formats.logs.verifiers

In earnest: a module with ``reward = make_reward(...)``, plugged into a task as ``fn = "your_module:reward"``.
"""

import asyncio
import json
from types import SimpleNamespace

from simulator import compile_trace, measure, parse, simulate
from simulator.integrations.verifiers import make_reward


def call(node, start, end, tokens):
    usage = {"prompt_tokens": 50, "completion_tokens": tokens}
    return {"node": node, "usage": usage, "time": {"start": start, "end": end}}


def turn(parent=None, content="...", **edges):
    links = [{"type": kind, "node": node} for kind, node in edges.items()]
    message = {"role": "assistant", "content": content}
    return {"parent": parent, "message": message, "sampled": True, "semantic_parents": links}


record = {
    "id": "r1",
    "task": {"type": "Sum", "data": {"answer": "15"}},
    "nodes": [
        turn(),
        turn(subagent_call=0),
        turn(subagent_call=0),
        turn(0, "<ANSWER>15</ANSWER>", subagent_return=1),
    ],
    "calls": [call(0, 0.0, 1.0, 30), call(1, 1.0, 3.0, 60), call(2, 1.0, 4.0, 90), call(3, 4.5, 5.0, 10)],
}
record["nodes"][3]["semantic_parents"].append({"type": "subagent_return", "node": 2})

trace = parse(json.dumps(record))  # as simulator.read does with every line of traces.jsonl
for thread in trace.threads:
    print(f"{thread.id:10}", *(type(action).__name__ for action in thread.actions))
metrics = measure(simulate(compile_trace(trace)))
print(f"latency {metrics.latency:.1f} steps, eta {metrics.eta:.2f}")

reward = make_reward(protocol={"capacity": 3})
rollout = SimpleNamespace(
    to_record=lambda: record, last_reply="<ANSWER>15</ANSWER>", record_metrics=lambda metrics: None
)
print(f"reward  {asyncio.run(reward(trace=rollout, task=SimpleNamespace(answer='15'))):.3f}")
