"""An OpenAI-compatible chat endpoint on loopback whose behaviour a test scripts, request by request. Real HTTP, real sockets."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from core.completions import split_completion
from core.records import Completion, Language, Message, Prompt, Risk
from core.teacher import ApiTeacher, Options
from core.teacher.ledger import Ledger
from core.teacher.limits import Backoff

RECEIPT = re.compile(r"r-[0-9a-f]{16}(?!.*r-[0-9a-f]{16})", re.DOTALL)
VERDICT = {"teacher_score": 0.7, "safety_flag": False, "critique": "Fine.", "suggested_answer": None}
USAGE = {"prompt_tokens": 400, "completion_tokens": 50, "prompt_tokens_details": {"cached_tokens": 0}}


@dataclass
class Seen:
    """One request as it arrived. `number` counts from 1."""

    number: int
    body: dict[str, Any]
    headers: dict[str, str]
    at: float

    @property
    def user(self) -> str:
        return str(self.body["messages"][-1]["content"])

    @property
    def receipt(self) -> str:
        """The word that an honest judge finds after the second mark."""
        found = RECEIPT.search(self.user)
        return found.group() if found else ""

    @property
    def data(self) -> dict[str, Any]:
        """What stands between the marks."""
        fence = next(line for line in self.user.splitlines() if line.startswith("=====DATA-"))
        found: dict[str, Any] = json.loads(self.user.split(fence)[1])
        return found

    @property
    def is_probe(self) -> bool:
        return "=====DATA-" not in self.user


@dataclass
class Answer:
    """What to send back. `drip_s`: one byte per so many seconds; `cut`: promise more than is sent; `reset`: break the connection."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    hang_s: float = 0.0
    drip_s: float = 0.0
    cut: bool = False
    reset: bool = False


Script = Callable[[Seen], Answer]


def completion(content: str | None, finish_reason: str = "stop", refusal: str | None = None, **extra: Any) -> dict[str, Any]:
    """The JSON of a chat completion with this content."""
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": content, "refusal": refusal}}
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "judge-1", "choices": [choice], "usage": USAGE}
    return body | {k: v for k, v in extra.items() if v is not None}


def verdict(seen: Seen, **changes: Any) -> Answer:
    """An honest judge's reply."""
    return Answer(body=completion(json.dumps({"receipt": seen.receipt, **VERDICT, **changes}, ensure_ascii=False)))


class ScriptedEndpoint:
    """`seen` holds the requests; `script` decides each answer."""

    def __init__(self, script: Script = verdict) -> None:
        self.script = script
        self.seen: list[Seen] = []
        self.num_open = self.most_open = self.num_connections = 0
        endpoint, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                with lock:
                    endpoint.num_connections += 1

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    seen = Seen(len(endpoint.seen) + 1, body, {k.lower(): v for k, v in self.headers.items()}, time.monotonic())
                    endpoint.seen.append(seen)
                    endpoint.num_open += 1
                    endpoint.most_open = max(endpoint.most_open, endpoint.num_open)
                try:
                    self.answer(endpoint.script(seen) if self.path == "/v1/chat/completions" else Answer(404))
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the teacher hung up first, as it should when time is up
                finally:
                    with lock:
                        endpoint.num_open -= 1

            def answer(self, answer: Answer) -> None:
                if answer.hang_s:
                    endpoint.stopping.wait(answer.hang_s)
                if answer.reset:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                    self.close_connection = True
                    return
                body = (
                    answer.body if answer.body is not None else {"error": {"message": "no", "type": "scripted", "code": str(answer.status)}}
                )
                payload = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
                self.send_response(answer.status)
                for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(payload) + (100 if answer.cut else 0)))
                self.end_headers()
                if answer.drip_s:
                    for byte in payload:
                        self.wfile.write(bytes([byte]))
                        if endpoint.stopping.wait(answer.drip_s):
                            break
                else:
                    self.wfile.write(payload)
                if answer.cut:
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                return None

        self.stopping = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        self.teachers: list[ApiTeacher] = []

    @property
    def judged(self) -> list[Seen]:
        """The requests that were not probes."""
        return [s for s in self.seen if not s.is_probe]

    def teacher(self, ledger: Ledger | None = None, **options: Any) -> ApiTeacher:
        """A teacher of this endpoint with pauses fit for tests."""
        chosen = {"timeout_s": 5.0, "num_attempts": 3, "backoff": Backoff(0.01, 0.02), "cool_down_s": 0.2, "idle_s": 0.2, **options}
        teacher = ApiTeacher(base_url=self.url, model="judge-1", api_key="k", options=Options(**chosen), ledger=ledger)
        self.teachers.append(teacher)
        return teacher

    def close(self) -> None:
        self.stopping.set()
        for teacher in self.teachers:
            teacher.close()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def ask_about(text: str = "Chest pain, aspirin?", risk: Risk = Risk.LOW, language: Language = Language.EN) -> Prompt:
    return Prompt((Message("user", text),), language, risk=risk, reference="Call 120.")


def answers(number: int, text: str = "Rest at home") -> list[Completion]:
    """Distinct completions: `text 0`, `text 1` ..."""
    return [split_completion(f"<think>Red flag.</think>{text} {i}") for i in range(number)]
