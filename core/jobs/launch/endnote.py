"""How an attempt ended, as it stands in its run folder: what every launcher reads, and writes in a dead supervisor's place.

The supervisor (`shim`) writes exit.<attempt>.json itself; these functions are for what it leaves undone. Called by the launchers.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path

from core.jobs.launch import shim
from core.jobs.launch.base import Exit, Lost, NotStarted, Task

#: left over from the attempt before; a resumed script must not be told to stop, nor its old error be shown as new
STALE = ("STOP", "error.json", "result.json", "done.json")


def clear_stale(task: Task) -> None:
    """Make the run folder ready for a start."""
    task.run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in STALE:
        (task.run_dir / name).unlink(missing_ok=True)


def read(task: Task) -> Exit | None:
    """The exit record, if there is one."""
    try:
        record = json.loads((task.run_dir / shim.exit_name(task.attempt)).read_text())
    except FileNotFoundError:
        return None
    return Exit(record["code"], record["signal"], bool(record["was_terminated"]), str(record.get("reason", "")))


def write(task: Task, ended: Exit) -> None:
    """Under the run lock: a supervisor that is just starting either holds it (and is left alone) or finds the exit file."""
    task.run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = shim.try_lock(str(task.run_dir / shim.LOCK_NAME))
    if lock is None:
        return
    try:
        if read(task) is None:
            shim.write_record(str(task.run_dir.resolve()), task.attempt, {**asdict(ended), "at": time.time()}, patient=False)
    finally:
        os.close(lock)


def has_begun(task: Task) -> bool:
    """Did a supervisor of this very start ever hold the run lock?"""
    try:
        return (task.run_dir / shim.LOCK_NAME).read_text().split() == [str(task.attempt), str(task.start)]
    except FileNotFoundError:
        return False


def is_locked(run_dir: Path) -> bool:
    """Does a supervisor hold the run lock now? Across machines only where their file system shares flock."""
    if not (run_dir / shim.LOCK_NAME).exists():
        return False
    lock = shim.try_lock(str(run_dir / shim.LOCK_NAME))
    if lock is None:
        return True
    os.close(lock)
    return False


def without_supervisor(task: Task) -> Lost | NotStarted | None:
    """What to say of a start whose supervisor is gone and left no exit record. None: the work was complete, which is now on record."""
    if not has_begun(task):
        return NotStarted()
    if _is_complete(task):
        write(task, Exit(0, reason="its supervisor was killed after the work was complete"))
        return None
    return Lost(lived_s=_lived_s(task.run_dir))


def _is_complete(task: Task) -> bool:
    """The training had said that its work is done; only its supervisor could not put that on record any more."""
    try:
        return bool(json.loads((task.run_dir / "done.json").read_text()) == {"attempt": task.attempt})
    except (OSError, ValueError):
        return False


def _lived_s(run_dir: Path) -> float:
    """How long a lost attempt ran, by its files (the wall clock may have been set since, but both stamps are of that run)."""
    stamps = [path.stat().st_mtime for path in run_dir.iterdir() if path.is_file()]
    return max(0.0, max(stamps, default=0.0) - (run_dir / shim.LOCK_NAME).stat().st_mtime)
