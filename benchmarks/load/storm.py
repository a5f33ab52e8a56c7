"""Fifty readers, a bench and jobs, while every minute one process is killed with -9: is anything acknowledged lost, is a job done twice?

    .venv/bin/python -m benchmarks.load.storm --home DEMO [--readers 50] [--minutes 30] [--per-minute 4] [--quiet]

Runs on a copy of DEMO, a home in which the demo has run (the bench needs its versions). The whole product is started as a user
starts it; a reader is a tab's socket that resends what was not acknowledged, as the desk does; the bench is a tab of a real Chromium.
Web, worker, a running job's own process and the model server are hit in turn, at random moments about a minute apart. `--quiet` leaves
kills and jobs out: the figure to compare with. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import multiprocessing.queues
import multiprocessing.synchronize
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import websockets
from playwright.sync_api import Error, sync_playwright
from sqlalchemy import func, select

from app.guard import cookie_name
from benchmarks.load.keys import BROWSERS
from benchmarks.load.person import Person
from benchmarks.load.reviewers import compare, percentiles, shift
from benchmarks.load.site import Site, prepare
from core import accounts, bench_tour
from core.home import current_home
from core.jobs.api import enqueue
from core.records import FINAL_JOB_STATUSES
from core.settings import ROOT
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

PROCESSES = ("web", "worker", "model_server")
GIVE_UP_S = 180.0
LOST = (websockets.WebSocketException, OSError, TimeoutError)


class Sturdy(Person):
    """A reader whose desk keeps what was not acknowledged and sends it again, under the same ids, to whatever server answers."""

    num_reconnects = 0

    async def open(self) -> None:
        until = time.monotonic() + GIVE_UP_S
        while True:
            try:
                return await super().open()
            except LOST:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(self.rng.uniform(0.3, 1.0))

    async def post(self, *messages: dict[str, Any]) -> list[dict[str, Any]]:
        waiting = [{"id": str(uuid.uuid4()), **message} for message in messages]
        done: dict[str, dict[str, Any]] = {}
        until = time.monotonic() + GIVE_UP_S
        while time.monotonic() < until:
            try:
                acks = await super().post(*(message for message in waiting if message["id"] not in done))
            except LOST:
                self.num_reconnects += 1
                await self.open()
                continue
            except RuntimeError as error:  # the server closed the connection in an orderly way, on its way down
                if "closed the connection" not in str(error):
                    raise
                self.num_reconnects += 1
                await self.open()
                continue
            done |= {ack["id"]: ack for ack in acks if ack["ok"] or not ack["retry"]}
            if len(done) == len(waiting):
                return [done[message["id"]] for message in waiting]
            await asyncio.sleep(0.3)
        raise RuntimeError(f"{self.username}: no answer for {GIVE_UP_S:.0f} s")


@dataclass
class Killer(threading.Thread):
    """Kills one process a minute, each only when it is up."""

    home: Path
    over: threading.Event
    period_s: float = 60.0
    killed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        rng, num_rounds = random.Random(1), 0
        while not self.over.wait(self.period_s * rng.uniform(0.8, 1.2)):
            name = ("web", "worker", "job", "model_server")[num_rounds % 4]
            num_rounds += 1
            pid = self._job() if name == "job" else None
            if pid is None:  # no job runs just now: its worker, then
                name = "worker" if name == "job" else name
                pid = self._child(name)
            if pid is None:
                continue
            try:
                psutil.Process(pid).send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
            self.killed.append(name)

    def _child(self, name: str) -> int | None:
        try:
            found = json.loads((self.home / "processes.json").read_text()).get(name)
        except (OSError, json.JSONDecodeError):
            return None
        return found["pid"] if found and psutil.pid_exists(found["pid"]) else None

    def _job(self) -> int | None:
        """The process of a running job: its module is one of training's, its run folder in this home."""
        for process in psutil.process_iter(["cmdline"]):
            line = process.info["cmdline"] or []
            is_supervisor = any("shim" in part for part in line)  # names the job it looks after; the job itself is meant
            if not is_supervisor and any(p.startswith("training.") for p in line) and any(str(self.home) in p for p in line):
                return int(process.pid)
        return None


def bench_tab(url: str, cookie: str, over: multiprocessing.synchronize.Event, told: multiprocessing.queues.Queue[int]) -> None:
    """A product manager who compares and votes, and reloads the page when it does not go on. Tells how many votes were acknowledged."""
    path = next(p for p in map(shutil.which, BROWSERS) if p)
    num_stored = 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-background-networking"])
        context = browser.new_context(viewport={"width": 1440, "height": 900}, base_url=url)
        name, _, value = cookie.partition("=")
        context.add_cookies([{"name": name, "value": value, "url": url}])
        context.set_default_timeout(30_000)
        page = context.new_page()
        is_open = False
        while not over.is_set():
            try:
                if not is_open:
                    page.goto("/bench")
                    frame = page.frame_locator("iframe[src*='arena']")
                    frame.locator("#bench-run").wait_for()
                    page.wait_for_timeout(1500)
                    is_open = True
                frame.locator("#bench-next").click()
                page.wait_for_timeout(500)
                frame.locator("#bench-run").click()
                frame.locator("#vote-1:not([disabled]), #bench-answers .bench-error").first.wait_for()
                if frame.locator("#vote-1").is_disabled():
                    continue  # one side gave no answer: the comparison is void, the next question follows
                frame.locator("#vote-1").click()
                frame.locator("#bench-status", has_text="Stored").wait_for()
                num_stored += 1
                page.wait_for_timeout(2000)
            except Error:  # the server died under the page: a person reloads
                is_open = False
                time.sleep(1)
        browser.close()
    told.put(num_stored)


def make_jobs(folder: Path, minutes: float) -> list[int]:
    """Two imports and an index for each minute, and a small training."""
    documents = folder / "documents"
    documents.mkdir()
    for n in range(6):
        (documents / f"guide{n}.md").write_text(f"# Guide {n}\n\nFever above 39 degrees for {n + 2} days needs a doctor. Rest and drink.\n")
    jobs = []
    with write_session() as session:
        for n in range(max(2, round(minutes))):
            begin = utc_now() + timedelta(minutes=n)
            for half in range(2):
                file = folder / f"prompts{n}-{half}.jsonl"
                file.write_text("\n".join(json.dumps({"prompt": f"File {n}.{half}, question {i}: headache?"}) for i in range(300)))
                jobs.append(enqueue(session, "import", {"path": str(file), "dataset": f"storm{n}-{half}"}, run_after=begin))
            jobs.append(enqueue(session, "index", {"name": f"storm{n}", "folder": str(documents)}, run_after=begin))
        sft = {"name": "storm-sft", "base_model": "demo-base", "engine": "compact", "max_samples": 160, "batch_size": 4, "lora_r": 4}
        jobs.append(enqueue(session, "sft", {**sft, "save_steps": 5}))
    return jobs


def job_figures(where: Site, jobs: list[int]) -> dict[str, Any]:
    """Wait until every job has ended, and what became of them."""
    until = time.monotonic() + 600
    with where.database():
        while True:
            with read_session() as session:
                rows = session.scalars(select(t.Job).where(t.Job.id.in_(jobs))).all()
                ended = [row for row in rows if row.status in FINAL_JOB_STATUSES]
                if len(ended) == len(jobs) or time.monotonic() > until:
                    imported = select(func.count()).select_from(t.Dataset).where(t.Dataset.name.like("storm%"))
                    samples = select(func.count()).select_from(t.Sample).where(t.Sample.text.like("File %headache?"))
                    return {
                        "jobs": len(jobs),
                        "jobs_succeeded": sum(row.status == "succeeded" for row in rows),
                        "jobs_not_succeeded": [f"{row.kind} {row.status}: {row.error}" for row in rows if row.status != "succeeded"],
                        "jobs_begun_again": sum(row.attempt > 1 for row in rows),
                        "datasets_imported": session.scalar(imported),
                        "samples_imported": session.scalar(samples),
                    }
            time.sleep(1)


def votes_stored(where: Site) -> int:
    with where.database(), read_session() as session:
        return session.scalar(select(func.count(t.BenchVote.id))) or 0


def run(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    home = folder / "home"
    shutil.copytree(asked.home, home, ignore=shutil.ignore_patterns("processes.json", "launcher.lock", "*.log"))
    environment, readers = prepare(home, num_cases=asked.cases, num_readers=asked.readers)
    manager = accounts.create_user("storm-manager", "Storm Manager", "product", by=None)
    accounts.use_link(accounts.make_link(manager, by=None), "a calm morning round")
    cookie = f"{cookie_name(current_home().settings)}={accounts.open_session(manager, 'load')}"
    jobs = [] if asked.quiet else make_jobs(folder, asked.minutes)
    command = [sys.executable, "-m", "app", "serve", "--port", environment["CONSILIUM_PORT"], "--empty", "--no-browser"]
    with (folder / "printed.txt").open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out, start_new_session=True)
    where = Site(f"http://127.0.0.1:{environment['CONSILIUM_PORT']}", home, readers, environment, process, 0.0)
    over, tab_over = threading.Event(), multiprocessing.Event()
    told: multiprocessing.queues.Queue[int] = multiprocessing.Queue()
    bench_tour.mark_seen(manager)
    with read_session() as session:
        last_decision = session.scalar(select(func.max(t.Adjudication.id))) or 0
    votes_before = votes_stored(where)
    try:
        people: list[Person] = [Sturdy(where, name, seed) for seed, name in enumerate(readers)]
        killer = Killer(home, over)
        tab = multiprocessing.Process(target=bench_tab, args=(where.url, cookie, tab_over, told))
        tab.start()
        if not asked.quiet:
            killer.start()
        asyncio.run(shift(people, 60 / asked.per_minute, asked.minutes))
        over.set()
        tab_over.set()
        num_votes = told.get(timeout=120)
        tab.join(30)
        figures = job_figures(where, jobs) if jobs else {}
        memory = {p.name: round(p.mb) for p in memories(home)}
    finally:
        over.set()
        tab_over.set()
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    seconds = [s for person in people for s in person.seconds]
    return {
        "readers": asked.readers,
        "minutes": asked.minutes,
        "kills": {name: killer.killed.count(name) for name in (*PROCESSES, "job")},
        "reconnects": sum(getattr(person, "num_reconnects", 0) for person in people),
        "votes_acknowledged": num_votes,
        "votes_stored": votes_stored(where) - votes_before,
        **{name: round(value, 1) for name, value in percentiles(seconds).items()},
        "memory_mb": memory,
        "load_average": round(psutil.getloadavg()[0], 1),
        **figures,
        **compare(where, people, after=last_decision),
    }


@dataclass
class Memory:
    name: str
    mb: float


def memories(home: Path) -> list[Memory]:
    """What each process of the product holds now."""
    found = json.loads((home / "processes.json").read_text())
    return [
        Memory(name, psutil.Process(one["pid"]).memory_info().rss / 2**20) for name, one in found.items() if psutil.pid_exists(one["pid"])
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--per-minute", type=float, default=4)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--quiet", action="store_true")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        print(json.dumps(run(parser.parse_args(), Path(folder)), indent=1))


if __name__ == "__main__":
    main()
