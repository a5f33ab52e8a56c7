"""Runs jobs through Slurm: each start of an attempt is one batch job, and that batch job runs our supervisor (`shim`).

What holds for every queue stands in `core.jobs.launch.queued`. Should a second copy slip in all the same (a killed worker's sbatch
was still under way), `--dependency=singleton` lets it begin only when the first has ended, and the supervisor then finds the
exit file and leaves.

Signals: scancel sends SIGTERM to the supervisor, which ends every process and writes the exit file; Slurm's KillWait must be
longer than the grace (docs/scaling_training.md). Chosen by the setting `launcher`.
"""

from __future__ import annotations

import getpass
import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.jobs.launch.base import Task
from core.jobs.launch.queued import REFRESH_S, SETTLE_S, QueueLauncher, Refused, supervisor_argv

COMMAND_TIMEOUT_S = 15.0
#: what sbatch says when it is not the job that is wrong
NO_ANSWER = ("contact", "connect", "timed out", "temporarily", "authentication", "munge")


@dataclass(frozen=True, slots=True)
class SlurmOptions:
    """What sbatch is told beside the job: `gres` is asked for by GPU jobs (`none`: nothing), `{n}` being the number of processes."""

    partition: str = ""
    gres: str = "gpu:{n}"
    extra: tuple[str, ...] = ()


class SlurmLauncher(QueueLauncher):
    """See `core.jobs.launch.queued`."""

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
        super().__init__(runs, grace_s=grace_s, exclusive=exclusive, refresh_s=refresh_s, settle_s=settle_s)
        self.options = options or SlurmOptions()

    def terminate(self, task: Task, *, force: bool = False) -> None:
        """By name: SIGTERM through Slurm, which sends SIGKILL after its KillWait; `force`: SIGKILL for everything at once."""
        self._cancel({self.name_of(task): []}, force=force)

    def _submit(self, task: Task) -> str:
        return _run(self._sbatch(task), self._script(task)).strip().partition(";")[0]

    def _cancel(self, starts: dict[str, list[str]], *, force: bool) -> None:
        command = ["scancel", "--quiet", f"--user={getpass.getuser()}"]
        if force:
            _run([*command, "--signal=KILL", "--full", f"--name={','.join(starts)}"])
        _run([*command, f"--name={','.join(starts)}"])

    def _list(self) -> dict[str, list[str]]:
        told = _run(["squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%A|%j"])
        ids: dict[str, list[str]] = {}
        for line in told.splitlines():
            number, _, name = line.strip().partition("|")
            if name.startswith(self.prefix):
                ids.setdefault(name, []).append(number)
        return {name: sorted(found, key=int) for name, found in ids.items()}

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
        lines = ["#!/bin/sh", *(f"export {key}={shlex.quote(value)}" for key, value in task.env.items())]
        return "\n".join([*lines, f"exec {shlex.join(supervisor_argv(task, self.grace_s))}", ""])


def is_installed() -> bool:
    """Are Slurm's commands here?"""
    return all(are_here("sbatch", "squeue", "scancel"))


def are_here(*commands: str) -> list[bool]:
    """Of each command: is it on the PATH?"""
    return [any(os.access(Path(folder) / name, os.X_OK) for folder in os.get_exec_path()) for name in commands]


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
