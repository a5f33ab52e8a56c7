"""The real worker with two fake job kinds and short waits, as a process that tests can kill (see nursery.py).

`--instant` puts a launcher in its place whose jobs end as they start, for races about who claims what.
"""

from __future__ import annotations

import os
from pathlib import Path

from core import worker
from core.jobs import leases, worker_loop
from core.jobs.configs import JobConfig, option
from core.jobs.kinds import KINDS, JobKind
from core.jobs.launch.base import Exit, NotStarted, Task


class FakeConfig(JobConfig):
    steps: int = option(3, "Steps.", "步数。", ge=0)
    step_s: float = option(0.05, "Seconds per step.", "每步秒数。", ge=0)
    crash_at: int = option(-1, "Crash at this step of a first run.", "崩溃步。")
    slow_exit_s: float = option(0.0, "Seconds between the end of the work and that of the process.", "退出耗时。", ge=0)
    mode: str = option("", "stubborn, user_error, always_crash.", "模式。")


FAKES = {
    name: JobKind(name, FakeConfig, "tests.faults.fake_job", queue, "Fake", "假", max_attempts=2)
    for name, queue in (("fake", "cpu"), ("fake_gpu", "gpu"))
}


class InstantLauncher:
    """Journals every start; the attempt has ended at once."""

    name = "instant"

    def __init__(self) -> None:
        self.started: set[int] = set()

    def start(self, task: Task) -> None:
        fd = os.open(Path(os.environ["RACE_JOURNAL"]), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, f"{task.job_id} {os.getpid()}\n".encode())
        os.close(fd)
        self.started.add(task.job_id)

    def poll(self, task: Task) -> Exit | NotStarted:
        return Exit(0) if task.job_id in self.started else NotStarted()

    def terminate(self, task: Task, *, force: bool = False) -> None:
        raise AssertionError("nothing to end")

    def seal(self, task: Task, reason: str) -> None:
        raise AssertionError("nothing to seal")

    def external_id(self, task: Task) -> str | None:
        return None

    def running(self) -> dict[int, int]:
        return {}

    def stop(self, job_id: int) -> None:
        raise AssertionError("nothing to stop")

    def sweep(self) -> int:
        return 0


def run(arguments: list[str]) -> int:
    """The worker's whole life; returns its exit code."""
    KINDS.update(FAKES)
    worker_loop.GRACE_S = 0.7
    worker_loop.MAX_RESTARTS = int(os.environ.get("FAKE_MAX_RESTARTS", "5"))
    worker_loop.FORCE_AFTER_S = 0.5
    worker_loop.LOSS_WAIT_S = 0.02
    worker.TICK_S = 0.05
    worker.PATIENCE_S = 1.0
    leases.MAX_BACKOFF_S = 0.3
    if "--instant" in arguments:
        worker.TICK_S = 0.01
        worker_loop.launcher_of = lambda *_args, **_values: InstantLauncher()
    return worker.main()
