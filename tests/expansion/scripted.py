"""An OpenAI-compatible endpoint on loopback that does what it is told: what it writes depends on the instruction that it reads.

As the working model it writes one bare line unless the instruction asks for more. As the rewriting model it reads the scorer's
complaints and adds the demand that answers the first one that the instruction does not hold yet. Real HTTP, streamed.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: what the instruction may demand -> the complaint of the scorer that suggests it
DEMANDS = {"TWO-LEX": ("repeats the query",), "WITH-VEC": ("no vec line",), "WITH-HYDE": ("no hyde",)}


def write(instruction: str, query: str) -> str:
    """An obedient model's expansion."""
    lines = [f"lex: {query}"]
    if "TWO-LEX" in instruction:
        lines = [f"lex: {query} causes treatment", f"lex: {query} guideline emergency signs"]
    if "WITH-VEC" in instruction:
        lines.append(f"vec: what does a doctor advise about {query} and when is it dangerous")
    if "WITH-HYDE" in instruction:
        lines.append(
            f"hyde: Patients with {query} should be assessed without delay; the guideline lists the warning signs, the first measures at "
            "home and the reasons to call an ambulance."
        )
    return "\n".join(lines)


def rewrite(asked: str) -> str:
    """The next demand, because of what the scorer said."""
    instruction = asked.split("```")[1].strip()
    said = asked.partition("a strict scorer said")[2].lower()
    for demand, words in DEMANDS.items():
        if demand not in instruction and any(word in said for word in words):
            return f"Here it is:\n```\n{instruction}\nAlso {demand}.\n```"
    return f"```\n{instruction}\n```"


class Scripted:
    """`asked` holds (model, messages); `pause_s` slows every answer; `lines` replaces the working model's answer; the
    `fails_from`-th request from now (0: none) and all behind it fail."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[dict[str, str]]]] = []
        self.pause_s = 0.0
        self.lines: str | None = None
        self.status = 200
        self.fails_from = 0
        scripted, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                return

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    scripted.asked.append((body["model"], body["messages"]))
                time.sleep(scripted.pause_s)
                try:
                    self._answer(body)
                except OSError:
                    self.close_connection = True  # the client was killed

            def _answer(self, body: dict[str, Any]) -> None:
                if scripted.fails_from:
                    scripted.fails_from -= 1
                    scripted.status = scripted.status if scripted.fails_from else 503
                self.send_response(scripted.status)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                *system, user = body["messages"]
                text = write(system[0]["content"], user["content"]) if system else rewrite(user["content"])
                if system and scripted.lines is not None:
                    text = scripted.lines
                for event in ({"delta": {"content": text}}, {"delta": {}, "finish_reason": "stop"}):
                    self.wfile.write(b"data: " + json.dumps({"choices": [event]}, ensure_ascii=False).encode() + b"\n\n")
                self.wfile.write(b"data: [DONE]\n\n")

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.base = f"http://127.0.0.1:{self.server.server_address[1]}/v1"


@contextmanager
def serving() -> Iterator[Scripted]:
    scripted = Scripted()
    thread = threading.Thread(target=scripted.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield scripted
    finally:
        scripted.server.shutdown()
        scripted.server.server_close()
        thread.join(5)
