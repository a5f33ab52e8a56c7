"""What runs and what does not: database, disk, and the launcher's processes. Shown on Settings, Home and /api/health.

The launcher writes `processes.json` into the home folder; a process counts as running when its pid is alive and was
started when the file says.
"""

from __future__ import annotations

import json
import shutil
import tomllib
from dataclasses import dataclass
from functools import cache
from typing import Any

import psutil
from sqlalchemy import text

from core.errors import Unavailable
from core.home import current_home
from core.settings import ROOT
from db.engine import read_session

PROCESSES = ("web", "worker", "model_server")
LOW_DISK_BYTES = 2 * 1024**3


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
    except (OSError, json.JSONDecodeError):
        return {}
    return found


def is_alive(pid: int, created: float) -> bool:
    """Whether this very process runs (not a later one with the same number, not a zombie)."""
    try:
        process = psutil.Process(pid)
        return bool(abs(process.create_time() - created) < 2 and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def check() -> dict[str, str]:
    """One word per part: ok, low (disk), down."""
    try:
        with read_session() as session:
            session.execute(text("SELECT 1"))
        database = "ok"
    except Unavailable:
        database = "down"
    disk = "ok" if shutil.disk_usage(current_home().root).free >= LOW_DISK_BYTES else "low"
    return {"database": database, "disk": disk} | {p.name: "ok" if p.is_running else "down" for p in processes()}
