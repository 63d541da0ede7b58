"""First trace: from the text of a model to numbers.

Covers: parse, compile_trace, simulate, spans, measure, score

The text is in the AsyncThink format. The organizer forks two workers, thinks on beside them, joins both and answers.
Nobody recorded token counts, so each word counts as one token.
"""

from simulator import Outcome, Protocol, compile_trace, measure, parse, score, simulate
from simulator.trace.tokens import by_words

ORGANIZER = """
Odd or even first? Both at once.
<FORK-1> sum the odd numbers below 10 </FORK-1>
<FORK-2> sum the even numbers below 10 </FORK-2>
Both sums together are the sum of all numbers below 10, so 45 is what I expect.
<JOIN-1> 25 </JOIN-1> <JOIN-2> 20 </JOIN-2>
25 + 20 = 45, as expected.
<ANSWER> 45 </ANSWER>
"""
WORKERS = {
    "1": "1 + 3 = 4 and 4 + 5 = 9 and 9 + 7 = 16 and 16 + 9 = 25 <RETURN> 25 </RETURN>",
    "2": "2 + 4 = 6 and 6 + 6 = 12 and 12 + 8 = 20 <RETURN> 20 </RETURN>",
}

trace = parse(ORGANIZER, workers=WORKERS, id="sums", count=by_words, outcome=Outcome(correct=True))
protocol = Protocol(capacity=3)  # the organizer and two workers

graph = compile_trace(trace, protocol)
timeline = simulate(graph)  # on the decode-step clock: every agent emits one token a step
print("What happened:")
for span in timeline.spans():
    print(f"  {graph.threads[span.thread].id:9}  {span.kind.value:9}  {span.start:3.0f} to {span.finish:3.0f}")

metrics = measure(timeline)
print("What it amounts to:")
print(f"  tokens        {metrics.work:6.0f}")
print(f"  latency       {metrics.latency:6.0f} steps")
print(f"  speed-up      {metrics.speedup:6.2f} over one agent that does everything")
print(f"  concurrency   {metrics.eta:6.2f} of {protocol.capacity} agents")
print(f"  critical path {metrics.bound_decode:6.0%} organizer, {metrics.bound_worker:.0%} workers")

reward = score(trace, protocol)
print("What it earns:")
for name, term in reward.terms.items():
    print(f"  {name:13} {term:6.3f}")
print(f"  total         {reward.total:6.3f}")
