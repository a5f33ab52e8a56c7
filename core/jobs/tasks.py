"""From a job row to the exact command: what is shown on its page before it runs is what runs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.home import Home
from core.jobs.kinds import job_kind
from core.jobs.launch.base import Task
from core.settings import ROOT
from db import tables as t


def task_of(home: Home, job: t.Job) -> Task:
    """The attempt that the row stands for. Raises NotFound("unknown_job_kind")."""
    run_dir = home.run_dir(job.id).resolve()
    env = {"CONSILIUM_HOME": str(home.root), "CONSILIUM_JOB_ID": str(job.id), "PYTHONUNBUFFERED": "1"}
    if home.settings.num_threads:
        env["OMP_NUM_THREADS"] = str(home.settings.num_threads)
    argv, n = argv_of(job.kind, job.config, run_dir), processes_of(job.config)
    return Task(job.id, job.attempt, run_dir, argv, ROOT, job.slot or "", job.restarts, n, env)


def processes_of(config: Mapping[str, Any]) -> int:
    """How many processes the job's command starts: `num_processes` of its config, where its kind has such a field."""
    return int(config.get("num_processes") or 1)


def argv_of(kind: str, config: Mapping[str, Any], run_dir: Path) -> tuple[str, ...]:
    """The command of a job: its module, under `accelerate launch` when its config asks for several processes.

    Raises NotFound("unknown_job_kind").
    """
    module = job_kind(kind).module
    num_processes = processes_of(config)
    if num_processes == 1:
        return (sys.executable, "-m", module, "--run-dir", str(run_dir))
    return (sys.executable, "-m", "core.jobs.launch.ranks", "--num-processes", str(num_processes), module, "--run-dir", str(run_dir))


def write_config(task: Task, job: t.Job) -> None:
    """Put config.json into the run folder, whole or not at all. Raises OSError (disk full)."""
    task.run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = task.run_dir / f"config.{os.getpid()}.tmp"
    scratch.write_text(json.dumps(job.config, ensure_ascii=False, indent=1), encoding="utf-8")
    scratch.replace(task.run_dir / "config.json")
