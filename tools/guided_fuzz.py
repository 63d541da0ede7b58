"""The doors under coverage-guided fuzzing: ``pip install '.[fuzz]'``, then ``python tools/guided_fuzz.py DOOR``.

Further arguments go to libFuzzer, such as ``-max_total_time=60`` or a folder of inputs to begin with. Whatever a door
does but take the input or refuse it ends the run, with the input in a file.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import atheris

with atheris.instrument_imports(include=["simulator"]):
    from simulator import Protocol, compile_trace, decode_clock, parse, render, score_batch
    from simulator.errors import SimulatorError
    from simulator.formats import FORMATS
    from simulator.formats.logs.base import Reading
    from simulator.formats.reading import _items
    from simulator.machine.profiles import parse_profile
    from simulator.recording.sse import BadStream, Events, chunk
    from simulator.rewards import Reader
    from simulator.rewards.loading import parse_reward
    from simulator.study import parse_study
    from simulator.study.store.journal import open_line
    from simulator.support.toml import parse_toml

RULES = Protocol(capacity=3)
BYTES = Reader(decode=lambda ids: bytes(id % 256 for id in ids).decode(errors="replace"))


def text_of(data: bytes) -> str:
    return data.decode("utf-8", errors="surrogateescape")


def texts(data: bytes) -> None:
    """Every format, by the first byte."""
    names = [name for name in FORMATS]
    name = names[data[0] % len(names)] if data else names[0]
    trace = parse(text_of(data[1:]), format=name)
    decode_clock(trace, RULES)
    compile_trace(trace, RULES)
    for form in FORMATS.values():
        if form.render is not None:
            with suppress(SimulatorError):
                render(trace, form.name)


def rewards(data: bytes) -> None:
    """A text, its worker and a mask: nothing raises, and a row comes out."""
    cut = len(data) // 2
    text, worker = text_of(data[:cut]), text_of(data[cut:])
    ids = {"text": list(data[:cut]), "workers": {"1": list(data[cut:])}, "mask": [byte % 3 for byte in data[:cut]]}
    rollouts = [text, {"text": text, "workers": {"1": worker}}]
    assert len(score_batch(rollouts, protocol=RULES, reader=Reader(format="detect"))) == 2
    assert len(score_batch([ids], protocol=RULES, reader=BYTES)) == 1


def files(data: bytes) -> None:
    """A file of traces, whatever it is."""
    for item in _items(io.BufferedReader(io.BytesIO(data)), "", None, Reading("fuzz")):
        assert item is not None


def toml(data: bytes) -> None:
    """Study, reward and profile, by the first byte."""
    text = text_of(data[1:])
    match data[0] % 3 if data else 0:
        case 0:
            parse_toml("study", text, parse_study)
        case 1:
            parse_reward(text)
        case _:
            parse_profile(text, "fuzz")


def streams(data: bytes) -> None:
    """What a server streams."""
    events = Events()
    for at in range(0, len(data), 7):
        for each in events.feed(data[at : at + 7]):
            chunk(each)


def journals(data: bytes) -> None:
    """A line of a result folder's journal."""
    open_line(data, 4)


DOORS: dict[str, Callable[[bytes], Any]] = {
    door.__name__: door for door in (texts, rewards, files, toml, streams, journals)
}


def main() -> None:
    """Fuzz the door that the first argument names."""
    if len(sys.argv) < 2 or sys.argv[1] not in DOORS:
        sys.exit(f"usage: python tools/guided_fuzz.py {{{','.join(DOORS)}}} [libFuzzer's arguments]")
    door = DOORS[sys.argv.pop(1)]

    def once(data: bytes) -> None:
        with suppress(SimulatorError, BadStream):
            door(data)

    atheris.Setup(sys.argv, once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
