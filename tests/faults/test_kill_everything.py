"""The whole product under kill -9: 20 jobs and 100 adjudications while web, worker and model server die at random.

What must hold: no acknowledged decision is lost or stored twice, every job ends exactly once, and a training killed halfway
goes on from its checkpoint. Everything is real: the launcher, HTTP, the job scripts, a training.
"""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import func, select

from core import accounts, audit
from core.home import Home
from core.jobs.api import enqueue
from core.records import FINAL_JOB_STATUSES
from db import tables as t
from db.engine import database, read_session, write_session
from tests import factories
from tests.faults.test_launcher import Started, until

NUM_CASES = 100
NUM_IMPORTS, NUM_INDEXES = 14, 4
PASSWORD = "a calm morning round"
TINY_BASE = {"hidden_size": 32, "num_layers": 2, "vocab_size": 600, "num_documents": 40, "num_chats": 60, "tokens_per_batch": 2048}
TINY_SFT = {"name": "tiny-sft", "base_model": "demo-base", "engine": "compact", "max_samples": 160, "batch_size": 4, "lora_r": 4}
TINY_SFT |= {"save_steps": 2}
#: how often each process is killed: few enough that the growing pauses before a restart do not become the test
DEATHS = ["worker"] * 5 + ["model_server"] * 3 + ["web"] * 3


class Reviewer(threading.Thread):
    """Adjudicates over HTTP until the queue is empty; resends whatever was not acknowledged, as the page does."""

    def __init__(self, url: str, username: str) -> None:
        super().__init__(daemon=True)
        self.url, self.username = url, username
        self.token = ""
        self.acknowledged: dict[str, tuple[int, int]] = {}
        self.failure: BaseException | None = None
        self.num_refused = 0

    def run(self) -> None:
        try:
            with httpx.Client(base_url=self.url, timeout=20, trust_env=False) as client:
                while (case := self.take(client)) is not None:
                    self.decide(client, *case)
        except BaseException as error:
            self.failure = error

    def post(self, client: httpx.Client, message: dict[str, Any]) -> dict[str, Any]:
        """Send until the server answers: the answer may be the receipt of an earlier sending."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                if not self.token:
                    answer = client.post("/api/session", json={"username": self.username, "password": PASSWORD})
                    answer.raise_for_status()
                    self.token = answer.json()["token"]
                answer = client.post("/api/desk", json={"messages": [message]}, headers={"Authorization": f"Bearer {self.token}"})
            except httpx.TransportError:
                time.sleep(0.2)
                continue
            assert answer.status_code == 200, answer.text
            body: dict[str, Any] = answer.json()
            if not body["acks"][0]["ok"] and body["acks"][0]["retry"]:
                time.sleep(0.2)
                continue
            return body
        raise AssertionError("no answer for two minutes")

    def take(self, client: httpx.Client) -> tuple[int, str, int] | None:
        while True:
            queue = [row for row in self.post(client, {"id": "look-around", "type": "none", "case": 0})["queue"] if row["status"] == "open"]
            if not queue:
                return None
            case = random.choice(queue[:10])["id"]
            ack = self.post(client, {"id": f"claim-{case}-{self.username}", "type": "claim", "case": case})["acks"][0]
            if ack["ok"]:
                return case, ack["lease_token"], ack["version"]
            self.num_refused += 1

    def decide(self, client: httpx.Client, case: int, lease_token: str, version: int) -> None:
        form = {"verdict": "minor", "dwell_ms": 900, "confidence": "high", "who_was_right": "teacher", "note": f"by {self.username}"}
        for kind in ("commit", "sign"):
            message = {"id": f"{kind}-{case}-{self.username}", "type": kind, "case": case, "lease_token": lease_token, "version": version}
            ack = self.post(client, {**message, "form": form})["acks"][0]
            assert ack["ok"], ack
            version = ack["version"]
            self.acknowledged[ack["id"]] = (ack["adjudication_id"], ack["entry"])


def prepare(home: Home, folder: Path) -> list[int]:
    """People, 100 open cases, 20 queued jobs. Returns the jobs' ids."""
    for name in ("reviewer1", "reviewer2"):
        user_id = accounts.create_user(name, f"Dr {name}", "clinician", by=None)
        accounts.use_link(accounts.make_link(user_id, by=None), PASSWORD)
    documents = folder / "documents"
    documents.mkdir()
    for n in range(6):
        (documents / f"guide{n}.md").write_text(f"# Guide {n}\n\nFever above 39 degrees for {n + 2} days needs a doctor. Rest and drink.\n")
    with write_session() as session:
        owner = factories.dataset(session)
        for n in range(NUM_CASES):
            sample = factories.sample(session, f"Question {n}: fever for {n} days, what helps?", dataset=owner)
            factories.conflict(session, completion=factories.completion(session, sample=sample))
        base = enqueue(session, "demo_base", TINY_BASE, priority=5)
        jobs = [base, enqueue(session, "sft", TINY_SFT, after_id=base, priority=5)]
        for n in range(NUM_IMPORTS):
            file = folder / f"prompts{n}.jsonl"
            file.write_text("\n".join(json.dumps({"prompt": f"File {n}, question {i}: headache since Monday?"}) for i in range(200)))
            jobs.append(enqueue(session, "import", {"path": str(file), "dataset": f"imported{n}"}))
        jobs += [enqueue(session, "index", {"name": f"index{n}", "folder": str(documents)}) for n in range(NUM_INDEXES)]
    return jobs


def kill_at_random(started: Started, over: threading.Event, rng: random.Random) -> list[str]:
    """kill -9 one child after another, each only when it is up again."""
    deaths = DEATHS.copy()
    rng.shuffle(deaths)
    killed = []
    for name in deaths:
        if over.wait(rng.uniform(0.5, 2.5)):
            break
        child = started.children().get(name)
        if child and psutil.pid_exists(child["pid"]):
            psutil.Process(child["pid"]).send_signal(signal.SIGKILL)
            killed.append(name)
    return killed


def kill_training_once(home: Home, job_id: int) -> int:
    """kill -9 the training itself after its first checkpoint; returns the step it had reached."""

    def step() -> int:
        saved = sorted((home.run_dir(job_id) / "checkpoints").glob("*")) if home.run_dir(job_id).exists() else []
        return len(saved)

    until(step, 180)
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "training.sft" in line and str(home.run_dir(job_id)) in line and "shim" not in " ".join(line):
            process.send_signal(signal.SIGKILL)
            return 1
    return 0


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_nothing_acknowledged_is_lost_and_no_job_runs_twice(home: Home, tmp_path: Path) -> None:
    jobs = prepare(home, tmp_path)
    started = Started(home.root)
    over = threading.Event()
    rng = random.Random(7)
    try:
        web = until(lambda: started.children().get("web"), 60)
        url = web["address"]
        until(lambda: "address" in started.text().lower() or "http://" in started.text(), 90)
        killed: list[str] = []
        killer = threading.Thread(target=lambda: killed.extend(kill_at_random(started, over, rng)), daemon=True)
        trained: list[int] = []
        assassin = threading.Thread(target=lambda: trained.append(kill_training_once(home, jobs[1])), daemon=True)
        reviewers = [Reviewer(url, f"reviewer{n}") for n in (1, 2)]
        for thread in (*reviewers, killer, assassin):
            thread.start()
        for reviewer in reviewers:
            reviewer.join(240)
            assert not reviewer.is_alive()
            assert reviewer.failure is None, reviewer.failure
        until(lambda: all_ended(jobs), 200)
        over.set()
        killer.join(10)
        assassin.join(10)
    finally:
        over.set()
        started.process.send_signal(signal.SIGTERM)
        started.process.wait(30)

    assert len(killed) >= 6, killed
    check_decisions(reviewers)
    check_jobs(home, jobs, was_training_killed=bool(trained and trained[0]))
    database().dispose()


def all_ended(jobs: list[int]) -> bool:
    with read_session() as session:
        rows = session.scalars(select(t.Job.status).where(t.Job.id.in_(jobs)))
        return all(status in FINAL_JOB_STATUSES for status in rows)


def check_decisions(reviewers: list[Reviewer]) -> None:
    acknowledged = {key: value for reviewer in reviewers for key, value in reviewer.acknowledged.items()}
    with read_session() as session:
        stored = {row.client_id: row for row in session.scalars(select(t.Adjudication))}
        assert len(acknowledged) == 2 * NUM_CASES
        assert {key: row.id for key, row in stored.items()} == {key: value[0] for key, value in acknowledged.items()}
        signed = session.scalars(select(t.Adjudication.conflict_id).where(t.Adjudication.stage == "signed")).all()
        assert len(signed) == len(set(signed)) == NUM_CASES
        assert audit.verify(session) is None
        entries = session.scalars(select(t.AuditEntry).where(t.AuditEntry.object_type == "adjudication")).all()
        assert {entry.id for entry in entries} == {value[1] for value in acknowledged.values()}


def check_jobs(home: Home, jobs: list[int], *, was_training_killed: bool) -> None:
    with read_session() as session:
        rows = {row.id: row for row in session.scalars(select(t.Job).where(t.Job.id.in_(jobs)))}
        assert {row.kind: row.error for row in rows.values() if row.status != "succeeded"} == {}
        imports = select(func.count()).select_from(t.AuditEntry).where(t.AuditEntry.action == "import")
        assert session.scalar(imports) == NUM_IMPORTS
        assert sorted(session.scalars(select(t.SearchIndex.version))) == [1] * NUM_INDEXES
        assert session.scalar(select(func.count()).select_from(t.ModelVersion).where(t.ModelVersion.name == "tiny-sft")) == 1
    assert was_training_killed
    assert rows[jobs[1]].attempt == 2
    assert "resumed" in (home.run_dir(jobs[1]) / "log.txt").read_text()
