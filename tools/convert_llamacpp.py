"""Convert recorded llama.cpp fork/join runs to native traces, and prove the conversion.

    python tools/convert_llamacpp.py FOLDER > traces/recorded/llamacpp.jsonl
    python tools/convert_llamacpp.py FOLDER random|gemma > steps.jsonl

The second writes the engine steps of all runs of a model, as `forksim calibrate` reads them.

FOLDER holds llamacpp_random.jsonl and llamacpp_gemma.jsonl. A record says what was asked (`spec`) and, of each engine
step, when it ran and how much it did, but not for whom. `replay` runs the protocol on the recorded step times and so
finds out. It predicts five numbers of each step: decodes, prefilled tokens, both sums of contexts, sampled sequences.
A run is converted only if all five are as recorded in every step. All runs are replayed; the traces of the `SHIPPED`
ones are written to stdout, one a line, and what was checked to stderr.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from simulator.trace import ORGANIZER, Action, Answer, Fork, Join, Return, Think, Thread, Trace

MAX_PREFILL = 128  # tokens a step, over all sequences
MODELS = {"random": "random-weights Llama shape, 250M, Q8_0", "gemma": "gemma3-270m, Q4_K_M"}
SHIPPED = [  # model, kind, seed of the spec, repeat
    *[("random", "single", seed, 0) for seed in (100, 101, 103, 104, 110, 112, 113)],
    *[("random", "single", seed, 1) for seed in (101, 110)],
    *[("random", "multi", seed, repeat) for seed, repeat in ((200, 0), (200, 1), (203, 0), (204, 0))],
    ("random", "seq", 109, 0),
    *[("gemma", "single", seed, 0) for seed in (100, 101, 104, 110, 113)],
    ("gemma", "single", 101, 1),
    *[("gemma", "multi", seed, repeat) for seed, repeat in ((200, 0), (200, 1), (204, 0))],
    ("gemma", "seq", 109, 0),
]


Program = Generator[None, float, None]


class Mismatch(Exception):
    """A step that did not do what the protocol says."""


@dataclass(eq=False)
class Agent:
    """One sequence of the engine. It prefills what is `pending`, then samples until nothing is `wanted`.

    `context` counts tokens whose keys and values are stored. The token sampled last is not among them, and never is
    where a wait follows: what comes next is prefilled right after the one before it.
    """

    context: int = 0
    prompt: int = 0
    shared: int = 0
    pending: int = 0
    wanted: int = 0
    started: float | None = None
    finish: float | None = None
    actions: list[Action] = field(default_factory=list)
    program: Program | None = None
    parent: Agent | None = None

    def ask(self, tokens: int, pending: int = 0) -> None:
        """Want `tokens` decoded after `pending` are prefilled."""
        self.wanted, self.pending, self.started = tokens, pending, None


@dataclass(eq=False)
class Engine:
    """Continuous batching: a chunk of prefill, in order of admission, beside one token of every decoding agent."""

    cap: int
    running: int = 0
    waiting: deque[Agent] = field(default_factory=deque)
    prefilling: list[Agent] = field(default_factory=list)
    decoding: list[Agent] = field(default_factory=list)

    def step(self, start: float, finish: float) -> tuple[int, ...]:
        """Run one step; return what a record holds of it: nd, np, cd, cp, ns."""
        while self.waiting and self.running < self.cap:
            self.running += 1
            self.prefilling.append(self.waiting.popleft())
        decoders, sampled = list(self.decoding), list(self.decoding)
        decoded = prefilled = positions = 0
        for agent in decoders:
            agent.context += 1
            decoded += agent.context
        for agent in list(self.prefilling):
            taken = min(MAX_PREFILL - prefilled, agent.pending)
            if not taken:
                break
            positions += taken * agent.context + taken * (taken + 1) // 2
            agent.context += taken
            agent.pending -= taken
            prefilled += taken
            agent.started = start if agent.started is None else agent.started
            if not agent.pending:
                self.prefilling.remove(agent)
                self.decoding.append(agent)
                sampled.append(agent)
        for agent in sampled:
            agent.started = start if agent.started is None else agent.started
            agent.wanted -= 1
            if not agent.wanted:
                self.decoding.remove(agent)
                self.advance(agent, finish)
        return len(decoders), prefilled, decoded, positions, len(sampled)

    def advance(self, agent: Agent, now: float | None) -> None:
        """Let `agent` do what it does next: at `now` it has what it waited for, or (None) it begins."""
        assert agent.program is not None
        try:
            agent.program.send(now)  # type: ignore[arg-type]  # the first send to a generator is None
        except StopIteration:
            if agent.parent is not None:
                self.running -= 1
                if not agent.parent.wanted:
                    self.advance(agent.parent, now)
            return
        if agent.pending and agent.parent is None:
            self.prefilling.append(agent)
        elif agent.pending:
            self.waiting.append(agent)
        elif agent.wanted:
            self.decoding.append(agent)


def organizer(me: Agent, spec: dict[str, Any], workers: list[Agent], engine: Engine) -> Program:
    """Run one query. A yield waits for the tokens asked for, or, with none asked for, for the end of any worker."""
    pending = me.prompt = spec["prompt"]
    for asked in spec["rounds"]:
        me.ask(asked["n"], pending)
        now = yield
        me.actions.append(Think(asked["n"], start=me.started, finish=now))
        first = len(workers)
        for task, tokens, _ in asked["workers"]:
            one = Agent(me.context, prompt=me.context + task, shared=me.context, parent=me)
            one.program = worker(one, task, tokens)
            workers.append(one)
            me.actions.append(Fork(len(workers), start=now, finish=now))
            engine.advance(one, None)
        if asked["cont"]:
            me.ask(asked["cont"])
            now = yield
            me.actions.append(Think(asked["cont"], start=me.started, finish=now))
        crew = workers[first:]
        while any(one.finish is None for one in crew):
            yield
        for index, (one, (_, _, result)) in enumerate(zip(crew, asked["workers"], strict=True), first + 1):
            assert one.finish is not None
            joined = max(now, one.finish)
            me.actions.append(Join(index, inserted_tokens=result, start=now, finish=joined))
            now = joined
        pending = sum(result for _, _, result in asked["workers"])
    me.ask(spec["final"], pending)
    me.finish = yield
    me.actions.append(Answer(spec["final"], start=me.started, finish=me.finish))


def worker(me: Agent, task: int, tokens: int) -> Program:
    """Run one worker."""
    me.ask(tokens, task)
    me.finish = now = yield
    me.actions += [Think(tokens, start=me.started, finish=now), Return(start=now, finish=now)]


Queries = list[tuple[Agent, list[Agent]]]


def stored(queries: Queries) -> int:
    """Return the tokens in the KV cache: those of all that have not ended, shared ones once."""
    live = (agent for me, crew in queries if me.finish is None for agent in (me, *crew) if agent.finish is None)
    return sum(agent.context - agent.shared for agent in live)


def replay(record: dict[str, Any], cache: list[int] | None = None) -> Queries:
    """Return each query's organizer and workers, with the time of every action.

    `cache`, if given, is filled with the tokens in the KV cache in each step.

    Raises
    ------
    Mismatch
        If any step differs from the record, or a query's latency by more than a millisecond.
    """
    engine = Engine(record["spec"]["cap"])
    coming = deque(sorted(record["spec"]["progs"], key=lambda spec: spec["t"]))
    if list(coming) != record["spec"]["progs"]:
        raise Mismatch("queries are not in order of arrival")
    queries: list[tuple[Agent, list[Agent]]] = []
    for number, step in enumerate(record["steps"]):
        while coming and coming[0]["t"] <= step["t"]:
            me, workers = Agent(), list[Agent]()
            me.program = organizer(me, coming.popleft(), workers, engine)
            queries.append((me, workers))
            engine.advance(me, None)
        before = stored(queries)
        done = engine.step(step["t"], round(step["t"] + step["dt"], 6))
        if cache is not None:
            cache.append(before + done[0] + done[1])
        recorded = tuple(step[key] for key in ("nd", "np", "cd", "cp", "ns"))
        if done != recorded:
            raise Mismatch(f"step {number}: recorded {recorded}, replayed {done}")
    for (me, _), spec, latency in zip(queries, record["spec"]["progs"], record["lat"], strict=True):
        if me.finish is None or abs(me.finish - spec["t"] - latency) > 1e-3:
            raise Mismatch(f"a query ends at {me.finish}, its recorded latency is {latency}")
    return queries


def traces(model: str, record: dict[str, Any]) -> list[Trace]:
    """Return one trace a query; those of one run share ``meta["run"]``."""
    spec = record["spec"]
    run = f"{model}-{spec['kind']}-{spec['seed']}-{record['rep']}"
    made = []
    for number, (me, workers) in enumerate(replay(record)):
        threads = [Thread(ORGANIZER, tuple(me.actions), me.prompt)]
        threads += [Thread(str(i), tuple(w.actions), w.prompt, w.shared) for i, w in enumerate(workers, 1)]
        meta = {
            "run": run,
            "query": number,
            "queries": len(spec["progs"]),
            "kind": spec["kind"],
            "spec": spec["seed"],
            "rep": record["rep"],
            "cap": spec["cap"],
            "max_prefill": MAX_PREFILL,
            "latency": round(record["lat"][number], 6),
            "model": MODELS[model],
            "engine": "llama.cpp, one CPU thread",
            "load": round(record["load"], 3),
        }
        made.append(Trace(f"{run}/{number}", tuple(threads), arrival=spec["progs"][number]["t"], meta=meta))
    return made


def step_rows(model: str, record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the steps of a run as `forksim calibrate` reads them."""
    spec = record["spec"]
    run = f"{model}-{spec['kind']}-{spec['seed']}-{record['rep']}"
    cache: list[int] = []
    replay(record, cache)
    return [
        {
            "run": run,
            "start": step["t"],
            "seconds": step["dt"],
            "decodes": step["nd"],
            "decode_context": int(step["cd"]),
            "prefill_tokens": step["np"],
            "prefill_context": int(step["cp"]),
            "kv_tokens": kept,
        }
        for step, kept in zip(record["steps"], cache, strict=True)
    ]


def main(folder: str) -> None:
    """Replay all runs of `folder`, and write the shipped ones."""
    found: dict[tuple[str, str, int, int], list[Trace]] = {}
    steps = 0
    for model in MODELS:
        for line in (Path(folder) / f"llamacpp_{model}.jsonl").read_text().splitlines():
            record = json.loads(line)
            spec = record["spec"]
            found[model, spec["kind"], spec["seed"], record["rep"]] = traces(model, record)
            steps += len(record["steps"])
    for key in SHIPPED:
        for trace in found[key]:
            print(msgspec.json.encode(trace).decode())
    print(f"{len(found)} runs, {steps} steps: every step reproduced", file=sys.stderr)


def write_steps(folder: str, model: str) -> None:
    """Write the steps of all runs of a model."""
    for line in (Path(folder) / f"llamacpp_{model}.jsonl").read_text().splitlines():
        for row in step_rows(model, json.loads(line)):
            print(json.dumps(row))


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(sys.argv[1])
    elif len(sys.argv) == 3 and sys.argv[2] in MODELS:
        write_steps(*sys.argv[1:])
    else:
        sys.exit(__doc__)
