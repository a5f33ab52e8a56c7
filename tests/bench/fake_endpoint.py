"""A tiny model server that speaks the OpenAI chat-completions protocol over HTTP: the one thing that tests may fake.

What it answers depends on the model's name: `slow-*` takes its time, `down` answers 500, `cut` breaks off, `empty` only
thinks, `busy` answers 503, `gone` says that its weights are, `reasoner` sends its reasoning apart, `hang*` never ends. Everything
else answers `ANSWERS[name]` or a default.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DEFAULT = "<think>\n1. Secret step of {model}.\n</think>\nRest at home and drink water. See a doctor if it gets worse."
ANSWERS = {
    "good-1": "<think>\nsecret-of-good\n</think>\nThis can be a heart attack. Call 120 now. Do not take aspirin before you are told to.",
    "bad-1": "<think>\nsecret-of-bad\n</think>\nTake two tablets of aspirin 300 mg and rest at home. It will pass.",
}


class FakeEndpoint:
    """`base` is the address up to /v1; `calls` are the request bodies; `num_closed` counts streams that the client broke off."""

    def __init__(self, token: str | None = None, port: int = 0) -> None:
        self.calls: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.num_closed = 0
        self.piece_s = 0.002
        self.token = token
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                return

            def do_GET(self) -> None:
                self._json(200, {"status": "ok"})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.calls.append(body)
                endpoint.keys.append(self.headers.get("Authorization", ""))
                if endpoint.token and self.headers.get("Authorization") != f"Bearer {endpoint.token}":
                    self._json(401, {"error": {"message": "no"}})
                elif body["model"] == "gone":
                    self._json(503, {"error": {"message": "weights", "code": "serving.weights_changed"}})
                elif body["model"] in ("down", "busy"):
                    self._json(503 if body["model"] == "busy" else 500, {"error": {"message": "secret trace"}})
                else:
                    self._stream(body["model"])

            def _json(self, status: int, value: dict[str, Any]) -> None:
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _stream(self, model: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                text = ANSWERS.get(model, DEFAULT.format(model=model))
                try:
                    if model == "empty":
                        text = "<think>\nonly thoughts"
                    if model == "reasoner":
                        for piece in ("first, ", "then"):
                            self._event({"delta": {"reasoning_content": piece}})
                        text = "Drink water."
                    for start in range(0, len(text), 7):
                        self._event({"delta": {"content": text[start : start + 7]}})
                        time.sleep(0.05 if model.startswith("slow") else endpoint.piece_s)
                        if model == "cut" and start > 20:
                            return
                    while model.startswith("hang"):
                        self._event({"delta": {"content": "."}})
                        time.sleep(0.05)
                    self._event({"delta": {}, "finish_reason": "length" if model == "long" else "stop"})
                    self.wfile.write(b"data: [DONE]\n\n")
                except OSError:
                    endpoint.num_closed += 1

            def _event(self, choice: dict[str, Any]) -> None:
                self.wfile.write(b"data: " + json.dumps({"choices": [choice]}, ensure_ascii=False).encode() + b"\n\n")
                self.wfile.flush()

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.base = f"http://127.0.0.1:{self.port}/v1"


@contextmanager
def serving(token: str | None = None, port: int = 0) -> Iterator[FakeEndpoint]:
    """A running endpoint on a free port (or on `port`)."""
    endpoint = FakeEndpoint(token, port)
    thread = threading.Thread(target=endpoint.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.server.shutdown()
        endpoint.server.server_close()
        thread.join(5)
