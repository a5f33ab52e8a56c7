"""Stand-ins for other people's queues, which really run what they are given: Ray's job interface over HTTP, and a `sky` command.

Neither is the thing itself: they answer as Ray 2.60 and SkyPilot 0.14.1 do to the few requests that the launchers make (read from
their sources), so what they prove is our side. CONSILIUM_TEST_RAY_URL names a real Ray for the same tests.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class FakeRay:
    """Ray's head: a submission is a shell command in a session of its own. `broken` makes it answer 500."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.broken = False
        self.tokens: set[str] = set()
        ray = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                ray.tokens.add(self.headers.get("Authorization", ""))
                status, told = (500, "Traceback ...\nRuntimeError: GCS is away") if ray.broken else ray.do(self.command, self.path, body)
                data = told.encode() if isinstance(told, str) else json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = answer

            def log_message(self, *_: Any) -> None:
                return None

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def do(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        _, _, rest = path.partition("/api/jobs/")
        if method == "POST" and not rest:
            return self._submit(json.loads(body))
        if method == "GET" and not rest:
            return 200, [{"submission_id": name, "type": "SUBMISSION", "status": self._status(name)} for name in self.jobs]
        name, _, verb = rest.partition("/")
        if name not in self.jobs:
            return 404, f"Job {name} does not exist"
        if verb == "stop" and self.processes[name].poll() is None:
            os.killpg(self.processes[name].pid, signal.SIGTERM)
        return 200, {"stopped": True}

    def _submit(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        name = wanted["submission_id"]
        if name in self.jobs:
            return 500, f"Traceback ...\nValueError: Job with submission_id {name} already exists. Please use a different submission_id."
        if wanted.get("entrypoint_num_gpus", 0) > 8:
            return 400, "Traceback ...\nValueError: no node has 9 GPUs"
        self.jobs[name] = wanted
        environ = {**os.environ, **wanted["runtime_env"]["env_vars"], "CUDA_VISIBLE_DEVICES": "3"}
        self.processes[name] = subprocess.Popen(wanted["entrypoint"], shell=True, start_new_session=True, env=environ)
        return 200, {"submission_id": name, "job_id": name}

    def _status(self, name: str) -> str:
        code = self.processes[name].poll()
        return "RUNNING" if code is None else "FAILED" if code else "SUCCEEDED"

    def forget(self) -> None:
        """As a head that was started again: jobs run on, the list is empty."""
        self.jobs.clear()

    def close(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


#: a `sky` that keeps its jobs in a folder and answers in the words of the real one
SKY = """#!{python} -S
import json, os, signal, subprocess, sys
from pathlib import Path
state = Path({state!r})
words = sys.argv[1:]
with (state / "calls").open("a") as calls:
    calls.write(json.dumps(words) + "\\n")
if (state / "broken").exists():
    sys.exit("Failed to connect to SkyPilot API server at http://127.0.0.1:46580.")
if words[:2] == ["jobs", "launch"]:
    task = json.loads(Path(words[-1]).read_text())
    if "H9000:1" in json.dumps(task):
        sys.exit("sky.exceptions.ResourcesUnavailableError: no resource satisfying the requirement")
    number = 1 + len(list(state.glob("*.json")))
    node = {{k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}}
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process = subprocess.Popen(task["run"], shell=True, env=node, start_new_session=True, **quiet)
    (state / f"{{number}}.json").write_text(json.dumps({{"job_id": number, "job_name": task["name"], "pid": process.pid}}))
    print(f"Job submitted, Job ID: {{number}}")
elif words[:2] == ["jobs", "queue"]:
    jobs = []
    for path in state.glob("*.json"):
        job = json.loads(path.read_text())
        stat = Path(f"/proc/{{job['pid']}}/stat")
        alive = stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
        jobs.append({{**job, "status": "RUNNING" if alive else "SUCCEEDED"}})
    print(json.dumps(jobs, indent=2))
elif words[:2] == ["jobs", "cancel"]:
    for number in words[3:]:
        os.killpg(json.loads((state / f"{{number}}.json").read_text())["pid"], signal.SIGTERM)
"""


class FakeSky:
    """The command at `command`, its jobs in `state`."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "sky-state"
        self.state.mkdir()
        path = folder / "sky"
        path.write_text(SKY.format(python=sys.executable, state=str(self.state)))
        path.chmod(0o755)
        self.command = str(path)

    def calls(self) -> list[list[str]]:
        path = self.state / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def forget(self) -> None:
        for path in self.state.glob("*.json"):
            path.unlink()
