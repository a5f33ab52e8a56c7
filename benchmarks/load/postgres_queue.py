"""Three workers, as if on three machines, share one PostgreSQL queue; two of them are killed -9 on the way.

    .venv/bin/python -m benchmarks.load.postgres_queue postgresql://user@host:5432/postgres [--jobs 1000]

Makes a database of its own on that server and drops it. The machines share the data folder, as real ones do by NFS; every job is a real
process under its own supervisor and writes a line when it begins. Counts what ran once, twice and not at all. The killed workers do
not come back: what they drove is put back after the lease and taken by the one that is left.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path

from sqlalchemy import create_engine, func, make_url, select, text

from core.home import open_home
from core.jobs import api
from core.jobs.kinds import KINDS
from core.settings import ROOT, load_settings
from db import tables as t
from db.engine import database, read_session, write_session
from tests.faults.fake_worker import FAKES

WORKER = "import sys; from tests.faults.fake_worker import run; sys.exit(run([]))"
#: shares of the jobs that have ended when a worker is killed
KILLS = (0.3, 0.6)


def start(root: Path, url: str, machine: str, slots: int) -> subprocess.Popen[bytes]:
    settings = {"HOME": str(root), "DATABASE_URL": url, "MACHINE": machine, "NUM_CPU_SLOTS": str(slots), "JOB_LEASE_S": "5"}
    environment = {**os.environ, **{f"CONSILIUM_{name}": value for name, value in settings.items()}}
    with (root / f"{machine}.log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-c", WORKER], cwd=ROOT, env=environment, stdout=log, stderr=log)


def num_ended() -> int:
    with read_session() as session:
        return api.counts(session)["succeeded"]


def until(number: int) -> None:
    while num_ended() < number:
        time.sleep(0.1)


def race(root: Path, url: str, num_jobs: int, slots: int) -> None:
    open_home(load_settings({"CONSILIUM_HOME": str(root), "CONSILIUM_DATABASE_URL": url}), with_migration=True)
    KINDS.update(FAKES)
    began = time.perf_counter()
    with write_session() as session:
        ids = [api.enqueue(session, "fake", {"steps": 1, "step_s": 0.0}) for _ in range(num_jobs)]
    print(f"{num_jobs} jobs queued in {time.perf_counter() - began:.1f} s", flush=True)
    workers = [start(root, url, f"machine{n}", slots) for n in (1, 2, 3)]
    began = time.perf_counter()
    try:
        for share, victim in zip(KILLS, workers[1:], strict=True):
            until(int(share * num_jobs))
            victim.kill()
            victim.wait()
            print(f"a worker killed -9 after {num_ended()} jobs, {time.perf_counter() - began:.0f} s", flush=True)
        until(num_jobs)
        seconds = time.perf_counter() - began
    finally:
        for worker in workers:
            worker.terminate()
            worker.wait()
    lines = [json.loads(line) for line in (root / "journal.txt").read_text().splitlines()]
    starts = Counter(line["job"] for line in lines if line["what"] == "start")
    with read_session() as session:
        attempts = session.scalar(select(func.sum(t.Job.attempt))) or 0
        by_machine = Counter((worker or "").partition(":")[0] for worker in session.scalars(select(t.Job.worker)))
        restarts = session.scalar(select(func.sum(t.Job.restarts))) or 0
    taken = sum((root / f"machine{n}.log").read_text().count("no heartbeat of") for n in (1, 2, 3))
    print(f"{seconds:.0f} s, {num_jobs / seconds:.1f} jobs/s; starts {sum(starts.values())}, attempts {attempts}, restarts {restarts}")
    once, doubled = sum(n == 1 for n in starts.values()), sum(n > 1 for n in starts.values())
    print(f"ran once {once}, doubled {doubled}, lost {len(set(ids) - set(starts))}")
    print(f"ended by {dict(by_machine)}; silent hearts noticed {taken}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--slots", type=int, default=4)
    given = parser.parse_args()
    server = make_url(load_settings({"CONSILIUM_DATABASE_URL": given.url}).url)
    name = f"consilium_queue_{uuid.uuid4().hex[:8]}"
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    try:
        with tempfile.TemporaryDirectory() as folder:
            race(Path(folder), server.set(database=name).render_as_string(hide_password=False), given.jobs, given.slots)
            database().dispose()
    finally:
        with admin.connect() as connection:
            connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
        admin.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main())
