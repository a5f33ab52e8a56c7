"""Runs jobs through Slurm: each start of an attempt is one batch job, and that batch job runs our supervisor (`shim`).

The run folder must lie on a file system that the worker and the nodes share; the exit file in it stays the truth about how an
attempt ended, Slurm only knows whether a start still waits or runs. A start has a name of its own (home, job, attempt, start), by
which it is found again: a worker that was killed between submitting and noting the id finds it in the queue and submits
nothing. Should a second copy slip in all the same (the killed worker's sbatch was still under way), `--dependency=singleton`
lets it begin only when the first has ended, and the supervisor then finds the exit file and leaves.

Signals: scancel sends SIGTERM to the supervisor, which ends every process and writes the exit file; Slurm's KillWait must be
longer than the grace (docs/scaling_training.md). Chosen by the setting `launcher`.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.jobs.launch import endnote
from core.jobs.launch.base import Exit, Lost, NotStarted, Task
from core.jobs.launch.local import SHIM

NOTE = "slurm.json"
#: squeue is asked at most this often; Slurm's own advice is not to ask in a loop
REFRESH_S = 2.0
#: a start that has left the queue without an exit file: how long the file may still be on its way through a network file system
SETTLE_S = 5.0
COMMAND_TIMEOUT_S = 15.0
#: what sbatch says when it is not the job that is wrong
NO_ANSWER = ("contact", "connect", "timed out", "temporarily", "authentication", "munge")
#: the exit code of `training.run` for what a person can mend
EXIT_USER_ERROR = 4


class Refused(Exception):
    """Slurm answered, and does not take this job: no such partition, no such resource, no such account."""


@dataclass(frozen=True, slots=True)
class SlurmOptions:
    """What sbatch is told beside the job: `gres` is asked for by GPU jobs (`none`: nothing), `{n}` being the number of processes."""

    partition: str = ""
    gres: str = "gpu:{n}"
    extra: tuple[str, ...] = ()


@dataclass
class _Listing:
    """What squeue last said about our starts: name -> ids, oldest first. `at` is on the monotonic clock."""

    at: float = -1e9
    ids: dict[str, list[str]] = field(default_factory=dict)


class SlurmLauncher:
    """`runs` is the folder of run folders; only slots in `exclusive` ask for a GPU."""

    name = "slurm"

    def __init__(
        self,
        runs: Path,
        options: SlurmOptions | None = None,
        *,
        grace_s: float = 5.0,
        exclusive: str = "gpu",
        refresh_s: float = REFRESH_S,
        settle_s: float = SETTLE_S,
    ) -> None:
        self.runs = runs.resolve()
        self.options = options or SlurmOptions()
        self.grace_s, self.exclusive, self.refresh_s, self.settle_s = grace_s, exclusive, refresh_s, settle_s
        self.prefix = f"consilium-{hashlib.sha256(str(self.runs).encode()).hexdigest()[:8]}-"
        self._listing = _Listing()
        self._gone_since: dict[str, float] = {}

    def start(self, task: Task) -> None:
        """Submit, unless this start is in the queue already or the attempt has ended. A job that Slurm refuses ends with a sentence.
        OSError: nothing was submitted, as far as is known; the next look at the queue tells."""
        if endnote.read(task) is not None or self._ids(task, is_fresh=True):
            return
        endnote.clear_stale(task)
        self._listing.at = -1e9  # what was listed before says nothing about this start
        try:
            told = _run(self._sbatch(task), self._script(task))
        except Refused as refused:  # asking again would not help: a person must mend the options
            error = {"code": "jobs.slurm_refused", "params": {"reason": str(refused)}}
            (task.run_dir / "error.json").write_text(json.dumps(error))
            endnote.write(task, Exit(EXIT_USER_ERROR))
            return
        self._note(task, told.strip().partition(";")[0])

    def poll(self, task: Task) -> Exit | Lost | NotStarted | None:
        """Exit file first, then the queue, then the exit file again. OSError when Slurm does not answer."""
        name = self.name_of(task)
        ended = endnote.read(task)
        if ended is not None:
            self._gone_since.pop(name, None)
            return ended
        ids = self._ids(task)
        if ids:
            self._gone_since.pop(name, None)
            if self.external_id(task) is None:  # submitted by a worker that was killed before it could note it
                self._note(task, ids[0])
            return None
        if self.external_id(task) is None and not endnote.has_begun(task):
            return NotStarted()
        if time.monotonic() - self._gone_since.setdefault(name, time.monotonic()) < self.settle_s:
            return None
        ended = endnote.read(task)
        if ended is None:
            found = endnote.without_supervisor(task)
            return Lost(lived_s=0.0) if isinstance(found, NotStarted) else found  # cancelled in the queue, or the node went
        return ended

    def terminate(self, task: Task, *, force: bool = False) -> None:
        """SIGTERM through Slurm, which sends SIGKILL after its KillWait; `force`: SIGKILL for everything at once."""
        if force:
            _run([*self._scancel(), "--signal=KILL", "--full", f"--name={self.name_of(task)}"])
        _run([*self._scancel(), f"--name={self.name_of(task)}"])

    def seal(self, task: Task, reason: str) -> None:
        endnote.write(task, Exit(None, was_terminated=True, reason=reason))

    def external_id(self, task: Task) -> str | None:
        """The Slurm job id of this start, as noted in the run folder."""
        try:
            noted = json.loads((task.run_dir / NOTE).read_text())
        except (FileNotFoundError, ValueError):
            return None
        return str(noted["id"]) if (noted["attempt"], noted["start"]) == (task.attempt, task.start) else None

    def running(self) -> dict[int, int]:
        """Every start of this home that Slurm holds, waiting or running."""
        self._refresh(is_fresh=True)
        return {job_id: attempt for job_id, attempt, _ in map(self._parts, self._listing.ids)}

    def stop(self, job_id: int) -> None:
        names = [name for name in self._listing.ids if self._parts(name)[0] == job_id]
        if names:
            _run([*self._scancel(), f"--name={','.join(names)}"])

    def sweep(self) -> int:
        """Slurm itself ends what a batch job leaves behind."""
        return 0

    def name_of(self, task: Task) -> str:
        return f"{self.prefix}{task.job_id}-{task.attempt}-{task.start}"

    def _parts(self, name: str) -> tuple[int, int, int]:
        job_id, attempt, start = name.removeprefix(self.prefix).split("-")
        return int(job_id), int(attempt), int(start)

    def _note(self, task: Task, slurm_id: str) -> None:
        scratch = task.run_dir / f".{NOTE}.{os.getpid()}"
        scratch.write_text(json.dumps({"attempt": task.attempt, "start": task.start, "id": slurm_id, "name": self.name_of(task)}))
        scratch.replace(task.run_dir / NOTE)

    def _sbatch(self, task: Task) -> list[str]:
        run_dir = str(task.run_dir.resolve())
        argv = ["sbatch", "--parsable", f"--job-name={self.name_of(task)}", f"--chdir={task.cwd}", f"--output={run_dir}/log.txt"]
        argv += ["--open-mode=append", "--no-requeue", "--dependency=singleton", "--export=ALL", "--nodes=1"]
        if self.options.partition:
            argv.append(f"--partition={self.options.partition}")
        if self.options.gres not in ("", "none") and task.slot.startswith(self.exclusive):
            argv.append(f"--gres={self.options.gres.replace('{n}', str(task.num_processes))}")
        return [*argv, *self.options.extra]

    def _script(self, task: Task) -> str:
        command = [sys.executable, "-I", "-S", SHIM, "--run-dir", str(task.run_dir.resolve()), "--attempt", str(task.attempt)]
        command += ["--start", str(task.start), "--grace", str(self.grace_s), "--slot-lock", "", "--", *task.argv]
        lines = ["#!/bin/sh", *(f"export {key}={shlex.quote(value)}" for key, value in task.env.items())]
        return "\n".join([*lines, f"exec {shlex.join(command)}", ""])

    def _scancel(self) -> list[str]:
        return ["scancel", "--quiet", f"--user={getpass.getuser()}"]

    def _ids(self, task: Task, *, is_fresh: bool = False) -> list[str]:
        self._refresh(is_fresh=is_fresh)
        return self._listing.ids.get(self.name_of(task), [])

    def _refresh(self, *, is_fresh: bool) -> None:
        """One squeue for all jobs. Kept for `refresh_s`. Raises OSError, and then keeps nothing: an old answer is no answer."""
        now = time.monotonic()
        if not is_fresh and now - self._listing.at < self.refresh_s:
            return
        self._listing = _Listing()
        told = _run(["squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%A|%j"])
        ids: dict[str, list[str]] = {}
        for line in told.splitlines():
            number, _, name = line.strip().partition("|")
            if name.startswith(self.prefix):
                ids.setdefault(name, []).append(number)
        self._listing = _Listing(now, {name: sorted(found, key=int) for name, found in ids.items()})


def is_installed() -> bool:
    """Are Slurm's commands here?"""
    return all(any(os.access(Path(folder) / name, os.X_OK) for folder in os.get_exec_path()) for name in ("sbatch", "squeue", "scancel"))


def _run(argv: Sequence[str], script: str = "") -> str:
    """Run one of Slurm's commands. OSError when it fails or hangs: the worker tries again later."""
    try:
        done = subprocess.run(argv, input=script, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{argv[0]} did not answer within {COMMAND_TIMEOUT_S:.0f} s") from error
    if done.returncode:
        told = " ".join((done.stderr or done.stdout).split())[:300]
        if argv[0] == "sbatch" and not any(word in told.lower() for word in NO_ANSWER):
            raise Refused(told.replace("sbatch: error: ", ""))
        raise OSError(f"{argv[0]}: {told}")
    return done.stdout
