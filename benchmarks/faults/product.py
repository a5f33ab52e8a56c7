"""The product as `./run.sh` starts it, on a home of its own, and a reader who keeps what was not acknowledged. For the fault cases."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from sqlalchemy import select

from benchmarks.load.fill import fill
from core import accounts, audit
from core.desk import search
from core.home import open_home
from core.jobs.api import enqueue
from core.records import FINAL_JOB_STATUSES
from core.settings import ROOT, load_settings
from db import tables as t
from db.engine import database, read_session, write_session

PASSWORD = "a calm morning round"
PATIENCE_S = 500.0
FORM = {"verdict": "minor", "dwell_ms": 900, "confidence": "high", "who_was_right": "teacher", "note": "by the fault run"}


def until(check: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> Any:
    """The first truthy answer of `check`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := check():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


@dataclass
class Product:
    """`said` collects the sentences that the reader was answered; `acknowledged` what the server called stored."""

    home: Path
    extra: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    said: list[str] = field(default_factory=list)
    acknowledged: dict[str, int] = field(default_factory=dict)
    _token: str = ""
    _done: int = 0

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("CONSILIUM_")}
        asked = {"CONSILIUM_HOME": str(self.home), "CONSILIUM_LANGUAGE": "en", "CONSILIUM_MODEL_SERVER_PORT": "0"}
        return {**kept, **asked, **self.extra}

    def prepare(self, *, num_cases: int = 300) -> None:
        with self.opened(with_migration=True):
            for name, role in (("reader", "clinician"), ("engineer", "engineer")):
                user_id = accounts.create_user(name, f"Dr {name}", role, by=None)
                accounts.use_link(accounts.make_link(user_id, by=None), PASSWORD)
            fill(num_cases)
            search.refresh()

    def opened(self, *, with_migration: bool = False) -> Any:
        """This process's database is the product's, inside the block."""
        from contextlib import contextmanager

        @contextmanager
        def block() -> Any:
            open_home(load_settings(self.environment), with_migration=with_migration)
            try:
                yield
            finally:
                database().dispose()

        return block()

    # --- its processes

    def start(self, *arguments: str) -> None:
        printed = (self.home.parent / f"{self.home.name}.printed").open("ab")
        command = [sys.executable, "-m", "app", "serve", "--port", "0", "--empty", "--no-browser", *arguments]
        self.process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=printed, stderr=printed, start_new_session=True)
        printed.close()

    def up(self) -> None:
        until(self.answers, "the web process answers")

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/login", trust_env=False, timeout=5).status_code == 200
        except (httpx.HTTPError, KeyError):
            return False

    @property
    def url(self) -> str:
        return str(self.children()["web"]["address"])

    def printed(self) -> str:
        return (self.home.parent / f"{self.home.name}.printed").read_text(errors="replace")

    def children(self) -> dict[str, dict[str, Any]]:
        try:
            found: dict[str, dict[str, Any]] = json.loads((self.home / "processes.json").read_text())
        except (OSError, ValueError):
            return {}
        return found

    def pid(self, name: str) -> int:
        return int(until(lambda: self.children().get(name, {}).get("pid"), f"{name} started"))

    def kill(self, name: str) -> int:
        pid = self.pid(name)
        psutil.Process(pid).send_signal(signal.SIGKILL)
        return pid

    def family(self, job: int, *, is_supervisor: bool) -> list[psutil.Process]:
        """The processes of a job: its supervisor, or the job's own."""
        folder, found = str(self.home / "runs" / f"{job:06d}"), []
        for process in psutil.process_iter(["cmdline"]):
            line = process.info["cmdline"] or []
            if any(part.startswith(folder) for part in line) and any("shim" in part for part in line) == is_supervisor:
                found.append(process)
        return found

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill_all()
        self.process = None

    def kill_all(self) -> None:
        """As a power cut ends it: every process of it, at one moment."""
        mine = [self.process.pid] if self.process else []
        for process in psutil.process_iter(["environ", "pid"]):
            if (process.info["environ"] or {}).get("CONSILIUM_HOME") == str(self.home) and process.pid != os.getpid():
                mine.append(process.pid)
        for pid in mine:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if self.process:
            self.process.wait(20)
        self.process = None

    # --- what people do

    def call(self, method: str, path: str, *, who: str = "engineer", timeout: float = 60, **values: Any) -> httpx.Response:
        """One request of a person who has just signed in."""
        with httpx.Client(base_url=self.url, trust_env=False, timeout=timeout) as client:
            token = client.post("/api/session", json={"username": who, "password": PASSWORD}).raise_for_status().json()["token"]
            return client.request(method, path, headers={"Authorization": f"Bearer {token}"}, **values)

    def post(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """One message of the desk, once: its ack, or None when nobody answered. What was said is kept."""
        try:
            with httpx.Client(base_url=self.url, trust_env=False, timeout=90) as client:
                if not self._token:
                    answer = client.post("/api/session", json={"username": "reader", "password": PASSWORD})
                    if answer.status_code != 201:
                        self._hear(answer.json()["error"]["message"])
                        return None
                    self._token = answer.json()["token"]
                answer = client.post("/api/desk", json={"messages": [message]}, headers={"Authorization": f"Bearer {self._token}"})
        except (httpx.TransportError, KeyError):
            self._hear("(nobody answers: the desk keeps the decision and sends it again)")
            return None
        if answer.status_code != 200:
            self._hear(answer.json()["error"]["message"])
            self._token = "" if answer.status_code == 401 else self._token
            return None
        body = answer.json()
        ack: dict[str, Any] = body["acks"][0]
        self.queue = [row["id"] for row in body.get("queue", ()) if row["status"] == "open"]
        if not ack["ok"]:
            self._hear(ack["text"])
        return ack

    def settle(self, message: dict[str, Any], seconds: float = PATIENCE_S) -> dict[str, Any]:
        """Send a message until it is answered for good."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ack = self.post(message)
            if ack is not None and (ack["ok"] or not ack["retry"]):
                return ack
            time.sleep(0.3)
        raise AssertionError(f"no answer for {seconds:.0f} s; the last sentences: {self.said[-3:]}")

    def take(self) -> tuple[int, str, int]:
        """An open case in hand: its number, the hold and its version."""
        self.settle({"id": "look-around", "type": "list", "case": 0})
        for case in self.queue[:20]:
            ack = self.settle({"id": f"claim-{case}-{time.monotonic_ns()}", "type": "claim", "case": case})
            if ack["ok"]:
                return case, ack["lease_token"], ack["version"]
        raise AssertionError("no case could be taken")

    def sign(self, case: int, hold: str, version: int) -> None:
        """Commit and sign, each until it is acknowledged."""
        for kind in ("commit", "sign"):
            message = {"id": f"{kind}-{case}", "type": kind, "case": case, "lease_token": hold, "version": version, "form": FORM}
            ack = self.settle(message)
            assert ack["ok"], ack
            version = ack["version"]
            self.acknowledged[f"{kind}-{case}"] = ack["adjudication_id"]

    def decide(self, num: int = 1) -> None:
        for _ in range(num):
            self.sign(*self.take())

    def _hear(self, sentence: str) -> None:
        if sentence not in self.said:
            self.said.append(sentence)

    # --- what is true afterwards

    def lost(self) -> str:
        """What of the acknowledged decisions is not stored once, and whether the record holds."""
        with self.opened(), read_session() as session:
            rows = session.scalars(select(t.Adjudication).where(t.Adjudication.note == FORM["note"])).all()
            broken = audit.verify(session)
        stored = {row.client_id: row.id for row in rows}
        assert broken is None, f"the audit chain breaks at {broken}"
        assert len(stored) == len(rows), "a decision is stored twice"
        missing = [key for key, number in self.acknowledged.items() if stored.get(key) != number]
        assert not missing, f"lost: {missing}"
        return f"nothing ({len(self.acknowledged)} of {len(self.acknowledged)} decisions once; chain verifies)"

    def queue_job(self, kind: str, config: dict[str, Any]) -> int:
        with self.opened(), write_session() as session:
            return enqueue(session, kind, config)

    def job(self, job_id: int) -> t.Job:
        with self.opened(), read_session() as session:
            return session.get_one(t.Job, job_id)

    def ended(self, job_id: int) -> t.Job:
        until(lambda: self.job(job_id).status in FINAL_JOB_STATUSES, f"job {job_id} ended")
        return self.job(job_id)

    def launcher_said(self, pattern: str) -> str:
        found = re.findall(pattern, self.printed())
        return str(found[-1]) if found else ""
