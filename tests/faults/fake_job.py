"""A job for the fault tests that costs milliseconds: counts steps, saves a checkpoint each, can crash, hang or breed.

Appends "start", "step N" and "end" with its process id to $FAKE_JOURNAL, so that a test sees what really ran, and when.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

from core.errors import UserError
from core.jobs.configs import JobConfig, option
from training.run import Run, main


class FakeConfig(JobConfig):
    name: str = option("fake", "Name.", "名称。")
    steps: int = option(3, "Steps.", "步数。", ge=0)
    step_s: float = option(0.05, "Seconds per step.", "每步秒数。", ge=0)
    crash_at: int = option(-1, "Crash at this step, in the first attempt.", "崩溃步。")
    always_crash: bool = option(False, "Crash in every attempt.", "总是崩溃。")
    mode: str = option("", "stubborn, user_error, deaf.", "模式。")


def journal(run: Run, what: str) -> None:
    with open(run.home.root / "journal.txt", "a", encoding="utf-8") as file:
        file.write(json.dumps({"job": run.job_id, "what": what, "pid": os.getpid(), "at": time.monotonic()}) + "\n")


def body(run: Run) -> None:
    """Count."""
    config = run.config(FakeConfig)
    journal(run, "start")
    if config.mode == "user_error":
        raise UserError("unknown_job_kind", kind="x", known="y")
    if config.mode in ("stubborn", "deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if config.mode == "stubborn":
        deaf = "import signal,time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
        for _ in range(3):
            subprocess.Popen([sys.executable, "-S", "-c", deaf])
        subprocess.Popen(["setsid", "-f", "sleep", "600"])
    run.checkpoints.mkdir(exist_ok=True)
    saved = run.checkpoints / "step"
    first = int(saved.read_text()) if saved.exists() else 0
    is_retry = first > 0
    for step in range(first, config.steps):
        time.sleep(config.step_s)
        if step == config.crash_at and (config.always_crash or not is_retry):
            raise RuntimeError("the fake crash")
        run.log(step, loss=1.0 / (step + 1))
        run.progress("counting", step + 1, config.steps)
        scratch = saved.with_suffix(".tmp")
        scratch.write_text(str(step + 1))
        scratch.replace(saved)
        run.leave_if_stopped()
    journal(run, f"end {first}")
    run.result(steps=config.steps, first=first)


if __name__ == "__main__":
    main(body)
