"""What the worker asks of whoever runs a job's command. The job row stays the truth; a launcher only knows processes.

One attempt of one job ends exactly once: with an exit record, or by being sealed, after which nothing can start it again.
Members: `core.jobs.launch.local` (this machine); `slurm`, `ray` and `sky` beside it (somebody else's queue, with its id in the row).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Task:
    """One attempt to be run: `argv` in `cwd` with `env` added to the worker's own environment.

    `start` tells the starts of one attempt apart: the worker raises it when it has taken note of a lost one.
    """

    job_id: int
    attempt: int
    run_dir: Path
    argv: tuple[str, ...]
    cwd: Path
    slot: str
    start: int = 0
    #: processes (one per GPU) that the command will start
    num_processes: int = 1
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Exit:
    """How an attempt ended. `code` is None when a signal ended it; `was_terminated` when we (or a shutdown) asked it to."""

    code: int | None
    signal: int | None = None
    was_terminated: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Lost:
    """This very start left no exit record: its supervisor or the machine was killed. `lived_s` is how long it ran."""

    lived_s: float


@dataclass(frozen=True, slots=True)
class NotStarted:
    """There is no trace of this start: it can be made."""


class Launcher(Protocol):
    """All methods return at once. OSError (disk full, no such folder) means: nothing happened, try again later."""

    @property
    def name(self) -> str:
        """`local`, `slurm`, `ray`, `sky`: stored in the job's row."""

    def start(self, task: Task) -> None:
        """Start the attempt unless it runs or has ended. Harmless when called twice."""

    def poll(self, task: Task) -> Exit | Lost | NotStarted | None:
        """None while it runs or is starting."""

    def terminate(self, task: Task, *, force: bool = False) -> None:
        """Ask it to end: SIGTERM, grace, SIGKILL for every descendant. `force` kills the supervisor as well."""

    def seal(self, task: Task, reason: str) -> None:
        """Write the exit record of an attempt that does not run, so that nothing can start it any more."""

    def external_id(self, task: Task) -> str | None:
        """The id under which somebody else's queue knows this start; None where there is no such queue."""

    def running(self) -> dict[int, int]:
        """Job id -> attempt of everything that runs here, known to the queue or not."""

    def stop(self, job_id: int) -> None:
        """End a job found by `running` that the queue does not know."""

    def sweep(self) -> int:
        """Kill processes whose supervisor is gone. Returns how many."""
