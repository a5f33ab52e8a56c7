"""How an attempt ended, in the queue's words: done, stopped, a person must mend something, crashed, to be run again.

Pure but for reading the run folder. The exit codes are those of `training.run`: 0 done, 3 stopped after saving, 4 an error a
person can mend (error.json); anything else is a crash, which is tried again from the last checkpoint until the attempts are
used up, and then becomes one sentence with the end of the log.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.jobs import files
from core.jobs.launch.base import Exit
from core.records import JobStatus
from db import tables as t

CANCELLED, LOST = "cancelled", "lost"
EXIT_STOPPED, EXIT_USER_ERROR = 3, 4
LOG_LINES = 30
KILL = 9
#: starts beyond its attempts that a job gets when somebody else killed it: the system for want of memory, or a person by mistake
KILLS_FORGIVEN = 1


@dataclass(frozen=True, slots=True)
class Ending:
    """`status` None means: run again after `wait_s`, with `values` set on the row."""

    status: JobStatus | None
    exit_code: int | None
    error: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    wait_s: float = 0.0


def decide(job: t.Job, ended: Exit, run_dir: Path, *, max_restarts: int) -> Ending:
    """What becomes of `job` (as last read, with its cancel_mode) after this exit."""
    code = ended.code if ended.signal is None else -ended.signal
    result = {"result": _read(run_dir / "result.json")}
    if ended.reason == LOST:
        return Ending(JobStatus.LOST, code, _error("jobs.lost", run_dir, restarts=job.restarts))
    if ended.code == 0 and not (ended.was_terminated and job.cancel_mode):
        return Ending(JobStatus.SUCCEEDED, 0, values=result)
    if ended.code == EXIT_STOPPED or (ended.was_terminated and job.cancel_mode):
        return Ending(JobStatus.CANCELLED, code, values=result)
    if ended.was_terminated:  # the machine was shut down: not the job's fault, so it costs no attempt
        if job.restarts >= max_restarts:
            return Ending(JobStatus.LOST, code, _error("jobs.lost", run_dir, restarts=job.restarts))
        return Ending(None, code, _error("jobs.interrupted", run_dir), {"max_attempts": job.max_attempts + 1, "restarts": job.restarts + 1})
    if ended.code == EXIT_USER_ERROR:
        told = _read(run_dir / "error.json")
        if told.get("code"):
            return Ending(JobStatus.FAILED, code, {"code": str(told["code"]), "params": told.get("params") or {}})
    error = _error(_cause(ended, run_dir), run_dir, exit=code, attempts=job.attempt)
    if ended.signal == KILL and job.restarts < KILLS_FORGIVEN and not job.cancel_mode:
        return Ending(None, code, error, {"max_attempts": job.max_attempts + 1, "restarts": job.restarts + 1}, wait_s=5.0)
    if job.cancel_mode or job.attempt >= job.max_attempts or ended.code == EXIT_USER_ERROR:
        return Ending(JobStatus.FAILED, code, error, result)
    return Ending(None, code, error, wait_s=5.0 * 2 ** (job.attempt - 1))


def _cause(ended: Exit, run_dir: Path) -> str:
    tail = files.tail(run_dir / "log.txt", LOG_LINES).text.lower()
    if "no space left on device" in tail:
        return "jobs.no_space"
    if "out of memory" in tail or "memoryerror" in tail:
        return "jobs.out_of_memory"
    return "jobs.killed" if ended.signal == 9 else "jobs.crashed"


def _error(code: str, run_dir: Path, **params: Any) -> dict[str, Any]:
    text = files.tail(run_dir / "log.txt", LOG_LINES).text
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("=== ")]
    return {"code": code, "params": {**params, "last": lines[-1].strip()[:300] if lines else "-"}, "log": text}


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
