"""An engine that decodes a token a second for everybody, on a clock that only moves when it is polled."""

from simulator.recording.engine import Began, Burst, Ended, Failed


class StepEngine:
    """The decode-step clock as an engine. `says` maps a context to the text that a model goes on with."""

    counts_prompts = True
    ends_at_stops = False

    def __init__(self, says=None, pieces=1, fails=None, interrupt_at=None):
        self.says = says
        self.pieces = pieces  # characters a token
        self.fails = fails or {}  # by key: second at which its generation fails, and why
        self.interrupt_at = interrupt_at
        self.description = {"engine": "fake", "model": "none"}
        self.steps = []

    def reset(self, free):
        self.time = 0.0
        self.texts, self.sizes, self.live, self.closed, self.said = {}, {}, {}, [], {}

    @property
    def busy(self):
        return bool(self.live)

    def now(self):
        return self.time

    def open(self, key, parent, shared):
        assert key not in self.sizes and key not in self.closed
        assert parent is None or parent in self.sizes, "the parent's context is gone"
        self.texts[key] = ""
        self.sizes[key] = shared if parent is not None else 0
        return self.sizes[key]

    def context(self, key):
        return self.sizes[key]

    def give(self, key, tokens, text):
        self.texts[key] += text or ""
        count = tokens if text is None else len(text.split())
        self.sizes[key] += count
        return count

    def generate(self, key, asked):
        assert key not in self.live, "one generation a thread"
        assert asked.tokens > 0
        said = "" if self.says is None else self.says(self.texts[key])
        self.live[key] = [asked, 0, said, "", False]

    def stop(self, key, keep=None):
        state = self.live.pop(key, None)
        if state is not None:
            self.said[key] = state[3]
            self.texts[key] += state[3]  # what was decoded cannot be cut off
        return self.said[key][keep:] if keep is not None else ""

    def close(self, key):
        assert key not in self.live
        if self.sizes.pop(key, None) is not None:
            self.closed.append(key)

    def poll(self, until):
        if not self.live:
            self.time = self.time if until is None else max(self.time, until)
            return ()
        if self.interrupt_at is not None and self.time >= self.interrupt_at:
            raise KeyboardInterrupt
        start, self.time = self.time, self.time + 1.0
        self.steps.append(len(self.live))
        events = []
        for key, state in sorted(self.live.items()):
            asked, got, said, out, begun = state
            if key in self.fails and self.time >= self.fails[key][0]:
                del self.live[key]
                events.append(Failed(key, self.time, self.fails[key][1]))
                continue
            if not begun:
                events.append(Began(key, start))
            piece = said[len(out) : len(out) + self.pieces] if not asked.exact else ""
            self.sizes[key] += 1
            state[1:] = [got + 1, said, out + piece, True]
            events.append(Burst(key, self.time, piece, 1))
            over = (
                "length"
                if got + 1 == asked.tokens
                else "eos"
                if not asked.exact and len(out + piece) == len(said)
                else None
            )
            if over:
                self.texts[key] += out + piece
                self.said[key] = out + piece
                del self.live[key]
                events.append(Ended(key, self.time, over, got + 1))
        return events

    def shut(self):
        pass
