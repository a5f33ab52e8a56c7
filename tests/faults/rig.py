"""What the fault tests hold in their hands: real worker processes on a temporary home, and the journal of what ran."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.home import Home
from core.jobs import api
from core.jobs.kinds import KINDS
from core.jobs.launch import shim
from db import tables as t
from db.engine import read_session, write_session
from tests.faults.fake_worker import FAKES
from tests.faults.nursery import Forked, Nursery

DONE = ("succeeded", "failed", "cancelled", "lost")


class Rig:
    def __init__(self, home: Home, nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.nursery = nursery
        self.runs = str(home.runs.resolve())
        self.workers: list[Forked] = []
        for name, kind in FAKES.items():
            monkeypatch.setitem(KINDS, name, kind)

    def worker(self, *arguments: str, wait: bool = True, **env: str) -> Forked:
        log = self.home.root / "worker.log"
        marks = log.read_text().count("worker of ") if log.exists() else 0
        settings = {"CONSILIUM_HOME": str(self.home.root), "CONSILIUM_JOB_LEASE_S": "2", **env}
        process = self.nursery.start(arguments, {**os.environ, **settings}, str(log))
        self.workers.append(process)
        if wait:
            self.until(lambda: log.exists() and log.read_text().count("worker of ") > marks, "worker up")
        return process

    def kill(self, process: Forked, number: int = signal.SIGKILL) -> None:
        process.send_signal(number)
        process.wait(10)

    def enqueue(self, kind: str = "fake", *, after_id: int | None = None, dedup_key: str | None = None, **config: Any) -> int:
        with write_session() as session:
            return api.enqueue(session, kind, config, after_id=after_id, dedup_key=dedup_key)

    def job(self, job_id: int) -> t.Job:
        with read_session() as session:
            return api.get(session, job_id)

    def until(self, condition: Callable[[], object], what: str, timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout_s} s: {what}\n{self.log()}")
            time.sleep(0.05)

    def ended(self, *job_ids: int, timeout_s: float = 30) -> list[t.Job]:
        self.until(lambda: all(self.job(i).status in DONE for i in job_ids), f"jobs {job_ids} ended", timeout_s)
        return [self.job(i) for i in job_ids]

    def reached(self, job_id: int, step: int) -> None:
        saved = self.home.run_dir(job_id) / "checkpoints" / "step"
        self.until(lambda: saved.exists() and int(saved.read_text()) >= step, f"job {job_id} at step {step}")

    def journal(self, job_id: int | None = None, what: str | None = None) -> list[dict[str, Any]]:
        path = self.home.root / "journal.txt"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [e for e in lines if (job_id is None or e["job"] == job_id) and (what is None or e["what"] == what)]

    def supervisors(self) -> list[int]:
        return [pid for pid in shim.processes() if f"{self.runs}/".encode() in shim.read_proc(pid, "cmdline") and self._is_shim(pid)]

    def processes(self) -> list[int]:
        """Everything that carries the tag of a run of this home: trainings and whatever they started."""
        return [pid for pid in shim.processes() if (shim.tag_of(pid, shim.RUN_TAG) or "").startswith(self.runs)]

    def log(self) -> str:
        path: Path = self.home.root / "worker.log"
        return path.read_text()[-6000:] if path.exists() else ""

    def close(self) -> None:
        for process in self.workers:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(10)
        for pid in [*self.supervisors(), *self.processes()]:
            shim.send(pid, signal.SIGKILL)
        self.until(lambda: not self.supervisors() and not self.processes(), "nothing left", 10)

    def _is_shim(self, pid: int) -> bool:
        return b"--attempt" in shim.read_proc(pid, "cmdline")
