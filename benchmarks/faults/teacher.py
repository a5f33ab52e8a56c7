"""A teacher endpoint as a process that can be killed: `python -m benchmarks.faults.teacher MODE_FILE PORT_FILE [PORT]`.

Speaks OpenAI's chat completions and gives an honest judge's verdict, or, while the mode file says "hang", takes the request and is silent.
"""

from __future__ import annotations

import json
import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

RECEIPT = re.compile(r"r-[0-9a-f]{16}(?!.*r-[0-9a-f]{16})", re.DOTALL)


def serve(mode: Path, told: Path, port: int) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            while mode.read_text() == "hang":
                time.sleep(0.2)
            time.sleep(0.2)
            found = RECEIPT.search(str(body["messages"][-1]["content"]))
            said = {
                "receipt": found.group() if found else "",
                "teacher_score": 0.7,
                "safety_flag": False,
                "critique": "Fine.",
                "suggested_answer": None,
            }
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": json.dumps(said)}}
            answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "judge", "choices": [choice]}
            payload = json.dumps({**answer, "usage": {"prompt_tokens": 9, "completion_tokens": 9}}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    told.write_text(str(server.server_address[1]))
    server.serve_forever()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
