"""An OpenAI-compatible server in a thread: deterministic, without a model, and bad in any way a test asks for."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeServer:
    """Streams completions. Each option makes it good or bad; `requests` holds what it was sent.

    `says(prompt)` is the text that a model goes on with; by default words. A token is `size` characters.
    """

    def __init__(self, **options):
        self.says = options.pop("says", None)
        self.size = options.pop("size", 4)
        self.slice = options.pop("slice", None)  # bytes a write
        self.usage = options.pop("usage", True)
        self.tokenize = options.pop("tokenize", True)
        self.ignores_eos = options.pop("ignores_eos", True)
        self.tells_stop = options.pop("tells_stop", True)
        self.obeys_stop = options.pop("obeys_stop", True)
        self.raw = options.pop("raw", {})  # by path, a function that writes what is sent back, headers and all
        self.fault = options.pop("fault", None)  # function from (request, its number) to what goes wrong, or None
        assert not options
        self.requests = []
        self.headers = []
        self.hanging = threading.Event()
        self.released = threading.Event()
        self.gone = threading.Event()
        self.lock = threading.Lock()

        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_):
                pass

            def do_GET(self):
                if self.path in fake.raw:
                    return fake.raw[self.path](self)
                fake.answer(self, {"data": [{"id": "fake-model"}]} if self.path == "/v1/models" else None)

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path in fake.raw:
                    return fake.raw[self.path](self)
                fake.headers.append(self.headers)
                if self.path == "/tokenize":
                    text = body["prompt"]
                    fake.answer(self, {"count": 1 + len(text.split())} if fake.tokenize else None)
                elif self.path in ("/v1/completions", "/v1/chat/completions"):
                    fake.complete(self, body)
                else:
                    fake.answer(self, None)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                fake.gone.set()  # the client closed its connection

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    def answer(self, handler, value, status=None):
        data = json.dumps(value).encode()
        handler.send_response(status or (404 if value is None else 200))
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def complete(self, handler, body):
        chat = "messages" in body
        prompt = "\n".join(m["content"] for m in body["messages"]) if chat else body["prompt"]
        # One that begins it, and the words; where tokens are characters, the characters.
        prompt_tokens = 1 + (len(prompt) if self.says and self.size == 1 else len(prompt.split()))
        if not body.get("stream"):
            usage = {"prompt_tokens": prompt_tokens, "completion_tokens": 1}
            self.answer(handler, {"choices": [], "usage": usage} if self.usage else {"choices": []})
            return
        with self.lock:
            number = len(self.requests)
            self.requests.append(body)
        fault = self.fault(body, number) if self.fault else None
        if fault is not None and isinstance(fault, int):
            self.answer(handler, {"error": {"message": f"cannot serve {handler.headers['Authorization']}"}}, fault)
            return
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        tokens, reason, stop = self.tokens(body, prompt)
        events = []
        for at, token in enumerate(tokens):
            if fault == ("garbage", at):
                events.append(b"data: {this is no JSON\n\n")
            if fault == ("error", at):
                events.append(b'data: {"error": {"message": "out of memory"}}\n\n')
            if fault in (("disconnect", at), ("hang", at)):
                break
            choice = {"delta": {"content": token}} if chat else {"text": token}
            events.append(self.event({"choices": [choice | {"index": 0, "finish_reason": None}]}))
        else:
            last = {"index": 0, "finish_reason": reason} | ({"delta": {}} if chat else {"text": ""})
            if self.tells_stop and stop:
                last["stop_reason"] = stop
            if fault != "no finish":
                events.append(self.event({"choices": [last]}))
            if self.usage:
                # The stop string was decoded, whether it is in the text or not.
                hidden = len(stop) // self.size if stop and not "".join(tokens).endswith(stop) else 0
                usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(tokens) + hidden}
                events.append(self.event({"choices": [], "usage": usage}))
            if fault != "no done":
                events.append(b"data: [DONE]\r\n\r\n")
        data = b": a comment\n\n" + b"".join(events)
        size = self.slice or len(data)
        for at in range(0, len(data), size):
            handler.wfile.write(data[at : at + size])
            handler.wfile.flush()
        if isinstance(fault, tuple) and fault[0] == "hang":
            self.hanging.set()
            self.released.wait()
        handler.close_connection = True

    def event(self, value):
        return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"

    def tokens(self, body, prompt):
        """What a completion says, why it ends, and by which stop string."""
        limit = body["max_tokens"]
        if self.says is None:
            words = limit if self.ignores_eos or limit < 4 else 3
            return ["wörd"] * words, "length" if words == limit else "stop", None
        text = self.says(prompt)
        stops = body.get("stop") or [] if self.obeys_stop else []
        found = min(((text.index(stop), stop) for stop in stops if stop in text), default=None)
        included = self.tells_stop and body.get("include_stop_str_in_output")
        if found is not None:
            text = text[: found[0]] + (found[1] if included else "")
        tokens = [text[at : at + self.size] for at in range(0, len(text), self.size)]
        if len(tokens) > limit:
            return tokens[:limit], "length", None
        return tokens, "stop", found and found[1]
