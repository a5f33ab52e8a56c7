"""What runs and what does not: database, disk, and the launcher's processes. Shown on Settings, Home, /api/health and /api/ready.

The launcher writes `processes.json` into the home folder; a process counts as running when its pid is alive and was
started when the file says. A worker that hangs is alive all the same: its heartbeat is the time of a file that it touches.
"""

from __future__ import annotations

import json
import shutil
import time
import tomllib
from dataclasses import dataclass
from functools import cache
from typing import Any

import psutil
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from core.errors import Unavailable
from core.home import Home, current_home
from core.settings import ROOT
from db.engine import read_session

PROCESSES = ("web", "worker", "model_server")
LOW_DISK_BYTES = 2 * 1024**3
#: with less than this nothing is sent here any more: a decision might not find room
FULL_DISK_BYTES = 50 * 1024**2
#: the worker's sign of life, and how old it may be
WORKER_BEAT = "worker.beat"
LATE_BEAT_S = 60.0


@dataclass(frozen=True, slots=True)
class Process:
    """A process as the launcher last reported it."""

    name: str
    is_running: bool
    pid: int | None = None
    num_restarts: int = 0


@cache
def version() -> str:
    """The version in pyproject.toml."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def processes() -> list[Process]:
    """The three processes; all down when the product was not started by the launcher."""
    written = _written()
    found = []
    for name in PROCESSES:
        entry = written.get(name)
        if entry is None:
            found.append(Process(name, is_running=False))
        else:
            found.append(Process(name, is_alive(entry["pid"], entry["created"]), entry["pid"], entry["restarts"]))
    return found


def worker_runs() -> bool:
    """Whether jobs are being driven."""
    return any(p.is_running for p in processes() if p.name == "worker")


def address() -> str:
    """Where the site is: as the launcher reported it, else as the settings say."""
    settings = current_home().settings
    return str(_written().get("web", {}).get("address") or f"http://{settings.host}:{settings.port}")


def _written() -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((current_home().root / "processes.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and all(isinstance(e, dict) and {"pid", "created"} <= e.keys() for e in found.values()) else {}


def is_alive(pid: int, created: float) -> bool:
    """Whether this very process runs (not a later one with the same number, not a zombie)."""
    try:
        process = psutil.Process(pid)
        return bool(abs(process.create_time() - created) < 2 and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def beat(home: Home) -> None:
    """The worker's sign of life. Raises OSError where the disk takes none."""
    (home.locks / WORKER_BEAT).touch()


def worker_beat_age_s() -> float | None:
    """Seconds since the worker's last sign of life; None when there never was one."""
    try:
        return max(0.0, time.time() - (current_home().locks / WORKER_BEAT).stat().st_mtime)
    except OSError:
        return None


def check() -> dict[str, str]:
    """One word per part: ok, low or full (disk), late (a worker that hangs), down."""
    try:
        with read_session() as session:
            session.execute(text("SELECT count(*) FROM alembic_version"))
        database = "ok"
    except (Unavailable, SQLAlchemyError):
        database = "down"
    free = shutil.disk_usage(current_home().root).free
    disk = "ok" if free >= LOW_DISK_BYTES else "low" if free >= FULL_DISK_BYTES else "full"
    parts = {"database": database, "disk": disk} | {p.name: "ok" if p.is_running else "down" for p in processes()}
    age = worker_beat_age_s()
    if parts["worker"] == "ok" and (age is None or age > LATE_BEAT_S):
        parts["worker"] = "late"
    return parts


def is_ready(parts: dict[str, str]) -> bool:
    """Whether requests may be sent here: the database answers, a decision finds room, jobs are driven."""
    return parts["database"] == "ok" and parts["disk"] != "full" and parts["worker"] == "ok"
