"""A web process on a home of its own, filled with cases and readers, for the load scripts beside this file."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from app.guard import cookie_name
from benchmarks.load.fill import fill
from core import accounts
from core.desk import search, tour
from core.home import open_home
from core.settings import ROOT, load_settings
from db.engine import database

PASSWORD = "a calm morning round"


@dataclass
class Site:
    """`readers`: username -> cookie header of a signed-in browser. `started_s`: from the process's start to its first page."""

    url: str
    home: Path
    readers: dict[str, str]
    environment: dict[str, str]
    process: subprocess.Popen[bytes]
    started_s: float

    @contextmanager
    def database(self) -> Iterator[None]:
        """This process's database is the site's, inside the block."""
        open_home(load_settings(self.environment))
        try:
            yield
        finally:
            database().dispose()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(environment: dict[str, str], home: Path) -> tuple[subprocess.Popen[bytes], float]:
    """Start the web process and wait for its first page; returns it and the seconds that took."""
    port = environment["CONSILIUM_PORT"]
    began = time.perf_counter()
    with (home / "web.log").open("ab") as log:
        command = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", port, "--timeout-graceful-shutdown", "3"]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    while True:
        if process.poll() is not None:
            raise RuntimeError((home / "web.log").read_text()[-2000:])
        try:
            httpx.get(f"http://127.0.0.1:{port}/login", trust_env=False).raise_for_status()
            return process, time.perf_counter() - began
        except httpx.TransportError:
            time.sleep(0.02)


def prepare(home: Path, *, num_cases: int, num_readers: int) -> tuple[dict[str, str], dict[str, str]]:
    """Migrate the home and put `num_cases` cases and `num_readers` readers into it; returns the environment and their cookies."""
    environment = {
        **os.environ,
        "CONSILIUM_HOME": str(home),
        "CONSILIUM_PORT": str(free_port()),
        "CONSILIUM_MODEL_SERVER_PORT": str(free_port()),
        "CONSILIUM_LANGUAGE": "en",
    }
    settings = load_settings(environment)
    open_home(settings, with_migration=True)
    readers = {}
    for name in [f"reader{n}" for n in range(num_readers)]:
        user_id = accounts.create_user(name, f"Dr {name}", "clinician", by=None)
        accounts.use_link(accounts.make_link(user_id, by=None), PASSWORD)
        tour.mark_seen(user_id)  # a first visit would begin with the tour
        readers[name] = f"{cookie_name(settings)}={accounts.open_session(user_id, 'load')}"
    fill(num_cases)
    search.refresh()
    database().dispose()
    return environment, readers


@contextmanager
def site(home: Path, *, num_cases: int, num_readers: int) -> Iterator[Site]:
    """A migrated home with `num_cases` cases and `num_readers` readers, and its web process."""
    environment, readers = prepare(home, num_cases=num_cases, num_readers=num_readers)
    process, started_s = start(environment, home)
    where = Site(f"http://127.0.0.1:{environment['CONSILIUM_PORT']}", home, readers, environment, process, started_s)
    try:
        yield where
    finally:
        where.process.send_signal(signal.SIGTERM)  # the last one: a measurement may have started it anew
        try:
            where.process.wait(20)
        except subprocess.TimeoutExpired:
            where.process.kill()
            where.process.wait()
