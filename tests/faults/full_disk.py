"""A home on a disk of a few megabytes that is full while a job ends: run by the fault tests in a mount namespace of its own.

Prints one word per thing seen: the refused enqueue, the worker still alive, the row still waiting, how both jobs ended once
there was room again, and SQLite's own check of its file.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from core.errors import Unavailable
from core.home import open_home
from core.jobs import api
from core.jobs.kinds import KINDS
from core.settings import ROOT, load_settings
from db.engine import read_session, write_session
from tests.faults.fake_worker import FAKES


def status(job_id: int) -> str:
    with read_session() as session:
        return api.get(session, job_id).status


def until(job_id: int, wanted: str) -> str:
    deadline = time.monotonic() + 20
    while status(job_id) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return status(job_id)


def add() -> int:
    with write_session() as session:
        return api.enqueue(session, "fake", {"steps": 3, "step_s": 0.5})


def main() -> int:
    disk = Path(tempfile.mkdtemp())
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)], check=False).returncode:
        return 77
    KINDS.update(FAKES)
    os.environ["CONSILIUM_HOME"] = str(disk / "home")
    open_home(load_settings(), with_migration=True)
    log = Path(tempfile.mkdtemp()) / "worker.log"
    command = "import sys; from tests.faults.fake_worker import run; sys.exit(run([]))"
    with log.open("wb") as out:
        worker = subprocess.Popen([sys.executable, "-c", command], cwd=ROOT, stdout=out, stderr=out)
    try:
        job = add()
        until(job, "running")
        with (disk / "fill").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                file.flush()
        time.sleep(3)  # the job ends (or falls over the full disk) meanwhile
        try:
            for _ in range(200):  # pages that SQLite has already may still take a few rows
                add()
            print("accepted")
        except Unavailable as error:
            print("refused" if error.code == "disk_full" else error.code)
        print("alive" if worker.poll() is None else log.read_text()[-2000:])
        print("waits" if status(job) in ("running", "queued") else status(job))
        (disk / "fill").unlink()
        print(until(job, "succeeded"))
        print(until(add(), "succeeded"))
        print(sqlite3.connect(disk / "home" / "consilium.db").execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        worker.terminate()
        worker.wait(10)
    return 0


if __name__ == "__main__":
    sys.exit(main())
