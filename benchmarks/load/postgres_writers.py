"""Decisions per second with N writing processes, on SQLite and on PostgreSQL, and how long a job's sign of life waits meanwhile.

    .venv/bin/python -m benchmarks.load.postgres_writers [postgresql://user@host:5432/postgres] [--seconds 8]

A decision is what the desk stores: a row and its entry in the audit chain in one transaction, acknowledged after commit. Beside the
writers one process beats a job's heart. Without a URL, SQLite alone. The server must not be one with fsync off.
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
from pathlib import Path

from sqlalchemy import create_engine, make_url, text

from core import audit
from core.home import open_home
from core.jobs import leases
from core.settings import ROOT, load_settings
from db import tables as t
from db.engine import database, read_session, write_session
from tests import factories

WRITERS = (1, 2, 4, 8)


def decide(until: float) -> list[float]:
    """Seconds that each decision took."""
    took = []
    while time.time() < until:
        began = time.perf_counter()
        with write_session() as session:
            row = t.Adjudication(conflict_id=1, user_id=1, stage="skipped", client_id=uuid.uuid4().hex)
            session.add(row)
            session.flush()
            audit.record(session, "adjudicate_skipped", "adjudication", row.id, actor_id=1)
        took.append(time.perf_counter() - began)
    return took


def beat(until: float) -> list[float]:
    took = []
    while time.time() < until:
        began = time.perf_counter()
        with write_session(parallel=True) as session:
            leases.beat(session, 1, "x", {})
        took.append(time.perf_counter() - began)
        time.sleep(0.05)
    return took


def measure(url: str, num: int, seconds: float, folder: Path) -> None:
    environment = {**os.environ, "CONSILIUM_HOME": str(folder), "CONSILIUM_DATABASE_URL": url}
    command = [sys.executable, "-m", "benchmarks.load.postgres_writers", "--child", "--seconds", str(seconds)]
    parts = [
        subprocess.Popen(
            [*command, *(["--beat"] if n == num else [])], cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for n in range(num + 1)
    ]
    for part in parts:  # all have imported and have the database open
        assert part.stdout is not None
        part.stdout.readline()
    *writers, hearts = [json.loads(answer) for answer in answers(parts, f"{time.time() + 0.5}\n".encode())]
    took = sorted(one for writer in writers for one in writer)
    hearts.sort()
    kind = "SQLite" if url.startswith("sqlite") else "PostgreSQL"
    middle, late = took[len(took) // 2], took[int(0.95 * len(took))]
    print(
        f"{kind:10} {num} writers: {len(took) / seconds:6.0f} decisions/s, p50 {1000 * middle:5.0f} ms, p95 {1000 * late:5.0f} ms; "
        f"heartbeat p95 {1000 * hearts[int(0.95 * len(hearts))]:5.0f} ms",
        flush=True,
    )


def answers(parts: list[subprocess.Popen[bytes]], begin: bytes) -> list[bytes]:
    for part in parts:
        assert part.stdin is not None
        part.stdin.write(begin)
        part.stdin.flush()
    return [part.communicate()[0] for part in parts]


def series(url: str, seconds: float, folder: Path) -> None:
    open_home(load_settings({"CONSILIUM_HOME": str(folder), "CONSILIUM_DATABASE_URL": url}), with_migration=True)
    with write_session() as session:
        factories.user(session)
        factories.conflict(session)
        session.add(t.Job(kind="sft", config={}, queue="cpu", status="running", lease_token="x", slot="cpu:0"))
    database().dispose()
    for num in WRITERS:
        measure(url, num, seconds, folder)
    open_home(load_settings({"CONSILIUM_HOME": str(folder), "CONSILIUM_DATABASE_URL": url}))
    with read_session() as session:
        found = audit.examine(session)
    print(f"{'':10} chain of {found.num_entries} entries {'holds' if found.broken is None else f'BROKEN: {found.broken}'}", flush=True)
    database().dispose()


def child(seconds: float, is_heart: bool) -> None:
    open_home()
    with read_session() as session:
        session.get(t.Job, 1)
    print("ready", flush=True)
    begin = float(sys.stdin.readline())
    time.sleep(max(0.0, begin - time.time()))
    print(json.dumps((beat if is_heart else decide)(begin + seconds)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--beat", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.seconds, given.beat)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        series(f"sqlite:///{folder}/consilium.db", given.seconds, Path(folder))
        if not given.url:
            return 0
        server = make_url(load_settings({"CONSILIUM_DATABASE_URL": given.url}).url)
        admin, name = create_engine(server, isolation_level="AUTOCOMMIT"), f"consilium_writers_{uuid.uuid4().hex[:8]}"
        with admin.connect() as connection:
            connection.execute(text(f'CREATE DATABASE "{name}"'))
        try:
            series(server.set(database=name).render_as_string(hide_password=False), given.seconds, Path(folder))
        finally:
            with admin.connect() as connection:
                connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
            admin.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main())
