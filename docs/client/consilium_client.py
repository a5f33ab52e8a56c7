"""A client of the Consilium API in one file: standard library only, copy it where you need it.

api = Consilium("http://127.0.0.1:8765", "li", "a calm morning round")
job = api.post("jobs", {"kind": "sample", "config": {"model": "demo-sft"}})
api.wait(job["id"])
made = api.export("preferences", "pairs.jsonl", dataset="demo")
print(made["num_rows"], made["manifest"]["num_left_out"])
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


class ApiError(Exception):
    """What the server refused, as one sentence; `code` names it for programs."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{message} ({status}, {code})")
        self.status, self.code = status, code


class Consilium:
    """Signs in once; every call raises ApiError with the server's own sentence when it is refused."""

    def __init__(self, address: str, username: str, password: str) -> None:
        self.address, self.token = address.rstrip("/"), ""
        self.token = self.post("session", {"username": username, "password": password})["token"]

    def request(self, method: str, path: str, body: Any = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.token}"} if self.token else {})
        asked = urllib.request.Request(f"{self.address}/api/{path}", data, headers, method=method)  # noqa: S310 - the address is the caller's own
        try:
            with urllib.request.urlopen(asked, timeout=600) as answer:  # noqa: S310
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            told = json.loads(error.read())["error"]
            raise ApiError(error.code, told["code"], told["message"]) from None

    def get(self, path: str) -> Any:
        return json.loads(self.request("GET", path))

    def post(self, path: str, body: Any) -> Any:
        return json.loads(self.request("POST", path, body) or b"null")

    def wait(self, job_id: int, every_s: float = 2.0) -> dict[str, Any]:
        """Look at a job until it has ended."""
        while (job := self.get(f"jobs/{job_id}"))["status"] in ("queued", "running"):
            time.sleep(every_s)
        return dict(job)

    def export(self, kind: str, to: str, **chosen: Any) -> dict[str, Any]:
        """Make an export, fetch it and compare its hash."""
        made = self.post("exports", {"kind": kind, **chosen})
        content = self.request("GET", f"exports/{made['id']}/file")
        if hashlib.sha256(content).hexdigest() != made["sha256"]:
            raise ValueError("the file is not the one that was written; fetch it again")
        Path(to).write_bytes(content)
        return dict(made)


def is_from_consilium(secret: str, signature: str, body: bytes, max_age_s: float = 300) -> bool:
    """Check the X-Consilium-Signature of a webhook before believing its body."""
    given = dict(part.split("=", 1) for part in signature.split(","))
    wanted = hmac.new(secret.encode(), f"{given['t']}.".encode() + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(wanted, given["v1"]) and abs(time.time() - int(given["t"])) <= max_age_s
